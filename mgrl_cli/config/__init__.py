"""Every setting of a run: meaning, unit, range, default. Defaults are the paper's.

Settings are validated, frozen, written to `config.toml` and handed whole to every worker.
Imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mgrl_cli.config.rules import (
    BASELINES,
    ON_POLICY,
    RULES,
    PpoConfig,
    ReinforceConfig,
    Rule,
    Td3Config,
    VpgConfig,
)
from mgrl_cli.config.sections import (
    CheckpointConfig,
    Count,
    CriticConfig,
    EnvConfig,
    EvaluationConfig,
    ExplorationConfig,
    MetaConfig,
    ObjectiveConfig,
    PolicyConfig,
    PositiveInt,
    ReplayConfig,
    ScheduleConfig,
    Section,
    SupervisionConfig,
    ValidationConfig,
    WindowConfig,
)
from mgrl_cli.errors import UsageError, did_you_mean

__all__ = [
    "BASELINES",
    "ON_POLICY",
    "RULES",
    "Count",
    "EnvConfig",
    "Rule",
    "RunConfig",
    "SupervisionConfig",
    "validate_config",
]

_LARGEST_POPULATION = 4096


class RunConfig(Section):
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
    rules: Annotated[list[Rule], Field(min_length=1)] = ["learned"]  # noqa: RUF012 - pydantic copies
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
    td3: Td3Config = Td3Config()
    reinforce: ReinforceConfig = ReinforceConfig()
    vpg: VpgConfig = VpgConfig()
    ppo: PpoConfig = PpoConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    validation: ValidationConfig = ValidationConfig()
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

    @model_validator(mode="after")
    def _has_densities(self) -> Self:
        weighted = [rule for rule in self.rules if rule.startswith("reinforce-is")]
        if weighted and self.exploration.noise == 0:
            raise ValueError(
                f"exploration.noise=0 leaves actions without a density, expected more for the "
                f"importance weights of {weighted[0]}"
            )
        return self

    @model_validator(mode="after")
    def _can_validate(self) -> Self:
        envs, steps = self.validation.envs, self.validation.steps
        if self.kind != "meta-train" or not envs:
            return self
        if len(set(envs)) < len(envs):
            raise ValueError(f"validation.envs {envs} name one twice, expected each once")
        if not 1 <= self.evaluation.interval <= steps:
            raise ValueError(
                f"evaluation.interval={self.evaluation.interval} leaves a validation of {steps} "
                "env steps without a score, expected at least 1 and at most validation.steps"
            )
        return self

    @property
    def needs_objective(self) -> bool:
        """True where an objective is trained or tested; False where all rules are baselines."""
        return self.kind == "meta-train" or "learned" in self.rules

    @property
    def num_rounds(self) -> int:
        """Rounds of the whole run."""
        return -(-self.steps // self.schedule.round_steps)

    def validates_after(self, rounds: int) -> bool:
        """Return whether the objective is tested at the end of round number `rounds`."""
        if self.kind != "meta-train" or not self.validation.envs or rounds == 0:
            return False
        return rounds % self.validation.interval == 0 or rounds == self.num_rounds

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
