"""Benches: trials are kept as they end, and one that was stopped goes on where it was."""

import json
import os
import time

import pytest

from persianrug.robots.bench import Asked, Trials, bench, share, summary

TOUCH = {"skin": "truth", "ratio": 0.0625, "packet_loss": 0.05}


def wanted(*seeds, **options):
    return [Asked("spot", "drop", seed, TOUCH, options) for seed in seeds]


def done(asked):
    """What a trial may say; every third fails."""
    good = asked.seed % 3 > 0
    return {
        **vars(asked), "succeeded": good, "reason": "" if good else "it fell", "seconds": 2.0 + asked.seed,
        "parts": {
            "fall": {"done": True, "at": 0.1 * asked.seed}, "rest": {"done": good, "at": 1.0 if good else None},
        },
        "skin": {"ratio": 0.0625, "explained": 0.5 if good else 1.0}, "timing": {"real_time": 2.0}, "drawn": {},
        "took": 0.25,
    }  # fmt: skip


def run(path, asked, perform=done, jobs=1):
    told = []
    found = bench(asked, Trials(path), jobs=jobs, progress=lambda *said: told.append(said), perform=perform)
    return found, told


def slow(asked):
    time.sleep(0.02 * (asked.seed % 2))
    return {**done(asked), "process": os.getpid()}


def never(asked):
    raise AssertionError(f"{asked} is run again")


def test_trials_are_kept(tmp_path):
    path = tmp_path / "trials.jsonl"
    found, told = run(path, wanted(1, 2, 3))
    assert found == [done(asked) for asked in wanted(1, 2, 3)]
    assert [json.loads(line) for line in path.read_text().splitlines()] == found
    assert [said[:2] for said in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    # From the first on it is said how long the others take.
    assert told[0][2] is None
    assert told[1][2] == pytest.approx(2 * 0.25)
    again, told = run(path, wanted(3, 1), never)
    assert again == [found[2], found[0]]
    assert told == [(2, 2, None)]


def test_others_are_not_taken_for_the_same(tmp_path):
    path = tmp_path / "trials.jsonl"
    run(path, wanted(1))
    ran = []
    for asked in (wanted(2), wanted(1, bar=0.1), [Asked("spot", "drop", 1, {**TOUCH, "ratio": 0.1}, {})],
                  [Asked("spot", "lie", 1, TOUCH, {})]):  # fmt: skip
        run(path, asked, lambda one: ran.append(one) or done(one))
    assert len(ran) == 4


def test_one_that_was_stopped_goes_on(tmp_path):
    path = tmp_path / "trials.jsonl"
    began = []

    def stopped(asked):
        began.append(asked.seed)
        if len(began) == 3:
            raise KeyboardInterrupt
        return done(asked)

    with pytest.raises(KeyboardInterrupt):
        run(path, wanted(*range(6)), stopped)
    # And one that was killed within a line.
    with path.open("ab") as file:
        file.write(b'{"robot": "spot", "sc')
    rest = []
    found, _ = run(path, wanted(*range(6)), lambda asked: rest.append(asked.seed) or done(asked))
    assert rest == [2, 3, 4, 5]
    assert found == [done(asked) for asked in wanted(*range(6))]
    assert len(path.read_text().splitlines()) == 6


def test_processes_side_by_side(tmp_path):
    found, told = run(tmp_path / "trials.jsonl", wanted(*range(8)), slow, jobs=2)
    assert [one["seed"] for one in found] == list(range(8))
    assert [said[0] for said in told] == list(range(9))
    processes = {one["process"] for one in found}
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_other_files_are_refused(tmp_path):
    for content in (b"hello\n", b"hello", b"[1]\n", b'{"robot": "spot"}\n', b"x" * 3_000_000):
        (tmp_path / "notes.txt").write_bytes(content)
        with pytest.raises(ValueError, match="has no trial in line 1; allowed: a new file, or"):
            Trials(tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_bytes() == content
    with pytest.raises(ValueError, match="is not a regular file"):
        Trials(tmp_path)


def test_a_damaged_line_can_be_deleted(tmp_path):
    path = tmp_path / "trials.jsonl"
    run(path, wanted(1, 2))
    good = path.read_bytes()
    path.write_bytes(good + b"\0" * 50 + b"\n")
    with pytest.raises(
        ValueError, match=r"trials\.jsonl has no trial in line 3; .* line may be deleted"
    ) as caught:
        Trials(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(good)
    assert len(Trials(path).done) == 2


def test_where_nothing_can_be_written():
    with pytest.raises(ValueError, match=r"^--out is /proc/x: .*; allowed: a file to write to$"):
        Trials("/proc/x")


def test_asking_whether_it_can_be_written_leaves_nothing(tmp_path):
    Trials(tmp_path / "trials.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^options is \{'speed': nan\}; allowed: finite numbers$"):
        run(tmp_path / "trials.jsonl", wanted(1, speed=float("nan")), never)


def test_what_they_say_together():
    told = summary([done(asked) for asked in wanted(1, 2, 3, 4)])
    assert (told["succeeded"], told["trials"], told["share"]) == (3, 4, 0.75)
    # As in tables of Clopper and Pearson's intervals.
    assert (told["low"], told["high"]) == pytest.approx((0.1941, 0.9937), abs=1e-4)
    assert told["failed"] == {"it fell": [3]}
    assert (told["parts"]["fall"]["succeeded"], told["parts"]["rest"]["succeeded"]) == (4, 3)
    assert told["parts"]["fall"]["at"] == pytest.approx(0.25)
    assert told["skin"]["explained"] == pytest.approx(0.625)
    assert told["skin"]["frames"] is None
    assert share(0, 0)["share"] is None
