"""Parquet files, written row group by row group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet

# As pandas calls it, where an index has no name of its own.
_INDEX = "__index_level_0__"


class TableWriter:
    """Writes rows as columns of numbers, and their names as the index that pandas reads.

    Parameters
    ----------
    file : binary file
    names : sequence of str
        Of the columns.
    dtype : dtype
    named : bool
        Whether rows have names.
    """

    def __init__(self, file: BinaryIO, names: Sequence[str], dtype: np.dtype[Any], named: bool) -> None:
        kind = pyarrow.from_numpy_dtype(dtype.newbyteorder("="))
        fields, metadata = [(name, kind) for name in names], None
        if named:
            fields.append((_INDEX, pyarrow.string()))
            index = {"name": None, "field_name": _INDEX, "pandas_type": "unicode", "numpy_type": "object",
                     "metadata": None}  # fmt: skip
            content = {"index_columns": [_INDEX], "column_indexes": [], "columns": [index]}
            metadata = {"pandas": json.dumps(content)}
        self._dtype, self._named = dtype.newbyteorder("="), named
        self._schema = pyarrow.schema(fields, metadata)
        # Closed by the caller, who copies it.
        self._writer = pyarrow.parquet.ParquetWriter(pyarrow.PythonFile(file, "w"), self._schema)

    def write(self, rows: Any, row_names: Sequence[str] | None) -> None:
        """Add rows (k, columns), an array, and their names."""
        if not len(rows):
            return
        columns = [pyarrow.array(column) for column in np.ascontiguousarray(rows.T, dtype=self._dtype)]
        if self._named:
            columns.append(pyarrow.array(list(row_names or ()), pyarrow.string()))
        self._writer.write_table(pyarrow.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Write the end."""
        self._writer.close()
