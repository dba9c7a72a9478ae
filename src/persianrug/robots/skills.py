"""Skills: what a robot can do, as generators that are resumed once a tick until they return.

A skill sets what the robot should do and yields; with `yield from` it uses other skills. It knows what the robot
knows, and nothing of the simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.body import Body
from persianrug.robots.state import about_z, wrapped
from persianrug.robots.swing import minimum_jerk

Floats = NDArray[np.float64]
Skill = Generator[None, None, bool]

# Errors of place and direction are walked off at this rate (1/s), with speeds that change by so much (m/s^2).
_RATE, _CHANGE = 1.2, 1.0
_BACK, _SIDE, _TURN = 0.3, 0.2, 0.5


def wait(body: Body, seconds: float, until: Callable[[], bool] | None = None) -> Skill:
    """Do nothing for a while, or until something is so; True if it came to be so, or if only time was to pass."""
    end = body.time + seconds
    while body.time < end:
        yield
        if until is not None and until():
            return True
    return until is None


def walk_to(
    body: Body,
    place: Callable[[], tuple[float, float, float]],
    *,
    fastest: float = 0.45,
    near: float = 0.03,
    seconds: float = 25.0,
) -> Skill:
    """Walk to a place and stand there.

    Parameters
    ----------
    place : callable
        x, y and yaw of the base in the world, as they are seen in each tick.
    fastest : float
        In m/s.
    near : float
        The distance from the place at which it stops, in metres.
    seconds : float
        After so many it gives up, and stands; then the skill returns False.
    """
    command = body.command
    command.walking, command.stopping = True, False
    end = body.time + seconds
    there = False
    while not there and body.time < end:
        x, y, yaw = place()
        away = body.state.heading[:2, :2].T @ (np.array([x, y]) - body.state.position[:2])
        turn = wrapped(yaw - body.state.yaw)
        wanted = np.clip(_RATE * away, [-_BACK, -_SIDE], [fastest, _SIDE])
        step = _CHANGE * body.dt
        command.velocity = command.velocity + np.clip(wanted - command.velocity, -step, step)
        command.turn = float(np.clip(_RATE * turn, -_TURN, _TURN))
        yield
        there = bool(np.hypot(*away) < near and abs(turn) < 0.05)
    yield from stand(body)
    return there


def stand(body: Body) -> Skill:
    """Stop with all feet where they should be."""
    command = body.command
    command.velocity, command.turn, command.stopping = np.zeros(2), 0.0, True
    yield from wait(body, 3.0, lambda: body.controller.planner.settled)
    command.walking = command.stopping = False
    yield from wait(body, 0.3)
    return True


def turn_joints(body: Body, angles: tuple[float, ...] | Floats, seconds: float) -> Skill:
    """Turn the arm's joints to some angles, in so many seconds."""
    arm = body.arm
    arm.pose = None
    start, end, begun = arm.target.copy(), np.array(angles, dtype=np.float64), body.time
    while body.time < begun + seconds:
        along, speed, _ = minimum_jerk((body.time - begun) / seconds)
        arm.target, arm.speed = start + (end - start) * along, (end - start) * speed / seconds
        yield
    arm.target, arm.speed = end, np.zeros(len(end))
    return True


def move_gripper(
    body: Body,
    place: Floats,
    rotation: Floats,
    seconds: float,
    until: Callable[[], bool] | None = None,
    settle: float = 0.3,
) -> Skill:
    """Move the gripper along a line for some seconds, or until something is so; True if it is, or came there."""
    arm = body.arm
    start = body.gripper()[0] if arm.pose is None else arm.pose[0]
    begun = body.time
    while body.time < begun + seconds + settle:
        along, speed, _ = minimum_jerk((body.time - begun) / seconds)
        arm.pose = (start + (place - start) * along, rotation, (place - start) * speed / seconds)
        yield
        if until is not None and until():
            arm.pose = (arm.pose[0], rotation, np.zeros(3))
            return True
    arm.pose = (place, rotation, np.zeros(3))
    return until is None


def hold_arm(body: Body) -> None:
    """Keep the arm's joints as they are, so that it goes where the base goes."""
    arm = body.arm
    arm.pose = None
    arm.target, arm.speed = body.state.q[arm.places].copy(), np.zeros(len(arm.dofs))


def ahead(body: Body, forward: float, up: float) -> tuple[Floats, float]:
    """A place (3,) so far before and above the base, and the direction there."""
    yaw = body.state.yaw
    return body.state.position + about_z(yaw) @ np.array([forward, 0.0, up]), yaw
