"""The source of exponential amplitudes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_ndtr
from torch import Tensor

from persianrug._support.arrays import place
from persianrug.sources.base import Floats
from persianrug.sources.posterior import Moments, hazard_parts, log_mills, narrowed, positive_part
from persianrug.sources.scaled import Scaled


@dataclass(frozen=True, eq=False)
class SparseExponential(Scaled):
    """Active features exponential with mean `scale`."""

    name = "exponential"

    def _breaks(self) -> Floats:
        return np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])

    def _density(self, u: Floats) -> Floats:
        return np.exp(-u)

    def _observed(self, y: Floats, sigma: Floats) -> Floats:
        return np.exp(sigma**2 / 2 - y + log_ndtr(y / sigma - sigma))

    def _standard_moment(self, k: int) -> float:
        return float(math.factorial(k))

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(shape).exponential_(generator=generator).mul_(place(self.scale, like))

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        # The prior tilts N(y, sigma^2) to N(y - sigma^2, sigma^2), cut to the positive half-line.
        t = y / sigma - sigma
        mean, variance = positive_part(t)
        return torch.log(sigma) + log_mills(t), sigma * mean, sigma**2 * variance

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        if not bool((sigma < 2).all()):
            # Then t is far below 0 wherever y is.
            return narrowed(self._standard_posterior, y, sigma)
        t = (y / sigma - sigma).clamp(min=-10.0)
        density, mass = hazard_parts(t)
        hazard = density / mass
        mean = t + hazard
        return hazard / sigma, sigma * mean, sigma * sigma * (1 - hazard * mean)
