"""Trials of robots that walk on two feet, whichever they are: far, round, pushed, and over what is not flat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np

from persianrug._support import checks
from persianrug.robots import objects, scene
from persianrug.robots.body import Body
from persianrug.robots.controller import LeggedController
from persianrug.robots.drawn import Drawn
from persianrug.robots.making import Made, pushed, unlike
from persianrug.robots.scenario import Scenario
from persianrug.robots.skills import Skill, wait
from persianrug.robots.spec import RobotSpec
from persianrug.robots.steps import StepPlanner, Steps
from persianrug.robots.terrain import Bar, Terrain
from persianrug.robots.touching import Touch
from persianrug.robots.way import Way

# It stands for a moment, and then walks on the spot, before it is told to go; in seconds.
_STANDS, _TREADS = 0.5, 1.0
# Slabs lie from here on, one after the other, in metres.
_SLABS, _SLAB = (1.2, 5.0), (0.5, 1.2)
_HIGHEST = 0.15
# When walks, pushes and ways over what is there have succeeded, for users.
WALKED = "its mean speed is above 85% of what was asked, and it turned as asked within 15%"
STANDS = "it has not fallen 5 s later"
BEHIND = "it is behind what was in its way"


@dataclass(frozen=True)
class Walker:
    """Trials of one robot.

    Parameters
    ----------
    spec : RobotSpec
    steps : Steps
        Of its walk; its height is that of standing.
    foot : float
        From the middle of a sole to its toes and heel, in metres.
    """

    spec: RobotSpec
    steps: Steps
    foot: float

    def walk(
        self, seed: int, touch: Touch, *, speed: float = 0.4, turn: float = 0.0, seconds: float = 60.0
    ) -> Scenario:
        """Walk for some seconds, at a speed in m/s, turning by so many rad/s, once it has come to them."""
        made = self._made(Drawn(seed), touch)
        speed, turn = checks.not_negative("speed", speed), checks.finite("turn", turn)
        seconds = checks.positive("seconds", seconds)
        ramp = min(2.0 * speed + 2.0, 0.5 * seconds)
        way = Way(_STANDS + _TREADS + ramp)

        def task(body: Body) -> Skill:
            yield from _start(body)
            body.command.velocity, body.command.turn = np.array([speed, 0.0]), turn
            yield from wait(body, seconds)
            body.done("walk")
            return True

        def far(data: mujoco.MjData) -> bool:  # noqa: ARG001
            walked = way.means(seconds - ramp)
            made.draw.values |= walked
            return bool(
                walked["reached"] > 0.85 * speed and abs(walked["turned"] - turn) <= 0.15 * abs(turn) + 0.02
            )

        return made.scenario("walk", task, ("walk",), seconds + 10.0, done=far, disturb=way.measure)

    def push(self, seed: int, touch: Touch, *, impulse: float = 10.0, speed: float = 0.4) -> Scenario:
        """Walk, or stand if the speed is 0, and be pushed from anywhere with an impulse in N s, within 0.1 s."""
        made = self._made(Drawn(seed), touch)
        speed = checks.not_negative("speed", speed)
        at, disturb = pushed(made, impulse, *((4.0, 5.0) if speed else (1.0, 1.5)))

        def task(body: Body) -> Skill:
            if speed:
                yield from _start(body)
                body.command.velocity = np.array([speed, 0.0])
            while body.time < at + 5.0:
                yield
            body.done("push")
            return True

        return made.scenario("push", task, ("push",), 20.0, disturb=disturb)

    def slabs(
        self, seed: int, touch: Touch, *, height: float = 0.05, speed: float = 0.4, clock: bool = False
    ) -> Scenario:
        """Walk over slabs up to a height in metres that it does not see; with `clock` it does not feel them."""
        draw = Drawn(seed)
        highest, speed = _height(height), checks.positive("speed", speed)
        slabs, front = [], _SLABS[0]
        while front < _SLABS[1]:
            slabs.append(Bar(front, float(draw.random.uniform(*_SLAB)), float(draw.random.uniform(0.01, highest))))
            front = slabs[-1].end
        draw.values["heights"] = [slab.height for slab in slabs]
        made = self._made(draw, touch, slabs, known=False, by_clock=checks.flag("clock", clock))
        return self._over(made, "slabs", front + 0.5, speed)

    def obstacle(
        self, seed: int, touch: Touch, *, height: float = 0.08, depth: float = 0.05, speed: float = 0.4
    ) -> Scenario:
        """Walk over a bar, or up and down a platform, of a height and a depth in metres, as if it saw that."""
        draw = Drawn(seed)
        bar = Bar(draw("front", 1.2, 1.6), checks.positive("depth", depth), _height(height))
        made = self._made(draw, touch, [bar])
        return self._over(made, "obstacle", bar.end + 0.6, checks.positive("speed", speed))

    def squat(self, seed: int, touch: Touch, *, height: float = 0.70) -> Scenario:
        """Go down until the centre of mass is at a height in metres, and up again."""
        draw = Drawn(seed)
        made = self._made(draw, touch)
        height = checks.positive("height", height)
        lowest: list[float] = []

        def task(body: Body) -> Skill:
            planner = body.controller.planner
            assert isinstance(planner, StepPlanner)  # noqa: S101
            stands = planner.height
            yield from wait(body, 0.5)
            # The base goes down until the centre of mass is there.
            end = body.time + 4.0
            while body.time < end and body.state.com[2] > height:
                planner.height = max(planner.height - 0.25 * body.dt, 0.4 * stands)
                yield
            yield from wait(body, 0.3)
            planner.height = stands
            yield from wait(body, 3.0)
            body.done("squat")
            return True

        def measure(data: mujoco.MjData) -> None:
            lowest.append(float(data.subtree_com[base][2]))

        base = made.model.body(self.spec.base).id

        def up(data: mujoco.MjData) -> bool:
            made.draw.values["lowest"] = min(lowest)
            return bool(min(lowest) < height + 0.01 and data.subtree_com[base][2] > lowest[0] - 0.03)

        return made.scenario("squat", task, ("squat",), 20.0, done=up, disturb=measure)

    def _over(self, made: Made, name: str, end: float, speed: float) -> Scenario:
        """Walk until what is in the way is behind."""

        def task(body: Body) -> Skill:
            yield from _start(body)
            body.command.velocity = np.array([speed, 0.0])
            while body.state.position[0] < end:
                yield
            body.done(name)
            return True

        def crossed(data: mujoco.MjData) -> bool:
            return bool(data.qpos[0] > end - 0.3)

        return made.scenario(name, task, (name,), 10.0 + 2.0 * end / speed, done=crossed)

    def _made(
        self,
        draw: Drawn,
        touch: Touch,
        slabs: list[Bar] | None = None,
        *,
        known: bool = True,
        by_clock: bool = False,
    ) -> Made:
        def furnish(spec: mujoco.MjSpec, friction: float) -> None:
            for number, slab in enumerate(slabs or []):
                objects.add_slab(spec, f"slab_{number}", slab.front, slab.depth, slab.height, friction)

        def control(alone: mujoco.MjModel) -> LeggedController:
            steps = replace(self.steps, height=float(scene.standing(alone, self.spec)[2]))
            terrain = Terrain(slabs if known and slabs else (), foot=self.foot, lean=0.0)
            return LeggedController(alone, self.spec, StepPlanner(steps, terrain, by_clock=by_clock))

        return unlike(self.spec, draw, touch, control, furnish)


def _start(body: Body) -> Skill:
    """Stand, and then tread on the spot."""
    yield from wait(body, _STANDS)
    body.command.walking = True
    return (yield from wait(body, _TREADS))


def _height(height: float) -> float:
    number = checks.positive("height", height)
    if number > _HIGHEST:
        raise ValueError(f"height is {number:g}; allowed: metres, up to {_HIGHEST:g}")
    return number
