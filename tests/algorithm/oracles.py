"""Slow NumPy versions of the equations, one loop per index, for tests to compare with.

Written from the equations and not from our code: it must import nothing of `mgrl_cli` and no torch.
Parameters come as name → array, weights [in, out]. `length` is the number of valid steps of a
window; windows are padded at the end.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray
Parameters = dict[str, Array]


class Signals(NamedTuple):
    """What an objective sees of windows besides actions; arrays [batch, time]."""

    reward: Array
    value: Array
    next_value: Array
    terminated: Array
    lengths: list[int]


def layer_norm(x: Array, gain: Array, bias: Array) -> Array:
    mean = sum(x) / len(x)
    variance = sum((unit - mean) ** 2 for unit in x) / len(x)
    return (x - mean) / np.sqrt(variance + 1e-5) * gain + bias


def linear(parameters: Parameters, name: str, x: Array) -> Array:
    return np.dot(x, parameters[f"{name}.weight"]) + parameters[f"{name}.bias"]


def norm(parameters: Parameters, name: str, x: Array) -> Array:
    return layer_norm(x, parameters[f"{name}.gain"], parameters[f"{name}.bias"])


def mixed(x: Array) -> Array:
    half = len(x) // 2
    return np.array([max(u, 0.0) if i < half else u * u for i, u in enumerate(x)])


def sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def trunk(parameters: Parameters, x: Array) -> Array:
    """Two times [linear, ReLU, LayerNorm], then the output layer; one row."""
    for layer in ("1", "2"):
        x = norm(
            parameters, f"norm_{layer}", np.maximum(linear(parameters, f"linear_{layer}", x), 0)
        )
    return linear(parameters, "output", x)


def policy_action(parameters: Parameters, obs: Array) -> Array:
    """π_φ(s) of one observation."""
    return np.tanh(trunk(parameters, obs))


def q_value(parameters: Parameters, obs: Array, action: Array) -> float:
    """Q_θ(s, a) of one pair."""
    return float(trunk(parameters, np.concatenate([obs, action]))[0])


def valid_entries(x: Array, lengths: list[int]) -> list[float]:
    return [x[b, t] for b, length in enumerate(lengths) for t in range(length)]


def mean_and_scale(x: Array, lengths: list[int]) -> tuple[float, float]:
    """Mean and 1 / sqrt(population variance + 1e-8) over valid steps."""
    entries = valid_entries(x, lengths)
    mean = sum(entries) / len(entries)
    variance = sum((entry - mean) ** 2 for entry in entries) / len(entries)
    return mean, 1.0 / np.sqrt(variance + 1e-8)


def signal_inputs(
    signals: Signals,
    b: int,
    t: int,
    *,
    terminal_value: str,
    without: tuple[str, ...] = (),
    normalise: bool = True,
) -> Array:
    """(r̃_t, t/T, Ṽ'_t, Ṽ_t) of one step; zeros where it is padding or left out."""
    steps = signals.reward.shape[1]
    if t >= signals.lengths[b]:
        return np.zeros(4)
    reward_mean, reward_scale = mean_and_scale(signals.reward, signals.lengths)
    value_mean, value_scale = mean_and_scale(signals.value, signals.lengths)
    if not normalise:
        reward_mean, reward_scale, value_mean, value_scale = 0.0, 1.0, 0.0, 1.0
    next_value = (signals.next_value[b, t] - value_mean) * value_scale
    if signals.terminated[b, t]:
        # Either a true value of zero on the batch's scale, or the batch's mean value.
        next_value = -value_mean * value_scale if terminal_value == "zero" else 0.0
    inputs = {
        "reward": (signals.reward[b, t] - reward_mean) * reward_scale,
        "time": t / steps,
        "next_value": next_value,
        "value": (signals.value[b, t] - value_mean) * value_scale,
    }
    return np.array([0.0 if name in without else x for name, x in inputs.items()])


def action_features(parameters: Parameters, action: Array, policy: Array) -> Array:
    """e_t of one step: the shared network on every dimension's pair, averaged."""
    outputs: list[Array] = []
    for pair in zip(action, policy, strict=True):
        x = np.array(pair)
        for layer in (1, 2, 3):
            x = mixed(linear(parameters, f"action.linear_{layer}", x))
            x = norm(parameters, f"action.norm_{layer}", x)
        outputs.append(x)
    return sum(outputs) / len(outputs)


def signal_features(parameters: Parameters, inputs: Array) -> Array:
    """f_t of one step."""
    x = inputs
    for layer in (1, 2):
        x = mixed(linear(parameters, f"signal.linear_{layer}", x))
    return linear(parameters, "signal.output", x)


def lstm_cell(parameters: Parameters, x: Array, hidden: Array, cell: Array) -> tuple[Array, Array]:
    """One step of an LSTM with one joint kernel and gates i, g, f, o; f is opened by a constant."""
    gates = linear(parameters, "lstm", np.concatenate([x, hidden]))
    i, g, f, o = np.split(gates, 4)
    cell = sigmoid(f + 1.0) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def objective_head(parameters: Parameters, hidden: Array, bound: float) -> float:
    x = hidden
    for layer in (1, 2):
        x = mixed(linear(parameters, f"head.linear_{layer}", x))
        x = norm(parameters, f"head.norm_{layer}", x)
    return bound * np.tanh(linear(parameters, "head.output", x)[0] / bound)


def objective_losses(
    parameters: Parameters,
    action: Array,
    policy: Array,
    signals: Signals,
    *,
    bound: float = 1000.0,
    terminal_value: str = "zero",
    padding_first: bool = False,
    without: tuple[str, ...] = (),
    normalise: bool = True,
) -> Array:
    """ℓ_t of every step [batch, time]; NaN where a step is padding."""
    batch, steps = signals.reward.shape
    width = len(parameters["head.output.weight"])
    losses = np.full((batch, steps), np.nan)
    for b, length in enumerate(signals.lengths):
        last = steps - 1 if padding_first else length - 1
        outputs = [np.zeros(width) for _ in range(steps)]
        hidden, cell = np.zeros(width), np.zeros(width)
        for t in range(last, last - length, -1):
            inputs = signal_inputs(
                signals,
                b,
                t,
                terminal_value=terminal_value,
                without=without,
                normalise=normalise,
            )
            features = np.concatenate(
                [
                    action_features(parameters, action[b, t], policy[b, t]),
                    signal_features(parameters, inputs),
                ]
            )
            hidden, cell = lstm_cell(parameters, features, hidden, cell)
            outputs[t] = hidden
        for t in range(length):
            losses[b, t] = objective_head(parameters, outputs[t], bound)
    return losses


def advantages(
    signals: Signals, *, discount: float, trace_decay: float, terminal_bonus: float = 0.0
) -> Array:
    """Â_t as the explicit sum Σ_k (γλ)^k δ_{t+k} over the valid rest of the window."""
    result = np.zeros_like(signals.reward)
    for b, length in enumerate(signals.lengths):
        for t in range(length):
            for k in range(length - t):
                target = signals.reward[b, t + k]
                if signals.terminated[b, t + k]:
                    target += terminal_bonus
                else:
                    target += discount * signals.next_value[b, t + k]
                delta = target - signals.value[b, t + k]
                result[b, t] += (discount * trace_decay) ** k * delta
    return result


def importance_weighted_losses(
    raw_action: Array,
    policy: Array,
    log_behaviour: Array,
    advantage: Array,
    lengths: list[int],
    *,
    noise: float,
    weight_clip: float | None,
) -> Array:
    """-ρ̄_t Â_t log N(a_t; π(s_t), σ²) with ρ̄_t as a plain product of densities; 0 at padding."""
    result = np.zeros_like(advantage)
    for b, length in enumerate(lengths):
        weight = 1.0
        for t in range(length):
            density = 1.0
            for a, mean in zip(raw_action[b, t], policy[b, t], strict=True):
                exponent = -((a - mean) ** 2) / (2 * noise**2)
                density *= np.exp(exponent) / np.sqrt(2 * np.pi * noise**2)
            weight *= density / np.exp(log_behaviour[b, t])
            used = weight if weight_clip is None else min(weight, weight_clip)
            result[b, t] = -used * advantage[b, t] * np.log(density)
    return result


def critic_targets(
    reward: Array, terminated: Array, next_q: Array, *, discount: float, terminal_bonus: float = 0.0
) -> Array:
    """Y of every row; next_q is [2, rows]."""
    rows: list[float] = []
    for row, (r, is_terminal) in enumerate(zip(reward, terminated, strict=True)):
        bootstrap = discount * min(next_q[0, row], next_q[1, row])
        rows.append(r + terminal_bonus if is_terminal else r + bootstrap)
    return np.array(rows)


def meta_loss(policy: Parameters, critic: Parameters, obs: Array, lengths: list[int]) -> float:
    """J = -mean Q_θ1(s, π_φ(s)) over valid steps; obs [batch, time + 1, obs]."""
    values = [
        q_value(critic, obs[b, t], policy_action(policy, obs[b, t]))
        for b, length in enumerate(lengths)
        for t in range(length)
    ]
    return -sum(values) / len(values)
