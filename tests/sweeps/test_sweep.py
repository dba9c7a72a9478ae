"""Grids of runs: what they are, spans of numbers, files of them, and what is refused."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.sweeps.sweep import Sweep, span
from tests.sweeps.helpers import SMALL, TRAINED


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
            ({"p": (0.1, 0)}, "p is 0; allowed: a number from 1e-30 to 1"),
            ({"p": 1e-6, "method": "knot"}, "p is 1e-06; allowed with method knot: from 1e-05 to 1"),
            ({"p": math.nan}, "p is nan; allowed: a number from 1e-30 to 1"),
            ({"p": "0.1"}, "p is '0.1'; allowed: a number from 1e-30 to 1"),
            ({"p": None}, "p is None; allowed"),
            ({"ratio": (1.01,)}, "ratio is 1.01; allowed: a number in (0, 1]"),
            ({"ratio": -1}, "ratio is -1; allowed"),
            ({"n_sparse": 1}, "n_sparse is 1; allowed: an integer from 2 to 1073741824"),
            ({"n_sparse": 1 << 31}, "n_sparse is 2147483648; allowed"),
            ({"n_sparse": 8.0}, "n_sparse is 8.0; allowed: an integer"),
            ({"method": "guess"}, "method is 'guess'; allowed: linear, relu, "),
            ({"method": (["relu"],)}, "method is ['relu']; allowed"),
            ({"source": "cauchy"}, "source is 'cauchy'; allowed: uniform, exponential"),
            ({"seed": -1}, "seed is -1; allowed: an integer from 0 to 9223372036854775807"),
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
        low=st.integers(0, 2**63 - 1), high=st.integers(0, 2**63 - 1), points=st.integers(1, 60),
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
            ("p = [[0.1]]\nratio = 0.5", "p is [0.1]; allowed: a number from 1e-30 to 1"),
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
