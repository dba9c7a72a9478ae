"""Sources: how one sparse feature is distributed, and what a noisy look at it tells.

A feature x is 0 with probability 1 - p; otherwise it is *active* and equals an amplitude u drawn from the
source's own distribution. Features are independent and alike. A source knows how to sample itself, its
moments, and its posterior under y = x + sigma z with standard normal z.

With the likelihood ratio of "active" to "off",

    Lambda(y) = E_u exp((u y - u^2 / 2) / sigma^2),

the probability that x is active is pi = p Lambda / (p Lambda + 1 - p), and with the mean m and variance v of
u given y and active, the posterior has

    E[x|y] = pi m,        Var[x|y] = pi (v + (1 - pi) m^2).

Each source says Lambda, m and v for its amplitude, in a form that loses no digits for sigma from 1e-9 to 1e3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug import _checks
from persianrug._arrays import Array, as_tensor, like
from persianrug._quadrature import normal_pdf, panels

Moments = tuple[Tensor, Tensor, Tensor]
Nodes = tuple[NDArray[np.float64], NDArray[np.float64]]

# From here on a dense draw is faster than drawing the gaps between active features.
_DENSE_FROM = 0.35

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Source(ABC):
    """Distribution of independent sparse features.

    Parameters
    ----------
    p : float in (0, 1]
        Probability that a feature is active.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    p: float

    name: ClassVar[str]
    # Where the density of the standard amplitude has an edge, or where it meets that of features that are off.
    _edges: ClassVar[tuple[float, ...]] = (0.0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", _checks.probability("p", self.p))

    # What a subclass says of its amplitude u.

    @abstractmethod
    def amplitude_moment(self, k: int) -> float:
        """E u^k for k >= 0."""

    @property
    @abstractmethod
    def amplitude_variance(self) -> float:
        """Var u."""

    @abstractmethod
    def amplitude_nodes(self, centre: NDArray[np.float64], width: NDArray[np.float64]) -> Nodes:
        """Nodes u and weights w with sum w g(u) = E g(u), for functions g that change abruptly at some places.

        Parameters
        ----------
        centre : array (..., c)
            Where g may change abruptly,
        width : array (...)
            and over what distance.

        Returns
        -------
        u, w : arrays (..., k)
        """

    @abstractmethod
    def _draw(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """`count` amplitudes, of the dtype and on the device of `like`."""

    @abstractmethod
    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        """The log of Lambda(y), and mean and variance of u given y and active; y and sigma in float64."""

    # What follows for every source.

    @property
    def signed(self) -> bool:
        """Whether a feature can be negative."""
        u, _ = self.amplitude_nodes(np.zeros(1), np.array(0.0))
        return bool(u.min() < 0)

    @property
    def mean(self) -> float:
        """E x."""
        return self.p * self.amplitude_moment(1)

    @property
    def second_moment(self) -> float:
        """E x^2."""
        return self.p * self.amplitude_moment(2)

    @property
    def variance(self) -> float:
        """Var x."""
        # Not E x^2 - (E x)^2, which cancels where p is near 1 and u hardly varies.
        return self.p * (self.amplitude_variance + (1 - self.p) * self.amplitude_moment(1) ** 2)

    def sample(
        self,
        batch: int,
        n_sparse: int,
        *,
        seed: int | torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Float[Tensor, "batch n_sparse"]:
        """Draw `batch` independent vectors of `n_sparse` features.

        Parameters
        ----------
        batch, n_sparse : int >= 1
        seed : int, torch.Generator or None
            None draws from PyTorch's global generator. The device is the generator's where one is given.
        dtype : torch.float32 or torch.float64
        device : torch.device or str

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        batch = _checks.integer("batch", batch, 1)
        n_sparse = _checks.integer("n_sparse", n_sparse, 1)
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype is {dtype}; allowed: torch.float32, torch.float64")
        if isinstance(seed, torch.Generator):
            generator: torch.Generator | None = seed
            device = seed.device if device is None else device
        elif seed is None:
            generator = None
        else:
            seed = _checks.integer("seed", seed, 0, 2**63 - 1)
            generator = torch.Generator(device or "cpu").manual_seed(seed)
        if self.p >= _DENSE_FROM:
            out = torch.empty(batch, n_sparse, dtype=dtype, device=device)
            active = torch.rand(out.shape, generator=generator, dtype=torch.float32, device=device) < self.p
            amplitudes = self._draw(out.numel(), generator, out)
            return torch.mul(amplitudes.view_as(out), active, out=out)
        out = torch.zeros(batch, n_sparse, dtype=dtype, device=device)
        places = _bernoulli_places(out.numel(), self.p, generator, out.device)
        out.view(-1)[places] = self._draw(len(places), generator, out)
        return out

    def posterior(self, y: Array, sigma: float | Tensor) -> tuple[Array, Array]:
        """Mean and variance of x given y = x + sigma z.

        Computed in float64 and returned in the kind and dtype of `y`; differentiable.

        Parameters
        ----------
        y : tensor or array (...)
        sigma : float or tensor that broadcasts with y, > 0
            Standard deviation of the noise.

        Returns
        -------
        mean, variance : as y

        Raises
        ------
        ValueError
            If sigma is not positive and finite.
        """
        tensor = as_tensor("y", y)
        wide = tensor.double()
        noise = torch.as_tensor(sigma, dtype=torch.float64, device=tensor.device)
        if not bool(((noise > 0) & noise.isfinite()).all()):
            raise ValueError(f"sigma is {sigma}; allowed: finite numbers > 0")
        log_ratio, mean, variance = self._active_posterior(*torch.broadcast_tensors(wide, noise))
        log_odds = log_ratio + (math.log(self.p) - math.log1p(-self.p) if self.p < 1 else math.inf)
        active = torch.sigmoid(log_odds)
        off = torch.sigmoid(-log_odds)
        total = active * (variance + off * mean * mean)
        return like(y, (active * mean).to(tensor.dtype)), like(y, total.to(tensor.dtype))

    def mmse(self, sigma: float) -> float:
        """Least mean squared error of any estimate of x from y = x + sigma z: E Var[x|y].

        What is lost in fewer than one of 1e18 cases is left out, which is all that is lost of a discrete source
        at noise far below the distance of its values.

        Raises
        ------
        ValueError
            If sigma is not positive and finite.
        """
        sigma = _checks.positive("sigma", sigma)
        # Over z on panels of one unit, since between off and active the variance changes within a fraction of
        # sigma; what is left, as a function of u, is smooth on the scale of sigma.
        z, z_weight = panels(np.arange(-9.0, 10.0))
        z_weight = z_weight * normal_pdf(z)
        u, u_weight = self.amplitude_nodes(np.array(self._edges), np.array(1.5 * sigma))
        x, weight = np.append(0.0, u), np.append(1 - self.p, self.p * u_weight)
        total = 0.0
        for start in range(0, len(x), 64):
            part = slice(start, start + 64)
            _, variance = self.posterior(x[part, None] + sigma * z, sigma)
            total += float(weight[part] @ variance @ z_weight)
        return total


def _bernoulli_places(count: int, p: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Sorted places of the successes in `count` Bernoulli(p) trials, drawn by the gaps between them.

    The gaps are geometric: 1 + floor(E / -log(1 - p)) for exponential E.
    """
    rate = -math.log1p(-p)
    pieces: list[Tensor] = []
    last = -1
    while last < count:
        left = (count - last) * p
        draws = int(left + 5 * math.sqrt(left) + 8)
        gaps = torch.empty(draws, dtype=torch.float64, device=device).exponential_(rate, generator=generator)
        # Clamped, since a gap beyond the end is a gap beyond the end, and the sum of gaps must not overflow.
        places = gaps.clamp_(max=count).floor_().to(torch.int64).add_(1).cumsum_(0).add_(last)
        pieces.append(places)
        last = int(places[-1])
    places = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return places[: int(torch.searchsorted(places, count))]


def _log_mills(t: Tensor) -> Tensor:
    """log(Phi(t) / phi(t)), to full precision for every t."""
    low = torch.clamp(t, max=0.0)
    high = torch.clamp(t, min=0.0)
    below = torch.log(torch.special.erfcx(-low / math.sqrt(2))) + 0.5 * math.log(math.pi / 2)
    above = torch.special.log_ndtr(high) + 0.5 * high * high + _LOG_SQRT_2PI
    return torch.where(t < 0, below, above)


def _positive_part(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of w ~ N(t, 1) given w > 0.

    With lambda = phi(t) / Phi(t) they are t + lambda and 1 - lambda (t + lambda), which cancel for t << 0.
    There the continued fraction of Mills' ratio, lambda = x + 1/(x + 2/(x + 3/(x + ...))) at x = -t, gives
    both without cancellation.
    """
    hazard = torch.exp(-_log_mills(t))
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


@dataclass(frozen=True)
class _Scaled(Source):
    """A source whose amplitude is `scale` times a standard one; subclasses describe the standard one."""

    scale: float = 1.0

    # Breaks of panels that resolve the standard density to its end (an infinite tail is cut where it holds
    # less than 1e-16 of the sixth moment).
    _breaks: ClassVar[tuple[float, ...]]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", _checks.scale("scale", self.scale))

    @abstractmethod
    def _density(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density of the standard amplitude on its support."""

    @abstractmethod
    def _standard_moment(self, k: int) -> float:
        """E u^k of the standard amplitude."""

    @abstractmethod
    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        """As `_active_posterior`, for the standard amplitude."""

    def amplitude_moment(self, k: int) -> float:
        return self.scale**k * self._standard_moment(k)

    @property
    def amplitude_variance(self) -> float:
        return self.scale**2 * (self._standard_moment(2) - self._standard_moment(1) ** 2)

    def amplitude_nodes(self, centre: NDArray[np.float64], width: NDArray[np.float64]) -> Nodes:
        # Over a Gaussian's 8 standard deviations on each side of a kink, panels two of them wide.
        kink = centre[..., None] / self.scale + width[..., None, None] / self.scale * np.arange(-8.0, 9.0, 2.0)
        kink = np.clip(kink, self._breaks[0], self._breaks[-1]).reshape(*width.shape, -1)
        fixed = np.broadcast_to(np.array(self._breaks), (*width.shape, len(self._breaks)))
        u, w = panels(np.sort(np.concatenate([kink, fixed], axis=-1), axis=-1))
        return self.scale * u, w * self._density(u)

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        log_ratio, mean, variance = self._standard_posterior(y / self.scale, sigma / self.scale)
        return log_ratio, self.scale * mean, self.scale**2 * variance


@dataclass(frozen=True)
class SparseUniform(_Scaled):
    """Active features uniform on [0, scale]: the source of the toy model (arXiv 2410.12101)."""

    name = "uniform"
    _breaks = (0.0, 1.0)
    _edges = (0.0, 1.0)

    def _density(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ones_like(u)

    def _standard_moment(self, k: int) -> float:
        return 1 / (k + 1)

    def _draw(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(count).uniform_(generator=generator).mul_(self.scale)

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

    @staticmethod
    def _one_edge(y: Tensor, sigma: Tensor) -> Moments:
        upper = y > 0.5
        t = torch.where(upper, 1 - y, y) / sigma
        mean, variance = _positive_part(t)
        from_zero = torch.log(sigma) + _log_mills(torch.where(upper, 0.0, t))
        from_one = (
            torch.log(sigma) + 0.5 * (y / sigma) ** 2 + _LOG_SQRT_2PI
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


@dataclass(frozen=True)
class SparseExponential(_Scaled):
    """Active features exponential with mean `scale`."""

    name = "exponential"
    _breaks = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

    def _density(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-u)

    def _standard_moment(self, k: int) -> float:
        return float(math.factorial(k))

    def _draw(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(count).exponential_(generator=generator).mul_(self.scale)

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        # The prior tilts N(y, sigma^2) to N(y - sigma^2, sigma^2), cut to the positive half-line.
        t = y / sigma - sigma
        mean, variance = _positive_part(t)
        return torch.log(sigma) + _log_mills(t), sigma * mean, sigma**2 * variance


@dataclass(frozen=True)
class SparseHalfNormal(_Scaled):
    """Active features |g| with g normal of mean 0 and standard deviation `scale`."""

    name = "half-normal"
    _breaks = (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.5, 9.5)

    def _density(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return math.sqrt(2 / math.pi) * np.exp(-0.5 * u * u)

    def _standard_moment(self, k: int) -> float:
        return 2 ** (k / 2) * math.gamma((k + 1) / 2) / math.sqrt(math.pi)

    def _draw(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(count).normal_(generator=generator).abs_().mul_(self.scale)

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        shrink = torch.rsqrt(1 + sigma**2)
        t = shrink * y / sigma
        mean, variance = _positive_part(t)
        width = sigma * shrink
        log_ratio = torch.log(2 * width) + _log_mills(t) - _LOG_SQRT_2PI
        return log_ratio, width * mean, width**2 * variance


@dataclass(frozen=True)
class SparseGaussian(_Scaled):
    """Active features normal with mean 0 and standard deviation `scale`; signed."""

    name = "gaussian"
    _breaks = (-9.5, -6.5, -4.5, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.5, 6.5, 9.5)

    def _density(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)

    def _standard_moment(self, k: int) -> float:
        return float(math.prod(range(1, k, 2))) if k % 2 == 0 else 0.0

    def _draw(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(count).normal_(generator=generator).mul_(self.scale)

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        shrink = torch.rsqrt(1 + sigma**2)
        width = sigma * shrink
        log_ratio = torch.log(width) + 0.5 * (shrink * y / sigma) ** 2
        return log_ratio, shrink**2 * y, width**2 + torch.zeros_like(y)


class _Atomic(Source):
    """A source whose amplitude takes finitely many values."""

    @property
    @abstractmethod
    def _atoms(self) -> Nodes:
        """Values (k,) and their probabilities (k,)."""

    def amplitude_moment(self, k: int) -> float:
        u, w = self._atoms
        return float(w @ u**k)

    @property
    def amplitude_variance(self) -> float:
        u, w = self._atoms
        return float(w @ (u - w @ u) ** 2)

    def amplitude_nodes(self, centre: NDArray[np.float64], width: NDArray[np.float64]) -> Nodes:  # noqa: ARG002
        u, w = self._atoms
        return np.broadcast_to(u, (*width.shape, len(u))), np.broadcast_to(w, (*width.shape, len(w)))

    def _draw(self, count: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        u, w = self._atoms
        values = torch.from_numpy(u).to(like)
        if len(u) == 1:
            return values.expand(count)
        edges = torch.from_numpy(np.cumsum(w)[:-1]).to(like.device)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64, device=like.device)
        return values[torch.searchsorted(edges, uniform, right=True)]

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        u, w = (torch.from_numpy(part).to(y.device) for part in self._atoms)
        exponent = torch.log(w) + (y[..., None] * u - 0.5 * u * u) / (sigma * sigma)[..., None]
        log_ratio = torch.logsumexp(exponent, -1)
        mass = torch.exp(exponent - log_ratio[..., None])
        mean = (mass * u).sum(-1)
        variance = (mass * (u - mean[..., None]) ** 2).sum(-1)
        return log_ratio, mean, variance


@dataclass(frozen=True)
class SparseConstant(_Atomic):
    """Active features all equal to `scale`: binary data."""

    scale: float = 1.0

    name = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", _checks.scale("scale", self.scale))

    @property
    def _atoms(self) -> Nodes:
        return np.array([self.scale]), np.array([1.0])


@dataclass(frozen=True, eq=False)
class Empirical(_Atomic):
    """Amplitudes that take given values with given probabilities, usually fitted to data by `Empirical.fit`.

    Parameters
    ----------
    p : float in (0, 1]
        Probability that a feature is active.
    values : array (k,)
        The amplitudes, none of them 0.
    weights : array (k,), optional
        Their probabilities, up to a factor; by default all alike.

    Raises
    ------
    ValueError
        If values or weights are not finite, are empty or do not fit each other, a value is 0 or of a
        size beyond 1e-30 to 1e30, or a weight is not positive.
    """

    values: NDArray[np.float64] = field(repr=False)
    weights: NDArray[np.float64] | None = field(default=None, repr=False)

    name = "empirical"

    # As many atoms as `fit` keeps. Above, values are merged; the variance lost is that within a group.
    MOST_ATOMS: ClassVar[int] = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        values = np.array(self.values, dtype=np.float64)
        weights = np.ones(values.shape) if self.weights is None else np.array(self.weights, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"values has shape {values.shape}; allowed: one axis of at least one number")
        sizes = np.abs(values)
        if not ((sizes >= _checks.SMALLEST) & (sizes <= _checks.LARGEST)).all():
            raise ValueError(
                f"values holds sizes from {sizes.min():g} to {sizes.max():g}; "
                f"allowed: from {_checks.SMALLEST:g} to {_checks.LARGEST:g}"
            )
        if weights.shape != values.shape or not np.isfinite(weights).all() or not (weights > 0).all():
            raise ValueError(
                f"weights has shape {weights.shape}; allowed: {len(values)} finite numbers > 0, one a value"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "weights", weights / weights.sum())

    @property
    def _atoms(self) -> Nodes:
        return self.values, cast(NDArray[np.float64], self.weights)

    @classmethod
    def fit(cls, rows: object) -> Empirical:
        """Fit to data: p is the share of entries that are not 0, the amplitudes are their values.

        All features are pooled. Up to 256 distinct values are kept as they are; more are merged into 256
        groups of equal count, each represented by its mean, so that the mean is kept exactly. As the source
        is discrete, its posterior at noise far below the distance between values snaps to the values.

        Parameters
        ----------
        rows : array (rows, features), tensor or SciPy sparse matrix

        Raises
        ------
        ValueError
            If rows has no entries, entries that are not finite, or nothing but zeros.
        """
        size, active = _nonzeros(rows)
        if size == 0:
            raise ValueError("rows is empty; allowed: at least one row and one feature")
        if not np.isfinite(active).all():
            raise ValueError("rows holds NaN or infinity; allowed: finite numbers")
        if not len(active):
            raise ValueError("rows holds nothing but zeros; allowed: at least one entry that is not 0")
        values, counts = np.unique(active, return_counts=True)
        if len(values) > cls.MOST_ATOMS:
            groups = [g for g in np.array_split(np.sort(active), cls.MOST_ATOMS) if len(g)]
            values = np.array([g.mean() for g in groups])
            counts = np.array([len(g) for g in groups])
            # Groups on both sides of zero could in principle average to it.
            keep = values != 0
            values, counts = values[keep], counts[keep]
        return cls(len(active) / size, values, counts.astype(np.float64))


def _nonzeros(rows: Any) -> tuple[int, NDArray[np.float64]]:
    """Number of entries, and the values of those that are not 0, in a dense or SciPy sparse matrix."""
    if isinstance(rows, Tensor):
        rows = rows.detach().cpu().numpy()
    if hasattr(rows, "tocsr"):
        values = np.asarray(rows.tocsr().data, dtype=np.float64)
        size = math.prod(rows.shape)
    else:
        values = np.asarray(rows, dtype=np.float64).ravel()
        size = values.size
    return size, values[values != 0]


SOURCES: dict[str, type[_Scaled] | type[SparseConstant]] = {
    source.name: source
    for source in (SparseUniform, SparseExponential, SparseHalfNormal, SparseGaussian, SparseConstant)
}
"""Sources by name, those that need only p."""
