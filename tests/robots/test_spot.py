"""The quadruped with its skin in the loop: parts of the story, and what it does when something goes wrong."""

import re

import numpy as np
import pytest

from persianrug.robots.log import Log
from persianrug.robots.runner import Runner
from persianrug.robots.skin_contacts import NothingFelt
from persianrug.robots.spot import ROBOT
from persianrug.robots.touching import Touch

SKIN, TRUTH = Touch(), Touch(skin="truth")


class NumbHands:
    """A sensor whose gripper feels nothing."""

    def __init__(self, sensor):
        self.sensor, self.patches = sensor, sensor.patches

    def sense(self, data):
        reading = self.sensor.sense(data)
        hands = [reading.patches.index(name) for name in ("jaw", "finger")]
        reading = type(reading)(**{name: np.copy(value) if isinstance(value, np.ndarray) else value
                                   for name, value in vars(reading).items()})  # fmt: skip
        reading.pressing[hands], reading.force[hands] = 0.0, 0.0
        return reading


def run(name, seed, touch, wrap=None, **options):
    scenario = ROBOT.trials[name].make(seed, touch, **options)
    if wrap:
        scenario.sensor = wrap(scenario.sensor)
    runner = Runner(scenario)
    return runner.run(), runner


def test_a_bar_and_a_trot_through_the_skin():
    outcome, _ = run("bar", 0, SKIN, height=0.08)
    assert outcome.succeeded, outcome.reason
    assert outcome.skin["explained"] > 0.99
    assert outcome.skin["ratio"] == pytest.approx(1 / 16, rel=0.01)
    assert outcome.skin["packets_lost"] == pytest.approx(0.05, abs=0.02)


def test_the_log_has_truth_and_skin_side_by_side():
    scenario = ROBOT.trials["speed"].make(0, SKIN)
    scenario.seconds = 1.0
    log = Log.of(scenario)
    Runner(scenario, log).run()
    felt, true = log["pressing_felt"][100:], log["pressing_true"][100:]
    feet = [log.worn.patches.index(name) for name in log.worn.feet]
    # The truth is of now, and what is felt is late, and not exact.
    stands = true[:, feet] > 1
    assert (felt[:, feet] != true[:, feet])[stands].all()
    assert np.corrcoef(felt[:, feet].ravel(), true[:, feet].ravel())[0, 1] > 0.7
    assert len(log.frames) == pytest.approx(25, abs=2)
    for place in range(5, len(log.frames)):
        pressed, decoded = log.frames.true(place), log.frames.decoded(place)
        assert log.frames.code(place)
        assert np.linalg.norm(decoded - pressed) < 0.5 * np.linalg.norm(pressed)
        tick = log.when(log.frames.time[place])
        for name, foot in zip(log.worn.feet, feet, strict=True):
            # Taxels look about, so what presses on them is somewhat less than what presses on the foot.
            taxels = pressed[log.layout.of(name), 0].sum()
            assert taxels == pytest.approx(log["pressing_true"][tick, foot], rel=0.2, abs=0.5)


def test_what_is_out_of_reach_is_not_reached_for():
    scenario = ROBOT.trials["pick"].make(0, TRUTH)
    place = scenario.model.joint("can").qposadr[0]
    scenario.start[place] += 3.0
    runner = Runner(scenario)
    outcome = runner.run()
    assert not outcome.succeeded
    assert re.search(r"it is out of reach, 3\.\d\d m from the shoulder", runner.body.events[0][1])
    assert outcome.seconds < 15


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["full", "empty"])
def test_a_hand_over_through_the_skin(seed):
    """Pick up, hold out, hold while a hand only grips, let go when it pulls, within 0.3 s."""
    outcome, runner = run("pull", seed, SKIN, force=15.0)
    assert outcome.succeeded, outcome.reason
    assert 0 < outcome.drawn["after"] < 0.3
    assert [part.done for part in outcome.parts] == [True] * 4
    person = runner.scenario.actors[0]
    assert person.has
    assert outcome.skin["force_error_measured"] < 1.0
    assert runner.body.controller.qp.failed == 0
    # Its trunk stays level.
    assert np.abs(runner.body.state.rpy[:2]).max() < 0.05


@pytest.mark.slow
def test_a_weak_pull_is_held_through_the_skin():
    outcome, _ = run("pull", 0, SKIN, force=4.0)
    assert outcome.succeeded, outcome.reason
    assert outcome.drawn["after"] is None


@pytest.mark.parametrize("wrap", [NumbHands, NothingFelt])
def test_without_touch_it_neither_picks_nor_hands_over(wrap):
    """It tries three times, and says so; walking and standing need no hands."""
    outcome, runner = run("pull", 1, TRUTH, wrap, force=15.0)
    assert not outcome.succeeded
    assert not any(part.done for part in outcome.parts)
    tries = [text for _, text in runner.body.events if text.startswith("try ")]
    assert len(tries) == 3
    assert "the finger felt nothing" in tries[0]
    assert outcome.reason.startswith("pick: ")
    assert runner.data.qpos[2] > 0.45


def test_a_hand_that_goes_numb_never_lets_go():
    """The can is held, and nothing is felt from then on: no pull is, and after some time it says so."""
    scenario = ROBOT.trials["pull"].make(0, TRUTH, force=25.0)
    feeling, numb = scenario.sensor, NumbHands(scenario.sensor)
    runner = Runner(scenario)

    class Later:
        patches = feeling.patches

        def sense(self, data):
            return (numb if runner.body.offering else feeling).sense(data)

    scenario.sensor = Later()
    outcome = runner.run()
    assert not outcome.succeeded
    assert "let go" not in [part.name for part in outcome.parts if part.done]


@pytest.mark.slow
def test_a_can_that_is_lost_on_the_way_is_said_at_once():
    scenario = ROBOT.trials["fetch"].make(0, TRUTH)
    runner = Runner(scenario)
    place = scenario.model.joint("can").qposadr[0]
    gone = []

    def disturb(data):
        if "back off" in runner.body.parts and not gone:
            gone.append(data.time)
            data.qpos[place : place + 3] = [9.0, 9.0, 0.1]

    scenario.disturb = disturb
    outcome = runner.run()
    assert not outcome.succeeded
    assert outcome.reason == "carry: the can was lost on the way"
    assert runner.body.parts["carry"][1] < gone[0] + 0.5
    assert runner.body.controller.planner.settled


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["late", "early", "pushes", "lifts"])
def test_whatever_the_person_does(manner):
    outcome, runner = run("pull", 2, SKIN, force=15.0, manner=manner)
    assert outcome.succeeded, outcome.reason
    assert runner.scenario.actors[0].has


@pytest.mark.slow
def test_nobody_comes_and_the_can_goes_back():
    outcome, runner = run("fetch", 0, SKIN, manner="never")
    assert outcome.succeeded, outcome.reason
    can = runner.data.body("can")
    assert np.linalg.norm(can.xpos[:2] - runner.data.body("stand").xpos[:2]) < 0.1
    assert can.xmat[8] > 0.99


@pytest.mark.slow
def test_the_whole_story_through_the_skin():
    outcome, runner = run("fetch", 1, SKIN)
    assert outcome.succeeded, outcome.reason
    assert all(part.done for part in outcome.parts)
    times = [part.at for part in outcome.parts]
    assert times == sorted(times)
    assert runner.body.controller.qp.failed == 0
