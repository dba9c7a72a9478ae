"""What frames show of each taxel, summed up: how often it is touched and how hard, for how long, and the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from persianrug.skin.layout import Layout

Floats = NDArray[np.float64]

# Taxels that were never touched will be: with this probability, and at least so many of them are pooled.
_FLOOR = 3e-5
# Touches that a taxel's numbers are pooled with, as those of an average taxel of its patch.
_SHRINK = 3.0
# Neighbours of a taxel at most.
_MOST_NEAR = 32
# In so many frames a taxel that always reads the same, beside others that do not, is dead.
_LONG = 100


class TouchSums:
    """Sums over frames of what each taxel shows."""

    def __init__(self, layout: Layout, noise: float) -> None:
        self.layout, self.noise = layout, noise
        n, axes = layout.n_taxels, layout.axes
        self.frames = 0
        self.touched = np.zeros(n)
        self.first, self.second = np.zeros((n, axes)), np.zeros((n, axes))
        self.low, self.high = np.full((n, axes), np.inf), np.full((n, axes), -np.inf)
        self.begun, self.ended, self.most = 0, 0, 0.0
        self.changes: list[float] = []
        # Beyond this energy noise alone is rare: once in 100,000 looks at a taxel.
        self.least = noise**2 * (18.5 + 2.5 * axes)
        self._before: tuple[NDArray[Any], NDArray[np.bool_]] | None = None

    def add(self, frame: NDArray[np.float32]) -> None:
        """Take a frame (n_taxels, axes)."""
        np.minimum(self.low, frame, out=self.low)
        np.maximum(self.high, frame, out=self.high)
        touched = np.square(frame).sum(axis=1) > self.least
        places = np.flatnonzero(touched)
        here = frame[places].astype(np.float64)
        self.frames += 1
        self.most = max(self.most, float(np.abs(frame).sum(dtype=np.float64)))
        self.touched[places] += 1
        self.first[places] += here
        self.second[places] += here**2
        if self._before is not None:
            last, was = self._before
            both = was & touched
            self.begun += int(was.sum())
            self.ended += int((was & ~touched).sum())
            energy = float(np.square(frame[both]).sum())
            if energy > 0:
                moved = float(np.square(frame[both] - last[both]).sum())
                moved = max(moved - 2 * self.noise**2 * int(both.sum()) * frame.shape[1], 0.0)
                self.changes.append((moved / energy) ** 0.5)
        self._before = frame.copy(), touched

    @property
    def leave(self) -> float:
        """The share of touches that end from one frame to the next, a touch and an end more."""
        return (self.ended + 1) / (self.begun + 2)

    def dead(self) -> tuple[NDArray[np.bool_], Floats]:
        """Taxels that always read the same where that says something, and what they read."""
        still = (self.high == self.low).all(axis=1)
        # Without noise those that were never touched read 0 as well: only what is not 0 tells.
        dead = still & ((self.noise > 0) | (self.high != 0).any(axis=1)) & (self.frames >= _LONG)
        return dead, np.where(dead[:, None], self.high, 0.0)

    def pooled(self, dead: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Probability, mean and variance of every taxel, with what its neighbours show."""
        layout, touched = self.layout, np.where(dead, 0.0, self.touched)
        first, second = (np.where(dead[:, None], 0.0, part) for part in (self.first, self.second))
        second = np.maximum(second - self.noise**2 * touched[:, None], 0.0)
        typical = second.sum(axis=0) / touched.sum()
        p, mean, variance = np.zeros(layout.n_taxels), np.zeros_like(first), np.zeros_like(first)
        for patch in range(len(layout.patches)):
            i = np.flatnonzero((layout.patch == patch) & ~dead)
            if not len(i):
                continue
            near, nearer = _neighbours(layout.position[i])
            p[i] = 0.5 * (touched[i] + (near @ touched[i]) / near.sum(axis=1)) / self.frames
            usual = second[i].sum(axis=0) / touched[i].sum() if touched[i].any() else typical
            count = (nearer @ touched[i])[:, None] + _SHRINK
            mean[i] = (nearer @ first[i]) / count
            variance[i] = (nearer @ second[i] + _SHRINK * usual) / count - mean[i] ** 2
        variance = np.maximum(variance, 0.0)
        p = np.where(dead, 0.0, np.clip(p + _FLOOR, 0.0, 0.995))
        return p, mean, variance


def _neighbours(position: NDArray[np.float32]) -> tuple[Any, Any]:
    """Weights (k, k), sparse, of taxels for each other: of those near, and of those nearer than that."""
    k = len(position)
    # Of as many as lie within three spacings, however many are in one place.
    found = cKDTree(position).query(position, k=min(_MOST_NEAR, k))
    distance, near = (np.asarray(part).reshape(k, -1) for part in found)
    apart = distance[distance > 0]
    nearest = np.where(distance > 0, distance, np.inf).min(axis=1)
    width = 0.75 * (float(np.median(nearest[np.isfinite(nearest)])) if len(apart) else 1.0)
    rows = np.repeat(np.arange(k), near.shape[1])
    weights = np.exp(-((distance.ravel() / width) ** 2) / 2)
    wide, narrow = (csr_array((part, (rows, near.ravel())), shape=(k, k)) for part in (weights, weights**4))
    return wide, narrow
