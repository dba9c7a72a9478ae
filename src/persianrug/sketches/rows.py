"""Rows of data in files of every kind, read and written in blocks: memory is bounded whatever a file's size."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from persianrug._support.files import untrusted
from persianrug._support.npy import check_numeric, header, npy_header, read_sparse

KINDS = {
    ".npy": "a NumPy array of numbers",
    ".npz": "a SciPy sparse matrix or one array of numbers",
    ".h5ad": "an AnnData object",
    ".parquet": "columns of numbers",
    ".safetensors": "one tensor of rows",
}
# Entries of a block, zeros included.
_BLOCK = 1 << 22
# Of the largest array that a pipe may claim, in bytes a row.
_MOST_ROW = 1 << 33


@dataclass(frozen=True)
class RowFile:
    """Rows of a file or pipe, read in blocks.

    Attributes
    ----------
    path : str
    rows, n_sparse : int
    names : tuple of str, or None
        Of the features, where the file has them.
    """

    path: str
    rows: int
    n_sparse: int
    names: tuple[str, ...] | None = field(repr=False)
    _read: Callable[[int], Iterator[Any]] = field(repr=False)
    _piped: bool = field(default=False, repr=False)

    def blocks(self) -> Iterator[Any]:
        """Arrays or csr_arrays (rows, n_sparse) of float32 or float64, one after the other.

        Raises
        ------
        ValueError
            If the file is truncated or damaged, or holds what is no finite number.
        """
        blocks = self._read(max(1, _BLOCK // self.n_sparse))
        start = 0
        while start < self.rows:
            with _reading(self.path, self._piped):
                block = _floats(next(blocks))
                entries = block.data if hasattr(block, "tocsr") else block
                if not np.isfinite(entries).all():
                    raise ValueError(f"rows {start} to {start + block.shape[0]} hold NaN or infinity; allowed: "
                                     "finite numbers")  # fmt: skip
            yield block
            start += block.shape[0]


def open_rows(path: str | os.PathLike[str], pipe: BinaryIO | None = None) -> RowFile:
    """The rows of a file: .npy, .npz, .h5ad, .parquet or .safetensors; or of a pipe with a .npy array, once.

    Arrays, and sparse matrices by rows (csr), are read as they are needed; sparse ones of other formats at once.
    Pickles are not read, and sizes are checked before memory is allocated.

    Parameters
    ----------
    path : path
        What messages call the pipe, if there is one.
    pipe : binary file, optional

    Raises
    ------
    ValueError
        If the file cannot be read, is of another kind, truncated or damaged, or has no rows of 2 features.
    """
    with _reading(path, pipe is not None):
        if pipe is not None:
            rows, n_sparse, names, read = _open_pipe(pipe)
        else:
            rows, n_sparse, names, read = _OPEN[Path(path).suffix.lower()](Path(path))
        if rows < 1 or n_sparse < 2:
            raise ValueError(f"its shape is {(rows, n_sparse)}; allowed: at least one row and 2 features")
    return RowFile(str(path), rows, n_sparse, names, read, pipe is not None)


def _reading(path: str | os.PathLike[str], piped: bool) -> Any:
    if not piped:
        return untrusted("data", path, KINDS)
    return _Pipe(str(path))


class _Pipe:
    """As `untrusted`, for a pipe."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception):
            reason = " ".join(str(error).split()) or type(error).__name__
            hint = "" if "allowed: " in reason else "; allowed: a .npy array of numbers by rows, without pickles"
            raise ValueError(f"data from {self._name} cannot be read: {reason}{hint}") from None


_Opened = tuple[int, int, tuple[str, ...] | None, Callable[[int], Iterator[Any]]]


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"it has {len(shape)} dimensions; allowed: 2, rows x features")
    return int(shape[0]), int(shape[1])


def _open_npy(path: Path) -> _Opened:
    # Mapped, not read: a file shorter than its header says fails here, before memory is taken.
    mapped = np.lib.format.open_memmap(path, mode="r")
    check_numeric(mapped.dtype)
    rows, n_sparse = _matrix(mapped.shape)
    by_rows, offset = mapped.flags.c_contiguous, mapped.offset

    def read(step: int) -> Iterator[Any]:
        if not by_rows:
            for start in range(0, rows, step):
                yield np.array(mapped[start : start + step], order="C")
            return
        # Read, not mapped: pages that were mapped count as memory until others need it.
        with path.open("rb") as file:
            file.seek(offset)
            yield from _arrays(file, rows, n_sparse, mapped.dtype, step)

    return rows, n_sparse, None, read


