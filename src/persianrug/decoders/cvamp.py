"""CVAMP: vector approximate message passing that knows how features go together, and that many of them are 0.

Features are taken to have the density

    p(x) ~ N(x; mu, C) prod_i t_i(x_i),    t_i(x) = (1 - p_i) / g_i(0) delta(x) + p_i / G_i [x >= 0],

C = F^T F + diag(d), with the Gaussian's own marginals g_i = N(mu_i, C_ii) and their mass G_i above 0. A feature
that is independent of the others then is 0 with probability 1 - p_i, and else a normal variable cut at 0. Of
features of both signs nothing is cut, and G_i = 1.

As in VAMP (Rangan, Schniter, Fletcher, arXiv 1610.03082) two estimates tell each other what they know, as a
Gaussian of one precision in units sqrt(d_i) of every feature: the linear one of the code and N(mu, C), and the
posterior of every feature alone under t_i.

VAMP's state evolution is for features that are as they are taken to be, and told without damping. Rows that follow
this density only roughly lose up to 15 times what it says (docs/notes.md), so that laws are simulated here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr
from torch import Tensor

from persianrug._support import checks
from persianrug._support.threads import one_thread
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, check_parts
from persianrug.decoders.lmmse import LMMSE, tight
from persianrug.encoders.base import Encoder
from persianrug.sources import Covariance, Source
from persianrug.sources.posterior import LOG_SQRT_2PI, log_mills, positive_part

# The size of a row, which its code tells, is taken to be at least this part of what the covariance says.
_LEAST_SIZE = 0.3
# A feature has at least this part of the mean variance alone.
_LEAST_OWN = 1e-9
# What is known of a row before there was an estimate.
_NOTHING = 1e-9
# A precision is at least this part of another, from which it is told by a difference.
_LEAST_SHARE = 1e-6
# Features of means so many deviations from 0 are taken to be never 0.
_NEVER = 6.0
# Variances are at least so much, in units of what a feature has alone.
_LEAST_VARIANCE = 1e-12
# Rows, or numbers in them, that the law is the mean of, at least.
_LAW_ROWS, _LAW_NUMBERS = 16, 1 << 18


@dataclass(frozen=True, eq=False)
class CVAMP(LMMSE):
    """Estimates from mean and covariance, as `LMMSE`, and from how often every feature is 0.

    Rows differ in size more than a Gaussian's do: every row's code tells by how much its covariance is larger
    than C. With a flat diagonal and a tight frame, an iteration takes O(n_sparse log n_sparse + n_sparse k + k^3)
    a row, and else O(n_dense^2 + n_dense k^2), after one decomposition. Of erased entries the rows of the encoder
    are left out, as in `LMMSE`.

    Parameters
    ----------
    covariance : Covariance, optional
        By default that of independent features, by the source that `adapt` is given.
    positive : bool
        Whether features are >= 0; `adapt` sets it.
    source : Source, optional
        Says how often every feature is active; `adapt` sets it.
    iterations : int >= 1
    damping : float in (0, 1]
        Share of what is new in what the linear estimate is told.
    """

    source: Source | None = field(default=None, repr=False)
    iterations: int = 30
    damping: float = 0.35

    name = "cvamp"
    bears_knots = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source is not None:
            checks.instance("source", self.source, Source)
        object.__setattr__(self, "iterations", checks.integer("iterations", self.iterations, 1))
        object.__setattr__(self, "damping", checks.probability("damping", self.damping))

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> CVAMP:
        self._check_parts(source, encoder, channel)
        linear = super().adapt(source, encoder, channel)
        if linear is self and self.source == source and self.positive != source.signed:
            return self
        return CVAMP(linear.covariance, not source.signed, source, self.iterations, self.damping)

    @one_thread()
    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """Simulated: what rows lose that are drawn from the source, always the same, with Gaussian noise."""
        check_parts(source, encoder, channel)
        x = source.sample(
            max(_LAW_ROWS, _LAW_NUMBERS // encoder.n_sparse), encoder.n_sparse, seed=0, dtype=torch.float64
        )
        z, generator = encoder._forward(x), torch.Generator().manual_seed(0)
        z = z + channel.variance**0.5 * torch.randn(z.shape, generator=generator, dtype=z.dtype)
        if channel.erasures:
            lost = torch.rand(z.shape, generator=generator).topk(encoder.n_dense - channel.kept(encoder.n_dense))
            z.scatter_(-1, lost.indices, math.nan)
        error = (self.decode(z, encoder, channel=channel) - x).square()
        return np.asarray(error.mean(dim=(0, 1) if source.n_sparse is None else 0))

    def law_of(self, features: Covariance, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """What `LMMSE` loses, which knows of features no more than this covariance."""
        return LMMSE(self.covariance, self.positive).law_of(features, encoder, channel)

    def formula(self) -> str:
        rank = "" if self.covariance is None else f" with a covariance of {self.covariance.rank} factors"
        return f"E[x | z] for features{rank} that are often 0, z read up to {self.iterations} times"

    def recipe(self) -> dict[str, Any]:
        source = None if self.source is None else self.source.recipe()
        more = {"source": source, "iterations": self.iterations, "damping": self.damping}
        return {**super().recipe(), **more}

    def _equations(self, encoder: Encoder, noise: float) -> Any:
        if self.source is None:
            raise ValueError("source is None; allowed to decode: a Source, or a decoder that was tuned")
        return _Equations(self, encoder, noise)


class _Equations:
    """The iteration of one encoder, one noise, and the entries of a code that come through, in double precision.

    Vectors are u, with x = mu + size sqrt(d) u, of the covariance V^T diag(lambda) V + I.
    """

    def __init__(self, decoder: CVAMP, encoder: Encoder, noise: float, kept: Tensor | None = None) -> None:
        self._decoder, self._encoder, self._noise, self._kept = decoder, encoder, noise, kept
        covariance, source = cast(Covariance, decoder.covariance), cast(Source, decoder.source)
        self.mean, diagonal = torch.from_numpy(covariance.mean), torch.from_numpy(covariance.diagonal)
        diagonal = diagonal.clamp(min=max(_LEAST_OWN * float(covariance.variance.mean()), checks.SMALLEST))
        self._unit = diagonal.sqrt()
        _, sizes, self._directions = torch.linalg.svd(
            torch.from_numpy(covariance.factors) / self._unit, full_matrices=False
        )
        self._values = sizes.square()
        self._centre = self._seen(self.mean[None])
        codes = self._seen(self._directions * self._unit).T
        n_kept = codes.shape[0]
        self._basis: Tensor | None = None
        if covariance.flat and tight(encoder):
            self._own = torch.full((n_kept,), float(diagonal[0]) * encoder.frame_bound, dtype=torch.float64)
        else:
            matrix = self._seen(self._read(torch.eye(n_kept, dtype=torch.float64)) * diagonal)
            own, self._basis = torch.linalg.eigh((matrix + matrix.T) / 2)
            self._own = own.clamp(min=0.0)
            codes = self._basis.T @ codes
        self._codes, self._squares = codes, codes.T @ codes
        self._log_off = _log_off(source, covariance, positive=decoder.positive)

    def of(self, kept: Tensor) -> _Equations:
        """The iteration on some entries alone, by their places."""
        return _Equations(self._decoder, self._encoder, self._noise, kept)

    def decode(self, rows: Tensor) -> Tensor:
        """Estimates (rows, n_sparse) from codes (rows, n_dense), whatever is in entries that are left out."""
        z = rows.double()
        code = self._rotated((z if self._kept is None else z[:, self._kept]) - self._centre)
        size = self._size(code)
        code, noise, unit = code / size, self._noise / size.square(), self._unit * size
        told, precision = torch.zeros_like(unit), torch.full_like(size, _NOTHING)
        x_hat, damping = self.mean.expand_as(unit), self._decoder.damping
        for _ in range(self._decoder.iterations):
            linear, variance = self._linear(code, noise, told, precision)
            first = torch.maximum(1 / variance - precision, _LEAST_SHARE / variance)
            seen = (linear / variance - precision * told) / first
            x_hat, spread = self._posterior(self.mean + unit * seen, unit * first.rsqrt())
            second = 1 / (spread / unit.square()).mean(1, keepdim=True).clamp(min=_LEAST_VARIANCE)
            # Where nothing is gained, as of features that are never 0, the linear estimate is told nothing new.
            gains = second - first > _LEAST_SHARE * first
            gained = torch.where(gains, second - first, precision)
            news = torch.where(gains, (second * (x_hat - self.mean) / unit - first * seen) / gained, told)
            following = torch.lerp(precision, gained, damping)
            told, precision = torch.lerp(told, news, damping * gained / following), following
        return x_hat.to(rows.dtype)

    def _linear(self, code: Tensor, noise: Tensor, told: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of u by its covariance, its code and what is told of it, and its variance on average."""
        along, own = 1 / (1 / (self._values + 1) + precision), 1 / (1 + precision)
        more = along - own

        def covariance(u: Tensor) -> Tensor:
            return own * u + (more * (u @ self._directions.T)) @ self._directions

        known = covariance(precision * told)
        solve, left, factors = self._inverse(own, more, noise)
        v = solve(code - self._rotated(self._seen(known * self._unit)))
        mean = known + covariance(self._read(self._back(v)) * self._unit)
        n, k = told.shape[1], along.shape[1]
        trace = along.sum(1) + own[:, 0] * (n - k - own[:, 0] * left) - ((2 * own + more) * factors).sum(1)
        return mean, (trace[:, None] / n).clamp(min=_LEAST_VARIANCE)

    def _inverse(
        self, own: Tensor, more: Tensor, noise: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        """Of S = own diag(L) + noise I + B diag(more) B^T, L = `_own` and B = `_codes`, of every row.

        By Woodbury's formula, with P = (own diag(L) + noise I)^-1 and K = I + sqrt(more) B^T P B sqrt(more).

        Returns
        -------
        solve : function
            S^-1 of vectors (rows, n_kept).
        left : tensor (rows,)
            tr(S^-1 diag(L)).
        factors : tensor (rows, k)
            diag(I - K^-1).
        """
        inverse, roots = 1 / (own * self._own + noise), more.clamp(min=0.0).sqrt()
        weights = roots[:, :, None] * roots[:, None, :]
        plain, weighted = weights * self._gram(inverse), weights * self._gram(inverse.square() * self._own)
        small = torch.cholesky_inverse(
            torch.linalg.cholesky(plain + torch.eye(len(self._values), dtype=plain.dtype))
        )
        left = (inverse * self._own).sum(1) - (small * weighted).sum((1, 2))

        def solve(z: Tensor) -> Tensor:
            inner = ((inverse * z) @ self._codes)[:, :, None]
            return inverse * (z - (weights * small @ inner)[:, :, 0] @ self._codes.T)

        return solve, left, 1 - small.diagonal(dim1=1, dim2=2)

    def _gram(self, weights: Tensor) -> Tensor:
        """B^T diag(weights) B of every row."""
        if self._basis is None:
            # All entries have the same.
            return weights[:, :1, None] * self._squares
        return self._codes.T @ (weights[:, :, None] * self._codes)

    def _size(self, code: Tensor) -> Tensor:
        """How much larger rows are than the covariance says, (rows, 1): the most likely of their codes alone."""
        one = torch.ones(1, 1, dtype=code.dtype)
        solve, _, _ = self._inverse(one, self._values[None], self._noise * one)
        return (code * solve(code)).mean(1, keepdim=True).clamp(min=_LEAST_SIZE**2).sqrt()

    def _posterior(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of every feature x by t_i and y = x + sigma z."""
        t = y / sigma
        if self._decoder.positive:
            mean, variance = positive_part(t)
            log_on = log_mills(t)
        else:
            mean, variance, log_on = t, torch.ones_like(t), 0.5 * t.square() + LOG_SQRT_2PI
        on = torch.sigmoid(log_on + sigma.log() - self._log_off)
        mean, variance = mean * sigma, variance * sigma.square()
        return on * mean, on * (variance + (1 - on) * mean.square())

    def _seen(self, x: Tensor) -> Tensor:
        z = self._encoder._forward(x)
        return z if self._kept is None else z[:, self._kept]

    def _read(self, z: Tensor) -> Tensor:
        if self._kept is not None:
            full = z.new_zeros(len(z), self._encoder.n_dense)
            full[:, self._kept] = z
            z = full
        return self._encoder._adjoint(z)

    def _rotated(self, z: Tensor) -> Tensor:
        return z if self._basis is None else z @ self._basis

    def _back(self, z: Tensor) -> Tensor:
        return z if self._basis is None else z @ self._basis.T


def _log_off(source: Source, covariance: Covariance, *, positive: bool) -> Tensor:
    """The log of (1 - p) G / (p g(0)) of every feature."""
    p = np.broadcast_to(np.asarray(source.p, dtype=np.float64), covariance.n_sparse)
    deviation = np.sqrt(covariance.variance)
    t = covariance.mean / deviation
    log_density = -0.5 * t**2 - LOG_SQRT_2PI - np.log(deviation)
    odds = np.log(np.maximum(1 - p, np.finfo(float).tiny)) - np.log(p)
    # By its variance it is 0 in fewer than 1 / (1 + t^2) of all rows, and here, if ever, too rarely to be told.
    odds = np.where(np.abs(t) > _NEVER, -np.inf, odds)
    return torch.from_numpy(odds - log_density + (log_ndtr(t) if positive else 0.0))
