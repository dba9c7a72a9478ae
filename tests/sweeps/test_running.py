"""Sweeps as they run: nothing of what they find is lost, doubled or changed on the way."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import persianrug as pr
import persianrug.sweeps.running as running
from persianrug._support.files import marked_temporaries, whole_file
from persianrug.networks.network import Network
from persianrug.sweeps.running import run_sweep
from persianrug.sweeps.store import Store
from persianrug.sweeps.sweep import Sweep
from persianrug.sweeps.tables import rows
from tests.sweeps.helpers import SMALL, TRAINED


def numbers(found):
    """What was found, but for the time it took."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


class TestResults:
    @pytest.mark.slow
    def test_are_the_same_for_every_number_of_processes(self, tmp_path):
        sweep = Sweep(p=(0.05, 0.1, 0.2), ratio=0.25, n_sparse=(64, 128), steps=60, batch=128, samples=200,
                      method=("relu", "oamp", "sampled", "closure"))  # fmt: skip
        found = []
        for jobs in (1, 2):
            assert run_sweep(sweep, tmp_path / f"{jobs}", jobs=jobs) == {"done": 24, "failed": 0}
            found.append(numbers(rows(sweep, tmp_path / f"{jobs}")))
        assert found[0] == found[1]

    def test_go_to_the_store_that_was_named_wherever_processes_were_started(self, tmp_path, monkeypatch):
        for name in "ab":
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            assert run_sweep(Sweep(**SMALL), "s", weights="w", jobs=2) == {"done": 2, "failed": 0}
            assert len(list((tmp_path / name / "w").iterdir())) == 2

    def test_of_a_batch_that_another_is_about_to_claim_are_waited_for(self, tmp_path, monkeypatch):
        claim, calls = Store.claim, itertools.count()
        # As it is where another process holds a lock.
        monkeypatch.setattr(Store, "claim", lambda *given: claim(*given) if next(calls) else None)
        assert run_sweep(Sweep(**SMALL), tmp_path / "s") == {"done": 2, "failed": 0}

    def test_are_kept(self, tmp_path):
        sweep = Sweep(**SMALL)
        run_sweep(sweep, tmp_path / "s")
        before = rows(sweep, tmp_path / "s")
        assert run_sweep(Sweep(**SMALL, name="other"), tmp_path / "s", retry=True) == {"done": 2, "failed": 0}
        # Their times would differ.
        assert rows(sweep, tmp_path / "s") == before
        other = Sweep(**SMALL, seed=1)
        run_sweep(other, tmp_path / "s")
        assert rows(sweep, tmp_path / "s") == before
        assert numbers(rows(other, tmp_path / "s")) != numbers(before)

    def test_progress_ends_with_all(self, tmp_path):
        seen = []
        run_sweep(Sweep(**SMALL), tmp_path / "s", progress=lambda done, whole: seen.append((done, whole)))
        assert seen[-1] == (2, 2)
        assert all(done <= 2 and whole == 2 for done, whole in seen)

    def test_have_one_thread_each(self, tmp_path, monkeypatch):
        perform, seen = running.perform, []

        def perform_seen(runs):
            seen.append(torch.get_num_threads())
            return perform(runs)

        monkeypatch.setattr(running, "perform", perform_seen)
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            run_sweep(Sweep(**SMALL), tmp_path / "s")
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert seen == [1, 1]

    def test_are_made_to_the_end_where_the_parent_ends(self, tmp_path, monkeypatch):
        perform = running.perform

        def perform_late(runs):
            time.sleep(0.4)
            return perform(runs)

        parents, exits = itertools.count(), []
        monkeypatch.setattr(running, "perform", perform_late)
        # Who starts a process and logs out is no longer its parent.
        monkeypatch.setattr(os, "getppid", lambda: next(parents))
        monkeypatch.setattr(os, "_exit", exits.append)
        assert run_sweep(Sweep(**SMALL), tmp_path / "s") == {"done": 2, "failed": 0}
        assert not exits


