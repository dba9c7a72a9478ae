"""The commands fit, plan, compress, decompress, inspect and verify: what they do, in pipes too, and refuse."""

import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
import warnings
from hashlib import blake2b
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

import persianrug as pr
from tests.conftest import COMMAND, forged_header, invoke, refused, saved, without_privileges

with warnings.catch_warnings(action="ignore"):
    import anndata

N, ROWS = 512, 400
SOURCE = pr.SparseTruncatedNormal(pr.zipf_rates(N, 0.05), 0.5, 1.0)
NAMES = [f"gene {place}" for place in range(N)]
FITTED = ("--profile", "profile.json")
FITTED = ("--profile", "profile.json")
MAGIC = b"\x89RUG\r\n\x1a\n"


def ran(result):
    """It went well and said nothing on stderr."""
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data, other data of the same source, a profile of the first and codes of the second."""
    folder = tmp_path_factory.mktemp("sketches")
    x, y = (SOURCE.sample(ROWS, N, seed=seed, dtype=torch.float32).numpy() for seed in (0, 1))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    np.save(folder / "signed.npy", y - 0.5)
    np.save(folder / "zeros.npy", np.zeros((8, N)))
    np.save(folder / "nan.npy", np.where(np.arange(N) == 3, np.nan, y))
    np.save(folder / "narrow.npy", y[:, :64])

    def run(*arguments):
        return ran(invoke(folder, *arguments))

    said = {
        "fit": run("fit", "x.npy", "--out", "profile.json"),
        "compress": run("compress", "y.npy", *FITTED, "--ratio", 0.25, "--bits", 8,
                        "--decoder", "bayes", "--out", "y.rug"),
    }  # fmt: skip
    return SimpleNamespace(folder=folder, x=x, y=y, said=said)


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A folder of a test's own, with links to all that was made, which no test may overwrite."""
    for path in made.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(here, run):
    """The command line, in that folder."""
    return run


def of_json(result):
    return json.loads(ran(result))


def numbers(text, pattern):
    found = re.search(pattern, text)
    assert found, text
    return [float(part) for part in found.groups()]


