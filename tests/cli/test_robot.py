"""Robots on the command line: what a run prints and leaves behind, and mistakes; with a toy in a robot's place."""

import errno
import json
import os
import signal
import time

import numpy as np
import pytest

import persianrug.robots
from persianrug.cli import options
from persianrug.cli import robot as module
from persianrug.robots import gl
from persianrug.robots.log import Log
from persianrug.robots.runs import FILES, RunFolder
from persianrug.skin import RecordingReader
from tests.cli.helpers import of_json, ran
from tests.conftest import refused, without_privileges
from tests.robots import toys


def words(text):
    """A text without its tables' spaces."""
    return " ".join(text.split())


RUN = ("robot", "spot", "--out", "run")
QUICK = (*RUN, "--no-film")


@pytest.fixture
def runner(monkeypatch):
    """The loop of runs, of which a test may change what happens."""
    from persianrug.robots import runner

    kind = type("Runner", (toys.Runner,), {})
    monkeypatch.setattr(runner, "Runner", kind)
    monkeypatch.setattr(persianrug.robots, "ROBOTS", toys.ROBOTS)
    return kind


@pytest.fixture
def no_opengl(monkeypatch):
    monkeypatch.setattr(gl, "_works", lambda kind: "it is not installed")


@pytest.mark.usefixtures("runner")
class TestRun:
    def test_it_leaves_everything_behind(self, run, tmp_path):
        text = words(ran(run(*RUN, "--seed", 3)))
        assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES}
        for line in ("Box with a paddle: is dropped, seed 3", "0.28 s fall", "0.28 s feels the floor",
                     "0.90 s let go", "fall yes 0.28 s", "numbers sent for one that is felt 0.0625 (1 for 16)",
                     "error of forces, measured 0.05 N", "2.00 simulated seconds in one of computing",
                     "run: log.npz, run.json, touch.mcap, film.mp4, page.html",
                     "toy, drop: succeeded, after 1.0 s"):  # fmt: skip
            assert line in text, line
        log = Log.load(tmp_path / "run" / "log.npz")
        assert (len(log), log.meta["seed"], log.meta["outcome"]["succeeded"]) == (250, 3, True)
        assert len(list(RecordingReader(tmp_path / "run" / "touch.mcap"))) == len(log.frames) > 20
        assert b"video/mp4;base64" in (tmp_path / "run" / "page.html").read_bytes()

    def test_json_is_one_object(self, run, tmp_path):
        report = of_json(run(*QUICK, "--skin", "soft", "--bar", 0.1, "--set", "force=2", "--json"))
        assert list(report)[:7] == ["robot", "scenario", "seed", "succeeded", "seconds", "parts", "skin"]
        assert report["parts"] == {
            "fall": {"done": True, "at": pytest.approx(0.284)},
            "let go": {"done": True, "at": pytest.approx(0.904)},
        }  # fmt: skip
        assert {"ratio", "frames", "explained", "packets_lost", "force_error_predicted",
                "force_error_measured"} <= report["skin"].keys()  # fmt: skip
        assert (report["succeeded"], report["seconds"]) == (True, pytest.approx(1.0, abs=0.01))
        assert report["options"] == {"skin": "soft", "ratio": 0.0625, "packet_loss": 0.05, "bar": 0.1, "force": 2}
        assert json.loads((tmp_path / "run" / "run.json").read_bytes()) == report
        assert sorted(report["files"]) == sorted({*FILES} - {"film.mp4"})

    def test_of_the_truth_nothing_is_said_of_a_skin(self, run):
        report = of_json(run(*QUICK, "--skin", "truth", "--json"))
        assert set(report["skin"].values()) == {None}
        assert "numbers sent" not in ran(run(*QUICK, "--skin", "truth"))

    def test_a_story_that_fails_is_exit_code_1(self, run, runner):
        runner.seconds = 0.5
        result = run(*QUICK)
        assert (result.returncode, result.stderr) == (1, "")
        assert "toy, drop: failed: too short, after 0.5 s" in result.stdout
        assert "let go no" in words(result.stdout)
        report = json.loads(run(*QUICK, "--json").stdout)
        assert (report["succeeded"], report["parts"]["let go"]) == (False, {"done": False, "at": None})

    def test_physics_that_diverges_says_when(self, run, runner, tmp_path):
        runner.happens = lambda self: "the physics diverged at 0.40 s"
        result = run(*QUICK)
        assert result.returncode == 1
        assert "failed: the physics diverged at 0.40 s" in result.stdout
        assert Log.load(tmp_path / "run" / "log.npz").meta["outcome"]["reason"] == "the physics diverged at 0.40 s"

    def test_numbers_that_are_none_are_drawn_and_told(self, run, runner, tmp_path):
        make = runner.__init__

        def broken(self, *arguments):
            make(self, *arguments)
            self.scenario.sensor.statistics = lambda: {"explained": float("nan"), "frames": np.int64(3)}

        runner.__init__ = broken
        report = of_json(run(*QUICK, "--json"))
        assert (report["skin"]["explained"], report["skin"]["frames"]) == (None, 3)

    def test_again_in_the_same_folder(self, run, tmp_path):
        ran(run(*RUN))
        (tmp_path / "run" / ".log.npz.0123456789ab.tmp").write_bytes(b"of a process that was killed")
        ran(run(*QUICK, "--seed", 5))
        assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES} - {"film.mp4"}
        assert Log.load(tmp_path / "run" / "log.npz").meta["seed"] == 5


