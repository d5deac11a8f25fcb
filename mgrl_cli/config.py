"""Every setting of a run: meaning, unit, range, default. Defaults are the paper's.

Settings are validated, frozen, written to `config.toml` and handed whole to every worker.
Imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mgrl_cli.errors import UsageError, did_you_mean

PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]

# TOML has arrays, not tuples.
_Bounds = Annotated[tuple[_FiniteFloat, _FiniteFloat], Strict(False)]
_LARGEST_POPULATION = 4096

Rule = Literal["learned", "ddpg", "reinforce", "untrained"]
"""What may drive an agent: the learned objective, -Q (DDPG with TD3 tricks), off-policy REINFORCE
with GAE, or a freshly initialised objective network."""
RULES: tuple[Rule, ...] = get_args(Rule)


class _Section(BaseModel):
    # Strict: neither true nor "8" is a number, 1 is not a switch.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EnvConfig(_Section):
    """One training or test environment."""

    id: str
    """Alias (`mgrl envs`) or Gymnasium id."""
    agents: Count = 0
    """How many agents train on it; 0 leaves it to `agents`, round robin."""
    kwargs: dict[str, bool | int | float | str] = {}
    """Keyword arguments of the environment."""
    randomise: dict[str, _Bounds] = {}
    """Physics parameter → (low, high), drawn uniformly for every episode."""


class PolicyConfig(_Section):
    """The deterministic policy π_φ."""

    hidden: Annotated[int, Field(ge=1, le=16_384)] = 350
    """Units of each of the two hidden layers."""
    learning_rate: LearningRate = 1e-3
    """Adam step size."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of a policy gradient."""
    last_layer_scale: PositiveFloat = 1.0
    """Factor on the output layer's initial weights; 0.1 keeps tanh from saturating early."""
    pre_activation_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Outputs before tanh beyond ± this are penalised in real policy updates; 0: no penalty."""


class CriticConfig(_Section):
    """The twin critics Q_θ (TD3)."""

    hidden: Annotated[int, Field(ge=1, le=16_384)] = 350
    """Units of each of the two hidden layers."""
    learning_rate: LearningRate = 1e-3
    """Adam step size; critic gradients are not clipped."""
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


class WindowConfig(_Section):
    """Batches of windows drawn from replay."""

    batch: Annotated[int, Field(ge=1, le=10**6)] = 100
    """B, windows per batch."""
    steps: Annotated[int, Field(ge=2, le=1000)] = 20
    """T, steps per window."""
    sample_by: Literal["start", "inside", "episode"] = "start"
    """Any stored step starts a window; or only starts whose window fits; or episode first."""
    mean_over_padding: bool = False
    """Divide losses by padded steps too, as the reference code does."""


class ExplorationConfig(_Section):
    """How agents act while they collect."""

    noise: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Standard deviation of the Gaussian noise, in units of the [-1, 1] action."""
    random_steps: Count = 10_000
    """The first env steps of an agent's life act uniformly at random."""


class ScheduleConfig(_Section):
    """Rounds of play and updates, the same for every agent."""

    round_steps: Annotated[int, Field(ge=1, le=10**6)] = 1000
    """Env steps (and updates) per round."""
    updates_start: Count = 0
    """An agent updates in rounds that end at this env step of its life or later."""
    policy_interval: PositiveInt = 2
    """Policy, targets and objective are updated every this many critic updates."""


class ObjectiveConfig(_Section):
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


class MetaConfig(_Section):
    """The meta-gradient."""

    anneal_steps: Count = 10_000
    """Env steps over which the objective takes over from the critic; 0: at once."""
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


class ReplayConfig(_Section):
    """Each agent's own replay."""

    capacity: PositiveInt = 1_000_000
    """Transitions kept in memory for sampling; the log on disk keeps all."""


class EvaluationConfig(_Section):
    """Noise-free evaluation on separate environment instances."""

    interval: Count = 5000
    """Env steps between evaluations; 0: none."""
    episodes: PositiveInt = 10
    """Episodes per evaluation."""


