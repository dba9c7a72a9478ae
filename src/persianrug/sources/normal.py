"""Sources of normal amplitudes: signed, cut to the positive half-line, or half of one."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug._support.quadrature import normal_pdf
from persianrug.sources.base import Each, Floats
from persianrug.sources.moments import FeatureMoments
from persianrug.sources.posterior import Moments, hazard_parts, inverse_ratio, log_mills, narrowed, positive_part
from persianrug.sources.scaled import Scaled


@dataclass(frozen=True, eq=False)
class Normal(Scaled):
    """A source whose standard amplitude is normal with variance 1 about `_centre`, or a part of that."""

    @property
    @abstractmethod
    def _centre(self) -> Each:
        """Mean of the standard amplitude before anything is cut off."""

    def _check_centre(self, loc: Each, low: float, high: float) -> None:
        """ValueError unless all locs are from low to high times the scale."""
        centre = np.atleast_1d(self._centre)
        # Means of centres at the edge are at it but for rounding.
        beyond = np.flatnonzero((centre < low - 1e-9) | (centre > high + 1e-9))
        if len(beyond):
            loc, scale = (np.broadcast_to(part, centre.shape)[beyond[0]] for part in (loc, self.scale))
            raise ValueError(f"loc is {loc:g}; allowed: from {low:g} to {high:g} times scale, here {scale:g}")

    @classmethod
    def fit(cls, rows: object) -> Self:
        """Fit every feature to its column of data: p, and mean and variance of its values that are not 0.

        So that a feature that is rarely or never seen has a distribution too, each column is given half a row in
        which it is active and half a row in which it is not, and two values distributed as those of an average
        feature.

        Parameters
        ----------
        rows : array (rows, n_sparse), tensor or SciPy sparse matrix

        Raises
        ------
        ValueError
            If rows has fewer than two features, entries that are not finite, or nothing but zeros.
        """
        return cls.of_moments(FeatureMoments.of(rows))

    @classmethod
    def of_moments(cls, moments: FeatureMoments) -> Self:
        """As `fit`, to data whose moments are known; errors as there."""
        p, mean, deviation = moments.shrunk()
        loc, scale = cls.loc_and_scale(mean, deviation, moments.least)
        values = {"p": p, "scale": scale, "loc": loc}
        return cls(**{part.name: values[part.name] for part in fields(cls) if part.init})

    @classmethod
    @abstractmethod
    def loc_and_scale(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:
        """Loc and scale of amplitudes with these means and standard deviations, and the least of all values."""

    def _shapes(self) -> dict[str, Floats]:
        parts = self._parts()
        return {"loc": np.arcsinh(parts["loc"] / parts["scale"])} if "loc" in parts else {}

    def _of_shapes(self, scale: Each, shapes: dict[str, Floats]) -> dict[str, Floats]:
        return {"loc": np.sinh(shapes["loc"]) * scale} if "loc" in shapes else {}

    def _edges(self) -> Floats:
        centre = np.asarray(self._centre)[..., None]
        return np.concatenate([np.zeros_like(centre), centre], axis=-1)

    def _product(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Any]:
        """The normal prior times the likelihood: mean over deviation, deviation, and the prior's mean."""
        width = sigma * torch.rsqrt(1 + sigma * sigma)
        centre = place(self._centre, y)
        t = y * (width / (sigma * sigma))
        if np.ndim(self._centre) or self._centre:
            t = t + width * centre
        return t, width, centre

    def _tilt(self, y: Tensor, sigma: Tensor, centre: Any) -> Tensor:
        """(centre^2 - t^2) / 2, t of `_product`.

        Both squares are large where amplitudes hardly vary: single precision has no digits of the difference.
        """
        active, off = (y - centre) * torch.rsqrt(1 + sigma * sigma), y / sigma
        return 0.5 * (active - off) * (active + off)


