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

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from persianrug import _checks
from persianrug.decoders._base import Decoder, signed
from persianrug.decoders._threshold import (
    Floats,
    best_gain_and_threshold,
    best_threshold,
    moments_above,
    risk_above,
)
from persianrug.sources import Source


@dataclass(frozen=True)
class JumpReLU(Decoder):
    """x_hat = (gain y + bias) 1[y > threshold], with y the unbiased centred estimate."""

    gain: float = 1.0
    bias: float = 0.0
    threshold: float = 0.0

    name = "jumprelu"

    def tune(self, source: Source, sigma: ArrayLike) -> JumpReLU:
        """Minimise the risk: for a given threshold gain and bias are a linear regression over y > t."""
        levels = self._checked(source, sigma)

        def rough(thresholds: Floats) -> Floats:
            powers, overlaps = moments_above(source, levels, thresholds)
            gain, bias = _regression(powers, overlaps)
            fitted = gain**2 * powers[2] + 2 * gain * bias * powers[1] + bias**2 * powers[0]
            return fitted - 2 * (gain * overlaps[1] + bias * overlaps[0])

        def exact(thresholds: Floats) -> Floats:
            gain, bias = _regression(*moments_above(source, levels, thresholds))
            return risk_above(source, gain, bias, thresholds, levels[:, None]).mean(axis=0)

        threshold = best_threshold(source, levels, rough, exact)
        gain, bias = _regression(*moments_above(source, levels, np.array([threshold])))
        return JumpReLU(float(gain[0]), float(bias[0]), threshold)

    def risk(self, source: Source, sigma: ArrayLike) -> Floats:
        return risk_above(source, self.gain, self.bias, self.threshold, sigma)

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        below = y <= self.threshold
        return y.mul_(self.gain).add_(self.bias).masked_fill_(below, 0.0)

    def formula(self) -> str:
        return f"{self.gain:.6g} y {signed(self.bias)} where y > {self.threshold:.6g}, else 0"


@dataclass(frozen=True)
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
        if gain < 0:
            raise ValueError(f"gain is {gain}; allowed: a number >= 0, whose magnitude grows with y")
        # The magnitude opens at -bias / gain; the output is zero below the higher of the two.
        opening = -bias / gain if gain > 0 else (-np.inf if bias > 0 else np.inf)
        return risk_above(source, gain, bias, np.clip(max(gate, opening), -1e100, 1e100), sigma)

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        below = y <= self.threshold
        magnitude = y.mul_(self.gain).add_(self.bias)
        return magnitude.masked_fill_(below | (magnitude <= 0), 0.0)

    def formula(self) -> str:
        return f"max({self.gain:.6g} y {signed(self.bias)}, 0) where y > {self.threshold:.6g}, else 0"


@dataclass(frozen=True)
class ProLU(Decoder):
    """x_hat = gain y 1[y > threshold] with threshold >= 0."""

    gain: float = 1.0
    threshold: float = 0.0

    name = "prolu"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.not_negative("threshold", self.threshold)

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
        return f"{self.gain:.6g} y where y > {self.threshold:.6g}, else 0"


def _regression(powers: Floats, overlaps: Floats) -> tuple[Floats, Floats]:
    """Gain and bias of the regression of x on (y, 1) over y > t; the mean where y does not vary."""
    # Where y is above t as good as never, nothing is to be gained, and means have no digits.
    count = np.where(powers[0] > 1e-30, powers[0], np.inf)
    y, x = powers[1] / count, overlaps[0] / count
    square = powers[2] / count
    variance = square - y * y
    covariance = overlaps[1] / count - x * y
    gain = np.divide(covariance, variance, out=np.zeros_like(y), where=variance > 1e-12 * square)
    return gain, x - gain * y
