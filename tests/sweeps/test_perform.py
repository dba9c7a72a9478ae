"""What runs find: measured is what is predicted, for every method and source."""

import dataclasses
import math

import pytest

import persianrug as pr
from persianrug.networks.network import Network
from persianrug.sweeps.running import run_sweep
from persianrug.sweeps.sweep import Sweep
from persianrug.sweeps.tables import rows


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

    def test_every_method_and_source_has_a_result_or_says_why_not(self, tmp_path, monkeypatch):
        # The law of cvamp is simulated, and here any number will do.
        monkeypatch.setattr("persianrug.decoders.cvamp._LAW_NUMBERS", 1 << 12)
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


def _decoders():
    from persianrug.decoders import DECODERS

    return tuple(DECODERS)


def _sources():
    from persianrug.sources import SOURCES

    return tuple(SOURCES)
