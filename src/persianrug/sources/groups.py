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
from typing import Any, cast

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.special import expit, logit
from torch import Tensor

from persianrug._support import checks
from persianrug._support.threads import one_thread
from persianrug.sources.base import Each, Floats, Nodes, Source
from persianrug.sources.posterior import LEAST_RATIO, Moments, inverse_ratio

# Step of the grid on which the distribution of log Lambda is followed, from where on pi is 1, and the least chance
# that counts.
_STEP, _CERTAIN, _NEVER = 0.05, 45.0, 1e-100

# Losses of more levels than this are interpolated between levels so far apart in their logarithm.
_MOST_LEVELS, _LEVEL_STEP = 40, 0.02

# Looks at every feature, active and off, that losses are averages of where features differ, and at most at all.
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
        if checks.instance("members", self.members, Source).together > 1:
            raise ValueError("members is a source of groups; allowed: one of independent features")
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

    def always(self) -> Source:
        return replace(self, members=self.members.always())

    # What the others of a group say.

    def _fill(self, out: Tensor, generator: torch.Generator | None) -> None:
        batch, n_sparse = out.shape
        groups = self._groups(n_sparse)
        p = torch.tensor(self.p, dtype=torch.float64, device=out.device)
        p = p.view(groups, self.size)[:, 0] if p.ndim else p
        drawn = torch.rand(batch, groups, generator=generator, dtype=torch.float64, device=out.device)
        active = (drawn < p).repeat_interleave(self.size, dim=1)
        torch.mul(self._draw(out.shape, generator, out), active, out=out)

    def _of_groups(self, log_ratio: Tensor, *inputs: Tensor) -> Tensor:
        """The sum over its group, for every member."""
        shape = torch.broadcast_shapes(*(part.shape for part in inputs))
        if not shape:
            raise ValueError(f"y is one number; allowed in groups of {self.size}: an axis of features")
        split = (*shape[:-1], self._groups(shape[-1]), self.size)
        return log_ratio.expand(shape).reshape(split).sum(-1, keepdim=True).expand(split).reshape(shape)

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        log_ratio, mean, variance = self.members._active_posterior(y, sigma)
        return self._of_groups(log_ratio, y, sigma), mean, variance

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        inverse, mean, variance = self.members.active(y, sigma)
        # A ratio beyond all numbers stays so, and has no gradient.
        log_inverse = inverse.clamp(min=torch.finfo(inverse.dtype).tiny).log()
        log_inverse = log_inverse.masked_fill(inverse == 0, -torch.inf)
        return inverse_ratio(self._of_groups(log_inverse, y, sigma)), mean, variance

    @one_thread()
    def mismatch(self, sigma: Floats, assumed: Floats, prior: Source | None = None) -> Floats:
        prior = prior or self
        if prior.together == 1:
            return self.members.mismatch(sigma, assumed, prior)
        if prior.together != self.size:
            raise ValueError(f"prior has groups of {prior.together}; allowed with this source: of {self.size}")
        sigma, assumed = np.broadcast_arrays(sigma, assumed)
        if self.n_sparse is not None:
            return self._sampled(sigma, assumed, prior)
        if prior.n_sparse is not None:
            return replace(self, members=self.members.repeated(prior.n_sparse))._sampled(sigma, assumed, prior)
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
        if prior.p == 1:
            return self.members.mismatch(np.array(sigma), np.array(assumed), members)
        y, on, off = (np.ravel(part) for part in self.members.observations(np.array(sigma)))
        places = torch.from_numpy(y)
        _, mean, variance = self._looks(self.members, places, sigma)
        ratio, guess, doubt = self._looks(members, places, assumed)
        # As `active` has it.
        ratio, log_odds = np.maximum(ratio, LEAST_RATIO), float(logit(prior.p))
        # Members that say more than this leave no doubt, whatever the others say.
        most = self.size * abs(float(ratio.min())) + _CERTAIN - log_odds
        start, end = math.floor(float(ratio.min()) / _STEP) - 1, math.ceil(most / _STEP)
        place, length = np.minimum(ratio, most) / _STEP - start, end - start + 2
        nearest = np.rint(place).astype(np.int64)
        gap = place - nearest
        losses = []
        for weights, first_moment, second_moment in ((on, mean, variance + mean**2), (off, 0.0, 0.0)):
            # On three places each, which keep mean and variance.
            density = np.bincount(nearest, weights * (1 - gap**2), length)
            for side in (-1, 1):
                density += np.bincount(nearest + side, weights * (gap + side) * gap / 2, length)
            others = _sum_of(self.size - 1, density / density.sum(), start, end)
            # E pi and E pi^2 over the others, for this member's log ratios, of which both are nearly exponential.
            pi = expit((np.arange(len(others) + length - 1) + self.size * start) * _STEP + log_odds)
            once, twice = (
                np.exp(np.interp(place, np.arange(length), np.log(np.maximum(average, 1e-300))))
                for average in (np.convolve(power, others[::-1], mode="valid") for power in (pi, pi**2))
            )
            losses.append(weights @ (second_moment - 2 * once * first_moment * guess + twice * guess**2))
            losses.append(weights @ (once * (doubt + guess**2) - twice * guess**2))
        return np.maximum(np.array(losses)[[0, 2, 1, 3]], 0.0)

    @staticmethod
    def _looks(members: Source, places: Tensor, sigma: float) -> list[Floats]:
        """The log ratio, mean and variance of a member given that it is active and seen at these places (k,)."""
        return [part.numpy() for part in members._active_posterior(places, torch.full_like(places, sigma))]

    def _sampled(self, sigma: Floats, assumed: Floats, prior: Source) -> Floats:
        """As `mismatch`, from looks that are drawn, always the same ones.

        Half of them are at active features, half at features that are off, and each counts for both as far as it
        is likely of them: Lambda / (1 + Lambda) and 1 / (1 + Lambda), twice.
        """
        n = cast(int, self.n_sparse)
        shape = (*sigma.shape[:-1], n)
        looks = max(2, min(_LOOKS, _MOST_LOOKS // n))
        generator = torch.Generator().manual_seed(0)
        x = torch.zeros(2 * looks, n, dtype=torch.float64)
        x[:looks] = self.members._draw(x[:looks].shape, generator, x)
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        losses = np.empty((4, *shape))
        for place in np.ndindex(shape[:-1]):
            noise, taken = (
                torch.from_numpy(np.array(np.broadcast_to(part, shape)[place])) for part in (sigma, assumed)
            )
            y = x + noise * z
            inverse, mean, variance = self.active(y, noise)
            guess, doubt = prior.denoise(y, taken)
            there, none = 1 / (1 + inverse), inverse / (1 + inverse)
            parts = there * (variance + (mean - guess) ** 2), none * guess**2, there * doubt, none * doubt
            losses[(slice(None), *place)] = 2 * torch.stack([part.mean(0) for part in parts]).numpy()
        return losses


def _sum_of(count: int, density: Floats, start: int, end: int) -> Floats:
    """The distribution of the sum of so many, on the grid from count * start to end, where all beyond counts.

    By products, as transforms have no digits of chances that are small beside others.
    """
    total, terms = density, 1
    for bit in bin(count)[3:]:
        total, terms = _added(total, total, end - 2 * terms * start), 2 * terms
        if bit == "1":
            total, terms = _added(total, density, end - (terms + 1) * start), terms + 1
    return total


def _added(one: Floats, other: Floats, last: int) -> Floats:
    (a, b), (c, d) = (np.flatnonzero(abs(part) > _NEVER)[[0, -1]] for part in (one, other))
    total = np.zeros(max(b + d, last) + 1)
    total[a + c : b + d + 1] = np.convolve(one[a : b + 1], other[c : d + 1])
    total[last] = total[last:].sum()
    return total[: last + 1]