@pytest.mark.usefixtures("runner")
class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (
                ("robot", "rex", "--out", "run"),
                "robot is 'rex'; allowed: spot, cassie, atlas, handle; or bench or list",
            ),
            (("robot", "bench", "rex"), "robot is 'rex'; allowed: spot"),
            (("robot", "spot"), "Missing option '--out'"),
            ((*RUN, "--ratio", 0), "ratio is 0.0; allowed: a number from 0.00390625 to 1"),
            ((*RUN, "--ratio", 16), "ratio is 16.0; allowed: a number from 0.00390625 to 1"),
            ((*RUN, "--packet-loss", 1), "packet_loss is 1; allowed: a number in [0, 1)"),
            ((*RUN, "--bar", 3), "bar is 3; allowed: metres, up to 0.2"),
            ((*RUN, "--skin", "wool"), "skin is 'wool'; allowed: stiff, soft, truth"),
            ((*RUN, "--scenario", "fly"), "scenario is 'fly'; allowed: drop, lie"),
            ((*RUN, "--scenario", "lie", "--bar", 0.1), "--bar is 0.1; allowed with --scenario lie: no --bar"),
            (
                (*RUN, "--set", "colour=1"),
                "--set is 'colour=1'; allowed with --scenario drop: bar=VALUE, force=VALUE",
            ),
            ((*RUN, "--set", "force=NaN"), "--set is 'force=NaN'; allowed: finite numbers, texts, true, false"),
            ((*RUN, "--set", "force=[1e999]"), "--set is 'force=[1e999]'; allowed: finite numbers"),
            (
                ("robot", "bench", "spot", "--set", "force=-Infinity"),
                "--set is 'force=-Infinity'; allowed: finite",
            ),
            (
                (*RUN, "--set", "force=5", "--set", "force=25"),
                "--set is 'force=25', beside another force; allowed: force=VALUE once",
            ),
            ((*RUN, "--bar", 0.1, "--set", "bar=0.2"), "--set is 'bar=0.2', beside another bar; allowed"),
            ((*RUN, "--bar", "nan"), "--bar is nan; allowed: a finite number"),
            ((*RUN, "--seed", -1), f"seed is -1; allowed: an integer from 0 to {2**63 - 1}"),
            (("robot", "bench", "spot", "--trials", 0), "trials is 0; allowed: an integer from 1"),
            (("robot", "bench", "spot", "--jobs", 0), "jobs is 0; allowed: an integer >= 1"),
            (("robot", "bench", "spot", "--seed", 2**63 - 1), f"seed is {2**63 + 28}; allowed"),
            (("robot", "bench", "spot", "--bar", -1), "bar is -1; allowed: metres, up to 0.2"),
        ],
    )
    def test_one_line(self, run, tmp_path, arguments, why):
        assert why in refused(run(*arguments))
        assert list(tmp_path.iterdir()) == []

    def test_an_opengl_that_nobody_knows(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("MUJOCO_GL", "nonsense")
        assert "MUJOCO_GL is 'nonsense'; allowed: egl, osmesa, glfw, or none of it" in refused(run(*RUN))
        assert list(tmp_path.iterdir()) == []
        # Nothing is drawn, so that it is of no matter.
        ran(run(*QUICK))

    def test_a_package_that_is_missing(self, run, monkeypatch):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == "daqp" else name)
        for arguments in (RUN, ("robot", "bench", "spot"), ("robot", "list")):
            message = refused(run(*arguments))
            assert message == (
                "persianrug: robots take the package daqp; allowed: after pip install '.[robots]' in a clone of "
                "persianrug\n"
            )

    def test_a_folder_of_something_else(self, run, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("years of work")
        message = refused(run(*RUN))
        assert "--out is run, which holds thesis.tex; allowed: a new or empty folder, or an earlier run" in message
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]
        (tmp_path / "run" / "thesis.tex").rename(tmp_path / "run" / "log.npz")
        assert "which holds no earlier run" in refused(run(*RUN))
        for content in ("[]", "{}", "{", '{"robot": 1}'):
            (tmp_path / "run" / "run.json").write_text(content)
            assert "which holds no earlier run" in refused(run(*RUN))
        assert (tmp_path / "run" / "log.npz").read_text() == "years of work"

    def test_a_path_that_is_a_file(self, run, tmp_path):
        (tmp_path / "run").write_text("a file")
        assert "--out is run, a file; allowed: a folder" in refused(run(*RUN))
        assert "run/in: Not a directory; allowed: a folder to write to" in refused(
            run("robot", "spot", "--out", "run/in")
        )

    def test_a_folder_that_is_read_only(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ValueError, match="is not writable; allowed: a writable folder"):
            RunFolder(tmp_path / "run")

    def test_trials_in_another_file(self, run, tmp_path):
        (tmp_path / "notes.txt").write_text("notes\n")
        message = refused(run("robot", "bench", "spot", "--trials", 1, "--out", "notes.txt"))
        assert "trials file notes.txt has no trial in line 1" in message


