"""Moments of every feature of data, added up block by block: one pass, in memory that does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.arrays import Parts, listed, plain
from persianrug._support.sparse import by_rows

Floats = NDArray[np.float64]

# Fitted amplitudes vary by at least this part of their mean.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class FeatureMoments(Parts):
    """What rows of data say of each feature's values that are not 0.

    Those of two sets of rows add up to those of both.

    Parameters
    ----------
    rows : int
        How many were seen.
    counts : array (n_sparse,)
        Of values that are not 0.
    means : array (n_sparse,)
        Of these values, and 0 where there are none.
    scatters : array (n_sparse,)
        Sums of their squared distances from the mean.
    least : float
        The least value of all.
    """

    rows: int
    counts: NDArray[np.int64]
    means: Floats
    scatters: Floats
    least: float

    @classmethod
    def of(cls, rows: object) -> FeatureMoments:
        """Moments of an array (rows, n_sparse), a tensor or a SciPy sparse matrix.

        Raises
        ------
        ValueError
            If rows has no entries, or some are not finite or beyond 1e30.
        """
        size, values, column, n_sparse = nonzeros(rows)
        largest = float(np.abs(values).max(initial=0.0))
        if largest > checks.BEYOND:
            raise ValueError(f"rows holds sizes up to {largest:g}; allowed: up to {checks.LARGEST:g}")
        counts = np.bincount(column, minlength=n_sparse).astype(np.int64)
        means: Floats = np.bincount(column, values, n_sparse) / np.maximum(counts, 1)
        scatters: Any = np.bincount(column, (values - means[column]) ** 2, n_sparse)
        return cls(size // n_sparse, counts, means, scatters, float(values.min(initial=np.inf)))

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        # Chan, Golub and LeVeque (1979): no sum of squares is taken from another.
        counts = self.counts + other.counts
        share = other.counts / np.maximum(counts, 1)
        gap = other.means - self.means
        return FeatureMoments(
            self.rows + other.rows,
            counts,
            self.means + share * gap,
            self.scatters + other.scatters + self.counts * share * gap**2,
            min(self.least, other.least),
        )

    @property
    def mean(self) -> Floats:
        """Of all values, those that are 0 included, (n_sparse,)."""
        return np.asarray(self.counts * self.means / self.rows)

    @property
    def variance(self) -> Floats:
        """Of all values, (n_sparse,)."""
        mean = self.mean
        squares = self.scatters + self.counts * (self.means - mean) ** 2 + (self.rows - self.counts) * mean**2
        return np.asarray(squares / self.rows)

    def energy(self, about: Floats) -> float:
        """The mean over rows of (x - about)^2 per feature."""
        return float(np.mean(self.variance + (self.mean - about) ** 2))

    @property
    def active(self) -> int:
        """How many values are not 0."""
        return int(self.counts.sum())

    def shrunk(self) -> tuple[Floats, Floats, Floats]:
        """Rates, and means and standard deviations of amplitudes, (n_sparse,), as `SparseGaussian.fit` has them.

        Raises
        ------
        ValueError
            If there are fewer than two features, or nothing but zeros.
        """
        counts, n_sparse = self.counts, len(self.counts)
        if n_sparse < 2:
            raise ValueError(f"rows has {n_sparse} features; allowed: at least 2")
        if not self.active:
            raise ValueError("rows holds nothing but zeros; allowed: at least one entry that is not 0")
        typical = float(counts @ self.means) / self.active
        spread = max(float(self.scatters.sum()) / self.active, (_LEAST_SPREAD * typical) ** 2)
        mean = (counts * self.means + 2 * typical) / (counts + 2)
        variance = (self.scatters + 2 * spread) / (counts + 2)
        return (counts + 0.5) / (self.rows + 1), mean, np.sqrt(variance)


def nonzeros(rows: Any) -> tuple[int, Floats, NDArray[np.int64], int]:
    """Number of entries of a dense or SciPy sparse matrix, those that are not 0, their columns, and their number.

    Raises
    ------
    ValueError
        If there are none, or some are no finite real numbers.
    """
    if not hasattr(rows, "dtype"):
        rows = listed("rows", rows)
    checks.real("rows", rows)
    rows = plain(rows)
    if hasattr(rows, "tocsr"):
        matrix = by_rows(rows)
        if not matrix.has_canonical_format:
            # Entries that are stored more than once add up.
            matrix = matrix.copy()
            matrix.sum_duplicates()
        values, column = np.asarray(matrix.data), np.asarray(matrix.indices)
        size, width = matrix.shape[0] * matrix.shape[1], matrix.shape[1]
        active = values != 0
        values, column = (values, column) if active.all() else (values[active], column[active])
    else:
        dense = np.asarray(rows)
        size, width = dense.size, dense.shape[-1] if dense.ndim else 1
        # What is not finite is not 0.
        place = np.flatnonzero(dense != 0)
        values, column = dense.ravel()[place], place % max(width, 1)
    if size == 0:
        raise ValueError("rows is empty; allowed: at least one row and one feature")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("rows holds NaN or infinity; allowed: finite numbers")
    return size, values, column.astype(np.int64, copy=False), width
