"""Rounding of codes to a few bits an entry, so that its error is noise of a variance that is known.

Entries of a code are Gaussian given the energy of the vector, and vectors differ in energy: over all, they are a
mixture. The levels are uniform, about the code of the mean, and stretched by the inverse of Bussgang's gain

    alpha = E x Q(x) / E x^2,

which leaves the error of Q(x) / alpha uncorrelated with the entry x.

From 3 bits on the rounding is dithered: the levels of every entry of the code are offset by a part of a cell that
is its own, the same for all vectors. Without, the entries of a vector of one or two active features, which have
few sizes, are all rounded by the same amount, and decoders take such errors for features. With it, an entry in the
range of the levels gets an error that is uniform in a cell, whatever the vector is. Others are cut to the range:

    Q(x) = clip(x, +-L) + noise of variance cell^2 / 12,    L = (2^bits - 1) cell / 2.

A vector of much energy has more of its entries clipped than others, so that it comes through smaller by a gain of
its own. Decoders of sparse vectors remove nearly all noise, but such a gain stays in full: OAMP would lose 5 times
what its law says with the range of the least mean error. So the range is wider, by what a gain that differs counts
for in it (`_GAIN`).

At 1 bit an offset would cost 40% of the error variance of a Gaussian entry, at 2 bits 10%, at 3 bits it costs 3%.
At 1 and 2 bits the levels are those of the least mean error, and laws are approximations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from persianrug._support import checks
from persianrug._support.quadrature import normal_pdf

Floats = NDArray[np.float64]

MOST_BITS = 16
_DITHERED = 3
# What the error of a gain that differs between vectors counts against that of noise. Laws of nonlinear decoders
# hold for codes of 3 and 8 bits, down to p = 0.003 of 512 features at ratio 1, where nothing else is in the way,
# from 1000 on; 10000 costs half as much again at 3 bits.
_GAIN = 3000
# So many Fourier coefficients of the offsets are those of random ones. An error has 61% of its variance in the
# first, and 93% in these.
_COEFFICIENTS = 8


@dataclass(frozen=True)
class Quantiser:
    """Rounding of entries about their mean, in cells of one width, to levels of one distance.

    Parameters
    ----------
    bits : int
        Of the number of a level; the outermost cells have no end.
    cell, step : float
        Width of the cells, and distance of the levels that stand for them.
    variance : float
        Of the error, which is uncorrelated with the entry.
    dithered : bool
        Whether every entry of a code has its own offset of the levels.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    bits: int
    cell: float
    step: float
    variance: float
    dithered: bool = False

    def __post_init__(self) -> None:
        checks.integer("bits", self.bits, 1, MOST_BITS)
        for name in ("cell", "step", "variance"):
            checks.positive(name, getattr(self, name))
        checks.flag("dithered", self.dithered)

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> Quantiser:
        """The quantiser whose fields are in a JSON object; ValueError if they are not."""
        try:
            return cls(**recipe)
        except TypeError:
            raise ValueError(f"levels has {sorted(recipe)}; allowed: the fields of a Quantiser") from None

    def scaled(self, spread: float) -> Quantiser:
        """That of entries that are so many times larger."""
        return replace(self, cell=self.cell * spread, step=self.step * spread, variance=self.variance * spread**2)

    def round(self, z: Tensor, centre: Tensor | float) -> Tensor:
        """The levels that stand for entries z (..., n_dense), about a centre (n_dense,) or (1, n_dense)."""
        half = 2 ** (self.bits - 1)
        about = torch.as_tensor(centre, dtype=torch.float64, device=z.device)
        middle = torch.from_numpy(self._middle(about.cpu().numpy(), z.shape[-1])).to(z.device)
        cells = ((z - middle.to(z)) / self.cell).floor_().clamp_(-half, half - 1).add_(0.5)
        # In float64, as a file's levels are read.
        return cells.double().mul_(self.step).add_(self._stretched(middle, about)).to(z.dtype)

    def middle(self, centre: Floats) -> Floats:
        """What the levels of every entry lie symmetrically about, (n_dense,), for a code of the mean `centre`."""
        return self._stretched(self._middle(centre, len(centre)), centre)

    def _middle(self, centre: Floats, n_dense: int) -> Floats:
        """The same of the cells: as near to the centre as their offsets let them be."""
        if not self.dithered:
            return centre
        offsets = dither(n_dense)
        # Cells are offset against 0, not the centre: entries of one active feature lie symmetrically about 0.
        return self.cell * (offsets + np.round(centre / self.cell - offsets))

    def _stretched(self, middle: Any, centre: Any) -> Any:
        """Where the middle of the cells is among the levels, which are stretched about the centre."""
        return centre + (middle - centre) * (self.step / self.cell)


