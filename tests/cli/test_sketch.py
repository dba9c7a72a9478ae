"""fit, plan, compress, decompress, inspect and verify: what they print and write."""

import re
import warnings

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

import persianrug as pr
from tests.cli.helpers import FITTED, NAMES, ROWS, N, files, numbers, of_json, ran
from tests.conftest import refused

with warnings.catch_warnings(action="ignore"):
    import anndata


class TestCommands:
    """Each as a process, in text and in JSON."""

    def test_fit(self, made, here, run):
        assert "profile.json: profile of 512 features from 300 rows, 100 held out" in made.said["fit"]
        report = of_json(run("fit", "x.npy", "--out", "again.json", "--json"))
        assert report.keys() == {"n_sparse", "rows", "held_out_rows", "held_by", "source", "p", "mean", "variance",
                                 "unseen", "data_variance", "broken", "suspect", "succession", "out"}  # fmt: skip
        assert (report["n_sparse"], report["rows"], report["held_out_rows"]) == (N, 300, 100)
        assert (report["source"], report["out"]) == ("truncated-normal", "again.json")
        assert report["p"] == pytest.approx(np.mean(made.x > 0), rel=0.05)
        assert report["mean"] == pytest.approx(made.x.mean(), rel=0.05)
        assert report["variance"] == pytest.approx(made.x.var(axis=0).mean(), rel=0.05)
        assert report["data_variance"] == pytest.approx(made.x.var(axis=0).mean(), rel=0.05)
        # The same data and seed: the same profile.
        assert (here / "again.json").read_bytes() == (here / "profile.json").read_bytes()
        shown = numbers(made.said["fit"], r"p = (\S+) on average, mean = (\S+), variance = (\S+)")
        assert shown == pytest.approx([report["p"], report["mean"], report["variance"]], rel=1e-3)

    def test_plan(self, made, here, run, command):
        options = ("profile.json", "--ratio", 0.25, "--bits", 8, "--decoder", "bayes")
        report = of_json(command("plan", *options, "--json"))
        assert (report["n_sparse"], report["n_dense"], report["ratio"]) == (N, 128, 0.25)
        assert (report["bits"], report["decoder"], report["bytes_per_row"], report["seed"]) == (8, "bayes", 128, 0)
        assert (report["rows"], report["held_out_rows"]) == (300, 100)
        assert report["loss"] == pytest.approx(report["held_out"], rel=0.05)
        assert report["loss"] == pytest.approx(report["law"], rel=0.03, abs=5 * report["stderr"])
        assert 0 < report["loss"] < report["variance"]
        text = ran(run("plan", *options))
        assert "profile.json: 512 features, 300 rows fitted" in text
        assert "code: 128 numbers (ratio 0.25), 8 bits each, 128 bytes a row, read by bayes" in text
        (law,) = numbers(text, r"(\S+) predicted")
        loss, stderr = numbers(text, r"(\S+) ± (\S+) expected")
        held, rows = numbers(text, r"by (\S+) on (\d+) rows held out")
        found = (report["law"], report["loss"], report["held_out"])
        assert (law, loss, held) == pytest.approx(found, rel=1e-4)
        assert (stderr, rows) == (pytest.approx(report["stderr"], rel=0.5), 100)

    @pytest.mark.parametrize(
        ("factors", "words"),
        [((2,), "every row is a vector times 2"), ((1, 3), "every row is a sum of 2 vectors")],
    )
    def test_inspect_tells_sums_and_multiples(self, factors, words, tmp_path, command):
        sketch = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(64, 16), decoder="relu")
        one = sketch.encode(sketch.source.sample(5, 64, seed=0).numpy())
        codes = one * factors[0]
        for factor in factors[1:]:
            codes = codes + one * factor
        with pr.RugWriter(tmp_path / "sums.rug", sketch, mixture=codes.mixture) as writer:
            writer.write(codes)
        assert words in ran(command("inspect", tmp_path / "sums.rug"))

    def test_compress(self, made, here, run):
        assert re.match(r"y\.rug: 400 rows of 512 features in \S+ kB, \S+% of 819 kB", made.said["compress"])
        options = (*FITTED, "--ratio", 0.25, "--bits", 8, "--decoder", "bayes")
        report = of_json(run("compress", "y.npy", *options, "--out", "again.rug", "--json"))
        size = (here / "again.rug").stat().st_size
        assert (report["rows"], report["bytes"], report["dense_bytes"]) == (ROWS, size, 4 * ROWS * N)
        assert (report["n_dense"], report["bits"], report["decoder"]) == (128, 8, "bayes")
        assert report["out"] == "again.rug"
        assert size > ROWS * report["bytes_per_row"]
        assert (here / "again.rug").read_bytes() == (here / "y.rug").read_bytes()
        with pr.RugReader(here / "again.rug") as reader:
            assert reader.plan["loss"] == report["loss"]
            assert np.allclose(np.asarray(reader[:]), np.asarray(reader.sketch.encode(made.y)), atol=1e-5)

    @pytest.mark.parametrize("decoder", ["lmmse", "cvamp"])
    def test_codes_of_an_unknown_covariance(self, decoder, here, command):
        said = refused(command("decompress", "y.rug", "--out", "back.npz", "--decoder", decoder))
        assert (
            f"--decoder is {decoder}; allowed of y.rug, which does not know how features go together: linear"
            in said
        )
        assert not (here / "back.npz").exists()

    def test_inspect(self, here, run, command):
        report = of_json(run("inspect", "y.rug", "--json"))
        assert (report["rows"], report["n_sparse"], report["n_dense"], report["bits"]) == (ROWS, N, 128, 8)
        assert (report["decoder"], report["source"], report["problem"]) == ("bayes", "truncated-normal", None)
        assert (report["chunks"], report["names"], report["seed"]) == (1, None, 0)
        assert report["bytes"] == (here / "y.rug").stat().st_size
        text = ran(command("inspect", "y.rug"))
        for line in (
            "400 rows of 512 features as 128 numbers (8-bit levels)",
            "in 1 chunks",
            "Rug(n_sparse=512, n_dense=128, seed=0)",
            "read by bayes, expected loss",
            "complete",
        ):
            assert line in text
        assert report["digest"][:16] in text

    def test_verify_measures_what_was_expected(self, here, run, command):
        assert of_json(command("verify", "y.rug", "--json")) == {"rows": ROWS, "chunks": 1, "complete": True}
        report = of_json(run("verify", "y.rug", "--data", "y.npy", "--json"))
        # The data is of the same source, and independent of what was fitted.
        with pr.RugReader(here / "y.rug") as reader:
            plan = reader.plan
        assert (report["law"], report["expected"]) == (plan["law"], plan["loss"])
        spread = np.hypot(report["stderr"], plan["stderr"])
        assert report["measured"] == pytest.approx(report["expected"], abs=4 * spread)
        assert report["measured"] == pytest.approx(report["law"], abs=4 * report["stderr"] + 0.05 * report["law"])
        assert 0 < report["stderr"] < 0.1 * report["measured"]
        text = ran(command("verify", "y.rug", "--data", "y.npy"))
        assert "y.rug: 400 rows in 1 chunks, all checksums fit" in text
        shown = numbers(text, r"(\S+) by the law, (\S+) expected, (\S+) ± \S+ measured")
        assert shown == pytest.approx([report["law"], report["expected"], report["measured"]], rel=1e-4)

    def test_decompress(self, made, here, run, command):
        report = of_json(run("decompress", "y.rug", "--out", "back.npy", "--json"))
        assert (report["rows"], report["n_sparse"], report["decoder"], report["problem"]) == (
            ROWS,
            N,
            "bayes",
            None,
        )
        assert (report["bytes"], report["out"]) == ((here / "back.npy").stat().st_size, "back.npy")
        dense = np.load(here / "back.npy")
        with pr.RugReader(here / "y.rug") as reader:
            assert np.array_equal(dense, reader.sketch.decode(reader[:]))
        measured = np.square(dense.astype("f8") - made.y).mean()
        assert measured == pytest.approx(report["expected_loss"], rel=0.1)
        text = ran(command("decompress", "y.rug", "--out", "back.npz"))
        assert "back.npz: 400 rows of 512 features by bayes, expected loss" in text
        sparse = scipy.sparse.load_npz(here / "back.npz")
        assert sparse.dtype == dense.dtype == np.float32
        assert sparse.nnz < dense.size
        # What is dropped is far below the error.
        assert np.abs(sparse.toarray() - dense).max() <= 0.01 * report["expected_loss"] ** 0.5
        assert np.square(sparse.toarray().astype("f8") - made.y).mean() == pytest.approx(measured, rel=1e-3)

    def test_help(self, command):
        for name in ("fit", "plan", "compress", "decompress", "inspect", "verify"):
            text = ran(command(name, "--help"))
            assert "--json" in text
            assert f"persianrug {name}" in text
            assert name in ran(command("--help"))


