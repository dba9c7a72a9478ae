"""Rows as streams give them, block by block; whatever they claim, no more memory is taken than they fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse

from persianrug._support.npy import check_numeric, npy_header
from persianrug._support.sparse import by_rows

# Entries of a sparse block, which may be stored in parts, that no size of a file is asked for.
_FEW_ENTRIES = 1 << 22


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and features of an array of this shape."""
    if len(shape) != 2:
        raise ValueError(f"it has {len(shape)} dimensions; allowed: 2, rows x features")
    return int(shape[0]), int(shape[1])


def array_header(file: Any) -> tuple[int, int, np.dtype[Any], bool]:
    """Rows, features and type of the array that a stream starts with, as .npy, and if it is by columns."""
    shape, by_columns, dtype = npy_header(file)
    check_numeric(dtype)
    rows, n_sparse = sides(shape)
    # One row is the same either way.
    return rows, n_sparse, dtype, by_columns and rows > 1


def arrays(file: Any, rows: int, n_sparse: int, dtype: np.dtype[Any], step: int) -> Iterator[Any]:
    """The rows that a stream goes on with, so many at a time."""
    for start in range(0, rows, step):
        content = whole(file, min(step, rows - start) * n_sparse * dtype.itemsize)
        yield np.frombuffer(content, dtype=dtype).reshape(-1, n_sparse)


def whole(file: Any, size: int) -> bytearray:
    """So many bytes, read in steps, so that a claim alone takes no memory."""
    content = bytearray()
    while len(content) < size:
        part = file.read(min(size - len(content), 1 << 24))
        if not part:
            raise ValueError("it ends before its last row")
        content += part
    return content


def csr_blocks(
    take: Callable[[str, int], Any], rows: int, n_sparse: int, step: int, size: int
) -> Iterator[scipy.sparse.csr_array]:
    """Blocks of a matrix in the format csr, of a file of so many bytes.

    Parameters
    ----------
    take : callable
        Gives the next so many numbers of "indptr", "indices" or "data".
    """
    last = int(take("indptr", 1)[0])
    if last != 0:
        raise ValueError(f"its rows start at entry {last}")
    most = max(_FEW_ENTRIES, n_sparse, size)
    for start in range(0, rows, step):
        ends = take("indptr", min(step, rows - start)).astype(np.int64)
        lengths = np.diff(ends, prepend=last)
        if (lengths < 0).any():
            raise ValueError(f"its rows from {start} on have an impossible number of entries")
        count = int(ends[-1]) - last
        if count > most:
            raise ValueError(f"its rows from {start} on claim {count} entries, too many for its {size} bytes; "
                             f"allowed: up to {most}")  # fmt: skip
        places = take("indices", count).astype(np.int64)
        block = scipy.sparse.csr_array(
            (take("data", count), places, np.concatenate([[0], np.cumsum(lengths)])), shape=(len(ends), n_sparse)
        )
        block.check_format(full_check=True)
        block = by_rows(block)
        block.sum_duplicates()
        yield block
        last = int(ends[-1])
