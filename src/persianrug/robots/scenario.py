"""A scenario: a scene, a robot in it with all that makes it move, and what it is to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.body import Body
from persianrug.robots.contacts import ContactSensor
from persianrug.robots.control import Controller
from persianrug.robots.estimator import Estimator
from persianrug.robots.skills import Skill
from persianrug.robots.spec import RobotSpec

Floats = NDArray[np.float64]


class Actor(Protocol):
    """Whoever else acts in a scene, as a person: sees all, and sets motors of its own."""

    def act(self, data: mujoco.MjData, body: Body) -> None:
        """Do what there is to do in this tick."""
        ...


@dataclass
class Scenario:
    """Everything that a run needs.

    Parameters
    ----------
    name : str
    spec : RobotSpec
    seed : int
    model : mujoco.MjModel
        The scene; the joints and motors of the robot come first in it.
    xml : str
        The same, for whoever draws it later.
    start : array (nq,)
        Where everything is in the beginning.
    controller, sensor, estimator
        What the robot moves, feels and knows its place by.
    task : callable
        `task(body)` is a skill; what it returns says whether it succeeded.
    parts : tuple of str
        Of the story, in their order.
    seconds : float
        After so many it has failed.
    actors : list
    disturb : callable, optional
        `disturb(data)` is called before each tick, as for pushes.
    done : callable, optional
        `done(data)` says of the truth whether what counts was reached, once the task has ended.
    drawn : mapping
        What was drawn at random.
    seen_wrong : array (3,)
        By how much the camera is wrong about places of things, in metres.
    moving : array (nv,), optional
        How everything moves in the beginning; it rests by default.
    """

    name: str
    spec: RobotSpec
    seed: int
    # What is printed of a scenario says which one it is: the scene alone would be pages.
    model: mujoco.MjModel = field(repr=False)
    xml: str = field(repr=False)
    start: Floats = field(repr=False)
    controller: Controller = field(repr=False)
    sensor: ContactSensor = field(repr=False)
    estimator: Estimator = field(repr=False)
    task: Callable[[Body], Skill] = field(repr=False)
    parts: tuple[str, ...]
    seconds: float = 120.0
    actors: list[Actor] = field(default_factory=list, repr=False)
    disturb: Callable[[mujoco.MjData], None] | None = field(default=None, repr=False)
    done: Callable[[mujoco.MjData], bool] | None = field(default=None, repr=False)
    drawn: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seen_wrong: Floats = field(default_factory=lambda: np.zeros(3), repr=False)
    moving: Floats | None = field(default=None, repr=False)
