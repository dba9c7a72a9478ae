"""A robot as its skills see it: what it knows and feels, and what it can be told to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.arm import ArmController
from persianrug.robots.contacts import ContactReading
from persianrug.robots.control import Controller
from persianrug.robots.gait import Command
from persianrug.robots.grip import Grip
from persianrug.robots.state import RobotState

Floats = NDArray[np.float64]


class Body:
    """What skills read and set; nothing here is of the simulation but what a camera on the robot sees.

    Parameters
    ----------
    controller : Controller
    look : callable
        `look(name)` is where a thing is (3,) in the frame of the base, as a camera there sees it.
    dt : float
        Seconds from one tick to the next.

    Attributes
    ----------
    touch : ContactReading
        What is felt in this tick. Of patches that are not valid in it, the last that was goes on being believed.
    offering : bool
        Whether it holds something out: people see that.
    pull : float
        What it feels of a pull, in newtons, while it is armed for one.
    parts : dict of str to (bool, float)
        What is done of the story, or not, and when.
    events : list of (float, str)
    """

    def __init__(self, controller: Controller, look: Callable[[str], Floats], dt: float) -> None:
        self.controller, self._look, self.dt = controller, look, dt
        self._touch: ContactReading | None = None
        self._pressing, self._force = np.zeros(0), np.zeros((0, 3))
        self.offering = False
        self.pull = 0.0
        self.parts: dict[str, tuple[bool, float]] = {}
        self.events: list[tuple[float, str]] = []

    @property
    def touch(self) -> ContactReading:
        """What is felt in this tick; ValueError before the first."""
        if self._touch is None:
            raise ValueError("nothing was felt yet; allowed from the first tick on")
        return self._touch

    @touch.setter
    def touch(self, reading: ContactReading) -> None:
        if self._touch is None:
            self._pressing, self._force = np.zeros(len(reading.patches)), np.zeros((len(reading.patches), 3))
        self._touch = reading
        self._pressing = np.where(reading.valid, reading.pressing, self._pressing)
        self._force = np.where(reading.valid[:, None], reading.force, self._force)

    @property
    def state(self) -> RobotState:
        """Where it takes itself to be."""
        return self.controller.dynamics.state

    @property
    def time(self) -> float:
        """In seconds."""
        return self.state.time

    @property
    def command(self) -> Command:
        """How it should move."""
        return self.controller.planner.command

    @property
    def load(self) -> Floats:
        """The force (3,) of what the gripper holds on it, in the world, in newtons."""
        return self.controller.load

    @load.setter
    def load(self, force: Floats) -> None:
        self.controller.load = force

    @property
    def arm(self) -> ArmController:
        """Its arm; ValueError if it has none."""
        if self.controller.arm is None:
            raise ValueError(f"{self.controller.spec.name} has no arm; allowed here: robots with one")
        return self.controller.arm

    @property
    def grip(self) -> Grip:
        """Its gripper; ValueError if it has none."""
        if self.controller.grip is None:
            raise ValueError(f"{self.controller.spec.name} has no gripper; allowed here: robots with one")
        return self.controller.grip

    def see(self, name: str) -> Floats:
        """Where a thing is (3,), in the world as the robot takes it to be."""
        return self.state.position + self.state.rotation @ self._look(name)

    def gripper(self) -> tuple[Floats, Floats]:
        """Where the gripper is (3,) and how it is turned (3, 3)."""
        place, rotation, _ = self.controller.dynamics.site(self.arm.arm.grasp)
        return place, rotation

    def shoulder(self) -> Floats:
        """Where the arm's first joint is (3,)."""
        dynamics = self.controller.dynamics
        return dynamics.data.xanchor[dynamics.model.joint(self.arm.arm.joints[0]).id]

    def felt(self, patch: str) -> float:
        """What presses on a patch, in newtons."""
        return float(self._pressing[self.touch.patches.index(patch)])

    def force_on_gripper(self) -> Floats:
        """The net force (3,) on jaw and finger, in the world, in newtons."""
        arm, total = self.arm.arm, np.zeros(3)
        for patch in (arm.jaw_patch, arm.finger_patch):
            total += self.world_force(patch)
        return total

    def world_force(self, patch: str) -> Floats:
        """The net force (3,) on a patch, in the world, in newtons."""
        index = self.touch.patches.index(patch)
        body = next(one.body for one in self.controller.spec.patches if one.name == patch)
        return self.controller.dynamics.body_rotation(body) @ self._force[index]

    def done(self, part: str) -> None:
        """Say that a part of the story is done."""
        self.parts[part] = (True, self.time)

    def failed(self, part: str, why: str) -> None:
        """Say that a part of the story is not done, and why."""
        self.parts[part] = (False, self.time)
        self.say(f"{part}: {why}")

    def say(self, text: str) -> None:
        """Note an event."""
        self.events.append((self.time, text))
