"""Robots on wheels: they drive, lean, are pushed, climb and jump."""

import numpy as np
import pytest

from persianrug.robots.handle import ROBOT
from persianrug.robots.rolling import Mode, regulator
from persianrug.robots.runner import Runner
from persianrug.robots.touching import Touch

SKIN, TRUTH = Touch(), Touch(skin="truth")


def run(name, seed, touch, each=None, **options):
    scenario = ROBOT.trials[name].make(seed, touch, **options)
    if each is not None:
        scenario.actors.append(type("Each", (), {"act": staticmethod(each)})())
    runner = Runner(scenario)
    outcome = runner.run()
    assert runner.body.controller.qp.failed == 0
    return outcome, runner


@pytest.mark.parametrize("height", [0.4, 0.8, 1.4])
def test_the_regulator_brings_a_pendulum_back(height):
    """All poles of the closed loop are in the left half plane, and the axle goes to where the mass leans."""
    gains = np.array(regulator(height))
    A = np.array([[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 9.81 / height, 0, 0]])
    B = np.array([0, 0, 1, -1])
    assert np.linalg.eigvals(A - np.outer(B, gains)).real.max() < -0.3
    assert -gains[1] > 0


def test_it_drives_through_its_skin():
    outcome, runner = run("drive", 0, SKIN, speed=2.0, seconds=5.0)
    assert outcome.succeeded, outcome.reason
    assert outcome.drawn["reached"] == pytest.approx(2.0, rel=0.1)
    assert np.abs(runner.body.state.position - runner.data.qpos[:3]).max() < 0.15


def test_it_leans_into_bends():
    leans = []

    def each(data, body):
        if data.time > 5:
            leans.append(np.arcsin(data.xmat[1].reshape(3, 3)[2, 1]))

    outcome, _ = run("drive", 0, TRUTH, each, speed=2.0, turn=1.0, seconds=7.0)
    assert outcome.succeeded, (outcome.reason, outcome.drawn)
    assert np.mean(leans) == pytest.approx(-np.arctan(2.0 / 9.81), abs=0.06)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_pushed(seed):
    outcome, _ = run("push", seed, TRUTH)
    assert outcome.succeeded, outcome.reason


def test_a_push_that_is_too_strong_is_not_survived():
    outcome, _ = run("push", 0, TRUTH, impulse=400.0)
    assert not outcome.succeeded


def test_it_feels_the_slope_under_its_wheels():
    slopes = []

    def each(data, body):
        planner = body.controller
        slopes.append((data.qpos[0], *planner._slopes))

    outcome, _ = run("ramp", 0, TRUTH, each)
    assert outcome.succeeded, outcome.reason
    slopes = np.array(slopes)
    front = outcome.drawn["front"]
    up = slopes[(slopes[:, 0] > front + 0.7) & (slopes[:, 0] < front + 1.5), 1:]
    # Ahead the ground rises, so that its normal points back.
    assert np.median(up) == pytest.approx(-np.radians(15), abs=0.05)
    assert np.abs(np.median(slopes[slopes[:, 0] < front - 0.5, 1:])) < 0.02


def test_it_jumps_and_feels_that_it_lands():
    modes = []

    def each(data, body):
        mode = body.controller.planner.mode
        if not modes or modes[-1] is not mode:
            modes.append(mode)

    outcome, _ = run("jump", 0, TRUTH, each)
    assert outcome.succeeded, (outcome.reason, outcome.drawn)
    assert outcome.drawn["highest"] > 0.35
    assert modes == [Mode.ROLL, Mode.PUSH_OFF, Mode.FLY, Mode.ROLL]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bump", "ramp", "push"])
def test_through_its_skin(name):
    outcome, _ = run(name, 1, SKIN)
    assert outcome.succeeded, outcome.reason


@pytest.mark.parametrize(
    ("trial", "options", "message"),
    [
        ("drive", {"speed": -1}, "speed is -1; allowed"),
        ("push", {"impulse": "hard"}, "impulse is 'hard'; allowed"),
        ("bump", {"height": 0}, "height is 0; allowed"),
        ("ramp", {"degrees": 60}, r"degrees is 60; allowed: a number in \(0, 30\]"),
        ("jump", {"push_off": float("nan")}, "push_off is nan; allowed"),
    ],
)
def test_bad_input(trial, options, message):
    with pytest.raises(ValueError, match=message):
        ROBOT.trials[trial].make(0, TRUTH, **options)
