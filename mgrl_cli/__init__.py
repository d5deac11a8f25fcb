"""mgrl: meta-learned objectives for reinforcement learning, as a command and as a library.

`LearnedObjective` is the library's one public name. It is imported on first use, because this
module is loaded by `mgrl --help` too, which must not wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgrl_cli.objective_file import LearnedObjective

__all__ = ["LearnedObjective", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- the type stands in the import above
    if name == "LearnedObjective":
        from mgrl_cli.objective_file import LearnedObjective

        return LearnedObjective
    message = f"module 'mgrl_cli' has no attribute '{name}'"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