def _open_pipe(pipe: BinaryIO) -> _Opened:
    rows, n_sparse, dtype = _array_by_rows(pipe)
    row_bytes = n_sparse * dtype.itemsize
    if row_bytes > _MOST_ROW:
        raise ValueError(f"it claims rows of {row_bytes} bytes; allowed: up to {_MOST_ROW}")
    return rows, n_sparse, None, lambda step: _arrays(pipe, rows, n_sparse, dtype, step)


def _open_npz(path: Path) -> _Opened:
    with zipfile.ZipFile(path) as archive:
        kinds = {entry.filename: header(archive, entry) for entry in archive.infolist()}
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    if {"format.npy", "shape.npy"} <= kinds.keys():
        return _open_sparse(path, sizes)
    if len(kinds) != 1:
        found = ", ".join(name.removesuffix(".npy") for name in kinds) or "nothing"
        raise ValueError(f"it holds {found}; allowed: one array, or a SciPy sparse matrix")
    (name,) = kinds
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        rows, n_sparse, dtype = _array_by_rows(file)

    def read(step: int) -> Iterator[Any]:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            npy_header(file)
            yield from _arrays(file, rows, n_sparse, dtype, step)

    return rows, n_sparse, None, read


def _open_sparse(path: Path, sizes: dict[str, int]) -> _Opened:
    with np.load(path) as parts:
        kind = str(
            parts["format"].item().decode() if parts["format"].dtype.kind == "S" else parts["format"].item()
        )
        rows, n_sparse = _matrix(tuple(int(side) for side in parts["shape"]))
    if kind != "csr":
        matrix = read_sparse(path)

        def read_at_once(step: int) -> Iterator[Any]:
            for start in range(0, rows, step):
                yield matrix[start : start + step]

        return rows, n_sparse, None, read_at_once
    names = ("indptr", "indices", "data")
    types = {}
    with zipfile.ZipFile(path) as archive:
        for name in names:
            with archive.open(f"{name}.npy") as file:
                shape, _, types[name] = npy_header(file)
                if len(shape) != 1 or (name == "indptr" and shape != (rows + 1,)):
                    raise ValueError(f"its {name} have shape {shape}, which does not fit its {rows} rows")
    if types["indptr"].kind not in "iu" or types["indices"].kind not in "iu":
        raise ValueError(f"its indices are of type {types['indices']}")
    check_numeric(types["data"])
    # A matrix of few entries may claim any width, and every feature takes memory.
    _check_claim(n_sparse, sum(sizes[f"{name}.npy"] for name in names))

    def read(step: int) -> Iterator[Any]:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            pointers, indices, data = (stack.enter_context(archive.open(f"{name}.npy")) for name in names)
            for file in (pointers, indices, data):
                npy_header(file)

            def take(file: Any, name: str, count: int) -> Any:
                return np.frombuffer(_whole(file, count * types[name].itemsize), dtype=types[name])

            last = int(take(pointers, "indptr", 1)[0])
            if last != 0:
                raise ValueError(f"its rows start at entry {last}")
            for start in range(0, rows, step):
                ends = take(pointers, "indptr", min(step, rows - start)).astype(np.int64)
                lengths = np.diff(ends, prepend=last)
                if (lengths < 0).any():
                    raise ValueError(f"its rows from {start} on have an impossible number of entries")
                count = int(ends[-1]) - last
                places = take(indices, "indices", count).astype(np.int64)
                block = scipy.sparse.csr_array(
                    (take(data, "data", count), places, np.concatenate([[0], np.cumsum(lengths)])),
                    shape=(len(ends), n_sparse),
                )
                block.check_format(full_check=True)
                block.sum_duplicates()
                yield block
                last = int(ends[-1])

    return rows, n_sparse, None, read


def _check_claim(n_sparse: int, size: int) -> None:
    most = max(10_000_000, size)
    if n_sparse > most:
        raise ValueError(f"it claims {n_sparse} features, too many for its {size} bytes")