@dataclass(frozen=True, eq=False)
class SparseTruncatedNormal(Normal):
    """Active features normal with mean `loc` and deviation `scale`, cut to the positive half-line.

    It fits anything between an exponential amplitude (loc far below 0) and one that hardly varies (loc far above
    scale), and hence many kinds of real features, from their first two moments alone.
    """

    loc: Each = 0.0

    name = "truncated-normal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "loc", checks.each("loc", self.loc, checks.finite))
        super().__post_init__()
        self._check_centre(self.loc, -10, 1e4)

    @property
    def _centre(self) -> Each:
        return self.loc / self.scale

    @classmethod
    def loc_and_scale(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:
        if least < 0:
            raise ValueError("rows holds negative numbers; allowed: numbers >= 0, or SparseGaussian.fit")
        # Deviation over mean falls with the centre, from nearly 1 at -10, an exponential's.
        low, high = np.full(mean.shape, -10.0), np.full(mean.shape, 1e4)
        for _ in range(60):
            centre = (low + high) / 2
            kappa, variance = (part.numpy() for part in positive_part(torch.from_numpy(centre)))
            wide = np.sqrt(variance) / kappa > deviation / mean
            low, high = np.where(wide, centre, low), np.where(wide, high, centre)
        scale = mean / positive_part(torch.from_numpy(centre))[0].numpy()
        return centre * scale, scale

    def _breaks(self) -> Floats:
        centre = np.asarray(self._centre)[..., None]
        # Far below 0 what is left decays like exp(centre u).
        decay = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.5, 12.0, 16.0, 24.0, 36.0])
        decay = np.minimum(decay / np.maximum(-centre, 1), 9.5)
        normal = np.array([-9.5, -6.5, -4.5, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.5, 6.5, 9.5])
        return np.where(centre > 0, np.maximum(centre + normal, 0.0), decay)

    def _density(self, u: Floats) -> Floats:
        centre = np.asarray(self._centre)[..., None]
        return normal_pdf(u - centre) / ndtr(centre)

    def _observed(self, y: Floats, sigma: Floats) -> Floats:
        centre = np.asarray(self._centre)[..., None]
        wide = np.sqrt(1 + sigma**2)
        inside = log_ndtr((y / sigma + centre * sigma) / wide) - log_ndtr(centre)
        return np.exp(inside - 0.5 * ((y - centre) / wide) ** 2) / (math.sqrt(2 * math.pi) * wide)

    def _standard_moment(self, k: int) -> Each:
        centre = torch.tensor(self._centre, dtype=torch.float64)
        mean, variance = positive_part(centre)
        moments = [torch.ones_like(mean), mean, variance + mean * mean]
        for order in range(3, k + 1):
            moments.append(centre * moments[-1] + (order - 1) * moments[-2])
        return moments[k].numpy()[()]

    @property
    def _standard_variance(self) -> Each:
        return positive_part(torch.tensor(self._centre, dtype=torch.float64))[1].numpy()[()]

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        # The inverse of P(u > t) = Phi(centre - t) / Phi(centre).
        uniform = 1 - torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)
        centre = torch.tensor(self._centre, dtype=torch.float64, device=like.device)
        # SciPy's, since PyTorch's ndtr(-10) is 0.
        mass = torch.tensor(ndtr(self._centre), dtype=torch.float64, device=like.device)
        u = centre - torch.special.ndtri(uniform * mass)
        return (u * torch.tensor(self.scale, dtype=torch.float64, device=like.device)).clamp_(min=0).to(like)

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        t, width, centre = self._product(y, sigma)
        mean, variance = positive_part(t)
        log_ratio = (
            torch.log(width) + log_mills(t) - log_mills(torch.as_tensor(centre, dtype=t.dtype, device=t.device))
        )
        return log_ratio, width * mean, width**2 * variance

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        far = np.asarray(self._centre) < -3
        if far.all():
            # Then t is far below 0 wherever y is.
            return narrowed(self._standard_posterior, y, sigma)
        if far.any():
            return self._two_ways(far, y, sigma)
        free, width, centre = self._product(y, sigma)
        t = free.clamp(min=-10.0)
        density, mass = hazard_parts(t)
        hazard = density / mass
        mean = t + hazard
        if np.ndim(self._centre) == 0 and self._centre == 0:
            inverse = hazard * (math.sqrt(math.pi / 2) / width)
        else:
            cut = 0.5 * (free - t) * (free + t)
            tilt = self._tilt(y, sigma, centre) + cut - torch.log(0.5 * width * mass)
            inverse = inverse_ratio(
                tilt + torch.special.log_ndtr(torch.as_tensor(centre, dtype=t.dtype, device=t.device))
            )
        return inverse, width * mean, width * width * (1 - hazard * mean)

    def _two_ways(self, far: NDArray[np.bool_], y: Tensor, sigma: Tensor) -> Moments:
        """`_standard_active` where some centres are far below 0: these the slow way, the others the fast one."""
        one: Any = replace
        near = one(self, loc=np.where(far, 0.0, self.loc))._standard_active(y, sigma)
        # Two at least, as every array of features has.
        far = far | (np.cumsum(~far) <= max(0, 2 - int(far.sum())))
        columns = torch.from_numpy(np.flatnonzero(far)).to(y.device)
        own = one(self, **{name: part[far] for name, part in self._parts().items()})
        wide = sigma.expand(*sigma.shape[:-1], y.shape[-1])
        slow = narrowed(own._standard_posterior, y.index_select(-1, columns), wide.index_select(-1, columns))
        inverse, mean, variance = (
            whole.expand(y.shape).index_copy(-1, columns, part) for whole, part in zip(near, slow, strict=True)
        )
        return inverse, mean, variance


