"""What a run tells the outside while it runs: plain snapshots, made by runtime, read by ui.

Knows nothing of torch, processes, files or terminals.
"""

from dataclasses import dataclass
from enum import IntEnum


class AgentState(IntEnum):
    """What an agent is doing, in the order of its life."""

    STARTING = 0
    EXPLORING = 1
    """Acting uniformly at random, not yet learning."""
    ANNEALING = 2
    """Driven by a mixture of the objective and its own critic."""
    LEARNING = 3
    """Driven by its objective alone."""
    RESTARTED = 4
    """Began a new life within the last round."""
    QUARANTINED = 5
    """Taken out of the population."""
    FINISHED = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSnapshot:
    """One agent at one moment. Figures not known yet are NaN."""

    agent_id: int
    environment: str
    """Alias or Gymnasium id."""
    rule: str
    """What drives the agent, such as "learned" or "td3"."""
    seed: int
    """Seed index of the agent (meta-test: which of the test seeds)."""
    state: AgentState
    env_steps: int
    episodes: int
    last_return: float
    """Return of the last training episode (with exploration noise), in reward units."""
    mean_return: float
    """Mean return of the last 10 training episodes."""
    returns: tuple[float, ...]
    """Up to 32 latest training returns, oldest first."""
    last_evaluation: float
    """Mean noise-free return of the last evaluation."""
    critic_loss: float
    meta_gradient_norm: float
    """Norm of the agent's raw meta-gradient, before clipping or scaling."""
    gain: float
    """J(φ_0) − J(φ_K) of the virtual step, in units of Q."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveSnapshot:
    """The shared objective at one moment."""

    version: int
    """Meta-steps applied so far."""
    parameter_norm: float
    gradient_norm: float
    """Norm of the combined meta-gradient of the last meta-step."""
    gain: float
    """Mean gain of the virtual step over the agents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSnapshot:
    """The tests of the objective on fresh agents at one moment."""

    round_index: int
    """Round at whose end the objective was tested last; 0: none yet."""
    scores: dict[str, float]
    """Environment → mean final score of the fresh agents; NaN where one of them has none."""
    best_round: int
    """Round of the best objective so far; 0: none yet."""
    best_scores: dict[str, float]
    testing_round: int
    """Round of the test in progress; 0: none is."""
    fraction: float
    """How much of it is done, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSnapshot:
    """A whole run at one moment."""

    name: str
    kind: str
    """"meta-train" or "meta-test"."""
    agents: tuple[AgentSnapshot, ...]
    objective: ObjectiveSnapshot | None
    """None where the objective is frozen."""
    round_index: int
    """Rounds finished by every agent."""
    num_rounds: int
    steps_per_agent: int
    """Env steps each agent is to make."""
    elapsed_s: float
    agent_steps_per_s: float
    """Env steps (each with its updates) of all agents together, per second."""
    eta_s: float
    """Seconds left at the present rate; NaN until known."""
    saved_rounds: int
    """Finished rounds in the newest checkpoint."""
    restarts: int
    """Times the workers were started again because one was lost."""
    validation: ValidationSnapshot | None = None
    """None where the run has no validations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSnapshot:
    """One run of a study at one moment."""

    name: str
    state: str
    """waiting, running, finished, stopped, failed or blocked."""
    fraction: float
    """How much of it is made, in [0, 1]."""
    problem: str
    """Why it failed or is blocked, on one line; "" otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySnapshot:
    """Several runs made and judged together, at one moment."""

    name: str
    kind: str
    """"matrix" or "progress"."""
    jobs: tuple[JobSnapshot, ...]
    fraction: float
    """How much of all runs is made, in [0, 1]."""
    elapsed_s: float
    """Since the study was started or continued."""
    eta_s: float
    """Seconds left at the present rate; NaN until known."""
