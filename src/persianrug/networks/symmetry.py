"""Macroscopic statistics of any weights: whether a network is symmetric, and a rug or made of knots.

A network x_hat = act(W x + bias) with W = W_out W_in reads feature i from

    W_ii x_i + bias_i + nu_i,        nu_i = sum_{j != i} W_ij x_j,

and eps is W without its diagonal. The paper "The Persian Rug" (arXiv 2410.12101) takes a network for symmetric
under permutations of its features when diagonal, bias, mean and variance of nu_i hardly vary between features and
nu_i is nearly Gaussian. The formulas are those of its text. Its published code (KfirD/PersianRug,
utils/model_analytics.py) differs in places: it leaves the power 3/2 out of the Lyapunov ratio, which is given here
under a name of its own; it counts the diagonal as interference; it divides row sums by n_sparse; and it tests
feature 0 alone, standardised by the sample. Variances over features are divided by n_sparse - 1 in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import Parts, place
from persianrug.networks.weights import Matrix, checked_weights
from persianrug.sources import Source, SparseUniform

# Rows of W that are computed at a time.
_BLOCK = 256
# Features whose interference is tested, and samples of it that are taken at most and held at a time.
_TESTED = 64
_MOST_SAMPLES = 1 << 18
_MOST_ENTRIES_HELD = 1 << 22

# Interference this small beside the norms of what is multiplied, |row i of W_out| |W_in|, is what rounding to
# float32 leaves of 0.
_ROUNDING = 1e-7
# The largest of n Gaussian entries is about sqrt(2 log n) standard deviations; so many times that stands out.
_STANDS_OUT = 1.5
# Mean square of those standard normal numbers that are smaller than the median in absolute value.
_SMALLER_HALF = 0.142652
# Partners are at least such a part of the strongest entry, which no rounding error is.
_LEAST_PARTNER = 1e-3
# Partners that are kept for each feature, and named in a verdict.
_MOST_PARTNERS = 32
_MOST_NAMED = 6
# Entries whose standard deviation is below this part of the largest are all alike.
_ALIKE = 1e-6
# Share of the interference from which on partners make a knot.
_KNOT_SHARE = 0.1
# What may differ in a rug: diagonals and interference variances by parts of their mean, biases by parts of the
# standard deviation of what is read, skewness from 0, and the largest share of an entry from the Gaussian one.
_DIAGONALS = 0.05
_VARIANCES = 0.25
_BIASES = 0.25
_SKEWNESS = 0.5
_LARGEST = 3.0
# With fewer entries a row looks like anything.
_LEAST_FEATURES = 16

_SOURCE = SparseUniform(p=0.045)


@dataclass(frozen=True, eq=False)
class Symmetry(Parts):
    """Statistics of the weights of a network, by which it is told whether it is symmetric and how it is built.

    W = W_out W_in, and eps is W without its diagonal; v and mean_x are variance and mean of a feature of the
    source. Weights have no unit, and features that of x. Features whose interference is nothing but rounding
    errors are left out of ratios, skewness and test; where this leaves none, these are 0 and the p-value is 1.

    Attributes
    ----------
    n_sparse, n_dense : int
        Number of features, and length of the code.
    diagonal_mean, diagonal_variance : float
        Of W_ii over features i.
    bias_mean, bias_variance : float
        Of bias_i over i, in units of x and their square; 0 without a bias.
    interference_variance_mean, interference_variance_variance : float
        Of Var nu_i = v sum_j eps_ij^2 over i, in units of x^2 and x^4.
    interference_mean_variance : float
        Variance over i of E nu_i = mean_x sum_j eps_ij, in units of x^2.
    offset_variance : float
        Variance over i of bias_i + E nu_i, in units of x^2. Biases may differ just to make up for the means.
    lyapunov_mean, lyapunov_max : float
        Of sum_j |eps_ij|^3 / (sum_j eps_ij^2)^(3/2) over i, from about 1.6 / sqrt(n_sparse) for Gaussian entries
        to 1 for a single one. Where it vanishes, nu_i is Gaussian for n_sparse -> infinity.
    paper_lyapunov_mean, paper_lyapunov_max : float
        Of sum_j |eps_ij|^3 / sum_j eps_ij^2 over i, which the paper's code computes: without the power 3/2, it
        grows with the scale of W.
    ks_statistic, ks_p_value : float
        Of Kolmogorov and Smirnov's test of nu_i against a Gaussian; see `measure_symmetry`.
    skewness : float
        Mean over i of the skewness of the numbers eps_ij, j != i, without a correction of bias.
    largest_share : float
        Median over i of max_j eps_ij^2 / sum_j eps_ij^2, about 2 log(n_sparse) / n_sparse for Gaussian entries.
    partner_count : float
        Median over i of the number of partners, the j whose |eps_ij| stands out; see `measure_symmetry`.
    partner_share : float
        Mean over i of the part of sum_j eps_ij^2 that is partners'.
    partner_entry : float
        Mean of the partners' eps_ij; 0 where there are none.
    partner_negative : float
        Share of the partners whose eps_ij is negative; 0 where there are none.
    verdict : str
        "rug-like", "knotted: ..." with which partners, or "neither: ..." with why not; see `measure_symmetry`.
    partners : int64 array (n_sparse, k)
        Partners of every feature, the strongest first and at most 32, filled up with -1.
    """

    n_sparse: int
    n_dense: int
    diagonal_mean: float
    diagonal_variance: float
    bias_mean: float
    bias_variance: float
    interference_variance_mean: float
    interference_variance_variance: float
    interference_mean_variance: float
    offset_variance: float
    lyapunov_mean: float
    lyapunov_max: float
    paper_lyapunov_mean: float
    paper_lyapunov_max: float
    ks_statistic: float
    ks_p_value: float
    skewness: float
    largest_share: float
    partner_count: float
    partner_share: float
    partner_entry: float
    partner_negative: float
    verdict: str
    partners: NDArray[np.int64] = field(repr=False, compare=False)


def measure_symmetry(
    W_out: Float[Matrix, "n_sparse n_dense"],
    W_in: Float[Matrix, "n_dense n_sparse"],
    bias: Float[Matrix, " n_sparse"] | None = None,
    source: Source = _SOURCE,
    *,
    samples: int = 1024,
    seed: int = 0,
) -> Symmetry:
    """Statistics of a network x_hat = act(W_out W_in x + bias) of any activation, and a verdict in words.

    W is made in blocks of rows and never held.

    A partner of feature i is a j whose |eps_ij| is more than 1.5 sqrt(2 log n_sparse) standard deviations of the
    row's Gaussian bulk, as the smaller half of the entries shows it without regard to the partners. The verdict is

    - knotted, if at least half of the features have partners, which carry at least 10% of the interference;
    - rug-like, if features are alike and nothing stands out: diagonals have a standard deviation of at most 5%
      of their mean, interference variances of at most 25%, and biases, as they are or with the mean interference
      added, of at most 25% of what pre-activations have over the data; skewness is within 0.5 of 0, and the
      largest share of an entry within 3 times what Gaussian entries have. For few features, 25% and 0.5 give way
      to three standard errors of Gaussian rows. The paper's rug is rug-like, and so is a random Gaussian code of
      unit columns, which only has somewhat more interference. (A rug of up to about 100 features
      may happen to have a few large entries a row, or to fall into blocks, and then is called knotted);
    - neither, in all other cases, and always with fewer than 16 features that have no partners.

    It does not depend on the test, whose outcome is that of the weights *and* of the source: few active features
    make no Gaussian sum. Interference at up to 64 features, spread evenly, is sampled, standardised by its exact
    mean and variance and tested at each feature by itself; statistic and p-value are the medians over features.
    P-values of one feature are uniform where nu_i is Gaussian, and so their median is about 0.5, mostly between
    0.35 and 0.65. All features pooled would share their samples, which the test cannot allow for. No finite sum is
    quite Gaussian, so enough samples would refute all networks; at the 1024 of the default, about as many as the
    paper takes, distribution functions must differ by about 0.04.

    Parameters
    ----------
    W_out : float32 or float64 tensor or array (n_sparse, n_dense)
    W_in : float32 or float64 tensor or array (n_dense, n_sparse)
    bias : float32 or float64 tensor or array (n_sparse,), optional
    source : Source
        Of features that are alike; by default the paper's, at p = 0.045.
    samples : int from 8 to 2^18
        Number of vectors for the test.
    seed : int >= 0
        Of these vectors.

    Raises
    ------
    ValueError
        If shapes do not fit, n_dense is above n_sparse, there are fewer than 2 features, numbers are not finite or
        above 1e30, the source has features that differ, or samples or seed are out of range.
    """
    weights_out, weights_in, offsets = checked_weights(W_out, W_in, bias)
    samples = checks.integer("samples", samples, 8, _MOST_SAMPLES)
    seed = checks.seed(seed)
    checks.instance("source", source, Source)
    if source.n_sparse is not None:
        raise ValueError(f"source {source.name} has features that differ; allowed here: alike ones")
    rows = _rows(weights_out, weights_in)
    real = rows.energy > 0
    shares = rows.partner_energy[real] / rows.energy[real]
    ratios = rows.cubes[real] / rows.energy[real] ** 1.5
    paper_ratios = rows.peak[real] * rows.cubes[real] / rows.energy[real]
    variances = source.variance * rows.peak**2 * rows.energy
    means = source.mean * rows.sums
    statistic, p_value = _test(weights_out, weights_in, np.sqrt(variances), source, samples, seed)
    numbers = {
        "diagonal_mean": rows.diagonal.mean(),
        "diagonal_variance": rows.diagonal.var(ddof=1),
        "bias_mean": offsets.mean(),
        "bias_variance": offsets.var(ddof=1),
        "interference_variance_mean": variances.mean(),
        "interference_variance_variance": variances.var(ddof=1),
        "interference_mean_variance": means.var(ddof=1),
        "offset_variance": (offsets + means).var(ddof=1),
        "lyapunov_mean": _mean(ratios),
        "lyapunov_max": ratios.max(initial=0.0),
        "paper_lyapunov_mean": _mean(paper_ratios),
        "paper_lyapunov_max": paper_ratios.max(initial=0.0),
        "ks_statistic": statistic,
        "ks_p_value": p_value,
        "skewness": _mean(rows.skewness[real]),
        # The largest entry is the unit in which the rows' energies are.
        "largest_share": float(np.median(1 / rows.energy[real])) if real.any() else 0.0,
        "partner_count": np.median(rows.partner_count),
        "partner_share": _mean(shares),
        "partner_entry": rows.partner_sum.sum() / max(rows.partner_count.sum(), 1),
        "partner_negative": rows.partner_negative.sum() / max(rows.partner_count.sum(), 1),
    }
    found = Symmetry(
        n_sparse=len(weights_out),
        n_dense=len(weights_in),
        **{name: float(value) for name, value in numbers.items()},
        verdict="",
        partners=rows.partners,
    )
    return replace(found, verdict=_verdict(found, float(source.variance)))


@dataclass(frozen=True)
class _Rows:
    """Sums over the rows of eps: arrays (n_sparse,), where a row's largest entry, in absolute value, is 1."""

    # (n_sparse, k)
    partners: NDArray[np.int64]
    diagonal: NDArray[np.float64]
    # The largest entry, and the sum of all, as they are.
    peak: NDArray[np.float64]
    sums: NDArray[np.float64]
    # Sum of the squares, 0 where all are rounding errors, and of the cubes of sizes.
    energy: NDArray[np.float64]
    cubes: NDArray[np.float64]
    skewness: NDArray[np.float64]
    # Of the partners: how many, how many negative ones, their sum as they are, the sum of their squares.
    partner_count: NDArray[np.float64]
    partner_negative: NDArray[np.float64]
    partner_sum: NDArray[np.float64]
    partner_energy: NDArray[np.float64]


