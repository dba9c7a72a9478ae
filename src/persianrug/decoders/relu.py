"""The rectified decoder of the toy model, and the paper's law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtr
from torch import Tensor

from persianrug._support.arrays import place
from persianrug._support.quadrature import normal_pdf, rectified_first, rectified_second, standardised
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Elementwise, levels_for, number, signed
from persianrug.decoders.threshold import Floats, best_gain_and_threshold
from persianrug.encoders import KnottedRug
from persianrug.encoders.base import Encoder
from persianrug.encoders.energy import energy, few_nodes
from persianrug.sources import Each, Source


@dataclass(frozen=True, eq=False)
class ReLU(Elementwise):
    """x_hat = max(gain y + bias, 0), with y the unbiased centred estimate."""

    gain: Each = 1.0
    bias: Each = 0.0

    name = "relu"
    bears_knots = True

    def tune(self, source: Source, sigma: ArrayLike) -> ReLU:
        """Minimise the risk over gain and bias, to 1e-6 relative or better.

        Written gain (y - t)_+ with the threshold t = -bias / gain, the best gain for a given t is a least
        squares fit, N(t) / D(t) with N = E[x (y - t)_+] and D = E[(y - t)_+^2]. So one number is searched for:
        on a grid, whose best cell is then refined.
        """
        levels = self._checked(source, sigma)
        gain, threshold = best_gain_and_threshold(
            source,
            levels,
            lambda t: _moments(source, levels, t),
            lambda gain, t: _risk(source, gain, -gain * t, levels[:, None]),
        )
        return ReLU(gain, 0.0 - gain * threshold)

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> ReLU:
        """As every elementwise decoder; on knots, the best gain and bias of each of their features."""
        if not isinstance(encoder, KnottedRug):
            return super().adapt(source, encoder, channel)
        self._check_sides(source)
        tuned = np.empty((encoder.n_sparse, 2))
        for features, _, count, views in encoder.views(source, channel):
            tuned[features] = np.tile([view.best_relu for view in views], (count, 1))
        return ReLU(*tuned.T)

    def limit(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> Floats:
        if not isinstance(encoder, KnottedRug):
            return super().limit(source, encoder, channel)
        return self._on_knots(source, encoder, channel, 1.0)

    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> Floats:
        """The risk, averaged over the energy of the other features; that of other knots, where there are knots."""
        if not isinstance(encoder, KnottedRug):
            return super().law(source, encoder, channel)
        if encoder.channel_noise(source, channel) == 0:
            return self._on_knots(source, encoder, channel, 1.0)
        spread = few_nodes(energy(source, encoder.participation_of(channel)))
        losses = [self._on_knots(source, encoder, channel, node) for node in spread.relative]
        return np.asarray(spread.weights @ losses)

    def _on_knots(self, source: Source, encoder: KnottedRug, channel: Channel, energy: float) -> Floats:
        """Losses (n_sparse,) at an energy of the vector relative to its mean."""
        self._check_sides(source)
        gain, bias = (np.broadcast_to(part, encoder.n_sparse) for part in (self.gain, self.bias))
        losses = np.empty(encoder.n_sparse)
        for features, knot, count, views in encoder.views(source, channel, energy):
            # One integral for all features that are alike and read alike.
            seen = np.stack([np.tile(knot.kinds, count), gain[features], bias[features]])
            distinct, place = np.unique(seen, axis=1, return_inverse=True)
            losses[features] = np.array([views[int(kind)].loss(a, b) for kind, a, b in distinct.T])[place]
        return losses

    def risk(self, source: Source, sigma: ArrayLike) -> Floats:
        """The paper's law, at noise sigma on y.

        With s = gain sigma, and R2(m, s) = E max(m + s z, 0)^2,

            L = p E_u E_z (u - max(gain u + bias + s z, 0))^2 + (1 - p) R2(bias, s).
        """
        return _risk(source, np.array(self.gain), np.array(self.bias), levels_for(source, sigma))

    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        return y.mul_(place(self.gain, y)).add_(place(self.bias, y)).relu_()

    def formula(self) -> str:
        return f"max({number(self.gain)} y {signed(self.bias)}, 0)"


def _moments(source: Source, levels: Floats, threshold: Floats) -> tuple[Floats, Floats]:
    """N(t) and D(t) at each threshold (k,), averaged over the levels of noise."""
    t, sigma = np.broadcast_arrays(threshold, levels[:, None])
    u, w = source.amplitude_nodes(t[..., None], sigma)
    m, s = u - t[..., None], sigma[..., None]
    overlap = source.p * (w * u * rectified_first(m, s)).sum(-1)
    active = (w * rectified_second(m, s)).sum(-1)
    power = source.p * active + (1 - source.p) * rectified_second(-t, sigma)
    return overlap.mean(0), power.mean(0)


def _risk(source: Source, gain: Floats, bias: Floats, sigma: Floats) -> Floats:
    """Risk of ReLU(gain y + bias); the three broadcast."""
    gain, bias, sigma = np.broadcast_arrays(gain, bias, sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        kink = np.where(gain != 0, -bias / gain, 0.0)
    u, w = source.amplitude_nodes(kink[..., None], sigma)
    s = np.abs(gain * sigma)
    m = gain[..., None] * u + bias[..., None]
    # u^2 - 2 u R1 + R2, ordered so that nothing cancels where the output is close to u.
    t = standardised(m, s[..., None])
    on = (
        u * u * ndtr(-t)
        + ((u - m) ** 2 + s[..., None] ** 2) * ndtr(t)
        - s[..., None] * (2 * u - m) * normal_pdf(t)
    )
    active = (w * on).sum(-1)
    return source.p * active + (1 - source.p) * rectified_second(bias, s)
