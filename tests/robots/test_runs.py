"""Folders of runs: each file is whole or not there, run.json says which, and two runs do not share one."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from persianrug._support import npy, processes
from persianrug.robots import film, page, recording, runner
from persianrug.robots.runs import FILES, RunFolder, run_into
from persianrug.skin.mcap_writer import MessageWriter
from tests.robots import toys

ORDER = ("log.npz", "run.json", "touch.mcap", "film.mp4", "page.html")


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    """A toy in a robot's place, and a film that takes no time."""

    def draw(log, path, *, progress):
        path.write_bytes(b"film")

    monkeypatch.setattr(runner, "Runner", toys.Runner)
    monkeypatch.setattr(film, "write_film", draw)


def run(folder, **options):
    return run_into(RunFolder(folder), toys.make_scenario(), {"skin": "stiff", **options})


def told(folder):
    return json.loads((folder / "run.json").read_bytes())


def there(folder):
    return {one.name for one in folder.iterdir()}


def raising(error):
    def raising(*_, **__):
        raise error

    return raising


def test_a_whole_run_has_ended(tmp_path):
    report = run(tmp_path)
    assert told(tmp_path) == report
    assert (report["state"], report["files"], report["missing"]) == ("done", list(ORDER), {})
    assert "pid" not in report


@pytest.mark.parametrize("name", ["log.npz", "touch.mcap", "film.mp4", "page.html"])
def test_an_interrupt_while_files_are_written(tmp_path, monkeypatch, name):
    run(tmp_path)
    where = {"log.npz": (npy, "write_arrays"), "touch.mcap": (recording, "write_recording"),
             "film.mp4": (film, "write_film"), "page.html": (page, "write_page")}[name]  # fmt: skip
    monkeypatch.setattr(*where, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    report = told(tmp_path)
    assert (report["state"], report["reason"]) == ("interrupted", "interrupted")
    before = [one for one in ORDER[: ORDER.index(name)] if one != "run.json"]
    assert set(report["files"]) == {"run.json", *before} == there(tmp_path)
    assert report["missing"] == {one: "interrupted" for one in ORDER if one not in report["files"]}
    # And the folder can be used again.
    monkeypatch.undo()
    RunFolder(tmp_path)


def test_an_interrupt_within_a_recording_leaves_none(tmp_path, monkeypatch):
    add, count = MessageWriter._add, iter(range(100))

    def cut(self, *arguments):
        if next(count) == 99:
            raise KeyboardInterrupt
        add(self, *arguments)

    monkeypatch.setattr(MessageWriter, "_add", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert there(tmp_path) == {"log.npz", "run.json"}
    assert told(tmp_path)["state"] == "interrupted"


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=r"not written: log\.npz, touch\.mcap, page\.html"):
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert there(tmp_path) == {"run.json", "film.mp4"}
    report = told(tmp_path)
    assert report["files"] == ["run.json", "film.mp4"]
    assert list(report["missing"]) == ["log.npz", "touch.mcap", "page.html"]
    assert "File too large" in report["missing"]["log.npz"]


def test_a_report_that_cannot_be_written_in_the_end_claims_nothing_before(tmp_path, monkeypatch):
    report, states = RunFolder.report, []

    def full(self, content):
        states.append(content["state"])
        # The disk is full from the recording on.
        if "touch.mcap" in content["files"] or content["state"] == "done":
            raise OSError(errno.ENOSPC, "No space left on device")
        report(self, content)

    monkeypatch.setattr(RunFolder, "report", full)
    with pytest.raises(OSError, match=r"not written: run\.json"):
        run(tmp_path)
    assert states[-1] == "done"
    last = told(tmp_path)
    assert (last["state"], last["files"]) == ("writing", ["log.npz", "run.json"])
    assert set(last["missing"]) == {"touch.mcap", "film.mp4", "page.html"}


@pytest.mark.parametrize("full", [False, True])
def test_a_story_that_is_interrupted_says_what_is_there(tmp_path, monkeypatch, full):
    monkeypatch.setattr(toys.Runner, "happens", raising(KeyboardInterrupt()))
    if full:
        monkeypatch.setattr(npy, "write_arrays", raising(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    report = told(tmp_path)
    assert report["state"] == "interrupted"
    assert set(report["files"]) == there(tmp_path) == {"run.json"} | (set() if full else {"log.npz"})
    assert {*report["files"], *report["missing"]} == {*FILES}


def test_options_that_cannot_be_written_cost_no_earlier_run(tmp_path):
    run(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    for value in (float("nan"), object()):
        with pytest.raises(ValueError, match=r"options cannot be written down: .*; allowed: what JSON holds"):
            run(tmp_path, speed=value)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", [*FILES, ".log.npz.0123456789ab.tmp"])
def test_a_folder_in_a_files_place_is_refused(tmp_path, name):
    run(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=rf"^--out is .*, whose {name} is no file; allowed: ") as caught:
        RunFolder(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_a_killed_process_left_of_its_first_file_is_in_nobodys_way(tmp_path):
    (tmp_path / ".run.json.0123456789ab.tmp").write_bytes(b"{")
    run(tmp_path)
    assert there(tmp_path) == {*FILES}


class TestTwoRuns:
    @pytest.fixture
    def other(self):
        """Another process."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        yield process
        process.kill()
        process.communicate()

    @pytest.mark.parametrize("state", ["running", "writing"])
    def test_one_that_is_under_way_is_left_alone(self, tmp_path, other, state):
        run(tmp_path)
        content = json.dumps({**told(tmp_path), "state": state, "pid": other.pid})
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ValueError, match=rf"a run is under way, process {other.pid}; allowed: another folder"):
            RunFolder(tmp_path)
        assert (tmp_path / "run.json").read_text() == content
        assert there(tmp_path) == {*FILES}
        other.kill()
        other.wait()
        assert run(tmp_path)["state"] == "done"

    def test_numbers_of_processes_are_given_out_again(self, tmp_path, other):
        run(tmp_path)
        (tmp_path / "run.json").write_text(
            json.dumps({**told(tmp_path), "state": "running", "pid": other.pid, "pid_begun": 1})
        )
        RunFolder(tmp_path)

    def test_one_that_began_meanwhile_is_left_alone(self, tmp_path):
        first, second = RunFolder(tmp_path), RunFolder(tmp_path)
        begun = {"robot": "toy", "scenario": "drop", "seed": 0, "state": "running", **processes.this_process()}
        first.begin(begun)
        with pytest.raises(ValueError, match="a run is under way"):
            second.begin({**begun, "seed": 1})
        assert told(tmp_path)["seed"] == 0

    def test_who_runs_is_written_down_until_all_is_written(self, tmp_path, monkeypatch):
        seen = []

        def look(*_, **__):
            seen.append(told(tmp_path))

        monkeypatch.setattr(toys.Runner, "happens", lambda self: look() or "enough")
        monkeypatch.setattr(page, "write_page", look)
        run(tmp_path)
        assert [one["state"] for one in (seen[0], seen[-1])] == ["running", "writing"]
        assert {one["pid"] for one in seen} == {os.getpid()}
        assert seen[-1]["missing"] == {"page.html": "not written yet"}


@pytest.mark.parametrize("pid", [None, True, 0, -1, 2**40, "1"])
def test_what_is_no_number_of_a_process_is_none(pid):
    assert not processes.alive({"pid": pid})


def test_we_are_alive():
    assert processes.alive(processes.this_process())
    assert not processes.alive({**processes.this_process(), "pid_begun": 1})
