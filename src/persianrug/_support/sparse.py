"""Sparse matrices of numbers of any type, whose entries may be stored in parts that add up."""

from __future__ import annotations

from typing import Any

import numpy as np


def float_type(dtype: np.dtype[Any]) -> Any:
    """float32 where that holds all numbers of a type exactly, and else float64."""
    narrow = dtype.kind == "b" or dtype.itemsize <= 2 or dtype.newbyteorder("=") == np.float32
    return np.float32 if narrow else np.float64


def by_rows(matrix: Any, dtype: Any = None) -> Any:
    """A SciPy sparse matrix in the format csr, in floats (by default of `float_type`): parts are added as these.

    In a small type of integers their sum would wrap, of booleans it would be no sum, and SciPy refuses float16.
    """
    if matrix.dtype.kind in "biuf":
        matrix = matrix.astype(float_type(matrix.dtype) if dtype is None else dtype, copy=False)
    return matrix.tocsr()