def _rows(W_out: Tensor, W_in: Tensor) -> _Rows:
    n = len(W_out)
    blocks = []
    places = []
    norm = W_in.norm()
    for start in range(0, n, _BLOCK):
        rows = W_out[start : start + _BLOCK]
        numbers, partners = _block(rows, W_in, start, _ROUNDING * norm * rows.norm(dim=1))
        blocks.append(numbers)
        places.append(partners)
    width = max(part.shape[1] for part in places)
    padded = [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=-1) for part in places]
    return _Rows(torch.cat(padded).numpy(), *torch.cat(blocks, dim=1).numpy())


def _block(rows: Tensor, W_in: Tensor, start: int, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """What `_Rows` holds of a few rows: numbers (10, rows), and partners (rows, k)."""
    n = W_in.shape[1]
    eps = rows @ W_in
    own = torch.arange(len(rows)), torch.arange(start, start + len(rows))
    diagonal = eps[own]
    eps[own] = 0.0
    sums = eps.sum(dim=1)
    peak = eps.abs().amax(dim=1)
    # In units of the peak, so that no power overflows or vanishes.
    eps /= torch.where(peak > 0, peak, 1.0)[:, None]
    energy = _powers(eps, 2)
    real = peak * energy.sqrt() > rounding
    cubes = _powers(eps, 3)
    # The deviation of a Gaussian, from the squares of the smaller half of the n - 1 others; 0, the diagonal's,
    # comes before them all. The median alone depends too much on how few values a small rug's entries have.
    sizes = eps.abs()
    others = n // 2 + 1
    median = sizes.kthvalue(others, dim=1).values
    half = _powers(sizes.clamp_max(median[:, None]), 2) - (n - others) * median.square()
    deviation = (half.clamp_min(0.0) / (others - 1) / _SMALLER_HALF).sqrt()
    least = (_STANDS_OUT * (2 * math.log(n)) ** 0.5 * deviation).clamp_min(_LEAST_PARTNER)
    stands_out = (sizes > least[:, None]) & real[:, None]
    count = stands_out.sum(dim=1)
    best = sizes.mul_(stands_out).topk(min(_MOST_PARTNERS, int(count.max())), dim=1)
    partners = torch.where(best.values > 0, best.indices, -1)
    row, entries = stands_out.nonzero()[:, 0], eps[stands_out]
    nought = torch.zeros_like(energy)
    partner_sum = peak * nought.index_add(0, row, entries)
    negative = nought.index_add(0, row, (entries < 0).double())
    partner_energy = nought.index_add(0, row, entries.square())
    eps -= (eps.sum(dim=1) / (n - 1))[:, None]
    eps[own] = 0.0
    second = _powers(eps, 2) / (n - 1)
    third = eps.square().mul_(eps).sum(dim=1) / (n - 1)
    # Entries that are all alike have none, up to rounding.
    skewness = torch.where(second > _ALIKE**2, third / second.clamp_min(_ALIKE**2) ** 1.5, 0.0)
    energy *= real
    numbers = [diagonal, peak, sums, energy, cubes, skewness, count, negative, partner_sum, partner_energy]
    return torch.stack([part.double() for part in numbers]), partners


def _powers(rows: Tensor, power: int) -> Tensor:
    """Sum of the powers of sizes in each row, without another matrix."""
    return torch.linalg.vector_norm(rows, ord=power, dim=1) ** power


def _test(
    W_out: Tensor, W_in: Tensor, deviation: NDArray[np.float64], source: Source, samples: int, seed: int
) -> tuple[float, float]:
    """Medians over features of Kolmogorov and Smirnov's statistic and p-value, given the deviation of nu_i."""
    n = len(W_out)
    features = np.unique(np.linspace(0, n - 1, min(n, _TESTED)).round().astype(np.int64))
    features = features[deviation[features] > 0]
    if not len(features):
        return 0.0, 1.0
    eps = W_out[features] @ W_in
    eps[torch.arange(len(features)), features] = 0.0
    eps /= place(deviation[features], eps)[:, None]
    generator = torch.Generator().manual_seed(seed)
    batch = max(1, _MOST_ENTRIES_HELD // n)
    parts = []
    for start in range(0, samples, batch):
        x = source.sample(min(batch, samples - start), n, seed=generator, dtype=torch.float64)
        parts.append((x - source.mean) @ eps.T)
    tests = [scipy.stats.kstest(interference, "norm") for interference in torch.cat(parts).T.numpy()]
    return (
        float(np.median([test.statistic for test in tests])),
        float(np.median([test.pvalue for test in tests])),
    )


def _verdict(found: Symmetry, variance: float) -> str:
    """The verdict on a network whose numbers are found, over features of this variance."""
    n = found.n_sparse
    unequal = []
    diagonals = _spread(found.diagonal_variance, found.diagonal_mean)
    if diagonals > _DIAGONALS:
        unequal.append(f"diagonals differ by {diagonals:.0%}")
    variances = _spread(found.interference_variance_variance, found.interference_variance_mean)
    # Three standard errors, of the mean of n squares and of the skewness of n Gaussian numbers.
    if variances > max(_VARIANCES, 3 * (2 / n) ** 0.5):
        unequal.append(f"interference variances differ by {variances:.0%}")
    whole = (found.diagonal_mean**2 * variance + found.interference_variance_mean) ** 0.5
    biases = _spread(min(found.bias_variance, found.offset_variance), whole)
    if biases > _BIASES:
        unequal.append(f"biases differ by {biases:.0%} of the pre-activations' standard deviation")
    if found.partner_count >= 1 and found.partner_share >= _KNOT_SHARE:
        return "; ".join([_knots(found), *unequal])
    uneven = []
    if found.largest_share == 0:
        uneven.append("there is no interference")
    elif found.partner_count >= 1:
        uneven.append(f"single entries stand out, but carry only {found.partner_share:.0%} of the interference")
    elif found.largest_share > _LARGEST * 2 * math.log(n) / n:
        uneven.append(f"the largest entry of a row carries {found.largest_share:.0%} of its interference")
    if abs(found.skewness) > max(_SKEWNESS, 3 * (6 / n) ** 0.5):
        uneven.append(f"interference has a skewness of {found.skewness:.2g}")
    if n < _LEAST_FEATURES:
        uneven.append(f"{n} features are too few to tell")
    return f"neither: {'; '.join(unequal + uneven)}" if unequal + uneven else "rug-like"


def _knots(found: Symmetry) -> str:
    feature = int(np.flatnonzero(found.partners[:, 0] >= 0)[0])
    known = found.partners[feature]
    names = ", ".join(str(partner) for partner in sorted(known[known >= 0][:_MOST_NAMED]))
    more = ", ..." if (known >= 0).sum() > _MOST_NAMED else ""
    negative = found.partner_negative
    sign = {1.0: "negative", 0.0: "positive"}.get(negative, f"{negative:.0%} negative")
    count = f"{found.partner_count:g} partner{'s' * (found.partner_count != 1)}"
    return (
        f"knotted: {count} a feature, such as feature {feature} with {names}{more}, {sign}, "
        f"{found.partner_entry:.3g} on average where the diagonal is {found.diagonal_mean:.3g}, "
        f"carry {found.partner_share:.0%} of the interference"
    )


def _spread(variance: float, mean: float) -> float:
    """Standard deviation relative to the mean, 0 where nothing varies."""
    return variance**0.5 / abs(mean) if mean else float("inf") * (variance > 0)


def _mean(numbers: NDArray[np.float64]) -> float:
    return float(numbers.mean()) if len(numbers) else 0.0