@pytest.fixture
def failing(monkeypatch):
    """Let runs fail that a condition holds for."""
    perform = running.perform

    def failing(condition, error):
        def perform_or_fail(runs):
            if any(condition(run) for run in runs):
                raise error
            return perform(runs)

        monkeypatch.setattr(running, "perform", perform_or_fail)

    yield failing
    monkeypatch.undo()


class TestFailures:
    def test_are_recorded_and_stop_no_others(self, tmp_path):
        sweep = Sweep(**SMALL, method=("relu", "linear"), source=("gaussian", "uniform"))
        assert run_sweep(sweep, tmp_path / "s") == {"done": 6, "failed": 2}
        for row in rows(sweep, tmp_path / "s"):
            bad = (row["source"], row["method"]) == ("gaussian", "relu")
            assert row["state"] == ("failed" if bad else "done")
            assert bool(row["error"]) == bad
            assert not bad or row["error"].startswith("source gaussian is signed; allowed with decoder relu")

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("loss is nan\nat step 5"), "loss is nan at step 5"),
            (MemoryError(), "MemoryError"),
            (
                RuntimeError("[enforce fail] not enough memory: you tried"),
                "RuntimeError: [enforce fail] not enough",
            ),
            (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
            (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    def test_of_any_kind_are_recorded(self, tmp_path, failing, error, said):
        failing(lambda run: run.p == 0.05, error)
        sweep = Sweep(**SMALL)
        assert run_sweep(sweep, tmp_path / "s") == {"done": 1, "failed": 1}
        bad, good = rows(sweep, tmp_path / "s")
        assert bad["state"] == "failed"
        assert bad["error"].startswith(said)
        assert not bad["error"].endswith(":")
        assert good["state"] == "done"

    def test_of_a_run_in_a_batch_are_its_own(self, tmp_path, failing):
        sweep = Sweep(p=(0.05, 0.1, 0.2), ratio=0.25, n_sparse=64, **TRAINED)
        assert [len(runs) for runs in sweep.batches()] == [3]
        failing(lambda run: run.p == 0.1, ValueError("loss is nan"))
        assert run_sweep(sweep, tmp_path / "s", weights=tmp_path / "w") == {"done": 2, "failed": 1}
        found = rows(sweep, tmp_path / "s")
        assert [row["error"] for row in found] == [None, "loss is nan", None]
        # The others are trained alone, as if in sweeps of their own.
        for row in (found[0], found[2]):
            alone = Sweep(p=row["p"], ratio=0.25, n_sparse=64, **TRAINED)
            run_sweep(alone, tmp_path / "alone")
            assert rows(alone, tmp_path / "alone")[0]["measured"] == row["measured"]
            assert Network.load(tmp_path / "w" / row["weights"]).n_sparse == 64
        assert len(list((tmp_path / "w").iterdir())) == 2

    def test_of_a_training_that_diverges(self, tmp_path, monkeypatch):
        import persianrug.networks.descent as descent

        train_many = descent.train_many

        def diverging(trainings, **rest):
            reckless = [
                dataclasses.replace(one, learning_rate=1e30) if one.seed == 1 else one for one in trainings
            ]
            return train_many(reckless, **rest)

        monkeypatch.setattr(descent, "train_many", diverging)
        sweep = Sweep(p=0.1, ratio=0.25, n_sparse=64, seed=(0, 1, 2), **TRAINED)
        assert run_sweep(sweep, tmp_path / "s") == {"done": 2, "failed": 1}
        assert "allowed: finite" in rows(sweep, tmp_path / "s")[1]["error"]

    def test_are_tried_again_if_asked_to(self, tmp_path, failing, monkeypatch):
        sweep = Sweep(**SMALL, method=("relu", "linear"))
        failing(lambda run: run.method == "relu", MemoryError())
        assert run_sweep(sweep, tmp_path / "s") == {"done": 2, "failed": 2}
        before = rows(sweep, tmp_path / "s")
        monkeypatch.undo()
        assert run_sweep(sweep, tmp_path / "s") == {"done": 2, "failed": 2}
        assert rows(sweep, tmp_path / "s") == before
        assert run_sweep(sweep, tmp_path / "s", retry=True) == {"done": 4, "failed": 0}
        assert all(row["error"] is None for row in rows(sweep, tmp_path / "s"))
        kept = [row for row in rows(sweep, tmp_path / "s") if row["method"] == "linear"]
        assert kept == [row for row in before if row["method"] == "linear"]

    @pytest.mark.parametrize("method", ["relu", "sampled"])
    def test_are_not_what_an_interrupt_became(self, tmp_path, failing, method):
        calls = itertools.count()

        def interrupted(run):
            next(calls)
            # Libraries turn interrupts into other errors, if they come while they are imported.
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                return True

        failing(interrupted, ImportError("half a module"))
        sweep = Sweep(**SMALL, method=method, steps=5)
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, tmp_path / "s")
        assert signal.getsignal(signal.SIGINT) is before
        assert all(row["state"] == "pending" for row in rows(sweep, tmp_path / "s"))
        # Nor are those of a batch tried one by one.
        assert next(calls) == 1

    def test_an_interrupt_while_the_store_is_at_work_comes_after_it(self, tmp_path, monkeypatch):
        finish = Store.finish

        def finish_interrupted(store, *rest):
            signal.raise_signal(signal.SIGINT)
            return finish(store, *rest)

        monkeypatch.setattr(Store, "finish", finish_interrupted)
        sweep = Sweep(**SMALL)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, tmp_path / "s")
        assert [row["state"] for row in rows(sweep, tmp_path / "s")] == ["done", "pending"]
        store = Store(tmp_path / "s", reading=True)
        assert store.counts(1)["claimed"] == 0
        store.close()


