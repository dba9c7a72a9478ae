"""What happens to a code between encoder and decoder: noise, rounding to a few bits, entries that go missing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import as_tensor
from persianrug._support.devices import generator_on
from persianrug._support.quadrature import normal_pdf

MOST_BITS = 16


@dataclass(frozen=True)
class Channel:
    """A code's way to its decoder: Gaussian noise is added, then entries are rounded, then some are erased.

    Rounding is uniform, to 2^bits levels about the mean of the code, whose distance is best for a Gaussian entry.
    The levels are stretched by the inverse of Bussgang's gain, which leaves an error uncorrelated with the code;
    at 8 bits or more that changes nothing that matters, at 1 or 2 it is why the laws hold. An erased entry is NaN,
    so that the decoder knows of it.

    Parameters
    ----------
    noise : float >= 0
        Standard deviation of the noise on every entry.
    bits : int from 1 to 16, optional
        Bits an entry; by default entries are not rounded.
    erasures : float in [0, 1)
        Share of the entries of every code that go missing at random, rounded to a whole number of them.
    scale : float > 0
        Standard deviation of an entry, which the levels are spread for; `Autoencoder.tune` sets it.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    noise: float = 0.0
    bits: int | None = None
    erasures: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", checks.not_negative("noise", self.noise))
        if self.bits is not None:
            object.__setattr__(self, "bits", checks.integer("bits", self.bits, 1, MOST_BITS))
        erasures = checks.finite("erasures", self.erasures, "a number in [0, 1)")
        if not 0 <= erasures < 1:
            raise ValueError(f"erasures is {self.erasures}; allowed: a number in [0, 1)")
        object.__setattr__(self, "erasures", erasures)
        object.__setattr__(self, "scale", checks.positive("scale", self.scale))

    def spread_for(self, variance: float) -> Channel:
        """The same, its levels spread for code entries of this variance; ValueError if it is negative."""
        variance = checks.not_negative("variance", variance)
        return replace(self, scale=math.sqrt(variance)) if variance > 0 else self

    def recipe(self) -> dict[str, Any]:
        """What the channel is made from, as a JSON object."""
        return asdict(self)

    @property
    def clear(self) -> bool:
        """Whether codes come through as they are."""
        return self.noise == 0 and self.bits is None and self.erasures == 0

    @property
    def variance(self) -> float:
        """Variance of what is added to an entry of the code, by noise and by rounding."""
        if self.bits is None:
            return self.noise**2
        return self.noise**2 + normal_quantiser(self.bits).scaled(self._spread).variance

    @property
    def _spread(self) -> float:
        return math.hypot(self.scale, self.noise)

    def kept(self, n_dense: int) -> int:
        """How many of n_dense entries come through.

        Raises
        ------
        ValueError
            If none do.
        """
        n_dense = checks.integer("n_dense", n_dense, 1)
        kept = n_dense - round(self.erasures * n_dense)
        if kept < 1:
            raise ValueError(
                f"erasures is {self.erasures}, which leaves none of n_dense {n_dense} entries; "
                f"allowed: less than {1 - 0.5 / n_dense:g}"
            )
        return kept

    def transmit(
        self,
        z: Float[Tensor, "batch n_dense"],
        centre: Float[Tensor, "#batch n_dense"] | float = 0.0,
        seed: int | torch.Generator = 0,
    ) -> Float[Tensor, "batch n_dense"]:
        """The codes as they arrive; those that went in are left as they are.

        Parameters
        ----------
        z : tensor (batch, n_dense)
        centre : tensor (1, n_dense)
            The code of the mean.
        seed : int or torch.Generator
            Of the noise, and of which entries go missing.

        Raises
        ------
        ValueError
            If z or centre are no dense tensors of float32 or float64, do not fit each other, or hold what is not
            finite where a number is due, or the seed is out of its range.
        """
        if not isinstance(z, Tensor) or as_tensor("z", z).ndim != 2:
            raise ValueError(f"z is {checks.shown(z)}; allowed: a tensor (batch, n_dense)")
        if not isinstance(centre, Tensor):
            centre = checks.finite("centre", centre, "a finite number, or a tensor (1, n_dense)")
        elif as_tensor("centre", centre).shape not in ((), (1, z.shape[1]), z.shape):
            raise ValueError(f"centre has shape {tuple(centre.shape)}; allowed: {(1, z.shape[1])}, as z")
        generator = generator_on(z.device, seed)
        z = z.clone()
        if self.noise:
            z.add_(torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device), alpha=self.noise)
        if self.bits is not None:
            z = normal_quantiser(self.bits).scaled(self._spread).round(z, centre)
        lost = z.shape[-1] - self.kept(z.shape[-1])
        if lost:
            keys = torch.rand(z.shape, generator=generator, device=z.device)
            z.scatter_(-1, keys.topk(lost, dim=-1, sorted=False).indices, math.nan)
        return z


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
    """

    bits: int
    cell: float
    step: float
    variance: float

    def scaled(self, spread: float) -> Quantiser:
        """That of entries that are so many times larger."""
        return Quantiser(self.bits, self.cell * spread, self.step * spread, self.variance * spread**2)

    def round(self, z: Tensor, centre: Tensor | float) -> Tensor:
        """The levels that stand for entries z."""
        half = 2 ** (self.bits - 1)
        near = centre.to(z) if isinstance(centre, Tensor) else centre
        cells = ((z - near) / self.cell).floor_().clamp_(-half, half - 1).add_(0.5)
        # In float64, as a file's levels are read.
        return cells.double().mul_(self.step).add_(centre).to(z.dtype)


@lru_cache
def normal_quantiser(bits: int) -> Quantiser:
    """The best uniform quantiser of a standard normal variable."""
    return best_quantiser(bits, np.ones(1), np.ones(1))


def best_quantiser(bits: int, sigma: NDArray[np.float64], weights: NDArray[np.float64]) -> Quantiser:
    """The best uniform quantiser of a variable x of variance 1 that is a mixture of normal ones.

    With Q(x) = cell (floor(x / cell) + 1/2), cut to the outermost levels, and Bussgang's gain alpha = E x Q,
    Q / alpha = x + e with e uncorrelated with x. The cell makes Var e = E Q^2 / alpha^2 - 1 least.

    Parameters
    ----------
    bits : int from 1 to 16
    sigma, weights : arrays (k,)
        Standard deviations of the parts, not all 0, and their shares.
    """
    # It takes long to import, and most codes are not rounded.
    from scipy.optimize import minimize_scalar

    def moments(cell: float) -> tuple[float, float]:
        edges = cell * np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), dtype=np.float64)
        edges = np.concatenate([[-np.inf], edges, [np.inf]])
        levels: NDArray[np.float64] = cell * (np.arange(2**bits) - 2 ** (bits - 1) + 0.5)
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
    low, high = (math.log(reach / 2 ** (bits - 1)) for reach in (0.8 * sigma[sigma > 0].min(), 8.0 * sigma.max()))
    best = minimize_scalar(error, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    cell = math.exp(best.x)
    return Quantiser(bits, cell, cell / moments(cell)[0], float(best.fun))
