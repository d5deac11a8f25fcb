import math
from dataclasses import replace

import pytest

from mgrl_cli.plots.data import PopulationRow
from mgrl_cli.plots.population import draw_population, population_height
from mgrl_cli.plots.style import PAGE_WIDTH, new_figure


def test_panels_are_environments_then_diagnostics(population: list[PopulationRow]):
    with new_figure(PAGE_WIDTH, population_height(population)) as figure:
        draw_population(figure, population)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "cheetah",
        "lunar",
        "gain of the virtual step (units of Q)",
        "cosine with the critic's policy gradient",
        "action slack, mean of 1 − a²",
        "raw meta-gradient norm",
    ]


def test_returns_show_training_and_evaluation_of_each_agent(population: list[PopulationRow]):
    with new_figure(PAGE_WIDTH, 6.0) as figure:
        draw_population(figure, population)
        lines = figure.axes[1].get_lines()
    # Agents 0 and 2 on lunar: six training rounds each, then three evaluations each.
    assert [len(line.get_xdata()) for line in lines] == [6, 6, 3, 3]
    assert {line.get_color() for line in lines} == {"#4477AA"}


def test_meta_gradient_is_drawn_with_its_geometric_mean(population: list[PopulationRow]):
    with new_figure(PAGE_WIDTH, 6.0) as figure:
        draw_population(figure, population)
        axes = figure.axes[-1]
        means = [line for line in axes.get_lines() if line.get_alpha() is None]
        assert axes.get_yscale() == "log"
        assert axes.get_ylim() == (0.01, 0.1)
    # lunar: agents 0 and 2 with norms 0.02 and 0.06.
    assert means[1].get_ydata()[0] == pytest.approx(math.sqrt(0.02 * 0.06))


def test_environment_has_one_colour_in_every_panel(population: list[PopulationRow]):
    with new_figure(PAGE_WIDTH, 6.0) as figure:
        draw_population(figure, population)
        for axes in figure.axes[2:]:
            colors = {line.get_color() for line in axes.get_lines()}
            assert {"#EE6677", "#4477AA"} <= colors


def test_figures_never_measured_are_said_to_be_missing(population: list[PopulationRow]):
    rows = [replace(row, cosine=math.nan) for row in population]
    with new_figure(PAGE_WIDTH, 6.0) as figure:
        draw_population(figure, rows)
        texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [[], [], [], ["not measured"], [], []]


def test_figures_that_are_always_zero_are_drawn(population: list[PopulationRow]):
    rows = [replace(row, gain=0.0, meta_gradient_norm=0.0) for row in population]
    with new_figure(PAGE_WIDTH, 6.0) as figure:
        draw_population(figure, rows)
        assert figure.axes[2].get_yscale() == "linear"
        assert figure.axes[5].texts[0].get_text() == "not measured"


def test_seven_environments_take_three_lines(population: list[PopulationRow]):
    rows = [replace(population[0], environment=f"task-{index}") for index in range(7)]
    with new_figure(PAGE_WIDTH, population_height(rows)) as figure:
        draw_population(figure, rows)
        assert len(figure.axes) == 11
        assert figure.axes[0].get_gridspec().nrows == 5
