"""The gait: it goes where it is told, keeps off what it should not step on, and stands on what it feels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.robots import objects
from persianrug.robots.swing import minimum_jerk, swing
from persianrug.robots.terrain import Bar, Terrain
from tests.robots.worlds import Standing


def test_stands_still_on_its_own_weight():
    world = Standing()
    world.run(1.0)
    weight = 9.81 * world.controller.dynamics.mass
    feet = world.sensor.sense(world.data).pressing[:4]
    assert feet.sum() == pytest.approx(weight, rel=0.02)
    assert np.abs(world.controller.dynamics.state.rpy).max() < 0.02
    assert np.abs(world.data.qvel).max() < 0.05


def test_trots_level_at_the_speed_it_is_told():
    world = Standing(odometry=True)
    world.run(0.3)
    world.walk(0.5)
    tilt, start, time = [], world.data.qpos[0], world.data.time
    world.run(1.5, lambda w: tilt.append(np.abs(w.controller.dynamics.state.rpy[:2]).max()))
    assert (world.data.qpos[0] - start) / (world.data.time - time) == pytest.approx(0.5, abs=0.06)
    assert max(tilt) < 0.05
    assert world.controller.qp.failed == 0
    # Odometry has drifted by little.
    away = world.controller.dynamics.state.position - world.data.qpos[:3]
    assert np.abs(away).max() < 0.03


def test_energy_stays_sane():
    """Nothing shakes: what motors do is of the size of what trotting needs."""
    world = Standing()
    world.run(0.3)
    power = []

    def each(w):
        motors = w.controller.qp.actuated
        power.append(np.abs(w.controller.solution.torque * w.data.qvel[motors]).sum())

    world.walk(0.5, each=each)
    assert np.mean(power) < 400
    assert np.abs(world.data.qvel).max() < 25


def test_crosses_a_bar_and_sets_no_foot_beside_it():
    bar = Bar(0.75, 0.10, 0.08)
    world = Standing(Terrain((bar,)), odometry=True, furnish=lambda s: objects.add_bar(s, 0.75, 0.10, 0.08, 0.8))
    world.run(0.3)
    wrong = []
    before = np.ones(4, dtype=bool)

    def each(w):
        down = w.planner.stance & ~before
        before[:] = w.planner.stance
        for x in w.planner.footholds[down, 0]:
            (first, last), top = world.planner.terrain.keep_out(bar), world.planner.terrain.top(bar)
            if first < x < last and not top[0] <= x <= top[1]:
                wrong.append(x)

    world.walk(0.4, each=each)
    world.run(3.5, each)
    assert world.data.qpos[0] > 1.3
    assert not wrong


@given(st.floats(-1, 3))
def test_footholds_keep_off_bars(x):
    terrain = Terrain((Bar(1.0, 0.1, 0.1), Bar(2.0, 0.05, 0.06)))
    found = terrain.foothold(x)
    for bar in terrain.bars:
        (first, last), top = terrain.keep_out(bar), terrain.top(bar)
        on_top = top is not None and top[0] <= found <= top[1]
        assert not first < found < last or on_top
    # And no farther away than needed.
    if all(not terrain.keep_out(bar)[0] < x < terrain.keep_out(bar)[1] for bar in terrain.bars):
        assert found == x


def test_bars_out_of_range():
    with pytest.raises(ValueError, match=r"height is -0.1; allowed"):
        Bar(1.0, 0.1, -0.1)
    with pytest.raises(ValueError, match=r"depth is 0; allowed"):
        Bar(1.0, 0, 0.1)


def test_a_swing_begins_and_ends_at_rest_and_its_derivatives_are_right():
    start, end = np.array([0.0, 0.1, 0.03]), np.array([0.2, 0.0, 0.05])
    duration, step = 0.19, 1e-5
    for progress in (0.0, 1.0):
        place, velocity, _ = swing(start, end, 0.15, progress, duration, 0.5)
        np.testing.assert_allclose(place, end if progress else start, atol=1e-12)
        np.testing.assert_allclose(velocity, 0, atol=1e-12)
    for progress in (0.2, 0.3, 0.5, 0.7, 0.9):
        there = [swing(start, end, 0.15, progress + k * step / duration, duration, 0.5) for k in (-1, 0, 1)]
        np.testing.assert_allclose((there[2][0] - there[0][0]) / (2 * step), there[1][1], atol=1e-3)
        np.testing.assert_allclose((there[2][1] - there[0][1]) / (2 * step), there[1][2], atol=0.3)
    highest = max(swing(start, end, 0.15, p, duration, 0.5)[0][2] for p in np.linspace(0, 1, 50))
    assert highest == pytest.approx(0.15, abs=1e-3)


def test_a_foot_without_ground_goes_down_no_farther_than_it_may():
    end = np.array([0.0, 0.0, 0.04])
    low = [swing(end, end, 0.1, p, 0.2, 0.5)[0][2] for p in (1.1, 1.6, 9.0)]
    assert low[0] > low[1] > low[2] == pytest.approx(0.04 - 0.12)


def test_minimum_jerk_ends_at_rest():
    assert minimum_jerk(0) == (0, 0, 0)
    assert minimum_jerk(1)[0] == 1
    assert minimum_jerk(7)[1:] == (0, 0)
