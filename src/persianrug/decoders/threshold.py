"""Decoders that are affine in y above a threshold and zero below it: their moments, risk and best threshold."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from persianrug._support.quadrature import normal_pdf, standardised
from persianrug.sources import Source

Floats = NDArray[np.float64]

# A loss can have two valleys, one where a ReLU would open and one where active features stand clear of the noise.
_MOST_VALLEYS = 3


def best_threshold(
    source: Source,
    levels: Floats,
    rough: Callable[[Floats], Floats],
    exact: Callable[[Floats], Floats],
    lowest: float = -np.inf,
) -> float:
    """The threshold of y with the least loss, to 1e-6 relative in the loss or better.

    Parameters
    ----------
    levels : array (k,)
        Standard deviations of the noise, which tell where to look.
    rough, exact : functions
        Losses at thresholds (n,). The first places the best cell of a grid and may have lost digits; the second
        refines it.
    lowest : float
        The least threshold allowed.
    """
    grid = np.unique(np.maximum(_grid(source, float(np.sqrt(np.mean(levels**2)))), lowest))
    found = _refine(grid, rough(grid), exact)
    if found[0] < 1e-10 * source.second_moment:
        # So small a loss is not among the digits of the rough one.
        losses = exact(grid)
        found = _refine(grid, losses, exact)
        if found[0] == 0 and bool((losses == 0).any()):
            # Of thresholds that lose nothing the one in the middle bears most noise.
            nothing = grid[losses == 0]
            return float(nothing[0] + nothing[-1]) / 2
    return found[1]


def best_gain_and_threshold(
    source: Source,
    levels: Floats,
    moments: Callable[[Floats], tuple[Floats, Floats]],
    risk: Callable[[Floats, Floats], Floats],
    lowest: float = -np.inf,
) -> tuple[float, float]:
    """Gain and threshold of least loss for an output gain s(y) whose shape s depends on the threshold alone.

    For each threshold the gain is a least squares fit, E[x s] / E[s^2].

    Parameters
    ----------
    moments : function
        E[x s] and E[s^2] at thresholds (n,), averaged over the levels.
    risk : function
        Risks (k, n) at gains and thresholds (n,), for each level.
    lowest : float
        The least threshold allowed.
    """

    def gains(thresholds: Floats) -> Floats:
        overlap, power = moments(thresholds)
        return np.divide(overlap, power, out=np.zeros_like(power), where=power > 0)

    def rough(thresholds: Floats) -> Floats:
        # What the fit leaves of E x^2, up to that constant.
        overlap, power = moments(thresholds)
        return -np.divide(overlap**2, power, out=np.zeros_like(power), where=power > 0)

    def exact(thresholds: Floats) -> Floats:
        return risk(gains(thresholds), thresholds).mean(axis=0)

    threshold = best_threshold(source, levels, rough, exact, lowest)
    return float(gains(np.array([threshold]))[0]), threshold


def _refine(grid: Floats, losses: Floats, exact: Callable[[Floats], Floats]) -> tuple[float, float]:
    """The least loss in the lowest valleys of a grid, and its threshold."""
    walls = np.concatenate([[np.inf], losses, [np.inf]])
    valleys = np.flatnonzero((losses <= walls[:-2]) & (losses <= walls[2:]))
    found = []
    for cell in valleys[np.argsort(losses[valleys])][:_MOST_VALLEYS]:
        thresholds, best = grid, int(cell)
        for _ in range(5):
            low, high = thresholds[max(best - 1, 0)], thresholds[min(best + 1, len(thresholds) - 1)]
            thresholds = np.linspace(low, high, 13)
            refined = exact(thresholds)
            best = int(np.argmin(refined))
        found.append((float(refined[best]), float(thresholds[best])))
    return min(found)


@lru_cache(maxsize=4096)
def _grid(source: Source, sigma: float) -> Floats:
    """Thresholds of y, ascending, among which the best one lies.

    Decoders of several kinds ask for the same.
    """
    u, _ = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    top = 2 * max(float(u.max()), 0.0) + 1e-300
    bottom = min(float(u.min()), 0.0)
    # Below all of y a ReLU is affine; the best affine decoder is zero at t = -mean sigma^2 / v.
    affine = -source.mean * sigma**2 / source.variance if source.variance > 0 else 0.0
    grid = np.concatenate(
        [
            [affine, affine - sigma, bottom - 9 * sigma],
            np.linspace(bottom, 0, 17),
            sigma * np.linspace(-9, 14, 47),
            np.linspace(0, top, 17),
            np.geomspace(max(14 * sigma, 1e-6 * top), max(15 * sigma, top), 25),
        ]
    )
    return np.unique(grid)


def moments_above(source: Source, levels: Floats, threshold: Floats) -> tuple[Floats, Floats]:
    """Moments of y and x over y > t, averaged over the levels of noise.

    Returns
    -------
    powers : array (3, n)
        E[1; y > t], E[y; y > t], E[y^2; y > t].
    overlaps : array (2, n)
        E[x; y > t], E[x y; y > t].
    """
    t, sigma = np.broadcast_arrays(threshold, levels[:, None])
    u, w = source.amplitude_nodes(t[..., None], sigma)
    u, w = (
        np.concatenate([u, np.zeros_like(u[..., :1])], -1),
        np.concatenate([source.p * w, np.full_like(w[..., :1], 1 - source.p)], -1),
    )
    t, s = t[..., None], sigma[..., None]
    d = standardised(u - t, s)
    above, edge = ndtr(d), s * normal_pdf(d)
    first = u * above + edge
    powers = [above, first, (u * u + s * s) * above + edge * (u + t)]
    overlaps = [u * above, u * first]
    return tuple(np.stack([(w * part).sum(-1).mean(0) for part in parts]) for parts in (powers, overlaps))  # type: ignore[return-value]


def risk_above(source: Source, gain: ArrayLike, bias: ArrayLike, threshold: ArrayLike, sigma: ArrayLike) -> Floats:
    """Risk of (gain y + bias) 1[y > t] at noise sigma; the four broadcast."""
    on, off = errors_above(source, gain, bias, threshold, sigma)
    return source.p * on + (1 - source.p) * off


def errors_above(
    source: Source, gain: ArrayLike, bias: ArrayLike, threshold: ArrayLike, sigma: ArrayLike
) -> tuple[Floats, Floats]:
    """Mean squared errors of (gain y + bias) 1[y > t] where x is active, and where it is off.

    With d = (u - t) / sigma and c = u - gain u - bias, the error is u below and c - gain sigma z above t:

        E = u^2 Phi(-d) + (c^2 + gain^2 sigma^2) Phi(d) - (2 c + gain (u - t)) gain sigma phi(d),

    in which nothing cancels where the output is close to u.
    """
    gain, bias, threshold, sigma = np.broadcast_arrays(
        *(np.asarray(part, dtype=np.float64) for part in (gain, bias, threshold, sigma))
    )
    u, w = source.amplitude_nodes(threshold[..., None], sigma)
    below = u * u * ndtr(standardised(threshold[..., None] - u, sigma[..., None]))
    above = error_above(u, gain[..., None], bias[..., None], threshold[..., None], sigma[..., None])
    off = error_above(np.zeros_like(sigma), gain, bias, threshold, sigma)
    return (w * (below + above)).sum(-1), off


def error_above(u: Floats, gain: Floats, bias: Floats, threshold: Floats, sigma: Floats) -> Floats:
    """E[(u - gain y - bias)^2; y > t] for y = u + sigma z; the five broadcast."""
    d = standardised(u - threshold, sigma)
    c = u - gain * u - bias
    s = gain * sigma
    return (c * c + s * s) * ndtr(d) - (2 * c + gain * (u - threshold)) * s * normal_pdf(d)


def regression(powers: Floats, overlaps: Floats) -> tuple[Floats, Floats]:
    """Gain and bias of the regression of x on (y, 1) over y > t; the mean where y does not vary."""
    # Where y is above t much more rarely than any feature is active, nothing is to be gained.
    count = np.where(powers[0] > 1e-50, powers[0], np.inf)
    y, x = powers[1] / count, overlaps[0] / count
    square = powers[2] / count
    variance = square - y * y
    covariance = overlaps[1] / count - x * y
    gain = np.divide(covariance, variance, out=np.zeros_like(y), where=variance > 1e-12 * square)
    return gain, x - gain * y
