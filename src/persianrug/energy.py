"""The energy of a vector, which sets the noise on each of its features.

The interference on feature i sums over the other n - 1 features. Given these, its variance is

    sigma^2 = g S,    S = 1/(n - 1) sum_{j != i} (x_j - mean)^2,    g = (1 - ratio) / ratio for a rug,

and S does not depend on x_i. As n grows, S tends to the source's variance v: the law of the limit. At finite n a
loss is an average over S, whose distribution matters where few features are active.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from persianrug.sources import Source

# The number of active features is summed over one by one up to this many values.
_MOST_COUNTS = 256


@dataclass(frozen=True)
class Energy:
    """Quadrature for the mean energy S of the other features: a loss is sum weights loss(sqrt(g nodes))."""

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]


def energy(source: Source, n_sparse: int) -> Energy:
    """Quadrature for S, the mean of n_sparse - 1 independent copies of (x - mean)^2.

    Given the number K of active features, S has two nodes which match its first three moments; K is binomial
    and is summed over. Where K takes very many values, S is so narrow that the two nodes of its own first three
    moments do as well.

    Parameters
    ----------
    source : Source
    n_sparse : int >= 2
    """
    others = n_sparse - 1
    mean, active = _active_cumulants(source)
    off = mean * mean
    low, high = (float(binom.ppf(q, others, source.p)) for q in (1e-14, 1 - 1e-14))
    if high - low < _MOST_COUNTS:
        count = np.arange(max(0.0, low), high + 1)
        weight = binom.pmf(count, others, source.p)
        cumulants = count[:, None] * active
        cumulants[:, 0] += (others - count) * off
    else:
        weight = np.ones(1)
        cumulants = others * _mixture_cumulants(source.p, active, off)[None]
    nodes, shares = _two_nodes(cumulants)
    weights = weight[:, None] * shares
    return Energy((nodes / others).ravel(), (weights / weights.sum()).ravel())


def _active_cumulants(source: Source) -> tuple[float, NDArray[np.float64]]:
    """The source's mean, and the first three cumulants of (u - mean)^2 over its amplitude u."""
    mean = source.mean
    u, w = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    squared = (u - mean) ** 2
    first = w @ squared
    return mean, np.array([first, w @ (squared - first) ** 2, w @ (squared - first) ** 3])


def _mixture_cumulants(p: float, active: NDArray[np.float64], off: float) -> NDArray[np.float64]:
    """First three cumulants of a variable that has the cumulants `active` with probability p, else is `off`."""
    gap = active[0] - off
    q = 1 - p
    return np.array(
        [
            off + p * gap,
            p * active[1] + p * q * gap**2,
            p * active[2] + 3 * p * q * gap * active[1] + p * q * (q - p) * gap**3,
        ]
    )


def _two_nodes(cumulants: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights (..., 2) of the Gauss rule that matches mean, variance and third central moment.

    The nodes of a Gauss rule lie where the variable does, so they are not negative.
    """
    mean, variance, third = np.moveaxis(cumulants, -1, 0)
    deviation = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.where(variance > 0, third / deviation**3, 0.0) / 2
    reach = np.sqrt(1 + skew**2)
    nodes = np.stack([mean + deviation * (skew - reach), mean + deviation * (skew + reach)], axis=-1)
    upper = (1 - skew / reach) / 2
    # Rounding may take a node at 0 below it.
    return np.maximum(nodes, 0.0), np.stack([1 - upper, upper], axis=-1)
