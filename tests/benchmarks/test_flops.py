import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.agent_step import pairs
from benchmarks.flops import MatrixProduct, Trunk, objective_flop, step_flop
from benchmarks.meta_gradient import plain
from benchmarks.problems import Size, meta_setup
from mgrl_cli.algorithm.objective_network import ObjectiveSignals

TINY = Size("tiny", 8, 4, 5)


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_network_of_two_inputs_three_units_and_one_output():
    # Matrices of 6, 9 and 3 entries; the two above the first have 12.
    network = Trunk(2, 3, 1)
    assert network.forward == 2 * 18
    assert network.parameter_gradient == 2 * (18 + 12)
    assert network.input_gradient == 2 * 18
    assert network.parameter_tangent == 2 * (18 + 12)


def test_objective_of_one_action_dimension():
    # action 2·32 + 2·32², signals 4·32 + 32² + 32·8, LSTM 72·128, head 2·32² + 32
    objective = objective_flop(1)
    assert objective.forward == 2 * (2112 + 1408 + 9216 + 2080)
    # without the replayed action (32) and without what the signals need
    assert objective.adjoint == 2 * (2080 + 64 * 128 + 2080)


def test_more_action_dimensions_cost_the_action_network_only():
    more = objective_flop(4).forward - objective_flop(1).forward
    assert more == 3 * 2 * 2112


def test_networks_of_the_plain_meta_gradient_as_torch_counts_them():
    setup = meta_setup(TINY)
    windows = setup.batches[1]
    action = windows.action.clone().requires_grad_()
    alpha = setup.params.clone().requires_grad_()
    flags = windows.terminated, windows.is_valid
    signals = ObjectiveSignals(windows.reward, windows.reward, windows.reward, *flags)

    def objective_alone():
        losses = setup.problem.objective(alpha, windows.action, action, signals)
        (adjoint,) = torch.autograd.grad(losses.sum(), action, create_graph=True)
        torch.autograd.grad(adjoint.sum(), alpha)

    flop = step_flop(TINY)
    networks = flop.meta_gradient - flop.objective_of_meta_gradient
    assert counted(plain(setup)) - counted(objective_alone) == networks


def test_plain_meta_gradient_needs_little_more():
    needed = step_flop(TINY).meta_gradient
    assert needed <= counted(plain(meta_setup(TINY))) <= 1.05 * needed


def test_plain_agent_step_needs_little_more():
    _, plain_pair = pairs(TINY)
    needed = 2 * step_flop(TINY).agent_step
    assert needed <= counted(plain_pair) <= 1.05 * needed


def test_matrix_product_of_size_three():
    product = MatrixProduct(3)
    product()
    assert product.flop == counted(product) == 54
