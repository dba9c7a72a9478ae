"""Rows of data in files of every kind, read and written in blocks: memory is bounded whatever a file's size."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.files import untrusted
from persianrug._support.npy import (
    check_claim,
    check_numeric,
    check_unpacked,
    header,
    npy_header,
    read_sparse,
    sparse_parts,
)
from persianrug._support.sparse import float_type
from persianrug.sketches.h5ad import H5adFile
from persianrug.sketches.row_streams import array_header, arrays, csr_blocks, sides, whole

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
# Bytes that are copied at once.
_COPIED = 1 << 17


@dataclass(frozen=True)
class RowFile:
    """Rows of a file or pipe, read in blocks.

    Attributes
    ----------
    path : str
    rows, n_sparse : int
    names : tuple of str, or None
        Of the features, where the file has them.
    labels : array (rows,), or None
        What the column that was asked for says of each row.
    """

    path: str
    rows: int
    n_sparse: int
    names: tuple[str, ...] | None = field(repr=False)
    _read: Callable[[int], Iterator[Any]] = field(repr=False)
    _piped: bool = field(default=False, repr=False)
    _row_names: Callable[[int], Iterator[list[str]]] | None = field(default=None, repr=False)
    labels: Any = field(default=None, repr=False)

    @property
    def named(self) -> bool:
        """Whether it has names of its rows."""
        return self._row_names is not None

    def blocks_of_names(self) -> Iterator[tuple[str, ...] | None]:
        """Names of the rows of each of the `blocks`, or None for each where the file has none.

        Raises
        ------
        ValueError
            As `blocks`.
        """
        step = max(1, _BLOCK // self.n_sparse)
        blocks = None if self._row_names is None else self._row_names(step)
        for start in range(0, self.rows, step):
            if blocks is None:
                yield None
                continue
            with _reading(self.path, self._piped):
                names = tuple(next(blocks))
                if len(names) != min(step, self.rows - start):
                    raise ValueError(f"rows from {start} on have {len(names)} names")
            yield names

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
                    raise ValueError(_not_finite(block, start, self.names))
            yield block
            start += block.shape[0]


def _not_finite(block: Any, start: int, names: tuple[str, ...] | None) -> str:
    """What is said of a block of rows that holds what is no finite number: where the first is."""
    if hasattr(block, "tocoo"):
        parts = block.tocoo()
        wrong = np.flatnonzero(~np.isfinite(parts.data))
        first = wrong[np.lexsort((parts.col[wrong], parts.row[wrong]))[0]]
        row, column, value = int(parts.row[first]), int(parts.col[first]), parts.data[first]
    else:
        row, column = (int(place) for place in np.argwhere(~np.isfinite(block))[0])
        value = block[row, column]
    named = "" if names is None else f" ({names[column]})"
    return f"row {start + row} holds {value} in column {column}{named}; allowed: finite numbers"


def open_rows(
    path: str | os.PathLike[str],
    pipe: BinaryIO | None = None,
    layer: str | None = None,
    column: str | None = None,
) -> RowFile:
    """The rows of a file: .npy, .npz, .h5ad, .parquet or .safetensors; or of a pipe with a .npy array, once.

    Arrays, and sparse matrices by rows (csr), are read as they are needed; sparse ones of other formats at once.
    Pickles are not read, and sizes are checked before memory is allocated.

    Parameters
    ----------
    path : path
        What messages call the pipe, if there is one.
    pipe : binary file, optional
    layer : str, optional
        Of a .h5ad file, in place of its matrix X.
    column : str, optional
        Of a .h5ad file's obs, or of a .parquet file, where it is no feature: what is said of each row.

    Raises
    ------
    ValueError
        If the file cannot be read, is of another kind, truncated or damaged, or has no rows of 2 features.
    """
    if pipe is None:
        checks.path("path", path)
    if layer is not None and (pipe is not None or Path(path).suffix.lower() != ".h5ad"):
        raise ValueError(
            f"layer is {checks.shown(layer)}; allowed with a .h5ad file alone, and the data is {path}"
        )
    suffix = Path(path).suffix.lower()
    if column is not None and (pipe is not None or suffix not in (".h5ad", ".parquet")):
        raise ValueError(
            f"column is {checks.shown(column)}; allowed with .h5ad and .parquet files, and the data is {path}"
        )
    with _reading(path, pipe is not None):
        if pipe is not None:
            opened = _open_pipe(pipe)
        elif suffix == ".h5ad":
            opened = _open_h5ad(Path(path), layer, column)
        elif suffix == ".parquet":
            opened = _open_parquet(Path(path), column)
        else:
            opened = _OPEN[suffix](Path(path))
        rows, n_sparse = opened.rows, opened.n_sparse
        if rows < 1 or n_sparse < 2:
            raise ValueError(f"its shape is {(rows, n_sparse)}; allowed: at least one row and 2 features")
    return RowFile(
        str(path), rows, n_sparse, opened.names, opened.read, pipe is not None, opened.row_names, opened.labels
    )


def read_rows(path: str | os.PathLike[str]) -> NDArray[np.float64] | scipy.sparse.csr_array:
    """All rows of a file of any kind that `open_rows` takes, at once, for a source to be fitted to.

    Returns
    -------
    rows : float64 array (rows, features), or a csr_array of that shape

    Raises
    ------
    ValueError
        As `open_rows`, or if there are fewer than 4 rows, or numbers are beyond 1e30 or, but for 0, below 1e-30.
    """
    opened = open_rows(path)
    if opened.rows < 4:
        shape = opened.rows, opened.n_sparse
        raise ValueError(f"data in {path} has shape {shape}; allowed: at least 4 rows and 2 features")
    blocks: list[Any] = []
    unpacked, size = 0, Path(path).stat().st_size
    for block in opened.blocks():
        parts = (block.data, block.indices, block.indptr) if hasattr(block, "tocsr") else (block,)
        unpacked += sum(part.nbytes for part in parts)
        with _reading(path, piped=False):
            check_unpacked(unpacked, size)
        blocks.append(block)
    sparse = hasattr(blocks[0], "tocsr")
    rows = scipy.sparse.vstack(blocks, format="csr") if sparse else np.concatenate(blocks)
    rows = rows.astype(np.float64, copy=False)
    entries = rows.data if sparse else rows
    sizes = np.abs(entries[entries != 0])
    if sizes.size and not (sizes.min() >= checks.SMALLEST and sizes.max() <= checks.LARGEST):
        raise ValueError(
            f"data in {path} holds sizes from {sizes.min():g} to {sizes.max():g}; "
            f"allowed: 0, and from {checks.SMALLEST:g} to {checks.LARGEST:g}"
        )
    return rows


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


class _Opened(NamedTuple):
    """What is known of rows before they are read, and how they and their names are, so many at a time."""

    rows: int
    n_sparse: int
    names: tuple[str, ...] | None
    read: Callable[[int], Iterator[Any]]
    row_names: Callable[[int], Iterator[list[str]]] | None = None
    labels: Any = None


def _open_npy(path: Path) -> _Opened:
    # Mapped, not read: a file shorter than its header says fails here, before memory is taken.
    mapped = np.lib.format.open_memmap(path, mode="r")
    check_numeric(mapped.dtype)
    rows, n_sparse = sides(mapped.shape)
    by_rows, offset = mapped.flags.c_contiguous, mapped.offset

    def read(step: int) -> Iterator[Any]:
        # Read, not mapped: pages that were mapped count as memory until others need it.
        with path.open("rb") as file:
            file.seek(offset)
            of_file = arrays if by_rows else _by_columns
            yield from of_file(file, rows, n_sparse, mapped.dtype, step)

    return _Opened(rows, n_sparse, None, read)


def _by_columns(file: Any, rows: int, n_sparse: int, dtype: np.dtype[Any], step: int) -> Iterator[Any]:
    """As `arrays`, of a file that goes on with column after column."""
    begin = file.tell()
    for start in range(0, rows, step):
        columns = []
        for column in range(n_sparse):
            file.seek(begin + (column * rows + start) * dtype.itemsize)
            columns.append(np.frombuffer(whole(file, min(step, rows - start) * dtype.itemsize), dtype))
        yield np.column_stack(columns)


def _open_pipe(pipe: BinaryIO) -> _Opened:
    rows, n_sparse, dtype, by_columns = array_header(pipe)
    if by_columns:
        raise ValueError("its array is stored by columns; allowed: by rows, as np.ascontiguousarray gives it")
    row_bytes = n_sparse * dtype.itemsize
    if row_bytes > _MOST_ROW:
        raise ValueError(f"it claims rows of {row_bytes} bytes; allowed: up to {_MOST_ROW}")
    return _Opened(rows, n_sparse, None, lambda step: arrays(pipe, rows, n_sparse, dtype, step))


def _open_npz(path: Path) -> _Opened:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for entry in archive.infolist():
            header(archive, entry)
    if {"format.npy", "shape.npy"} <= set(names):
        return _open_sparse(path)
    if len(names) != 1:
        found = ", ".join(name.removesuffix(".npy") for name in names) or "nothing"
        raise ValueError(f"it holds {found}; allowed: one array, or a SciPy sparse matrix")
    with zipfile.ZipFile(path) as archive, archive.open(names[0]) as file:
        rows, n_sparse, dtype, by_columns = array_header(file)
    check_claim("features", n_sparse, path.stat().st_size)

    def read(step: int) -> Iterator[Any]:
        with zipfile.ZipFile(path) as archive, archive.open(names[0]) as file:
            npy_header(file)
            if not by_columns:
                yield from arrays(file, rows, n_sparse, dtype, step)
                return
            # Its first row ends where its last column does: it is unpacked to a file, of which zeros take no part.
            with tempfile.TemporaryFile() as unpacked:
                _unpack(file, unpacked, rows * n_sparse * dtype.itemsize)
                yield from _by_columns(unpacked, rows, n_sparse, dtype, step)

    return _Opened(rows, n_sparse, None, read)


def _unpack(packed: Any, file: Any, size: int) -> None:
    for start in range(0, size, _COPIED):
        content = whole(packed, min(_COPIED, size - start))
        if content.count(0) < len(content):
            file.seek(start)
            file.write(content)
    file.truncate(size)
    file.seek(0)


def _open_sparse(path: Path) -> _Opened:
    kind, (rows, n_sparse), types = sparse_parts(path)
    size = path.stat().st_size
    if kind != "csr":
        matrix = read_sparse(path)

        def read_at_once(step: int) -> Iterator[Any]:
            for start in range(0, rows, step):
                yield matrix[start : start + step]

        return _Opened(rows, n_sparse, None, read_at_once)
    names = ("indptr", "indices", "data")
    with zipfile.ZipFile(path) as archive:
        for name in names:
            with archive.open(f"{name}.npy") as file:
                shape, _, _ = npy_header(file)
                if len(shape) != 1 or (name == "indptr" and shape != (rows + 1,)):
                    raise ValueError(f"its {name} have shape {shape}, which does not fit its {rows} rows")
    if types["indptr"].kind not in "iu" or types["indices"].kind not in "iu":
        raise ValueError(f"its indices are of type {types['indices']}")
    check_numeric(types["data"])
    check_claim("features", n_sparse, size)

    def read(step: int) -> Iterator[Any]:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            files = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            for file in files.values():
                npy_header(file)

            def take(name: str, count: int) -> Any:
                return np.frombuffer(whole(files[name], count * types[name].itemsize), dtype=types[name])

            yield from csr_blocks(take, rows, n_sparse, step, size)

    return _Opened(rows, n_sparse, None, read)


def _open_h5ad(path: Path, layer: str | None, column: str | None) -> _Opened:
    file = H5adFile(path, layer)
    labels = None if column is None else file.labels(column)
    return _Opened(file.rows, file.n_sparse, file.names, file.read, file.row_names, labels)


def _open_parquet(path: Path, label: str | None) -> _Opened:
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path, memory_map=False)
    groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    sizes = (group.column(place).total_uncompressed_size for group in groups for place in range(group.num_columns))
    check_unpacked(max(sizes, default=0), path.stat().st_size)
    # What pandas wrote as its index is no feature.
    index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", ())
    if label is not None and label not in file.schema_arrow.names:
        raise ValueError(f"it has no column {label!r}; allowed: one of its {len(file.schema_arrow.names)} columns")
    columns = [column for column in file.schema_arrow if column.name not in (*index, label)]
    for column in columns:
        kind = column.type
        if not (
            pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
        ):
            raise ValueError(f"its column {column.name!r} is of type {kind}; allowed: columns of numbers alone")
    names = tuple(str(column.name) for column in columns)
    # Of several, or one that is counted and not stored, none is a name.
    indices = [name for name in index if isinstance(name, str)] if len(index) == 1 else []
    if indices or label is not None:
        check_claim("rows", file.metadata.num_rows, path.stat().st_size)

    def row_names(step: int) -> Iterator[list[str]]:
        for batch in file.iter_batches(batch_size=step, columns=indices):
            yield [str(name) for name in batch.column(0).to_pylist()]

    def read(step: int) -> Iterator[Any]:
        for batch in file.iter_batches(batch_size=step, columns=list(names)):
            empty = [name for name, column in zip(names, batch.columns, strict=True) if column.null_count]
            if empty:
                raise ValueError(f"its column {empty[0]!r} has missing values; allowed: numbers")
            yield np.column_stack([column.to_numpy(zero_copy_only=False) for column in batch.columns])

    labels = None if label is None else np.array(list(map(str, file.read([label]).column(0).to_pylist())))
    return _Opened(file.metadata.num_rows, len(names), names, read, row_names if indices else None, labels)


def _open_safetensors(path: Path) -> _Opened:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if len(names) != 1:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}; allowed: one tensor, rows x features")
        rows, n_sparse = sides(tuple(file.get_slice(names[0]).get_shape()))

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

    return _Opened(rows, n_sparse, None, read)


_OPEN: dict[str, Callable[[Path], _Opened]] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
}


def _floats(block: Any) -> Any:
    """A block in floats."""
    check_numeric(block.dtype)
    return block.astype(float_type(block.dtype), copy=False)