@pytest.mark.usefixtures("runner")
class TestEnds:
    @pytest.mark.usefixtures("no_opengl")
    def test_without_opengl_everything_else_is_written(self, run, tmp_path, monkeypatch):
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        text = ran(run(*RUN))
        assert "film.mp4 is missing: no OpenGL draws pictures here" in text
        assert "apt-get install libegl1 libosmesa6" in text
        assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES} - {"film.mp4"}
        assert b"No film was drawn: no OpenGL draws pictures here" in (tmp_path / "run" / "page.html").read_bytes()
        assert list(of_json(run(*RUN, "--json"))["missing"]) == ["film.mp4"]

    def test_a_disk_that_is_full(self, run, tmp_path, monkeypatch):
        from persianrug._support import npy

        def full(path, parts):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(npy, "write_arrays", full)
        message = refused_after_words(run(*QUICK))
        assert message == "persianrug: [Errno 28] No space left on device: not written: log.npz\n"
        report = json.loads((tmp_path / "run" / "run.json").read_bytes())
        assert report["missing"] == {"log.npz": "No space left on device"}
        assert (tmp_path / "run" / "page.html").exists()

    def test_an_interrupt_leaves_the_log_so_far(self, run, runner, tmp_path):
        def interrupted(self):
            raise KeyboardInterrupt

        runner.happens = interrupted
        result = run(*RUN)
        assert (result.returncode, result.stderr) == (130, "persianrug: interrupted\n")
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"log.npz", "run.json"}
        report = json.loads((tmp_path / "run" / "run.json").read_bytes())
        assert (report["state"], report["succeeded"], report["seconds"]) == (
            "interrupted",
            False,
            pytest.approx(0.4),
        )
        assert report["parts"] == {"fall": {"done": True, "at": pytest.approx(0.284)}}
        log = Log.load(tmp_path / "run" / "log.npz")
        assert (len(log), [part.name for part in log.parts]) == (101, ["fall"])
        # And another run may take its place.
        runner.happens = None
        ran(run(*QUICK))

    def test_an_error_leaves_it_too(self, run, runner, tmp_path):
        def broken(self):
            raise ValueError("the solver gave up at 0.40 s; allowed: other gains")

        runner.happens = broken
        assert "the solver gave up at 0.40 s" in refused_after_words(run(*QUICK))
        assert json.loads((tmp_path / "run" / "run.json").read_bytes())["state"] == "failed"
        assert len(Log.load(tmp_path / "run" / "log.npz")) == 101


