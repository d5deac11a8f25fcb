"""The packages that mgrl stands on: names, versions, modules.

The ranges repeat those of pyproject.toml, because an installed mgrl has no such file and what an
editable install says about itself can be out of date. Tests hold the two equal.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution and the modules of it that mgrl uses."""

    distribution: str
    modules: tuple[str, ...]
    at_least: str = ""
    """Lowest version that will do; empty: any."""
    below: str = ""
    """First version that will not do; empty: none known."""

    def accepts(self, version: str) -> bool:
        """Return whether a version lies in the range."""
        numbers = release_numbers(version)
        return release_numbers(self.at_least) <= numbers and (
            not self.below or numbers < release_numbers(self.below)
        )

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        bounds = [
            f"{sign}{bound}" for sign, bound in ((">=", self.at_least), ("<", self.below)) if bound
        ]
        return self.distribution + ",".join(bounds)


@dataclass(frozen=True, slots=True)
class Extra:
    """Packages that `pip install 'mgrl[NAME]'` adds."""

    name: str
    packages: tuple[Package, ...]
    purpose: str
    """What is not possible without it."""
    is_used_unasked: bool = False
    """Whether every run uses it as soon as it is installed, and so fails where it is broken."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of all packages, in the order to import them."""
        return tuple(module for package in self.packages for module in package.modules)


REQUIRED = (
    Package("numpy", ("numpy",), "2.0"),
    Package("gymnasium", ("gymnasium",), "1.1"),
    Package("zarr", ("zarr",), "3.1.4", "4"),
    Package("safetensors", ("safetensors",), "0.8"),
    Package("typer", ("typer",), "0.28"),
    Package("rich", ("rich",), "14.3"),
    Package("pydantic", ("pydantic",), "2.7"),
    Package("tomli-w", ("tomli_w",), "1.0"),
    Package("filelock", ("filelock",), "4.2"),
    Package("psutil", ("psutil",), "5.9.6"),
    Package("jaxtyping", ("jaxtyping",), "0.2.36"),
    Package("torch", ("torch",), "2.6"),
)
"""torch comes last: it takes longest to import."""

EXTRAS = (
    Extra(
        "baselines",
        (Package("stable-baselines3", ("stable_baselines3",), "2.9"),),
        "the rule ppo",
    ),
    Extra(
        "box2d",
        (Package("Box2D", ("Box2D",), "2.3.10"), Package("pygame-ce", ("pygame",), "2.1.3")),
        "the environment lunar",
    ),
    Extra(
        "mujoco",
        (Package("mujoco", ("mujoco", "gymnasium.envs.mujoco")),),
        "the environments cheetah and hopper",
    ),
    Extra("plot", (Package("matplotlib", ("matplotlib.figure",), "3.9"),), "figures"),
    Extra(
        "tensorboard",
        (Package("tensorboard", ("tensorboard", "torch.utils.tensorboard"), "2.21"),),
        "event files for TensorBoard",
        is_used_unasked=True,
    ),
    Extra(
        "fast",
        (Package("numba", ("numba",), "0.61"),),
        "compiled kernels, without which meta-training is several times slower",
        is_used_unasked=True,
    ),
)


def release_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version up to a suffix, without zeros at the end.

    "2.13.0+cpu" gives (2, 13), so that it equals "2.13".
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
