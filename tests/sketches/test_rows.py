"""Rows of files of every kind: in blocks as at once, in bounded memory, and refused where they are none."""

import gc
import io
import os
import pickle
import sys
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager, suppress
from itertools import islice

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from persianrug.sketches import rows as rows_module
from persianrug.sketches.row_writer import RowWriter
from persianrug.sketches.rows import KINDS, open_rows
from tests.conftest import forged_header, saved

with warnings.catch_warnings(action="ignore"):
    import anndata
    import pandas

COUNT, N = 23, 6
# Small integers, which every type holds exactly; a row and a feature of nothing but zeros among them.
ROWS = np.random.default_rng(5).integers(0, 9, (COUNT, N)) * (np.random.default_rng(6).random((COUNT, N)) < 0.5)
ROWS[7], ROWS[:, 4] = 0, 0
NAMES = tuple(f"gene {place}" for place in range(N))

# Entries of a block: one row, five rows, all.
BLOCKS = [1, 5 * N, 1 << 22]


def parts_of(file):
    return [part.toarray() if hasattr(part, "toarray") else part for part in file.blocks()]


def read(path, pipe=None):
    """All rows of a file; its blocks are checked on the way."""
    file = open_rows(path, pipe)
    blocks = list(file.blocks())
    step = max(1, rows_module._BLOCK // file.n_sparse)
    for block in blocks:
        assert isinstance(block, np.ndarray) or block.format == "csr"
        assert block.dtype in (np.float32, np.float64)
        assert block.dtype.isnative
        assert 1 <= block.shape[0] <= step
        assert block.shape[1] == file.n_sparse
        assert block.dtype == blocks[0].dtype
    whole = np.concatenate([part.toarray() if hasattr(part, "toarray") else part for part in blocks])
    assert whole.shape == (file.rows, file.n_sparse)
    return whole


def refused(path, word, pipe=None):
    """Opening or reading is refused, in one line that names the data and what is allowed."""
    with pytest.raises(ValueError, match=word) as caught:
        for _ in open_rows(path, pipe).blocks():
            pass
    assert "\n" not in str(caught.value)
    assert "allowed: " in str(caught.value)
    assert str(path) in str(caught.value)


@contextmanager
def peak_below(most):
    """What is done here takes no more memory, as far as Python sees it."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def save_parts(path, compressed=False, **parts):
    """A .npz file of a csr matrix as it is, checked by nobody."""
    parts = {"format": np.array(b"csr"), "shape": np.array([3, 3]), **parts}
    (np.savez_compressed if compressed else np.savez)(path, **parts)


def save_h5ad(path, matrix):
    frame = pandas.DataFrame(index=list(NAMES[: matrix.shape[1]]))
    cells = pandas.DataFrame(index=[f"cell {place}" for place in range(matrix.shape[0])])
    anndata.AnnData(matrix, obs=cells, var=frame).write_h5ad(path)


def save_table(path, columns, **options):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)


WRITERS = {
    "npy": (".npy", np.save),
    "npy by columns": (".npy", lambda path, x: np.save(path, np.asfortranarray(x))),
    "npz": (".npz", lambda path, x: np.savez(path, x)),
    "npz of a name, compressed": (".npz", lambda path, x: np.savez_compressed(path, rows=x)),
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
@pytest.mark.parametrize("kind", ["npy", "npy by columns", "npz", "csr"])
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


class TestNpy:
    @pytest.mark.parametrize("shape", [(1, 5), (7, 2), (1, 2)])
    def test_few_rows(self, shape, tmp_path):
        x = np.arange(shape[0] * shape[1], dtype="f4").reshape(shape)
        np.save(tmp_path / "x.npy", x)
        assert np.array_equal(read(tmp_path / "x.npy"), x)

    def test_later_versions_of_the_format(self, tmp_path):
        for version in ((2, 0), (3, 0)):
            with (tmp_path / "x.npy").open("wb") as file:
                np.lib.format.write_array(file, ROWS.astype("f4"), version=version)
            assert np.array_equal(read(tmp_path / "x.npy"), ROWS)
            content = io.BytesIO((tmp_path / "x.npy").read_bytes())
            assert np.array_equal(read("pipe", content), ROWS)

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            (b"", "cannot be read"),
            (b"hello", "cannot be read"),
            (pickle.dumps(ROWS), "cannot be read"),
            (saved(np.array([[1, None], ["a", 2]], dtype=object), allow_pickle=True), "cannot be read"),
            (saved(np.array([["a", "b"]] * 4)), "of type <U1"),
            (saved(ROWS.astype(complex)), "of type complex128"),
            (saved(ROWS.astype("M8[s]")), "of type datetime64"),
            (saved(ROWS[0]), "has 1 dimensions; allowed: 2"),
            (saved(np.array(3.0)), "has 0 dimensions; allowed: 2"),
            (saved(ROWS[None]), "has 3 dimensions; allowed: 2"),
            (saved(np.zeros((0, 5))), r"\(0, 5\); allowed: at least one row and 2 features"),
            (saved(ROWS[:, :1]), r"\(23, 1\); allowed: at least one row and 2 features"),
            (saved(np.zeros((4, 0))), r"\(4, 0\); allowed: at least one row and 2 features"),
            (forged_header((10**12, 10**6)), "cannot be read"),
            (forged_header((10**12, 2)), "cannot be read"),
            (forged_header((2, 10**12)), "cannot be read"),
            (forged_header((10**30, 2)), "cannot be read"),
            (forged_header((2, 10**30)), "cannot be read"),
            (forged_header((-3, 4)), "cannot be read"),
            (forged_header((-3, -4)), "cannot be read"),
        ],
    )
    def test_other_content_is_refused_at_once(self, content, word, tmp_path):
        path = tmp_path / "x.npy"
        path.write_bytes(content)
        with peak_below(1 << 20):
            refused(path, word)
        with peak_below(1 << 20):
            refused("standard input", word, io.BytesIO(content))


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
    word = (
        "'gene 3' has missing values" if missing else "rows 10 to 15 hold NaN or infinity; allowed: finite numbers"
    )
    refused(tmp_path / f"x{suffix}", word)
    if kind == "npy":
        refused("standard input", "rows 10 to 15 hold NaN or infinity", io.BytesIO(saved(x)))


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
        refused(path, "NaN or infinity")
        if kind == "csr_array":
            save_parts(path, data=np.ones(3), indices=np.array([0, 9, 2]), indptr=np.array([0, 1, 2, 3]))
            refused(path, "cannot be read")
        gc.collect()
    assert not said
    assert descriptors(path) == 0


class TestNpz:
    def test_an_array_by_columns_is_refused(self, tmp_path):
        np.savez(tmp_path / "x.npz", np.asfortranarray(ROWS))
        refused(tmp_path / "x.npz", "stored by columns; allowed: by rows")

    def test_several_arrays_are_refused_by_name(self, tmp_path):
        np.savez(tmp_path / "x.npz", one=ROWS, other=ROWS)
        refused(tmp_path / "x.npz", "holds one, other; allowed: one array, or a SciPy sparse matrix")

    def test_nothing_and_other_archives(self, tmp_path):
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w"):
            pass
        refused(path, "holds nothing; allowed")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "not an array, but a text of some length")
        refused(path, "cannot be read")

    @pytest.mark.parametrize(
        ("array", "word"),
        [
            (np.array([[None, 1]], dtype=object), "cannot be read"),
            (np.array([["a", "b"]]), "of type <U1"),
            (ROWS.astype(complex), "of type complex128"),
            (ROWS[0], "1 dimensions; allowed: 2"),
            (ROWS[:, :1], "at least one row and 2 features"),
            (ROWS[:0], "at least one row and 2 features"),
        ],
    )
    def test_other_arrays_are_refused(self, array, word, tmp_path):
        np.savez(tmp_path / "x.npz", array)
        refused(tmp_path / "x.npz", word)

    @pytest.mark.parametrize("shape", [(10**12, 2), (2, 10**12), (10**30, 4), (-3, 4)])
    @pytest.mark.parametrize("name", ["x.npy", "data.npy"])
    def test_an_array_that_claims_more_than_it_holds(self, shape, name, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr(name, forged_header(shape))
        with peak_below(1 << 20):
            refused(tmp_path / "x.npz", "cannot be read")

    def test_damage_is_noticed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", 5 * N)
        path = tmp_path / "x.npz"
        for write in (
            lambda: np.savez(path, ROWS),
            lambda: scipy.sparse.save_npz(path, scipy.sparse.csr_array(ROWS), compressed=False),
        ):
            write()
            content = path.read_bytes()
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if entry.file_size > 150]
            for entry in entries:
                damaged = bytearray(content)
                damaged[entry.header_offset + 30 + len(entry.filename) + 20 + 128 + 8] ^= 1
                path.write_bytes(damaged)
                refused(path, "cannot be read")


class TestSparse:
    """The places of csr matrices, which SciPy does not check where it writes them."""

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("wide", ["i4", "i8", "u4"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_entries_in_any_order(self, block, wide, compressed, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        save_parts(tmp_path / "x.npz", compressed, data=np.array([1.0, 2, 4, 5]),
                   indices=np.array([2, 0, 1, 0], wide), indptr=np.array([0, 2, 2, 4], wide))  # fmt: skip
        assert read(tmp_path / "x.npz").tolist() == [[2, 0, 1], [0, 0, 0], [5, 4, 0]]

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
    def test_duplicates_are_added(self, block, dtype, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        save_parts(tmp_path / "x.npz", data=np.array([1, 2, 4, 8, 5], dtype),
                   indices=np.array([0, 0, 1, 2, 1]), indptr=np.array([0, 2, 3, 5]))  # fmt: skip
        assert read(tmp_path / "x.npz").tolist() == [[3, 0, 0], [0, 4, 0], [0, 5, 8]]
        matrix = scipy.sparse.coo_array(([1, 2, 4], ([0, 0, 2], [1, 1, 0])), shape=(3, 3), dtype=dtype)
        scipy.sparse.save_npz(tmp_path / "x.npz", matrix)
        assert read(tmp_path / "x.npz").tolist() == [[0, 3, 0], [0, 0, 0], [4, 0, 0]]

    def test_more_duplicates_than_features(self, tmp_path):
        save_parts(tmp_path / "x.npz", data=np.ones(7), indices=np.array([0, 1, 0, 1, 0, 2, 2]),
                   indptr=np.array([0, 5, 6, 7]))  # fmt: skip
        expected = scipy.sparse.load_npz(tmp_path / "x.npz").toarray()
        assert np.array_equal(read(tmp_path / "x.npz"), expected)

    @pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
    @pytest.mark.parametrize("block", BLOCKS)
    def test_nothing_stored(self, kind, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array((COUNT, N)).asformat(kind))
        assert np.array_equal(read(tmp_path / "x.npz"), np.zeros((COUNT, N)))

    def test_zeros_that_are_stored(self, tmp_path):
        save_parts(tmp_path / "x.npz", data=np.array([0.0, 2, 0]), indices=np.array([0, 1, 2]),
                   indptr=np.array([0, 1, 2, 3]))  # fmt: skip
        assert read(tmp_path / "x.npz").tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(
        "change",
        [
            {"indices": np.array([0, 3, 2])},
            {"indices": np.array([0, -1, 2])},
            {"indices": np.array([0, 10**12, 2])},
            {"indices": np.array([0.0, 1.0, 2.0])},
            {"indices": np.array([[0, 1, 2]])},
            {"indices": np.array([0, 1])},
            {"indptr": np.array([0, 2, 1, 3])},
            {"indptr": np.array([0, 1, 2, 50])},
            {"indptr": np.array([0, 1, 2, 10**18])},
            {"indptr": np.array([0, 1, 2, 2**63], dtype="u8")},
            {"indptr": np.array([0, -1, 2, 3])},
            {"indptr": np.array([1, 1, 2, 3])},
            {"indptr": np.array([-1, 1, 2, 3])},
            {"indptr": np.array([0, 1, 3])},
            {"indptr": np.array([0, 1, 2, 3, 3])},
            {"indptr": np.array([0.0, 1.0, 2.0, 3.0])},
            {"data": np.array([1.0, 2.0])},
            {"data": np.array([1.0, 2.0, np.nan])},
            {"data": np.array(["a", "b", "c"])},
            {"data": np.array([1, 2, 3], complex)},
            {"data": np.array([None, 1, 2], dtype=object)},
            {"shape": np.array([3, 1])},
            {"shape": np.array([2, 3])},
            {"shape": np.array([-3, 3])},
            {"shape": np.array([3, -3])},
            {"shape": np.array([3])},
            {"shape": np.array([3, 3, 3])},
            {"shape": np.array([3, 10**12])},
            {"shape": np.array([10**12, 3])},
            {"shape": np.array([2**64 - 1, 3], dtype="u8")},
            {"format": np.array(b"dok")},
            {"format": np.array(3)},
        ],
    )  # fmt: skip
    def test_impossible_ones_are_refused(self, change, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        true = {"data": np.array([1.0, 2, 3]), "indices": np.array([0, 1, 2]), "indptr": np.array([0, 1, 2, 3])}
        save_parts(tmp_path / "x.npz", **{**true, **change})
        with peak_below(2 << 20):
            refused(tmp_path / "x.npz", "cannot be read")
        save_parts(tmp_path / "x.npz", **true)
        assert np.array_equal(read(tmp_path / "x.npz"), np.diag([1, 2, 3]))

    def test_a_part_is_missing(self, tmp_path):
        save_parts(tmp_path / "x.npz", data=np.array([1.0, 2, 3]), indices=np.array([0, 1, 2]))
        refused(tmp_path / "x.npz", "cannot be read")

    @pytest.mark.parametrize("kind", ["csc", "coo"])
    def test_impossible_ones_of_other_formats(self, kind, tmp_path):
        places = {"csc": ("indices", "indptr"), "coo": ("row", "col")}[kind]
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(ROWS).asformat(kind))
        with np.load(tmp_path / "x.npz") as archive:
            parts = dict(archive)
        if kind == "coo" and "coords" in parts:
            places = ("coords",)
        for name in places:
            for value in (10**6, -1):
                changed = parts[name].copy()
                changed.flat[-1] = value
                np.savez(tmp_path / "x.npz", **{**parts, name: changed})
                refused(tmp_path / "x.npz", "cannot be read")


class TestH5ad:
    def test_without_anndata_the_extra_is_named(self, tmp_path, monkeypatch):
        save_h5ad(tmp_path / "x.h5ad", ROWS.astype("f4"))
        assert np.array_equal(read(tmp_path / "x.h5ad"), ROWS)
        monkeypatch.setitem(sys.modules, "anndata", None)
        refused(tmp_path / "x.h5ad", r"allowed: pip install 'persianrug\[anndata\]'")

    def test_without_a_matrix(self, tmp_path):
        anndata.AnnData(obs=pandas.DataFrame(index=["a", "b"]), var=pandas.DataFrame(index=["x", "y"])).write_h5ad(
            tmp_path / "x.h5ad"
        )
        refused(tmp_path / "x.h5ad", "cannot be read")

    def test_one_feature_and_no_rows(self, tmp_path):
        for name, x in (("a.h5ad", ROWS[:, :1]), ("b.h5ad", ROWS[:0])):
            save_h5ad(tmp_path / name, x.astype("f4"))
            refused(tmp_path / name, "at least one row and 2 features")

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "x.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
        refused(tmp_path / "x.h5ad", "cannot be read")


class TestParquet:
    def test_columns_of_several_types(self, tmp_path):
        columns = {"a": np.array([True, False, True]), "b": np.array([1, 2, 3], "i1"),
                   "c": np.array([0.5, 0, 1], "f4"), "d": np.array([0, 2**40 + 1, 0])}  # fmt: skip
        save_table(tmp_path / "x.parquet", columns)
        assert open_rows(tmp_path / "x.parquet").names == ("a", "b", "c", "d")
        expected = np.column_stack([column.astype("f8") for column in columns.values()])
        assert np.array_equal(read(tmp_path / "x.parquet"), expected)

    @pytest.mark.parametrize("block", BLOCKS)
    def test_booleans(self, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        save_table(tmp_path / "x.parquet", dict(zip(NAMES, (ROWS > 0).T, strict=True)))
        assert np.array_equal(read(tmp_path / "x.parquet"), ROWS > 0)

    @pytest.mark.parametrize("index", [[3, 7, 8], ["x", "y", "z"]])
    def test_an_index_of_pandas_is_no_feature(self, index, tmp_path):
        frame = pandas.DataFrame({"a": [1.0, 0, 2], "b": [0.0, 3, 4]}, index=index)
        frame.to_parquet(tmp_path / "x.parquet")
        assert open_rows(tmp_path / "x.parquet").names == ("a", "b")
        assert read(tmp_path / "x.parquet").tolist() == [[1, 0], [0, 3], [2, 4]]

    @pytest.mark.parametrize(
        "column",
        [["a", "b"], [b"a", b"b"], [[1], [2]], [None, None], pandas.to_datetime(["2020-01-01", "2020-01-02"])],
    )
    def test_columns_of_something_else_are_refused_by_name(self, column, tmp_path):
        save_table(tmp_path / "x.parquet", {"count": [1, 2], "the other": pyarrow.array(column), "last": [1, 2]})
        refused(tmp_path / "x.parquet", "column 'the other' is of type .*; allowed: columns of numbers alone")

    @pytest.mark.parametrize("column", [[1, None], [None, 0.5], [None, True]])
    def test_missing_values_are_refused_by_name(self, column, tmp_path):
        save_table(tmp_path / "x.parquet", {"count": [1, 2], "the other": column})
        refused(tmp_path / "x.parquet", "column 'the other' has missing values; allowed: numbers")

    def test_no_rows_and_one_column(self, tmp_path):
        for columns in ({"a": [1, 2]}, {"a": np.zeros(0), "b": np.zeros(0)}, {}):
            save_table(tmp_path / "x.parquet", columns)
            refused(tmp_path / "x.parquet", "at least one row and 2 features")


class TestSafetensors:
    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(
        "dtype", ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
    )
    def test_types(self, dtype, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        x = torch.tensor(ROWS).to(getattr(torch, dtype)).clone()
        if dtype in ("int32", "int64"):
            x[0, 0] = 2**24 + 1
        if dtype == "float64":
            x[0, 0] = 1 / 3
        save_file({"acts": x}, tmp_path / "x.safetensors")
        assert np.array_equal(read(tmp_path / "x.safetensors"), x.double().numpy())

    @pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
    def test_unsigned_types_are_exact_too(self, dtype, tmp_path):
        x = ROWS.astype(dtype)
        x[0, 0] = 2**16 - 1 if dtype == "uint16" else 2**24 + 1
        save_file({"acts": torch.from_numpy(x)}, tmp_path / "x.safetensors")
        assert np.array_equal(read(tmp_path / "x.safetensors"), x)

    @pytest.mark.parametrize(
        ("tensors", "word"),
        [
            ({"one": torch.ones(3, 3), "other": torch.ones(3, 3)}, "holds one, other; allowed: one tensor"),
            ({"one": torch.ones(3)}, "has 1 dimensions; allowed: 2"),
            ({"one": torch.ones(3, 3, 3)}, "has 3 dimensions; allowed: 2"),
            ({}, "holds nothing; allowed: one tensor"),
            ({"one": torch.ones(3, 1)}, "at least one row and 2 features"),
            ({"one": torch.ones(0, 3)}, "at least one row and 2 features"),
            ({"one": torch.ones(3, 3, dtype=torch.complex64)}, "complex64"),
        ],
    )
    def test_others_are_refused(self, tensors, word, tmp_path):
        save_file(tensors, tmp_path / "x.safetensors")
        refused(tmp_path / "x.safetensors", word)

    def test_headers_that_claim_what_is_not_there(self, tmp_path):
        for text in (
            b'{"x":{"dtype":"F32","shape":[1000000000000,4],"data_offsets":[0,16000000000000]}}',
            b'{"x":{"dtype":"F32","shape":[1000000000000,4],"data_offsets":[0,64]}}',
            b"[]",
        ):
            (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
            with peak_below(1 << 20):
                refused(tmp_path / "x.safetensors", "cannot be read")
        (tmp_path / "x.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
        refused(tmp_path / "x.safetensors", "cannot be read")


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
        for content in (b"", b"hello", bytes(1000), pickle.dumps(ROWS), os.urandom(300)):
            (tmp_path / f"x{suffix}").write_bytes(content)
            refused(tmp_path / f"x{suffix}", "cannot be read")

    def test_endings_in_capitals(self, tmp_path):
        (tmp_path / "X.NPY").write_bytes(saved(ROWS))
        assert np.array_equal(read(tmp_path / "X.NPY"), ROWS)


class TestMemory:
    @pytest.mark.parametrize("kind", ["npy", "npy by columns", "npz", "npz of a name, compressed", "csr_array",
                                      "csr_matrix, uncompressed", "h5ad", "h5ad, csr", "parquet, groups of 4",
                                      "safetensors", "pipe"])  # fmt: skip
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


class TestRowWriter:
    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    @pytest.mark.parametrize("step", [1, 5, COUNT])
    def test_a_sparse_matrix(self, dtype, step, tmp_path):
        x = ROWS.astype(dtype)
        x[3, 2] = -0.0
        x[20:] = 0
        with RowWriter(tmp_path / "x.npz", N, dtype) as writer:
            for start in range(0, COUNT, step):
                writer.write(x[start : start + step])
        assert writer.rows == COUNT
        found = scipy.sparse.load_npz(tmp_path / "x.npz")
        assert isinstance(found, scipy.sparse.csr_array)
        assert (found.shape, found.dtype) == ((COUNT, N), np.dtype(dtype))
        found.check_format(full_check=True)
        assert np.array_equal(found.toarray(), x)
        assert (found.nnz, np.count_nonzero(found.data)) == (np.count_nonzero(x), np.count_nonzero(x))
        assert found.has_sorted_indices
        assert np.array_equal(read(tmp_path / "x.npz"), x)
        assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]

    @pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
    @pytest.mark.parametrize("step", [1, 5, COUNT])
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_an_array(self, dtype, step, suffix, tmp_path):
        x = ROWS * 0.5
        with RowWriter(tmp_path / f"x{suffix}", N, dtype) as writer:
            for start in range(0, COUNT, step):
                writer.write(x[start : start + step])
        if suffix == ".npy":
            found = np.load(tmp_path / "x.npy")
            assert (found.dtype.kind, found.dtype.itemsize) == ("f", np.dtype(dtype).itemsize)
            assert found.flags.c_contiguous
            assert np.array_equal(found, x)
        assert np.array_equal(read(tmp_path / f"x{suffix}"), x)

    @pytest.mark.parametrize("blocks", [[], [0], [0, 4, 0], [4, 0]])
    def test_blocks_of_no_rows(self, blocks, tmp_path):
        for suffix in (".npy", ".npz"):
            with RowWriter(tmp_path / f"x{suffix}", N, "f4") as writer:
                for rows in blocks:
                    writer.write(ROWS[:rows].astype("f4"))
        expected = ROWS[: sum(blocks)]
        assert np.array_equal(np.load(tmp_path / "x.npy"), expected)
        found = scipy.sparse.load_npz(tmp_path / "x.npz")
        assert found.shape == expected.shape
        assert np.array_equal(found.toarray(), expected)

    def test_rows_in_another_order(self, tmp_path):
        for suffix in (".npy", ".npz"):
            with RowWriter(tmp_path / f"x{suffix}", N, "f8") as writer:
                writer.write(np.asfortranarray(ROWS.astype("f8")))
                writer.write(ROWS.astype("f8")[:, ::-1])
            assert np.array_equal(read(tmp_path / f"x{suffix}"), np.vstack([ROWS, ROWS[:, ::-1]]))

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    @pytest.mark.parametrize("old", [None, b"what was there"])
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_exception_leaves_what_was_there(self, suffix, old, error, tmp_path):
        path = tmp_path / f"x{suffix}"
        if old is not None:
            path.write_bytes(old)
        before = list(tmp_path.iterdir())
        with pytest.raises(error), RowWriter(path, N, "f4") as writer:  # noqa: PT012
            writer.write(ROWS.astype("f4"))
            # Nor is anything there meanwhile, which a process that is killed would leave.
            assert list(tmp_path.iterdir()) == before
            raise error
        assert list(tmp_path.iterdir()) == before
        assert old is None or path.read_bytes() == old

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_a_full_disk_leaves_what_was_there(self, suffix, tmp_path, monkeypatch):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(b"before")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"), RowWriter(path, N, "f4") as writer:
            writer.write(ROWS.astype("f4"))
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]

    def test_other_paths_are_refused(self, tmp_path, monkeypatch):
        for name in ("x.csv", "x", "x.h5ad"):
            with pytest.raises(ValueError, match=r"allowed: \.npz, \.npy"):
                RowWriter(tmp_path / name, N, "f4")
        with pytest.raises(ValueError, match="is missing; allowed: an existing folder"):
            RowWriter(tmp_path / "none" / "x.npz", N, "f4")
        (tmp_path / "folder.npz").mkdir()
        with pytest.raises(ValueError, match="not a regular file; allowed"):
            RowWriter(tmp_path / "folder.npz", N, "f4")
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(ValueError, match="not writable; allowed: a writable folder"):
            RowWriter(tmp_path / "x.npz", N, "f4")
        assert [entry.name for entry in tmp_path.iterdir()] == ["folder.npz"]

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_memory_is_that_of_a_few_blocks(self, suffix, tmp_path):
        block = np.where(np.random.default_rng(0).random((256, 64)) < 0.2, 1.5, 0.0)
        with peak_below(3 << 20), RowWriter(tmp_path / f"x{suffix}", 64, "f8") as writer:
            for _ in range(100):
                writer.write(block)
        assert np.array_equal(read(tmp_path / f"x{suffix}")[-256:], block)
