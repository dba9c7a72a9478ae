"""Robots on two feet: they walk, are pushed, and cross what is not flat, through their skins and by the truth."""

import numpy as np
import pytest

from persianrug.robots.atlas import ROBOT as ATLAS
from persianrug.robots.cassie import ROBOT as CASSIE
from persianrug.robots.runner import Runner
from persianrug.robots.touching import Touch

SKIN, TRUTH = Touch(), Touch(skin="truth")
BOTH = pytest.mark.parametrize("robot", [CASSIE, ATLAS], ids=["lines", "soles"])


def run(robot, name, seed, touch, each=None, **options):
    scenario = robot.trials[name].make(seed, touch, **options)
    if each is not None:
        scenario.actors.append(type("Each", (), {"act": staticmethod(each)})())
    runner = Runner(scenario)
    outcome = runner.run()
    assert runner.body.controller.qp.failed == 0
    return outcome, runner


@BOTH
def test_they_walk_through_their_skins(robot):
    outcome, runner = run(robot, "walk", 0, SKIN, seconds=5.0)
    assert outcome.succeeded, outcome.reason
    assert outcome.drawn["reached"] == pytest.approx(robot.trials["walk"].options["speed"], rel=0.15)
    # Packets got lost, and the robot knows where it is by its legs.
    assert outcome.skin["packets_lost"] == pytest.approx(0.05, abs=0.02)
    away = runner.body.state.position - runner.data.qpos[:3]
    assert np.abs(away).max() < 0.1
    assert np.abs(away).max() > 0.001


def test_what_is_held_still_is_what_stands():
    """While one sole swings the other does not move, and forces and torques keep within their limits."""
    slipped = []

    def each(data, body):
        controller = body.controller
        state, plan = body.state, controller.plan
        limits = controller.qp.limits
        assert (np.abs(controller.solution.torque) <= limits + 1e-6).all()
        forces = controller.solution.forces
        assert (forces[:, 2] >= -1e-6).all()
        assert (np.hypot(forces[:, 0], forces[:, 1]) <= 2**0.5 * 0.45 * forces[:, 2] + 1e-6).all()
        settled = plan.stance & (plan.standing > 0.1)
        slipped.extend(np.linalg.norm(state.feet_velocity[settled], axis=1))

    outcome, _ = run(ATLAS, "walk", 1, TRUTH, each, seconds=3.0)
    assert outcome.succeeded
    assert np.median(slipped) < 0.05


@BOTH
def test_they_are_pushed(robot):
    outcome, _ = run(robot, "push", 2, TRUTH)
    assert outcome.succeeded, outcome.reason


def test_who_stands_takes_a_step_when_pushed():
    outcome, runner = run(ATLAS, "push", 0, TRUTH, speed=0.0, impulse=30.0)
    assert outcome.succeeded, outcome.reason
    planner = runner.body.controller.planner
    assert 1 <= planner.steps_made <= 4
    assert planner.settled


def test_a_push_that_is_too_strong_is_not_survived():
    """What counts can fail."""
    outcome, _ = run(CASSIE, "push", 0, TRUTH, impulse=80.0)
    assert not outcome.succeeded
    assert "the robot fell" in outcome.reason


def test_a_bar_is_crossed_without_touching_it():
    touched = []

    def each(data, body):
        bar = data.model.geom("slab_0").id
        touched.append(any(bar in contact.geom for contact in data.contact))

    outcome, _ = run(ATLAS, "obstacle", 0, TRUTH, each)
    assert outcome.succeeded, outcome.reason
    assert not any(touched)


def test_no_foothold_is_on_the_edge_of_a_platform():
    wrong = []

    def each(data, body):
        planner = body.controller.planner
        (bar,) = planner.terrain.bars
        (first, last), top = planner.terrain.keep_out(bar), planner.terrain.top(bar)
        x = planner._foothold[0]
        if planner._lifted and first < x < last and not top[0] <= x <= top[1]:
            wrong.append(x)

    outcome, runner = run(ATLAS, "obstacle", 0, TRUTH, each, height=0.10, depth=1.0)
    assert outcome.succeeded, outcome.reason
    assert not wrong
    assert runner.data.qpos[0] > 2.5


@pytest.mark.slow
@BOTH
def test_slabs_that_nobody_sees(robot):
    outcome, _ = run(robot, "slabs", 0, SKIN)
    assert outcome.succeeded, outcome.reason
    assert max(outcome.drawn["heights"]) > 0.02


@pytest.mark.slow
def test_it_squats():
    outcome, _ = run(ATLAS, "squat", 0, SKIN)
    assert outcome.succeeded, outcome.reason
    assert outcome.drawn["lowest"] < 0.71


def test_same_seed_same_walk_and_another_seed_another():
    ends = []
    for seed in (3, 3, 4):
        scenario = CASSIE.trials["walk"].make(seed, TRUTH, seconds=1.0)
        runner = Runner(scenario)
        runner.run()
        ends.append(runner.data.qpos.copy())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


@pytest.mark.parametrize(
    ("trial", "options", "message"),
    [
        ("walk", {"speed": -1}, "speed is -1; allowed"),
        ("walk", {"seconds": 0}, "seconds is 0; allowed"),
        ("walk", {"turn": float("inf")}, "turn is inf; allowed"),
        ("push", {"impulse": 0}, "impulse is 0; allowed"),
        ("slabs", {"height": 0.5}, r"height is 0.5; allowed: metres, up to 0.15"),
        ("slabs", {"clock": "no"}, "clock is 'no'; allowed: True, False"),
        ("obstacle", {"depth": 0}, "depth is 0; allowed"),
        ("squat", {"height": "low"}, "height is 'low'; allowed"),
    ],
)
def test_bad_input(trial, options, message):
    with pytest.raises(ValueError, match=message):
        ATLAS.trials[trial].make(0, TRUTH, **options)
