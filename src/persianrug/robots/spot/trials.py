"""Scenarios of the quadruped: the whole story, and its parts one by one. All is drawn from the seed."""

from __future__ import annotations

import mujoco
import numpy as np

from persianrug._support import checks
from persianrug.robots import objects, scene
from persianrug.robots.body import Body
from persianrug.robots.controller import LeggedController
from persianrug.robots.drawn import Drawn, heavier
from persianrug.robots.gait import GaitPlanner
from persianrug.robots.making import Made
from persianrug.robots.person import MANNERS, Manner, Person
from persianrug.robots.scenario import Scenario
from persianrug.robots.skills import Skill, walk_to
from persianrug.robots.spot import story
from persianrug.robots.spot.spec import GAIT, SPEC
from persianrug.robots.terrain import Bar, Terrain
from persianrug.robots.touching import Touch

_BAR_FRONT, _BAR_DEPTH = 1.1, 0.10
_CAN = (3.2, 0.0)
_HIGHEST = 0.20
# Half the height of a can, in metres.
_HALF = 0.0575


def fetch(seed: int, touch: Touch, *, bar: float | None = None, manner: str = "takes") -> Scenario:
    """The whole story: a bar, a can, a person; `bar` is its height in metres, drawn from 6 to 12 cm by default."""
    draw = Drawn(seed)
    height = draw("bar", 0.06, 0.12) if bar is None else _height(bar)
    draw.values["bar"] = height
    stand = draw("stand", 0.38, 0.55)
    made = _Made(draw, touch, bars=(Bar(_BAR_FRONT, _BAR_DEPTH, height),), can=(*_CAN, stand), person=manner)
    if manner != "never":
        return made.scenario("fetch", story.fetch, story.PARTS, 150.0, done=made.person_has)

    def stands_again(data: mujoco.MjData) -> bool:
        can, top = data.body("can"), data.body("stand_top").xpos
        return bool(np.linalg.norm(can.xpos - top - [0, 0, _HALF]) < 0.1 and can.xmat[8] > 0.99)

    return made.scenario("fetch", story.fetch, story.ALONE, 150.0, done=stands_again)


def pick(seed: int, touch: Touch, *, error: float = 0.01) -> Scenario:
    """Pick up a can from where the robot stands; the camera is wrong about its place by up to `error` metres."""
    draw = Drawn(seed)
    stand = draw("stand", 0.38, 0.55)
    can = (draw("can_x", 0.88, 1.0), draw("can_y", -0.12, 0.12), stand)
    made = _Made(draw, touch, can=can)
    error = _up_to("error", checks.not_negative("error", error), 0.2, "metres")
    wrong = np.array([draw("error_x", -error, error), draw("error_y", -error, error), 0.0])

    def lifted(data: mujoco.MjData) -> bool:
        return bool(data.body("can").xpos[2] > stand + _HALF + 0.05)

    found = made.scenario("pick", story.pick_up, ("pick",), 60.0, done=lifted)
    found.seen_wrong = wrong
    return found


def pull(seed: int, touch: Touch, *, force: float = 10.0, manner: str = "takes") -> Scenario:
    """Pick up a can and offer it to a person who pulls with `force` newtons, for 4 s at most."""
    draw = Drawn(seed)
    stand = draw("stand", 0.38, 0.55)
    made = _Made(draw, touch, can=(draw("can_x", 0.9, 0.98), draw("can_y", -0.08, 0.08), stand), person=manner,
                 force=_up_to("force", checks.positive("force", force), 1000, "newtons"))  # fmt: skip

    let_go: list[float] = []

    def task(body: Body) -> Skill:
        if not (yield from story.pick_up(body)):
            return False
        if (yield from story.hand_over(body, 12.0)):
            let_go.append(body.parts["let go"][1])
        return True

    def right(data: mujoco.MjData) -> bool:  # noqa: ARG001
        person = made.person
        assert person is not None  # noqa: S101
        if manner == "never":
            return not let_go
        if person.pulled is None:
            return False
        draw.values["after"] = after = let_go[0] - person.pulled if let_go else None
        if force < _FELT:
            return after is None
        return after is not None and 0 < after <= _SOON

    return made.scenario("pull", task, ("pick", "offer", "let go", "fold"), 60.0, done=right)


# Pulls of so many newtons make it let go, within so many seconds.
_FELT, _SOON = 8.0, 0.3


def bar(seed: int, touch: Touch, *, height: float = 0.10, known: bool = True) -> Scenario:
    """Cross a bar of a height in metres that the robot sees, or, if it is not known, does not see."""
    draw = Drawn(seed)
    front = draw("front", 0.95, 1.25)
    made = _Made(draw, touch, bars=(Bar(front, _BAR_DEPTH, _height(height)),), known=checks.flag("known", known))

    def task(body: Body) -> Skill:
        if not (yield from walk_to(body, lambda: (front + 1.1, 0.0, 0.0), near=0.1)):
            return False
        body.done("bar")
        return True

    def crossed(data: mujoco.MjData) -> bool:
        return bool(data.qpos[0] > front + 0.8)

    return made.scenario("bar", task, ("bar",), 30.0, done=crossed)


