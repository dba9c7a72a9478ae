"""Sketches on the command line: damaged files, mistakes, and numbers at the edge."""

import json
import struct
from hashlib import blake2b
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr
from tests.cli.helpers import FITTED, MAGIC, ROWS, N, files, of_json, ran
from tests.conftest import refused, saved


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
        self.inspected(command, f"it is cut off after {40 * chunks} rows", 40 * chunks)

    @staticmethod
    def inspected(command, problem, rows):
        """All that can be said of a damaged t.rug, what is wrong on stderr, and exit code 2."""
        for options in ((), ("--json",)):
            result = command("inspect", "t.rug", *options)
            said = f"persianrug: rug file t.rug is damaged: {problem}; allowed: whole files, or "
            assert result.returncode == 2
            assert result.stderr.startswith(said)
            assert result.stderr.count("\n") == 1
            if options:
                report = json.loads(result.stdout)
                assert (report["problem"], report["rows"], report["n_sparse"]) == (problem, rows, N)
            else:
                assert result.stdout.startswith(f"t.rug: {rows} rows of {N} features")
                assert result.stdout.endswith(f"\ndamaged: {problem}\n")

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
        self.inspected(command, "after 120 rows there is no chunk", 120)
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
        self.inspected(command, "1 bytes follow its end", ROWS)

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
            (
                lambda header: header.update(version=4),
                "version 4; allowed: format persianrug codes, version 1, 2 or 3",
            ),
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
        ("fit nan.npy --out t.json", "holds nan in column 3; allowed: finite numbers"),
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
        (f"compress nan.npy --out t.rug {PROFILE} --ratio 0.5", "holds nan in column 3; allowed: finite numbers"),
        ("compress zeros.npy --out t.rug --ratio 0.5", "nothing but zeros"),
        (f"compress y.npy --out t.txt {PROFILE} --ratio 0.5", "--out is t.txt; allowed: a file that ends in .rug"),
        (f"compress y.npy --out y.npy {PROFILE} --ratio 0.5", "--out is y.npy; allowed: a file that ends in .rug"),
        (f"compress y.npy --out none/t.rug {PROFILE} --ratio 0.5", "is missing; allowed: an existing folder"),
        (f"compress y.npy --out folder.rug {PROFILE} --ratio 0.5", "not a regular file; allowed"),
        ("compress - --out t.rug --ratio 0.5", "--profile is missing; allowed with standard input"),
        ("decompress none.rug --out t.npz", "rug file none.rug is missing; allowed: a file that compress wrote"),
        ("decompress y.rug --out t.csv", "--out is t.csv; allowed: a file that ends in .npz, .npy, .h5ad or"),
        ("decompress y.rug --out y.rug", "--out is y.rug; allowed: a file that ends in .npz, .npy, .h5ad or"),
        ("decompress y.rug --out none/t.npz", "is missing; allowed: an existing folder"),
        ("decompress y.rug --out folder.npy", "not a regular file; allowed"),
        ("decompress - --partial --out t.npz", "--partial is given; allowed: with a file"),
        ("inspect none.rug", "rug file none.rug is missing; allowed: a file that compress wrote"),
        ("inspect folder.rug", "rug file folder.rug is missing; allowed"),
        ("inspect x.npy", "rug file x.npy is no rug file; allowed"),
        ("verify none.rug", "rug file none.rug is missing; allowed"),
        ("verify y.rug --data none.npy", "No such file"),
        ("verify y.rug --data nan.npy", "holds nan in column 3; allowed: finite numbers"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        "fit {}.npy --out t.json",
        "fit x.npy --out {}.json",
        "fit x.npy --out t.json --hold-out {}",
        "plan {}.json --ratio 0.5",
        "compress {}.npy --out t.rug --ratio 0.5",
        "compress y.npy --out {}.rug --ratio 0.5",
        "compress y.npy --out t.rug --ratio 0.5 --profile {}",
        "decompress {}.rug --out t.npz",
        "decompress y.rug --out {}.npz",
        "decompress y.rug --out t.npz --decoder {}",
        "inspect {}",
        "verify {}",
        "verify y.rug --data {}.npy",
        "solve --ratio 0.5 --data {}.npy",
        "solve --ratio 0.5 --p 0.1 --save {}.safetensors",
        "solve --ratio 0.5 --p {}",
        "train --n-sparse 8 --ratio 0.5 --p 0.1 --out {}.safetensors",
        "symmetry {}.npz",
        "weave --out {}.png",
        "phase --out {}.png",
        "sweep run {}.toml --store t.db",
        "sweep export t.db --out {}.csv",
        "sweep export {} --out t.csv",
        "reproduce --out {}",
    ],
)
@pytest.mark.parametrize("length", [300, 100_000])
def test_long_names_are_one_short_line(command, here, arguments, length):
    before = files(here)
    assert len(refused(command(*arguments.format("x" * length).split()))) < 1100
    assert files(here) == before
