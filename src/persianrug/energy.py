"""The energy of a vector, which sets the noise on each of its features.

The interference nu_i = sum_{j != i} W_ij (x_j - mean) is Gaussian only as n -> infinity. At finite n its variance
follows the energy that the other features happen to have: nu_i is modelled as sqrt(g S) z, with z standard
normal, g = sum_{j != i} W_ij^2 (the encoder's interference), and S the mean of N independent copies of
(x - mean)^2. A loss is then an average over S. It does not depend on x_i itself.

N is chosen so that nu_i has its exact fourth cumulant, k4 sum_j W_ij^4, where k4 is that of x and v its variance.
As the variance of (x - mean)^2 is k4 + 2 v^2 and nu_i has the fourth cumulant 3 g^2 Var S,

    N = 3 (1 + 2 v^2 / k4) / I,    I = sum_j W_ij^4 / (sum_j W_ij^2)^2,

with I the inverse participation of the off-diagonal entries. Were these Gaussian, I would be 3 / (n - 1) and, for
sparse x, N nearly n - 1. The rest is each encoder's own, and matters where few features are active.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.stats import binom

from persianrug.sources import Source

Rule = tuple[NDArray[np.float64], NDArray[np.float64]]

# While this many features or fewer are active, the distribution of their energy is followed closely.
_FEW = 64
_FEW_NODES = 12
# The number of active features is summed over one by one while it has up to this many likely values.
_MOST_COUNTS = 256
# A mean of more copies than this is its expectation.
_MOST_COPIES = 1e12


@dataclass(frozen=True)
class Energy:
    """Quadrature for the mean energy S of the other features: a loss is sum weights loss(sqrt(g nodes))."""

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]


def energy(source: Source, inverse_participation: float) -> Energy:
    """Quadrature for S, of the interference of an encoder with this inverse participation.

    The number K of active features is binomial and is summed over. Given K, S is a sum of K independent
    energies: it has a Gauss rule of 12 nodes up to K = 64, and above, where it is narrow, one of 2 nodes. Where
    K has very many likely values, S itself is so narrow that its own rule of 2 nodes does.

    Parameters
    ----------
    source : Source
    inverse_participation : float > 0
    """
    off = source.mean**2
    u, w = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    one = (u - source.mean) ** 2, w
    active = _cumulants(one)
    mixture = _mixture_cumulants(source.p, active, off)
    fourth = mixture[1] - 2 * mixture[0] ** 2
    # Of a source with lighter tails than a Gaussian's, interference has the fluctuations of a Gaussian or less.
    if fourth * _MOST_COPIES * inverse_participation <= 3 * mixture[1]:
        return Energy(mixture[:1], np.ones(1))
    others = max(1, round(3 * mixture[1] / (fourth * inverse_participation)))
    low, high = (int(binom.ppf(q, others, source.p)) for q in (1e-14, 1 - 1e-14))
    if high - low >= _MOST_COUNTS:
        nodes, weights = _two_nodes(others * mixture[None])
        return Energy(nodes / others, weights)
    rules: list[Rule] = []
    if low <= _FEW:
        rules = _sums(one, min(high, _FEW))[low:]
    many = np.arange(max(low, _FEW + 1), high + 1)
    if len(many):
        nodes, weights = (part.reshape(-1, 2) for part in _two_nodes(many[:, None] * active))
        rules += list(zip(nodes, weights, strict=True))
    counts = range(low, high + 1)
    chances = np.asarray(binom.pmf(counts, others, source.p))
    nodes = np.concatenate([x + (others - k) * off for k, (x, _) in zip(counts, rules, strict=True)])
    weights = np.concatenate([chance * w for chance, (_, w) in zip(chances, rules, strict=True)])
    return Energy(nodes / others, weights / weights.sum())


def _sums(one: Rule, most: int) -> list[Rule]:
    """Gauss rules for the sum of k independent copies of a variable with the rule `one`, k = 0 to `most`.

    Each is the Gauss rule of the products of the one before with that of a single copy.
    """
    rules: list[Rule] = [(np.zeros(1), np.ones(1))]
    single = _gauss(one)
    for _ in range(most):
        x, w = rules[-1]
        rules.append(_gauss(((x[:, None] + single[0]).ravel(), (w[:, None] * single[1]).ravel())))
    return rules


def _gauss(rule: Rule) -> Rule:
    """The Gauss rule of at most 12 nodes for a discrete measure, by Stieltjes' procedure."""
    x, w = rule
    polynomial, previous, norm = np.full(len(x), w.sum() ** -0.5), np.zeros(len(x)), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(_FEW_NODES):
        diagonal.append(float(w @ (x * polynomial**2)))
        following = (x - diagonal[-1]) * polynomial - norm * previous
        norm = float(np.sqrt(w @ following**2))
        # Measures of fewer nodes have no further polynomial.
        if norm <= 1e-10 * float(np.ptp(x)):
            break
        beside.append(norm)
        previous, polynomial = polynomial, following / norm
    if len(diagonal) == 1:
        return np.array(diagonal), np.array([w.sum()])
    nodes, vectors = eigh_tridiagonal(diagonal, beside[: len(diagonal) - 1])
    # Nodes of a Gauss rule lie where the variable does; rounding may take one at 0 below it.
    return np.maximum(nodes, 0.0), w.sum() * vectors[0] ** 2


def _cumulants(rule: Rule) -> NDArray[np.float64]:
    """Mean, variance and third central moment."""
    x, w = rule
    mean = w @ x
    return np.array([mean, w @ (x - mean) ** 2, w @ (x - mean) ** 3])


def _mixture_cumulants(p: float, active: NDArray[np.float64], off: float) -> NDArray[np.float64]:
    """`_cumulants` of a variable that has those of `active` with probability p, and else is `off`."""
    gap = active[0] - off
    q = 1 - p
    return np.array(
        [
            off + p * gap,
            p * active[1] + p * q * gap**2,
            p * active[2] + 3 * p * q * gap * active[1] + p * q * (q - p) * gap**3,
        ]
    )


def _two_nodes(cumulants: NDArray[np.float64]) -> Rule:
    """Gauss rules (..., 2), flattened, for mean, variance and third central moment (..., 3)."""
    mean, variance, third = np.moveaxis(cumulants, -1, 0)
    deviation = np.sqrt(variance)
    skew = np.divide(third, deviation**3, out=np.zeros_like(third), where=variance > 0) / 2
    reach = np.sqrt(1 + skew**2)
    nodes = np.stack([mean + deviation * (skew - reach), mean + deviation * (skew + reach)], axis=-1)
    upper = (1 - skew / reach) / 2
    return np.maximum(nodes, 0.0).ravel(), np.stack([1 - upper, upper], axis=-1).ravel()
