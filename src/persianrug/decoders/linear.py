"""The best affine decoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Elementwise, levels_for, noise_levels, number, signed
from persianrug.encoders.base import Encoder
from persianrug.sources import Each, Source


@dataclass(frozen=True, eq=False)
class Linear(Elementwise):
    """x_hat = gain y + bias."""

    gain: Each = 1.0
    bias: Each = 0.0

    name = "linear"
    one_sided = False
    # Its loss depends on second moments alone.
    bears_knots = True

    def tune(self, source: Source, sigma: ArrayLike) -> Linear:
        """Least squares: gain = v / (v + sigma^2), which is the ratio on a rug, and bias = mean (1 - gain).

        On a rug the loss is then v (1 - ratio): that of an orthogonal projector.
        """
        return _least_squares(source, np.asarray(np.mean(self._checked(source, sigma) ** 2)))

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> Linear:
        if checks.instance("source", source, Source).n_sparse is None:
            return super().adapt(source, encoder, channel)
        return _least_squares(source, noise_levels(source, encoder, channel) ** 2)

    def risk(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        sigma = levels_for(source, sigma)
        shift = (self.gain - 1) * source.mean + self.bias
        return (1 - self.gain) ** 2 * source.variance + self.gain**2 * sigma**2 + shift**2

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        return y.mul_(place(self.gain, y)).add_(place(self.bias, y))

    def formula(self) -> str:
        return f"{number(self.gain)} y {signed(self.bias)}"


def _least_squares(source: Source, power: NDArray[np.float64]) -> Linear:
    variance = np.asarray(source.variance)
    # A source without variance is its mean.
    gain = np.divide(variance, variance + power, out=np.zeros_like(variance + power), where=variance > 0)[()]
    return Linear(gain, (1 - gain) * source.mean)