def files(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


class TestCommands:
    """Each as a process, in text and in JSON."""

    def test_fit(self, made, here, run):
        assert "profile.json: profile of 512 features from 300 rows, 100 held out" in made.said["fit"]
        report = of_json(run("fit", "x.npy", "--out", "again.json", "--json"))
        assert report.keys() == {"n_sparse", "rows", "held_out_rows", "source", "p", "mean", "variance", "unseen",
                                 "out"}  # fmt: skip
        assert (report["n_sparse"], report["rows"], report["held_out_rows"]) == (N, 300, 100)
        assert (report["source"], report["out"]) == ("truncated-normal", "again.json")
        assert report["p"] == pytest.approx(np.mean(made.x > 0), rel=0.05)
        assert report["mean"] == pytest.approx(made.x.mean(), rel=0.05)
        assert report["variance"] == pytest.approx(made.x.var(axis=0).mean(), rel=0.05)
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

    @pytest.mark.parametrize(("bits", "decoder"), [(None, "auto"), (8, "auto"), ("auto", "bayes")])
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


def shell(line, command_environment, folder, **options):
    line = line.replace("persianrug", shlex.join(COMMAND), line.count("persianrug "))
    return subprocess.run(["bash", "-c", line], cwd=folder, env=command_environment, capture_output=True,
                          text=True, timeout=100, check=False, **options)  # fmt: skip


class TestPipes:
    def test_codes_go_through_pipes(self, made, here, command_environment, command):
        options = "--profile profile.json --ratio .25 --bits 8 --decoder bayes --out -"
        result = shell(
            f"set -o pipefail; cat y.npy | persianrug compress - {options} | tee z.rug "
            "| persianrug decompress - --out back.npz",
            command_environment, here,
        )  # fmt: skip
        assert "back.npz: 400 rows of 512 features by bayes" in ran(result)
        assert (here / "z.rug").read_bytes() == (here / "y.rug").read_bytes()
        ran(command("decompress", "y.rug", "--out", "file.npz"))
        assert (here / "back.npz").read_bytes() == (here / "file.npz").read_bytes()

    def test_a_writer_that_dies_in_the_middle(self, made, here, command_environment):
        content = (here / "y.rug").read_bytes()
        (here / "y.half").write_bytes(content[: len(content) // 2])
        (here / "x.half").write_bytes((here / "x.npy").read_bytes()[: 4 * N * 200])
        options = "--profile profile.json --ratio .25 --decoder bayes"
        before = files(here)
        for line, word in [
            ("cat y.half | persianrug decompress - --out back.npz", "rug file -"),
            (f"cat x.half | persianrug compress - {options} --out t.rug", "it ends before its last row"),
        ]:
            assert word in refused(shell(line, command_environment, here))
            assert files(here) == before

    def test_what_follows_notices_that_compress_failed(self, here, command_environment):
        (here / "x.half").write_bytes((here / "x.npy").read_bytes()[: 4 * N * 200])
        before = files(here)
        result = shell(
            "cat x.half | persianrug compress - --profile profile.json --ratio .25 --decoder bayes --out - "
            "| persianrug decompress - --out back.npz; echo ${PIPESTATUS[1]} ${PIPESTATUS[2]}",
            command_environment, here,
        )  # fmt: skip
        assert result.stdout == "2 2\n"
        assert sorted(line.split(" ")[0] for line in result.stderr.splitlines()) == ["persianrug:"] * 2
        assert files(here) == before

    def test_a_reader_that_dies(self, made, here, command_environment):
        # More than a pipe holds.
        options = "--profile profile.json --ratio .9 --decoder bayes --out -"
        line = f"persianrug compress y.npy {options} | head -c 100 > /dev/null; echo ${{PIPESTATUS[0]}}"
        result = shell(line, command_environment, here)
        assert result.stdout == "1\n"
        assert result.stderr == ""

    def test_no_room_for_codes(self, here, command_environment):
        options = "--profile profile.json --ratio .25 --decoder bayes --out -"
        message = refused(shell(f"persianrug compress y.npy {options} > /dev/full", command_environment, here))
        assert "No space left" in message

    def test_streams_that_are_closed(self, here, command_environment):
        options = "--profile profile.json --ratio .25 --decoder bayes"
        for line in (
            "persianrug decompress - --out back.npy <&-",
            f"persianrug compress - {options} --out t.rug <&-",
            f"persianrug compress y.npy {options} --out - >&-",
        ):
            result = shell(line, command_environment, here)
            assert result.returncode == 2, result
            assert result.stderr.count("\n") == 1, result.stderr
            assert result.stderr.startswith("persianrug: ")

    def test_a_terminal_gets_no_codes(self, here, command_environment):
        leader, follower = os.openpty()
        arguments = [*COMMAND, "compress", "y.npy", *FITTED, "--ratio", "0.25", "--out", "-"]
        result = subprocess.run(arguments, cwd=here, env=command_environment, stdout=follower,
                                stderr=subprocess.PIPE, timeout=100, check=False)  # fmt: skip
        os.close(follower)
        os.close(leader)
        assert result.returncode == 2
        assert b"standard output is a terminal; allowed: a pipe or a file" in result.stderr

    @pytest.mark.parametrize(
        ("stdin", "word"),
        [
            (b"", "allowed: a .npy array"),
            (b"hello", "allowed: a .npy array"),
            (saved(np.asfortranarray(np.ones((3, N)))), "stored by columns; allowed: by rows"),
            (saved(np.ones((3, N)))[:-1], "ends before its last row"),
            (saved(np.ones((3, N - 1))), "has 511 features; allowed: 512"),
            (saved(np.full((3, N), np.nan)), "NaN or infinity"),
            (saved(-np.ones((3, N))), "rows holds -1; allowed: numbers >= 0"),
            (forged_header((10**12, N)), "ends before its last row"),
        ],
    )
    def test_bad_standard_input(self, stdin, word, here, command):
        before = files(here)
        options = (*FITTED, "--ratio", 0.25, "--decoder", "bayes", "--out", "t.rug")
        assert word in refused(command("compress", "-", *options, stdin=stdin))
        assert files(here) == before


def with_header(content, change):
    """A .rug file of another header, with a seal that fits; records are lost."""
    (length,) = struct.unpack("<Q", content[8:16])
    header = json.loads(content[16 : 16 + length])
    change(header)
    text = json.dumps(header).encode()
    start = MAGIC + struct.pack("<Q", len(text)) + text
    return start + blake2b(start, digest_size=16).digest()


class TestDamage:
    @pytest.fixture
    def chunked(self, made, here):
        """A file of ten chunks of 40 rows, and the sketch's estimates."""
        with pr.RugReader(here / "y.rug") as reader:
            sketch, codes = reader.sketch, reader[:]
        with pr.RugWriter(here / "c.rug", sketch, chunk_rows=40) as writer:
            writer.write(codes)
        content = (here / "c.rug").read_bytes()
        # From the end: DONE, and ten chunks of 128 bytes a row.
        end = len(content) - 32
        return SimpleNamespace(content=content, start=end - 10 * (32 + 40 * 128), chunk=32 + 40 * 128,
                               estimates=sketch.decode(codes))  # fmt: skip

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    @pytest.mark.parametrize(("chunks", "extra"), [(4, 0), (4, 10), (4, 5151), (10, 0), (10, 31), (0, 3)])
    def test_partial_takes_whole_chunks_and_says_so(self, chunks, extra, suffix, chunked, here, command):
        (here / "t.rug").write_bytes(chunked.content[: chunked.start + chunks * chunked.chunk + extra])
        before = files(here)
        for arguments in (("verify", "t.rug"), ("decompress", "t.rug", "--out", f"t{suffix}")):
            assert f"cut off after {40 * chunks} rows" in refused(command(*arguments))
        assert files(here) == before
        report = of_json(command("decompress", "t.rug", "--out", f"t{suffix}", "--partial", "--json"))
        assert (report["rows"], report["problem"]) == (40 * chunks, f"it is cut off after {40 * chunks} rows")
        found = np.load(here / "t.npy") if suffix == ".npy" else scipy.sparse.load_npz(here / "t.npz").toarray()
        assert found.shape == (40 * chunks, N)
        slack = 0 if suffix == ".npy" else 0.01 * report["expected_loss"] ** 0.5
        assert np.abs(found - chunked.estimates[: 40 * chunks]).max(initial=0) <= slack + 1e-6
        text = ran(command("decompress", "t.rug", "--out", f"t{suffix}", "--partial"))
        assert f"t.rug is damaged: it is cut off after {40 * chunks} rows; these are the rows before that" in text
        assert f"damaged: it is cut off after {40 * chunks} rows" in ran(command("inspect", "t.rug"))

    def test_partial_of_a_whole_file(self, chunked, here, command):
        report = of_json(command("decompress", "c.rug", "--out", "t.npy", "--partial", "--json"))
        assert (report["rows"], report["problem"]) == (ROWS, None)

    def test_partial_takes_the_rows_before_a_damaged_chunk(self, chunked, here, command):
        damaged = bytearray(chunked.content)
        damaged[chunked.start + 3 * chunked.chunk + 100] ^= 1
        (here / "t.rug").write_bytes(damaged)
        assert "rows 120 to 160" in refused(command("verify", "t.rug"))
        assert "rows 120 to 160" in refused(command("decompress", "t.rug", "--out", "t.npy"))
        assert not (here / "t.npy").exists()
        report = of_json(command("decompress", "t.rug", "--out", "t.npy", "--partial", "--json"))
        assert report["rows"] == 120
        assert report["problem"]
        assert np.array_equal(np.load(here / "t.npy"), chunked.estimates[:120])

    def test_a_chunk_whose_head_is_damaged(self, chunked, here, command):
        damaged = bytearray(chunked.content)
        damaged[chunked.start + 3 * chunked.chunk] ^= 1
        (here / "t.rug").write_bytes(damaged)
        assert "after 120 rows there is no chunk" in refused(command("verify", "t.rug"))
        report = of_json(command("decompress", "t.rug", "--out", "t.npy", "--partial", "--json"))
        assert (report["rows"], report["problem"]) == (120, "after 120 rows there is no chunk")

    def test_verify_sees_damage_anywhere(self, chunked, here, command):
        for place in [0, 9, 20, chunked.start - 5, *range(chunked.start, len(chunked.content), 997), -1, -20, -31]:
            damaged = bytearray(chunked.content)
            damaged[place] ^= 4
            (here / "t.rug").write_bytes(damaged)
            assert "allowed: " in refused(command("verify", "t.rug", "--json"))
        (here / "t.rug").write_bytes(chunked.content + b"x")
        assert "1 bytes follow its end" in refused(command("verify", "t.rug"))

    def test_codes_of_other_data(self, made, here, command):
        assert "(400, 64); allowed: that of what was compressed, (400, 512)" in refused(
            command("verify", "y.rug", "--data", "narrow.npy")
        )
        np.save(here / "few.npy", made.y[:-1])
        assert "(399, 512); allowed" in refused(command("verify", "y.rug", "--data", "few.npy"))
        # All the same shape, it is seen by what is lost.
        found = of_json(command("verify", "y.rug", "--data", "x.npy", "--json"))
        assert found["measured"] > 2 * found["expected"]

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            (lambda header: header.update(version=2), "version 2; allowed: format persianrug codes, version 1"),
            (lambda header: header.update(format="other"), "has format other"),
            (lambda header: header.update(n_sparse=10**12), "allowed"),
            (lambda header: header["recipe"]["encoder"].update(n_sparse=10**12), "allowed"),
            (lambda header: header["recipe"]["encoder"].update(n_sparse=10**9, n_dense=10**9), "allowed"),
            (lambda header: header.update(chunk_rows=10**9), "chunk_rows is 1000000000; allowed"),
            (lambda header: header.update(bits=40), "bits is 40; allowed"),
            (lambda header: header["recipe"].update(decoder="guess"), "decoder is 'guess'; allowed"),
        ],
    )
    def test_other_headers(self, change, word, here, command):
        (here / "t.rug").write_bytes(with_header((here / "y.rug").read_bytes(), change))
        before = files(here)
        for arguments in (("inspect", "t.rug"), ("verify", "t.rug"),
                          ("decompress", "t.rug", "--out", "t.npz", "--partial")):  # fmt: skip
            assert word in refused(command(*arguments))
        assert files(here) == before

    @pytest.mark.parametrize("content", [MAGIC + struct.pack("<Q", 2**63), MAGIC, b"", b"hello", saved(np.eye(8))])
    def test_other_files(self, content, here, command):
        (here / "t.rug").write_bytes(content)
        before = files(here)
        for arguments in (("inspect", "t.rug"), ("verify", "t.rug"),
                          ("decompress", "t.rug", "--out", "t.npz", "--partial")):  # fmt: skip
            assert "allowed: a file that compress wrote" in refused(command(*arguments))
        assert "allowed: " in refused(command("decompress", "-", "--out", "t.npz", stdin=content))
        assert files(here) == before

    def test_damaged_profiles(self, here, command):
        content = (here / "profile.json").read_bytes()
        profile = json.loads(content)
        forged = [
            (content[: len(content) // 2], "cannot be read"),
            (content.replace(b'"rows": 300', b'"rows": 301'), "digest does not fit"),
            (json.dumps({**profile, "version": 9}).encode(), "version 9; allowed"),
            (json.dumps({**profile, "format": "cake"}).encode(), "has format cake"),
            (b"[]", "allowed: a file that fit wrote"),
            (b"null", "allowed: a file that fit wrote"),
            (b"", "allowed: a file that fit wrote"),
            (b"[" * 100_000, "allowed: a file that fit wrote"),
            (b"\xff\xfe\x00", "allowed: a file that fit wrote"),
        ]
        for content, word in forged:
            (here / "t.json").write_bytes(content)
            before = files(here)
            assert word in refused(command("plan", "t.json", "--ratio", 0.5))
            options = ("--profile", "t.json", "--ratio", 0.5, "--out", "t.rug")
            assert word in refused(command("compress", "y.npy", *options))
            assert files(here) == before


PROFILE = "--profile profile.json --decoder bayes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("plan profile.json", "--ratio and --target-loss are both missing; allowed: one of them"),
        ("plan profile.json --ratio 0.5 --target-loss 1", "--ratio and --target-loss are both given; allowed"),
        ("compress y.npy --out t.rug", "are both missing; allowed"),
        ("compress y.npy --out t.rug --ratio 0.5 --target-loss 1", "are both given; allowed"),
        ("plan profile.json --ratio 0", "ratio is 0.0; allowed: a number in (0, 1]"),
        ("plan profile.json --ratio 1.1", "ratio is 1.1; allowed"),
        ("plan profile.json --ratio -1", "ratio is -1.0; allowed"),
        ("plan profile.json --ratio nan", "ratio is nan; allowed"),
        ("plan profile.json --ratio x", "--ratio"),
        ("plan profile.json --ratio 0.0001", "ratio is 0.0001"),
        ("compress y.npy --out t.rug --ratio 2", "ratio is 2.0; allowed"),
        ("plan profile.json --target-loss 0", "target_loss is 0.0; allowed: a finite number > 0"),
        ("plan profile.json --target-loss -1", "target_loss is -1.0; allowed"),
        ("plan profile.json --target-loss nan", "target_loss is nan; allowed"),
        ("plan profile.json --target-loss inf", "target_loss is inf; allowed"),
        ("plan profile.json --target-loss 1e-9 --bits 2 --decoder bayes", "allowed with these bits: at least"),
        (f"compress y.npy --out t.rug {PROFILE} --target-loss 1e-9 --bits 2", "allowed with these bits: at least"),
        ("plan profile.json --ratio 0.5 --bits 0", "bits is 0; allowed: an integer from 1 to 16"),
        ("plan profile.json --ratio 0.5 --bits 17", "bits is 17; allowed"),
        ("plan profile.json --ratio 0.5 --bits x", "bits is 'x'; allowed: an integer from 1 to 16, or auto"),
        ("plan profile.json --ratio 0.5 --bits -3", "bits is '-3'; allowed"),
        ("plan profile.json --ratio 0.5 --bits 2.5", "bits is '2.5'; allowed"),
        ("plan profile.json --ratio 0.5 --bits auto", "bits is 'auto'; allowed with ratio"),
        ("compress y.npy --out t.rug --ratio 0.5 --bits 17", "bits is 17; allowed"),
        ("plan profile.json --ratio 0.5 --decoder guess", "decoder is 'guess'; allowed: auto, linear"),
        ("plan profile.json --ratio 0.5 --decoder topk", "decoder is 'topk'; allowed"),
        (f"compress y.npy --out t.rug {PROFILE} --ratio 0.5 --decoder guess", "decoder is 'guess'; allowed"),
        ("decompress y.rug --out t.npz --decoder guess", "decoder is 'guess'; allowed"),
        ("decompress y.rug --out t.npz --decoder topk", "decoder is 'topk'; allowed"),
        ("plan profile.json --ratio 0.5 --seed -1", "seed is -1; allowed"),
        ("plan profile.json --ratio 0.5 --seed 99999999999999999999", "seed is 99999999999999999999; allowed"),
        ("fit x.npy --out t.json --seed -1", "seed is -1; allowed"),
        ("compress y.npy --out t.rug --ratio 0.5 --seed 99999999999999999999", "seed is 9999999999"),
        ("fit none.npy --out t.json", "No such file"),
        ("fit x.csv --out t.json", "ends in .csv; allowed: .npy, .npz, .h5ad, .parquet, .safetensors"),
        ("fit x --out t.json", "ends in nothing; allowed: .npy, .npz, .h5ad, .parquet, .safetensors"),
        ("fit folder.npy --out t.json", "not a regular file"),
        ("fit zeros.npy --out t.json", "nothing but zeros"),
        ("fit nan.npy --out t.json", "NaN or infinity; allowed: finite numbers"),
        ("fit x.npy", "--out"),
        ("fit x.npy --out none/t.json", "is missing; allowed: an existing folder"),
        ("fit x.npy --out folder.npy", "allowed: a file that ends in .json"),
        ("fit x.npy --out t.txt", "--out is t.txt; allowed: a file that ends in .json"),
        ("plan none.json --ratio 0.5", "profile file none.json is missing; allowed: a file that fit wrote"),
        ("plan folder.npy --ratio 0.5", "profile file folder.npy is missing; allowed"),
        (f"compress none.npy --out t.rug {PROFILE} --ratio 0.5", "No such file"),
        ("compress y.npy --out t.rug --profile none.json --ratio 0.5", "profile file none.json is missing"),
        (f"compress narrow.npy --out t.rug {PROFILE} --ratio 0.5", "has 64 features; allowed: 512, as were"),
        (f"compress signed.npy --out t.rug {PROFILE} --ratio 0.5", "allowed: numbers >= 0"),
        (f"compress nan.npy --out t.rug {PROFILE} --ratio 0.5", "NaN or infinity; allowed: finite numbers"),
        ("compress zeros.npy --out t.rug --ratio 0.5", "nothing but zeros"),
        (f"compress y.npy --out t.txt {PROFILE} --ratio 0.5", "--out is t.txt; allowed: a file that ends in .rug"),
        (f"compress y.npy --out y.npy {PROFILE} --ratio 0.5", "--out is y.npy; allowed: a file that ends in .rug"),
        (f"compress y.npy --out none/t.rug {PROFILE} --ratio 0.5", "is missing; allowed: an existing folder"),
        (f"compress y.npy --out folder.rug {PROFILE} --ratio 0.5", "not a regular file; allowed"),
        ("compress - --out t.rug --ratio 0.5", "--profile is missing; allowed with standard input"),
        ("decompress none.rug --out t.npz", "rug file none.rug is missing; allowed: a file that compress wrote"),
        ("decompress y.rug --out t.csv", "--out is t.csv; allowed: a file that ends in .npz or .npy"),
        ("decompress y.rug --out y.rug", "--out is y.rug; allowed: a file that ends in .npz or .npy"),
        ("decompress y.rug --out none/t.npz", "is missing; allowed: an existing folder"),
        ("decompress y.rug --out folder.npy", "not a regular file; allowed"),
        ("decompress - --partial --out t.npz", "--partial is given; allowed: with a file"),
        ("inspect none.rug", "rug file none.rug is missing; allowed: a file that compress wrote"),
        ("inspect folder.rug", "rug file folder.rug is missing; allowed"),
        ("inspect x.npy", "rug file x.npy is no rug file; allowed"),
        ("verify none.rug", "rug file none.rug is missing; allowed"),
        ("verify y.rug --data none.npy", "No such file"),
        ("verify y.rug --data nan.npy", "NaN or infinity"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(command, here, arguments, words):
    (here / "folder.npy").mkdir()
    (here / "folder.rug").mkdir()
    (here / "x").write_bytes(b"")
    before = files(here)
    assert words in refused(command(*arguments.split()))
    assert files(here) == before


def test_profiles_do_not_take_the_place_of_data(made, here, command):
    (here / "own.npy").write_bytes((here / "x.npy").read_bytes())
    assert "--out is own.npy; allowed: a file that ends in .json" in refused(
        command("fit", "own.npy", "--out", "own.npy")
    )
    assert np.array_equal(np.load(here / "own.npy"), made.x)


def test_numbers_that_floats_of_32_bits_do_not_hold(made, here, command):
    y = made.y.astype("f8")
    y[5, 5] = 1e39
    np.save(here / "large.npy", y)
    options = (*FITTED, "--ratio", 0.25, "--decoder", "bayes", "--out", "t.rug")
    assert "allowed" in refused(command("compress", "large.npy", *options))
    assert not (here / "t.rug").exists()


@pytest.mark.parametrize("decoder", ["bayes", "oamp"])
@pytest.mark.parametrize("outlier", [1e6, 1e20, 1e30])
def test_an_outlier_costs_its_own_row_alone(outlier, decoder, made, here, command):
    y = made.y[:40].copy()
    np.save(here / "plain.npy", y)
    y[5, 5] = outlier
    np.save(here / "large.npy", y)
    for name in ("plain", "large"):
        options = (*FITTED, "--ratio", 0.5, "--decoder", decoder, "--out", f"{name}.rug")
        ran(command("compress", f"{name}.npy", *options))
        ran(command("decompress", f"{name}.rug", "--out", f"{name}_back.npy"))
    plain, large = np.load(here / "plain_back.npy"), np.load(here / "large_back.npy")
    assert np.isfinite(large).all()
    others = np.arange(40) != 5
    assert np.allclose(large[others], plain[others], atol=1e-3)


def test_a_folder_that_is_not_writable(made, here, run_apart):
    closed = here / "closed"
    closed.mkdir()
    (closed / "t.rug").write_bytes(b"before")
    closed.chmod(0o500)
    try:
        for arguments in (
            ("fit", "x.npy", "--out", "closed/t.json"),
            ("compress", "y.npy", "--ratio", 0.5, "--out", "closed/t.rug"),
            ("decompress", "y.rug", "--out", "closed/t.npz"),
        ):
            message = refused(run_apart(*arguments, preexec_fn=without_privileges))
            assert "is not writable; allowed: a writable folder" in message
        assert files(closed) == {"t.rug": b"before"}
    finally:
        closed.chmod(0o700)


def test_files_that_may_not_be_read(made, here, run_apart):
    for name in ("x.npy", "profile.json", "y.rug"):
        content = (here / name).read_bytes()
        (here / name).unlink()
        (here / name).write_bytes(content)
        (here / name).chmod(0)
    for arguments in (("fit", "x.npy", "--out", "t.json"), ("plan", "profile.json", "--ratio", 0.5),
                      ("verify", "y.rug")):  # fmt: skip
        message = refused(run_apart(*arguments, preexec_fn=without_privileges))
        assert "not readable" in message or "Permission denied" in message


@pytest.fixture(scope="module")
def large(tmp_path_factory, made):
    """Rows that take many seconds, in a small file: most are nothing but zeros."""
    rows = scipy.sparse.csr_array(made.y)
    path = tmp_path_factory.mktemp("large") / "large.npz"
    scipy.sparse.save_npz(path, scipy.sparse.vstack([rows, scipy.sparse.csr_array((600_000, N))], format="csr"))
    return path


class TestInterruption:
    """Of compress, once it writes."""

    @pytest.fixture(params=[None, b"what was there"])
    def writing(self, request, large, here, start):
        """A process in the middle of its file, and what was there before."""
        target = here / "t.rug"
        if request.param is not None:
            target.write_bytes(request.param)
        options = (*FITTED, "--ratio", 0.9, "--bits", 5, "--decoder", "bayes", "--out", "t.rug")
        process = start("compress", large, *options)
        deadline = time.monotonic() + 60
        while not list(here.glob(".t.rug.*.tmp")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        # Not while the archive is being opened, on which Python itself has something to say.
        time.sleep(0.3)
        assert process.poll() is None
        return process, target, request.param

    def test_interrupted(self, writing, here):
        process, target, old = writing
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "persianrug: interrupted\n")
        assert (target.read_bytes() if target.exists() else None) == old
        assert not list(here.glob(".t.rug.*"))

    def test_killed(self, writing, here, command):
        process, target, old = writing
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert (target.read_bytes() if target.exists() else None) == old
        # Nothing that was left is in the way.
        ran(command("compress", "y.npy", *FITTED, "--ratio", 0.25, "--out", "t.rug"))
        assert of_json(command("verify", "t.rug", "--json"))["rows"] == ROWS


def test_help_comes_without_pytorch(run):
    code = (
        "import sys\n"
        "from persianrug.cli.app import app\n"
        "try: app(['compress', '--help'], standalone_mode=False)\n"
        "finally: sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result
    assert "--target-loss" in result.stdout