class TestWeights:
    def test_are_a_file_a_run(self, tmp_path):
        sweep = Sweep(
            **SMALL, method=("relu", "knot", "linear", "sampled", "closure"), steps=5, batch=16, samples=16
        )
        run_sweep(sweep, tmp_path / "s", weights=tmp_path / "w")
        found = rows(sweep, tmp_path / "s")
        assert sorted(row["weights"] for row in found) == sorted(file.name for file in (tmp_path / "w").iterdir())
        assert len({row["weights"] for row in found}) == len(sweep)
        for row in found:
            path = tmp_path / "w" / row["weights"]
            source = pr.SparseUniform(row["p"])
            if row["method"] in ("sampled", "closure"):
                network = Network.load(path)
                assert (network.n_sparse, network.n_dense) == (64, 16)
                assert network.autoencoder(source).limit(source) == pytest.approx(row["closure"])
            else:
                model = pr.load(path)
                assert (model.encoder.n_sparse, model.encoder.n_dense) == (64, 16)
                assert model.law(source) == row["predicted"]
                assert float(np.float32(model.measure(source, samples=16, seed=0).loss)) == np.float32(
                    row["measured"]
                )

    def test_of_sweeps_in_one_folder_are_kept_apart(self, tmp_path):
        for k, store in enumerate("ab"):
            sweep = Sweep(**SMALL, seed=k, samples=16)
            run_sweep(sweep, tmp_path / store, weights=tmp_path / "w")
        assert len(list((tmp_path / "w").iterdir())) == 4
        for k, store in enumerate("ab"):
            for row in rows(Sweep(**SMALL, seed=k, samples=16), tmp_path / store):
                assert pr.load(tmp_path / "w" / row["weights"]).encoder.seed == k

    def test_folders_that_are_refused(self, tmp_path):
        (tmp_path / "file").touch()
        sweep = Sweep(**SMALL)
        for folder in (tmp_path / "file", tmp_path / "none" / "w"):
            with pytest.raises(ValueError, match=r"weights folder .* cannot be made: .*; allowed: a folder"):
                run_sweep(sweep, tmp_path / "s", weights=folder)
        with pytest.raises(ValueError, match="jobs is 0; allowed: an integer >= 1"):
            run_sweep(sweep, tmp_path / "s", jobs=0)
        assert [file.name for file in tmp_path.iterdir()] == ["file"]