def _open_h5ad(path: Path) -> _Opened:
    try:
        import anndata
    except ImportError:
        raise ValueError(
            "anndata is not installed; allowed: pip install 'persianrug[anndata]', or another kind of file"
        ) from None
    data = anndata.read_h5ad(path, backed="r")
    rows, n_sparse = data.shape
    names = tuple(str(name) for name in data.var_names)
    _check_claim(n_sparse, path.stat().st_size)

    def read(step: int) -> Iterator[Any]:
        for start in range(0, rows, step):
            part = data.X[start : start + step]
            sparse: Any = scipy.sparse.csr_array
            yield sparse(part) if hasattr(part, "tocsr") else np.asarray(part)

    return rows, n_sparse, names, read


def _open_parquet(path: Path) -> _Opened:
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path, memory_map=False)
    # What pandas wrote as its index is no feature.
    index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", ())
    columns = [column for column in file.schema_arrow if column.name not in index]
    for column in columns:
        kind = column.type
        if not (
            pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
        ):
            raise ValueError(f"its column {column.name!r} is of type {kind}; allowed: columns of numbers alone")
    names = tuple(str(column.name) for column in columns)

    def read(step: int) -> Iterator[Any]:
        for batch in file.iter_batches(batch_size=step, columns=list(names)):
            empty = [name for name, column in zip(names, batch.columns, strict=True) if column.null_count]
            if empty:
                raise ValueError(f"its column {empty[0]!r} has missing values; allowed: numbers")
            yield np.column_stack([column.to_numpy(zero_copy_only=False) for column in batch.columns])

    return file.metadata.num_rows, len(names), names, read


def _open_safetensors(path: Path) -> _Opened:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if len(names) != 1:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}; allowed: one tensor, rows x features")
        rows, n_sparse = _matrix(tuple(file.get_slice(names[0]).get_shape()))

    def read(step: int) -> Iterator[Any]:
        import torch

        with safe_open(path, framework="pt") as file:
            part = file.get_slice(names[0])
            for start in range(0, rows, step):
                block = part[start : start + step]
                if block.is_complex():
                    raise ValueError(f"its tensor is of type {block.dtype}")
                wide = block.dtype == torch.float64 or (not block.is_floating_point() and block.dtype.itemsize > 2)
                yield block.to(torch.float64 if wide else torch.float32).numpy()

    return rows, n_sparse, None, read


_OPEN: dict[str, Callable[[Path], _Opened]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".h5ad": _open_h5ad,
    ".parquet": _open_parquet,
    ".safetensors": _open_safetensors,
}


def _whole(file: Any, size: int) -> bytearray:
    """So many bytes, read in steps, so that a claim alone takes no memory."""
    content = bytearray()
    while len(content) < size:
        part = file.read(min(size - len(content), 1 << 24))
        if not part:
            raise ValueError("it ends before its last row")
        content += part
    return content


def _array_by_rows(file: Any) -> tuple[int, int, np.dtype[Any]]:
    """Rows, features and type of the array that a stream starts with in the .npy format."""
    shape, by_columns, dtype = npy_header(file)
    check_numeric(dtype)
    rows, n_sparse = _matrix(shape)
    if by_columns and rows > 1:
        raise ValueError("its array is stored by columns; allowed: by rows, as np.ascontiguousarray gives it")
    return rows, n_sparse, dtype


def _arrays(file: Any, rows: int, n_sparse: int, dtype: np.dtype[Any], step: int) -> Iterator[Any]:
    """The rows that a stream goes on with, so many at a time."""
    for start in range(0, rows, step):
        content = _whole(file, min(step, rows - start) * n_sparse * dtype.itemsize)
        yield np.frombuffer(content, dtype=dtype).reshape(-1, n_sparse)


def _floats(block: Any) -> Any:
    """A block in float32 where that is exact, and else in float64."""
    dtype = block.dtype.newbyteorder("=")
    check_numeric(dtype)
    exact = dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize <= 2) or dtype.itemsize <= 2
    target = np.float32 if dtype == np.float32 or exact else np.float64
    return block if block.dtype == target else block.astype(target)
