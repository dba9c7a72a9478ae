"""The posterior mean: the floor of all decoders of one feature at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Elementwise, levels_for, noise_levels, number
from persianrug.encoders.base import Encoder
from persianrug.sources import Each, Source, SparseUniform

# Noise is taken to be at least this part of a typical amplitude.
_LEAST = 1e-16


@dataclass(frozen=True, eq=False)
class Bayes(Elementwise):
    """x_hat = E[x | y], the posterior mean under the source and noise sigma.

    Parameters
    ----------
    source : Source
        What the features are taken to be; `tune` sets it.
    sigma : float or array (n_sparse,)
        What the noise is taken to be; `tune` sets it.
    """

    source: Source = field(default_factory=lambda: SparseUniform(0.5))
    sigma: Each = 1.0

    name = "bayes"
    one_sided = False

    def __post_init__(self) -> None:
        checks.instance("source", self.source, Source)
        object.__setattr__(self, "sigma", checks.each("sigma", self.sigma, checks.not_negative))

    def tune(self, source: Source, sigma: ArrayLike) -> Bayes:
        """The posterior for noise sigma; for the root mean square of several levels."""
        return Bayes(source, float(np.sqrt(np.mean(self._checked(source, sigma) ** 2))))

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> Bayes:
        self._check_parts(source, encoder, channel)
        sigma = noise_levels(source, encoder, channel)
        return self.tune(source, sigma) if source.n_sparse is None else Bayes(source, sigma[()])

    def risk(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        """The mmse where sigma and source are those it is tuned to; at others, the risk of that mismatch.

        Over y = x + s z, with m' and v' the posterior's mean and variance at the true s, E[v'(y) + (m'(y) -
        x_hat)^2].
        """
        sigma = np.maximum(levels_for(source, sigma), self._least)
        on, off, _, _ = source.mismatch(sigma, np.asarray(self._noise), self.source)
        return source.p * on + (1 - source.p) * off

    @property
    def _differs(self) -> bool:
        return bool(np.ndim(self.sigma)) or self.source.n_sparse is not None

    @property
    def _least(self) -> float:
        return _LEAST * float(np.max(np.sqrt(self.source.second_moment / self.source.p)))

    @property
    def _noise(self) -> Each:
        return np.maximum(self.sigma, self._least)

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        # Not 0 in float32, where it is far below rounding in any case.
        noise = y.new_tensor(self._noise).clamp_(min=torch.finfo(y.dtype).tiny)
        return self.source.denoise(y, noise)[0]

    def formula(self) -> str:
        return f"E[x | y] for {self.source} and noise {number(self.sigma)}"
