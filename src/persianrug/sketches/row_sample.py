"""Samples of rows of a stream, drawn as it passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]

# Energies of rows that are broken: by so much beyond the next, and the median, and the part that may be.
_GAP, _BEYOND, _FEW = 100.0, 1000.0, 0.02


class RowSample:
    """The rows with the least keys of a stream: a sample that is drawn as it passes, whatever its blocks."""

    def __init__(self, n_sparse: int, most: int) -> None:
        self.n_sparse, self.most = n_sparse, most
        self.keys = np.empty(0, dtype=np.uint64)
        # Of as many digits as the rows that come.
        self.rows = scipy.sparse.csr_array((0, n_sparse), dtype=np.float32)
        self.groups: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, parts: Sequence[tuple[Any, Keys, NDArray[np.int64] | None]], n_sparse: int) -> RowSample:
        """All rows of some parts, each of which may be None, with their keys and groups.

        If one part has groups, rows of the others are groups by themselves.
        """
        sample = cls(n_sparse, 0)
        grouped = any(groups is not None for _, _, groups in parts)
        for rows, keys, groups in parts:
            if rows is not None:
                sample.rows = scipy.sparse.vstack([sample.rows, rows], format="csr")
                sample.keys = np.concatenate([sample.keys, keys])
                if grouped:
                    before = np.empty(0, dtype=np.int64) if sample.groups is None else sample.groups
                    first = int(before.max(initial=-1)) + 1
                    own = first + (np.arange(len(keys)) if groups is None else groups)
                    sample.groups = np.concatenate([before, own])
        sample.most = len(sample.keys)
        return sample

    def add(
        self, keys: NDArray[np.uint64], rows: Any, groups: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint64], Any]:
        """Take the rows that belong into the sample.

        Returns
        -------
        entering : bool array (rows,)
            Which are in it now.
        keys, rows
            Of those that left it.
        """
        every = np.concatenate([self.keys, keys])
        inside = np.zeros(len(every), dtype=bool)
        inside[np.argsort(every, kind="stable")[: self.most]] = True
        staying, entering = inside[: len(self.keys)], inside[len(self.keys) :]
        left = self.keys[~staying], self.rows[~staying]
        if groups is not None:
            before = np.empty(0, dtype=np.int64) if self.groups is None else self.groups
            self.groups = np.concatenate([before[staying], groups[entering]])
        if entering.any():
            self.keys = np.concatenate([self.keys[staying], keys[entering]])
            new = scipy.sparse.csr_array(rows[entering])
            self.rows = scipy.sparse.vstack([self.rows[staying], new], format="csr")
        return entering, *left


def row_energies(rows: Any, mean: Floats) -> Floats:
    """(x - mean)^2 per feature of each row of a sparse matrix, (rows,)."""
    rows = rows.astype(np.float64, copy=False)
    squares = np.asarray(rows.multiply(rows).sum(axis=1)).ravel() - 2 * (rows @ mean)
    return (squares + mean @ mean) / rows.shape[1]


def outlying(energies: Floats) -> NDArray[np.bool_]:
    """Which rows have so much more energy than all others that they are none: a broken sensor, a wrong unit.

    Above a gap: more than 100 times the largest energy below, and 1000 times the median. Of heavy tails there are
    rows in between. Where they are more than one and 2% of the rows, they are data.
    """
    order = np.argsort(energies)
    ascending = energies[order]
    few = max(1, int(_FEW * len(energies)))
    found = np.zeros(len(energies), dtype=bool)
    for count in range(1, min(few, len(energies) - 2) + 1):
        least, below = ascending[-count], ascending[-count - 1]
        if least > _GAP * below and least > _BEYOND * np.median(energies):
            found[order[-count:]] = True
    return found
