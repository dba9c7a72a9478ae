"""Sources: how one sparse feature is distributed, and what a noisy look at it tells.

A feature x is 0 with probability 1 - p; otherwise it is *active* and equals an amplitude u drawn from the
source's own distribution. Features are independent. They are alike where p and the parameters of the amplitude are
numbers; where one of these is an array (n_sparse,), every feature has its own. A source knows how to sample
itself, its moments, and its posterior under y = x + sigma z with standard normal z.

With the likelihood ratio of "active" to "off",

    Lambda(y) = E_u exp((u y - u^2 / 2) / sigma^2),

the probability that x is active is pi = p Lambda / (p Lambda + 1 - p), and with the mean m and variance v of
u given y and active, the posterior has

    E[x|y] = pi m,        Var[x|y] = pi (v + (1 - pi) m^2).

Each source says Lambda, m and v for its amplitude twice: for `posterior` in a form that loses no digits for sigma
from 1e-9 to 1e3, and for `denoise` in one of few and fast operations, whose tails far from any x are cut.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr
from torch import Tensor

from persianrug import _checks
from persianrug._arrays import Array, Parts, as_tensor, like, place
from persianrug._quadrature import normal_pdf, panels
from persianrug.moments import FeatureMoments, nonzeros

Floats = NDArray[np.float64]
Moments = tuple[Tensor, Tensor, Tensor]
Nodes = tuple[Floats, Floats]

# From here on a dense draw is faster than drawing the gaps between active features.
_DENSE_FROM = 0.35

# The log of the least likelihood ratio that `Source.active` tells from 0: infinity times 0 would not be 0.
_LEAST_RATIO = -46.0

# Fitted amplitudes vary by at least this part of their mean.
_LEAST_SPREAD = 1e-3

# Features whose integrals are made at a time, where they differ.
_BLOCK = 32

# Side of the cells in which features are taken to be nearly alike, in logarithms of their parameters.
_CELL = 0.15

# Of places with the atoms of an empirical source, at a time.
_MOST_MEETINGS = 1 << 20

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


# A number, or one a feature: a float64 array (n_sparse,).
Each = Any


@dataclass(frozen=True, eq=False)
class Source(Parts, ABC):
    """Distribution of independent sparse features.

    Parameters
    ----------
    p : float in (0, 1], or array (n_sparse,)
        Probability that a feature is active.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or arrays are not of one length.
    """

    p: Each

    name: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", _checks.each("p", self.p, _checks.probability))

    # What a subclass says of its amplitude u.

    @abstractmethod
    def amplitude_moment(self, k: int) -> Each:
        """E u^k for k >= 0."""

    @property
    @abstractmethod
    def amplitude_variance(self) -> Each:
        """Var u."""

    @abstractmethod
    def amplitude_nodes(self, centre: Floats, width: Floats) -> Nodes:
        """Nodes u and weights w with sum w g(u) = E g(u), for functions g that change abruptly at some places.

        Parameters
        ----------
        centre : array (..., c)
            Where g may change abruptly,
        width : array (...)
            and over what distance.

        Returns
        -------
        u, w : arrays (..., k), or (..., n_sparse, k) where features differ
        """

    @abstractmethod
    def observations(self, sigma: Floats) -> tuple[Floats, Floats, Floats]:
        """Nodes y = x + sigma z, and their weights where x is active and where it is off.

        Parameters
        ----------
        sigma : array (...) of numbers > 0, whose last axis is that of features where they differ

        Returns
        -------
        y, on, off : arrays (..., k)
            Sums of on g(y) and off g(y) are E[g(y) | active] and E[g(y) | off]. What happens in fewer than one of
            1e18 cases is left out.
        """

    @abstractmethod
    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Amplitudes of a shape, whose last axis is that of features where they differ, as `like`."""

    @abstractmethod
    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        """The log of Lambda(y), and mean and variance of u given y and active; y and sigma in float64."""

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        """1 / Lambda(y), at most 1e20, and mean and variance of u given y and active, in the dtype of y.

        As fast as the formulas allow; see `denoise`. Sigma broadcasts with y.
        """
        return _narrowed(self._active_posterior, y, sigma)

    # What follows for every source.

    @property
    def n_sparse(self) -> int | None:
        """The number of features, where they differ."""
        shape = np.broadcast_shapes(*(np.shape(getattr(self, name)) for name in self._each()))
        return shape[0] if shape else None

    def _each(self) -> list[str]:
        """Names of the parameters that may differ between features."""
        return [part.name for part in fields(self)]

    def recipe(self) -> dict[str, Any]:
        """What the source is made from: numbers, or arrays."""
        return {"name": self.name, **{part.name: getattr(self, part.name) for part in fields(self) if part.init}}

    def at(self, feature: int) -> Self:
        """The source of one feature."""
        if self.n_sparse is None:
            return self
        values = {name: np.broadcast_to(getattr(self, name), self.n_sparse)[feature] for name in self._each()}
        return replace(self, **{name: float(value) for name, value in values.items()})

    def cells(self, sigma: Floats) -> tuple[list[Source], Floats, Floats, NDArray[np.int64]]:
        """The features in cells of nearly equal parameters, in units of their scale.

        Log p, log(sigma / scale) and arsinh(loc / scale) differ by less than 0.15 in a cell.

        Parameters
        ----------
        sigma : array (n_sparse,) or ()
            Noise on the features.

        Returns
        -------
        sources : list of Source
            Of each cell: scale 1, and the means of its members otherwise.
        noise : array (cells,)
            Sigma in units of the scale.
        scale : array (n_sparse,)
        cell : array (n_sparse,)
            Which cell each feature is in.
        """
        scale = self._parts()["scale"]
        # Noise far below everything is all alike, and may be 0.
        p, log_noise, centre, cell, _ = self._cells(np.log(np.maximum(sigma / scale, 1e-12)))
        one: Any = replace
        sources = [
            one(self, p=p[k], scale=1.0, **({"loc": centre[k]} if "loc" in self._each() else {}))
            for k in range(len(p))
        ]
        return sources, np.exp(log_noise), scale, cell

    def merged(self) -> tuple[Source, Floats | None]:
        """The source with features of nearly equal parameters as one, and how many each stands for.

        Log p, log scale and arsinh(loc / scale) differ by less than 0.15 between these.
        """
        if self.n_sparse is None:
            return self, None
        p, log_scale, centre, _, counts = self._cells(np.log(self._parts()["scale"]))
        if len(counts) < 2:
            return self, np.ones(self.n_sparse)
        scale = np.exp(log_scale)
        values = {"p": p, "scale": scale, "loc": centre * scale}
        one: Any = replace
        return one(self, **{name: values[name] for name in self._each()}), counts

    def _cells(self, second: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.int64], Floats]:
        """Cells of log p, another coordinate and arsinh(loc / scale).

        Returns
        -------
        p, second, loc / scale : arrays (cells,)
            Of the means of each cell.
        cell : array (n_sparse,)
        counts : array (cells,)
        """
        parts = self._parts()
        centre = np.arcsinh(parts.get("loc", 0.0) / parts["scale"])
        places = np.stack(np.broadcast_arrays(np.log(parts["p"]), second, centre), axis=1)
        _, cell, counts = np.unique(np.round(places / _CELL), axis=0, return_inverse=True, return_counts=True)
        log_p, second, centre = (np.bincount(cell, part) / counts for part in places.T)
        return np.minimum(np.exp(log_p), 1.0), second, np.sinh(centre), cell, counts.astype(np.float64)

    def scaled(self, factor: Each) -> Source:
        """The source of factor x, with a factor > 0, or one for every feature (n_sparse,).

        Raises
        ------
        ValueError
            If the source has no scale: one that is fitted as it is to data.
        """
        if np.ndim(factor) == 0 and factor == 1:
            return self
        names = [name for name in ("scale", "loc") if name in self._each()]
        if not names:
            raise ValueError(f"source {self.name} has no scale; allowed with gains: sources of a given scale")
        one: Any = replace
        return one(self, **{name: getattr(self, name) * factor for name in names})

    def repeated(self, n_sparse: int) -> Source:
        """The source with an array of p, so that it goes with decoders whose features differ."""
        one: Any = replace
        return self if self.n_sparse is not None else one(self, p=np.full(n_sparse, self.p))

    def sum_of(self, terms: int, weight: float, power: float, *, signed: bool) -> Source:
        """The source of sums of independent vectors of this one, each times a number.

        A feature of the sum is active where one of the terms' is. Its amplitude has the right mean and variance
        and is taken to be normal, or, where nothing is negative, normal and cut at 0, so never wider than an
        exponential one.

        Parameters
        ----------
        terms : int >= 1
        weight, power : float
            Sums of the numbers, and of their squares.
        signed : bool
            Whether one of them is negative.
        """
        p = -np.expm1(terms * np.log1p(-np.minimum(self.p, 1 - 1e-16)))
        mean = weight * self.mean / p
        # (Var + E^2) / p - (E / p)^2, with the squares of means put together.
        variance = (power * self.variance - (1 - p) * p * mean**2) / p
        deviation = np.sqrt(np.maximum(variance, (1e-4 * mean) ** 2 + _checks.SMALLEST**2))
        kind: Any = SparseGaussian if signed or self.signed else SparseTruncatedNormal
        loc, scale = kind._of_moments(*map(np.atleast_1d, (mean, deviation)), 0.0)
        shape = np.shape(mean)
        return cast(Source, kind(p, scale.reshape(shape)[()], loc.reshape(shape)[()]))

    def _part(self, features: slice) -> Source:
        """The source of some of the features."""
        one: Any = replace
        values = {name: getattr(self, name) for name in self._each()}
        return one(self, **{name: value[features] for name, value in values.items() if np.ndim(value)})

    def _parts(self) -> dict[str, Floats]:
        """The parameters that may differ between features, as arrays (n_sparse,)."""
        n = cast(int, self.n_sparse)
        return {name: np.broadcast_to(np.asarray(getattr(self, name)), n) for name in self._each()}

    @property
    def signed(self) -> bool:
        """Whether a feature can be negative."""
        u, _ = self.amplitude_nodes(np.zeros(1), np.array(0.0))
        return bool(u.min() < 0)

    @property
    def mean(self) -> Each:
        """E x."""
        return self.p * self.amplitude_moment(1)

    @property
    def second_moment(self) -> Each:
        """E x^2."""
        return self.p * self.amplitude_moment(2)

    @property
    def variance(self) -> Each:
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
        if self.n_sparse not in (None, n_sparse):
            raise ValueError(f"n_sparse is {n_sparse}; allowed with this source: {self.n_sparse}, as its arrays")
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
        out = torch.empty(batch, n_sparse, dtype=dtype, device=device)
        if self.n_sparse is None and self.p < _DENSE_FROM:
            places = _bernoulli_places(out.numel(), self.p, generator, out.device)
            out.zero_().view(-1)[places] = self._draw(places.shape, generator, out)
            return out
        p = torch.tensor(self.p, dtype=torch.float64, device=device).to(torch.float32)
        active = torch.rand(out.shape, generator=generator, dtype=torch.float32, device=device) < p
        return torch.mul(self._draw(out.shape, generator, out), active, out=out)

    def posterior(self, y: Array, sigma: float | Tensor) -> tuple[Array, Array]:
        """Mean and variance of x given y = x + sigma z.

        Computed in float64 and returned in the kind and dtype of `y`; differentiable.

        Parameters
        ----------
        y : tensor or array (...), or (..., n_sparse) where features differ
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
        p = torch.tensor(self.p, dtype=torch.float64, device=tensor.device)
        log_odds = log_ratio + torch.logit(p)
        active = torch.sigmoid(log_odds)
        off = torch.sigmoid(-log_odds)
        total = active * (variance + off * mean * mean)
        return like(y, (active * mean).to(tensor.dtype)), like(y, total.to(tensor.dtype))

    def denoise(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x given y, as `posterior`, but in the dtype of y and fast.

        In float64 they err by less than 1e-9 sigma and sigma^2 for y up to 7 sigma from where x can be.

        Parameters
        ----------
        y : float32 or float64 tensor (...), or (..., n_sparse) where features differ
        sigma : tensor of the same dtype that broadcasts with y, > 0
        """
        return self._mixed(*self.active(y, sigma))

    def _mixed(self, inverse: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x from what `active` says."""
        # Rarer features are no rarer here, as float32 ends at 3e38.
        odds = inverse * place(np.minimum((1 - self.p) / self.p, 1e18), inverse)
        active = (odds + 1).reciprocal()
        expected = active * mean
        return expected, active * torch.addcmul(variance, odds * expected, mean)

    def mmse(self, sigma: float) -> Each:
        """Least mean squared error of any estimate of x from y = x + sigma z: E Var[x|y].

        What is lost in fewer than one of 1e18 cases is left out, which is all that is lost of a discrete source
        at noise far below the distance of its values.

        Raises
        ------
        ValueError
            If sigma is not positive and finite.
        """
        sigma = _checks.positive("sigma", sigma)
        losses = self.mismatch(np.array(sigma), np.array(sigma))
        total = self.p * losses[0] + (1 - self.p) * losses[1]
        return float(total) if self.n_sparse is None else total

    def mismatch(self, sigma: Floats, assumed: Floats, prior: Source | None = None) -> Floats:
        """What the posterior mean for noise `assumed` loses, and believes to lose, at noise sigma.

        Parameters
        ----------
        sigma, assumed : arrays (...) of numbers > 0, whose last axis is that of features where they differ
        prior : Source
            The one that the posterior is of, by default this one.

        Returns
        -------
        losses : array (4, ...)
            The mean squared errors given that x is active and that it is off, and the means of the posterior
            variance in both cases.
        """
        if self.n_sparse is not None:
            sigma, assumed = np.atleast_1d(sigma), np.atleast_1d(assumed)
            if self.n_sparse > 2 * _BLOCK:
                # A few features at a time, whose intermediate arrays stay in cache.
                blocks = [slice(k, k + _BLOCK) for k in range(0, self.n_sparse - 1, _BLOCK)]
                blocks[-1] = slice(blocks[-1].start, self.n_sparse)
                losses = [
                    self._part(block).mismatch(
                        _last(sigma, block), _last(assumed, block), prior and prior._part(block)
                    )
                    for block in blocks
                ]
                return np.concatenate(losses, axis=-1)
        y, on, off = self.observations(sigma)
        # The axis of features comes last, as the posterior wants it.
        y, on, off = (np.moveaxis(np.broadcast_to(part, y.shape), -1, 0) for part in (y, on, off))
        places, noise, believed = (torch.from_numpy(np.array(part)) for part in (y, sigma, assumed))
        inverse, mean, variance = self.active(places, noise)
        if prior is None and np.array_equal(sigma, assumed):
            guess, doubt = self._mixed(inverse, mean, variance)
        else:
            guess, doubt = (prior or self).denoise(places, believed)
        there, none = torch.from_numpy(np.array(on)), torch.from_numpy(np.array(off))
        parts = there * (variance + (mean - guess) ** 2), none * guess**2, there * doubt, none * doubt
        return torch.stack([part.sum(0) for part in parts]).numpy()


def _last(values: Floats, features: slice) -> Floats:
    """Some of the last axis, unless that is of length 1 for all."""
    return values if values.shape[-1] == 1 else values[..., features]


def _narrowed(posterior: Callable[[Tensor, Tensor], Moments], y: Tensor, sigma: Tensor) -> Moments:
    """What `Source.active` returns, from a posterior of float64."""
    log_ratio, mean, variance = posterior(*torch.broadcast_tensors(y.double(), sigma.double()))
    return torch.exp(-log_ratio.clamp(min=_LEAST_RATIO)).to(y.dtype), mean.to(y.dtype), variance.to(y.dtype)


def _one_length(source: Source) -> None:
    """Raise ValueError unless the arrays among a source's parameters are of one length."""
    lengths = {name: len(getattr(source, name)) for name in source._each() if np.ndim(getattr(source, name))}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"source {source.name} has {given}; allowed: numbers, or arrays of one length")


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


