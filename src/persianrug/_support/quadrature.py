"""Integrals in one dimension by Gauss-Legendre panels, and the moments of a rectified Gaussian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def panels(breaks: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of a composite Gauss-Legendre rule (12 nodes a panel).

    Parameters
    ----------
    breaks : array (..., k + 1)
        Ends of the panels, ascending along the last axis; empty panels get weight 0.

    Returns
    -------
    nodes, weights : arrays (..., 12 k)
    """
    half = np.diff(breaks) / 2
    centre = (breaks[..., 1:] + breaks[..., :-1]) / 2
    nodes = centre[..., None] + half[..., None] * _NODES
    weights = half[..., None] * _WEIGHTS
    flat = (*breaks.shape[:-1], -1)
    return nodes.reshape(flat), weights.reshape(flat)


def normal_pdf(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Density of the standard normal distribution."""
    # Beyond 40 it is 0 in float64, and t^2 may overflow.
    t = np.clip(t, -40.0, 40.0)
    return np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi)


def standardised(m: NDArray[np.float64], s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quotient m / s, finite also at s = 0, where only its sign matters."""
    return m / np.maximum(s, 1e-150)


def rectified_first(m: NDArray[np.float64], s: NDArray[np.float64]) -> NDArray[np.float64]:
    """E max(m + s z, 0) for standard normal z: R1 = m Phi(m/s) + s phi(m/s)."""
    t = standardised(m, s)
    return m * ndtr(t) + s * normal_pdf(t)


def rectified_second(m: NDArray[np.float64], s: NDArray[np.float64]) -> NDArray[np.float64]:
    """E max(m + s z, 0)^2 for standard normal z: R2 = (m^2 + s^2) Phi(m/s) + m s phi(m/s)."""
    t = standardised(m, s)
    return (m * m + s * s) * ndtr(t) + m * s * normal_pdf(t)
