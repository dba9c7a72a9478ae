"""Pieces of posteriors under Gaussian noise: tails of the normal distribution, and bounded likelihood ratios."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from persianrug._support.arrays import place

Moments = tuple[Tensor, Tensor, Tensor]

# The log of the least likelihood ratio that `Source.active` tells from 0: infinity times 0 would not be 0.
LEAST_RATIO = -46.0

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def narrowed(posterior: Callable[[Tensor, Tensor], Moments], y: Tensor, sigma: Tensor) -> Moments:
    """What `Source.active` returns, from a posterior of float64."""
    log_ratio, mean, variance = posterior(*torch.broadcast_tensors(y.double(), sigma.double()))
    return torch.exp(-log_ratio.clamp(min=LEAST_RATIO)).to(y.dtype), mean.to(y.dtype), variance.to(y.dtype)


def log_mills(t: Tensor) -> Tensor:
    """log(Phi(t) / phi(t)), to full precision for every t."""
    low = torch.clamp(t, max=0.0)
    high = torch.clamp(t, min=0.0)
    below = torch.log(torch.special.erfcx(-low / math.sqrt(2))) + 0.5 * math.log(math.pi / 2)
    above = torch.special.log_ndtr(high) + 0.5 * high * high + LOG_SQRT_2PI
    return torch.where(t < 0, below, above)


def positive_part(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of w ~ N(t, 1) given w > 0.

    With lambda = phi(t) / Phi(t) they are t + lambda and 1 - lambda (t + lambda), which cancel for t << 0.
    There the continued fraction of Mills' ratio, lambda = x + 1/(x + 2/(x + 3/(x + ...))) at x = -t, gives
    both without cancellation.
    """
    hazard = torch.exp(-log_mills(t))
    direct = t + hazard
    x = torch.clamp(-t, min=4.0)
    tail = x
    for k in range(40, 2, -1):
        tail = x + k / tail
    tail = 1 / tail
    fraction = 1 / (x + 2 * tail)
    far = t < -4
    mean = torch.where(far, fraction, direct)
    variance = torch.where(far, fraction * (2 * tail - fraction), 1 - hazard * direct)
    return mean, variance


def inverse_ratio(log_inverse: Tensor) -> Tensor:
    """1 / Lambda from its log, bounded."""
    return torch.exp(log_inverse.clamp(max=-LEAST_RATIO))


def hazard_parts(t: Tensor) -> tuple[Tensor, Tensor]:
    """2 phi(t) and 2 Phi(t) for t >= -10; phi is cut off before it becomes denormal, which is slow."""
    u = t.clamp(max=12.9 if t.dtype == torch.float32 else 35.0)
    density = torch.exp(torch.addcmul(place(0.5 * math.log(2 / math.pi), t), u, u, value=-0.5))
    return density, torch.erfc(u * place(-math.sqrt(0.5), t))