def _inverse(log_inverse: Tensor) -> Tensor:
    """1 / Lambda from its log, bounded."""
    return torch.exp(log_inverse.clamp(max=-_LEAST_RATIO))


def _hazard(t: Tensor) -> tuple[Tensor, Tensor]:
    """2 phi(t) and 2 Phi(t) for t >= -10; phi is cut off before it becomes denormal, which is slow."""
    u = t.clamp(max=11.0 if t.dtype == torch.float32 else 35.0) * -math.sqrt(0.5)
    return torch.exp(-u * u) * math.sqrt(2 / math.pi), torch.erfc(u)


@dataclass(frozen=True, eq=False)
class _Scaled(Source):
    """A source whose amplitude is `scale` times a standard one; subclasses describe the standard one."""

    scale: Each = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", _checks.each("scale", self.scale, _checks.scale))
        _one_length(self)

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
        breaks, edges, scale = self._breaks(), self._edges(), np.asarray(self.scale)
        shape = np.broadcast_shapes(np.shape(sigma), scale.shape, breaks.shape[:-1])
        s = np.broadcast_to(sigma / scale, shape)[..., None]
        near = (edges[..., None] + s[..., None] * np.arange(-9.0, 10.0)).reshape(*shape, -1)
        ends = breaks[..., :1] - 9 * s, breaks[..., -1:] + 9 * s
        near = np.clip(near, np.minimum(ends[0], -9 * s), ends[1])
        y, w = panels(np.sort(np.concatenate([near, np.broadcast_to(breaks, (*shape, breaks.shape[-1]))], -1), -1))
        return scale[..., None] * y, w * self._observed(y, s), w * normal_pdf(y / s) / s

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        scale = place(self.scale, y)
        log_ratio, mean, variance = self._standard_posterior(y / scale, sigma / scale)
        return log_ratio, scale * mean, scale**2 * variance

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        if np.ndim(self.scale) == 0 and self.scale == 1:
            return self._standard_active(y, sigma)
        scale = place(self.scale, y)
        inverse, mean, variance = self._standard_active(y / scale, sigma / scale)
        return inverse, scale * mean, scale**2 * variance


