"""The best affine decoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug.decoders._base import Decoder, signed
from persianrug.sources import Source


@dataclass(frozen=True)
class Linear(Decoder):
    """x_hat = gain y + bias."""

    gain: float = 1.0
    bias: float = 0.0

    name = "linear"
    one_sided = False

    def tune(self, source: Source, sigma: ArrayLike) -> Linear:
        """Least squares: gain = v / (v + sigma^2), which is the ratio on a rug, and bias = mean (1 - gain).

        On a rug the loss is then v (1 - ratio): that of an orthogonal projector.
        """
        power = float(np.mean(self._checked(source, sigma) ** 2))
        variance = source.variance
        # A source without variance is its mean.
        gain = variance / (variance + power) if variance > 0 else 0.0
        return Linear(gain, (1 - gain) * source.mean)

    def risk(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        sigma = np.asarray(sigma, dtype=np.float64)
        shift = (self.gain - 1) * source.mean + self.bias
        return (1 - self.gain) ** 2 * source.variance + self.gain**2 * sigma**2 + shift**2

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        return y.mul_(self.gain).add_(self.bias)

    def formula(self) -> str:
        return f"{self.gain:.6g} y {signed(self.bias)}"
