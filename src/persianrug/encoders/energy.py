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
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from persianrug._support.arrays import Parts
from persianrug.sources import Each, Source

Rule = tuple[NDArray[np.float64], NDArray[np.float64]]

# While this many features or fewer are active, the distribution of their energy is followed closely.
_FEW = 64
_FEW_NODES = 12
_NODES_OF_MANY = 6
# From here on of E S^6 / (E S^3)^2 the nodes of a rule for all of S are in its tail, and few where S mostly is.
_HEAVY = 2000.0
# Then parts have rules of 2 nodes of their own: those of the likeliest, down to the share of 1e-4 and below.
_SHARES = (0.4, 0.1, 0.02, 2e-3, 1e-4)
# The number of active features is summed over one by one while it has up to this many likely values.
_MOST_COUNTS = 256
# A mean of more copies than this is its expectation.
_MOST_COPIES = 1e12


@dataclass(frozen=True, eq=False)
class Energy(Parts):
    """Quadrature for the mean energy S of the other features: a loss is sum weights loss(sqrt(g nodes)).

    `active` is, at every node, the number of features that are active, relative to its mean.
    """

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    active: NDArray[np.float64]

    @property
    def relative(self) -> NDArray[np.float64]:
        """The nodes relative to the mean energy."""
        mean = float(self.weights @ self.nodes)
        return self.nodes / mean if mean > 0 else np.ones_like(self.nodes)


def energy(source: Source, inverse_participation: float) -> Energy:
    """Quadrature for S, of the interference of an encoder with this inverse participation.

    Where features differ, S is made of copies of a feature drawn at random among them, which has the right mean;
    their number gives S the right variance.

    Parameters
    ----------
    source : Source
    inverse_participation : float > 0
    """
    drawn = _draw(source)
    mean, variance, _ = drawn.cumulants()
    # The fourth cumulant of a feature, on average: that W_ij^4 goes with it is left out.
    p, active, off = np.asarray(source.p), _cumulants(_active_energy(source)), np.square(source.mean)
    own = _mixture_cumulants(p, active, off)
    # With each of those that are active together a feature adds 3 W_ij^2 W_ik^2 Cov(x_j^2, x_k^2), on average as
    # much as W_ij^4 times that covariance.
    others = (source.together - 1) * p * (1 - p) * (active[0] - off) ** 2
    fourth = float(np.mean(own[1] - 2 * own[0] ** 2 + others))
    # Of a source with lighter tails than a Gaussian's, interference has the fluctuations of a Gaussian or less.
    if fourth * _MOST_COPIES * inverse_participation <= 3 * variance:
        return Energy(np.array([mean]), np.ones(1), np.ones(1))
    spread = drawn.mean_of(max(1, round(3 * variance / (fourth * inverse_participation))))
    if source.n_sparse is None:
        return spread
    # Every node costs as much as there are features.
    return few_nodes(spread)


def few_nodes(spread: Energy) -> Energy:
    """The Gauss rule of 6 nodes for S, which says no longer how many features are active.

    Where most vectors have no active feature these get one node of their own: of a rule for all vectors the
    others would be lost in the rounding.
    """
    none = spread.active == 0
    apart = none & (spread.weights[none].sum() > 0.5)
    rule = spread.nodes[~apart], spread.weights[~apart]
    nodes, weights = _gauss(rule, _NODES_OF_MANY - int(apart.sum()))
    nodes = np.concatenate([spread.nodes[apart], nodes])
    return Energy(nodes, np.concatenate([spread.weights[apart], weights]), np.ones(len(nodes)))


