"""The sections of a run's settings, one class each: meaning, unit, range, default.

Imports no torch.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]

# TOML has arrays, not tuples.
_Bounds = Annotated[tuple[_FiniteFloat, _FiniteFloat], Strict(False)]
_Initialisation = Literal["glorot", "fan_in"]
_OptionalInput = Literal["time", "next_value", "value"]


class Section(BaseModel):
    """A table of `config.toml`: unknown keys and values of another type are refused."""

    # Strict: neither true nor "8" is a number, 1 is not a switch.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EnvConfig(Section):
    """One training or test environment."""

    id: str
    """Alias (`mgrl envs`) or Gymnasium id."""
    agents: Count = 0
    """How many agents train on it; 0 leaves it to `agents`, round robin."""
    kwargs: dict[str, bool | int | float | str] = {}
    """Keyword arguments of the environment."""
    randomise: dict[str, _Bounds] = {}
    """Physics parameter → (low, high), drawn uniformly for every episode."""


class PolicyConfig(Section):
    """The deterministic policy π_φ."""

    hidden: Annotated[int, Field(ge=1, le=16_384)] = 350
    """Units of each of the two hidden layers."""
    learning_rate: LearningRate = 1e-3
    """Adam step size."""
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Largest norm of a policy gradient; 0: any."""
    layer_norm: bool = True
    """LayerNorm after each ReLU (paper); kernels support no other body."""
    initialisation: _Initialisation = "glorot"
    """Weights Glorot-uniform and biases zero, or both uniform in ±1/√inputs (PyTorch)."""
    last_layer_scale: PositiveFloat = 1.0
    """Factor on the output layer's initial weights; 0.1 keeps tanh from saturating early."""
    pre_activation_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Outputs before tanh beyond ± this are penalised in real policy updates; 0: no penalty."""


class CriticConfig(Section):
    """The twin critics Q_θ (TD3)."""

    hidden: Annotated[int, Field(ge=1, le=16_384)] = 350
    """Units of each of the two hidden layers."""
    learning_rate: LearningRate = 1e-3
    """Adam step size; critic gradients are not clipped."""
    layer_norm: bool = True
    """LayerNorm after each ReLU (paper); kernels support no other body."""
    initialisation: _Initialisation = "glorot"
    """As `policy.initialisation`."""
    batch: Literal["windows", "transitions"] = "windows"
    """Critic batches are whole windows, or as many independent transitions."""
    discount: Fraction = 0.99
    """γ per env step."""
    polyak: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Rate at which all targets follow, once per policy update."""
    target_noise: Annotated[float, Field(ge=0, le=10)] = 0.2
    """Standard deviation of the noise on target actions."""
    target_noise_clip: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Largest absolute noise on target actions."""
    terminal_bonus: bool = False
    """Add 1 to the target of a terminal step, as the reference code does."""
    timeout_is_terminal: bool = False
    """Treat a time limit as a terminal state, as the reference code does."""


class WindowConfig(Section):
    """Batches of windows drawn from replay."""

    batch: Annotated[int, Field(ge=1, le=10**6)] = 100
    """B, windows per batch."""
    steps: Annotated[int, Field(ge=2, le=1000)] = 20
    """T, steps per window."""
    sample_by: Literal["start", "inside", "episode"] = "start"
    """Any stored step starts a window; or only starts whose window fits; or episode first."""
    mean_over_padding: bool = False
    """Divide losses by padded steps too, as the reference code does."""


class ExplorationConfig(Section):
    """How agents act while they collect."""

    noise: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Standard deviation of the Gaussian noise, in units of the [-1, 1] action."""
    random_steps: Count = 10_000
    """The first env steps of an agent's life act uniformly at random."""


class ScheduleConfig(Section):
    """Rounds of play and updates, the same for every agent."""

    round_steps: Annotated[int, Field(ge=1, le=10**6)] = 1000
    """Env steps (and updates) per round."""
    updates_start: Count = 0
    """An agent updates in rounds that end at this env step of its life or later."""
    policy_interval: PositiveInt = 2
    """Policy, targets and objective are updated every this many critic updates."""