class TestChoices:
    def test_without_a_profile_the_data_is_fitted(self, made, here, command):
        report = of_json(command("compress", "x.npy", "--ratio", 0.25, "--out", "own.rug", "--json"))
        of_json(command("compress", "x.npy", *FITTED, "--ratio", 0.25, "--out", "same.rug", "--json"))
        assert (here / "own.rug").read_bytes() == (here / "same.rug").read_bytes()
        assert report["rows"] == ROWS
        found = of_json(command("verify", "own.rug", "--data", "x.npy", "--json"))
        assert found["measured"] == pytest.approx(found["expected"], rel=0.2, abs=4 * report["stderr"])

    @pytest.mark.parametrize(
        ("bits", "decoder"), [(None, "auto"), pytest.param(8, "auto", marks=pytest.mark.slow), ("auto", "bayes")]
    )
    def test_a_target_is_met_by_the_smallest_code(self, bits, decoder, here, command):
        target = 0.006
        options = ("--decoder", decoder, *(() if bits is None else ("--bits", bits)))
        whole = (*FITTED, "--target-loss", target, *options, "--out", "t.rug")
        report = of_json(command("compress", "y.npy", *whole, "--json"))
        assert report["loss"] <= target
        found = of_json(command("verify", "t.rug", "--data", "y.npy", "--json"))
        assert found["expected"] == report["loss"]
        spread = np.hypot(found["stderr"], report["stderr"])
        assert found["measured"] == pytest.approx(report["loss"], abs=4 * spread)
        assert of_json(command("inspect", "t.rug", "--json"))["bits"] == report["bits"]
        assert report["bits"] == bits or (bits == "auto" and 1 <= report["bits"] <= 16)
        planned = of_json(command("plan", "profile.json", "--target-loss", target, *options, "--json"))
        assert all(report[name] == planned[name] for name in ("n_dense", "bits", "decoder", "loss"))
        # One number fewer would not do.
        fewer = ("--ratio", (report["n_dense"] - 1) / N, "--decoder", decoder)
        fewer += () if report["bits"] is None else ("--bits", report["bits"])
        assert of_json(command("plan", "profile.json", *fewer, "--json"))["loss"] > target

    def test_auto_bits_are_the_smallest(self, here, command):
        sizes = {}
        for bits in ("6", "8", "auto"):
            options = ("--target-loss", 0.006, "--bits", bits, "--decoder", "bayes", "--json")
            sizes[bits] = of_json(command("plan", "profile.json", *options))["bytes_per_row"]
        assert sizes["auto"] <= min(sizes.values())

    @pytest.mark.parametrize("decoder", ["relu", "bayes", "oamp", "linear"])
    def test_decoders(self, decoder, made, here, command):
        options = (*FITTED, "--ratio", 0.3, "--decoder", decoder)
        report = of_json(command("compress", "y.npy", *options, "--out", "t.rug", "--json"))
        assert report["decoder"] == decoder
        found = of_json(command("verify", "t.rug", "--data", "y.npy", "--json"))
        spread = 4 * np.hypot(found["stderr"], report["stderr"])
        assert found["measured"] == pytest.approx(report["loss"], abs=spread)
        back = of_json(command("decompress", "t.rug", "--out", "t.npy", "--json"))
        assert (back["decoder"], back["expected_loss"]) == (decoder, report["loss"])
        assert np.square(np.load(here / "t.npy").astype("f8") - made.y).mean() == pytest.approx(found["measured"])

    def test_codes_are_read_by_another_decoder(self, made, here, command):
        report = of_json(command("decompress", "y.rug", "--out", "t.npy", "--decoder", "linear", "--json"))
        assert report["decoder"] == "linear"
        measured = np.square(np.load(here / "t.npy").astype("f8") - made.y).mean()
        assert measured == pytest.approx(report["expected_loss"], rel=0.1)
        own = of_json(command("decompress", "y.rug", "--out", "t.npy", "--json"))
        assert own["expected_loss"] < report["expected_loss"]

    def test_seeds_are_of_the_rug(self, here, command):
        reports = []
        for seed in (0, 7):
            options = (*FITTED, "--ratio", 0.25, "--seed", seed)
            of_json(command("compress", "y.npy", *options, "--out", f"{seed}.rug", "--json"))
            reports.append(of_json(command("inspect", f"{seed}.rug", "--json")))
        assert [report["seed"] for report in reports] == [0, 7]
        assert reports[0]["digest"] != reports[1]["digest"]

    def test_signed_data(self, made, here, command):
        ran(command("fit", "signed.npy", "--out", "signed.json"))
        options = ("--profile", "signed.json", "--ratio", 0.5)
        ran(command("compress", "signed.npy", *options, "--out", "signed.rug"))
        found = of_json(command("verify", "signed.rug", "--data", "signed.npy", "--json"))
        assert found["measured"] == pytest.approx(found["expected"], rel=0.2)
        assert "decoder" in refused(command("plan", "signed.json", "--ratio", 0.5, "--decoder", "relu"))
        options = ("compress", "signed.npy", "--ratio", 0.5, "--decoder", "relu", "--out", "no.rug")
        assert "allowed" in refused(command(*options))
        assert not (here / "no.rug").exists()


