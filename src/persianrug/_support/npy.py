"""Arrays in .npy and .npz files, whose sizes are checked before memory is taken."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

# A compressed file may claim any size; more than this is not unpacked.
_MOST_UNPACKED = 8 << 30
# Rows or features that a sparse matrix may claim however few entries it has.
_MOST_EMPTY = 10_000_000


def check_numeric(dtype: np.dtype[np.generic]) -> None:
    """ValueError unless it is a type of real numbers."""
    if dtype.kind not in "biuf":
        raise ValueError(f"its entries are of type {dtype}")


def read_sparse(path: Path) -> scipy.sparse.csr_array:
    """A SciPy sparse matrix of any format, at once; any exception where the file is not one."""
    with zipfile.ZipFile(path) as archive:
        headers = {entry.filename: header(archive, entry) for entry in archive.infolist()}
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MOST_UNPACKED:
        raise ValueError(f"it unpacks to {unpacked} bytes, more than {_MOST_UNPACKED}")
    if not {"format.npy", "shape.npy"} <= headers.keys():
        raise ValueError("it holds no SciPy sparse matrix")
    for name in ("indices", "indptr", "row", "col", "offsets"):
        if f"{name}.npy" in headers and headers[f"{name}.npy"].kind not in "iu":
            raise ValueError(f"its {name} are of type {headers[f'{name}.npy']}")
    with np.load(path) as parts:
        shape = tuple(int(side) for side in parts["shape"])
    # A matrix of a few entries may claim any shape, and every row takes memory.
    if max(shape, default=0) > max(_MOST_EMPTY, unpacked):
        raise ValueError(f"its shape is {shape}, too large for its {unpacked} bytes")
    matrix = scipy.sparse.load_npz(path)
    check_numeric(matrix.dtype)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    rows = scipy.sparse.csr_array(matrix).astype(np.float64)
    rows.sum_duplicates()
    return rows


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape of the array that a stream starts with in the .npy format, whether it is by columns, and its type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    return shape, by_columns, dtype


def header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.dtype[np.generic]:
    """The type of an array in an archive, whose size must be what its header says."""
    with archive.open(entry) as file:
        shape, _, dtype = npy_header(file)
        if file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError(f"its part {entry.filename} has not the size that its header says")
    return dtype
