"""Groups: features that are active together, of which each says something of all.

In a group one cause makes all members active, or none; their amplitudes are independent given that. With Lambda_j
the likelihood ratio of "active" to "off" that the look y_j at member j gives, the group is active with probability

    pi = p Lambda / (p Lambda + 1 - p),     Lambda = prod_j Lambda_j,

and every member has the posterior of a feature of its own with that pi: E[x_j|y] = pi m_j. So a group is told from
noise where none of its members alone would be.

One feature by itself is distributed as if there were no groups, and decoders that look at features one by one lose
what they lose without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.signal import fftconvolve
from scipy.special import expit, logit
from torch import Tensor

from persianrug._support import checks
from persianrug._support.threads import one_thread
from persianrug.sources.base import Each, Floats, Nodes, Source
from persianrug.sources.posterior import Moments, inverse_ratio

# Step of the grid on which the distribution of log Lambda is followed, and from where on pi is 1.
_STEP, _CERTAIN = 0.05, 45.0

# Losses of more levels than this are interpolated between levels so far apart in their logarithm.
_MOST_LEVELS, _LEVEL_STEP = 40, 0.02

# Looks at every feature that losses are averages of where features differ, and how many looks there are at most.
_LOOKS, _MOST_LOOKS = 64, 1 << 20


@dataclass(frozen=True, eq=False)
class Groups(Source):
    """Features in groups of `size`, one after the other, whose members are active together.

    Parameters
    ----------
    members : Source
        The distribution of a feature by itself; its p is that of its group.
    size : int >= 2
        Features in a group. Features number 0 to size - 1 are the first group, and so on.

    Raises
    ------
    ValueError
        If members of one group have different p, or the features are no whole number of groups.
    """

    p: Each = field(init=False, repr=False)
    members: Source
    size: int

    name = "groups"

    def __post_init__(self) -> None:
        checks.instance("members", self.members, Source)
        object.__setattr__(self, "size", checks.integer("size", self.size, 2))
        object.__setattr__(self, "p", self.members.p)
        if self.n_sparse is not None:
            p = np.broadcast_to(self.p, self.n_sparse)
            apart = np.ptp(p.reshape(self._groups(self.n_sparse), self.size), axis=1)
            if apart.any():
                first = self.size * int(np.flatnonzero(apart)[0])
                shown = ", ".join(f"{value:g}" for value in p[first : first + self.size][:4])
                raise ValueError(f"p of features from {first} on is {shown}; allowed: the same within a group")

    def _groups(self, n_sparse: int) -> int:
        if n_sparse % self.size:
            raise ValueError(f"n_sparse is {n_sparse}; allowed in groups of {self.size}: multiples of {self.size}")
        return n_sparse // self.size

    @property
    def together(self) -> int:
        return self.size

    def _each(self) -> list[str]:
        return []

    @property
    def n_sparse(self) -> int | None:
        return self.members.n_sparse

    def recipe(self) -> dict[str, Any]:
        return {"name": self.name, "members": self.members.recipe(), "size": self.size}

    # A feature by itself is as its members' source has it.

    def amplitude_moment(self, k: int) -> Each:
        return self.members.amplitude_moment(k)

    @property
    def amplitude_variance(self) -> Each:
        return self.members.amplitude_variance

    def amplitude_nodes(self, centre: Floats, width: Floats) -> Nodes:
        return self.members.amplitude_nodes(centre, width)

    def observations(self, sigma: Floats) -> tuple[Floats, Floats, Floats]:
        return self.members.observations(sigma)

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return self.members._draw(shape, generator, like)

    def at(self, feature: int) -> Source:  # type: ignore[override]
        """The source of one feature by itself, counted from 0; ValueError if there is no such."""
        return self.members.at(feature)

    def cells(self, sigma: Floats) -> tuple[list[Source], Floats, Floats, np.ndarray[Any, np.dtype[np.int64]]]:
        return self.members.cells(sigma)

    def merged(self) -> tuple[Source, Floats | None]:
        # What a feature loses depends on all of its group.
        return self, None if self.n_sparse is None else np.ones(self.n_sparse)

    def scaled(self, factor: Each) -> Source:
        return replace(self, members=self.members.scaled(factor))

    def repeated(self, n_sparse: int) -> Source:
        return replace(self, members=self.members.repeated(n_sparse))

    # What the others of a group say.

    def _fill(self, out: Tensor, generator: torch.Generator | None) -> None:
        batch, n_sparse = out.shape
        groups = self._groups(n_sparse)
        p = torch.tensor(self.p, dtype=torch.float64, device=out.device)
        p = p.view(groups, self.size)[:, 0] if p.ndim else p
        drawn = torch.rand(batch, groups, generator=generator, dtype=torch.float64, device=out.device)
        active = (drawn < p).repeat_interleave(self.size, dim=1)
        torch.mul(self._draw(out.shape, generator, out), active, out=out)

    def _of_groups(self, log_ratio: Tensor) -> Tensor:
        """The sum over its group, for every member."""
        shape = (*log_ratio.shape[:-1], self._groups(log_ratio.shape[-1]), self.size)
        return log_ratio.reshape(shape).sum(-1, keepdim=True).expand(shape).reshape(log_ratio.shape)

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        log_ratio, mean, variance = self.members._active_posterior(y, sigma)
        return self._of_groups(log_ratio.expand(y.shape)), mean, variance

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        inverse, mean, variance = self.members.active(y, sigma)
        return inverse_ratio(self._of_groups(inverse.expand(y.shape).log())), mean, variance

    @one_thread()
    def mismatch(self, sigma: Floats, assumed: Floats, prior: Source | None = None) -> Floats:
        prior = prior or self
        if prior.together == 1:
            return self.members.mismatch(sigma, assumed, prior)
        if prior.together != self.size:
            raise ValueError(f"prior has groups of {prior.together}; allowed with this source: of {self.size}")
        sigma, assumed = np.asarray(sigma), np.asarray(assumed)
        if self.n_sparse is not None or prior.n_sparse is not None:
            return self._sampled(sigma, assumed, prior)
        sigma, assumed = np.broadcast_arrays(sigma, assumed)
        return self._at_levels(sigma, assumed, prior)

    def _at_levels(self, sigma: Floats, assumed: Floats, prior: Source) -> Floats:
        """The losses (4, ...) of features that are alike; of many levels, those of some between which they lie."""
        pairs, place = np.unique(np.stack([sigma.ravel(), assumed.ravel()]), axis=1, return_inverse=True)
        one = np.ptp(pairs[1]) == 0
        if len(pairs[0]) <= _MOST_LEVELS or not (one or np.array_equal(*pairs)):
            losses = np.transpose([self._losses(float(a), float(b), prior) for a, b in pairs.T])
            return losses[:, place.ravel()].reshape(4, *sigma.shape)
        low, high = pairs[0][0], pairs[0][-1]
        levels = np.geomspace(low, high, max(4, math.ceil(math.log(high / low) / _LEVEL_STEP)))
        losses = np.transpose(
            [self._losses(float(level), float(pairs[1][0] if one else level), prior) for level in levels]
        )
        # What is 0 to all digits stays so.
        logs = np.log(np.maximum(losses, 1e-300))
        return np.exp(PchipInterpolator(np.log(levels), logs, axis=1)(np.log(np.clip(sigma, low, high))))

    def _losses(self, sigma: float, assumed: float, prior: Source) -> Floats:
        """The losses (4,) of features that are alike, at one level.

        The log ratios of the other members are independent, so their sum has the convolution of their
        distributions, which are followed on a grid.
        """
        members = prior.members if isinstance(prior, Groups) else prior
        y, on, off = (np.ravel(part) for part in self.members.observations(np.array(sigma)))
        places = torch.from_numpy(y)
        _, mean, variance = self._looks(self.members, places, sigma)
        ratio, guess, doubt = self._looks(members, places, assumed)
        least, log_odds = float(ratio.min()), float(logit(prior.p))
        # A member that says more than this leaves no doubt, whatever the others say.
        ratio = np.minimum(ratio, self.size * abs(least) + _CERTAIN - log_odds)
        start = np.floor(least / _STEP)
        place = ratio / _STEP - start
        below = place.astype(np.int64)
        length = int(below.max()) + 2
        losses = []
        for weights, first_moment, second_moment in ((on, mean, variance + mean**2), (off, 0.0, 0.0)):
            share = place - below
            density = np.bincount(below, weights * (1 - share), length)
            density += np.bincount(below + 1, weights * share, length)
            density = density / density.sum()
            others = density
            for _ in range(self.size - 2):
                others = np.maximum(fftconvolve(others, density), 0.0)
            # E pi and E pi^2 over the others, for this member's log ratios on the grid.
            pi = expit((np.arange(len(others) + length - 1) + self.size * start) * _STEP + log_odds)
            once, twice = (
                np.interp(place, np.arange(length), fftconvolve(power, others[::-1], mode="valid"))
                for power in (pi, pi**2)
            )
            losses.append(weights @ (second_moment - 2 * once * first_moment * guess + twice * guess**2))
            losses.append(weights @ (once * (doubt + guess**2) - twice * guess**2))
        return np.maximum(np.array(losses)[[0, 2, 1, 3]], 0.0)

    @staticmethod
    def _looks(members: Source, places: Tensor, sigma: float) -> list[Floats]:
        """The log ratio, mean and variance of a member given that it is active and seen at these places (k,)."""
        return [part.numpy() for part in members._active_posterior(places, torch.full_like(places, sigma))]

    def _sampled(self, sigma: Floats, assumed: Floats, prior: Source) -> Floats:
        """As `mismatch`, from looks that are drawn, always the same ones."""
        n = self.n_sparse or self.size * 512
        alike = self.n_sparse is None
        levels, believed = (
            (np.broadcast_to(part[..., None] if alike else part, (*np.shape(part)[: None if alike else -1], n)))
            for part in np.broadcast_arrays(sigma, assumed)
        )
        shape = levels.shape[:-1]
        looks = max(2, min(_LOOKS * (64 if alike else 1), _MOST_LOOKS // n))
        generator = torch.Generator().manual_seed(0)
        blank = torch.empty(looks, n, dtype=torch.float64)
        x = self.members._draw(blank.shape, generator, blank)
        z = torch.randn(blank.shape, generator=generator, dtype=torch.float64)
        losses = np.empty((4, *shape, n))
        for place in np.ndindex(shape):
            noise, taken = (torch.from_numpy(np.array(part[place])) for part in (levels, believed))
            for row, truth in enumerate((x, torch.zeros_like(x))):
                guess, doubt = prior.denoise(truth + noise * z, taken.expand(n))
                losses[(row, *place)] = (guess - truth).square().mean(0).numpy()
                losses[(row + 2, *place)] = doubt.mean(0).numpy()
        return losses.mean(-1) if alike else losses