class TestInputs:
    @pytest.fixture
    def write(self, made, here):
        y = made.y

        def table():
            pyarrow.parquet.write_table(pyarrow.table(dict(zip(NAMES, y.T, strict=True))), here / "d.parquet")

        return {
            "d.npy": lambda: np.save(here / "d.npy", np.asfortranarray(y)),
            "csr.npz": lambda: scipy.sparse.save_npz(here / "csr.npz", scipy.sparse.csr_array(y)),
            "csc.npz": lambda: scipy.sparse.save_npz(here / "csc.npz", scipy.sparse.csc_matrix(y)),
            "d.npz": lambda: np.savez(here / "d.npz", y),
            "d.h5ad": lambda: anndata.AnnData(scipy.sparse.csr_matrix(y)).write_h5ad(here / "d.h5ad"),
            "d.parquet": table,
            "d.safetensors": lambda: save_file({"acts": torch.from_numpy(y)}, here / "d.safetensors"),
        }

    @pytest.mark.parametrize(
        "name", ["d.npy", "csr.npz", "csc.npz", "d.npz", "d.h5ad", "d.parquet", "d.safetensors"]
    )
    def test_every_kind_makes_the_same_codes(self, name, write, here, command):
        with warnings.catch_warnings(action="ignore"):
            write[name]()
        options = (*FITTED, "--ratio", 0.25, "--bits", 8, "--decoder", "bayes", "--out", "t.rug")
        ran(command("compress", name, *options))
        assert of_json(command("verify", "t.rug", "--data", name, "--json"))["measured"] == pytest.approx(
            of_json(command("verify", "y.rug", "--data", "y.npy", "--json"))["measured"], rel=1e-4
        )
        with pr.RugReader(here / "t.rug") as one, pr.RugReader("y.rug") as other:
            levels = np.asarray(one[:]) - np.asarray(other[:])
            # But for what lies between two levels, by rounding errors.
            assert np.mean(levels != 0) < 1e-3
        report = of_json(command("fit", name, "--out", "t.json", "--json"))
        assert (report["n_sparse"], report["rows"], report["held_out_rows"]) == (N, 300, 100)

    def test_names_are_kept_and_compared(self, write, made, here, command):
        write["d.parquet"]()
        ran(command("fit", "d.parquet", "--out", "named.json"))
        options = ("--profile", "named.json", "--ratio", 0.25, "--decoder", "bayes", "--out", "t.rug")
        ran(command("compress", "d.parquet", *options))
        assert of_json(command("inspect", "t.rug", "--json"))["names"] == N
        # Without names there is nothing to compare.
        ran(command("compress", "y.npy", *options))
        before = files(here)
        for names, word in [(["other", *NAMES[1:]], "the first is 'other'"),
                            ([NAMES[1], NAMES[0], *NAMES[2:]], "in another order")]:  # fmt: skip
            pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, made.y.T, strict=True))), here / "e.parquet")
            message = refused(command("compress", "e.parquet", *options))
            assert word in message
            assert "allowed: " in message
            (here / "e.parquet").unlink()
        assert files(here) == before
