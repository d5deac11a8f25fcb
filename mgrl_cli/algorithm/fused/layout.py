"""Where the fused objective finds things: parameters inside the flat α, slots inside its arrays."""

from math import prod

from mgrl_cli.algorithm.fused.kernels import WIDTH
from mgrl_cli.algorithm.fused.lstm import GATES
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork

SIGNALS = 8
FEATURES = WIDTH + SIGNALS
SQUARE = WIDTH * WIDTH


def _starts() -> dict[str, int]:
    """Return where every named tensor begins inside the flat α."""
    starts: dict[str, int] = {}
    start = 0
    for name, shape in ObjectiveNetwork().layout.shapes.items():
        starts[name] = start
        start += prod(shape)
    return starts


_STARTS = _starts()
# Global tuples and numbers are constants to numba; a dictionary is not.
ACTION = tuple(_STARTS[f"action.linear_{k}.weight"] for k in (1, 2, 3))
ACTION_BIAS = tuple(_STARTS[f"action.linear_{k}.bias"] for k in (1, 2, 3))
HEAD = tuple(_STARTS[f"head.linear_{k}.weight"] for k in (1, 2))
SIGNAL_1, SIGNAL_2 = _STARTS["signal.linear_1.weight"], _STARTS["signal.linear_2.weight"]
SIGNAL_OUT, HEAD_OUT = _STARTS["signal.output.weight"], _STARTS["head.output.weight"]
LSTM_INPUT = _STARTS["lstm.weight"]
LSTM_STATE = LSTM_INPUT + FEATURES * GATES
LSTM_BIAS = _STARTS["lstm.bias"]

# Slots of an action pair: replayed action, policy's action, its tangent, its adjoint.
REPLAYED, CHOSEN, CHOSEN_D, D_CHOSEN = range(4)
# Slots of the head's output: ℓ / b, weight, adjoint of the output, tangent of the output.
SQUASHED, WEIGHT, D_OUTPUT, OUTPUT_D = range(4)
