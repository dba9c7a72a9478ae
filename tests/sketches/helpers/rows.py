"""Rows in files, written and read; what is refused, and in how much memory."""

import math
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from persianrug.sketches import rows as rows_module
from persianrug.sketches.rows import open_rows
from tests.conftest import saved

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


def save_zeros(path, by_columns=False, parts=None, **shapes):
    """A .npz file of arrays of zeros, which are packed to a thousandth, and of some parts as they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in (parts or {}).items():
            archive.writestr(f"{name}.npy", saved(part))
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w") as file:
                head = {"descr": "<i4", "fortran_order": by_columns, "shape": shape}
                np.lib.format.write_array_header_1_0(file, head)
                for _ in range(0, 4 * math.prod(shape), 1 << 20):
                    file.write(bytes(1 << 20))


def save_h5ad(path, matrix):
    frame = pandas.DataFrame(index=list(NAMES[: matrix.shape[1]]))
    cells = pandas.DataFrame(index=[f"cell {place}" for place in range(matrix.shape[0])])
    anndata.AnnData(matrix, obs=cells, var=frame).write_h5ad(path)


def save_table(path, columns, **options):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
