"""What happens to a code between encoder and decoder: noise, rounding to a few bits, entries that go missing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import as_tensor
from persianrug._support.devices import generator_on
from persianrug.rounding import MOST_BITS, Quantiser, code_quantiser, normal_quantiser

_ONE = np.ones(1)


@dataclass(frozen=True)
class Channel:
    """A code's way to its decoder: Gaussian noise is added, then entries are rounded, then some are erased.

    Rounding is uniform, to 2^bits levels about the mean of the code; `persianrug.rounding` says how far apart they
    are. `Autoencoder.tune` spreads them for the codes of a source. Those of a channel that was not tuned are best
    for a Gaussian entry. An erased entry is NaN, so that the decoder knows of it.

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
    levels : Quantiser, optional
        The levels, as `Autoencoder.tune` spreads them; by default those of a Gaussian entry.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    noise: float = 0.0
    bits: int | None = None
    erasures: float = 0.0
    scale: float = 1.0
    levels: Quantiser | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", checks.not_negative("noise", self.noise))
        if self.bits is not None:
            object.__setattr__(self, "bits", checks.integer("bits", self.bits, 1, MOST_BITS))
        erasures = checks.finite("erasures", self.erasures, "a number in [0, 1)")
        if not 0 <= erasures < 1:
            raise ValueError(f"erasures is {self.erasures}; allowed: a number in [0, 1)")
        object.__setattr__(self, "erasures", erasures)
        object.__setattr__(self, "scale", checks.positive("scale", self.scale))
        if isinstance(self.levels, dict):
            # As it is in a recipe.
            object.__setattr__(self, "levels", Quantiser.from_recipe(self.levels))
        if self.levels is not None and not (isinstance(self.levels, Quantiser) and self.levels.bits == self.bits):
            raise ValueError(f"levels is {self.levels!r}; allowed with bits {self.bits}: a Quantiser of as many")

    def spread_for(
        self,
        variance: float,
        relative: NDArray[np.float64] = _ONE,
        weights: NDArray[np.float64] = _ONE,
        *,
        dithered: bool = True,
    ) -> Channel:
        """The same, its levels spread for the codes of vectors that differ in energy.

        Parameters
        ----------
        variance : float
            Of an entry, on average.
        relative, weights : arrays (k,)
            Energies of vectors relative to the mean energy, and the vectors' shares; by default all have the same.
        dithered : bool
            Whether levels have offsets, as in `persianrug.rounding`.

        Raises
        ------
        ValueError
            If the variance is negative or not finite.
        """
        variance = checks.not_negative("variance", variance)
        if variance == 0:
            return self
        levels = None
        if self.bits is not None:
            # Noise is added before entries are rounded.
            spread = variance * relative + self.noise**2
            mean = float(weights @ spread)
            one = code_quantiser(self.bits, np.sqrt(spread / mean), weights, dithered=dithered)
            levels = one.scaled(math.sqrt(mean))
        return replace(self, scale=math.sqrt(variance), levels=levels)

    def recipe(self) -> dict[str, Any]:
        """What the channel is made from, as a JSON object."""
        recipe = asdict(self)
        if self.levels is None:
            # As before there were such.
            del recipe["levels"]
        return recipe

    @property
    def clear(self) -> bool:
        """Whether codes come through as they are."""
        return self.noise == 0 and self.bits is None and self.erasures == 0

    @property
    def variance(self) -> float:
        """Variance of what is added to an entry of the code, by noise and by rounding."""
        if self.bits is None:
            return self.noise**2
        return self.noise**2 + self.quantiser.variance

    @property
    def quantiser(self) -> Quantiser:
        """What rounds the entries; ValueError if nothing does."""
        if self.levels is not None:
            return self.levels
        if self.bits is None:
            raise ValueError("bits is None; allowed with a quantiser: an integer from 1 to 16")
        return normal_quantiser(self.bits).scaled(math.hypot(self.scale, self.noise))

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
            z = self.quantiser.round(z, centre)
        lost = z.shape[-1] - self.kept(z.shape[-1])
        if lost:
            keys = torch.rand(z.shape, generator=generator, device=z.device)
            z.scatter_(-1, keys.topk(lost, dim=-1, sorted=False).indices, math.nan)
        return z
