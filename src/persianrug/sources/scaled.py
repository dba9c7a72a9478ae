"""Sources whose amplitude is a scale times a standard one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug._support.quadrature import normal_pdf, panels
from persianrug.sources.base import Each, Floats, Nodes, Source, check_one_length
from persianrug.sources.posterior import Moments


@dataclass(frozen=True, eq=False)
class Scaled(Source):
    """A source whose amplitude is `scale` times a standard one; subclasses describe the standard one."""

    scale: Each = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", checks.each("scale", self.scale, checks.scale))
        check_one_length(self)

    @abstractmethod
    def _breaks(self) -> Floats:
        """Breaks (k,), or (n_sparse, k), of panels that resolve the standard density to its end.

        An infinite tail is cut where it holds less than 1e-16 of the sixth moment.
        """

    def _edges(self) -> Floats:
        """Where the standard density has an edge or is centred, and 0, where features are off: as breaks."""
        return np.zeros(1)

    @abstractmethod
    def _density(self, u: Floats) -> Floats:
        """Density of the standard amplitude on its support; u (..., k), or (..., n_sparse, k)."""

    @abstractmethod
    def _observed(self, y: Floats, sigma: Floats) -> Floats:
        """Density of y = u + sigma z for the standard amplitude u; both (..., k), or (..., n_sparse, k)."""

    @abstractmethod
    def _standard_moment(self, k: int) -> Each:
        """E u^k of the standard amplitude."""

    @property
    def _standard_variance(self) -> Each:
        return self._standard_moment(2) - self._standard_moment(1) ** 2

    @abstractmethod
    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        """As `_active_posterior`, for the standard amplitude."""

    @abstractmethod
    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        """As `active`, for the standard amplitude."""

    def amplitude_moment(self, k: int) -> Each:
        return self.scale**k * self._standard_moment(k)

    @property
    def amplitude_variance(self) -> Each:
        return self.scale**2 * self._standard_variance

    def amplitude_nodes(self, centre: Floats, width: Floats) -> Nodes:
        # Over a Gaussian's 8 standard deviations on each side of a kink, panels two of them wide.
        breaks, scale = self._breaks(), np.asarray(self.scale)
        shape = np.broadcast_shapes(np.shape(width), scale.shape, breaks.shape[:-1])
        offsets = np.asarray(width / scale)[..., None, None] * np.arange(-8.0, 9.0, 2.0)
        kink = (centre / scale[..., None])[..., None] + offsets
        kink = np.clip(kink, breaks[..., :1, None], breaks[..., -1:, None])
        kink = np.broadcast_to(kink, (*shape, *kink.shape[-2:])).reshape(*shape, -1)
        fixed = np.broadcast_to(breaks, (*shape, breaks.shape[-1]))
        u, w = panels(np.sort(np.concatenate([kink, fixed], axis=-1), axis=-1))
        return scale[..., None] * u, w * self._density(u)

    def observations(self, sigma: Floats) -> tuple[Floats, Floats, Floats]:
        # Panels of one sigma, since between off and active the posterior changes within a fraction of that.
        breaks, edges, scale, reach = self._breaks(), self._edges(), np.asarray(self.scale), self._reach
        shape = np.broadcast_shapes(np.shape(sigma), scale.shape, breaks.shape[:-1])
        s = np.broadcast_to(sigma / scale, shape)[..., None]
        near = (edges[..., None] + s[..., None] * np.arange(-reach, reach + 1.0)).reshape(*shape, -1)
        ends = breaks[..., :1] - reach * s, breaks[..., -1:] + reach * s
        near = np.clip(near, np.minimum(ends[0], -reach * s), ends[1])
        y, w = panels(np.sort(np.concatenate([near, np.broadcast_to(breaks, (*shape, breaks.shape[-1]))], -1), -1))
        return scale[..., None] * y, w * self._observed(y, s), w * normal_pdf(y / s) / s

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        scale = place(self.scale, y)
        log_ratio, mean, variance = self._standard_posterior(y / scale, sigma / scale)
        return log_ratio, scale * mean, scale**2 * variance

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        if isinstance(self.scale, float) and self.scale == 1:
            return self._standard_active(y, sigma)
        scale = place(self.scale, y)
        inverse, mean, variance = self._standard_active(y / scale, sigma / scale)
        return inverse, scale * mean, scale**2 * variance
