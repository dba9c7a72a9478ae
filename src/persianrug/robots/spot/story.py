"""The story: over a bar, to a can on a stand, and with it to a person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.body import Body
from persianrug.robots.handling import draw_in, holds, offer, pick, put, while_held
from persianrug.robots.objects import CAN_HALF
from persianrug.robots.skills import Skill, stand, turn_joints, wait, walk_to

Floats = NDArray[np.float64]

PARTS = ("walk", "bar", "stop", "pick", "back off", "carry", "offer", "let go", "fold")
# Where nobody takes the can.
PARTS_ALONE = (*PARTS[:-2], "put back")
# The base stands so far before the can when it picks it up, in metres.
_BEFORE = 0.95
# So far it backs off, walks to the side, and turns back to where the person is.
_BACK, _ASIDE, _NEARER = 0.45, 1.1, 0.10
# It offers the can for so many seconds.
_PATIENCE = 15.0


def fetch(body: Body) -> Skill:
    """The whole story."""
    yield from wait(body, 0.3)
    body.done("walk")
    crossed = _Once(lambda: body.state.position[0] > body.controller.planner.terrain.bars[0].end + 0.45)
    there = yield from _watching(
        walk_to(body, lambda: _before_stand(body)), lambda: body.done("bar") if crossed() else None
    )
    if not there:
        body.failed("stop", "it did not come to the stand")
        return False
    body.done("stop")
    if not (yield from pick_up(body)):
        return False
    place = body.state.position[:2].copy()
    if not (yield from _carry(body)):
        return False
    if (yield from hand_over(body)):
        return True
    if not holds(body):
        return False
    return (yield from _put_back(body, place))


def pick_up(body: Body) -> Skill:
    """Pick up the can, and draw it in."""
    if not (yield from pick(body, "can")):
        body.failed("pick", "the can was not picked up")
        return False
    body.done("pick")
    yield from draw_in(body)
    return True


def hand_over(body: Body, patience: float = _PATIENCE) -> Skill:
    """Hold the can out, let go when a pull is felt, and fold the arm."""
    body.done("offer")
    if not (yield from offer(body, patience)):
        if holds(body):
            body.say(f"nobody pulled within {patience:g} s")
        else:
            body.failed("let go", "the can is gone")
        return False
    body.done("let go")
    yield from wait(body, 0.5)
    body.offering = False
    yield from fold(body)
    body.done("fold")
    return True


def fold(body: Body) -> Skill:
    """Fold the arm away."""
    arm = body.arm.arm
    yield from turn_joints(body, arm.ready, 1.2)
    body.grip.close(1.0, 5.0)
    return (yield from turn_joints(body, arm.stowed, 1.5))


def _before_stand(body: Body) -> tuple[float, float, float]:
    """Where the base should stand to reach the can."""
    can = body.see("can")
    return can[0] - _BEFORE, can[1], 0.0


def _carry(body: Body) -> Skill:
    """Back off from the stand, and carry the can to where the person is."""
    x, y = body.state.position[:2]
    back = x - _BACK
    if not (yield from _with_can(body, "back off", _along(body, ((back, y, 0.0), 0.06)))):
        return False
    body.done("back off")
    way = _along(
        body,
        ((back, y + 0.05, np.pi / 2), 0.08),
        ((back, y + _ASIDE, np.pi / 2), 0.06),
        ((back + _NEARER, y + _ASIDE + 0.1, 0.0), 0.06),
    )
    if not (yield from _with_can(body, "carry", way)):
        return False
    body.done("carry")
    return True


def _with_can(body: Body, part: str, skill: Skill) -> Skill:
    """A part of the story that has failed as soon as the can is lost."""
    if (yield from while_held(body, skill)):
        return True
    body.failed(part, "the can was lost on the way")
    yield from stand(body)
    return False


def _along(body: Body, *places: tuple[tuple[float, float, float], float]) -> Skill:
    """Walk to places, each x, y and yaw, and how near one has to come."""
    for place, near in places:
        yield from walk_to(body, _fixed(*place), near=near)
    return True


def _put_back(body: Body, before: Floats) -> Skill:
    """Carry the can back to before its stand, and put it where it was."""
    x, y = before
    way = _along(
        body,
        ((x - _BACK, y + _ASIDE, -np.pi / 2), 0.08),
        ((x - _BACK, y, -np.pi / 2), 0.08),
        ((x - _BACK, y, 0.0), 0.06),
    )
    yield from draw_in(body)
    for skill in (way, walk_to(body, lambda: (body.see("stand")[0] - _BEFORE, body.see("stand")[1], 0.0))):
        if not (yield from _with_can(body, "put back", skill)):
            return False
    top = body.see("stand_top")
    shoulder = body.shoulder()
    direction = float(np.arctan2(top[1] - shoulder[1], top[0] - shoulder[0]))
    if not (yield from put(body, top + np.array([0.0, 0.0, CAN_HALF]), direction)):
        body.failed("put back", "the can was not felt to stand")
        return False
    yield from fold(body)
    body.done("put back")
    return True


def _fixed(x: float, y: float, yaw: float) -> Callable[[], tuple[float, float, float]]:
    return lambda: (x, y, yaw)


def _watching(skill: Skill, check: Callable[[], object]) -> Skill:
    """A skill, with something looked at in every tick."""
    while True:
        try:
            next(skill)
        except StopIteration as end:
            return bool(end.value)
        check()
        yield


class _Once:
    """Whether something is so for the first time."""

    def __init__(self, so: Callable[[], bool]) -> None:
        self.so, self.was = so, False

    def __call__(self) -> bool:
        if self.was or not self.so():
            return False
        self.was = True
        return True