@dataclass(frozen=True, eq=False)
class SparseUniform(_Scaled):
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
        if not bool((sigma < 4).all()):
            # Differences of close numbers; the noise is so strong that speed does not matter.
            return _narrowed(self._standard_posterior, y, sigma)
        # N(y, sigma^2) cut to [0, 1], seen from the nearer edge.
        precision = 1 / sigma
        offset = y - 0.5
        t = torch.addcmul(0.5 * precision, offset.abs(), -precision).clamp_(min=-10.0)
        density, mass = _hazard(t)
        if bool((sigma < 0.05).all()):
            # The farther edge is ten deviations away or more. Comparing is slow: a steep ramp where the hazard is
            # 0 says as well which edge is near.
            slope = density / mass
            variance = 1 - slope * (t + slope)
            inverse = slope * (offset * -1e3).clamp_(0.0, 1.0) * precision
        else:
            b = precision - t
            other, tail = _hazard(-b)
            mass = mass - tail
            hazard, odds = density / mass, other / mass
            slope = hazard - odds
            variance = 1 - t * hazard - b * odds - slope * slope
            inverse = torch.where(offset > 0, odds, hazard) * precision
        inside = torch.addcmul(y.new_tensor(0.5), t + slope, -sigma)
        return inverse, torch.copysign(inside, offset) + 0.5, variance * (sigma * sigma)

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


