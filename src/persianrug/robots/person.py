"""A person who takes what a robot holds out, or does something else with it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.robots.body import Body
from persianrug.robots.swing import minimum_jerk

Floats = NDArray[np.float64]

MANNERS = ("takes", "late", "early", "pushes", "lifts", "never")

# Motors of the hand: where it should be (x, y, z), and the forces of its fingers.
_HAND = ("person_x", "person_y", "person_z")
_FINGERS = ("person_top", "person_bottom")
# The fingers spread, and grip, with so many newtons; the hand stops so far before the thing, and then reaches.
_SPREAD, _GRIP = -3.0, 20.0
_BEFORE, _INTO = 0.30, -0.005


@dataclass(frozen=True)
class Manner:
    """How a person takes something.

    Parameters
    ----------
    kind : str
        "takes": reaches for it, grips it, and pulls after a moment; "late": comes after 6 s; "early": pulls while
        it still closes its fingers; "pushes" and "lifts": pushes it towards the robot, or up, for 2 s before it
        pulls; "never": does not come.
    force : float
        What it pulls or pushes with, in newtons, as far as its hand can.
    idle : float
        For so many seconds it only grips.
    rise : float
        Within so many seconds a pull has come to its force.
    """

    kind: str = "takes"
    force: float = 25.0
    idle: float = 1.0
    rise: float = 0.1

    def __post_init__(self) -> None:
        checks.one_of("kind", self.kind, MANNERS)
        checks.positive("force", self.force)
        checks.not_negative("idle", self.idle)
        checks.positive("rise", self.rise)


class Person:
    """A hand that comes when the robot offers something, and what it does then.

    Parameters
    ----------
    model : mujoco.MjModel
        A scene with `objects.add_person`.
    manner : Manner
    thing : str
        The body that it takes.
    rest : array (3,)
        Where the hand waits, in metres.

    Attributes
    ----------
    gripped, pulled : float or None
        When it began to grip, and to pull, in seconds.
    has : bool
        Whether it has the thing.
    """

    def __init__(self, model: mujoco.MjModel, manner: Manner, thing: str, rest: Floats) -> None:
        self.manner, self.rest = manner, np.asarray(rest, dtype=np.float64)
        self.hand = np.array([model.actuator(name).id for name in _HAND])
        self.fingers = np.array([model.actuator(name).id for name in _FINGERS])
        self.stiffness = float(model.actuator_gainprm[self.hand[0], 0])
        self.places = np.array([model.joint(name).qposadr[0] for name in _HAND])
        self.thing = model.body(thing).id
        self._palm = model.body("person").id
        self.gripped: float | None = None
        self.pulled: float | None = None
        self.has = False
        self._plan: Generator[None, None, None] | None = None

    def act(self, data: mujoco.MjData, body: Body) -> None:
        if self._plan is None:
            self._plan = self._story(data, body)
            data.ctrl[self.hand], data.ctrl[self.fingers] = self.rest, _SPREAD
        next(self._plan, None)

    def _story(self, data: mujoco.MjData, body: Body) -> Generator[None, None, None]:
        manner = self.manner
        if manner.kind == "never":
            return
        while not body.offering:
            yield
        if manner.kind == "late":
            yield from self._wait(data, 6.0)
        yield from self._reach(data, np.array([_BEFORE, 0.0, 0.0]), 1.5)
        yield from self._reach(data, np.array([_INTO, 0.0, 0.0]), 1.2)
        self.gripped = data.time
        data.ctrl[self.fingers] = _GRIP
        yield from self._wait(data, 0.15 if manner.kind == "early" else manner.idle)
        if manner.kind == "pushes":
            yield from self._press(data, np.array([-manner.force, 0.0, 0.0]), 2.0)
        if manner.kind == "lifts":
            yield from self._press(data, np.array([0.0, 0.0, manner.force]), 2.0)
        self.pulled = data.time
        yield from self._pull(data)

    def _wait(self, data: mujoco.MjData, seconds: float) -> Generator[None, None, None]:
        end = data.time + seconds
        while data.time < end:
            yield

    def _reach(self, data: mujoco.MjData, away: Floats, seconds: float) -> Generator[None, None, None]:
        """Move the hand to where the thing is, and so far away from it, following it."""
        start, begun = data.ctrl[self.hand].copy(), data.time
        while data.time < begun + seconds:
            along = minimum_jerk((data.time - begun) / seconds)[0]
            data.ctrl[self.hand] = start + (data.xpos[self.thing] + away - start) * along
            yield

    def _press(self, data: mujoco.MjData, force: Floats, seconds: float) -> Generator[None, None, None]:
        """Push with a force that grows and goes away again."""
        place, begun = data.qpos[self.places].copy(), data.time
        while data.time < begun + seconds:
            share = np.sin(np.pi * (data.time - begun) / seconds)
            data.ctrl[self.hand] = place + force * share / self.stiffness
            yield
        data.ctrl[self.hand] = place

    def _pull(self, data: mujoco.MjData) -> Generator[None, None, None]:
        """Pull along x, with a force that grows, until the thing comes; then take it away, or give up."""
        place, begun = data.qpos[self.places].copy(), data.time
        while data.time < begun + _PATIENCE:
            here = data.qpos[self.places]
            force = self.manner.force * min(1.0, (data.time - begun) / self.manner.rise)
            # The hand's spring is always stretched by as much: it pulls with this force, wherever it goes.
            data.ctrl[self.hand] = [here[0] + force / self.stiffness, place[1], place[2]]
            yield
            if data.qpos[self.places[0]] > place[0] + _FREE:
                yield from self._take_away(data)
                return
        data.ctrl[self.fingers] = _SPREAD
        data.ctrl[self.hand] = place
        yield from self._wait(data, 0.5)
        yield from self._take_away(data)

    def _take_away(self, data: mujoco.MjData) -> Generator[None, None, None]:
        start, begun = data.ctrl[self.hand].copy(), data.time
        while data.time < begun + 1.5:
            along = minimum_jerk((data.time - begun) / 1.5)[0]
            data.ctrl[self.hand] = start + np.array([0.35, 0.0, 0.06]) * along
            yield
        self.has = bool(np.linalg.norm(data.xpos[self.thing] - data.xpos[self._palm]) < 0.09)


# A thing is free once it has come so far, in metres; a person pulls for so many seconds.
_FREE, _PATIENCE = 0.06, 4.0
