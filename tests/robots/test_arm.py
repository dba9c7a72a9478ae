"""The arm comes to where it is told, and no joint goes where it cannot."""

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.robots.arm import gripper_pose
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


@pytest.mark.parametrize("place", [(5.0, 3.0, 3.0), (-1.0, 0.0, 0.5)], ids=["far", "behind"])
def test_a_place_out_of_reach_does_not_throw_it(place):
    world = Standing()
    world.run(0.2)
    arm = world.controller.arm
    arm.pose = (np.array(place), gripper_pose(0.5), np.zeros(3))
    for _ in range(500):
        world.tick()
        assert (arm.target >= arm.lowest).all()
        assert (arm.target <= arm.highest).all()
        assert (np.abs(arm.speed) <= 2.5).all()
    assert np.abs(world.controller.dynamics.state.rpy).max() < 0.2
    assert world.data.qpos[2] > 0.45
    assert np.abs(world.data.qvel).max() < 5


def test_it_knows_how_far_it_reaches():
    """Straight, its grasp is so far from its first joint."""
    arm = Standing().controller.arm
    model = arm.dynamics.model
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    far = np.linalg.norm(data.site(SPEC.arm.grasp).xpos - data.xanchor[model.joint(SPEC.arm.joints[0]).id])
    assert far <= arm.span < 1.2 * far + 0.2


@given(st.floats(-3, 3), st.floats(-1, 1))
def test_gripper_poses(direction, pitch):
    pose = gripper_pose(direction, pitch)
    np.testing.assert_allclose(pose.T @ pose, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose) == pytest.approx(1)
    forward = [np.cos(direction) * np.cos(pitch), np.sin(direction) * np.cos(pitch), -np.sin(pitch)]
    np.testing.assert_allclose(pose[:, 0], forward, atol=1e-12)
    assert pose[2, 1] == pytest.approx(np.cos(pitch))