@dataclass(frozen=True, eq=False)
class SparseExponential(_Scaled):
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
        mean, variance = _positive_part(t)
        return torch.log(sigma) + _log_mills(t), sigma * mean, sigma**2 * variance

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        if not bool((sigma < 2).all()):
            # Then t is far below 0 wherever y is.
            return _narrowed(self._standard_posterior, y, sigma)
        t = (y / sigma - sigma).clamp(min=-10.0)
        density, mass = _hazard(t)
        hazard = density / mass
        mean = t + hazard
        return hazard / sigma, sigma * mean, sigma * sigma * (1 - hazard * mean)


@dataclass(frozen=True, eq=False)
class _Normal(_Scaled):
    """A source whose standard amplitude is normal with variance 1 about `_centre`, or a part of that."""

    @property
    @abstractmethod
    def _centre(self) -> Each:
        """Mean of the standard amplitude before anything is cut off."""

    @classmethod
    def fit(cls, rows: object) -> Self:
        """Fit every feature to its column of data: p, and mean and variance of its values that are not 0.

        So that a feature that is rarely or never seen has a law too, each column is given half a row in which it
        is active and half a row in which it is not, and two values distributed as those of an average feature.

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
        counts, n_sparse = moments.counts, len(moments.counts)
        if n_sparse < 2:
            raise ValueError(f"rows has {n_sparse} features; allowed: at least 2")
        if not moments.active:
            raise ValueError("rows holds nothing but zeros; allowed: at least one entry that is not 0")
        typical = float(counts @ moments.means) / moments.active
        spread = max(float(moments.scatters.sum()) / moments.active, (_LEAST_SPREAD * typical) ** 2)
        mean = (counts * moments.means + 2 * typical) / (counts + 2)
        variance = (moments.scatters + 2 * spread) / (counts + 2)
        p = (counts + 0.5) / (moments.rows + 1)
        loc, scale = cls._of_moments(mean, np.sqrt(variance), moments.least)
        make: Any = cls
        return make(p, scale, loc)

    @classmethod
    @abstractmethod
    def _of_moments(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:
        """Loc and scale of amplitudes with these means and standard deviations, and the least of all values."""

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


@dataclass(frozen=True, eq=False)
class SparseTruncatedNormal(_Normal):
    """Active features normal with mean `loc` and deviation `scale`, cut to the positive half-line.

    It fits anything between an exponential amplitude (loc far below 0) and one that hardly varies (loc far above
    scale), and hence many kinds of real features, from their first two moments alone.
    """

    loc: Each = 0.0

    name = "truncated-normal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "loc", _checks.each("loc", self.loc, _checks.finite))
        super().__post_init__()
        # Means of centres at the edge are at it but for rounding.
        if not bool(np.all((np.abs(self._centre) <= 1e4) & (np.asarray(self._centre) >= -10 - 1e-9))):
            raise ValueError(f"loc is {self.loc}; allowed: from -10 to 1e4 times scale, here {self.scale}")

    @property
    def _centre(self) -> Each:
        return self.loc / self.scale

    @classmethod
    def _of_moments(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:
        if least < 0:
            raise ValueError("rows holds negative numbers; allowed: numbers >= 0, or SparseGaussian.fit")
        # Deviation over mean falls with the centre, from nearly 1 at -10, an exponential's.
        low, high = np.full(mean.shape, -10.0), np.full(mean.shape, 1e4)
        for _ in range(60):
            centre = (low + high) / 2
            kappa, variance = (part.numpy() for part in _positive_part(torch.from_numpy(centre)))
            wide = np.sqrt(variance) / kappa > deviation / mean
            low, high = np.where(wide, centre, low), np.where(wide, high, centre)
        scale = mean / _positive_part(torch.from_numpy(centre))[0].numpy()
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
        mean, variance = _positive_part(centre)
        moments = [torch.ones_like(mean), mean, variance + mean * mean]
        for order in range(3, k + 1):
            moments.append(centre * moments[-1] + (order - 1) * moments[-2])
        return moments[k].numpy()[()]

    @property
    def _standard_variance(self) -> Each:
        return _positive_part(torch.tensor(self._centre, dtype=torch.float64))[1].numpy()[()]

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
        mean, variance = _positive_part(t)
        log_ratio = (
            torch.log(width) + _log_mills(t) - _log_mills(torch.as_tensor(centre, dtype=t.dtype, device=t.device))
        )
        return log_ratio, width * mean, width**2 * variance

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        far = np.asarray(self._centre) < -3
        if far.all():
            # Then t is far below 0 wherever y is.
            return _narrowed(self._standard_posterior, y, sigma)
        if far.any():
            return self._two_ways(far, y, sigma)
        t, width, centre = self._product(y, sigma)
        t = t.clamp(min=-10.0)
        density, mass = _hazard(t)
        hazard = density / mass
        mean = t + hazard
        if np.ndim(self._centre) == 0 and self._centre == 0:
            inverse = hazard * (math.sqrt(math.pi / 2) / width)
        else:
            tilt = 0.5 * (centre - t) * (centre + t) - torch.log(0.5 * width * mass)
            inverse = _inverse(
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
        slow = _narrowed(own._standard_posterior, y.index_select(-1, columns), wide.index_select(-1, columns))
        inverse, mean, variance = (
            whole.expand(y.shape).index_copy(-1, columns, part) for whole, part in zip(near, slow, strict=True)
        )
        return inverse, mean, variance


@dataclass(frozen=True, eq=False)
class SparseHalfNormal(SparseTruncatedNormal):
    """Active features |g| with g normal of mean 0 and standard deviation `scale`."""

    loc: Each = field(default=0.0, init=False, repr=False)

    name = "half-normal"

    def _each(self) -> list[str]:
        return ["p", "scale"]

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_empty(shape).normal_(generator=generator).abs_().mul_(place(self.scale, like))


@dataclass(frozen=True, eq=False)
class SparseGaussian(_Normal):
    """Active features normal with mean `loc` and standard deviation `scale`; signed."""

    loc: Each = 0.0

    name = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "loc", _checks.each("loc", self.loc, _checks.finite))
        super().__post_init__()
        if not bool(np.all(np.abs(self._centre) <= 1e4)):
            raise ValueError(f"loc is {self.loc}; allowed: up to 1e4 times scale, here {self.scale}")

    @property
    def _centre(self) -> Each:
        return self.loc / self.scale

    @classmethod
    def _of_moments(cls, mean: Floats, deviation: Floats, least: float) -> tuple[Floats, Floats]:  # noqa: ARG003
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
        inverse = _inverse(0.5 * (centre - t) * (centre + t) - torch.log(width))
        return inverse, width * t, width * width


class _Atomic(Source):
    """A source whose amplitude takes finitely many values."""

    @property
    @abstractmethod
    def _atoms(self) -> Nodes:
        """Values (k,), or (n_sparse, k), and their probabilities (k,)."""

    def amplitude_nodes(self, centre: Floats, width: Floats) -> Nodes:  # noqa: ARG002
        u, w = self._atoms
        shape = np.broadcast_shapes(np.shape(width), u.shape[:-1])
        return np.broadcast_to(u, (*shape, u.shape[-1])), np.broadcast_to(w, (*shape, len(w)))

    def observations(self, sigma: Floats) -> tuple[Floats, Floats, Floats]:
        # Panels of about one sigma, since between off and active the posterior changes within a fraction of that.
        # Where noise is stronger than the distance of values, few of them are enough for all.
        u, w = self._atoms
        sigma = np.broadcast_to(sigma, np.broadcast_shapes(np.shape(sigma), u.shape[:-1]))
        s, x = sigma[..., None], np.concatenate([np.zeros_like(u[..., :1]), u], axis=-1)
        breaks = np.sort((x[..., None] + s[..., None] * np.arange(-9.0, 10.0)).reshape(*sigma.shape, -1), axis=-1)
        nodes = panels(_thinned(breaks.reshape(-1, breaks.shape[-1]), 0.9 * sigma.reshape(-1)))
        y, dy = (part.reshape(*sigma.shape, -1) for part in nodes)
        on = np.zeros_like(y)
        for k, weight in enumerate(w):
            on += weight * normal_pdf((y - u[..., k, None]) / s)
        return y, dy * on / s, dy * normal_pdf(y / s) / s

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        u, w = self._atoms
        values = torch.tensor(u, dtype=like.dtype, device=like.device)
        if len(w) == 1:
            return values[..., 0].expand(shape)
        edges = torch.from_numpy(np.cumsum(w)[:-1]).to(like.device)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)
        return values[torch.searchsorted(edges, uniform, right=True)]

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        u, w = (torch.tensor(part, device=y.device) for part in self._atoms)
        exponent = torch.log(w) + (y[..., None] * u - 0.5 * u * u) / (sigma * sigma)[..., None]
        log_ratio = torch.logsumexp(exponent, -1)
        mass = torch.exp(exponent - log_ratio[..., None])
        mean = (mass * u).sum(-1)
        variance = (mass * (u - mean[..., None]) ** 2).sum(-1)
        return log_ratio, mean, variance


def _thinned(breaks: Floats, distance: Floats) -> Floats:
    """Ascending breaks (rows, k) without those nearer to the last than a distance (rows,), as many everywhere."""
    rows = []
    for row, least in zip(breaks, distance, strict=True):
        kept = [row[0]]
        for edge in row[1:]:
            if edge - kept[-1] >= least:
                kept.append(edge)
        rows.append([*kept, row[-1]])
    width = max(len(row) for row in rows)
    return np.array([row + [row[-1]] * (width - len(row)) for row in rows])


@dataclass(frozen=True, eq=False)
class SparseConstant(_Atomic):
    """Active features all equal to `scale`: binary data."""

    scale: Each = 1.0

    name = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", _checks.each("scale", self.scale, _checks.scale))
        _one_length(self)

    @property
    def _atoms(self) -> Nodes:
        return np.asarray(self.scale)[..., None], np.ones(1)

    def amplitude_moment(self, k: int) -> Each:
        return self.scale**k

    @property
    def amplitude_variance(self) -> float:
        return 0.0

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        scale = place(self.scale, y)
        exponent = (0.5 * scale - y) * (scale / (sigma * sigma))
        mean = torch.as_tensor(scale, dtype=y.dtype, device=y.device)
        return _inverse(exponent), mean, torch.zeros_like(mean)


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

    values: Floats = field(repr=False)
    weights: Floats | None = field(default=None, repr=False)

    name = "empirical"

    # As many atoms as `fit` keeps. Above, values are merged; the variance lost is that within a group.
    MOST_ATOMS: ClassVar[int] = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", _checks.probability("p", self.p))
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
        # Those that add up to 1 stay as they are, so that a source that was stored is the same.
        total = weights.sum()
        object.__setattr__(self, "weights", weights if abs(total - 1) < 1e-12 else weights / total)

    @property
    def _atoms(self) -> Nodes:
        return self.values, cast(Floats, self.weights)

    def _each(self) -> list[str]:
        return []

    def amplitude_moment(self, k: int) -> float:
        u, w = self._atoms
        return float(w @ u**k)

    @property
    def amplitude_variance(self) -> float:
        u, w = self._atoms
        return float(w @ (u - w @ u) ** 2)

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        # Every place meets every atom: in pieces, whose memory is bounded.
        shape = torch.broadcast_shapes(y.shape, sigma.shape)
        step = max(1, _MOST_MEETINGS // len(self.values))
        places = (part.expand(shape).reshape(-1).split(step) for part in (y, sigma))
        parts = zip(*(self._meet(*piece) for piece in zip(*places, strict=True)), strict=True)
        inverse, mean, variance = (torch.cat(part).reshape(shape) for part in parts)
        return inverse, mean, variance

    def _meet(self, y: Tensor, sigma: Tensor) -> Moments:
        u, w = (torch.from_numpy(part).to(y) for part in self._atoms)
        precision = (sigma * sigma).reciprocal()[:, None]
        exponent = torch.addcmul(torch.log(w), y[:, None] * precision, u).addcmul_(precision, u * u, value=-0.5)
        top = exponent.amax(-1, keepdim=True)
        mass = (exponent - top).exp_()
        middle = u.mean()
        total, first, second = (mass @ torch.stack([torch.ones_like(u), u - middle, (u - middle) ** 2], 1)).unbind(
            1
        )
        mean = first / total
        inverse = _inverse(-top[:, 0]) / total
        return inverse, mean + middle, (second / total - mean * mean).clamp(min=0.0)

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        step = max(1, _MOST_MEETINGS // len(self.values))
        pieces = zip(y.reshape(-1).split(step), sigma.reshape(-1).split(step), strict=True)
        parts = zip(*(super(Empirical, self)._active_posterior(*piece) for piece in pieces), strict=True)
        log_ratio, mean, variance = (torch.cat(part).reshape(y.shape) for part in parts)
        return log_ratio, mean, variance

    @classmethod
    def fit(cls, rows: object) -> Empirical:
        """Fit to data: p is the share of entries that are not 0, the amplitudes are their values.

        All features are pooled. Up to 64 distinct values are kept as they are; more are merged into at
        most 64 groups, each represented by its mean, so that the mean is kept exactly. As the source
        is discrete, its posterior at noise far below the distance between values snaps to the values.

        Parameters
        ----------
        rows : array (rows, features), tensor or SciPy sparse matrix

        Raises
        ------
        ValueError
            If rows has no entries, entries that are not finite, or nothing but zeros.
        """
        size, active, _, _ = nonzeros(rows)
        if not len(active):
            raise ValueError("rows holds nothing but zeros; allowed: at least one entry that is not 0")
        values, counts = np.unique(active, return_counts=True)
        if len(values) > cls.MOST_ATOMS:
            # Half of the edges make groups of equal count, half of equal width, for the bulk and for the tails.
            ordered, half = np.sort(active), cls.MOST_ATOMS // 2
            edges = [
                np.quantile(ordered, np.linspace(0, 1, half + 1)),
                np.linspace(values[0], values[-1], half + 1),
            ]
            cuts = np.searchsorted(ordered, np.unique(np.concatenate(edges))[1:-1])
            groups = [g for g in np.split(ordered, cuts) if len(g)]
            values = np.array([g.mean() for g in groups])
            counts = np.array([len(g) for g in groups])
            # Groups on both sides of zero could in principle average to it.
            keep = values != 0
            values, counts = values[keep], counts[keep]
        return cls(len(active) / size, values, counts.astype(np.float64))


def zipf_rates(n_sparse: int, p: float, exponent: float = 1.0) -> Floats:
    """Rates of features that fire by Zipf's law: p_i proportional to 1 / i^exponent, at most 1, with mean p.

    Parameters
    ----------
    n_sparse : int >= 2
    p : float in (0, 1]
        Mean of the rates.
    exponent : float, 0 to 10

    Returns
    -------
    array (n_sparse,), descending

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    n_sparse = _checks.integer("n_sparse", n_sparse, 2)
    p = _checks.probability("p", p)
    exponent = _checks.not_negative("exponent", exponent)
    if exponent > 10:
        raise ValueError(f"exponent is {exponent}; allowed: a number from 0 to 10")
    law = np.arange(1, n_sparse + 1, dtype=np.float64) ** -exponent
    # The first k are always active; the others make up the rest.
    tails = np.cumsum(law[::-1])[::-1]
    shares = np.maximum(p * n_sparse - np.arange(n_sparse), 0) / tails
    full = int(np.argmax(shares * law <= 1)) if bool((shares * law <= 1).any()) else n_sparse
    rates = np.ones(n_sparse)
    if full < n_sparse:
        rates[full:] = np.maximum(shares[full] * law[full:], _checks.SMALLEST)
    return rates


SOURCES: dict[str, type[_Scaled] | type[SparseConstant]] = {
    source.name: source
    for source in (
        SparseUniform,
        SparseExponential,
        SparseHalfNormal,
        SparseTruncatedNormal,
        SparseGaussian,
        SparseConstant,
    )
}
"""Sources by name, those that need only p."""


def from_recipe(recipe: dict[str, Any]) -> Source:
    """The source of a recipe.

    Raises
    ------
    ValueError
        If the recipe names no source known here, or its parameters are not what that one takes.
    """
    kinds: dict[str, Any] = {**SOURCES, Empirical.name: Empirical}
    name = _checks.one_of("source", recipe.get("name", ""), kinds)
    parameters = {key: value for key, value in recipe.items() if key != "name"}
    try:
        source: Source = kinds[name](**parameters)
    except TypeError:
        raise ValueError(
            f"recipe of source {name} has {sorted(parameters)}; allowed: its own parameters"
        ) from None
    return source
