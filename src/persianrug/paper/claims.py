"""What "The Persian Rug" (arXiv 2410.12101) claims in numbers, beside what is predicted and what is measured.

Every row is computed from the runs of a reproduction. Sections and figures are those of the paper's first version.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from persianrug.decoders import Bayes, JumpReLU, Linear, ReLU, relu_bounds
from persianrug.decoders.base import Decoder
from persianrug.encoders import Rug
from persianrug.figures.laws import limit, noise
from persianrug.figures.style import Row
from persianrug.sources import SparseUniform
from persianrug.sweeps.sweep import KNOT

if TYPE_CHECKING:
    from persianrug.paper.data import Data

# Losses that agree are within so much of each other, or within so many standard errors.
_CLOSE, _ERRORS = 0.01, 4.0
# And of trained networks, which never quite end.
_NEAR = 0.05
# Where "about p" is still true.
_ABOUT = 2.0
# Growth with log(1 / p) that is none.
_FLAT = 0.05
# A part of the loss at ratio 0 whose loss is a fall.
_FALL = 0.1
_GAUSSIAN_P = 0.05
# Where p alone varies: that of the runs of the ladder.
_RATIO = 0.25

_PLACES = {
    "loss": "Section 3, figure 2b",
    "symmetry": "Section 3, figures 4 to 6",
    "gaussian": "Section 3.2, figures 4 to 6",
    "law": "Section 4",
    "rug": "Section 4.2.2, abstract",
    "scaling": "Section 4, abstract",
    "elementwise": "abstract, end of Section 4",
}


@dataclass(frozen=True)
class Claim:
    """A row of the table: what the paper says and where, our law, the measurement, and how far it holds."""

    claim: str
    section: str
    predicted: str
    measured: str
    agrees: str
    by_how_much: str


def claims(data: Data) -> list[Claim]:
    """Every claim, from the runs of a whole plan."""
    return [
        _rug_law(data), _rug_weights(), _onset(data), *_trained_by_size(data), _trained_by_steps(data),
        _linear(data), *_symmetry(data), _gaussian(data), _noise(data), _elementwise(data), _rare_elementwise(),
        _scaling(data),
    ]  # fmt: skip


def table(found: Sequence[Claim]) -> bytes:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([part.name for part in fields(Claim)])
    writer.writerows(astuple(claim) for claim in found)
    return text.getvalue().encode()


def _agrees(holds: bool) -> str:
    return "yes" if holds else "no"


def _rug_law(data: Data) -> Claim:
    rugs = [row for name in ("ratio-rug", "p-rug", "plane-rug") for row in data[name]]
    off = np.array([row["measured"] / row["predicted"] - 1 for row in rugs])
    errors = np.array([(row["measured"] - row["predicted"]) / max(row["stderr"], 1e-300) for row in rugs])
    good = (np.abs(off) < _CLOSE) | (np.abs(errors) < _ERRORS)
    at = int(np.argmax(np.abs(off)))
    worst = rugs[at]
    return Claim(
        "The loss of a large symmetric model has a closed form, which the rug reaches",
        _PLACES["law"],
        f"law of each of {len(rugs)} rugs, n = {rugs[0]['n_sparse']}",
        f"{good.mean():.1%} within 1% or 4 standard errors",
        _agrees(bool(good.mean() > 0.99)),
        f"median {np.median(np.abs(off)):.2%}; worst {abs(off[at]):.1%} ({abs(errors[at]):.1f} stderr) at p = "
        f"{worst['p']:.3g}, ratio = {worst['ratio']:.3g}, {worst['n_sparse'] * worst['p']:.0f} active features",
    )


def _rug_weights() -> Claim:
    rug = Rug.of_ratio(512, _RATIO, signs=False)
    W = rug.W_rows(0, 512).double().numpy()
    ratio = rug.n_dense / rug.n_sparse
    diagonal = np.diag(W)
    energy = (W**2).sum(axis=1) - diagonal**2
    least = (1 - ratio) / ratio
    return Claim(
        "Rows of a Hadamard matrix give equal diagonals and the least interference",
        _PLACES["rug"],
        f"W_ii = 1, sum_j W_ij² = (1 - r) / r = {least:.4g}",
        f"W_ii {diagonal.min():.6f} to {diagonal.max():.6f}, sum {energy.min():.6f} to {energy.max():.6f}",
        _agrees(bool(np.ptp(diagonal) < 1e-5 and np.abs(energy / least - 1).max() < 1e-5)),
        f"{np.abs(energy / least - 1).max():.0e}",
    )


def _crossing(ratios: np.ndarray, losses: np.ndarray, level: float) -> float:
    """Where losses that fall pass a level, interpolated in the logarithm of the ratio."""
    return float(np.exp(np.interp(-level, -losses, np.log(ratios))))


def _onset(data: Data) -> Claim:
    limits: list[float] = []
    predicted: list[float] = []
    measured: list[float] = []
    rates = sorted({row["p"] for row in data["ratio-rug"]})
    for p in rates:
        line = sorted((row for row in data["ratio-rug"] if row["p"] == p), key=lambda row: row["ratio"])
        ratios = np.array([row["ratio"] for row in line])
        level = (1 - _FALL) * float(SparseUniform(p).variance)
        for out, key in ((limits, "limit"), (predicted, "predicted"), (measured, "measured")):
            out.append(_crossing(ratios, np.array([row[key] for row in line]), level) / p)
    least, most = min(measured), max(measured)
    return Claim(
        "The loss starts to fall at a ratio of about p",
        _PLACES["loss"],
        f"a tenth is gone at ratio / p = {_list(limits)} for p = {_list(rates)}; on a rug of "
        f"{data['ratio-rug'][0]['n_sparse']} at {_list(predicted)}",
        f"ratio / p = {_list(measured)}",
        _agrees(least > 1 / _ABOUT and most < _ABOUT),
        f"from {least:.2g} p to {most:.2g} p: right to an order of magnitude, and more than p as p → 0",
    )


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.3g}" for number in numbers)


def _plane(data: Data, n: int) -> list[Row]:
    """The networks of a size that are trained over the plane."""
    return [row for row in data["plane"] if row["n_sparse"] == n]


def _relative(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row["measured"] / row["limit"] for row in rows])


def _trained_by_size(data: Data) -> list[Claim]:
    out = []
    for n in data.plan.sizes:
        rows = _plane(data, n)
        over = _relative(rows)
        sparse = _relative([row for row in rows if row["p"] < 0.1])
        near = float((np.abs(over - 1) < _NEAR).mean())
        out.append(
            Claim(
                f"The rug's loss is that of trained models: n = {n}, {data.plan.steps} steps of {data.plan.batch}",
                _PLACES["rug"],
                "trained / law of the rug = 1 (n → ∞)",
                f"{over.min():.3g} to {over.max():.3g} over the plane, median {np.median(over):.3g}",
                _agrees(near > 0.95),
                f"{near:.0%} of {len(rows)} networks within 5%; median at p < 0.1: {np.median(sparse):.3g}",
            )
        )
    return out


def _trained_by_steps(data: Data) -> Claim:
    n, parts, last = max(data.plan.budget_sizes), [], []
    trained = [
        name for name, sweep in data.sweeps.items() if name.startswith("budget") and KNOT not in sweep.method
    ]
    for name in trained:
        rows = [row for row in data[name] if row["n_sparse"] == n]
        over = [
            float(_relative([row for row in rows if row["steps"] == k]).mean()) for k in data.plan.budget_steps
        ]
        parts.append(f"{_list(over)} at p = {rows[0]['p']:g}, ratio = {rows[0]['ratio']:g}")
        last.append(over[-1])
    return Claim(
        f"The same as training goes on: n = {n}, {', '.join(map(str, data.plan.budget_steps))} steps",
        _PLACES["rug"],
        "1",
        "; ".join(parts),
        _agrees(max(abs(one - 1) for one in last) < _NEAR),
        f"in the end {min(last):.2g} to {max(last):.2g} of the rug's law: training passes the rug",
    )


def _linear(data: Data) -> Claim:
    rows = data["plane"]
    linear = np.array([limit(Linear, row["p"], row["n_dense"] / row["n_sparse"]) for row in rows])
    over = np.array([row["measured"] for row in rows]) / linear
    law = np.array([row["limit"] for row in rows]) / linear
    worst = rows[int(np.argmax(over))]
    return Claim(
        "Trained models beat the optimal linear model",
        _PLACES["loss"],
        f"law of the rug / linear law: {law.min():.3g} to {law.max():.3g} over the plane",
        f"trained / linear law: {over.min():.3g} to {over.max():.3g}",
        _agrees(bool((over < 1 + _CLOSE).all())),
        f"{(over < 1).mean():.0%} of {len(rows)} networks are below; worst at p = {worst['p']:.3g}, "
        f"ratio = {worst['ratio']:.3g}, n = {worst['n_sparse']}",
    )


def _symmetry(data: Data) -> list[Claim]:
    statistics = {
        "diagonal_variance": "the variance of diagonals over features",
        "bias_variance": "the variance of biases over features",
        "interference_variance_variance": "the variance over features of Var nu_i",
        "interference_mean_variance": "the variance over features of E nu_i",
        "lyapunov_max": "Lyapunov's ratio of the worst row",
    }
    out = []
    for key, name in statistics.items():
        medians = []
        for n in data.plan.sizes:
            medians.append(float(np.median([row[key] for row in _plane(data, n)])))
        power = np.log(medians[-1] / medians[0]) / np.log(data.plan.sizes[-1] / data.plan.sizes[0])
        falls = all(later < before for before, later in itertools.pairwise(medians))
        shown = ", ".join(f"{value:.2g} (n = {n})" for n, value in zip(data.plan.sizes, medians, strict=True))
        out.append(
            Claim(
                f"Networks become symmetric as n_sparse grows: {name}",
                _PLACES["symmetry"],
                "falls to 0" if key != "lyapunov_max" else "falls like n^-0.5 (Gaussian entries)",
                f"median over the plane {shown}",
                _agrees(falls),
                f"like n^{power:.2g} between the smallest and the largest",
            )
        )
    return out


def _gaussian(data: Data) -> Claim:
    n = data.plan.sizes[-1]
    rows = _plane(data, n)
    passed = np.array([row["ks_p_value"] > _GAUSSIAN_P for row in rows])
    sparse = np.array([row["p"] < 0.1 for row in rows])
    return Claim(
        "The interference nu is Gaussian in trained networks (Kolmogorov-Smirnov)",
        _PLACES["gaussian"],
        "median p-value above 0.05 everywhere, about 0.5",
        f"{passed.mean():.0%} of {len(rows)} networks pass at n = {n}",
        _agrees(bool(passed.mean() > 0.95)),
        f"at p < 0.1: {passed[sparse].mean():.0%}; at p > 0.1: {passed[~sparse].mean():.0%}",
    )


def _noise(data: Data) -> Claim:
    n = data.plan.sizes[-1]
    rows = _plane(data, n)
    skewness = np.array([row["skewness"] for row in rows])
    error = 3 * (6 / n) ** 0.5
    inside = np.abs(skewness) < error
    return Claim(
        "Entries off the diagonal are zero-mean noise",
        _PLACES["symmetry"],
        f"skewness of a row 0 (three standard errors: {error:.2g})",
        f"{skewness.min():.2g} to {skewness.max():.2g} at n = {n}, median {np.median(skewness):.2g}",
        _agrees(bool(inside.mean() > 0.95)),
        f"{inside.mean():.0%} of {len(rows)} networks within; negative entries are larger, which a ReLU forgives",
    )


def _factor(kind: type[Decoder], p: float, ratio: float = _RATIO) -> float:
    """What an elementwise decoder loses beside the best one, by their laws."""
    return limit(kind, p, ratio) / limit(Bayes, p, ratio)


def _elementwise(data: Data) -> Claim:
    points = np.linspace(0.002, 0.8, 20)
    factors = np.array([[_factor(ReLU, p, r) for p in points] for r in points])
    at = np.unravel_index(int(np.argmax(factors)), factors.shape)
    rows = {(row["p"], row["method"]): row["measured"] for row in data["ladder"]}
    measured = {p: rows[p, "relu"] / rows[p, "bayes"] for p, method in rows if method == "relu"}
    off = max(abs(measured[p] / _factor(ReLU, p) - 1) for p in measured)
    return Claim(
        "No other elementwise decoder gains more than a constant factor: on the paper's plane",
        _PLACES["elementwise"],
        f"ReLU / posterior mean up to {factors.max():.3g} (p = {points[at[1]]:.3g}, ratio = {points[at[0]]:.3g})",
        f"at ratio {_RATIO:g}: {_list(list(measured.values()))} for p = {_list(list(measured))}",
        _agrees(bool(factors.max() < 2.5 and off < _NEAR)),
        f"median over the plane {np.median(factors):.3g}; measured within {off:.1%} of predicted",
    )


def _rare_elementwise() -> Claim:
    rates = (1e-3, 1e-6, 1e-8)
    factors = [_factor(ReLU, p) for p in rates]
    slope = (factors[-1] - factors[0]) / np.log(rates[0] / rates[-1])
    return Claim(
        "The same, as p → 0 at a fixed ratio",
        _PLACES["elementwise"],
        "bounded by a constant",
        f"law: {_list(factors)} at p = {_list(rates)}, ratio {_RATIO:g}",
        _agrees(slope < _FLAT),
        f"grows like {slope:.2g} log(1 / p); a threshold that jumps (JumpReLU) stays within "
        f"{max(_factor(JumpReLU, p) for p in rates):.3g}",
    )


def _scaling(data: Data) -> Claim:
    rows = sorted(data["rare"], key=lambda row: row["p"])
    inside, ratios = [], []
    for row in rows:
        lower, upper = relu_bounds(SparseUniform(row["p"]), noise(row["p"], row["n_dense"] / row["n_sparse"]))
        slack = _ERRORS * row["stderr"]
        inside.append(lower - slack < row["measured"] < upper + slack)
        ratios.append(upper / lower)
    off = [row["measured"] / row["predicted"] - 1 for row in rows]
    return Claim(
        "At high sparsity the loss scales as an explicit form says, between bounds",
        _PLACES["scaling"],
        "p sigma² (1 + c² / 4), c² ~ 2 log(1 / p); "
        f"upper / lower bound {_list(ratios)} at p = {_list([row['p'] for row in rows])}",
        f"{sum(inside)} of {len(rows)} between the bounds, n = {rows[0]['n_sparse']}",
        _agrees(all(inside)),
        f"from the law of that rug: {', '.join(f'{one:+.1%}' for one in off)}",
    )
