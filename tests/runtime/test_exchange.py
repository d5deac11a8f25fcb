import numpy as np
import pytest
import torch

from mgrl_cli.runtime.exchange import Exchange
from mgrl_cli.runtime.stop import StopRequest

SIZE = 519
"""More than two blocks of the kernels."""


def make_exchange(
    num_agents: int = 3, learning_rate: float = 0.1, *, compiled: bool = True
) -> tuple[Exchange, StopRequest]:
    stop = StopRequest()
    params = torch.linspace(-1, 1, SIZE)
    exchange = Exchange(
        params,
        num_agents,
        learning_rate=learning_rate,
        num_workers=1,
        stop=stop,
        compiled=compiled,
    )
    return exchange, stop


def gradients(seed: int, count: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=SIZE).astype(np.float32)) for _ in range(count)]


@pytest.mark.parametrize("compiled", [True, False])
def test_objective_follows_torch_adam_on_the_mean_gradient(compiled: bool) -> None:
    exchange, _ = make_exchange(compiled=compiled)
    reference = torch.linspace(-1, 1, SIZE).requires_grad_()
    adam = torch.optim.Adam([reference], lr=0.1)
    for step in range(5):
        contributions = gradients(step, 3)
        for agent_id, gradient in enumerate(contributions):
            assert exchange.contribute(agent_id, gradient)
        exchange.meet()
        reference.grad = torch.stack(contributions).double().mean(0).float()
        adam.step()
    torch.testing.assert_close(exchange.params, reference.detach(), rtol=1e-6, atol=1e-7)
    assert exchange.status.version == 5


def test_result_does_not_depend_on_the_order_of_arrival() -> None:
    forwards, _ = make_exchange()
    backwards, _ = make_exchange()
    contributions = gradients(0, 3)
    for agent_id in (0, 1, 2):
        forwards.contribute(agent_id, contributions[agent_id])
    for agent_id in (2, 0, 1):
        backwards.contribute(agent_id, contributions[agent_id])
    forwards.meet()
    backwards.meet()
    assert torch.equal(forwards.params, backwards.params)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_poisoned_gradient_counts_as_if_its_agent_had_abstained(poison: float) -> None:
    poisoned, _ = make_exchange()
    abstained, _ = make_exchange()
    contributions = gradients(0, 3)
    for agent_id in (0, 2):
        poisoned.contribute(agent_id, contributions[agent_id])
        abstained.contribute(agent_id, contributions[agent_id])
    bad = contributions[1].clone()
    bad[3] = poison
    assert not poisoned.contribute(1, bad)
    poisoned.meet()
    abstained.meet()
    assert torch.equal(poisoned.params, abstained.params)
    assert poisoned.status.skipped_gradients == 1
    assert poisoned.status.barren_meetings == 0


def test_meeting_where_every_gradient_is_poisoned_changes_nothing_and_is_counted() -> None:
    exchange, _ = make_exchange()
    before = exchange.params.clone()
    for meeting in (1, 2):
        for agent_id in range(3):
            exchange.contribute(agent_id, torch.full((SIZE,), torch.nan))
        exchange.meet()
        assert exchange.status.barren_meetings == meeting
    assert torch.equal(exchange.params, before)
    assert exchange.status.version == 0
    exchange.contribute(0, gradients(0, 1)[0])
    exchange.meet()
    assert exchange.status.barren_meetings == 0


def test_slots_are_empty_again_after_a_meeting() -> None:
    exchange, _ = make_exchange()
    exchange.contribute(0, gradients(0, 1)[0])
    exchange.meet()
    before = exchange.params.clone()
    exchange.meet()
    assert torch.equal(exchange.params, before)
    assert exchange.status.version == 1


def test_stop_is_agreed_at_the_next_meeting() -> None:
    exchange, stop = make_exchange()
    assert not exchange.meet()
    stop.request()
    assert exchange.meet()
