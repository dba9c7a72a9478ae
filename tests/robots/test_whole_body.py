"""The quadratic program: the equation of motion holds, and no limit is broken, whatever it is asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianrug.robots.whole_body import ContactPoint, Task, WholeBodyQP
from tests.robots.worlds import Standing


def random_problem(seed, contacts):
    """A floating body with seven motors, some contacts, and tasks that no robot could do."""
    random = np.random.default_rng(seed)
    nv = 13
    root = random.normal(size=(nv, nv))
    M = root @ root.T + nv * np.eye(nv)
    h = 50 * random.normal(size=nv)
    points = []
    for _ in range(contacts):
        frame = np.linalg.qr(random.normal(size=(3, 3)))[0]
        friction, least = random.uniform(0.2, 1), random.choice([0.0, 15.0])
        points.append(ContactPoint(random.normal(size=(3, nv)), friction, least, 400.0, frame))
    tasks = [
        Task(random.normal(size=(4, nv)), 1e3 * random.normal(size=4), random.uniform(0.1, 500)) for _ in range(3)
    ]
    return M, h, tasks, points


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 4))
def test_equation_of_motion_and_limits(seed, contacts):
    M, h, tasks, points = random_problem(seed, contacts)
    limits = np.full(7, 30.0)
    qp = WholeBodyQP(13, range(6, 13), limits)
    found = qp.solve(M, h, tasks, points)
    assert found.solved
    pushed = np.zeros(13)
    for point, force in zip(points, found.forces, strict=True):
        pushed += point.jacobian.T @ force
    torque = np.concatenate([np.zeros(6), found.torque])
    scale = np.abs(M @ found.acceleration).max() + np.abs(h).max()
    assert np.abs(M @ found.acceleration + h - pushed - torque).max() < 1e-10 * scale
    assert (np.abs(found.torque) <= limits + 1e-6).all()
    for point, force in zip(points, found.forces, strict=True):
        x, y, normal = point.frame @ force
        assert point.least - 1e-6 <= normal <= point.most + 1e-6
        assert max(abs(x), abs(y)) <= point.friction * normal + 1e-6


def test_what_can_be_done_is_done():
    random = np.random.default_rng(0)
    M, h, _, _ = random_problem(1, 0)
    rows = np.zeros((7, 13))
    rows[:, 6:] = np.eye(7)
    wanted = random.normal(size=7)
    found = WholeBodyQP(13, range(6, 13), np.full(7, 1e6)).solve(M, h, [Task(rows, wanted, 100.0)], [])
    np.testing.assert_allclose(found.acceleration[6:], wanted, rtol=1e-4)


def test_no_motor_does_more_than_it_can():
    """A task of a million is cut to what motors give, and the others do not care."""
    M, h, _, points = random_problem(3, 2)
    rows = np.eye(13)[6:7]
    found = WholeBodyQP(13, range(6, 13), np.full(7, 5.0)).solve(M, h, [Task(rows, np.array([1e6]), 1.0)], points)
    assert abs(found.torque[0]) == pytest.approx(5.0, abs=1e-6)


def test_program_without_a_solution_is_counted_and_survived():
    M, h, tasks, points = random_problem(4, 2)
    impossible = [ContactPoint(p.jacobian, p.friction, 50.0, 20.0, p.frame) for p in points]
    qp = WholeBodyQP(13, range(6, 13), np.full(7, 5.0))
    found = qp.solve(M, h, tasks, impossible)
    assert not found.solved
    assert qp.failed == 1
    assert np.isfinite(found.torque).all()


def test_in_every_tick_of_a_trot():
    """M v' + h - J'f = S'tau to 1e-8, friction and torques within their limits, in every solve of a trot."""
    world = Standing()
    worst = []

    def each(world):
        controller = world.controller
        found, dynamics = controller.solution, controller.dynamics
        standing = np.flatnonzero(controller.plan.stance)
        pushed = sum((dynamics.feet[i].T @ force for i, force in zip(standing, found.forces, strict=True)))
        torque = np.zeros(dynamics.nv)
        torque[controller.qp.actuated] = found.torque
        worst.append(np.abs(dynamics.M @ found.acceleration + dynamics.h - pushed - torque).max())
        assert (np.abs(found.torque) <= controller.qp.limits + 1e-6).all()
        sideways = np.hypot(found.forces[:, 0], found.forces[:, 1])
        assert (sideways <= 0.45 * 2**0.5 * found.forces[:, 2] + 1e-5).all()
        assert found.solved

    world.walk(0.6, each=each)
    assert max(worst) < 1e-8
    assert len(worst) > 300
