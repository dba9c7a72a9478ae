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
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import Array, Parts, as_tensor, like, place, span
from persianrug._support.devices import generator_on, known_device, known_dtype
from persianrug._support.threads import one_thread
from persianrug.sources.cells import cells_of
from persianrug.sources.places import bernoulli_places
from persianrug.sources.posterior import Moments, narrowed

Floats = NDArray[np.float64]
Nodes = tuple[Floats, Floats]

# From here on a dense draw is faster than drawing the gaps between active features.
_DENSE_FROM = 0.35

# Down to here draws of float32 tell probabilities to 1%.
_COARSE = 1e-5

# Features whose integrals are made at a time, where they differ.
_BLOCK = 32


# A number, or one a feature: a float64 array (n_sparse,).
Each = Any


@dataclass(frozen=True, eq=False)
class Source(Parts, ABC):
    """Distribution of independent sparse features.

    Parameters
    ----------
    p : float from 1e-30 to 1, or array (n_sparse,)
        Probability that a feature is active.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or arrays are not of one length.
    """

    p: Each

    of_features: ClassVar[bool] = True
    name: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", checks.each("p", self.p, checks.rate))

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
            1e18 cases is left out, or where features are rarer than that, what is as rare beside them.
        """

    @property
    def _reach(self) -> int:
        """Beyond so many sigmas y tells nothing new: two more than where "active" is as likely as "off"."""
        least = float(np.min(self.p))
        return max(9, math.ceil(math.sqrt(-2 * math.log(least)) + 2))

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
        return narrowed(self._active_posterior, y, sigma)

    # What follows for every source.

    @property
    def n_sparse(self) -> int | None:
        """The number of features, where they differ."""
        shape = np.broadcast_shapes(*(np.shape(getattr(self, name)) for name in self._each()))
        return shape[0] if shape else None

    @property
    def together(self) -> int:
        """How many features are active or off together: 1, unless they come in groups."""
        return 1

    def _each(self) -> list[str]:
        """Names of the parameters that may differ between features."""
        return [part.name for part in fields(self)]

    def recipe(self) -> dict[str, Any]:
        """What the source is made from: numbers, or arrays."""
        return {"name": self.name, **{part.name: getattr(self, part.name) for part in fields(self) if part.init}}

    def at(self, feature: int) -> Self:
        """The source of one feature, counted from 0; ValueError if there is no such."""
        feature = checks.integer("feature", feature, 0, None if self.n_sparse is None else self.n_sparse - 1)
        if self.n_sparse is None:
            return self
        values = {name: np.broadcast_to(getattr(self, name), self.n_sparse)[feature] for name in self._each()}
        return replace(self, **{name: float(value) for name, value in values.items()})

    def cells(self, sigma: Floats) -> tuple[list[Source], Floats, Floats, NDArray[np.int64]]:
        """The features in cells of nearly equal parameters, in units of their scale.

        Log p, log(sigma / scale) and what `_shapes` says differ by less than 0.15 in a cell.

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
        parts = self._parts()
        # Noise far below everything is all alike, and may be 0.
        noise = np.log(np.maximum(sigma / parts["scale"], 1e-12))
        places, cell, counts = cells_of({"p": np.log(parts["p"]), "noise": noise, **self._shapes()})
        values = {"p": _rates(places), "scale": np.ones(len(counts))}
        values |= self._of_shapes(values["scale"], places)
        one: Any = replace
        sources = [one(self, **{name: value[k] for name, value in values.items()}) for k in range(len(counts))]
        return sources, np.exp(places["noise"]), parts["scale"], cell

    def merged(self) -> tuple[Source, Floats | None]:
        """The source with features of nearly equal parameters as one, and how many each stands for.

        Log p, log scale and what `_shapes` says differ by less than 0.15 between these.
        """
        if self.n_sparse is None:
            return self, None
        parts = self._parts()
        own = {"p": np.log(parts["p"]), "scale": np.log(parts["scale"]), **self._shapes()}
        places, _, counts = cells_of(own)
        if len(counts) < 2:
            return self, np.ones(self.n_sparse)
        values = {"p": _rates(places), "scale": np.exp(places["scale"])}
        values |= self._of_shapes(values["scale"], places)
        one: Any = replace
        return one(self, **values), counts

    def _shapes(self) -> dict[str, Floats]:
        """In which coordinates (n_sparse,) features of one scale are compared, beside p: by name of parameter."""
        return {}

    def _of_shapes(self, scale: Each, shapes: dict[str, Floats]) -> dict[str, Floats]:  # noqa: ARG002
        """The parameters of features of a scale at coordinates that `_shapes` says; others may be among these."""
        return {}

    def scaled(self, factor: Each) -> Source:
        """The source of factor x, with a factor > 0, or one for every feature (n_sparse,).

        Raises
        ------
        ValueError
            If a factor is not positive, or the source has no scale: one that is fitted as it is to data.
        """
        factor = checks.each("factor", factor, checks.positive)
        if np.ndim(factor) == 0 and factor == 1:
            return self
        names = [name for name in ("scale", "loc") if name in self._each()]
        if not names:
            raise ValueError(f"source {self.name} has no scale; allowed with gains: sources of a given scale")
        one: Any = replace
        return one(self, **{name: getattr(self, name) * factor for name in names})

    def repeated(self, n_sparse: int) -> Source:
        """The source with an array of p of n_sparse >= 2, so that it goes with decoders whose features differ."""
        n_sparse = checks.integer("n_sparse", n_sparse, 2)
        one: Any = replace
        return self if self.n_sparse is not None else one(self, p=np.full(n_sparse, self.p))

    def always(self) -> Source:
        """The source of features that are always active, with the same amplitudes."""
        one: Any = replace
        return one(self, p=np.ones_like(self.p)[()])

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
        batch = checks.integer("batch", batch, 1)
        n_sparse = checks.integer("n_sparse", n_sparse, 1)
        if self.n_sparse not in (None, n_sparse):
            raise ValueError(f"n_sparse is {n_sparse}; allowed with this source: {self.n_sparse}, as its arrays")
        dtype = known_dtype(dtype)
        if device is not None:
            device = known_device(device)
        if isinstance(seed, torch.Generator) and device is None:
            device = seed.device
        generator = None if seed is None else generator_on(device or "cpu", seed)
        out = torch.empty(batch, n_sparse, dtype=dtype, device=device)
        self._fill(out, generator)
        return out

    def _fill(self, out: Tensor, generator: torch.Generator | None) -> None:
        """Draw vectors (batch, n_sparse) into `out`."""
        if self.n_sparse is None and self.p < _DENSE_FROM:
            places = bernoulli_places(out.numel(), self.p, generator, out.device)
            out.zero_().view(-1)[places] = self._draw(places.shape, generator, out)
            return
        # Draws of float32 are multiples of 6e-8, too coarse for features that are hardly ever active.
        fine = torch.float32 if np.min(self.p) >= _COARSE else torch.float64
        p = torch.tensor(self.p, dtype=torch.float64, device=out.device).to(fine)
        active = torch.rand(out.shape, generator=generator, dtype=fine, device=out.device) < p
        torch.mul(self._draw(out.shape, generator, out), active, out=out)

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
        if isinstance(sigma, Tensor) and sigma.dtype in (torch.float32, torch.float64):
            checks.real("sigma", sigma)
            noise = sigma.double()
        else:
            noise = torch.from_numpy(checks.levels("sigma", sigma))
        if not bool(((noise > 0) & noise.isfinite()).all()):
            raise ValueError(f"sigma is {span(noise)}; allowed: finite numbers > 0")
        noise = noise.to(tensor.device)
        try:
            torch.broadcast_shapes(wide.shape, noise.shape)
        except RuntimeError:
            allowed = f"one that broadcasts with {tuple(wide.shape)}, that of y"
            raise ValueError(f"sigma has shape {tuple(noise.shape)}; allowed: {allowed}") from None
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
        odds = inverse * place(self._odds_off[inverse.dtype == torch.float32], inverse)
        active = (odds + place(1.0, odds)).reciprocal()
        expected = active * mean
        return expected, active * torch.addcmul(variance, odds * expected, mean)

    @cached_property
    def _odds_off(self) -> tuple[Each, Each]:
        """How much likelier features are off than active, in double and in single precision."""
        odds = (1 - self.p) / self.p
        # In float32 rarer features are no rarer, as that ends at 3e38.
        return odds, np.minimum(odds, 1e18)

    def mmse(self, sigma: float) -> Each:
        """Least mean squared error of any estimate of x from y = x + sigma z: E Var[x|y].

        What is lost in fewer than one of 1e18 cases is left out, which is all that is lost of a discrete source
        at noise far below the distance of its values.

        Raises
        ------
        ValueError
            If sigma is not positive and finite.
        """
        sigma = checks.positive("sigma", sigma)
        losses = self.mismatch(np.array(sigma), np.array(sigma))
        total = self.p * losses[0] + (1 - self.p) * losses[1]
        return float(total) if self.n_sparse is None else total

    @one_thread()
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

        Raises
        ------
        ValueError
            If the prior has groups, and the source other ones or none.
        """
        if prior is not None and prior.together > 1:
            raise ValueError(f"prior has groups of {prior.together}; allowed with this source: one without")
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


def _rates(places: dict[str, Floats]) -> Floats:
    # Means of rates at an edge are at it but for rounding.
    return np.clip(np.exp(places["p"]), checks.SMALLEST, 1.0)


def _last(values: Floats, features: slice) -> Floats:
    """Some of the last axis, unless that is of length 1 for all."""
    return values if values.shape[-1] == 1 else values[..., features]


def check_one_length(source: Source) -> None:
    """Raise ValueError unless the arrays among a source's parameters are of one length."""
    lengths = {name: len(getattr(source, name)) for name in source._each() if np.ndim(getattr(source, name))}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"source {source.name} has {given}; allowed: numbers, or arrays of one length")
