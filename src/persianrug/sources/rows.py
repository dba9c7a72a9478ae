"""Rows of data, read at once for a source to be fitted to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.files import untrusted
from persianrug._support.npy import check_numeric, read_sparse


def read_rows(path: str | os.PathLike[str]) -> NDArray[np.float64] | scipy.sparse.csr_array:
    """Read a matrix of rows from a `.npy` file, or a SciPy sparse one from a `.npz` file.

    Pickles are not read, and sizes are checked before memory is allocated.

    Returns
    -------
    rows : float64 array (rows, features), or a csr_array of that shape

    Raises
    ------
    ValueError
        If the file cannot be read, is of another kind, truncated or damaged, or if the matrix does not have
        two dimensions with at least 4 rows and 2 features of finite numbers.
    """
    with untrusted("data", path, {".npy": "a NumPy array of numbers", ".npz": "a SciPy sparse matrix"}) as target:
        rows = read_sparse(target) if target.suffix.lower() == ".npz" else _read_dense(target)
    entries = rows.data if scipy.sparse.issparse(rows) else rows
    if rows.ndim != 2:
        raise ValueError(f"data in {path} has {rows.ndim} dimensions; allowed: 2, rows x features")
    if rows.shape[0] < 4 or rows.shape[1] < 2:
        raise ValueError(f"data in {path} has shape {tuple(rows.shape)}; allowed: at least 4 rows and 2 features")
    if not np.isfinite(entries).all():
        raise ValueError(f"data in {path} holds NaN or infinity; allowed: finite numbers")
    sizes = np.abs(entries[entries != 0])
    if sizes.size and not (sizes.min() >= checks.SMALLEST and sizes.max() <= checks.LARGEST):
        raise ValueError(
            f"data in {path} holds sizes from {sizes.min():g} to {sizes.max():g}; "
            f"allowed: 0, and from {checks.SMALLEST:g} to {checks.LARGEST:g}"
        )
    return rows


def _read_dense(path: Path) -> NDArray[np.float64]:
    # Mapped, not read: a file shorter than its header says fails here, before memory is taken.
    mapped = np.lib.format.open_memmap(path, mode="r")
    check_numeric(mapped.dtype)
    return np.array(mapped, dtype=np.float64, order="C")
