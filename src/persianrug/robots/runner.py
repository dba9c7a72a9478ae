"""The loop that all runs go through: feel, estimate, decide, act, and let the world go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.body import Body
from persianrug.robots.contacts import ContactReading
from persianrug.robots.scenario import Scenario

Floats = NDArray[np.float64]

# Control ticks a second.
RATE = 250
# A base that is lower than this share of where it stands, or that leans by more than so much (rad), has fallen.
_LOW, _LEAN = 0.45, 0.7
# Of the first three MuJoCo warns, and begins anew at time 0; with a bad motor it warns, and lets it do nothing.
_DIVERGED = tuple(
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
)


@dataclass(frozen=True)
class Part:
    """A part of a story: whether it was done, and when, in seconds."""

    name: str
    done: bool
    at: float | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    succeeded : bool
    seconds : float
        Of simulated time.
    parts : tuple of Part
    reason : str
        Why it failed; empty if it did not.
    skin : dict
        Statistics of the skin; empty where contacts are the truth.
    timing : dict
        `wall`, and of it `physics`, `touch` and `control` in seconds; `control_p99` of a tick in seconds;
        `steps_per_second` of the physics alone; `real_time`, simulated seconds for one of these.
    drawn : dict
        What was drawn at random.
    """

    succeeded: bool
    seconds: float
    parts: tuple[Part, ...]
    reason: str
    skin: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    drawn: dict[str, Any] = field(default_factory=dict)


class Runner:
    """Runs a scenario.

    Parameters
    ----------
    scenario : Scenario
    log : optional
        Its `append(runner)` is called once a tick.

    Attributes
    ----------
    data : mujoco.MjData
        The world as it is.
    body : Body
        What the robot knows of it.
    reading : ContactReading
        What is felt in this tick.
    ctrl : array (nu,)
    """

    def __init__(self, scenario: Scenario, log: Any = None) -> None:
        self.scenario, self.log = scenario, log
        model = scenario.model
        self.data = mujoco.MjData(model)
        self.data.qpos[:] = scenario.start
        if scenario.moving is not None:
            self.data.qvel[:] = scenario.moving
        mujoco.mj_forward(model, self.data)
        self.steps = max(1, round(1 / (RATE * model.opt.timestep)))
        self.dt = self.steps * model.opt.timestep
        self.body = Body(scenario.controller, self._look, self.dt)
        self.motors = scenario.controller.dynamics.model.nu
        self._base = model.body(scenario.spec.base).id
        self.ticks: list[float] = []
        self.reading: ContactReading
        self.ctrl: Floats

    def _look(self, name: str) -> Floats:
        """Where a thing is, in the frame of the base."""
        body = self.scenario.model.body(name).id
        away = self.data.xpos[body] - self.data.xpos[self._base] + self.scenario.seen_wrong
        return self.data.xmat[self._base].reshape(3, 3).T @ away

    def run(
        self, on_part: Callable[[Part], None] | None = None, on_event: Callable[[float, str], None] | None = None
    ) -> Outcome:
        """Run until the task ends, the robot falls or time is up."""
        scenario, data, body = self.scenario, self.data, self.body
        task = None
        spent = {"touch": 0.0, "control": 0.0, "physics": 0.0}
        begun = time.perf_counter()
        told = [0, 0]

        def tell() -> None:
            """What has come since the last time."""
            for at, text in body.events[told[1] :]:
                if on_event is not None:
                    on_event(at, text)
            for name, (done, at) in list(body.parts.items())[told[0] :]:
                if on_part is not None:
                    on_part(Part(name, done, at))
            told[:] = len(body.parts), len(body.events)

        succeeded, reason = False, ""
        while True:
            clock = time.perf_counter()
            self.reading = scenario.sensor.sense(data)
            sensed = time.perf_counter()
            q, v = scenario.estimator.estimate(data, self.reading, self.dt)
            scenario.controller.observe(q, v, self.reading, data.time)
            body.touch = self.reading
            if task is None:
                task = scenario.task(body)
            try:
                next(task)
            except StopIteration as end:
                succeeded = bool(end.value)
                if not succeeded:
                    reason = body.events[-1][1] if body.events else "the task was not done"
                break
            self.ctrl = scenario.controller.act(self.dt)
            decided = time.perf_counter()
            data.ctrl[: self.motors] = self.ctrl
            for actor in scenario.actors:
                actor.act(data, body)
            if scenario.disturb is not None:
                scenario.disturb(data)
            if self.log is not None:
                self.log.append(self)
            moving = time.perf_counter()
            with _quiet():
                mujoco.mj_step(scenario.model, data, self.steps)
            after = time.perf_counter()
            spent["touch"] += sensed - clock
            spent["control"] += decided - sensed
            spent["physics"] += after - moving
            self.ticks.append(decided - sensed)
            tell()
            if reason := self._over():
                break
        tell()
        if succeeded and scenario.done is not None and not scenario.done(data):
            succeeded, reason = False, "what counts was not reached"
        parts = tuple(
            Part(name, *body.parts[name]) if name in body.parts else Part(name, False, None)
            for name in scenario.parts
        )
        statistics = getattr(scenario.sensor, "statistics", dict)
        wall = time.perf_counter() - begun
        seconds = body.time if self._diverged() else float(data.time)
        used = sum(spent.values())
        steps = len(self.ticks) * self.steps
        timing = spent | {
            "wall": wall,
            "control_p99": float(np.quantile(self.ticks, 0.99)) if self.ticks else 0.0,
            "steps_per_second": steps / spent["physics"] if spent["physics"] else 0.0,
            "real_time": seconds / used if used else 0.0,
        }
        return Outcome(succeeded, seconds, parts, reason, statistics(), timing, dict(scenario.drawn))

    def _diverged(self) -> bool:
        return any(self.data.warning[kind].number for kind in _DIVERGED) or not np.isfinite(self.data.qpos).all()

    def _over(self) -> str:
        """Why this cannot go on; empty if it can."""
        data, scenario = self.data, self.scenario
        if self._diverged():
            return f"the physics diverged at {self.body.time:.2f} s"
        rotation = data.xmat[self._base].reshape(3, 3)
        if data.xpos[self._base][2] < _LOW * scenario.spec.height or rotation[2, 2] < np.cos(_LEAN):
            return f"the robot fell at {data.time:.2f} s"
        if data.time > scenario.seconds:
            return f"it was not done within {scenario.seconds:g} s"
        return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MuJoCo from printing its warnings, and from writing them into a file where the user is."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
