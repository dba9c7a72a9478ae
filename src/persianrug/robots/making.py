"""Scenarios are made here: a scene with a robot in it, and all that moves it and feels."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.robots import objects, scene
from persianrug.robots.body import Body
from persianrug.robots.control import Controller
from persianrug.robots.drawn import Drawn, uneven
from persianrug.robots.estimator import LegOdometry
from persianrug.robots.scenario import Actor, Scenario
from persianrug.robots.skills import Skill
from persianrug.robots.spec import RobotSpec
from persianrug.robots.touching import Touch

Floats = NDArray[np.float64]
# Adds something to a scene whose friction is given.
Furnish = Callable[[mujoco.MjSpec, float], None]


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


# Friction of the ground, and how fast a robot may drift in the beginning, in m/s.
_FRICTION, _DRIFT = (0.64, 0.96), 0.1
# A push lasts so long, in seconds.
_PUSH = 0.1


def unlike(
    spec: RobotSpec,
    draw: Drawn,
    touch: Touch,
    control: Callable[[mujoco.MjModel], Controller],
    more: Furnish,
) -> Made:
    """A robot on a floor that drifts a little, and is not quite what its controller thinks.

    `more(spec, friction)` adds what else is there.
    """
    friction = draw("friction", *_FRICTION)

    def furnish(world: mujoco.MjSpec) -> None:
        objects.add_floor(world, friction)
        more(world, friction)

    made = Made(spec, draw, touch, control, furnish, friction=friction, change=uneven(draw, spec))
    made.moving[:2] = draw.random.uniform(-_DRIFT, _DRIFT, 2)
    return made


def pushed(
    made: Made, impulse: float, soonest: float, latest: float
) -> tuple[float, Callable[[mujoco.MjData], None]]:
    """When a robot's base is pushed, and what does that: from anywhere, with an impulse in N s, within 0.1 s."""
    force = made.draw.direction("direction") * checks.positive("impulse", impulse) / _PUSH
    at = made.draw("at", soonest, latest)
    base = made.model.body(made.spec.base).id

    def disturb(data: mujoco.MjData) -> None:
        data.xfrc_applied[base, :3] = force if at < data.time < at + _PUSH else 0.0

    return at, disturb
