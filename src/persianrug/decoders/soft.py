"""The soft threshold, for signed sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtr
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug._support.quadrature import rectified_first, rectified_second, standardised
from persianrug.decoders.base import Elementwise, levels_for, number
from persianrug.decoders.threshold import Floats, best_gain_and_threshold, error_above
from persianrug.sources import Each, Source


@dataclass(frozen=True, eq=False)
class SoftThreshold(Elementwise):
    """x_hat = gain sign(y) max(|y| - threshold, 0), with y the unbiased centred estimate."""

    gain: Each = 1.0
    threshold: Each = 0.0

    name = "soft"
    one_sided = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.each("threshold", self.threshold, checks.not_negative)

    def tune(self, source: Source, sigma: ArrayLike) -> SoftThreshold:
        """Minimise the risk: for a given threshold the gain is a least squares fit."""
        levels = self._checked(source, sigma)
        gain, threshold = best_gain_and_threshold(
            source,
            levels,
            lambda t: _moments(source, levels, t),
            lambda gain, t: _risk(source, gain, t, levels[:, None]),
            lowest=0.0,
        )
        return SoftThreshold(gain, threshold)

    def risk(self, source: Source, sigma: ArrayLike) -> Floats:
        """The error u^2 where |y| is below the threshold, and that of an affine decoder on either side.

        risk = p E_u [u^2 P(|y| <= t) + E[(u - gain (y - t))^2; y > t] + E[(u - gain (y + t))^2; y < -t]]
               + (1 - p) 2 gain^2 R2(-t, sigma),  R2(m, s) = E max(m + s z, 0)^2.
        """
        return _risk(source, np.array(self.gain), np.array(self.threshold), levels_for(source, sigma))

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        threshold = place(self.threshold, y)
        return (y - y.clamp(-threshold, threshold)).mul_(place(self.gain, y))

    def formula(self) -> str:
        return f"{number(self.gain)} sign(y) max(|y| - {number(self.threshold)}, 0)"


def _moments(source: Source, levels: Floats, threshold: Floats) -> tuple[Floats, Floats]:
    """E[x s(y)] and E[s(y)^2] of the soft threshold s at each threshold (k,), averaged over the levels."""
    t, sigma = np.broadcast_arrays(threshold, levels[:, None])
    u, w = source.amplitude_nodes(np.stack([t, -t], axis=-1), sigma)
    s, up, down = sigma[..., None], u - t[..., None], -u - t[..., None]
    overlap = source.p * (w * u * (rectified_first(up, s) - rectified_first(down, s))).sum(-1)
    active = (w * (rectified_second(up, s) + rectified_second(down, s))).sum(-1)
    power = source.p * active + (1 - source.p) * 2 * rectified_second(-t, sigma)
    return overlap.mean(0), power.mean(0)


def _risk(source: Source, gain: Floats, threshold: Floats, sigma: Floats) -> Floats:
    gain, threshold, sigma = np.broadcast_arrays(gain, threshold, sigma)
    u, w = source.amplitude_nodes(np.stack([threshold, -threshold], axis=-1), sigma)
    g, t, s = gain[..., None], threshold[..., None], sigma[..., None]
    between = ndtr(standardised(t - u, s)) - ndtr(standardised(-t - u, s))
    active = u * u * between + error_above(u, g, -g * t, t, s) + error_above(-u, g, -g * t, t, s)
    off = 2 * gain**2 * rectified_second(-threshold, sigma)
    return source.p * (w * active).sum(-1) + (1 - source.p) * off
