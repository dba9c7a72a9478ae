"""The database of sweeps: batches are claimed once, stored once, and taken over from those who died."""

import itertools
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import persianrug.sweeps.store as stores
from persianrug.sweeps.store import Batch, Outcome
from tests.sweeps.helpers import asked, batches, done, numbers


@pytest.fixture
def expired(store):
    """A store whose claims expire at once."""
    store.lease = -1.0
    return store


class TestSweeps:
    def test_are_added_once(self, store, open_store):
        first = store.add("a" * 64, "one", {"p": [0.1]}, batches([2, 1]))
        assert open_store().add("a" * 64, "renamed", {"p": [0.1]}, batches([2, 1])) == first
        second = store.add("b" * 64, "two, größer", {"p": [0.2]}, batches([1]))
        assert second != first
        assert store.sweeps() == [
            {"id": first, "digest": "a" * 64, "name": "one", "recipe": {"p": [0.1]}},
            {"id": second, "digest": "b" * 64, "name": "two, größer", "recipe": {"p": [0.2]}},
        ]
        assert [store.counts(sweep)["pending"] for sweep in (first, second)] == [3, 1]

    def test_that_two_find_missing_are_added_once(self, store, open_store, monkeypatch):
        transaction, calls, added = store._transaction, itertools.count(), []

        def late():
            # Between the look for it and its addition.
            if next(calls) == 1:
                added.append(open_store().add("a" * 64, "other", {}, batches([2])))
            return transaction()

        monkeypatch.setattr(store, "_transaction", late)
        assert [store.add("a" * 64, "one", {}, batches([2]))] == added
        assert store.counts(added[0])["pending"] == 2
        assert [sweep["name"] for sweep in store.sweeps()] == ["other"]

    def test_that_cannot_be_added_leave_nothing(self, store):
        with pytest.raises(KeyError):
            store.add("a" * 64, "one", {}, [*batches([1, 1]), [{"no": "number"}]])
        assert store.sweeps() == []
        assert store.counts(store.add("a" * 64, "one", {}, batches([1])))["pending"] == 1

    def test_rows_and_counts(self, store):
        other = store.add("b" * 64, "other", {}, batches([3]))
        # The batch that is claimed first need not have the first numbers.
        sweep = store.add("a" * 64, "one", {}, [asked(4, 1), asked(0), asked(3, 2)])
        first, second = store.claim(sweep, "a"), store.claim(sweep, "b")
        assert (numbers(first), numbers(second)) == ([1, 4], [0])
        one, four = first.asked
        assert store.finish(first, {one: Outcome({"measured": 0.25}), four: Outcome(error="it was\nbad")})
        assert store.counts(sweep) == {"pending": 2, "claimed": 1, "done": 1, "failed": 1}
        assert store.counts(other) == {"pending": 3, "claimed": 0, "done": 0, "failed": 0}
        assert store.rows(sweep) == [
            {"number": 0, "method": "é0", "state": "pending", "error": None},
            {"number": 1, "method": "é1", "state": "done", "error": None, "measured": 0.25},
            {"number": 2, "method": "é2", "state": "pending", "error": None},
            {"number": 3, "method": "é3", "state": "pending", "error": None},
            {"number": 4, "method": "é4", "state": "failed", "error": "it was\nbad"},
        ]

    def test_numbers_that_are_none_keep_what_they_are(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([1]))
        batch = store.claim(sweep, "a")
        result = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "none": None, "third": 1 / 3, "-0": -0.0,
                  "large": 2**62 + 1, "text": "× ' \" \\ %s :p", "list": [1, 2.5]}  # fmt: skip
        assert store.finish(batch, {run: Outcome(result) for run in batch.asked})
        (row,) = store.rows(sweep)
        assert math.isnan(row.pop("nan"))
        assert math.copysign(1, row["-0"]) == -1
        assert {key: row[key] for key in result if key != "nan"} == {
            key: value for key, value in result.items() if key != "nan"
        }


