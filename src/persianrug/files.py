"""Files: written whole or not at all, and read without trust."""

from __future__ import annotations

import math
import os
import secrets
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug import _checks

# A compressed file may claim any size; more than this is not unpacked.
_MOST_UNPACKED = 8 << 30
# Rows or features that a sparse matrix may claim however few entries it has.
_MOST_EMPTY = 10_000_000


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be written, before any work is done for it.

    Raises
    ------
    ValueError
        If its folder is missing or not writable, or it exists and is no regular file.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise ValueError(f"output {path} is not a regular file; allowed: a new or an existing file")
    # Behind a symbolic link, so that the link stays one.
    target = target.resolve()
    if not target.parent.is_dir():
        raise ValueError(f"output folder {target.parent} is missing; allowed: an existing folder")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(f"output folder {target.parent} is not writable; allowed: a writable folder")
    return target


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to under a temporary name beside the path, renamed in the end: whole, or as it was before.

    Raises
    ------
    ValueError
        As `check_writable`.
    OSError
        If writing fails.
    """
    target = check_writable(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file at once, as `whole_file`; errors as there."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def untrusted(what: str, path: str | os.PathLike[str], kinds: dict[str, str]) -> Iterator[Path]:
    """The path of a file from outside, while it is read: whatever that raises, a ValueError says of which file.

    Parameters
    ----------
    what : str
        What messages call the file.
    path : str or path
    kinds : dict
        The endings that are allowed, and what a file of each holds.

    Raises
    ------
    ValueError
        If the file has another ending, is no regular file, or anything is raised while it is read.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in kinds:
        raise ValueError(f"{what} file {path} ends in {suffix or 'nothing'}; allowed: {', '.join(kinds)}")
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise ValueError("it is not a regular file")
        # Whatever a damaged or forged file makes libraries raise, or warn of, is the file's fault.
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            yield target
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        hint = "" if "allowed: " in reason else f"; allowed: {kinds[suffix]}, without pickles"
        raise ValueError(f"{what} file {path} cannot be read: {reason}{hint}") from None


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
    if sizes.size and not (sizes.min() >= _checks.SMALLEST and sizes.max() <= _checks.LARGEST):
        raise ValueError(
            f"data in {path} holds sizes from {sizes.min():g} to {sizes.max():g}; "
            f"allowed: 0, and from {_checks.SMALLEST:g} to {_checks.LARGEST:g}"
        )
    return rows


def check_numeric(dtype: np.dtype[np.generic]) -> None:
    """ValueError unless it is a type of real numbers."""
    if dtype.kind not in "biuf":
        raise ValueError(f"its entries are of type {dtype}")


def _read_dense(path: Path) -> NDArray[np.float64]:
    # Mapped, not read: a file shorter than its header says fails here, before memory is taken.
    mapped = np.lib.format.open_memmap(path, mode="r")
    check_numeric(mapped.dtype)
    return np.array(mapped, dtype=np.float64, order="C")


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
