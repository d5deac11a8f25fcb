"""Every error this package raises, so that a caller can tell the user's mistake from a failing run.

It must not know the command line: the caller maps these classes to exit codes.
"""

import difflib
from collections.abc import Iterable


class EnvironmentSetupError(ValueError):
    """The environment that was asked for cannot be made; the message is one line for the user."""


class UnknownEnvironmentError(EnvironmentSetupError):
    """No environment has this name."""


class MissingExtraError(EnvironmentSetupError):
    """The environment exists, but the package with its physics engine is not installed."""


class UnsupportedSpacesError(EnvironmentSetupError):
    """The spaces are not one-dimensional float boxes with finite action bounds."""


class InvalidEnvironmentError(EnvironmentSetupError):
    """The arguments or the randomised physics parameters do not fit the environment."""


class EnvironmentFailure(RuntimeError):  # noqa: N818  # an event of a run, not a wrong request
    """An environment's constructor, `reset` or `step` raised, or returned what is not usable."""


class BrokenContractError(EnvironmentFailure):
    """A running environment returned something of the wrong kind, size or shape."""


class NotFiniteError(EnvironmentFailure):
    """A running environment returned a NaN, or a number that float32 cannot hold."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name nearest to `name` in any case, or ""."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), list(by_lower_case), n=1)
    return f" Did you mean '{by_lower_case[nearest[0]]}'?" if nearest else ""
