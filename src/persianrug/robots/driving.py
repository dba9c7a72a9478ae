"""Trials of robots on wheels, whichever they are: fast, round, pushed, over bumps and ramps, through the air."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from persianrug._support import checks
from persianrug.robots import objects
from persianrug.robots.body import Body
from persianrug.robots.drawn import Drawn
from persianrug.robots.making import Furnish, Made, pushed, unlike
from persianrug.robots.rolling import Mode, RollingController, RollPlanner
from persianrug.robots.scenario import Scenario
from persianrug.robots.skills import Skill, wait
from persianrug.robots.spec import RobotSpec
from persianrug.robots.touching import Touch
from persianrug.robots.way import Way

_STANDS = 1.0
# What is in the way begins about here, in metres.
_THERE = (2.5, 3.0)
# A jump begins at this height of the centre of mass (m), goes until that, and is over within (s); it ends lower by
# so much (m) than it touches down.
_BRACES = 0.02
_CROUCHES, _LEAVES, _FLIES, _SINKS = 0.72, 1.17, 1.5, 0.2


@dataclass(frozen=True)
class Roller:
    """Trials of one robot.

    Parameters
    ----------
    spec : RobotSpec
    height : float
        Of the centre of mass above the ground, in metres.
    """

    spec: RobotSpec
    height: float

    def drive(
        self, seed: int, touch: Touch, *, speed: float = 4.0, turn: float = 0.0, seconds: float = 10.0
    ) -> Scenario:
        """Drive for some seconds, at a speed in m/s, turning by so many rad/s, once it has come to them."""
        made = self._made(Drawn(seed), touch)
        speed, turn = checks.not_negative("speed", speed), checks.finite("turn", turn)
        seconds = checks.positive("seconds", seconds)
        ramp = min(speed / 1.5 + 2.0, 0.5 * seconds)
        way = Way(_STANDS + ramp)

        def task(body: Body) -> Skill:
            yield from wait(body, _STANDS)
            body.command.velocity, body.command.turn = np.array([speed, 0.0]), turn
            yield from wait(body, seconds)
            body.done("drive")
            return True

        def fast(data: mujoco.MjData) -> bool:  # noqa: ARG001
            driven = way.means(seconds - ramp)
            made.draw.values |= driven
            near = abs(driven["reached"] - speed) <= 0.1 * speed + 0.05
            return near and abs(driven["turned"] - turn) <= 0.1 * abs(turn) + 0.02

        return made.scenario("drive", task, ("drive",), seconds + 10.0, done=fast, disturb=way.measure)

    def push(self, seed: int, touch: Touch, *, impulse: float = 60.0, speed: float = 0.0) -> Scenario:
        """Be pushed from anywhere with an impulse in N s, within 0.1 s, at a speed in m/s."""
        made = self._made(Drawn(seed), touch)
        speed = checks.not_negative("speed", speed)
        at, disturb = pushed(made, impulse, 3.0, 3.5)

        def task(body: Body) -> Skill:
            yield from wait(body, _STANDS)
            body.command.velocity = np.array([speed, 0.0])
            while body.time < at + 4.0:
                yield
            body.done("push")
            return True

        return made.scenario("push", task, ("push",), 20.0, disturb=disturb)

    def bump(self, seed: int, touch: Touch, *, height: float = 0.05, speed: float = 1.5) -> Scenario:
        """Drive over a bump of a height in metres that it does not see."""
        draw = Drawn(seed)
        front, height = draw("front", *_THERE), checks.positive("height", height)

        def furnish(spec: mujoco.MjSpec, friction: float) -> None:
            objects.add_slab(spec, "bump", front, 0.3, height, friction)

        return self._along(self._made(draw, touch, furnish), "bump", front + 1.5, speed)

    def ramp(self, seed: int, touch: Touch, *, degrees: float = 15.0, speed: float = 1.0) -> Scenario:
        """Drive up a ramp that it does not see, over its top, and down again."""
        draw = Drawn(seed)
        front, slope = draw("front", *_THERE), math.radians(checks.positive("degrees", degrees))
        if degrees > 30:
            raise ValueError(f"degrees is {degrees:g}; allowed: a number in (0, 30]")

        def furnish(spec: mujoco.MjSpec, friction: float) -> None:
            height = objects.add_ramp(spec, "ramp", front, 2.0, slope, friction)
            objects.add_slab(spec, "top", front + 2.0, 1.5, height, friction)
            objects.add_ramp(spec, "down", front + 3.5, 2.0, slope, friction, down=True)

        return self._along(self._made(draw, touch, furnish), "ramp", front + 6.5, speed)

    def jump(self, seed: int, touch: Touch, *, height: float = 0.35, push_off: float = 10.0) -> Scenario:
        """Jump, with the wheels up to a height in metres, and land; pushing off with so many m/s^2."""
        made = self._made(Drawn(seed), touch)
        height, push_off = checks.positive("height", height), checks.positive("push_off", push_off)
        tires = [made.model.geom(foot.geom).id for foot in self.spec.feet]
        highest = [0.0]

        def measure(data: mujoco.MjData) -> None:
            lowest = min(float(data.geom_xpos[tire][2] - made.model.geom_size[tire][0]) for tire in tires)
            highest[0] = max(highest[0], lowest)

        def task(body: Body) -> Skill:
            yield from wait(body, _STANDS)
            if not (yield from leap(body, push_off)):
                body.failed("jump", "it did not feel that it landed")
                return False
            body.done("jump")
            yield from wait(body, 2.5)
            body.done("stand")
            return True

        def high(data: mujoco.MjData) -> bool:  # noqa: ARG001
            made.draw.values["highest"] = highest[0]
            return highest[0] >= height

        return made.scenario("jump", task, ("jump", "stand"), 20.0, done=high, disturb=measure)

    def _along(self, made: Made, name: str, end: float, speed: float) -> Scenario:
        """Drive until what is in the way is behind, and stand there."""
        speed = checks.positive("speed", speed)

        def task(body: Body) -> Skill:
            yield from wait(body, _STANDS)
            body.command.velocity = np.array([speed, 0.0])
            while body.state.position[0] < end:
                yield
            body.done(name)
            return True

        def behind(data: mujoco.MjData) -> bool:
            return bool(data.qpos[0] > end - 0.4)

        return made.scenario(name, task, (name,), 10.0 + 2.0 * end / speed, done=behind)

    def _made(self, draw: Drawn, touch: Touch, more: Furnish = lambda *_: None) -> Made:
        def control(alone: mujoco.MjModel) -> RollingController:
            return RollingController(alone, self.spec, RollPlanner(self.height, len(self.spec.feet)))

        return unlike(self.spec, draw, touch, control, more)


def leap(body: Body, push_off: float) -> Skill:
    """Jump: crouch, push off, draw the legs in, and stand on what wheels feel first; False if that is nothing."""
    controller = body.controller
    assert isinstance(controller, RollingController)  # noqa: S101
    planner = controller.planner
    stands = planner.height
    planner.height = _CROUCHES
    yield from wait(body, 1.0)
    planner.mode, planner.push_off = Mode.PUSH_OFF, push_off
    yield from wait(body, 1.0, lambda: controller.above > _LEAVES)
    planner.mode = Mode.FLY
    # What is felt in the first moments is the ground that it leaves.
    yield from wait(body, 0.15)

    def lands() -> bool:
        # What is felt comes too late to brace for: 20 ms are 6 cm at 3 m/s.
        low = float(body.state.feet[:, 2].min()) - controller.radius < _BRACES and body.state.velocity[2] < 0
        return bool(controller.touching.any()) or low

    landed = yield from wait(body, _FLIES, lands)
    planner.mode = Mode.ROLL
    planner.rise, planner.height = controller.above, max(0.65, controller.above - _SINKS)
    controller.astray = 0.0
    yield from wait(body, 0.5)
    planner.height = stands
    return landed