def speed(seed: int, touch: Touch, *, speed: float = 1.2) -> Scenario:
    """Trot at a speed in m/s for 4 s, reached within 10%."""
    draw = Drawn(seed)
    speed = _up_to("speed", checks.positive("speed", speed), 3, "m/s")
    made = _Made(draw, touch)
    reached: list[float] = []

    def task(body: Body) -> Skill:
        yield from _faster(body, speed, 2.5)
        begun = body.time
        while body.time < begun + 4.0:
            reached.append(body.time)
            yield
        body.done("speed")
        return True

    start: list[tuple[float, float]] = []

    def disturb(data: mujoco.MjData) -> None:
        if reached and not start:
            start.append((data.time, float(data.qpos[0])))

    def fast(data: mujoco.MjData) -> bool:
        began, place = start[0]
        mean = (data.qpos[0] - place) / (data.time - began)
        made.draw.values["reached"] = float(mean)
        return bool(abs(mean - speed) < 0.1 * speed)

    found = made.scenario("speed", task, ("speed",), 30.0, done=fast)
    found.disturb = disturb
    return found


def push(seed: int, touch: Touch, *, impulse: float = 40.0) -> Scenario:
    """Trot at 0.4 m/s and be pushed from the side with an impulse in N s, within 0.2 s."""
    draw = Drawn(seed)
    made = _Made(draw, touch)
    side = 1.0 if draw("side", -1, 1) > 0 else -1.0
    at = draw("at", 3.0, 3.5)
    trunk = made.model.body(SPEC.base).id
    force = side * _up_to("impulse", checks.positive("impulse", impulse), 1000, "N s") / _PUSH

    def disturb(data: mujoco.MjData) -> None:
        data.xfrc_applied[trunk, 1] = force if at < data.time < at + _PUSH else 0.0

    def task(body: Body) -> Skill:
        yield from _faster(body, 0.4, 1.5)
        while body.time < at + 4.0:
            yield
        body.done("push")
        return True

    found = made.scenario("push", task, ("push",), 30.0)
    found.disturb = disturb
    return found


# A push lasts so long, in seconds.
_PUSH = 0.2


def _faster(body: Body, speed: float, seconds: float) -> Skill:
    """Trot, and come to a speed along x within some seconds."""
    body.command.walking = True
    begun = body.time
    while body.time < begun + seconds:
        body.command.velocity = np.array([speed * min(1.0, (body.time - begun) / seconds), 0.0])
        # It holds its direction.
        body.command.turn = float(np.clip(-1.0 * body.state.yaw, -0.3, 0.3))
        yield
    return True


def _height(bar: float) -> float:
    return _up_to("bar", checks.positive("bar", bar), _HIGHEST, "metres")


def _up_to(name: str, number: float, most: float, unit: str) -> float:
    if number > most:
        raise ValueError(f"{name} is {number:g}; allowed: {unit}, above 0 and up to {most:g}")
    return number


class _Made(Made):
    """A scene with the robot in it, and all that it needs."""

    def __init__(
        self,
        draw: Drawn,
        touch: Touch,
        *,
        bars: tuple[Bar, ...] = (),
        known: bool = True,
        can: tuple[float, float, float] | None = None,
        person: str | None = None,
        force: float = 25.0,
    ) -> None:
        friction, mass = draw("friction", 0.5, 1.0), draw("mass", 0.9, 1.1)
        full = draw("full", 0, 1) > 0.5
        draw.values["full"] = full

        def furnish(spec: mujoco.MjSpec) -> None:
            objects.add_floor(spec, friction)
            for one in bars:
                objects.add_bar(spec, one.front, one.depth, one.height, friction)
            if can is not None:
                x, y, height = can
                objects.add_stand(spec, x, y, height)
                objects.add_can(spec, x, y, height + _HALF, 0.37 if full else 0.015)
            if person is not None:
                objects.add_person(spec)

        def control(alone: mujoco.MjModel) -> LeggedController:
            return LeggedController(
                alone, SPEC, GaitPlanner(GAIT, scene.footprint(alone, SPEC), Terrain(bars if known else ()))
            )

        super().__init__(SPEC, draw, touch, control, furnish, friction=friction, change=heavier(mass))
        self.person: Person | None = None
        if can is not None:
            place = self.model.joint("can").qposadr[0]
            self.start[place : place + 3] = can[0], can[1], can[2] + _HALF
        if person is not None:
            manner = Manner(checks.one_of("manner", person, MANNERS), force=force)
            rest = np.array([*(can or (1.0, 0.0, 0.0))[:2], 0.9]) + _AWAY
            self.person = Person(self.model, manner, "can", rest)
            self.start[self.person.places] = rest
            self.actors.append(self.person)

    def person_has(self, data: mujoco.MjData) -> bool:  # noqa: ARG002
        """Whether the person has what was handed over."""
        return self.person is not None and self.person.has


# The person's hand waits so far from where the can is in the beginning, in metres.
_AWAY = np.array([0.9, 1.2, 0.0])
