"""Second moments of features that go together, learnt in one pass: products with a matrix of few random columns.

The second moments X^T X of rows X (rows, n_sparse) are too many to keep. Their products with a random matrix
T (n_sparse, w) are few, add up over blocks of rows and over machines, and tell the directions in which rows vary
most: with S = X^T X T, S (T^T S)^-1 S^T is close to X^T X where this has fast falling eigenvalues (the Nystrom
approximation of a stream; Tropp, Yurtsever, Udell, Cevher, arXiv 1706.05736).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.arrays import Parts
from persianrug._support.threads import one_thread
from persianrug.sources.covariance import Covariance

Floats = NDArray[np.float64]

# Columns of the random matrix, fewer where n_sparse of them would be more than so many numbers.
_WIDTH, _MOST_NUMBERS = 128, 1 << 24
# Rows that are multiplied at a time.
_ROWS = 1024
# What is left of a feature is taken to be at least this part of what is left of all on average: few rows are
# explained by as many factors, and say nothing of what others would leave.
_LEAST_LEFT = 1e-2
# Eigenvalues below this part of the largest are rounding errors.
_ROUNDING = 1e-12
# The largest variance that single precision holds.
MOST_VARIANCE = 1e37
# The least number of single precision that has all its digits.
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class SecondMoments(Parts):
    """What rows say of how features go together. Those of two sets of rows add up to those of both.

    Parameters
    ----------
    rows : int
        How many were seen.
    sums, squares : array (n_sparse,)
        Of each feature and of its squares.
    products : array (n_sparse, w)
        Sum over rows x of x (x T), T the random matrix, the same for all of n_sparse features.
    """

    rows: int
    sums: Floats
    squares: Floats
    products: Floats

    @classmethod
    def none(cls, n_sparse: int) -> SecondMoments:
        """Those of no rows."""
        zeros = np.zeros(n_sparse)
        return cls(0, zeros, zeros, np.zeros((n_sparse, width(n_sparse))))

    @classmethod
    def of(cls, rows: Any) -> SecondMoments:
        """Those of a float array or a SciPy sparse matrix (rows, n_sparse), finite and below 1e30."""
        matrix = random_matrix(rows.shape[1])
        if hasattr(rows, "tocsr"):
            rows = rows.astype(np.float64)
            squares = np.asarray(rows.multiply(rows).sum(axis=0)).ravel()
            return cls(rows.shape[0], np.asarray(rows.sum(axis=0)).ravel(), squares, rows.T @ (rows @ matrix))
        found = cls.none(rows.shape[1])
        products, other = torch.from_numpy(found.products), torch.from_numpy(matrix)
        sums, squares = found.sums.copy(), found.squares.copy()
        for start in range(0, rows.shape[0], _ROWS):
            part = np.asarray(rows[start : start + _ROWS], dtype=np.float64)
            sums += part.sum(axis=0)
            squares += np.einsum("ij,ij->j", part, part)
            block = torch.from_numpy(part)
            products.addmm_(block.T, block @ other)
        return cls(rows.shape[0], sums, squares, found.products)

    def __add__(self, other: SecondMoments) -> SecondMoments:
        return SecondMoments(
            self.rows + other.rows,
            self.sums + other.sums,
            self.squares + other.squares,
            self.products + other.products,
        )

    @property
    def most_factors(self) -> int:
        """As many as there can be, and none where variances are beyond what files of codes hold."""
        return 0 if self._beyond else int(min(self.products.shape[1], max(self.rows - 1, 0)))

    @property
    def _beyond(self) -> bool:
        return bool(self.squares.max(initial=0.0) > MOST_VARIANCE * max(self.rows, 1))

    @one_thread()
    def covariance(self, rank: int) -> Covariance:
        """The covariance of so many factors, or as many as there are.

        Raises
        ------
        ValueError
            If there were no rows, features have a mean square beyond 1e37, or the rank is negative.
        """
        rank = checks.integer("rank", rank, 0)
        if not self.rows:
            raise ValueError("rows is empty; allowed: at least one row")
        if self._beyond:
            most = float(self.squares.max()) / self.rows
            raise ValueError(
                f"rows has a mean square of {most:.3g}; allowed with a covariance: up to {MOST_VARIANCE:g}"
            )
        mean = self.sums / self.rows
        variance = np.maximum(self.squares / self.rows - mean**2, 0.0)
        factors = self._factors[: min(rank, self.most_factors)]
        left = np.maximum(variance - np.square(factors).sum(axis=0), 0.0)
        least = max(_LEAST_LEFT * float(left.mean()), _ROUNDING * float(variance.mean()), _TINY)
        # As they are stored, so that codes are rounded and read alike by those who made them and by others.
        stored: Any = [part.astype(np.float32) for part in (mean, factors, np.maximum(left, least))]
        return Covariance(*stored)

    @cached_property
    def _factors(self) -> Floats:
        """All of them, the largest first."""
        matrix = random_matrix(len(self.sums))
        mean = self.sums / self.rows
        seen = torch.from_numpy(self.products / self.rows - np.outer(mean, mean @ matrix))
        # A little of the identity, taken off again, keeps the rounding of small eigenvalues from becoming large.
        shift = float(np.finfo(float).eps * torch.linalg.norm(seen))
        if shift == 0:
            return np.zeros((0, len(mean)))
        seen = seen + shift * torch.from_numpy(matrix)
        small = torch.from_numpy(matrix).T @ seen
        values, vectors = torch.linalg.eigh((small + small.T) / 2)
        real = values > _ROUNDING * values[-1]
        roots = seen @ vectors[:, real] / values[real].sqrt()
        directions, scales, _ = torch.linalg.svd(roots, full_matrices=False)
        return (directions * (scales.square() - shift).clamp(min=0.0).sqrt()).T.contiguous().numpy()


def width(n_sparse: int) -> int:
    """Columns of the random matrix."""
    return max(1, min(n_sparse, _WIDTH, _MOST_NUMBERS // n_sparse))


@lru_cache(maxsize=2)
def random_matrix(n_sparse: int) -> Floats:
    """T, of signs / sqrt(n_sparse), or the identity where that is no larger."""
    columns = width(n_sparse)
    if columns == n_sparse:
        return np.eye(n_sparse)
    words = np.random.PCG64(n_sparse).random_raw(-(-n_sparse * columns // 64))
    flips = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little", count=n_sparse * columns)
    return (1.0 - 2.0 * flips.reshape(n_sparse, columns)) / np.sqrt(n_sparse)
