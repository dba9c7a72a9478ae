"""AnnData objects in .h5ad files, of which no more is read than their matrix and their names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scipy.sparse

from persianrug._support.extras import installing
from persianrug._support.npy import check_claim, check_numeric, check_unpacked
from persianrug._support.sparse import by_rows
from persianrug.sketches.row_streams import csr_blocks, sides

# Of a chunk, which is unpacked whole, in bytes.
_MOST_CHUNK = 1 << 28


def h5py() -> Any:
    """The module, or a ValueError that says how to install it."""
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"h5py is not installed; allowed: {installing('anndata')}, or another kind of file"
        ) from None
    return h5py


class H5adFile:
    """Rows of a matrix in a .h5ad file.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        with h5py().File(path) as file:
            matrix = self._matrix(file)
            self._kind = _kind(matrix)
            if self._kind == "array":
                self.rows, self.n_sparse = sides(matrix.shape)
            else:
                self.rows, self.n_sparse = sides(matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape")))
                self._check_sparse(matrix)
            check_numeric(self._checked(matrix if self._kind == "array" else matrix["data"]).dtype)
            check_claim("rows", self.rows, self._size)
            check_claim("features", self.n_sparse, self._size)
            self.names = tuple(_texts(self._names(file["var"], self.n_sparse)[:]))

    def read(self, step: int) -> Iterator[Any]:
        """Blocks of so many rows."""
        with h5py().File(self._path) as file:
            matrix = self._matrix(file)
            if self._kind == "array":
                for start in range(0, self.rows, step):
                    yield matrix[start : start + step]
            elif self._kind == "csr":
                read = {"indptr": 0, "indices": 0, "data": 0}

                def take(name: str, count: int) -> Any:
                    read[name] += count
                    return matrix[name][read[name] - count : read[name]]

                yield from csr_blocks(take, self.rows, self.n_sparse, step, self._size)
            else:
                whole = self._by_columns(matrix)
                for start in range(0, self.rows, step):
                    yield whole[start : start + step]

    def _matrix(self, file: Any) -> Any:
        if "X" not in file:
            raise ValueError("it holds no matrix X")
        return file["X"]

    def _check_sparse(self, matrix: Any) -> None:
        """ValueError unless the arrays of a sparse matrix have the sizes that fit its shape."""
        parts = {name: self._checked(matrix[name]) for name in ("indptr", "indices", "data")}
        length = 1 + (self.rows if self._kind == "csr" else self.n_sparse)
        if parts["indptr"].shape != (length,) or parts["indices"].shape != parts["data"].shape:
            raise ValueError("its parts have shapes that do not fit each other")
        for name in ("indptr", "indices"):
            if parts[name].dtype.kind not in "iu":
                raise ValueError(f"its {name} are of type {parts[name].dtype}")

    def _checked(self, data: Any) -> Any:
        """An array in the file, of which a chunk is unpacked whole."""
        chunk = math.prod(data.chunks or (0,)) * data.dtype.itemsize
        if chunk > _MOST_CHUNK:
            raise ValueError(f"it is stored in chunks of {chunk} bytes; allowed: up to {_MOST_CHUNK}")
        return data

    def _by_columns(self, matrix: Any) -> scipy.sparse.csr_array:
        parts = [matrix[name] for name in ("data", "indices", "indptr")]
        check_unpacked(sum(part.size * part.dtype.itemsize for part in parts), self._size)
        columns = scipy.sparse.csc_array(tuple(part[:] for part in parts), shape=(self.rows, self.n_sparse))
        columns.check_format(full_check=True)
        whole = scipy.sparse.csr_array(by_rows(columns))
        whole.sum_duplicates()
        return whole

    def _names(self, table: Any, count: int) -> Any:
        """Names of rows or features, as they are in the file."""
        if hasattr(table, "keys"):
            names = held = table[table.attrs.get("_index", "_index")]
            if hasattr(names, "keys"):
                # Which are missing, as none is here, is beside them.
                names = held = names["values"]
        else:
            # As AnnData wrote before 0.7.
            names, held = table.fields("index"), table
        if held.shape != (count,):
            raise ValueError(f"its names have shape {held.shape}, which does not fit its {count} rows or features")
        self._checked(held)
        check_unpacked(held.size * held.dtype.itemsize, self._size)
        return names


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]


def _kind(matrix: Any) -> str:
    """array, csr or csc."""
    if not hasattr(matrix, "keys"):
        return "array"
    kind = str(matrix.attrs.get("encoding-type", matrix.attrs.get("h5sparse_format"))).removesuffix("_matrix")
    if kind not in ("csr", "csc"):
        raise ValueError(f"its matrix is of the kind {kind}; allowed: an array, or a sparse matrix, csr or csc")
    return kind