# Runs a sweep as the command does, with claims that end soon. It hangs at its batch number HANG, and says so.
DRIVER = """
import pathlib, sys, time
import persianrug.sweeps.store as stores
import persianrug.sweeps.running as running

stores.LEASE = 2.0
hang, marker, *arguments = sys.argv[1:]
perform, left = running.perform, int(hang)

def perform_until(runs):
    global left
    if left == 0:
        pathlib.Path(marker).touch()
        time.sleep(1000)
    left -= 1
    time.sleep(0.05)
    return perform(runs)

running.perform = perform_until
from persianrug.cli import main
sys.argv = ["persianrug", *arguments]
main()
"""


ARGUMENTS = ("--p", "0.05,0.1,0.2", "--ratio", "0.25", "--n-sparse", "64,96", "--method", "relu,oamp,sampled",
             "--steps", "20", "--batch", "64", "--samples", "100")  # fmt: skip
DRIVEN = Sweep(p=(0.05, 0.1, 0.2), ratio=0.25, n_sparse=(64, 96), method=("relu", "oamp", "sampled"), steps=20,
               batch=64, samples=100)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What that sweep finds if nothing happens to it."""
    where = tmp_path_factory.mktemp("undisturbed") / "s"
    run_sweep(DRIVEN, where)
    return numbers(rows(DRIVEN, where))


class TestProcesses:
    @pytest.mark.slow
    def test_killed_in_the_middle_nothing_is_lost_or_doubled(
        self, where, tmp_path, command_environment, undisturbed
    ):
        processes = []

        def start(hang):
            command = [sys.executable, "-c", DRIVER, str(hang), str(tmp_path / "hangs"), "sweep", "run",
                       "--store", where, *ARGUMENTS]  # fmt: skip
            processes.append(subprocess.Popen(
                command, env=command_environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True,
            ))  # fmt: skip
            return processes[-1]

        def wait_for(condition):
            deadline = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < deadline
                time.sleep(0.02)

        def states():
            return [row["state"] for row in rows(DRIVEN, where)]

        try:
            # The first two batches are of three networks each, the others of one run.
            dying = start(1)
            wait_for((tmp_path / "hangs").exists)
            assert states().count("done") == 3
            surviving = start(1000)
            wait_for(lambda: states().count("done") == len(DRIVEN) - 3)
            # What is renewed is left alone, for longer than a claim holds.
            time.sleep(2.5)
            assert states().count("done") == len(DRIVEN) - 3
            dying.kill()
            assert dying.communicate(timeout=60) == ("", "")
            out, err = surviving.communicate(timeout=60)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        assert (surviving.returncode, err) == (0, "")
        assert f"{len(DRIVEN)} runs done" in out
        assert numbers(rows(DRIVEN, where)) == undisturbed


def test_what_killed_workers_left_of_weights_is_removed(tmp_path, monkeypatch):
    weights = tmp_path / "w"

    def killed(*given):
        with marked_temporaries(given[-2]), whole_file(weights / "1.safetensors") as file:
            pass
        # As it was before it had its name.
        Path(file.name).touch()
        # That of another sweep in the same folder.
        (weights / ".2.safetensors.0123abcd-00.tmp").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_work_apart", killed)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(Sweep(**SMALL), tmp_path / "s", jobs=2, weights=weights)
    assert sorted(path.name for path in weights.iterdir()) == [".2.safetensors.0123abcd-00.tmp", "1.safetensors"]