@pytest.mark.usefixtures("runner")
class TestBench:
    def test_it_counts_and_goes_on(self, run, runner, tmp_path):
        make = runner.__init__

        def short(self, scenario, log=None):
            make(self, scenario, log)
            # Every third seed fails.
            self.seconds = 0.5 if scenario.seed % 3 == 0 else 1.0

        runner.__init__ = short
        command = ("robot", "bench", "spot", "--seed", 1, "--skin", "truth")
        first = run(*command, "--trials", 2)
        assert first.returncode == 0
        assert "1 more trial, about" in first.stderr
        text = run(*command, "--trials", 6)
        assert text.returncode == 0
        assert "2 of 6 trials were done before" in text.stderr
        for line in ("drop 4 of 6 66.7% 22.3% to 95.7%", "let go 4 of 6", "fall 6 of 6 100.0%",
                     "failed, seed 3, 6: too short", "trials are kept in"):  # fmt: skip
            assert line in words(text.stdout), line
        report = json.loads(run(*command, "--trials", 6, "--json").stdout)
        assert (report["succeeded"], report["trials"], report["failed"]) == (4, 6, {"too short": [3, 6]})
        assert len((tmp_path / "spot-trials.jsonl").read_text().splitlines()) == 6

    def test_what_fails_with_an_error_has_failed(self, run, runner):
        def broken(self):
            raise RuntimeError("no")

        runner.happens = broken
        report = json.loads(run("robot", "bench", "spot", "--trials", 2, "--json").stdout)
        assert (report["succeeded"], report["failed"]) == (0, {"RuntimeError: no": [1000, 1001]})


@pytest.mark.usefixtures("runner")
def test_list(run, monkeypatch, tmp_path):
    (tmp_path / "toy.xml").write_text(toys.SCENE)
    plain = {"mjcf": tmp_path / "toy.xml", "feet": (), "posture": {}, "ties": {}, "arm": None}
    for name, value in plain.items():
        monkeypatch.setattr(toys.SPEC, name, value, raising=False)
    monkeypatch.setattr(options, "ROBOTS", ("spot",))
    (told,) = of_json(run("robot", "list", "--json"))
    assert (told["robot"], told["title"], told["motors"], told["taxels"]) == ("spot", "Box with a paddle", 1, 80)
    assert told["mass"] == pytest.approx(4.3)
    assert told["scenarios"] == {
        "drop": {"what": "is dropped", "options": {"bar": None, "force": 1.0}, "counts": "it lies"},
        "lie": {"what": "lies there", "options": {}, "counts": "it lies"},
    }
    assert told["facts"] == [{"what": "mass", "value": 4.3, "unit": "kg", "source": "ours"}]
    text = words(ran(run("robot", "list")))
    assert "bar=drawn, force=1.0 it lies" in text
    assert "ours" not in text
    assert "mass 4.3 kg ours" in words(ran(run("robot", "list", "--facts")))


class TestRobotsThatShip:
    def test_names_are_those_that_there_are(self):
        from persianrug.robots.touching import SKINS

        assert tuple(persianrug.robots.ROBOTS) == options.ROBOTS
        assert options.SKINS == SKINS

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
    def test_one_is_ended_from_outside(self, number, start, tmp_path):
        process = start("robot", "spot", "--out", "run", "--skin", "truth", "--no-film")
        deadline = time.monotonic() + 100
        # It has come to the first part of its story.
        while process.stdout.readline().split()[1:2] != ["s"]:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(number)
        _, said = process.communicate(timeout=100)
        ended = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}[number]
        assert (process.returncode, said) == (ended[0], f"persianrug: {ended[1]}\n")
        assert json.loads((tmp_path / "run" / "run.json").read_bytes())["state"] == "interrupted"
        assert len(Log.load(tmp_path / "run" / "log.npz")) > 10

    def test_a_folder_that_may_not_be_written_to(self, run_apart, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o500)
        result = run_apart("robot", "spot", "--out", "closed", "--skin", "truth", preexec_fn=without_privileges)
        assert "closed is not writable; allowed: a writable folder" in refused(result)


def refused_after_words(result):
    """Exit code 2 and one line on stderr, of what was not known before it ran."""
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    return result.stderr
