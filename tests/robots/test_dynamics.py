"""The controller's own model says what MuJoCo says, and its Jacobians are derivatives."""

import mujoco
import numpy as np
import pytest

from persianrug.robots import scene
from persianrug.robots.dynamics import Dynamics
from persianrug.robots.spot.spec import SPEC


@pytest.fixture(scope="module")
def model():
    return scene.robot_model(SPEC)


def random_state(model, seed):
    random = np.random.default_rng(seed)
    q, v = model.qpos0.copy(), random.normal(size=model.nv)
    mujoco.mj_integratePos(model, q, 0.3 * random.normal(size=model.nv), 1.0)
    return q, v


def moved(model, q, v, step):
    q = q.copy()
    mujoco.mj_integratePos(model, q, v, step)
    return q


@pytest.mark.parametrize("seed", range(3))
def test_equation_of_motion(model, seed):
    """M v' + h are the forces that inverse dynamics asks for."""
    q, v = random_state(model, seed)
    dynamics = Dynamics(model, SPEC)
    dynamics.set(q, v, 0.0)
    acceleration = np.random.default_rng(seed + 10).normal(size=model.nv)
    data = mujoco.MjData(dynamics.model)
    data.qpos[:], data.qvel[:], data.qacc[:] = q, v, acceleration
    mujoco.mj_inverse(dynamics.model, data)
    # Friction and damping of joints are left to the motors' own model.
    expected = data.qfrc_inverse + data.qfrc_passive
    np.testing.assert_allclose(dynamics.M @ acceleration + dynamics.h, expected, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_jacobians_are_derivatives(model, seed):
    q, v = random_state(model, seed)
    dynamics, step = Dynamics(model, SPEC), 1e-6
    ahead = dynamics.set(moved(model, q, v, step), v, 0.0)
    speed_ahead = ahead.feet_velocity
    grasp_ahead = dynamics.site("grasp")[0]
    com_ahead = dynamics.com_jacobian()[0] @ v
    before = dynamics.set(moved(model, q, v, -step), v, 0.0)
    grasp_before = dynamics.site("grasp")[0]
    com_before = dynamics.com_jacobian()[0] @ v
    state = dynamics.set(q, v, 0.0)
    np.testing.assert_allclose((ahead.feet - before.feet) / (2 * step), state.feet_velocity, atol=1e-5)
    turned = (ahead.rotation - before.rotation) @ state.rotation.T / (2 * step)
    axis = [turned[2, 1], turned[0, 2], turned[1, 0]]
    np.testing.assert_allclose(axis, state.angular_velocity, atol=1e-5)
    np.testing.assert_allclose((ahead.com - before.com) / (2 * step), state.com_velocity, atol=1e-5)
    np.testing.assert_allclose(
        (grasp_ahead - grasp_before) / (2 * step), dynamics.site("grasp")[2][:3] @ v, atol=1e-5
    )
    np.testing.assert_allclose((speed_ahead - before.feet_velocity) / (2 * step), dynamics.drift, atol=1e-4)
    jacobian, drift = dynamics.com_jacobian()
    np.testing.assert_allclose(jacobian @ v, state.com_velocity, atol=1e-9)
    np.testing.assert_allclose((com_ahead - com_before) / (2 * step), drift, atol=1e-4)


def test_the_model_of_the_world_is_left_alone(model):
    flags = model.opt.disableflags
    Dynamics(model, SPEC)
    assert model.opt.disableflags == flags


def test_angles(model):
    q, v = model.qpos0.copy(), np.zeros(model.nv)
    roll, pitch, yaw = 0.1, -0.2, 0.7
    for axis, angle in ((2, yaw), (1, pitch), (0, roll)):
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.eye(3)[axis], angle)
        mujoco.mju_mulQuat(q[3:7], q[3:7].copy(), turn)
    state = Dynamics(model, SPEC).set(q, v, 0.0)
    np.testing.assert_allclose(state.rpy, [roll, pitch, yaw], atol=1e-12)
    np.testing.assert_allclose(state.heading[:2, 0], [np.cos(yaw), np.sin(yaw)], atol=1e-12)
