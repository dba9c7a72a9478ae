"""The loop: what is told, and how runs end."""

import mujoco
import numpy as np
import pytest

from persianrug.robots.robot import Robot
from persianrug.robots.runner import RATE, Part, Runner
from persianrug.robots.skills import wait
from persianrug.robots.spot import ROBOT, trials
from persianrug.robots.touching import Touch

TRUTH = Touch(skin="truth")


def standing(task, seed=0, **options):
    """A scenario of a robot that stands and has something to do."""
    scenario = ROBOT.trials["speed"].make(seed, TRUTH)
    scenario.task, scenario.done, scenario.disturb, scenario.parts = task, None, None, ("first", "second", "third")
    for name, value in options.items():
        setattr(scenario, name, value)
    return scenario


def test_parts_and_events_are_told_in_their_order_and_once():
    def task(body):
        yield from wait(body, 0.1)
        body.done("first")
        body.say("hello")
        yield from wait(body, 0.1)
        body.failed("second", "it was too heavy")
        return False

    told, said = [], []
    outcome = Runner(standing(task)).run(on_part=told.append, on_event=lambda at, text: said.append(text))
    assert [(part.name, part.done) for part in told] == [("first", True), ("second", False)]
    assert said[0] == "hello"
    assert outcome.reason == "second: it was too heavy"
    assert not outcome.succeeded
    # One that was never come to is there, too.
    assert outcome.parts[2] == Part("third", False, None)
    assert outcome.parts[0].at == pytest.approx(0.1, abs=0.01)
    assert outcome.seconds == pytest.approx(0.2, abs=0.02)


def test_what_is_said_last_is_told():
    def task(body):
        yield
        body.say("the end")
        body.done("first")
        return True

    told, said = [], []
    outcome = Runner(standing(task)).run(on_part=told.append, on_event=lambda at, text: said.append(text))
    assert outcome.succeeded
    assert said == ["the end"]
    assert [part.name for part in told] == ["first"]


def test_the_truth_has_the_last_word():
    def task(body):
        yield
        return True

    outcome = Runner(standing(task, done=lambda data: False)).run()
    assert not outcome.succeeded
    assert outcome.reason == "what counts was not reached"


def test_a_fall_ends_it():
    def disturb(data):
        data.xfrc_applied[1, 3] = 300.0

    outcome = Runner(standing(lambda body: wait(body, 9.0), disturb=disturb)).run()
    assert not outcome.succeeded
    assert outcome.reason.startswith("the robot fell at ")
    assert outcome.seconds < 3


@pytest.mark.parametrize(
    ("what", "value"),
    [("qpos", np.nan), ("qvel", 1e12), ("qfrc_applied", np.inf), ("ctrl", np.nan)],
    ids=["place", "speed", "force", "motor"],
)
def test_physics_that_diverge_end_it_and_the_time_is_said(what, value, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def disturb(data):
        if data.time > 0.2:
            getattr(data, what)[0] = value

    outcome = Runner(standing(lambda body: wait(body, 9.0), disturb=disturb)).run()
    assert not outcome.succeeded
    # MuJoCo begins anew at 0; the run was longer.
    assert outcome.seconds == pytest.approx(0.2, abs=0.01)
    assert outcome.reason == f"the physics diverged at {outcome.seconds:.2f} s"
    # MuJoCo neither prints it nor leaves a file where the user is.
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert mujoco.get_mju_user_warning() is None


def test_time_runs_out():
    outcome = Runner(standing(lambda body: wait(body, 9.0), seconds=0.3)).run()
    assert outcome.reason == "it was not done within 0.3 s"


def test_ticks_timing_actors_and_log():
    class Seen:
        ticks = 0

        def act(self, data, body):
            assert isinstance(data, mujoco.MjData)
            self.ticks += 1

        def append(self, runner):
            assert runner.reading.time == runner.data.time

    seen = Seen()
    runner = Runner(standing(lambda body: wait(body, 0.4), actors=[seen]), log=seen)
    outcome = runner.run()
    assert outcome.succeeded
    assert seen.ticks == pytest.approx(0.4 * RATE, abs=2)
    timing = outcome.timing
    assert timing["touch"] + timing["control"] + timing["physics"] <= timing["wall"]
    assert timing["control_p99"] > 0
    assert timing["steps_per_second"] > 0
    assert outcome.skin == {}


def test_same_seed_same_run():
    places = []
    for seed in (1, 1, 2):
        scenario = trials.speed(seed, TRUTH, speed=0.3)
        scenario.seconds = 0.5
        runner = Runner(scenario)
        runner.run()
        places.append(runner.data.qpos.copy())
    np.testing.assert_array_equal(places[0], places[1])
    assert not np.array_equal(places[0], places[2])


def test_robots_say_what_they_can_be_made_to_do():
    assert isinstance(ROBOT, Robot)
    for name, trial in ROBOT.trials.items():
        scenario = trial.make(0, TRUTH, **{k: v for k, v in trial.options.items() if v is not None})
        assert scenario.name == name
        assert scenario.drawn
        assert trial.what


@pytest.mark.parametrize(
    ("trial", "options", "message"),
    [
        ("bar", {"height": 0.5}, r"bar is 0.5; allowed: metres, above 0 and up to 0.2"),
        ("bar", {"height": -0.1}, "bar is -0.1; allowed"),
        ("fetch", {"bar": 0}, "bar is 0; allowed"),
        ("fetch", {"manner": "shouts"}, r"manner is 'shouts'; allowed: .*takes"),
        ("pull", {"force": 0}, "force is 0; allowed"),
        ("push", {"impulse": float("nan")}, "impulse is nan; allowed"),
        ("push", {"impulse": 1e9}, r"impulse is 1e\+09; allowed: N s, above 0 and up to 1000"),
        ("pick", {"error": "abc"}, "error is 'abc'; allowed: a finite number >= 0"),
        ("pick", {"error": -1}, "error is -1; allowed: a finite number >= 0"),
        ("pick", {"error": 1e9}, r"error is 1e\+09; allowed: metres"),
        ("bar", {"known": "no"}, "known is 'no'; allowed: True, False"),
        ("speed", {"speed": -1}, "speed is -1; allowed"),
        ("speed", {"speed": 100}, "speed is 100; allowed: m/s, above 0 and up to 3"),
    ],
)
def test_bad_input(trial, options, message):
    with pytest.raises(ValueError, match=message):
        ROBOT.trials[trial].make(0, TRUTH, **options)
