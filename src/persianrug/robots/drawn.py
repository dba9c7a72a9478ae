"""What trials draw at random: numbers by name, and robots that are a little other than their controllers think."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.robots.spec import RobotSpec

Floats = NDArray[np.float64]


class Drawn:
    """Numbers drawn from a seed.

    Parameters
    ----------
    seed : int

    Attributes
    ----------
    values : dict
        By name; what is found out later may be noted here, too.
    """

    def __init__(self, seed: int) -> None:
        self.seed = checks.seed(seed)
        self.random = np.random.default_rng(self.seed)
        self.values: dict[str, Any] = {}

    def __call__(self, name: str, low: float, high: float) -> float:
        """A number between two."""
        self.values[name] = value = float(self.random.uniform(low, high))
        return value

    def direction(self, name: str) -> Floats:
        """A horizontal direction (3,), of length 1; its angle in rad is what is noted."""
        angle = self(name, -np.pi, np.pi)
        return np.array([np.cos(angle), np.sin(angle), 0.0])


def heavier(factor: float) -> Callable[[mujoco.MjSpec], None]:
    """A change of a robot: all its masses are so many times as large."""

    def change(robot: mujoco.MjSpec) -> None:
        for body in robot.bodies[1:]:
            body.mass *= factor
            body.inertia *= factor

    return change


def uneven(
    draw: Drawn, spec: RobotSpec, *, mass: float = 0.08, shift: float = 0.015
) -> Callable[[mujoco.MjSpec], None]:
    """A change of a robot: each mass by up to a share, and its base's middle by up to so many metres each way."""
    factors = draw.random.uniform(1 - mass, 1 + mass, 1000)
    away = draw.random.uniform(-shift, shift, 3)
    draw.values["centre"] = away.tolist()

    def change(robot: mujoco.MjSpec) -> None:
        for body, factor in zip(robot.bodies[1:], factors, strict=False):
            body.mass *= factor
            body.inertia *= factor
        base = robot.body(spec.base)
        base.ipos = base.ipos + away
        draw.values["mass"] = float(sum(body.mass for body in robot.bodies[1:]))

    return change
