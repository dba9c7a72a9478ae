"""The arm comes to where it is told, and the gripper does what it is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.robots.arm import gripper_pose
from persianrug.robots.grip import Grip
from persianrug.robots.spot.spec import SPEC
from tests.robots.worlds import Standing


def test_it_comes_to_poses_and_keeps_within_its_limits():
    world = Standing()
    world.run(0.2)
    arm = world.controller.arm
    arm.target = np.array(SPEC.arm.ready)
    world.run(1.0)
    for forward, side, up, yaw in ((0.85, 0.0, 0.15, 0.0), (0.80, 0.15, 0.0, 0.2), (0.75, -0.1, -0.1, -0.1)):
        place = world.controller.dynamics.state.position + np.array([forward, side, up])
        arm.pose = (place, gripper_pose(yaw), np.zeros(3))
        world.run(2.0)
        assert arm.error[0] < 0.005
        assert arm.error[1] < 0.03
        angles = world.controller.dynamics.state.q[arm.places]
        assert (angles > arm.lowest - 0.05).all()
        assert (angles < arm.highest + 0.05).all()
    assert np.abs(world.controller.dynamics.state.rpy).max() < 0.05


def test_a_place_out_of_reach_does_not_throw_it():
    world = Standing()
    world.run(0.2)
    world.controller.arm.pose = (np.array([3.0, 0.0, 0.5]), gripper_pose(0.0), np.zeros(3))
    world.run(2.0)
    assert np.abs(world.controller.dynamics.state.rpy).max() < 0.2
    assert world.data.qpos[2] > 0.45
    assert np.abs(world.data.qvel).max() < 5


@given(st.floats(-3, 3), st.floats(-1, 1))
def test_gripper_poses(direction, pitch):
    pose = gripper_pose(direction, pitch)
    np.testing.assert_allclose(pose.T @ pose, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose) == pytest.approx(1)
    forward = [np.cos(direction) * np.cos(pitch), np.sin(direction) * np.cos(pitch), -np.sin(pitch)]
    np.testing.assert_allclose(pose[:, 0], forward, atol=1e-12)
    assert pose[2, 1] == pytest.approx(np.cos(pitch))


def test_grip_opens_at_once_and_closes_slowly():
    grip, angle, dt = Grip(SPEC.arm, 60.0), 0.0, 0.004
    grip.open()
    for _ in range(200):
        angle = grip.command(angle, dt)
    assert angle == SPEC.arm.opened
    grip.close(0.5, 20.0)
    for _ in range(250):
        angle = grip.command(angle, dt)
    assert angle == pytest.approx(SPEC.arm.opened + 0.5)


@pytest.mark.parametrize("force", [5.0, 50.0])
def test_grip_presses_with_no_more_than_it_may(force):
    """The motor is a spring: where the finger is held, its target leads by the force times its reach."""
    grip, held = Grip(SPEC.arm, 60.0), -0.4
    grip.target = held
    grip.close(1.0, force)
    for _ in range(1000):
        target = grip.command(held, 0.004)
    assert 60.0 * (target - held) / SPEC.arm.reach == pytest.approx(min(force, 60 * 0.4 / SPEC.arm.reach))