class CheckpointConfig(_Section):
    """When a run is saved; never changes its results."""

    interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """Least seconds between checkpoints at round ends; 0: one at every round end."""
    keep: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Newest checkpoints kept; the best one is kept besides."""


class SupervisionConfig(_Section):
    """What is tolerated from workers and agents before one is taken out of the population."""

    max_restarts: Count = 3
    """Deaths in a row, without a checkpoint in between, that an agent may cause."""
    hang_timeout_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300.0
    """A worker without any sign of life for so long is taken for dead; longer than one episode."""
    max_failed_episodes: PositiveInt = 20
    """Episodes in a row that may be dropped because the environment failed."""
    max_skipped_updates: PositiveInt = 100
    """Updates or meta-gradients in a row that may be skipped because they were not finite."""


class RunConfig(_Section):
    """Everything that decides a run's results, and how it is kept safe."""

    kind: Literal["meta-train", "meta-test"]
    preset: Literal["smoke", "laptop", "paper"]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Root of every random stream of the run."""
    steps: PositiveInt
    """Env steps per agent."""
    envs: Annotated[list[EnvConfig], Field(min_length=1)]
    agents: Annotated[int, Field(ge=1, le=_LARGEST_POPULATION)] = 20
    """Population size; in a meta-test rules × seeds."""
    rules: Annotated[list[Rule], Field(min_length=1)] = ["learned"]
    """Meta-test: what is compared, the same seeds for each."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Meta-test: fresh agents per rule."""
    policy: PolicyConfig = PolicyConfig()
    critic: CriticConfig = CriticConfig()
    windows: WindowConfig = WindowConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    meta: MetaConfig = MetaConfig()
    replay: ReplayConfig = ReplayConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    compiled: bool = True
    """Use compiled kernels where numba is installed; equal to plain torch up to rounding."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        counted = sum(env.agents for env in self.envs)
        if counted > _LARGEST_POPULATION:
            raise ValueError(f"envs make {counted} agents, expected at most {_LARGEST_POPULATION}")
        if len(set(self.rules)) < len(self.rules):
            raise ValueError(f"rules {self.rules} name one twice, expected each once")
        if self.schedule.policy_interval > self.schedule.round_steps:
            raise ValueError(
                f"schedule.policy_interval={self.schedule.policy_interval} is longer than a round, "
                f"expected at most schedule.round_steps={self.schedule.round_steps}"
            )
        if self.kind == "meta-test" and len(self.envs) != 1:
            raise ValueError(f"a meta-test takes one environment, got {len(self.envs)}")
        if self.kind == "meta-train" and counted == 0 and self.agents < len(self.envs):
            raise ValueError(
                f"agents={self.agents} for {len(self.envs)} environments: every environment needs "
                "at least one agent; raise --agents or drop environments"
            )
        if self.kind == "meta-train" and counted and any(env.agents == 0 for env in self.envs):
            raise ValueError("give a number of agents for every environment or for none")
        if self.kind == "meta-train" and counted and counted != self.agents:
            raise ValueError(f"agents={self.agents} contradicts envs, which make {counted}")
        return self

    @property
    def num_rounds(self) -> int:
        """Rounds of the whole run."""
        return -(-self.steps // self.schedule.round_steps)

    def environment_of(self, agent_id: int) -> EnvConfig:
        """Return the environment of agent i: by counts where given, else number i mod E."""
        if any(env.agents for env in self.envs):
            for env in self.envs:
                if agent_id < env.agents:
                    return env
                agent_id -= env.agents
        return self.envs[agent_id % len(self.envs)]


def validate_config(settings: Mapping[str, Any], *, source: str = "configuration") -> RunConfig:
    """Return `settings` as a RunConfig; UsageError names the first key that is wrong and why."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise UsageError(f"invalid {source}: {_explain(error.errors()[0])}") from error


def _explain(problem: ErrorDetails) -> str:
    """Return one line for a pydantic error: dotted key, what was wrong, what was got."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{did_you_mean(location[-1], _known_keys(location[:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not key:
        return message
    if problem["type"] == "missing":
        return f"'{key}' is missing; give it as an option, with --set or in --config"
    return f"'{key}': {message}, got {problem['input']!r:.80}"


def _known_keys(location: Sequence[str]) -> list[str]:
    """Return the keys allowed at a dotted location."""
    model: type[BaseModel] = RunConfig
    for part in location:
        if part.isdigit():
            model = EnvConfig
            continue
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
