"""Decoders that jump: JumpReLU, and the gated ReLU and ProLU of the sparse-autoencoder literature.

All three are affine in y above a threshold and zero below. Elementwise on the unbiased estimate y they differ in
their parameters alone:

- JumpReLU (arXiv 2407.14435): (gain y + bias) 1[y > t], with all three free.
- Gated ReLU (arXiv 2404.16014): 1[y > t] max(gain y + bias, 0), a gate and a magnitude of one direction. Tuned,
  its magnitude is positive wherever its gate is open, so that it is a JumpReLU, of the same risk.
- ProLU (Taggart, "ProLU: a nonlinearity for sparse autoencoders", 2024): gain y 1[y > t] with t >= 0, a JumpReLU
  without a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug.decoders.base import Elementwise, levels_for, number, signed
from persianrug.decoders.threshold import (
    Floats,
    best_gain_and_threshold,
    best_threshold,
    moments_above,
    regression,
    risk_above,
)
from persianrug.sources import Each, Source


@dataclass(frozen=True, eq=False)
class JumpReLU(Elementwise):
    """x_hat = (gain y + bias) 1[y > threshold], with y the unbiased centred estimate."""

    gain: Each = 1.0
    bias: Each = 0.0
    threshold: Each = 0.0

    name = "jumprelu"

    def tune(self, source: Source, sigma: ArrayLike) -> JumpReLU:
        """Minimise the risk: for a given threshold gain and bias are a linear regression over y > t."""
        return _best(source, tuple(self._checked(source, sigma)))

    def risk(self, source: Source, sigma: ArrayLike) -> Floats:
        return risk_above(source, self.gain, self.bias, self.threshold, levels_for(source, sigma))

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        below = y <= place(self.threshold, y)
        return y.mul_(place(self.gain, y)).add_(place(self.bias, y)).masked_fill_(below, 0.0)

    def formula(self) -> str:
        return f"{number(self.gain)} y {signed(self.bias)} where y > {number(self.threshold)}, else 0"


# Two decoders ask for it.
@lru_cache(maxsize=4096)
def _best(source: Source, sigmas: tuple[float, ...]) -> JumpReLU:
    levels = np.array(sigmas)

    def rough(thresholds: Floats) -> Floats:
        powers, overlaps = moments_above(source, levels, thresholds)
        gain, bias = regression(powers, overlaps)
        fitted = gain**2 * powers[2] + 2 * gain * bias * powers[1] + bias**2 * powers[0]
        return fitted - 2 * (gain * overlaps[1] + bias * overlaps[0])

    def exact(thresholds: Floats) -> Floats:
        gain, bias = regression(*moments_above(source, levels, thresholds))
        return risk_above(source, gain, bias, thresholds, levels[:, None]).mean(axis=0)

    threshold = best_threshold(source, levels, rough, exact)
    gain, bias = regression(*moments_above(source, levels, np.array([threshold])))
    return JumpReLU(float(gain[0]), float(bias[0]), threshold)


@dataclass(frozen=True, eq=False)
class Gated(JumpReLU):
    """x_hat = 1[y > threshold] max(gain y + bias, 0): a gate, and a magnitude of the same direction."""

    name = "gated"

    def tune(self, source: Source, sigma: ArrayLike) -> Gated:
        """As JumpReLU: where a regression over y > t is best, it is not negative at t."""
        jump = JumpReLU().tune(source, self._checked(source, sigma))
        # E[x|y] grows with y, so a negative gain is a rounding error.
        return Gated(max(jump.gain, 0.0), jump.bias, jump.threshold)

    def risk(self, source: Source, sigma: ArrayLike) -> Floats:
        gain, bias, gate = self.gain, self.bias, self.threshold
        if np.any(np.less(gain, 0)):
            raise ValueError(f"gain is {gain}; allowed: a number >= 0, whose magnitude grows with y")
        # The magnitude opens at -bias / gain; the output is zero below the higher of the two.
        with np.errstate(divide="ignore", invalid="ignore"):
            opening = np.where(np.greater(gain, 0), np.divide(-bias, gain), np.where(bias > 0, -np.inf, np.inf))
        threshold = np.clip(np.maximum(gate, opening), -1e100, 1e100)
        return risk_above(source, gain, bias, threshold, levels_for(source, sigma))

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        below = y <= place(self.threshold, y)
        magnitude = y.mul_(place(self.gain, y)).add_(place(self.bias, y))
        return magnitude.masked_fill_(below | (magnitude <= 0), 0.0)

    def formula(self) -> str:
        return f"max({number(self.gain)} y {signed(self.bias)}, 0) where y > {number(self.threshold)}, else 0"


@dataclass(frozen=True, eq=False)
class ProLU(Elementwise):
    """x_hat = gain y 1[y > threshold] with threshold >= 0."""

    gain: Each = 1.0
    threshold: Each = 0.0

    name = "prolu"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.each("threshold", self.threshold, checks.not_negative)

    @property
    def _jump(self) -> JumpReLU:
        return JumpReLU(self.gain, 0.0, self.threshold)

    def tune(self, source: Source, sigma: ArrayLike) -> ProLU:
        """Minimise the risk: for a given threshold the gain is a least squares fit over y > t."""
        levels = self._checked(source, sigma)

        def moments(thresholds: Floats) -> tuple[Floats, Floats]:
            powers, overlaps = moments_above(source, levels, thresholds)
            return overlaps[1], powers[2]

        gain, threshold = best_gain_and_threshold(
            source,
            levels,
            moments,
            lambda gain, t: risk_above(source, gain, 0.0, t, levels[:, None]),
            lowest=0.0,
        )
        return ProLU(gain, threshold)

    def risk(self, source: Source, sigma: ArrayLike) -> Floats:
        return self._jump.risk(source, sigma)

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        return self._jump.apply_(y)

    def formula(self) -> str:
        return f"{number(self.gain)} y where y > {number(self.threshold)}, else 0"
