"""Grids of runs: what they are, what they find, and that nothing of it is lost, doubled or changed on the way."""

import csv
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
import persianrug.sweeps.running as running
from persianrug.networks.network import Network
from persianrug.sweeps.running import run_sweep
from persianrug.sweeps.store import Outcome, Store
from persianrug.sweeps.sweep import Sweep, span
from persianrug.sweeps.tables import export, rows

SMALL = {"p": (0.05, 0.2), "ratio": (0.25,), "n_sparse": (64,)}
TRAINED = {"method": ("sampled",), "steps": (30,), "batch": 32}


def numbers(found):
    """What was found, but for the time it took."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


class TestGrids:
    def test_are_all_combinations(self):
        sweep = Sweep(p=(0.1, 0.3), ratio=(0.25, 0.5), n_sparse=(8, 16), source=("uniform", "constant"),
                      method=("relu", "sampled", "knot", "closure"), seed=(0, 5), steps=(10, 20), batch=7,
                      samples=9)  # fmt: skip
        runs = list(sweep.runs())
        assert len(sweep) == len(runs) == 2**5 * (2 + 2 * 2)
        assert [run.number for run in runs] == list(range(len(runs)))
        wanted = {
            (source, p, ratio, n_sparse, method, seed, steps)
            for source, p, ratio, n_sparse, method, seed in itertools.product(
                sweep.source, sweep.p, sweep.ratio, sweep.n_sparse, sweep.method, sweep.seed
            )
            for steps in ((10, 20) if method in ("sampled", "closure") else (None,))
        }
        found = [(run.source, run.p, run.ratio, run.n_sparse, run.method, run.seed, run.steps) for run in runs]
        assert set(found) == wanted
        assert len(found) == len(wanted)
        assert {(run.batch, run.samples) for run in runs} == {(7, 9)}
        assert all(run.n_dense == max(1, round(run.ratio * run.n_sparse)) for run in runs)

    def test_single_values_are_lists_of_one(self):
        assert Sweep(
            p=0.1, ratio=np.float64(0.5), method="linear", n_sparse=np.int64(64), seed=3, steps=5
        ) == Sweep(p=(0.1,), ratio=[0.5], method=["linear"], n_sparse=(64,), seed=range(3, 4), steps=(5,))

    def test_of_numpys_numbers_can_be_stored(self):
        sweep = Sweep(p=np.array([0.1, 0.2]), ratio=np.linspace(0.1, 1, 4), n_sparse=np.arange(2, 5),
                      batch=np.int64(3), samples=np.int32(4))  # fmt: skip
        assert Sweep(**json.loads(json.dumps(sweep.recipe))).digest == sweep.digest
        json.dumps([dataclasses.asdict(run) for run in sweep.runs()])

    def test_leave_a_number_to_codes(self):
        (run,) = Sweep(p=0.1, ratio=0.001, n_sparse=8).runs()
        assert run.n_dense == 1

    @given(
        ratio=st.sets(st.sampled_from((0.1, 0.25, 0.26, 0.5, 1.0)), min_size=1),
        n_sparse=st.sets(st.sampled_from((4, 8, 64, 70_000)), min_size=1),
        method=st.sets(st.sampled_from(("relu", "oamp", "sampled", "closure")), min_size=1),
        seed=st.integers(1, 40),
        steps=st.sets(st.integers(1, 3), min_size=1),
        batch=st.sampled_from((1, 64, 1024)),
    )
    def test_batches_cover_every_run_once(self, ratio, n_sparse, method, seed, steps, batch):
        sweep = Sweep(p=(0.1, 0.2), ratio=ratio, n_sparse=n_sparse, method=method, seed=range(seed), steps=steps,
                      batch=batch)  # fmt: skip
        batches = sweep.batches()
        assert sorted((run for runs in batches for run in runs), key=lambda run: run.number) == list(sweep.runs())
        assert batches == Sweep(**sweep.recipe).batches()
        for runs in batches:
            assert 1 <= len(runs) <= 16
            assert len({(run.method, run.n_sparse, run.n_dense, run.steps) for run in runs}) == 1
            assert len(runs) == 1 or runs[0].method in ("sampled", "closure")
            # Together no more than fits.
            assert len(runs) == 1 or len(runs) * batch * runs[0].n_sparse <= 1 << 22
        trained = [sum(run.work for run in runs) for runs in batches if runs[0].steps is not None]
        alone = [runs[0].work for runs in batches if runs[0].steps is None]
        assert trained == sorted(trained, reverse=True)
        assert alone == sorted(alone, reverse=True)

    def test_batches_hold_many_small_networks(self):
        batches = Sweep(**SMALL, **TRAINED, seed=range(20)).batches()
        assert [len(runs) for runs in batches] == [16, 16, 8]

    def test_digests_tell_all_but_names(self):
        sweep = Sweep(**SMALL)
        other = {"p": (0.05,), "ratio": (0.5,), "n_sparse": (65,), "method": ("linear",), "source": ("constant",),
                 "seed": (1,), "steps": (1,), "batch": 1, "samples": 5}  # fmt: skip
        digests = {Sweep(**{**SMALL, key: value}).digest for key, value in other.items()}
        assert set(other) == set(sweep.recipe)
        assert len(digests - {sweep.digest}) == len(other)
        assert Sweep(**SMALL, name="other").digest == sweep.digest
        assert Sweep(**SMALL, name="other") == sweep
        # The order decides the numbers of the runs.
        assert Sweep(**{**SMALL, "p": (0.2, 0.05)}).digest != sweep.digest
        # What is in stores by now has to be found again.
        assert sweep.digest == "7cee4f3c457719e08019221af5f2926858c6e346fbad0c2d2eca28cd24b5f287"

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"p": ()}, "p is empty, so that the grid has no runs; allowed: at least one"),
            ({"method": []}, "method is empty, so that the grid has no runs"),
            ({"steps": ()}, "steps is empty"),
            ({"p": (0.1, 0.2, 0.1)}, "p has 0.1 twice; allowed: different ones"),
            ({"method": ("relu", "relu")}, "method has relu twice"),
            ({"seed": (3, 3)}, "seed has 3 twice"),
            ({"p": (0.1, 0)}, "p is 0; allowed: a number in (0, 1]"),
            ({"p": math.nan}, "p is nan; allowed: a number in (0, 1]"),
            ({"p": "0.1"}, "p is '0.1'; allowed: a number in (0, 1]"),
            ({"p": None}, "p is None; allowed"),
            ({"ratio": (1.01,)}, "ratio is 1.01; allowed: a number in (0, 1]"),
            ({"ratio": -1}, "ratio is -1; allowed"),
            ({"n_sparse": 1}, "n_sparse is 1; allowed: an integer from 2 to 1073741824"),
            ({"n_sparse": 1 << 31}, "n_sparse is 2147483648; allowed"),
            ({"n_sparse": 8.0}, "n_sparse is 8.0; allowed: an integer"),
            ({"method": "guess"}, "method is 'guess'; allowed: linear, relu, "),
            ({"method": (["relu"],)}, "method is ['relu']; allowed"),
            ({"source": "cauchy"}, "source is 'cauchy'; allowed: uniform, exponential"),
            ({"seed": -1}, "seed is -1; allowed: an integer from 0 to 4611686018427387904"),
            ({"seed": 2**63}, "seed is 9223372036854775808; allowed"),
            ({"steps": 0}, "steps is 0; allowed: an integer >= 1"),
            ({"batch": 0}, "batch is 0; allowed: an integer >= 1"),
            ({"batch": (1, 2)}, "batch is (1, 2); allowed: an integer >= 1"),
            ({"samples": 1}, "samples is 1; allowed: an integer from 2 to 134217728"),
            ({"name": ""}, "name is ''; allowed: a text of 1 to 200 characters"),
            ({"name": "x" * 201}, "allowed: a text of 1 to 200 characters"),
            ({"name": 5}, "name is 5; allowed: a text"),
            ({"seed": range(1001), "p": np.linspace(0.1, 1, 1000)}, "1001000 runs; allowed: at most 1000000"),
        ],
    )  # fmt: skip
    def test_what_is_refused(self, given, said):
        with pytest.raises(ValueError, match="allowed") as raised:
            Sweep(**{"p": 0.1, "ratio": 0.5, **given})
        assert said in str(raised.value)


class TestSpans:
    @given(
        low=st.floats(1e-6, 1e6), high=st.floats(1e-6, 1e6), points=st.integers(1, 60),
        scale=st.sampled_from(["linear", "log"]),
    )  # fmt: skip
    def test_numbers(self, low, high, points, scale):
        found = span("p", **{"from": low, "to": high, "points": points, "scale": scale})
        assert found[0] == low
        if points > 1:
            assert found[-1] == high
        assert list(found) == sorted(found, reverse=low > high)
        assert len(set(found)) == len(found) <= points
        if abs(high - low) > 1e-3 * low:
            assert len(found) == points
            steps = np.diff(np.log(found) if scale == "log" else found)
            np.testing.assert_allclose(steps, steps[:1].repeat(len(steps)), rtol=1e-4)

    @given(
        low=st.integers(0, 2**62), high=st.integers(0, 2**62), points=st.integers(1, 60),
        scale=st.sampled_from(["linear", "log"]),
    )  # fmt: skip
    def test_whole_numbers(self, low, high, points, scale):
        if scale == "log":
            low, high = max(1, low), max(1, high)
        found = span("seed", **{"from": low, "to": high, "points": points, "scale": scale})
        assert all(type(number) is int for number in found)
        assert found[0] == low
        if points > 1:
            assert found[-1] == high
        assert list(found) == sorted(found, reverse=low > high)
        assert len(set(found)) == len(found) <= points

    def test_decimals_stay_decimals(self):
        assert span("p", **{"from": 0.1, "to": 0.7, "points": 7}) == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
        table = {"from": 0.001, "to": 1, "points": 4, "scale": "log"}
        assert span("p", **table) == (0.001, 0.01, 0.1, 1.0)
        assert type(span("p", **table)[-1]) is float
        assert span("seed", **{"from": 0, "to": 9, "points": 10}) == tuple(range(10))
        assert span("n_sparse", **{"from": 64, "to": 1024, "points": 5, "scale": "log"}) == (
            64,
            128,
            256,
            512,
            1024,
        )
        assert span("n_sparse", **{"from": 1, "to": 3, "points": 9}) == (1, 2, 3)

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ({}, "p is a table of nothing; allowed: {from, to, points}"),
            ({"from": 0.1, "to": 1}, "p is a table of from, to; allowed"),
            ({"from": 0.1, "to": 1, "points": 3, "step": 1}, "p is a table of from, to, points, step; allowed"),
            ({"name": 1}, "p is a table of name; allowed"),
            ({"from": -0.1, "to": 1, "points": 3}, "p.from is -0.1; allowed: a finite number >= 0"),
            ({"from": 0.1, "to": math.inf, "points": 3}, "p.to is inf; allowed: a finite number"),
            ({"from": 0, "to": 1, "points": 3, "scale": "log"}, "p.from is 0; allowed: a finite number > 0"),
            ({"from": "a", "to": 1, "points": 3}, "p.from is 'a'; allowed"),
            ({"from": 10**400, "to": 1, "points": 3}, "allowed: a finite number"),
            ({"from": 0.1, "to": 1, "points": 0}, "p.points is 0; allowed: an integer from 1 to 1000000"),
            ({"from": 0.1, "to": 1, "points": 2.0}, "p.points is 2.0; allowed: an integer"),
            ({"from": 0.1, "to": 1, "points": 10**9}, "p.points is 1000000000; allowed"),
            ({"from": 0.1, "to": 1, "points": 3, "scale": "root"}, "p.scale is 'root'; allowed: linear, log"),
        ],
    )
    def test_what_is_refused(self, table, said):
        with pytest.raises(ValueError, match="allowed") as raised:
            span("p", **table)
        assert said in str(raised.value)


class TestFiles:
    @pytest.fixture
    def read(self, tmp_path):
        def read(text, **given):
            path = tmp_path / "plane.toml"
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            return Sweep.read(path, **given)

        return read

    def test_have_lists_single_values_and_tables(self, read):
        sweep = read(
            "p = {from = 0.01, to = 0.1, points = 2, scale = 'log'}\nratio = 0.25\nn_sparse = [64, 128]\n"
            "seed = {from = 0, to = 2, points = 3}\nmethod = ['relu', 'sampled']\nsteps = 5\nsource = 'constant'\n"
            "batch = 16\nsamples = 32\n"
        )
        assert sweep == Sweep(p=(0.01, 0.1), ratio=0.25, n_sparse=(64, 128), seed=(0, 1, 2), steps=5, batch=16,
                              method=("relu", "sampled"), source="constant", samples=32)  # fmt: skip
        assert sweep.name == "plane"
        assert read("name = 'größe'\np = 1\nratio = 1").name == "größe"

    def test_are_overruled_by_what_is_given(self, read):
        text = "name = 'file'\np = [0.1]\nseed = [1, 2]\n"
        assert read(text, ratio=(0.5,), p=(0.2,)) == Sweep(p=0.2, ratio=0.5, seed=(1, 2))
        assert read(text, ratio=0.5).name == "file"
        assert read(text, ratio=0.5, name="given").name == "given"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("ratio = 0.5", "plane.toml has no p; allowed: a list of numbers in (0, 1]"),
            ("p = 0.5", "plane.toml has no ratio; allowed"),
            ("p = 0.1\nratio = 0.5\nn_dense = 3", "plane.toml is 'n_dense'; allowed: p, ratio, n_sparse, method"),
            ("p = []\nratio = 0.5", "p is empty, so that the grid has no runs"),
            ("p = [[0.1]]\nratio = 0.5", "p is [0.1]; allowed: a number in (0, 1]"),
            ("p = {from = 0.1, to = 0.5}\nratio = 0.5", "p is a table of from, to; allowed: {from, to, points}"),
            ("p = {name = 1}\nratio = 0.5", "p is a table of name; allowed"),
            ("p = '0.1'\nratio = 0.5", "p is '0.1'; allowed"),
            ("p = 0.1\nratio = 0.5\nn_sparse = {from = 2.0, to = 4.0, points = 2}", "n_sparse is 2.0; allowed"),
            ("p = 0.1\nratio = 2024-01-01", "ratio is datetime.date(2024, 1, 1); allowed"),
            ("p = 0.1 0.2", "plane.toml cannot be read: "),
            (b"p = 0.1 # \xff", "plane.toml cannot be read: "),
        ],
    )
    def test_what_is_refused(self, read, text, said):
        with pytest.raises(ValueError, match="allowed") as raised:
            read(text)
        assert said in str(raised.value)

    def test_that_are_none(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.toml"):
            with pytest.raises(ValueError, match=r"cannot be read: .+; allowed: a TOML file"):
                Sweep.read(path)


class TestResults:
    def test_measured_is_what_is_predicted(self, tmp_path):
        sweep = Sweep(
            p=(0.05, 0.2), ratio=(0.25, 0.5), n_sparse=4096, method=("linear", "relu", "knot"), samples=1000
        )
        assert run_sweep(sweep, tmp_path / "s") == {"done": 12, "failed": 0}
        for row, run in zip(rows(sweep, tmp_path / "s"), sweep.runs(), strict=True):
            assert {key: row[key] for key in dataclasses.asdict(run)} == dataclasses.asdict(run)
            assert (row["n_dense"], row["state"], row["error"]) == (run.n_dense, "done", None)
            assert abs(row["measured"] - row["predicted"]) < 4 * row["stderr"]
            assert 0 < row["stderr"] < 0.05 * row["measured"]
            source = pr.SparseUniform(run.p)
            rug = pr.Rug(4096, run.n_dense, run.seed)
            if run.method == "knot":
                assert row["knot"]
                assert row["limit"] < pr.Autoencoder(rug, pr.ReLU()).tune(source).limit(source)
            else:
                model = pr.Autoencoder(rug, {"linear": pr.Linear, "relu": pr.ReLU}[run.method]()).tune(source)
                assert (row["limit"], row["predicted"]) == (model.limit(source), model.law(source))
                assert (row["gain"], row["bias"]) == (model.decoder.gain, model.decoder.bias)
            assert row["seconds"] > 0

    def test_every_method_and_source_has_a_result_or_says_why_not(self, tmp_path):
        methods = (*_decoders(), "knot", "sampled", "closure")
        sweep = Sweep(
            p=0.1, ratio=0.5, n_sparse=32, method=methods, source=_sources(), steps=5, batch=16, samples=16
        )
        counts = run_sweep(sweep, tmp_path / "s")
        found = rows(sweep, tmp_path / "s")
        assert counts["done"] + counts["failed"] == len(found) == len(sweep)
        for row in found:
            if row["state"] == "failed":
                assert "is signed; allowed with" in row["error"]
                assert row["source"] == "gaussian"
            else:
                assert all(math.isfinite(row[key]) for key in ("limit", "predicted", "measured", "stderr"))
        assert {row["method"] for row in found if row["state"] == "failed"} == {
            "relu", "jumprelu", "topk", "gated", "prolu", "knot", "closure"
        }  # fmt: skip
        iterated = [row for row in found if row["method"] == "oamp"]
        assert all(0 <= row["recovered"] <= 1 for row in iterated)

    def test_trained_networks_have_their_statistics(self, tmp_path):
        sweep = Sweep(
            p=0.05, ratio=0.25, n_sparse=64, method=("sampled", "closure"), steps=(5, 300), batch=64, seed=(0, 1)
        )
        assert run_sweep(sweep, tmp_path / "s", weights=tmp_path / "w") == {"done": 8, "failed": 0}
        source = pr.SparseUniform(0.05)
        rug = pr.Autoencoder(pr.Rug(64, 16), pr.ReLU()).tune(source)
        for row in rows(sweep, tmp_path / "s"):
            network = Network.load(tmp_path / "w" / row["weights"])
            found = pr.measure_symmetry(network.W_out, network.W_in, network.bias, source, seed=row["seed"])
            for name, value in dataclasses.asdict(found).items():
                if name not in ("n_sparse", "n_dense", "partners"):
                    assert row[name] == value, name
            assert (row["limit"], row["predicted"]) == (rug.limit(source), rug.law(source))
            assert row["closure"] == pytest.approx(network.autoencoder(source).limit(source))
            again, stderr = network.measure(source, seed=99)
            assert abs(again - row["measured"]) < 5 * math.hypot(stderr, row["stderr"])
            assert (row["steps"] == 5) == (row["measured"] > 1.2 * row["predicted"])

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

    def test_of_what_was_not_run(self, tmp_path):
        run_sweep(Sweep(**SMALL), tmp_path / "s")
        with pytest.raises(ValueError, match="has no sweep 'other'; allowed: one that was run"):
            rows(Sweep(p=0.5, ratio=0.5, name="other"), tmp_path / "s")
        with pytest.raises(ValueError, match="is missing; allowed"):
            rows(Sweep(**SMALL), tmp_path / "none")


def _decoders():
    from persianrug.decoders import DECODERS

    return tuple(DECODERS)


def _sources():
    from persianrug.sources import SOURCES

    return tuple(SOURCES)


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


class TestExport:
    @pytest.fixture
    def filled(self, where):
        """A store of two sweeps with all kinds of numbers, and its rows."""
        store = Store(where)
        results = [
            {"measured": 1 / 3, "closure": None, "kind": 'rug, or "knot"\nor é', "samples": 2**60 + 1},
            {"measured": math.nan, "closure": math.inf, "ok": True},
            {"measured": -math.inf, "closure": 1e-300, "kind": "", "samples": 3},
        ]
        for digest, count in (("a", 3), ("b", 2)):
            sweep = store.add(
                digest * 64, digest, {}, [[{"number": k, "steps": None, "p": 0.1 * k}] for k in range(count)]
            )
            for result in results[:count]:
                batch = store.claim(sweep, "o")
                store.finish(batch, {run: Outcome(result) for run in batch.asked})
        store.add("c" * 64, "c", {}, [[{"number": 0, "steps": 5, "p": 1.0}]])
        found = [{"sweep": one["name"], **row} for one in store.sweeps() for row in store.rows(one["id"])]
        store.close()
        return where, found

    def test_csv(self, filled, tmp_path):
        where, found = filled
        assert export(where, tmp_path / "runs.CSV") == 6
        with (tmp_path / "runs.CSV").open(newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        assert [row["sweep"] for row in read] == ["a", "a", "a", "b", "b", "c"]
        columns = list(dict.fromkeys(key for row in found for key in row))
        for row, wanted in zip(read, found, strict=True):
            assert list(row) == columns
            for key in columns:
                value = wanted.get(key)
                if isinstance(value, float):
                    np.testing.assert_equal(float(row[key]), value)
                else:
                    assert row[key] == ("" if value is None else str(value))

    def test_parquet(self, filled, tmp_path):
        where, found = filled
        assert export(where, tmp_path / "runs.parquet") == 6
        table = pyarrow.parquet.read_table(tmp_path / "runs.parquet")
        columns = list(dict.fromkeys(key for row in found for key in row))
        assert table.column_names == columns
        read = table.to_pylist()
        for row, wanted in zip(read, found, strict=True):
            for key in columns:
                np.testing.assert_equal(row[key], wanted.get(key))
        assert str(table.schema.field("measured").type) == "double"
        assert str(table.schema.field("samples").type) == "int64"

    def test_of_a_real_sweep(self, tmp_path):
        sweep = Sweep(**SMALL, method=("relu", "oamp", "knot", "sampled"), source=("uniform", "gaussian"), steps=3,
                      batch=8, samples=8, name="all")  # fmt: skip
        run_sweep(sweep, tmp_path / "s")
        found = rows(sweep, tmp_path / "s")
        assert export(tmp_path / "s", tmp_path / "t.parquet") == len(sweep)
        for row, wanted in zip(pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist(), found, strict=True):
            assert {key: value for key, value in row.items() if value is not None} == {
                "sweep": "all", **{key: value for key, value in wanted.items() if value is not None}
            }  # fmt: skip

    def test_of_an_empty_store(self, tmp_path):
        Store(tmp_path / "s").close()
        for name in ("t.csv", "t.parquet"):
            assert export(tmp_path / "s", tmp_path / name) == 0
        assert pyarrow.parquet.read_table(tmp_path / "t.parquet").num_rows == 0

    @pytest.mark.parametrize(
        ("out", "said"),
        [
            ("t.xlsx", "--out is .*t.xlsx; allowed: a file that ends in .parquet or .csv"),
            ("t", "allowed: a file that ends in .parquet or .csv"),
            ("none/t.csv", "none is missing; allowed: an existing folder"),
            ("folder.csv", "is not a regular file; allowed"),
        ],
    )
    def test_what_is_refused(self, tmp_path, out, said):
        Store(tmp_path / "s").close()
        (tmp_path / "folder.csv").mkdir()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=said):
            export(tmp_path / "s", tmp_path / out)
        with pytest.raises(ValueError, match="is missing; allowed: a store that a sweep has written"):
            export(tmp_path / "none", tmp_path / "t.csv")
        assert sorted(tmp_path.rglob("*")) == before


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
