"""Rows written in blocks: as they were, whole or not at all, and in bounded memory."""

import os

import numpy as np
import pytest
import scipy.sparse

from persianrug.sketches.row_writer import RowWriter
from tests.sketches.helpers.rows import COUNT, ROWS, N, peak_below, read


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
