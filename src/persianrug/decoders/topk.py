"""TopK: the k largest estimates of every vector, and zero for the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import map_rows
from persianrug._support.quadrature import standardised
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Decoder, noise_levels, signed, variances
from persianrug.decoders.jumprelu import JumpReLU
from persianrug.decoders.threshold import Floats, errors_above, moments_above, regression
from persianrug.encoders.base import Encoder
from persianrug.encoders.energy import mean_energy
from persianrug.sources import Each, Source


@dataclass(frozen=True, eq=False)
class TopK(Decoder):
    """x_hat = gain y + bias for the k largest y of a vector, 0 for the others (arXiv 2406.04093).

    For n_sparse -> infinity the k-th largest y is the quantile of y, P(y > t) = k / n_sparse, the same for every
    vector: TopK is then a JumpReLU. At finite n_sparse a vector with fewer active features than usual keeps too
    many of the others, which a threshold would not.

    Parameters
    ----------
    k : int >= 1, optional
        How many features to keep; by default `adapt` chooses.
    gain, bias : float
    """

    k: int | None = None
    gain: float = 1.0
    bias: float = 0.0

    name = "topk"
    one_sided = True

    def __post_init__(self) -> None:
        if self.k is not None:
            object.__setattr__(self, "k", checks.integer("k", self.k, 1))
        for name in ("gain", "bias"):
            object.__setattr__(self, name, checks.finite(name, getattr(self, name)))

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> TopK:
        """K, where not given, as many as exceed the best JumpReLU's threshold; gain and bias by regression."""
        self._check_alike(source, encoder, channel)
        level = np.sqrt(np.mean(noise_levels(source, encoder, channel) ** 2))
        n, k = encoder.n_sparse, self.k
        if k is None:
            jump = JumpReLU().tune(source, level)
            k = min(max(round(n * float(_above(source, np.array(jump.threshold), level))), 1), n)
        k = checks.integer("k", k, 1, n)
        threshold = _quantile(source, level, k / n)
        gain, bias = regression(*moments_above(source, level[None], threshold[None]))
        return TopK(k, float(gain[0]), float(bias[0]))

    def decode(
        self, z: Float[Tensor, "rows n_dense"], encoder: Encoder, mean: Each = 0.0, channel: Channel = CLEAR
    ) -> Float[Tensor, "rows n_sparse"]:
        k = self._kept(encoder)
        estimate = encoder.estimator(mean, z, erasures=channel.erasures > 0)

        def decode(rows: Tensor) -> Tensor:
            y = estimate(rows)
            largest, places = y.topk(k, dim=-1, sorted=False)
            return torch.zeros_like(y).scatter(-1, places, self.gain * largest + self.bias)

        return map_rows(decode, z, encoder.n_sparse)

    def limit(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        self._check_alike(source, encoder, channel)
        level = np.sqrt(np.mean(noise_levels(source, encoder, channel) ** 2))
        threshold = _quantile(source, level, self._kept(encoder) / encoder.n_sparse)
        return JumpReLU(self.gain, self.bias, float(threshold)).risk(source, level)

    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """Averaged over a vector's energy and number of active features, which move its k-th largest estimate."""
        self._check_alike(source, encoder, channel)
        spread = mean_energy(source, encoder.n_sparse)
        interference, noise = (part.mean() for part in variances(source, encoder, channel))
        sigma = np.sqrt(spread.relative * interference + noise)
        p = np.minimum(source.p * spread.active, 1.0)
        threshold = _quantile(source, sigma, self._kept(encoder) / encoder.n_sparse, p)
        on, off = errors_above(source, self.gain, self.bias, threshold, sigma)
        return np.asarray(spread.weights @ (p * on + (1 - p) * off))

    def formula(self) -> str:
        k = "k" if self.k is None else self.k
        return f"{self.gain:.6g} y {signed(self.bias)} for the {k} largest y of a vector, else 0"

    def _kept(self, encoder: Encoder) -> int:
        return checks.integer("k", 1 if self.k is None else self.k, 1, encoder.n_sparse)

    def _check_alike(self, source: Source, encoder: Encoder, channel: Channel) -> None:
        self._check_parts(source, encoder, channel)
        self._check_sides(source)
        if source.n_sparse is not None:
            raise ValueError(
                f"source {source.name} has features that differ; allowed with decoder topk: alike ones"
            )


def _above(source: Source, threshold: Floats, sigma: Floats, p: Each = None) -> Floats:
    """P(y > t) where a feature is active with probability p."""
    p = source.p if p is None else p
    u, w = source.amplitude_nodes(threshold[..., None], np.asarray(sigma))
    on = (w * ndtr(standardised(u - threshold[..., None], np.asarray(sigma)[..., None]))).sum(-1)
    return p * on + (1 - p) * ndtr(standardised(-threshold, sigma))


def _quantile(source: Source, sigma: Floats, share: float, p: Each = None) -> Floats:
    """The threshold t with P(y > t) = share, by bisection."""
    u, _ = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    # Beyond 40 deviations no probability is left, of either sign.
    low, high = float(u.min(initial=0)) - 40 * sigma - 1e-300, float(u.max(initial=0)) + 40 * sigma
    # To 2^-60 of what there is, or of the noise where that is far less.
    most = float(np.max(high - low))
    finer = math.log2(most / max(float(np.min(sigma)), 1e-100 * most)) if most > 0 else 0.0
    for _ in range(60 + math.ceil(min(finer, 120.0))):
        middle = (low + high) / 2
        over = _above(source, middle, sigma, p) > share
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    # All of y is above the lower end, which matters where everything is kept.
    return np.asarray(low)