def mean_energy(source: Source, copies: int) -> Energy:
    """Quadrature for the mean of (x - mean)^2 over copies of a feature, independent or in groups."""
    return _draw(source).mean_of(max(1, copies // source.together))


def own_group(source: Source, n_sparse: int) -> tuple[float, Each, Each]:
    """The other members of a feature's group: their share among the other features, and their energy.

    Returns
    -------
    share : float
    active, off : float or array (n_sparse,)
        Where the group is active and where it is off, relative to the mean energy of a feature, on average over
        the group.
    """
    active = source.amplitude_variance + (source.amplitude_moment(1) - source.mean) ** 2
    energies = np.stack(np.broadcast_arrays(active, np.square(source.mean), source.variance))
    if source.n_sparse is not None:
        groups = energies.reshape(3, -1, source.together).mean(-1)
        energies = np.repeat(groups, source.together, axis=1)
    mean = max(float(np.mean(energies[2])), 1e-300)
    return (source.together - 1) / (n_sparse - 1), energies[0] / mean, energies[1] / mean


def vector_energy(source: Source, n_sparse: int) -> Energy:
    """The same of one vector of n_sparse features, by the number of active features alone: few nodes.

    Where features differ, its mean.
    """
    drawn = _draw(source)
    if source.n_sparse is not None:
        return Energy(np.array([drawn.cumulants()[0]]), np.ones(1), np.ones(1))
    counts, chances = _counts(n_sparse // source.together, source.p, _FEW_NODES)
    counts = counts * source.together
    x, w = drawn.active
    nodes = (counts * float(w @ x) + (n_sparse - counts) * drawn.off) / n_sparse
    return Energy(nodes, chances / chances.sum(), counts / (n_sparse * source.p))


@dataclass(frozen=True)
class _Draw:
    """The energy (x - mean)^2 of a feature drawn at random: that of `active` with probability p, else `off`.

    Where features come in groups, the mean energy of a group.
    """

    p: float
    active: Rule
    off: float

    def cumulants(self) -> tuple[float, float, float]:
        """Mean, variance and third central moment."""
        mixture = _mixture_cumulants(np.asarray(self.p), _cumulants(self.active), np.asarray(self.off))
        return float(mixture[0]), float(mixture[1]), float(mixture[2])

    def mean_of(self, copies: int) -> Energy:
        """Quadrature for the mean of so many of them.

        The number K of active features is binomial and is summed over. Given K, S is a sum of K independent
        energies: it has a Gauss rule of 12 nodes up to K = 64, and above, where it is narrow, one of 2 nodes.
        """
        counts, chances = _counts(copies, self.p, _MOST_COUNTS)
        nodes, weights = (part.reshape(-1, 2) for part in _two_nodes(counts * _cumulants(self.active)[:, None]))
        rules: list[Rule] = list(zip(nodes, weights, strict=True))
        if counts[0] <= _FEW:
            sums = _sums(self.active, min(int(counts[-1]), _FEW))
            rules = [
                sums[int(k)] if k <= _FEW and k == int(k) else rule for k, rule in zip(counts, rules, strict=True)
            ]
        nodes = np.concatenate([x + (copies - k) * self.off for k, (x, _) in zip(counts, rules, strict=True)])
        weights = np.concatenate([chance * w for chance, (_, w) in zip(chances, rules, strict=True)])
        shares = np.concatenate([np.full(len(x), k) for k, (x, _) in zip(counts, rules, strict=True)])
        return Energy(nodes / copies, weights / weights.sum(), shares / (copies * self.p))


def _draw(source: Source) -> _Draw:
    squares, weights = _active_energy(source)
    p, off = np.asarray(source.p), np.square(source.mean)
    if source.n_sparse is None:
        return _Draw(float(p), _mean_of(source.together, (squares, weights)), float(off))
    share = np.broadcast_to(p, source.n_sparse) / source.n_sparse
    rule = (weights * (share / share.sum())[:, None]).ravel()
    silent = float(np.sum((1 / source.n_sparse - share) * off) / max(1 - share.sum(), 1e-300))
    one = _gauss((np.broadcast_to(squares, weights.shape).ravel(), rule))
    return _Draw(float(share.sum()), _mean_of(source.together, one), silent)


def _mean_of(count: int, one: Rule) -> Rule:
    """A rule for the mean of so many independent copies of a variable with the rule `one`."""
    if count == 1:
        return one
    x, w = _sums(one, count)[-1]
    return x / count, w


def _active_energy(source: Source) -> Rule:
    """(u - mean)^2 and its weights (k,), or (n_sparse, k)."""
    u, w = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    squares = (u - np.asarray(source.mean)[..., None]) ** 2
    return squares, np.broadcast_to(w, squares.shape)


def _counts(others: int, p: float, most: int) -> Rule:
    """Numbers of active features and their chances, all that are likely, or a Gauss rule of 12 nodes for many.

    Where hardly any vector has an active feature, all numbers count that are likely among those that have.
    """
    if others * p < 1:
        counts, chances = _rare_counts(others, p)
        return (counts, chances) if len(counts) <= most else _gauss((counts, chances))
    # It takes a third of a second to import, which much that comes this way does not need.
    from scipy.stats import binom

    low, high = (int(binom.ppf(q, others, p)) for q in (1e-14, 1 - 1e-14))
    if high - low < most:
        counts = np.arange(low, high + 1, dtype=np.float64)
        return counts, np.asarray(binom.pmf(counts, others, p))
    # Among so many, a thousand equally far apart tell as much.
    counts = np.arange(low, high + 1, 1 + (high - low) // 1000, dtype=np.float64)
    chances = np.asarray(binom.pmf(counts, others, p))
    return _gauss((counts, chances / chances.sum()))


def _rare_counts(others: int, p: float) -> Rule:
    """Numbers of active features, on average less than one, and their chances, to 1e-16 of those of any at all."""
    counts = np.arange(min(others, 20) + 1.0)
    # From one number to the next, which is exact where quantiles of a probability near 1 are not.
    steps = (others - counts[:-1]) / counts[1:] * (p / (1 - p))
    chances = np.exp(others * np.log1p(-p)) * np.concatenate([[1.0], np.cumprod(steps)])
    likely = chances > 1e-16 * chances[1]
    return counts[likely], chances[likely]


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


def _gauss(rule: Rule, most: int = _FEW_NODES) -> Rule:
    """The Gauss rule of at most so many nodes for a discrete measure; of a heavy tail, rules of its parts."""
    x, w = rule
    third, sixth = ((w @ (x / x.max()) ** k) / w.sum() if x.max() > 0 else 1.0 for k in (3, 6))
    if sixth <= _HEAVY * third**2 or most < 4:
        return _stieltjes(rule, most)
    # As many parts as there are pairs of nodes; the first four moments of each are exact, and so are those of all.
    order = np.argsort(x, kind="stable")
    x, w = x[order], w[order]
    tail = np.cumsum(w[::-1])[::-1] / w.sum()
    shares = _SHARES if most >= 2 * len(_SHARES) + 2 else _SHARES[1::2][: most // 2 - 1]
    cuts = [0, *(int(np.searchsorted(-tail, -share)) for share in shares), len(x)]
    parts = [_stieltjes((x[a:b], w[a:b]), 2) for a, b in pairwise(cuts) if b > a]
    return np.concatenate([x for x, _ in parts]), np.concatenate([w for _, w in parts])


def _stieltjes(rule: Rule, most: int) -> Rule:
    """The Gauss rule of at most so many nodes for a discrete measure, by Stieltjes' procedure."""
    x, w = rule
    polynomial, previous, norm = np.full(len(x), w.sum() ** -0.5), np.zeros(len(x)), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(most):
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
    mean = (w * x).sum(-1)
    gap = x - mean[..., None]
    return np.array([mean, (w * gap**2).sum(-1), (w * gap**3).sum(-1)])


def _mixture_cumulants(
    p: NDArray[np.float64], active: NDArray[np.float64], off: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """`_cumulants` of a variable that has those of `active` with probability p, and else is `off`."""
    gap = active[0] - off
    q = 1 - p
    return (
        off + p * gap,
        p * active[1] + p * q * gap**2,
        p * active[2] + 3 * p * q * gap * active[1] + p * q * (q - p) * gap**3,
    )


def _two_nodes(cumulants: NDArray[np.float64]) -> Rule:
    """Gauss rules (k, 2), flattened, for mean, variance and third central moment (3, k)."""
    mean, variance, third = cumulants
    deviation = np.sqrt(variance)
    skew = np.divide(third, deviation**3, out=np.zeros_like(third), where=variance > 0) / 2
    reach = np.sqrt(1 + skew**2)
    nodes = np.stack([mean + deviation * (skew - reach), mean + deviation * (skew + reach)], axis=-1)
    upper = (1 - skew / reach) / 2
    return np.maximum(nodes, 0.0).ravel(), np.stack([1 - upper, upper], axis=-1).ravel()
