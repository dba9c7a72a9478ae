"""Rows of files of every kind: in blocks as at once, in bounded memory, and refused where they are none."""

import gc
import io
import os
import pickle
import warnings
from contextlib import suppress
from itertools import islice

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from persianrug.sketches import rows as rows_module
from persianrug.sketches.rows import KINDS, open_rows
from tests.conftest import forged_header, saved
from tests.sketches.helpers.rows import (
    BLOCKS,
    COUNT,
    NAMES,
    ROWS,
    N,
    peak_below,
    read,
    refused,
    save_h5ad,
    save_parts,
    save_table,
)

with warnings.catch_warnings(action="ignore"):
    import anndata
    import pandas


def parts_of(file):
    return [part.toarray() if hasattr(part, "toarray") else part for part in file.blocks()]


WRITERS = {
    "npy": (".npy", np.save),
    "npy by columns": (".npy", lambda path, x: np.save(path, np.asfortranarray(x))),
    "npz": (".npz", lambda path, x: np.savez(path, x)),
    "npz of a name, compressed": (".npz", lambda path, x: np.savez_compressed(path, rows=x)),
    "npz by columns": (".npz", lambda path, x: np.savez(path, np.asfortranarray(x))),
    "csr_array": (".npz", lambda path, x: scipy.sparse.save_npz(path, scipy.sparse.csr_array(x))),
    "csr_matrix, uncompressed": (
        ".npz",
        lambda path, x: scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(x), compressed=False),
    ),
    "csc": (".npz", lambda path, x: scipy.sparse.save_npz(path, scipy.sparse.csc_array(x))),
    "csc_matrix": (".npz", lambda path, x: scipy.sparse.save_npz(path, scipy.sparse.csc_matrix(x))),
    "coo": (".npz", lambda path, x: scipy.sparse.save_npz(path, scipy.sparse.coo_array(x))),
    "h5ad": (".h5ad", save_h5ad),
    "h5ad, csr": (".h5ad", lambda path, x: save_h5ad(path, scipy.sparse.csr_matrix(x))),
    "h5ad, csc": (".h5ad", lambda path, x: save_h5ad(path, scipy.sparse.csc_matrix(x))),
    "parquet": (".parquet", lambda path, x: save_table(path, dict(zip(NAMES, x.T, strict=True)))),
    "parquet, groups of 4": (
        ".parquet",
        lambda path, x: save_table(path, dict(zip(NAMES, x.T, strict=True)), row_group_size=4),
    ),
    "pandas": (".parquet", lambda path, x: pandas.DataFrame(x, columns=list(NAMES)).to_parquet(path)),
    "safetensors": (".safetensors", lambda path, x: save_file({"x": torch.from_numpy(x)}, path)),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_rows_in_blocks_as_at_once(kind, block, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK", block)
    suffix, write = WRITERS[kind]
    path = tmp_path / f"x{suffix}"
    write(path, ROWS.astype(np.float32))
    assert np.array_equal(read(path), ROWS)
    file = open_rows(path)
    assert (file.path, file.rows, file.n_sparse) == (str(path), COUNT, N)
    assert file.names == (NAMES if suffix in (".h5ad", ".parquet") else None)
    # Twice, unlike a pipe.
    first, second = parts_of(file), parts_of(file)
    assert len(first) == len(second) == -(-COUNT // max(1, block // N))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", WRITERS)
def test_blocks_are_arrays_or_csr_arrays(kind, tmp_path):
    # Not csr_matrices, whose * and [0] are others.
    suffix, write = WRITERS[kind]
    write(tmp_path / f"x{suffix}", ROWS.astype("f4"))
    for block in open_rows(tmp_path / f"x{suffix}").blocks():
        assert isinstance(block, np.ndarray | scipy.sparse.csr_array)


TYPES = {"f2": "f4", "f4": "f4", "f8": "f8", "i1": "f4", "u1": "f4", "i2": "f4", "u2": "f4", "i4": "f8",
         "u4": "f8", "i8": "f8", "u8": "f8", "?": "f4", ">f2": "f4", ">f4": "f4", ">f8": "f8", ">i2": "f4",
         ">i8": "f8"}  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["npy", "npy by columns", "npz", "npz by columns", "csr"])
def test_every_type_is_exact(kind, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK", 5 * N)
    x = ROWS.astype(dtype)
    if np.dtype(dtype).kind in "iu":
        # What the next smaller type of floats would not hold.
        x[0, 0] = 2 ** (8 * np.dtype(dtype).itemsize - (1 if np.dtype(dtype).kind == "i" else 0)) - 1
        if np.dtype(dtype).itemsize == 8:
            x[0, 0] = 2**53 - 1
    if np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize > 2:
        x[0, 0] = 1 / 3
    path = tmp_path / ("x.npy" if kind.startswith("npy") else "x.npz")
    if kind == "csr":
        # SciPy writes fewer types than there are.
        matrix = scipy.sparse.csr_array(x.astype("f8"))
        rows, columns = matrix.nonzero()
        save_parts(path, shape=np.array(x.shape), data=x[rows, columns], indices=columns, indptr=matrix.indptr)
    else:
        WRITERS[kind][1](path, x)
    found = read(path)
    assert found.dtype == np.dtype(TYPES[dtype])
    assert np.array_equal(found, x.astype("f8"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_not_finite_is_refused_with_its_rows(kind, bad, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK", 5 * N)
    x = ROWS.astype("f8")
    x[12, 3] = bad
    suffix, write = WRITERS[kind]
    write(tmp_path / f"x{suffix}", x)
    # Pandas writes NaN as a missing value.
    missing = kind == "pandas" and np.isnan(bad)
    word = "'gene 3' has missing values" if missing else f"row 12 holds {bad} in column 3"
    refused(tmp_path / f"x{suffix}", word)
    if kind == "npy":
        refused("standard input", f"row 12 holds {bad} in column 3; allowed: finite numbers", io.BytesIO(saved(x)))


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_cut_off_is_refused(kind, tmp_path):
    suffix, write = WRITERS[kind]
    path = tmp_path / f"x{suffix}"
    write(path, ROWS.astype("f4"))
    content = path.read_bytes()
    size = len(content)
    for length in {0, 1, 8, 40, size // 4, size // 2, 3 * size // 4, size - 100, size - 9, size - 1}:
        path.write_bytes(content[: max(0, length)])
        refused(path, "cannot be read")
    path.write_bytes(content)
    assert np.array_equal(read(path), ROWS)


def descriptors(path):
    """How many files this process has open at a path."""
    found = []
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))  # noqa: PTH115
    return found.count(str(path))


@pytest.mark.parametrize("kind", WRITERS)
def test_files_are_closed(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK", 5 * N)
    suffix, write = WRITERS[kind]
    path = tmp_path / f"x{suffix}"
    write(path, ROWS.astype("f8"))
    read(path)
    gc.collect()
    assert descriptors(path) == 0
    # In the middle.
    blocks = open_rows(path).blocks()
    next(blocks)
    blocks.close()
    del blocks
    gc.collect()
    assert descriptors(path) == 0


@pytest.mark.parametrize("kind", WRITERS)
def test_files_that_are_refused_are_closed(kind, tmp_path):
    suffix, write = WRITERS[kind]
    path = tmp_path / f"x{suffix}"
    write(path, np.where(ROWS == 8, np.inf, ROWS))
    gc.collect()
    with warnings.catch_warnings(record=True) as said:
        # Of files that nobody closed.
        warnings.simplefilter("always")
        refused(path, "holds inf in column")
        if kind == "csr_array":
            save_parts(path, data=np.ones(3), indices=np.array([0, 9, 2]), indptr=np.array([0, 1, 2, 3]))
            refused(path, "cannot be read")
        gc.collect()
    assert not said
    assert descriptors(path) == 0


class Trickle(io.RawIOBase):
    """A pipe that comes in small pieces."""

    def __init__(self, content):
        self._file = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self._file.read(min(len(buffer), 7))
        buffer[: len(part)] = part
        return len(part)


class TestPipe:
    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i8", "?"])
    def test_an_array(self, dtype, block, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        x = ROWS.astype(dtype)
        file = open_rows("standard input", io.BytesIO(saved(x)))
        assert (file.path, file.rows, file.n_sparse, file.names) == ("standard input", COUNT, N, None)
        assert np.array_equal(read("standard input", io.BytesIO(saved(x))), x)
        assert np.array_equal(read("standard input", Trickle(saved(x))), x)

    def test_what_follows_is_left(self):
        pipe = io.BytesIO(saved(ROWS) + b"more")
        read("standard input", pipe)
        assert pipe.read() == b"more"

    def test_it_is_read_but_once(self):
        file = open_rows("standard input", io.BytesIO(saved(ROWS)))
        assert sum(len(block) for block in file.blocks()) == COUNT
        with pytest.raises(ValueError, match="standard input cannot be read: it ends before its last row"):
            list(file.blocks())

    def test_cut_off(self, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", 5 * N)
        content = saved(ROWS.astype("f8"))
        for length in range(0, len(content), 17):
            refused("standard input", "cannot be read", io.BytesIO(content[:length]))
        refused("standard input", "ends before its last row", io.BytesIO(content[:-1]))
        # What came before is true.
        file = open_rows("standard input", io.BytesIO(content[:-1]))
        assert np.array_equal(np.concatenate(list(islice(file.blocks(), 4))), ROWS[:20])

    def test_a_row_that_is_not_there_takes_no_memory(self):
        pipe = io.BufferedReader(io.BytesIO(forged_header((2, 10**9))))
        with peak_below(1 << 26):
            refused("standard input", "ends before its last row", pipe)
        pipe = io.BytesIO(forged_header((2, 2 * 10**9)))
        refused("standard input", "claims rows of 16000000000 bytes; allowed", pipe)

    def test_an_array_by_columns_is_refused(self):
        refused(
            "standard input", "stored by columns; allowed: by rows", io.BytesIO(saved(np.asfortranarray(ROWS)))
        )

    @pytest.mark.parametrize("kind", ["npz", "csr_array", "h5ad", "parquet", "safetensors"])
    def test_files_of_other_kinds_are_refused(self, kind, tmp_path):
        suffix, write = WRITERS[kind]
        write(tmp_path / f"x{suffix}", ROWS.astype("f4"))
        content = (tmp_path / f"x{suffix}").read_bytes()
        refused("standard input", r"cannot be read.*; allowed: a \.npy array", io.BytesIO(content))


class TestOtherPaths:
    @pytest.mark.parametrize(
        ("name", "word"),
        [("x.csv", "in .csv"), ("x.npy.gz", "in .gz"), ("x", "in nothing"), (".npy", "in nothing")],
    )
    def test_other_endings_are_refused_with_those_allowed(self, name, word, tmp_path):
        (tmp_path / name).write_bytes(saved(ROWS))
        refused(tmp_path / name, f"ends {word}")
        refused(tmp_path / name, "allowed: " + ", ".join(KINDS))

    @pytest.mark.parametrize("suffix", KINDS)
    def test_missing_files_and_folders(self, suffix, tmp_path):
        refused(tmp_path / f"none{suffix}", "No such file")
        (tmp_path / f"folder{suffix}").mkdir()
        refused(tmp_path / f"folder{suffix}", "not a regular file")
        os.mkfifo(tmp_path / f"pipe{suffix}")
        refused(tmp_path / f"pipe{suffix}", "not a regular file")

    @pytest.mark.parametrize("suffix", KINDS)
    def test_other_content(self, suffix, tmp_path):
        for content in (b"", b"hello", bytes(1000), pickle.dumps(ROWS), np.random.default_rng(0).bytes(300)):
            (tmp_path / f"x{suffix}").write_bytes(content)
            refused(tmp_path / f"x{suffix}", "cannot be read")

    def test_endings_in_capitals(self, tmp_path):
        (tmp_path / "X.NPY").write_bytes(saved(ROWS))
        assert np.array_equal(read(tmp_path / "X.NPY"), ROWS)


class TestMemory:
    @pytest.mark.parametrize("kind", ["npy", "npy by columns", "npz", "npz of a name, compressed", "csr_array",
                                      "npz by columns", "csr_matrix, uncompressed", "h5ad", "h5ad, csr",
                                      "parquet, groups of 4", "safetensors", "pipe"])  # fmt: skip
    def test_it_is_that_of_a_few_blocks(self, kind, tmp_path, monkeypatch):
        # 64 blocks of 128 KiB of 64-bit floats.
        monkeypatch.setattr(rows_module, "_BLOCK", 1 << 14)
        x = np.where(np.random.default_rng(0).random((1 << 12, 256)) < 0.2, 1.5, 0.0)
        suffix, write = WRITERS.get(kind, WRITERS["npy"])
        if kind.startswith("parquet"):
            save_table(tmp_path / "x.parquet", {f"c{i}": x[:, i] for i in range(256)}, row_group_size=1 << 8)
        elif kind.startswith("h5ad"):
            matrix = scipy.sparse.csr_matrix(x) if "csr" in kind else x
            anndata.AnnData(matrix).write_h5ad(tmp_path / "x.h5ad")
        else:
            write(tmp_path / f"x{suffix}", x)
        # Imports are not counted.
        next(open_rows(tmp_path / f"x{suffix}").blocks())
        total = blocks = 0
        with peak_below(5 << 18), (tmp_path / f"x{suffix}").open("rb") as pipe:
            for block in open_rows(tmp_path / f"x{suffix}", pipe if kind == "pipe" else None).blocks():
                total, blocks = total + float(block.sum()), blocks + 1
        assert blocks == 64
        assert total == x.sum()