class TestClaims:
    def test_come_in_order_and_end(self, store, open_store):
        sweep = store.add("a" * 64, "one", {}, batches([2, 1, 1]))
        other = store.add("b" * 64, "two", {}, batches([1]))
        claims = [one.claim(sweep, owner) for one, owner in zip([store, open_store()] * 2, "abcd", strict=True)]
        assert [numbers(batch) for batch in claims[:3]] == [[0, 1], [2], [3]]
        assert claims[3] is None
        assert [batch.owner for batch in claims[:3]] == ["a", "b", "c"]
        assert numbers(store.claim(other, "a")) == [0]

    @pytest.mark.parametrize("shared", [True, False], ids=["one-store", "many-stores"])
    def test_of_many_threads_are_each_of_one(self, store, open_store, shared):
        sweep = store.add("a" * 64, "one", {}, batches([1] * 60))
        workers = [store if shared else open_store() for _ in range(6)]
        start, claimed = threading.Barrier(len(workers)), [[] for _ in workers]

        def work(k):
            start.wait()
            while (batch := workers[k].claim(sweep, f"owner {k}")) is not None:
                claimed[k] += numbers(batch)
                assert workers[k].finish(batch, done(batch, by=k))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(len(workers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Where a batch is locked by another thread there is none to claim, and this one ends early.
        for k, worker in enumerate(workers):
            while (batch := worker.claim(sweep, f"owner {k}")) is not None:
                claimed[k] += numbers(batch)
                assert worker.finish(batch, done(batch, by=k))
        assert sorted(itertools.chain(*claimed)) == list(range(60))
        assert [row["by"] for row in store.rows(sweep)] == [
            next(k for k, own in enumerate(claimed) if number in own) for number in range(60)
        ]

    def test_of_many_processes_are_each_of_one(self, where, open_store, tmp_path):
        code = (
            "import pathlib, sys, time\n"
            "from persianrug.sweeps.store import Outcome, Store\n"
            "where, go, owner = sys.argv[1:]\n"
            "pathlib.Path(go + owner).touch()\n"
            "while not pathlib.Path(go).exists(): time.sleep(0.001)\n"
            "store = Store(where)\n"
            "sweep = store.add('a' * 64, 'one', {}, [[{'number': n}] for n in range(40)])\n"
            "while store.counts(sweep)['pending']:\n"
            "    batch = store.claim(sweep, owner)\n"
            "    if batch is None: continue\n"
            "    print(*(asked['number'] for asked in batch.asked.values()), flush=True)\n"
            "    assert store.finish(batch, {run: Outcome({'by': owner}) for run in batch.asked})\n"
            "store.close()\n"
        )
        go = tmp_path / "go"
        command = [sys.executable, "-W", "error", "-c", code, where, str(go)]
        processes = [
            subprocess.Popen([*command, owner], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for owner in "abc"
        ]
        # All find an empty database at the same time.
        while not all(Path(f"{go}{owner}").exists() for owner in "abc"):
            assert all(process.poll() is None for process in processes)
        go.touch()
        claimed = {}
        for owner, process in zip("abc", processes, strict=True):
            out, err = process.communicate(timeout=100)
            assert (process.returncode, err) == (0, "")
            claimed[owner] = [int(number) for number in out.split()]
        assert sorted(itertools.chain(*claimed.values())) == list(range(40))
        store = open_store(reading=True)
        (sweep,) = store.sweeps()
        assert {row["number"]: row["by"] for row in store.rows(sweep["id"])} == {
            number: owner for owner, own in claimed.items() for number in own
        }

    def test_that_expired_are_taken_over_and_cannot_store(self, expired, open_store):
        sweep = expired.add("a" * 64, "one", {}, batches([2]))
        lost = expired.claim(sweep, "dead")
        other = open_store()
        found = other.claim(sweep, "alive")
        assert found == Batch(lost.id, "alive", lost.asked)
        before = other.rows(sweep)
        assert not expired.finish(lost, done(lost, measured=666.0))
        assert other.rows(sweep) == before
        # Nor does it prolong, or give back, what is another's.
        expired.renew("dead")
        expired.release("dead")
        assert expired.claim(sweep, "third") is None
        assert other.finish(found, done(found, measured=0.5))
        assert not expired.finish(lost, done(lost, measured=666.0))
        assert not other.finish(found, done(found, measured=666.0))
        assert [row["measured"] for row in other.rows(sweep)] == [0.5, 0.5]

    def test_that_expired_can_still_store_if_nobody_took_over(self, expired):
        sweep = expired.add("a" * 64, "one", {}, batches([1]))
        batch = expired.claim(sweep, "slow")
        assert expired.finish(batch, done(batch))
        assert expired.claim(sweep, "other") is None
        assert expired.counts(sweep)["done"] == 1

    def test_that_are_renewed_do_not_expire(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([1, 1]))
        claims = [store.claim(sweep, owner) for owner in ("a:0", "a:1")]
        store.lease = -1.0
        for owner in ("a:0", "a:1"):
            store.renew(owner)
        store.lease = stores.LEASE
        store.renew("a:0")
        assert numbers(store.claim(sweep, "b")) == [1]
        assert store.claim(sweep, "c") is None
        assert [store.finish(batch, done(batch)) for batch in claims] == [True, False]

    def test_last_for_the_lease(self, where, open_store, monkeypatch):
        monkeypatch.setattr(stores, "LEASE", -1.0)
        store = open_store()
        assert store.lease == -1.0
        sweep = store.add("a" * 64, "one", {}, batches([1]))
        store.claim(sweep, "a")
        assert store.claim(sweep, "b") is not None

    def test_are_given_back_at_once_and_do_not_count(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([1, 1]))
        for _ in range(5):
            assert numbers(store.claim(sweep, "host:1:aa:0")) == [0]
            assert numbers(store.claim(sweep, "host:1:bb:0")) == [1]
            store.release("host:1:bb")
            store.release("host:1:aa")
            assert store.counts(sweep) == {"pending": 2, "claimed": 0, "done": 0, "failed": 0}
        assert store.claim(sweep, "b") is not None

    def test_of_others_are_not_given_back(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([1, 1, 1, 1]))
        owners = ("host_1:0", "host_1:1", "hostX1:0", "other")
        claims = [store.claim(sweep, owner) for owner in owners]
        # A line below stands for itself.
        store.release("host_1")
        assert store.counts(sweep)["claimed"] == 2
        assert [store.finish(batch, done(batch)) for batch in claims] == [False, False, True, True]
        assert numbers(store.claim(sweep, "b")) == [0]

    def test_that_are_finished_are_not_given_back(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([1]))
        batch = store.claim(sweep, "a")
        assert store.finish(batch, done(batch))
        store.release("a")
        assert store.counts(sweep)["done"] == 1
        assert store.claim(sweep, "b") is None

    def test_whose_workers_died_three_times_fail(self, expired, open_store):
        sweep = expired.add("a" * 64, "one", {}, batches([2, 1]))
        for owner in "abc":
            assert numbers(expired.claim(sweep, owner)) == [0, 1]
        alive = open_store()
        assert numbers(alive.claim(sweep, "d")) == [2]
        assert alive.counts(sweep) == {"pending": 0, "claimed": 1, "done": 0, "failed": 2}
        for row in alive.rows(sweep)[:2]:
            assert (row["state"], row["error"][:24]) == ("failed", "its worker died 3 times,")
        assert alive.claim(sweep, "e") is None

    def test_of_workers_that_are_known_to_have_died_count(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([1, 1]))
        for _ in range(3):
            assert numbers(store.claim(sweep, "a:0")) == [0]
            store.release("a", died=True)
            assert store.counts(sweep)["pending"] == 2
        assert numbers(store.claim(sweep, "a:0")) == [1]
        assert store.counts(sweep)["failed"] == 1


class TestRetry:
    def test_makes_failed_runs_pending_and_no_others(self, store):
        sweep = store.add("a" * 64, "one", {}, batches([3, 1, 1]))
        other = store.add("b" * 64, "two", {}, batches([1]))
        first, second, third = store.claim(sweep, "a"), store.claim(sweep, "a"), store.claim(other, "a")
        runs = list(first.asked)
        store.finish(first, {runs[0]: Outcome({"x": 1}), runs[1]: Outcome(error="e"), runs[2]: Outcome({"x": 2})})
        store.finish(second, done(second))
        store.finish(third, {run: Outcome(error="e") for run in third.asked})
        assert store.retry(sweep) == 1
        assert store.retry(sweep) == 0
        assert store.counts(sweep) == {"pending": 2, "claimed": 0, "done": 3, "failed": 0}
        assert store.counts(other)["failed"] == 1
        again = store.claim(sweep, "b")
        assert again.asked == {runs[1]: {"number": 1, "method": "é1"}}
        assert store.finish(again, done(again, x=3))
        assert [(row.get("x"), row["error"]) for row in store.rows(sweep)[:3]] == [(1, None), (3, None), (2, None)]

    def test_starts_to_count_deaths_anew(self, expired):
        sweep = expired.add("a" * 64, "one", {}, batches([1]))
        for _ in range(3):
            assert expired.claim(sweep, "a") is not None
        assert expired.claim(sweep, "a") is None
        assert expired.retry(sweep) == 1
        assert expired.claim(sweep, "a") is not None

    def test_keeps_what_is_done_where_workers_die_again(self, expired):
        sweep = expired.add("a" * 64, "one", {}, batches([2]))
        batch = expired.claim(sweep, "a")
        good, bad = batch.asked
        expired.finish(batch, {good: Outcome({"x": 1}), bad: Outcome(error="e")})
        expired.retry(sweep)
        for _ in range(3):
            assert list(expired.claim(sweep, "a").asked) == [bad]
        assert expired.claim(sweep, "a") is None
        assert [row["state"] for row in expired.rows(sweep)] == ["done", "failed"]
