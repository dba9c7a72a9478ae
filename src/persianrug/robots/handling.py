"""Skills of the hand: pick something up, hold it out, let go when somebody pulls, put it back.

All of them go by touch: the jaw feels that it has come to the thing, both sides feel that it is held, what the
gripper feels more after the lift is its weight, and a hand that takes it is felt as a pull.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.arm import gripper_pose
from persianrug.robots.body import Body
from persianrug.robots.pull import PullDetector
from persianrug.robots.skills import Skill, ahead, hold_arm, move_gripper, turn_joints, wait

Floats = NDArray[np.float64]

# It comes so far from the side, so that the jaw does not hit what it reaches for, and stops before it so far.
_ASIDE, _BEFORE = 0.014, 0.13
# Sideways it searches for it so far.
_SEARCH = 0.035
# Something in the way is felt by so much, the jaw's first touch, and the finger's; newtons.
_BUMP, _TOUCH, _FINGER = 6.0, 1.0, 3.0
# The finger closes so fast, in rad/s, with so much, and then presses with so much, in newtons.
_CLOSING, _GENTLE, _FIRM = 0.7, 8.0, 50.0
# Both sides of the gripper feel so much where something is held, and so much once it is firmly.
_HELD, _CLOSED = 2.0, 8.0
_LIFT = 0.10
# It reaches for what is as near as this share of its arm's length.
_REACHED = 0.95


def holds(body: Body) -> bool:
    """Whether both sides of the gripper feel something between them."""
    return _least(body) > _HELD


def pick(body: Body, thing: str, tries: int = 3) -> Skill:
    """Pick up something that stands upright before the robot, trying again if it is missed or slips away."""
    for attempt in range(1, tries + 1):
        why = yield from _pick_once(body, thing)
        if why is None:
            return True
        body.say(f"try {attempt} to pick the {thing}: {why}")
        yield from _back_off(body)
    return False


def _pick_once(body: Body, thing: str) -> Generator[None, None, str | None]:
    """One try; returns what went wrong, or None."""
    arm, grip = body.arm.arm, body.grip
    body.load = np.zeros(3)
    grip.open()
    yield from turn_joints(body, arm.ready, 1.5)
    place = body.see(thing)
    shoulder = body.shoulder()
    if (away := float(np.linalg.norm(place - shoulder))) > _REACHED * body.arm.span:
        return f"it is out of reach, {away:.2f} m from the shoulder"
    direction = float(np.arctan2(place[1] - shoulder[1], place[0] - shoulder[0]))
    rotation = gripper_pose(direction)
    forward, side = rotation[:, 0], rotation[:, 2]
    aside = place - _ASIDE * side
    yield from move_gripper(body, aside - _BEFORE * forward, rotation, 1.5)
    if (yield from move_gripper(body, aside, rotation, 1.3, lambda: _force(body) > _BUMP)):
        body.say(f"the gripper met something with {_force(body):.1f} N")
    # What is light slides away before it is felt, and is met by the finger.
    yield from move_gripper(
        body, _aim(body) + _SEARCH * side, rotation, 1.2, lambda: body.felt(arm.jaw_patch) > _TOUCH, settle=0.0
    )
    grip.close(_CLOSING, _GENTLE)
    met = yield from wait(body, 3.0, lambda: body.felt(arm.finger_patch) > _FINGER)
    if not met:
        return "the finger felt nothing"
    grip.close(1.5, _FIRM)
    firm = _For(body, 0.15)
    if not (yield from wait(body, 2.0, lambda: firm(_least(body) > _CLOSED))):
        return "it could not be held"
    yield from move_gripper(body, _aim(body) + np.array([0.0, 0.0, _LIFT]), rotation, 1.0)
    weight = yield from mean_force(body, 0.3)
    if not holds(body):
        return "it slipped"
    body.load = weight
    body.say(f"holds {-weight[2] / 9.81:z.2f} kg")
    return None


def _back_off(body: Body) -> Skill:
    """Let go and draw the gripper back."""
    body.grip.open()
    body.load = np.zeros(3)
    yield from wait(body, 0.4)
    place, rotation = body.gripper()
    back = place - 0.13 * rotation[:, 0]
    return (yield from move_gripper(body, back, rotation, 1.0))


def put(body: Body, place: Floats, direction: float) -> Skill:
    """Put down what is held so that its middle is at a place (3,): go down until that is felt, and let go.

    Whether it was felt is what is returned.
    """
    rotation = gripper_pose(direction)
    yield from move_gripper(body, place + np.array([0.0, 0.0, _LIFT]), rotation, 1.5)
    before = yield from mean_force(body, 0.3)
    down = place - np.array([0.0, 0.0, 0.03])
    felt = yield from move_gripper(
        body, down, rotation, 2.0, lambda: body.force_on_gripper()[2] - before[2] > _LANDED, settle=0.2
    )
    body.say("it stands" if felt else "it was let go without feeling that it stands")
    yield from _back_off(body)
    return felt


# The force from below that says that what is held stands, in newtons.
_LANDED = 2.0


def draw_in(body: Body) -> Skill:
    """Draw what is held near to the body, and carry it there."""
    place, yaw = ahead(body, 0.72, 0.20)
    yield from move_gripper(body, place, gripper_pose(yaw), 1.5)
    hold_arm(body)
    return True


def hold_out(body: Body) -> Skill:
    """Hold something out to whoever may take it, and learn what it weighs."""
    place, yaw = ahead(body, 0.85, 0.22)
    yield from move_gripper(body, place, gripper_pose(yaw), 1.5)
    yield from wait(body, 0.3)
    body.load = yield from mean_force(body, 0.3)
    return True


def let_go(body: Body, patience: float) -> Skill:
    """Let go when a pull is felt; False if none is for so many seconds, or nothing is held any more."""
    pulls = PullDetector()
    body.offering = True
    gone = _For(body, _GONE)
    end = body.time + patience
    while body.time < end:
        yield
        felt = pulls.update(body.force_on_gripper(), body.gripper()[1][:, 0], body.dt)
        body.pull = pulls.pull
        if felt:
            body.say(f"feels a pull of {pulls.pull:.1f} N")
            release(body)
            return True
        if gone(not holds(body)):
            body.say("holds nothing any more")
            break
    body.offering = False
    return False


def while_held(body: Body, skill: Skill) -> Skill:
    """A skill, left as soon as what is held is lost; then this is False."""
    gone = _For(body, _GONE)
    for _ in skill:
        if gone(not holds(body)):
            return False
        yield
    return True


# What is not felt for so many seconds is held no longer.
_GONE = 0.3


def release(body: Body) -> None:
    """Open the gripper at once."""
    body.grip.open()
    body.load = np.zeros(3)
    body.pull = 0.0


def mean_force(body: Body, seconds: float) -> Generator[None, None, Floats]:
    """The mean force (3,) on the gripper over some seconds, in the world, in newtons."""
    end, felt = body.time + seconds, []
    while body.time < end:
        yield
        felt.append(body.force_on_gripper())
    return np.mean(felt, axis=0)


def _aim(body: Body) -> Floats:
    """Where the gripper should be now (3,)."""
    pose = body.arm.pose
    return body.gripper()[0] if pose is None else pose[0]


def _force(body: Body) -> float:
    force = body.force_on_gripper()
    return float(np.sqrt(force @ force))


def _least(body: Body) -> float:
    """What presses on the side of the gripper that feels less."""
    arm = body.arm.arm
    return min(body.felt(arm.jaw_patch), body.felt(arm.finger_patch))


class _For:
    """Whether something has been so for some seconds."""

    def __init__(self, body: Body, seconds: float) -> None:
        self.body, self.seconds = body, seconds
        self.since: float | None = None

    def __call__(self, so: bool) -> bool:
        if not so:
            self.since = None
        elif self.since is None:
            self.since = self.body.time
        return self.since is not None and self.body.time - self.since >= self.seconds
