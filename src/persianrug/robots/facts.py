"""What is known of a real robot, with where it is from, and what its model has of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

Measure = Callable[[mujoco.MjModel], float]


@dataclass(frozen=True)
class Fact:
    """A number of a robot.

    Parameters
    ----------
    what : str
        Of what, for readers.
    value : float
    unit : str
        "" of what is counted.
    source : str
        Where it was published, or that it is our choice.
    measure : callable or None
        `measure(model)` is the same number of a compiled model, in the same unit; None of what the model does not
        have.
    tolerance : float
        The model's may differ by so much, as a share of the value.
    """

    what: str
    value: float
    unit: str
    source: str
    measure: Measure | None = None
    tolerance: float = 1e-6


def measured(model: mujoco.MjModel, fact: Fact) -> float | None:
    """What a fact says, of a compiled model; None if the model does not have it."""
    return None if fact.measure is None else float(fact.measure(model))


def agrees(model: mujoco.MjModel, fact: Fact) -> bool:
    """Whether a model has what a fact says, within its tolerance; True of what it does not have."""
    value = measured(model, fact)
    return value is None or abs(value - fact.value) <= fact.tolerance * abs(fact.value)


def mass(*bodies: str, below: bool = False) -> Measure:
    """Of some bodies together, in kg; with `below`, of all that hangs on them as well."""

    def measure(model: mujoco.MjModel) -> float:
        masses = model.body_subtreemass if below else model.body_mass
        return float(sum(masses[model.body(body).id] for body in bodies))

    return measure


def offset(body: str, axis: int) -> Measure:
    """Where a body's frame is in its parent's, along an axis, in m."""
    return lambda model: float(model.body_pos[model.body(body).id, axis])


def lowest(joint: str) -> Measure:
    """The lower end of a joint, in rad or m."""
    return lambda model: float(model.joint(joint).range[0])


def highest(joint: str) -> Measure:
    """The upper end of a joint, in rad or m."""
    return lambda model: float(model.joint(joint).range[1])


def torque(actuator: str) -> Measure:
    """What a motor can do at most, in N m or N."""

    def measure(model: mujoco.MjModel) -> float:
        motor = model.actuator(actuator)
        limits = motor.forcerange if motor.forcelimited[0] else motor.ctrlrange
        return float(np.abs(limits).min())

    return measure


def size(geom: str, axis: int = 0) -> Measure:
    """A radius, or half a length, of a geom, in m."""
    return lambda model: float(model.geom(geom).size[axis])


def place(geom: str, axis: int) -> Measure:
    """Where a geom's middle is in its body's frame, along an axis, in m."""
    return lambda model: float(model.geom_pos[model.geom(geom).id, axis])


def motors(model: mujoco.MjModel) -> float:
    """How many there are."""
    return float(model.nu)