@dataclass(frozen=True, eq=False)
class SparseHalfNormal(SparseTruncatedNormal):
    """Active features |g| with g normal of mean 0 and standard deviation `scale`."""

    loc: Each = field(default=0.0, init=False, repr=False)

    name = "half-normal"

    @classmethod
    def loc_and_scale(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:  # noqa: ARG003
        return np.zeros_like(mean), np.hypot(mean, deviation)

    def _each(self) -> list[str]:
        return ["p", "scale"]

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(shape).normal_(generator=generator).abs_().mul_(place(self.scale, like))


@dataclass(frozen=True, eq=False)
class SparseGaussian(Normal):
    """Active features normal with mean `loc` and standard deviation `scale`; signed."""

    loc: Each = 0.0

    name = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "loc", checks.each("loc", self.loc, checks.finite))
        super().__post_init__()
        self._check_centre(self.loc, -1e4, 1e4)

    @property
    def _centre(self) -> Each:
        return self.loc / self.scale

    @classmethod
    def loc_and_scale(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:  # noqa: ARG003
        return mean, deviation

    def _breaks(self) -> Floats:
        normal = np.array([-9.5, -6.5, -4.5, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.5, 6.5, 9.5])
        return np.asarray(self._centre)[..., None] + normal

    def _density(self, u: Floats) -> Floats:
        return normal_pdf(u - np.asarray(self._centre)[..., None])

    def _observed(self, y: Floats, sigma: Floats) -> Floats:
        wide = np.sqrt(1 + sigma**2)
        return normal_pdf((y - np.asarray(self._centre)[..., None]) / wide) / wide

    def _standard_moment(self, k: int) -> Each:
        moments: list[Each] = [1.0 + 0.0 * self._centre, self._centre]
        for order in range(2, k + 1):
            moments.append(self._centre * moments[-1] + (order - 1) * moments[-2])
        return moments[k]

    @property
    def _standard_variance(self) -> Each:
        return 1.0 + 0.0 * self._centre

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        out = like.new_empty(shape).normal_(generator=generator).mul_(place(self.scale, like))
        return out.add_(place(self.loc, like)) if np.ndim(self.loc) or self.loc else out

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        t, width, centre = self._product(y, sigma)
        log_ratio = torch.log(width) + 0.5 * (t - centre) * (t + centre)
        return log_ratio, width * t, width**2 + torch.zeros_like(y)

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        t, width, centre = self._product(y, sigma)
        inverse = inverse_ratio(self._tilt(y, sigma, centre) - torch.log(width))
        return inverse, width * t, width * width
