"""Which rows are held out of a fit, so that what is lost on them says what will be lost on rows to come.

Rows drawn at random say so where rows are independent. Where every row is nearly the one before, as in
recordings, they are near copies of rows that were fitted, and say little: there whole blocks of rows that follow
each other are held out. Where rows have labels, a session or a patient, all rows of some of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks

KINDS = ("auto", "random", "blocks")
# The last quarter of each of so many parts of the rows.
BLOCKS, _SHARE = 4, 4
# Rows follow each other where the squared distance to the next is below this part of that to any other.
_FOLLOWS = 0.5
# Fewer rows are not held out in blocks, and do not tell whether they follow each other.
_FEW = 32


class HoldOut:
    """Groups of rows that are held out, as rows come.

    Parameters
    ----------
    kind : str
        random; blocks; or auto: blocks where rows follow each other. With labels that is all one.
    rows : int, optional
        How many rows there will be; where that is not known, blocks cannot be told.
    labels : array (rows,), optional
        Of all rows, of which all those of some labels are held out: at most a quarter of the rows, or those of the
        label with the fewest.
    seed : int >= 0
        Of the order in which labels are held out.
    share : int >= 2
        Of blocks, one row of so many is held out: the last of each part.

    Attributes
    ----------
    kind : str
        What auto has become, once rows came.
    succession : float or None
        Mean squared distance of a row to the next, relative to that of two rows drawn at random; 1 where rows are
        independent.

    Raises
    ------
    ValueError
        If the kind is another, or is blocks where there are too few rows for them, or all labels are the same.
    """

    def __init__(
        self,
        kind: str = "auto",
        rows: int | None = None,
        labels: Any = None,
        seed: int = 0,
        share: int = _SHARE,
    ) -> None:
        self.kind = checks.one_of("hold_out", kind, KINDS)
        self._rows = rows
        self._share = checks.integer("share", share, 2)
        self._labelled = None if labels is None else _of_labels(np.asarray(labels), checks.seed(seed))
        self.succession: float | None = None
        if kind == "blocks" and (rows is None or rows < _FEW):
            found = "of an unknown number of" if rows is None else f"of {rows}"
            raise ValueError(f"hold_out is 'blocks' {found} rows; allowed with blocks: {_FEW} rows or more")

    @property
    def follows(self) -> bool:
        """Whether rows follow each other."""
        return self.succession is not None and self.succession < _FOLLOWS

    def groups(self, start: int, rows: Any) -> NDArray[np.int64] | None:
        """The group of each of a block of rows, (rows,), -1 where it is not held out; None if they are drawn.

        Parameters
        ----------
        start : int
            How many rows came before.
        rows : array or csr_array (rows, n_sparse)
        """
        if self.succession is None and rows.shape[0] >= _FEW:
            self.succession = succession(rows)
        if self._labelled is not None:
            return self._labelled[start : start + rows.shape[0]]
        if self.kind == "auto":
            self.kind = "blocks" if self.follows and self._rows is not None and self._rows >= _FEW else "random"
        if self.kind == "random" or self._rows is None:
            return None
        place = np.arange(start, start + rows.shape[0])
        part = self.group(start, rows.shape[0], self._rows)
        left = (part + 1) * self._rows // BLOCKS - place
        return np.where((left <= self._rows // (BLOCKS * self._share)) & (part < BLOCKS), part, -1)

    @staticmethod
    def group(start: int, count: int, rows: int) -> NDArray[np.int64]:
        """The part of all rows that each of some is in, where all are held out."""
        return np.arange(start, start + count, dtype=np.int64) * BLOCKS // max(rows, 1)


@dataclass(frozen=True)
class Halves:
    """Rows in two halves, of which one is fitted and the other tells what rows lose that were not.

    Attributes
    ----------
    fitted, others : array or csr_array (k, n_sparse)
    kind : str
        How they were parted: random, or blocks, where the others are the last half of each quarter of the rows.
    succession : float or None
        As of `HoldOut`.
    """

    fitted: Any
    others: Any
    kind: str
    succession: float | None

    @classmethod
    def of(cls, rows: Any, seed: int) -> Halves:
        """Blocks where `HoldOut` would hold them out, and else rows drawn at random by the seed."""
        count = rows.shape[0]
        held = HoldOut("auto", count, share=2)
        groups = held.groups(0, rows)
        if groups is not None:
            return cls(rows[groups < 0], rows[groups >= 0], held.kind, held.succession)
        order = np.random.default_rng(seed).permutation(count)
        return cls(rows[order[: count // 2]], rows[order[count // 2 :]], held.kind, held.succession)


def _of_labels(labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """The group of each row, -1 where it is not held out."""
    values, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(values) < 2:
        raise ValueError("labels are all the same; allowed: of two kinds or more, of which some are held out")
    held: list[int] = []
    for value in np.random.default_rng(seed).permutation(len(values)):
        if counts[held].sum() + counts[value] <= len(labels) // _SHARE:
            held.append(value)
    held = held or [int(counts.argmin())]
    return np.where(np.isin(group, held), group, -1).astype(np.int64)


def succession(rows: Any) -> float:
    """Mean squared distance of a row to the next, relative to that of two rows drawn at random."""
    step = rows[1:] - rows[:-1]
    if hasattr(rows, "tocsr"):
        moved = float(step.multiply(step).sum())
        sums = np.asarray(rows.sum(axis=0)).ravel()
        squares = float(rows.multiply(rows).sum())
    else:
        moved = float(np.square(step, dtype=np.float64).sum())
        sums, squares = rows.sum(axis=0, dtype=np.float64), float(np.square(rows, dtype=np.float64).sum())
    count = rows.shape[0]
    energy = squares - float(sums @ sums) / count
    return moved / (count - 1) / (2 * energy / count) if energy > 0 else 1.0
