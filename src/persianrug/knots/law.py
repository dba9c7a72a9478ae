"""What a feature of a knot looks like, y = x + e, and what a ReLU loses on it.

The loss of a decoder f is an integral over y,

    E (x - f(y))^2 = int dy [M2(y) - 2 f(y) M1(y) + f(y)^2 M0(y)],    Mq(y) dy = E[x^q; y],

whose densities are convolutions of those of the C_ij x_j: products of their Fourier transforms. They are taken on
a fine grid, to which every mass is distributed linearly, so that means are exact and all else is to second order.
No sampling is needed, however large the knot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from persianrug._support.arrays import Parts
from persianrug._support.quadrature import rectified_first
from persianrug.sources import Source

Floats = NDArray[np.float64]
# Noise of more steps of the grid than this has a transform that ends before the grid's does.
_WIDE = 4.0
# Entries of C beyond which a grid for all of them would be too coarse for the others.
_LARGE = 16.0
# Points of the grid to a root mean square amplitude, and in all.
_FINENESS = 2048
_MOST_POINTS = 1 << 17


@dataclass(frozen=True, eq=False)
class View(Parts):
    """The joint distribution of a feature x and its estimate y, on a grid of y.

    Attributes
    ----------
    y : array (n,), ascending
    moments : array (3, n)
        Masses E[x^q; y] for q = 0, 1, 2.
    """

    y: Floats
    moments: Floats

    def loss(self, gain: float, bias: float) -> float:
        """E (x - max(gain y + bias, 0))^2."""
        x_hat = np.maximum(gain * self.y + bias, 0.0)
        loss = np.sum(self.moments[2] + x_hat * (x_hat * self.moments[0] - 2 * self.moments[1]))
        # Of a loss far below the grid's accuracy not even the sign is left.
        return max(float(loss), 0.0)

    @cached_property
    def least(self) -> float:
        """The loss of the best gain and bias."""
        return self.loss(*self.best_relu)

    @cached_property
    def best_relu(self) -> tuple[float, float]:
        """Gain and bias of least loss.

        For each threshold t = -bias / gain the gain is a least squares fit, N / D with N = E[x (y - t)_+] and D =
        E[(y - t)_+^2], and what it leaves is E x^2 - N^2 / D. Sums from above say that for every t of the grid. Or
        the mean of x is as good.
        """
        m0, m1, _ = self.moments
        y = self.y

        def above(part: Floats) -> Floats:
            return np.cumsum(part[::-1])[::-1]

        count, x = above(m0), above(m1)
        overlap = above(m1 * y) - y * x
        power = above(m0 * y * y) - 2 * y * above(m0 * y) + y * y * count
        # Sums of so little are rounding errors.
        useful = power > 1e-13 * power[0]
        gained = np.divide(np.maximum(overlap, 0.0) ** 2, power, out=np.zeros_like(power), where=useful)
        best = int(np.argmax(gained))
        if gained[best] <= x[0] ** 2:
            return 0.0, max(float(x[0]), 0.0)
        gain = float(overlap[best] / power[best])
        return gain, -gain * float(y[best])


def view(source: Source, others: Floats, noise: float) -> View:
    """What a feature looks like among others.

    Parameters
    ----------
    source : Source
        Of features that are alike.
    others : array (k,)
        The entries C_ij of the other features j, none of them 0.
    noise : float >= 0
        Standard deviation of the noise on y.
    """
    large = np.abs(others) > _LARGE
    y, moments = _moments(source, others[~large], noise)
    if large.any():
        # Where none of the large entries is active a fine grid is needed, and else a coarse one does.
        none = (1 - source.p) ** int(large.sum())
        places, all_moments = _moments(source, others, noise, others[~large])
        y, moments = np.concatenate([y, places]), np.concatenate([none * moments, all_moments], axis=1)
        order = np.argsort(y, kind="stable")
        y, moments = y[order], moments[:, order]
    return View(y - source.mean * float(others.sum()), moments)


def _moments(source: Source, others: Floats, noise: float, without: Floats | None = None) -> tuple[Floats, Floats]:
    """A grid of x + sum of others x_j + noise z, and its moments (3, n) as in `View`.

    With `without`, those of others but for the large ones, the case that no large one is active is left out.
    """
    unit = math.sqrt(source.second_moment / source.p)
    u, _ = _amplitudes(source)
    reach = np.array([min(u.min(), 0.0), max(u.max(), 0.0)])
    ends = np.sort(np.outer(others, reach), axis=1).sum(axis=0) + reach
    # Of many others, no more than a few are active at once.
    spread = math.sqrt(float(np.sum(others**2)) * source.variance + noise**2)
    centre = source.mean * float(others.sum())
    most = 12 * spread + 6 * unit * float(np.abs(others).max(initial=0.0))
    low = max(ends[0], centre - most + reach[0]) - 9 * noise
    high = min(ends[1], centre + most + reach[1]) + 9 * noise
    if without is None and source.variance > 0:
        # The best affine decoder is zero at y = -mean spread^2 / v, below which nothing is to be found.
        low = min(low, -source.mean * spread**2 / source.variance)
    points = 1 << math.ceil(math.log2(max(2.0, 1.05 * (high - low) * _FINENESS / unit)))
    points = min(max(points, 1 << 12), _MOST_POINTS)
    step = 1.05 * (high - low) / points

    def sums(entries: Floats) -> NDArray[np.complex128]:
        """The transform of the sum of entries x_j, and noise."""
        transform = _noise(noise / step, points)
        for entry, count in zip(*np.unique(np.round(entries, 12), return_counts=True), strict=True):
            factor = 1 - source.p + source.p * _binned(source, entry / step, points, 0)
            transform *= factor if count == 1 else factor ** int(count)
        return transform

    transform = sums(others)
    if without is not None:
        transform -= (1 - source.p) ** (len(others) - len(without)) * sums(without)
    on = [source.p * transform * _binned(source, 1 / step, points, q) for q in range(3)]
    off = (1 - source.p) * transform
    moments = np.fft.irfft(np.stack([off + on[0], on[1], on[2]]), points)
    # The grid is periodic: it starts at the multiple of the step below `low`.
    start = math.floor((low - 0.02 * (high - low)) / step)
    return step * (start + np.arange(points)), np.roll(moments, -start, axis=1)


@lru_cache(maxsize=64)
def _amplitudes(source: Source) -> tuple[Floats, Floats]:
    """Nodes of the amplitude, some hundreds, as losses change where a ReLU opens."""
    u, _ = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    centres = np.linspace(float(u.min()), float(u.max()), 3)
    return source.amplitude_nodes(centres, np.array(float(np.ptp(u)) / 32))


def _binned(source: Source, steps: float, points: int, q: int) -> NDArray[np.complex128]:
    """The transform of the masses E[u^q; u steps], each shared by the two nearest points of the grid."""
    u, w = _amplitudes(source)
    places, weights = steps * u, w * u**q
    below = np.floor(places)
    part = places - below
    index = below.astype(np.int64) % points
    masses = np.bincount(index, weights * (1 - part), points)
    masses += np.bincount((index + 1) % points, weights * part, points)
    return np.fft.rfft(masses)


def _noise(steps: float, points: int) -> NDArray[np.complex128]:
    """The transform of Gaussian noise of a standard deviation in steps of the grid."""
    if steps > _WIDE:
        return np.exp(-0.5 * (2 * np.pi * steps * np.fft.rfftfreq(points)) ** 2).astype(np.complex128)
    # Narrower noise is shared by the nearest points, as all masses are: its transform would be cut off, which
    # makes negative masses. The mass of point k >= 1 is a second difference of E max(steps z - k, 0).
    k = np.arange(0.0, 10 * _WIDE + 2)
    beyond = np.zeros(len(k)) if steps == 0 else rectified_first(-k, np.full(len(k), steps))
    masses = np.zeros(points)
    masses[1 : len(k) - 1] = beyond[:-2] - 2 * beyond[1:-1] + beyond[2:]
    masses[1 - len(k) + 1 :] = masses[1 : len(k) - 1][::-1]
    masses[0] = 1 - masses.sum()
    return np.fft.rfft(masses)
