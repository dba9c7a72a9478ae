"""The finger: it opens, closes at its speed, and presses with no more than it may."""

import numpy as np
import pytest

from persianrug.robots.grip import Grip
from persianrug.robots.spot.spec import SPEC
from tests.robots.worlds import DT, Standing

STIFFNESS = 40.0


def make_grip():
    return Grip(SPEC.arm, STIFFNESS)


def followed(grip, seconds, angle=0.0):
    """The targets while the finger is where it is told to be."""
    targets = []
    for _ in range(round(seconds / DT)):
        angle = grip.command(angle, DT)
        targets.append(angle)
    return np.array(targets)


def test_opens_and_closes_at_its_speed():
    grip = make_grip()
    grip.open()
    opened = followed(grip, 1.0)
    assert opened[-1] == SPEC.arm.opened
    grip.close(0.5, 8.0)
    closed = followed(grip, 1.0, opened[-1])
    np.testing.assert_allclose(np.diff(closed), 0.5 * DT)
    assert followed(grip, 3.0, closed[-1])[-1] == 0


@pytest.mark.parametrize("force", [3.0, 8.0, 50.0])
def test_presses_with_no_more_than_it_may(force):
    """What is in the way holds the finger; its motor is a spring."""
    grip = make_grip()
    blocked = -0.6
    grip.target = blocked
    grip.close(2.0, force)
    targets = [grip.command(blocked, DT) for _ in range(500)]
    pressed = STIFFNESS * (np.array(targets) - blocked) / SPEC.arm.reach
    assert pressed.max() <= force + 1e-9
    # No spring to 0 presses with more than it would there.
    assert pressed[-1] == pytest.approx(min(force, STIFFNESS * 0.6 / SPEC.arm.reach))


def test_pressing_less_is_at_once():
    grip = make_grip()
    grip.target = -0.5
    grip.close(2.0, 50.0)
    for _ in range(500):
        grip.command(-0.5, DT)
    grip.close(2.0, 5.0)
    assert STIFFNESS * (grip.command(-0.5, DT) + 0.5) / SPEC.arm.reach == pytest.approx(5.0)


def test_the_robots_finger_goes_where_it_is_told():
    world = Standing()
    grip, finger = world.controller.grip, world.model.joint(SPEC.arm.finger).qposadr[0]
    grip.open()
    world.run(0.8)
    assert world.data.qpos[finger] == pytest.approx(SPEC.arm.opened, abs=0.05)
    grip.close(0.7, 20.0)
    world.run(0.5)
    # It lags behind by as much all the time.
    place, begun = world.data.qpos[finger], world.data.time
    world.run(0.5)
    assert (world.data.qpos[finger] - place) / (world.data.time - begun) == pytest.approx(0.7, rel=0.1)
    world.run(1.0)
    assert world.data.qpos[finger] == pytest.approx(0, abs=0.05)