class ObjectiveConfig(Section):
    """The learned objective L_α."""

    learning_rate: LearningRate = 1e-3
    """Adam step size of α."""
    last_layer: Literal["plain", "zero"] = "plain"
    """Initial output layer; zero starts from an objective that asks for nothing."""
    terminal_value: Literal["zero", "mean"] = "zero"
    """Next value shown at a terminal step: zero, or the batch mean (reference code)."""
    bound: PositiveFloat = 1000.0
    """Losses lie in (-bound, bound)."""
    padding_first: bool = False
    """Let padding enter the reversed LSTM first, as the reference code does."""
    without: list[_OptionalInput] = []
    """Inputs that are shown as zeros (ablation)."""
    normalise: bool = True
    """Show rewards and values as normalised over the batch; false: as they are (ablation)."""

    @field_validator("without")
    @classmethod
    def _in_one_order(cls, names: list[_OptionalInput]) -> list[_OptionalInput]:
        return [name for name in get_args(_OptionalInput) if name in names]


class MetaConfig(Section):
    """The meta-gradient."""

    anneal_steps: Count = 10_000
    """Env steps over which the objective takes over from the critic; 0: at once."""
    anneal_by: Literal["critic", "learning_rate"] = "critic"
    """Until then mix in -Q, or let the policy's learning rate grow exponentially from 0."""
    inner_steps: Annotated[int, Field(ge=1, le=10)] = 1
    """K, virtual steps."""
    inner_step: Literal["sum", "unit"] = "sum"
    """Virtual step: SGD on the sum over all valid steps (paper), or of fixed length."""
    inner_step_size: PositiveFloat = 1e-3
    """η of the virtual step."""
    gradient_scale: Literal["clip", "unit"] = "clip"
    """Each agent's meta-gradient is clipped to `clip_norm`, or scaled to unit norm."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of one agent's meta-gradient."""
    lifetime: Count = 0
    """Env steps after which an agent starts anew, ends staggered over the population; 0: never."""
    reset: Literal["policy", "agent"] = "policy"
    """A new life renews the policy only, or critic and replay too."""


class ReplayConfig(Section):
    """Each agent's own replay."""

    capacity: PositiveInt = 1_000_000
    """Transitions kept in memory for sampling; the log on disk keeps all."""


class EvaluationConfig(Section):
    """Noise-free evaluation on separate environment instances."""

    interval: Count = 5000
    """Env steps between evaluations; 0: none."""
    episodes: PositiveInt = 10
    """Episodes per evaluation."""


class ValidationConfig(Section):
    """Tests of the objective on fresh agents while it is meta-trained; never change the training.

    In a meta-test: not used.
    """

    envs: list[str] = []
    """Environments to test on, by alias or Gymnasium id; none: no validation."""
    interval: PositiveInt = 10
    """Rounds between validations; there is one at the run's end too."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """Fresh agents per environment, with the same seeds every time."""
    steps: PositiveInt = 40_000
    """Env steps of a fresh agent; where it is not given, those of a meta-test by the preset."""
    patience: Count = 0
    """Validations after the best one that end the run; 0: it goes on to its last round."""


class CheckpointConfig(Section):
    """When a run is saved; never changes its results."""

    interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """Least seconds between checkpoints at round ends; 0: one at every round end."""
    keep: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Newest checkpoints kept; the best one is kept besides."""


class SupervisionConfig(Section):
    """What is tolerated from workers and agents before one is taken out of the population."""

    max_restarts: Count = 3
    """Deaths in a row, without a checkpoint in between, that an agent may cause."""
    hang_timeout_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300.0
    """A worker without any sign of life for so long is taken for dead.

    Longer than one env step, one update, and the learning from one rollout of "ppo".
    """
    max_failed_episodes: PositiveInt = 20
    """Episodes in a row that may be dropped because the environment failed."""
    max_skipped_updates: PositiveInt = 100
    """Updates or meta-gradients in a row that may be skipped because they were not finite."""
