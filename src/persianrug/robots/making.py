"""Scenarios are made here: a scene with a robot in it, and all that moves it and feels."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots import scene
from persianrug.robots.body import Body
from persianrug.robots.control import Controller
from persianrug.robots.drawn import Drawn
from persianrug.robots.estimator import LegOdometry
from persianrug.robots.scenario import Actor, Scenario
from persianrug.robots.skills import Skill
from persianrug.robots.spec import RobotSpec
from persianrug.robots.touching import Touch

Floats = NDArray[np.float64]


class Made:
    """A robot in a scene, which knows where it is by its legs and an inertial sensor.

    Parameters
    ----------
    spec : RobotSpec
    draw : Drawn
        Whose values the scenario tells.
    touch : Touch
    control : callable
        `control(model)` is its controller, of the robot's model alone.
    furnish : callable
        Adds everything else to a scene.
    friction : float
        Of its feet.
    change : callable, optional
        Changes the robot in ways that its controller does not know.

    Attributes
    ----------
    model, xml, controller, sensor, estimator, start
        As a `Scenario` has them.
    actors : list of Actor
    """

    def __init__(
        self,
        spec: RobotSpec,
        draw: Drawn,
        touch: Touch,
        control: Callable[[mujoco.MjModel], Controller],
        furnish: Callable[[mujoco.MjSpec], None],
        *,
        friction: float,
        change: Callable[[mujoco.MjSpec], None] | None = None,
    ) -> None:
        self.spec, self.draw = spec, draw
        self.model, self.xml = scene.build_scene(spec, furnish, friction=friction, change=change)
        alone = scene.robot_model(spec)
        self.controller = control(alone)
        self.sensor = touch.sensor(self.model, spec, draw.seed)
        self.estimator = LegOdometry(alone, spec, self.controller.planner, seed=draw.seed)
        self.start = scene.standing(self.model, spec)
        self.moving = np.zeros(self.model.nv)
        self.actors: list[Actor] = []

    def scenario(
        self,
        name: str,
        task: Callable[[Body], Skill],
        parts: tuple[str, ...],
        seconds: float,
        *,
        done: Callable[[mujoco.MjData], bool] | None = None,
        disturb: Callable[[mujoco.MjData], None] | None = None,
    ) -> Scenario:
        """What the robot is to do here."""
        return Scenario(
            name=name,
            spec=self.spec,
            seed=self.draw.seed,
            model=self.model,
            xml=self.xml,
            start=self.start,
            controller=self.controller,
            sensor=self.sensor,
            estimator=self.estimator,
            task=task,
            parts=parts,
            seconds=seconds,
            actors=list(self.actors),
            done=done,
            disturb=disturb,
            drawn=self.draw.values,
            moving=self.moving,
        )