@lru_cache(maxsize=64)
def dither(n_dense: int) -> Floats:
    """Offsets of the cells of every entry of a code, in cells, (n_dense,): from -1/2 to 1/2, shuffled.

    The entries of a vector with one active feature are +-a. Their errors, read at that feature, add up to Fourier
    series in a whose coefficients are sums over entries of cos and sin (2 pi m offset). The signs make the sines
    as random ones are. The cosines are the same for every feature: random offsets would make all losses of such
    vectors larger or smaller by chance, and evenly spaced ones, whose cosines add up to 0, half as large. These
    have the density 1 + sum_m sqrt(2 / n_dense) cos(2 pi m offset), whose cosines are of the size of random ones.

    They are the same on every machine and version: of NumPy's random numbers only the raw bits will stay.
    """
    keys = np.random.PCG64(n_dense).random_raw(n_dense)
    shares = (np.argsort(np.argsort(keys, kind="stable"), kind="stable") + 0.5) / n_dense
    grid = np.linspace(0, 1, 64 * _COEFFICIENTS + 1)
    waves = [np.sin(2 * np.pi * m * grid) / (2 * np.pi * m) for m in range(1, _COEFFICIENTS + 1)]
    below = np.maximum.accumulate(grid + math.sqrt(2 / n_dense) * np.sum(waves, axis=0))
    offsets: Floats = np.interp(shares, below, grid) - 0.5
    return offsets


@lru_cache
def normal_quantiser(bits: int) -> Quantiser:
    """The best uniform quantiser of a standard normal variable."""
    return best_quantiser(bits, np.ones(1), np.ones(1))


def code_quantiser(bits: int, sigma: Floats, weights: Floats, *, dithered: bool = True) -> Quantiser:
    """What codes are rounded by whose entries, of variance 1, are a mixture of normal ones.

    Parameters
    ----------
    bits : int from 1 to 16
    sigma, weights : arrays (k,)
        Standard deviations of the parts, not all 0, and their shares.
    dithered : bool
        Whether levels have offsets, where there are bits enough; those of before there was dither have none.
    """
    if bits < _DITHERED or not dithered:
        return best_quantiser(bits, sigma, weights)

    def errors(reach: float) -> tuple[Floats, Floats, float]:
        """The error variance of every part, that of it which is its gain's, and the gain of all."""
        inside = 2 * ndtr(reach / np.maximum(sigma, 1e-100)) - 1
        edge = np.minimum(reach / np.maximum(sigma, 1e-100), 1e100)
        both = sigma**2 * inside
        power = (
            both - 2 * sigma * reach * normal_pdf(edge) + reach**2 * (1 - inside) + _cell(bits, reach) ** 2 / 12
        )
        gain = float(weights @ both)
        return power / gain**2 - 2 * both / gain + sigma**2, sigma**2 * (inside / gain - 1) ** 2, gain

    def error(log_reach: float) -> float:
        found, of_gain, _ = errors(math.exp(log_reach))
        return float(weights @ (found + _GAIN * of_gain))

    reach = _least(error, 0.8 * sigma[sigma > 0].min(), 12 * sigma.max())
    found, _, gain = errors(reach)
    cell = _cell(bits, reach)
    return Quantiser(bits, cell, cell / gain, float(weights @ found), dithered=True)


def best_quantiser(bits: int, sigma: Floats, weights: Floats) -> Quantiser:
    """The uniform quantiser, without dither, of the least mean error of a variable x as in `code_quantiser`.

    With Q(x) = cell (floor(x / cell) + 1/2), cut to the outermost levels, and Bussgang's gain alpha = E x Q, the
    cell makes Var e = E Q^2 / alpha^2 - 1 least.
    """

    def moments(cell: float) -> tuple[float, float]:
        edges = cell * np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), dtype=np.float64)
        edges = np.concatenate([[-np.inf], edges, [np.inf]])
        levels: Floats = cell * (np.arange(2**bits) - 2 ** (bits - 1) + 0.5)
        alpha = power = 0.0
        for deviation, weight in zip(sigma, weights, strict=True):
            if deviation == 0:
                # Of a vector that is its mean, each entry is rounded up by half a cell.
                power += weight * (cell / 2) ** 2
                continue
            alpha += weight * deviation * float(levels @ -np.diff(normal_pdf(edges / deviation)))
            power += weight * float(levels**2 @ np.diff(ndtr(edges / deviation)))
        return alpha, power

    def error(log_cell: float) -> float:
        alpha, power = moments(math.exp(log_cell))
        return power / alpha**2 - 1

    # Between levels that span 0.8 and 8 standard deviations on each side.
    half = 2 ** (bits - 1)
    cell = _least(error, 0.8 * sigma[sigma > 0].min() / half, 8.0 * sigma.max() / half)
    return Quantiser(bits, cell, cell / moments(cell)[0], error(math.log(cell)))


def _cell(bits: int, reach: float) -> float:
    """The cell of levels whose outermost are this far from the middle."""
    return 2 * reach / (2**bits - 1)


def _least(error: Callable[[float], float], low: float, high: float) -> float:
    """The x in between that makes error(log x) least."""
    # It takes long to import, and most codes are not rounded.
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        error, bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-9}
    )
    return math.exp(best.x)
