"""Arrays in .npy and .npz files, whose sizes are checked before memory is taken."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug._support import checks, files

# More than this is unpacked by no file that is read at once.
_MOST_UNPACKED = 8 << 30
# Zeros are packed to a thousandth, entries of a real matrix with their places rarely below a fiftieth: what is
# small when it is unpacked may be packed as it likes, and else a file must have a byte for so many that it takes.
_FREELY_UNPACKED = 1 << 28
_UNPACKED_A_BYTE = 64
# Every row or feature takes memory, of a sparse matrix even if nothing is stored in it. A million may be empty (as
# many as hashes have by default); beyond that a file which has less than a byte for each says nothing of most.
_FREELY_CLAIMED = 1 << 20
# Of the header of an array, in bytes, which NumPy would read whole before it refuses it.
_MOST_HEADER = 1 << 16
_FORMATS: dict[str, Any] = {
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_array,
    "bsr": scipy.sparse.bsr_array,
    "dia": scipy.sparse.dia_array,
    "coo": scipy.sparse.coo_array,
}


def check_numeric(dtype: np.dtype[np.generic]) -> None:
    """ValueError unless it is a type of real numbers."""
    if dtype.kind not in "biuf":
        raise ValueError(f"its entries are of type {dtype}")


def check_claim(what: str, claimed: int, size: int) -> None:
    """ValueError if a file of so many bytes claims more rows or features than it can say anything of."""
    most = max(_FREELY_CLAIMED, size)
    if claimed > most:
        raise ValueError(f"it claims {claimed} {what}, too many for its {size} bytes; allowed: up to {most}")


def check_unpacked(unpacked: int, size: int) -> None:
    """ValueError if a file of so many bytes unpacks to more than may be read at once."""
    most = min(_MOST_UNPACKED, max(_FREELY_UNPACKED, _UNPACKED_A_BYTE * size))
    if unpacked > most:
        raise ValueError(f"it unpacks to {unpacked} bytes, too many for its {size} bytes; allowed: up to {most}")


def read_sparse(path: Path) -> scipy.sparse.csr_array:
    """A SciPy sparse matrix of any format, at once; any exception where the file is not one."""
    kind, shape, types = sparse_parts(path)
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        check_unpacked(sum(entry.file_size for entry in archive.infolist()), size)
    for what, side in zip(("rows", "features"), shape, strict=True):
        check_claim(what, side, size)
    for name in ("indices", "indptr", "row", "col", "coords", "offsets"):
        if name in types and types[name].kind not in "iu":
            raise ValueError(f"its {name} are of type {types[name]}")
    if kind not in _FORMATS:
        raise ValueError(f"its format is {kind!r}")
    check_numeric(types["data"])
    with np.load(path) as parts:
        # In floats before entries that are stored in parts are added up.
        data = parts["data"].astype(np.float64)
        if kind == "dia":
            places: Any = (parts["offsets"],)
        elif kind == "coo":
            places = (tuple(parts["coords"]) if "coords" in parts else (parts["row"], parts["col"]),)
        else:
            places = (parts["indices"], parts["indptr"])
    matrix = _FORMATS[kind]((data, *places), shape=shape)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    rows = scipy.sparse.csr_array(matrix)
    rows.sum_duplicates()
    return rows


def names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file; any exception where it is none."""
    with zipfile.ZipFile(path) as archive:
        return [entry.filename.removesuffix(".npy") for entry in archive.infolist()]


def read_arrays(path: Path, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """Those arrays of an .npz file that are wanted and there; any exception where they cannot be read."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        found = [name for name in wanted if name in entries]
        for name in found:
            header(archive, entries[name])
        check_unpacked(sum(entries[name].file_size for name in found), path.stat().st_size)
    with np.load(path) as parts:
        return {name: parts[name] for name in found}


def write_arrays(path: str | os.PathLike[str], parts: dict[str, Any]) -> None:
    """Write an .npz file, whole, or leave what was there.

    Raises
    ------
    ValueError
        If the name has another ending, or the file cannot be written.
    """
    if not os.fspath(checks.path("path", path)).lower().endswith(".npz"):
        raise ValueError(f"path is {checks.shown(os.fspath(path))}; allowed: a name that ends in .npz")
    with files.whole_file(path) as file:
        np.savez_compressed(file, **parts)


def sparse_parts(path: Path) -> tuple[str, tuple[int, int], dict[str, np.dtype[np.generic]]]:
    """Format and shape of a SciPy sparse matrix, and the types of its arrays; any exception where it is none."""
    with zipfile.ZipFile(path) as archive:
        types = {entry.filename.removesuffix(".npy"): header(archive, entry) for entry in archive.infolist()}
        if not {"format", "shape"} <= types.keys():
            raise ValueError("it holds no SciPy sparse matrix")
        for name in ("format", "shape"):
            if (size := archive.getinfo(f"{name}.npy").file_size) > 2 * _MOST_HEADER:
                raise ValueError(f"its {name} has {size} bytes")
    with np.load(path) as parts:
        kind = parts["format"].item()
        shape = tuple(int(side) for side in parts["shape"])
    if len(shape) != 2:
        raise ValueError(f"it has {len(shape)} dimensions; allowed: 2, rows x features")
    return kind.decode() if isinstance(kind, bytes) else str(kind), (shape[0], shape[1]), types


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape of the array that a stream starts with in the .npy format, whether it is by columns, and its type."""
    version = np.lib.format.read_magic(file)
    read, layout = np.lib.format.read_array_header_2_0, struct.Struct("<I")
    if version == (1, 0):
        read, layout = np.lib.format.read_array_header_1_0, struct.Struct("<H")
    start = _exactly(file, layout.size)
    (length,) = layout.unpack(start)
    if length > _MOST_HEADER:
        raise ValueError(f"its header claims {length} bytes")
    shape, by_columns, dtype = read(io.BytesIO(start + _exactly(file, length)))
    return shape, by_columns, dtype


def _exactly(file: Any, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = file.read(size - len(content))
        if not part:
            raise ValueError("it ends within its header")
        content += part
    return content


def header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.dtype[np.generic]:
    """The type of an array in an archive, whose size must be what its header says."""
    with archive.open(entry) as file:
        shape, _, dtype = npy_header(file)
        if dtype.hasobject:
            raise ValueError(f"its part {entry.filename} holds Python objects")
        if file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError(f"its part {entry.filename} has not the size that its header says")
    return dtype
