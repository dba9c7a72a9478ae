"""Where the robot takes itself to be."""

from dataclasses import replace

import mujoco
import numpy as np

from persianrug.robots import objects
from persianrug.robots.estimator import BodyNoise, LegOdometry, TrueState
from persianrug.robots.spot.spec import SPEC
from persianrug.robots.terrain import Bar, Terrain
from tests.robots.worlds import DT, Standing


def test_the_truth_is_the_truth():
    world = Standing()
    world.run(0.1)
    alone = world.controller.dynamics
    q, v = TrueState(alone.nq, alone.nv).estimate(world.data, None, DT)
    np.testing.assert_array_equal(q, world.data.qpos[: alone.nq])
    np.testing.assert_array_equal(v, world.data.qvel[: alone.nv])
    # Copies: what is done with them does not move the world.
    q[:] = 0
    assert world.data.qpos[2] > 0.4


def test_odometry_drifts_little_along_a_way():
    world = Standing(odometry=True)
    world.run(0.3)
    world.walk(0.5)
    speeds = []
    world.run(2.0, lambda w: speeds.append(w.controller.dynamics.state.velocity[0] - w.data.qvel[0]))
    away = world.controller.dynamics.state.position - world.data.qpos[:3]
    way = world.data.qpos[0]
    assert way > 1.0
    assert np.abs(away[:2]).max() < 0.03 * way
    assert abs(away[2]) < 0.01
    assert abs(np.mean(speeds)) < 0.03


def test_it_knows_its_height_on_a_bar():
    """A robot whose front feet stand on a bar is as high as it is, and not lower by the bar."""
    bar = Bar(0.15, 0.35, 0.06)
    furnish = lambda spec: objects.add_bar(spec, bar.front, bar.depth, bar.height, 0.8)  # noqa: E731
    world = Standing(Terrain((bar,)), odometry=True, furnish=furnish)
    world.data.qpos[2] += bar.height / 2
    tilt = np.arctan2(bar.height, 0.6)
    world.data.qpos[3:7] = np.cos(tilt / 2), 0, -np.sin(tilt / 2), 0
    mujoco.mj_forward(world.model, world.data)
    world.run(1.5)
    assert world.data.qpos[2] > SPEC.height + 0.01
    assert abs(world.controller.dynamics.state.position[2] - world.data.qpos[2]) < 0.01
    assert world.sensor.sense(world.data).pressing[:4].min() > 20


def test_an_accelerometer_that_is_wrong_does_not_matter_where_feet_stand(monkeypatch):
    """A constant error of 0.2 m/s^2 alone would be 0.4 m after 2 s."""
    world = Standing(odometry=True)
    measure = world.estimator._measure

    def wrong(data):
        q, v, acceleration = measure(data)
        return q, v, acceleration + np.array([0.2, 0, 0])

    monkeypatch.setattr(world.estimator, "_measure", wrong)
    world.run(2.0)
    assert abs(world.controller.dynamics.state.position[0] - world.data.qpos[0]) < 0.02


def test_without_touch_it_does_not_stand_still_by_itself():
    """No foot is felt: speed comes from the accelerometer alone, whose noise adds up."""
    world = Standing()
    world.run(0.2)
    world.planner.gait = replace(world.planner.gait, touch=1e9)
    blind = LegOdometry(world.controller.dynamics.model, SPEC, world.planner, seed=1)
    for _ in range(100):
        blind.estimate(world.data, world.sensor.sense(world.data), DT)
    assert not np.allclose(blind.velocity, 0, atol=1e-4)


def test_noise_is_what_it_says():
    world = Standing()
    world.run(0.2)
    dynamics = world.controller.dynamics
    noise = BodyNoise(tilt=0.01, gyro=0.05, accelerometer=0.0, angle=0.002, speed=0.1)
    odometry = LegOdometry(dynamics.model, SPEC, world.planner, noise, seed=0)
    reading = world.sensor.sense(world.data)
    q, v = map(np.array, zip(*(odometry.estimate(world.data, reading, DT) for _ in range(2000)), strict=True))
    assert abs(np.std(q[:, 7:], axis=0).mean() - 0.002) < 0.0001
    assert abs(np.std(v[:, 6:], axis=0).mean() - 0.1) < 0.005
    assert abs(np.std(v[:, 3:6], axis=0).mean() - 0.05) < 0.003
    # A quaternion turned by a small angle differs by half of it.
    assert abs(np.std(q[:, 4:7], axis=0).mean() - 0.005) < 0.0005


def test_same_seed_same_estimates():
    found = []
    for seed in (3, 3, 4):
        world = Standing()
        world.estimator = LegOdometry(world.controller.dynamics.model, SPEC, world.planner, seed=seed)
        world.run(0.1)
        found.append(world.data.qpos.copy())
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
