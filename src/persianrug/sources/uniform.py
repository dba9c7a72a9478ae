"""The source of uniform amplitudes, which the toy model has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from persianrug._support.arrays import place
from persianrug.sources.base import Floats
from persianrug.sources.posterior import LOG_SQRT_2PI, Moments, hazard_parts, log_mills, narrowed, positive_part
from persianrug.sources.scaled import Scaled


@dataclass(frozen=True, eq=False)
class SparseUniform(Scaled):
    """Active features uniform on [0, scale]: the source of the toy model (arXiv 2410.12101)."""

    name = "uniform"

    def _breaks(self) -> Floats:
        return np.array([0.0, 1.0])

    _edges = _breaks

    def _density(self, u: Floats) -> Floats:
        return np.ones_like(u)

    def _observed(self, y: Floats, sigma: Floats) -> Floats:
        # From the nearer edge, so that two numbers close to 1 are never subtracted.
        y = np.minimum(y, 1 - y) / sigma
        return ndtr(y) - ndtr(y - 1 / sigma)

    def _standard_moment(self, k: int) -> float:
        return 1 / (k + 1)

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(shape).uniform_(generator=generator).mul_(place(self.scale, like))

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        # A normal distribution N(y, sigma^2) cut to [0, 1]. While sigma < 1/20, one of the two cuts is ten
        # standard deviations or more from the mass, and the other leaves a half-line, which is exact; above,
        # differences of the two cuts would cancel, and a quadrature of positive terms does not.
        narrow = sigma < 0.05
        if bool(narrow.all()):
            return self._one_edge(y, sigma)
        if not bool(narrow.any()):
            return self._two_edges(y, sigma)
        edge = self._one_edge(y, sigma.clamp(max=0.05))
        both = self._two_edges(y, sigma.clamp(min=0.05))
        log_ratio, mean, variance = (torch.where(narrow, a, b) for a, b in zip(edge, both, strict=True))
        return log_ratio, mean, variance

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        # One look for both questions; NaN is no number below anything.
        most = float(sigma.detach().amax()) if sigma.numel() else 0.0
        if not most < 4:
            # Differences of close numbers; the noise is so strong that speed does not matter.
            return narrowed(self._standard_posterior, y, sigma)
        # N(y, sigma^2) cut to [0, 1], seen from the nearer edge.
        half, one = place(0.5, y), place(1.0, y)
        precision = sigma.reciprocal()
        offset = y - half
        t = (half - offset.abs()).mul_(precision).clamp_(min=-10.0)
        density, mass = hazard_parts(t)
        if most < 0.05:
            # The farther edge is ten deviations away or more. Comparing is slow: a steep ramp where the hazard is
            # 0 says as well which edge is near.
            slope = density / mass
            shift = t + slope
            variance = torch.addcmul(one, slope, shift, value=-1)
            inverse = (offset * place(-1e3, y)).clamp_(0.0, 1.0) * (slope * precision)
        else:
            b = precision - t
            other, tail = hazard_parts(-b)
            mass = mass - tail
            hazard, odds = density / mass, other / mass
            slope = hazard - odds
            shift = t + slope
            variance = one - t * hazard - b * odds - slope * slope
            inverse = torch.where(offset > 0, odds, hazard) * precision
        inside = torch.addcmul(half, shift, sigma, value=-1)
        return inverse, torch.copysign(inside, offset) + half, variance.mul_(sigma * sigma)

    @staticmethod
    def _one_edge(y: Tensor, sigma: Tensor) -> Moments:
        upper = y > 0.5
        t = torch.where(upper, 1 - y, y) / sigma
        mean, variance = positive_part(t)
        from_zero = torch.log(sigma) + log_mills(torch.where(upper, 0.0, t))
        from_one = (
            torch.log(sigma) + 0.5 * (y / sigma) ** 2 + LOG_SQRT_2PI
            + torch.special.log_ndtr(torch.where(upper, t, 0.0))
        )  # fmt: skip
        mean = torch.where(upper, 1 - sigma * mean, sigma * mean)
        return torch.where(upper, from_one, from_zero), mean, sigma**2 * variance

    @staticmethod
    def _two_edges(y: Tensor, sigma: Tensor) -> Moments:
        # The window of [0, 1] where the exponent is within 40 of its maximum, so that 48 nodes resolve it.
        peak = y.clamp(0, 1)
        reach = torch.sqrt((y - peak) ** 2 + 80 * sigma**2) - (y - peak).abs()
        low, high = (peak - reach).clamp(min=0), (peak + reach).clamp(max=1)
        nodes, weights = np.polynomial.legendre.leggauss(48)
        grid = torch.from_numpy((nodes + 1) / 2).to(y.device)
        u = low[..., None] + (high - low)[..., None] * grid
        exponent = (y[..., None] * u - 0.5 * u * u) / (sigma * sigma)[..., None]
        top = exponent.amax(-1, keepdim=True)
        mass = torch.exp(exponent - top) * torch.from_numpy(weights / 2).to(y.device)
        total = mass.sum(-1)
        mean = (mass * u).sum(-1) / total
        variance = (mass * (u - mean[..., None]) ** 2).sum(-1) / total
        return top[..., 0] + torch.log(total * (high - low)), mean, variance
