"""Rows written in blocks: as they were, whole or not at all, and in bounded memory."""

import os
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse

from persianrug.sketches import rows as rows_module
from persianrug.sketches.row_writer import WRITTEN, RowWriter
from persianrug.sketches.rows import open_rows
from tests.sketches.helpers.rows import COUNT, NAMES, ROWS, N, peak_below, read

with warnings.catch_warnings(action="ignore"):
    import anndata
    import pandas


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

    @pytest.mark.parametrize("suffix", WRITTEN)
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

    @pytest.mark.parametrize("suffix", WRITTEN)
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
        for name in ("x.csv", "x", "x.safetensors"):
            with pytest.raises(ValueError, match=r"allowed: \.npz, \.npy, \.h5ad, \.parquet"):
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

    @pytest.mark.parametrize("suffix", WRITTEN)
    def test_memory_is_that_of_a_few_blocks(self, suffix, tmp_path):
        block = np.where(np.random.default_rng(0).random((256, 64)) < 0.2, 1.5, 0.0)
        with peak_below(3 << 20), RowWriter(tmp_path / f"x{suffix}", 64, "f8") as writer:
            for _ in range(100):
                writer.write(block)
        assert np.array_equal(read(tmp_path / f"x{suffix}")[-256:], block)


ROW_NAMES = tuple(f"cell {place}, größer" for place in range(COUNT))


class TestNames:
    @pytest.mark.parametrize("suffix", [".h5ad", ".parquet"])
    @pytest.mark.parametrize("step", [1, 5, COUNT])
    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    def test_they_come_back(self, suffix, step, dtype, tmp_path, monkeypatch):
        x, path = ROWS * 0.5, tmp_path / f"x{suffix}"
        with RowWriter(path, N, dtype, names=NAMES, named=True) as writer:
            for start in range(0, COUNT, step):
                writer.write(x[start : start + step].astype(dtype), ROW_NAMES[start : start + step])
        assert np.array_equal(read(path), x)
        monkeypatch.setattr(rows_module, "_BLOCK", step * N)
        file = open_rows(path)
        assert (file.names, file.named) == (NAMES, True)
        blocks = list(file.blocks_of_names())
        assert [len(names) for names in blocks] == [block.shape[0] for block in file.blocks()]
        assert sum(blocks, ()) == ROW_NAMES
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        # As those whose formats they are read them.
        found = anndata.read_h5ad(path).to_df() if suffix == ".h5ad" else pandas.read_parquet(path)
        assert (tuple(found.index), tuple(found.columns)) == (ROW_NAMES, NAMES)
        assert np.array_equal(found.to_numpy(), x)
        assert (found.dtypes == np.dtype(dtype)).all()

    @pytest.mark.parametrize("suffix", [".h5ad", ".parquet"])
    def test_where_there_are_none(self, suffix, tmp_path):
        with RowWriter(tmp_path / f"x{suffix}", N, "f4") as writer:
            writer.write(ROWS.astype("f4"))
        file = open_rows(tmp_path / f"x{suffix}")
        assert file.names == tuple(map(str, range(N)))
        # Cells of an AnnData object always have some.
        assert file.named == (suffix == ".h5ad")
        assert np.array_equal(read(tmp_path / f"x{suffix}"), ROWS)

    def test_small_entries_are_zeros_where_a_matrix_is_sparse(self, tmp_path):
        for suffix, stored in ((".h5ad", 0.0), (".parquet", 0.1)):
            with RowWriter(tmp_path / f"x{suffix}", 2, "f4", 0.2) as writer:
                writer.write(np.array([[0.1, 0.5]]))
            assert read(tmp_path / f"x{suffix}").tolist() == [[np.float32(stored), 0.5]]

    def test_without_h5py_the_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ValueError, match=r"h5py is not installed; allowed: pip install '\.\[anndata\]'"):
            RowWriter(tmp_path / "x.h5ad", N, "f4")

    def test_of_rows_of_pandas(self, tmp_path):
        for index, names in (
            (["a", "b"], ("a", "b")), ([7, 3], ("7", "3")), (None, None), ([["a", "b"], [1, 2]], None),
        ):  # fmt: skip
            pandas.DataFrame({"x": [1.0, 2], "y": [3.0, 4]}, index=index).to_parquet(tmp_path / "x.parquet")
            assert list(open_rows(tmp_path / "x.parquet").blocks_of_names()) == [names]
