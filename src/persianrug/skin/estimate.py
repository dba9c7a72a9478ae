"""What is known of a frame: its numbers, how sure they are, and whether the code says what was decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """A decoded frame.

    Parameters
    ----------
    frame : int
        Its number.
    x : array (n_taxels, axes)
        In newtons.
    variance : array (n_taxels, axes)
        Of each number about the truth, in square newtons.
    active : array (n_taxels,)
        The probability that a taxel is touched.
    expected_error : float
        Relative L2 error that is expected.
    explained : array (n_blocks,) of bool
        Whether the code of each block is explained by what was decoded, up to its noise.
    heard : array (n_blocks,) of bool
        Whether anything of each block came; of the others the estimate is what was expected before.

    Raises
    ------
    ValueError
        If shapes disagree.
    """

    frame: int
    x: NDArray[np.float32]
    variance: NDArray[np.float32]
    active: NDArray[np.float32]
    expected_error: float
    explained: NDArray[np.bool_]
    heard: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.variance.shape != self.x.shape:
            raise ValueError(f"variance has shape {self.variance.shape} where x has {self.x.shape}; "
                             "allowed: both (n_taxels, axes)")  # fmt: skip
        if self.active.shape != self.x.shape[:1]:
            raise ValueError(f"active has shape {self.active.shape}; allowed: {self.x.shape[:1]}, one a taxel")
        if self.explained.ndim != 1 or self.explained.shape != self.heard.shape:
            raise ValueError(f"explained has shape {self.explained.shape} where heard has {self.heard.shape}; "
                             "allowed: both (n_blocks,)")  # fmt: skip

    @classmethod
    def certain(cls, frame: int, x: NDArray[np.float32], n_blocks: int = 1) -> Estimate:
        """A frame (n_taxels, axes) that is known, as a true one is."""
        seen = np.ones(n_blocks, dtype=bool)
        active = (x != 0).any(axis=1).astype(np.float32)
        return cls(frame, x, np.zeros_like(x), active, 0.0, seen, seen)

    def __repr__(self) -> str:
        touched = f"{int((self.active > 0.5).sum())} of {len(self.active)} taxels touched"
        explained = f"{int(self.explained.sum())} of {len(self.explained)} codes explained"
        return f"Estimate(frame {self.frame}, {touched}, expected error {self.expected_error:.2g}, {explained})"
