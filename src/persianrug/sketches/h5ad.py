"""AnnData objects in .h5ad files, of which no more is read than their matrix and their names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from persianrug._support.extras import installing
from persianrug._support.npy import check_claim, check_numeric, check_unpacked
from persianrug._support.sparse import by_rows
from persianrug.sketches.row_streams import csr_blocks, sides

# Of a chunk, which is unpacked whole, in bytes.
_MOST_CHUNK = 1 << 28
# Numbers that are copied at once.
_COPIED = 1 << 16


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
    layer : str, optional
        By default the matrix X.
    """

    def __init__(self, path: Path, layer: str | None = None) -> None:
        self._path, self._size, self._layer = path, path.stat().st_size, layer
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
            self._names(file["obs"], self.rows)

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

    def row_names(self, step: int) -> Iterator[list[str]]:
        """Names of so many rows at a time."""
        with h5py().File(self._path) as file:
            names = self._names(file["obs"], self.rows)
            for start in range(0, self.rows, step):
                yield _texts(names[start : start + step])

    def labels(self, column: str) -> Any:
        """What a column of obs says of each row, as text, (rows,)."""
        with h5py().File(self._path) as file:
            obs = file["obs"]
            if not hasattr(obs, "keys"):
                raise ValueError("its obs is of before AnnData 0.7; allowed with a column: files of later ones")
            there = sorted(set(obs.keys()) - {obs.attrs.get("_index", "_index"), "__categories"})
            if column not in there:
                raise ValueError(
                    f"its obs has no column {column!r}; allowed: {', '.join(there) or 'none is there'}"
                )
            held = obs[column]
            if not hasattr(held, "keys"):
                return np.array(_texts(self._whole(held, self.rows)))
            if "values" in held:
                # Which are missing is beside them.
                return np.array(_texts(self._whole(held["values"], self.rows)))
            codes, categories = self._whole(held["codes"], self.rows), _texts(self._whole(held["categories"]))
            if codes.dtype.kind not in "iu" or not -1 <= codes.min() <= codes.max() < len(categories):
                raise ValueError(f"its column {column!r} has codes that none of its categories has")
            return np.array([*categories, "nan"])[codes]

    def _whole(self, data: Any, count: int | None = None) -> Any:
        """A column of the file, of so many entries."""
        if data.ndim != 1 or data.shape[0] != (data.shape[0] if count is None else count):
            raise ValueError(
                f"a column of its obs has shape {data.shape}, which does not fit its {self.rows} rows"
            )
        check_unpacked(data.size * data.dtype.itemsize, self._size)
        return self._checked(data)[:]

    def _matrix(self, file: Any) -> Any:
        layers = list(file.get("layers", {}))
        if self._layer is not None:
            if self._layer not in layers:
                there = ", ".join(layers) or "none, since it has no layers"
                raise ValueError(f"it has no layer {self._layer!r}; allowed: {there}")
            return file["layers"][self._layer]
        if "X" not in file:
            raise ValueError(f"it holds no matrix X; allowed: one that does{_or_layers(layers)}")
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


def write_h5ad(
    target: BinaryIO,
    shape: tuple[int, int],
    arrays: Iterable[tuple[str, BinaryIO, int, np.dtype[Any]]],
    row_names: Sequence[str] | None,
    names: Sequence[str],
) -> None:
    """Write a sparse matrix by rows as an AnnData object.

    Parameters
    ----------
    arrays
        Name, content, length and type of data, indices and indptr, this without its first 0.
    row_names : sequence of str, or None
        By default numbers.
    """
    with h5py().File(target, "w") as file:
        file.attrs.update(_encoding("anndata", "0.1.0"))
        matrix = file.create_group("X")
        matrix.attrs.update({**_encoding("csr_matrix", "0.1.0"), "shape": shape})
        for name, part, length, dtype in arrays:
            first = int(name == "indptr")
            data = matrix.create_dataset(name, (length + first,), dtype, chunks=True, compression="gzip",
                                         compression_opts=1)  # fmt: skip
            part.seek(0)
            for start in range(0, length, _COPIED):
                count = min(_COPIED, length - start)
                content = np.frombuffer(part.read(count * dtype.itemsize), dtype)
                data[start + first : start + first + count] = content
        rows = [str(place) for place in range(shape[0])] if row_names is None else row_names
        for table, index in (("obs", rows), ("var", names)):
            group = file.create_group(table)
            group.attrs.update({**_encoding("dataframe", "0.2.0"), "_index": "_index"})
            group.attrs.create("column-order", [], dtype=h5py().string_dtype())
            held = group.create_dataset("_index", data=list(index), dtype=h5py().string_dtype())
            held.attrs.update(_encoding("string-array", "0.2.0"))


def _encoding(kind: str, version: str) -> dict[str, Any]:
    return {"encoding-type": kind, "encoding-version": version}


def _or_layers(layers: list[str]) -> str:
    return f", or a layer: {', '.join(layers)}" if layers else ""


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
