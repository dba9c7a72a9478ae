"""Rows written to files of other programs, in blocks."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from persianrug._support import checks
from persianrug._support.files import check_writable, whole_file
from persianrug.sketches.h5ad import h5py, write_h5ad
from persianrug.sketches.parquet import TableWriter

WRITTEN = (".npz", ".npy", ".h5ad", ".parquet")
_SPARSE = (".npz", ".h5ad")


class RowWriter:
    """Writes blocks of rows to a file, whole or not at all, and their names where its kind has some.

    A .npz or .h5ad file holds a sparse matrix, a .npy file an array, a .parquet file a column a feature. Use it as
    a context manager.

    Parameters
    ----------
    path : path
    n_sparse : int
        Number of features.
    dtype : dtype
    least : float >= 0
        In a sparse matrix, entries of a smaller size are zeros.
    names : sequence of str, optional
        Of the features; by default their numbers.
    named : bool
        Whether rows have names, too, which `write` is given with them.

    Raises
    ------
    ValueError
        If the path ends in something else, its folder is missing or not writable, or a module is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_sparse: int,
        dtype: Any,
        least: float = 0.0,
        names: Sequence[str] | None = None,
        named: bool = False,
    ) -> None:
        self._target = check_writable(path)
        self._kind = checks.one_of("the ending of --out", self._target.suffix.lower(), WRITTEN)
        if self._kind == ".h5ad":
            h5py()
        self._n_sparse, self._dtype, self.rows = n_sparse, np.dtype(dtype).newbyteorder("<"), 0
        self._least = least
        self._names = [str(place) for place in range(n_sparse)] if names is None else list(names)
        self._row_names: list[str] | None = [] if named else None
        self._parts: list[Any] = []
        self._table: Any = None

    def __enter__(self) -> Self:
        # Without a name, beside the target: gone with the process, however that ends.
        folder = self._target.parent
        count = 3 if self._kind in _SPARSE else 1
        self._parts = [tempfile.TemporaryFile(dir=folder) for _ in range(count)]  # noqa: SIM115
        self._entries = 0
        if self._kind == ".parquet":
            self._table = TableWriter(self._parts[0], self._names, self._dtype, self._row_names is not None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with whole_file(self._target) as file:
                    self._finish(file)
        finally:
            if self._table is not None:
                self._table.close()
            for part in self._parts:
                part.close()

    def write(self, rows: Any, names: Sequence[str] | None = None) -> None:
        """Add rows (k, n_sparse), an array, and their names."""
        self.rows += len(rows)
        if self._kind == ".parquet":
            self._table.write(rows, names)
            return
        if self._row_names is not None:
            self._row_names.extend(names or ())
        if self._kind == ".npy":
            self._parts[0].write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
            return
        data, indices, ends = self._parts
        # Of booleans, which are found much faster than numbers.
        place = np.flatnonzero(np.abs(rows) >= self._least if self._least else rows != 0)
        row, column = np.divmod(place, self._n_sparse)
        data.write(rows.ravel()[place].astype(self._dtype).tobytes())
        indices.write(column.astype("<i4").tobytes())
        counts = np.cumsum(np.bincount(row, minlength=len(rows))) + self._entries
        ends.write(counts.astype("<i8").tobytes())
        self._entries = int(counts[-1]) if len(counts) else self._entries

    def _finish(self, file: Any) -> None:
        if self._kind == ".parquet":
            self._table.close()
            self._copy(self._parts[0], file)
            return
        if self._kind == ".npy":
            _write_header(file, (self.rows, self._n_sparse), self._dtype)
            self._copy(self._parts[0], file)
            return
        data, indices, ends = self._parts
        arrays = (
            ("data", data, self._entries, self._dtype),
            ("indices", indices, self._entries, np.dtype("<i4")),
            ("indptr", ends, self.rows, np.dtype("<i8")),
        )
        if self._kind == ".h5ad":
            write_h5ad(file, (self.rows, self._n_sparse), arrays, self._row_names, self._names)
            return
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, part, length, dtype in arrays:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_header(member, (length + (name == "indptr"),), dtype)
                    if name == "indptr":
                        member.write(bytes(8))
                    self._copy(part, member)
            shape = np.array([self.rows, self._n_sparse], dtype="<i8")
            for name, value in (("shape", shape), ("format", np.array(b"csr")), ("_is_array", np.array(True))):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)

    @staticmethod
    def _copy(part: Any, file: Any) -> None:
        part.seek(0)
        shutil.copyfileobj(part, file, 1 << 20)


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
