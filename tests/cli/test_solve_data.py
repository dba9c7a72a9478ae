"""Rows of data: one half is fitted, the other measures what the laws say."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr
from tests.cli.helpers import of_json, ran

CELLS = Path(__file__).parents[2] / "examples" / "data" / "pbmc68k_reduced.npz"


@pytest.mark.parametrize("kinds", ["linear,relu,topk,bayes", pytest.param("oamp", marks=pytest.mark.slow)])
def test_solve_on_the_cells(kinds, run):
    result = run("solve", "--data", CELLS, "--ratio", 0.5, "--measure", "--json", "--decoders", kinds)
    report = json.loads(result.stdout)
    assert report["source"]["name"] == "empirical"
    assert report["source"]["p"] == pytest.approx(0.326, abs=0.01)
    assert (report["n_sparse"], report["n_dense"]) == (765, 382)
    assert report["per_feature_source"] == "truncated-normal"
    # Cells are independent, and drawn.
    held = report["hold_out"]
    assert (held["kind"], held["fitted_rows"], held["rows"]) == ("random", 350, 350)
    assert held["succession"] == pytest.approx(1, abs=0.1)
    # Features are neither alike nor independent, and the laws miss; here by little.
    for name, row in report["decoders"].items():
        own = row["per_feature"]
        if name == "oamp":
            assert own["recovers"]
            assert own["measured"] < 0.03
            continue
        assert row["measured"] == pytest.approx(row["predicted"], rel=0.05)
        assert (own is None) == (name == "topk")
        if own:
            assert own["measured"] == pytest.approx(own["predicted"], rel=0.05)
            assert own["measured"] < 0.65 * row["measured"]


def test_solve_on_dense_rows(run, tmp_path):
    rows = pr.SparseUniform(0.2).sample(300, 64, seed=0).numpy()
    np.save(tmp_path / "rows.npy", rows)
    options = ("--ratio", 0.5, "--measure", "--json", "--decoders", "linear,relu,bayes")
    dense = json.loads(run("solve", "--data", "rows.npy", *options).stdout)
    scipy.sparse.save_npz(tmp_path / "rows.npz", scipy.sparse.csr_array(rows))
    sparse = json.loads(run("solve", "--data", "rows.npz", *options).stdout)
    for row, other in zip(dense["decoders"].values(), sparse["decoders"].values(), strict=True):
        assert row["measured"] == pytest.approx(other["measured"])
        assert row["measured"] == pytest.approx(row["predicted"], abs=4 * row["stderr"] + 0.02 * row["predicted"])


def test_data_with_an_offset_keeps_its_digits(run, tmp_path):
    np.save(tmp_path / "rows.npy", 1e7 + np.random.default_rng(0).random((200, 8)))
    rows = json.loads(
        run("solve", "--data", "rows.npy", "--ratio", 0.5, "--measure", "--json", "--decoders", "linear").stdout
    )["decoders"]
    assert rows["linear"]["measured"] == pytest.approx(rows["linear"]["predicted"], rel=0.1)


@pytest.fixture
def smooth(tmp_path):
    """Two factors, and a little of each feature alone."""
    rng = np.random.default_rng(0)
    rows = np.maximum(1 + rng.standard_normal((400, 2)) @ rng.standard_normal((2, 64)), 0)
    rows += 0.1 * rng.random(rows.shape)
    np.save(tmp_path / "rows.npy", rows)
    return rows


@pytest.mark.parametrize("channel", [(), ("--bits", 6), ("--noise", 0.05), ("--erasures", 0.2)])
def test_features_that_go_together(channel, smooth, run):
    options = ("--data", "rows.npy", "--ratio", 0.25, "--measure", "--json", "--decoders", "linear,lmmse,cvamp")
    rows = of_json(run("solve", *options, *channel))["decoders"]
    for name in ("lmmse", "cvamp"):
        row = rows[name]
        assert row["measured"] == pytest.approx(row["predicted"], rel=0.15, abs=4 * row["stderr"])
        assert row["measured"] < 0.2 * rows["linear"]["per_feature"]["measured"]
        assert row["factors"] in (8, 16)
        assert row["per_feature"] is None


def test_lmmse_is_in_the_table_and_cvamp_by_name(smooth, run):
    said = run("solve", "--data", "rows.npy", "--ratio", 0.5).stdout
    last = said.split("Features as they go together, predicted by rows held out of the half that was fitted:")[1]
    assert "lmmse" in last
    assert "cvamp" not in said
    assert "go together" not in run("solve", "--data", "rows.npy", "--ratio", 0.5, "--decoders", "relu").stdout


def test_few_rows_go_together_as_they_do(run, tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((4, 8)))
    report = of_json(run("solve", "--data", "rows.npy", "--ratio", 0.5, "--json", "--decoders", "lmmse"))
    assert report["decoders"]["lmmse"]["predicted"] > 0


def test_files_of_every_kind(smooth, run, tmp_path):
    np.savez_compressed(tmp_path / "rows.npz", x=smooth)
    found = [
        run("solve", "--data", f"rows.{kind}", "--ratio", 0.5, "--decoders", "linear,lmmse", "--json").stdout
        for kind in ("npy", "npz")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("size", [1e-29, 1e-10, 1e17, 1e29])
def test_rows_of_every_size(size, run, tmp_path):
    """Covariances are kept in single precision, which holds squares up to 1e38."""
    x = np.random.default_rng(0).random((60, 20))
    np.save(tmp_path / "rows.npy", size * np.where(x > 0.3, x, 0))
    options = ("--data", "rows.npy", "--ratio", 0.5, "--json")
    rows = of_json(run("solve", *options))["decoders"]
    assert ("lmmse" in rows) == (size < 1e18)
    if size < 1e18:
        assert rows["lmmse"]["predicted"] < size**2
    else:
        said = run("solve", *options, "--decoders", "lmmse").stderr
        assert "rows has a mean square of" in said
        assert "allowed with a covariance: up to 1e+37" in said
    of_json(run("fit", "rows.npy", "--out", "p.json", "--json"))
    assert of_json(run("plan", "p.json", "--ratio", 0.5, "--json"))["loss"] < size**2


class TestARecording:
    """Rows that follow each other: halves drawn at random would be near copies."""

    FILE = CELLS.parent / "mattress_0.npz"
    OPTIONS = ("--ratio", 0.25, "--measure", "--decoders", "lmmse")

    def test_blocks_are_held_out(self, run):
        report = of_json(run("solve", "--data", self.FILE, *self.OPTIONS, "--json"))
        held, row = report["hold_out"], report["decoders"]["lmmse"]
        assert (held["kind"], held["fitted_rows"], held["rows"]) == ("blocks", 140, 140)
        assert held["succession"] < 0.1
        # Of rows drawn at random both are below 0.7.
        assert row["measured"] > 10
        assert row["predicted"] == pytest.approx(row["measured"], rel=0.3)

    def test_and_said(self, run):
        said = ran(run("solve", "--data", self.FILE, *self.OPTIONS))
        assert "split in blocks: 140 rows fitted, 140 held out in 4 blocks\n" in said
        assert "the next is 0.067 times as far as a row drawn at random, in squared distance\n" in said

    def test_shuffled_rows_are_drawn(self, run, tmp_path):
        with np.load(self.FILE) as file:
            (rows,) = file.values()
        np.save(tmp_path / "rows.npy", rows[np.random.default_rng(0).permutation(len(rows))])
        said = ran(run("solve", "--data", "rows.npy", "--ratio", 0.25, "--decoders", "linear"))
        assert "split at random: 140 rows fitted, 140 held out\n" in said
        assert "follow each other" not in said
