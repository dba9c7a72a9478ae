"""The story: over a bar, to a can on a stand, and with it to a person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from persianrug.robots.body import Body
from persianrug.robots.handling import draw_in, hold_out, holds, let_go, pick, put, while_held
from persianrug.robots.skills import Skill, stand, turn_joints, wait, walk_to

PARTS = ("walk", "bar", "stop", "pick", "back off", "carry", "offer", "let go", "fold")
# Those where nobody comes.
ALONE = (*PARTS[:7], "put back", "fold")
# The base stands so far before the can when it picks it up, in metres.
_BEFORE = 0.95
# Its feet are so far before and behind its middle, in metres.
_FORWARD = 0.35
# So far it backs off, walks to the side, and turns back to where the person is.
_BACK, _ASIDE, _NEARER = 0.45, 1.1, 0.10
# It offers the can for so many seconds.
_PATIENCE = 15.0


def fetch(body: Body) -> Skill:
    """The whole story."""
    yield from wait(body, 0.3)
    bar = body.controller.planner.terrain.bars[0]

    def watch() -> None:
        # Its front feet come to the bar, and its hind feet are past it.
        for part, x in (("walk", bar.front - _FORWARD), ("bar", bar.end + _FORWARD + 0.1)):
            if part not in body.parts and body.state.position[0] > x:
                body.done(part)

    there = yield from _watching(walk_to(body, lambda: _before_stand(body)), watch)
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
    yield from hold_out(body)
    body.done("offer")
    if not (yield from let_go(body, patience)):
        body.failed("let go", f"nobody pulled within {patience:g} s" if holds(body) else "the can is gone")
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
    for part, place, near in (
        ("back off", (back, y, 0.0), 0.06),
        ("carry", (back, y + 0.05, np.pi / 2), 0.08),
        ("carry", (back, y + _ASIDE, np.pi / 2), 0.06),
        ("carry", (back + _NEARER, y + _ASIDE + 0.1, 0.0), 0.06),
    ):
        if not (yield from while_held(body, walk_to(body, _fixed(*place), near=near))):
            body.failed(part, "the can was lost on the way")
            yield from stand(body)
            return False
        if part == "back off":
            body.done(part)
    body.done("carry")
    return True


def _put_back(body: Body, before: np.ndarray) -> Skill:
    """Carry the can back, and put it where it was."""
    yield from draw_in(body)
    x, y = before
    for place, near in (
        ((x - _BACK, y + _ASIDE, -np.pi / 2), 0.08),
        ((x - _BACK, y, -np.pi / 2), 0.08),
        ((x - _BACK, y, 0.0), 0.06),
    ):
        yield from walk_to(body, _fixed(*place), near=near)
    yield from walk_to(body, lambda: (body.see("stand")[0] - _BEFORE, body.see("stand")[1], 0.0))
    place = body.see("stand_top") + np.array([0.0, 0.0, 0.0575])
    yield from put(body, place, body.state.yaw)
    body.done("put back")
    yield from fold(body)
    body.done("fold")
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
