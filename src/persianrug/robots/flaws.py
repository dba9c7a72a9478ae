"""What is wrong with taxels, and what a skin does about those that it knows to be dead."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from persianrug._support import checks
from persianrug.skin import Layout

# So many numbers of noise are drawn once, and each frame takes some that follow each other, from anywhere on.
_POOL = 1 << 20
# A dead taxel is taken to read what so many of its nearest neighbours do, of those that face as it does: whose
# normals are turned from its own by less than acos of this.
_NEIGHBOURS, _FACING = 6, 0.5


class Flaws:
    """What is wrong with taxels: noise, gains that differ, and dead ones, which read 0.

    Parameters
    ----------
    noise : float >= 0
        Standard deviation of every number in every frame, in newtons.
    gain : float >= 0
        That of the gains of taxels about 1.
    dead : float in [0, 1]
        The share of taxels that are dead.
    seed : int >= 0

    Attributes
    ----------
    gains : array (n_taxels,)
        0 of dead ones.
    """

    def __init__(
        self, n_taxels: int, *, noise: float = 0.03, gain: float = 0.03, dead: float = 0.01, seed: int = 0
    ) -> None:
        n_taxels = checks.integer("n_taxels", n_taxels, 1)
        self.noise = checks.not_negative("noise", noise)
        dead = checks.not_negative("dead", dead)
        if dead > 1:
            raise ValueError(f"dead is {dead:g}; allowed: a number in [0, 1]")
        self._random = np.random.default_rng((checks.seed(seed), 1))
        gains = 1 + checks.not_negative("gain", gain) * self._random.standard_normal(n_taxels)
        gains[self._random.permutation(n_taxels)[: round(dead * n_taxels)]] = 0.0
        self.gains = np.maximum(gains, 0.0)
        self._alive = (self.gains > 0).astype(np.float32)[:, None]
        self._noise = np.float32(self.noise) * self._random.standard_normal(_POOL, dtype=np.float32)

    def without_noise(self, frame: NDArray[np.float64]) -> NDArray[np.float64]:
        """What taxels would read, were there no noise."""
        return frame * self.gains[:, None]

    def apply(self, frame: NDArray[np.float64]) -> NDArray[np.float32]:
        """What taxels read of a frame (n_taxels, axes); noise is another each time."""
        start = int(self._random.integers(_POOL))
        read = self._noise.take(np.arange(start, start + frame.size), mode="wrap").reshape(frame.shape)
        read *= self._alive
        pressed = np.flatnonzero(frame != 0)
        taxel = pressed // frame.shape[1]
        read.ravel()[pressed] += frame.ravel()[pressed] * self.gains[taxel]
        return read


class Mending:
    """Fills in what dead taxels do not read: the mean force on their neighbours, as cameras do with dead pixels.

    Which taxels are dead is known: they read nothing when all others are noisy.

    Parameters
    ----------
    layout : Layout
        With shears.
    dead : bool array (n_taxels,)
    """

    def __init__(self, layout: Layout, dead: NDArray[np.bool_]) -> None:
        neighbours = [_neighbours(layout, dead, taxel) for taxel in np.flatnonzero(dead).tolist()]
        # Those that have none read nothing.
        self._dead = np.array([t for t, near in zip(np.flatnonzero(dead), neighbours, strict=True) if len(near)],
                              dtype=np.int64)  # fmt: skip
        near = [near for near in neighbours if len(near)]
        # Fewer than six are repeated with less weight.
        self._near = np.zeros((len(near), _NEIGHBOURS), dtype=np.int64)
        weights = np.zeros((len(near), _NEIGHBOURS))
        for row, some in enumerate(near):
            self._near[row, : len(some)], weights[row, : len(some)] = some, 1 / len(some)
        # From what a neighbour reads to the force, and from that to what a taxel here would read.
        numbers = np.linalg.inv(layout.directions[self._dead])
        turned = layout.directions[self._near] @ numbers[:, None]
        self._turned = (weights[..., None, None] * turned).astype(np.float32)

    def mend(self, frame: NDArray[np.floating[Any]]) -> None:
        """Set what dead taxels read in a frame (n_taxels, 3)."""
        if len(self._dead):
            frame[self._dead] = (frame[self._near][..., None, :] @ self._turned).sum(axis=(1, 2))


def _neighbours(layout: Layout, dead: NDArray[np.bool_], taxel: int) -> NDArray[np.int64]:
    """The nearest taxels of the same patch that are alive and face the same way, six at most."""
    alike = (layout.patch == layout.patch[taxel]) & ~dead & (layout.normal @ layout.normal[taxel] > _FACING)
    found = np.flatnonzero(alike)
    if not len(found):
        return found
    _, near = cKDTree(layout.position[found]).query(layout.position[taxel], k=min(_NEIGHBOURS, len(found)))
    return found[np.atleast_1d(near)]
