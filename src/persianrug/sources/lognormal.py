"""The source of log-normal amplitudes, whose tail is heavier than that of any normal one.

The posterior has no closed form. With y = u + sigma z it is proportional to exp(-E), where

    E = (log(u) / shape)^2 / 2 + (u - y)^2 / (2 sigma^2),

in units of the scale. In t with u = (sigma / k) log(1 + exp(k t)), k the shape but at most 1, both parts change
over distances of about 1 wherever they are: below sigma / k steps of t are steps of log u, and above they are
steps of sigma. So the rule of equal steps, which converges exponentially, takes a fixed number of nodes: from end
to end of where E is within a limit of its least value, which Newton's iterations find. E may have two minima,
about the median and about y, where a large amplitude is as likely as much noise; the nodes span both.

Why a quadrature: the posterior depends on three numbers, y, sigma and the shape, and a table of these with cubic
interpolation reads 64 places of memory for each result, of which `denoise` promises nine digits; a mixture of
normal amplitudes that is as exact for every shape needs as many terms, each as dear, as there are nodes. In single
precision 24 nodes do, in double 48, in about 50 times a truncated normal amplitude's time. Every entry is computed
from its own y and sigma alone, in the same order, whatever rows it comes with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug._support.quadrature import normal_pdf, panels
from persianrug.sources.base import Each, Floats
from persianrug.sources.moments import FeatureMoments
from persianrug.sources.posterior import LOG_SQRT_2PI, Moments, inverse_ratio
from persianrug.sources.scaled import Scaled

# Beyond, amplitudes hardly vary, or sixth moments leave the range of float64.
LEAST_SHAPE, MOST_SHAPE = 0.01, 3.0

# The largest k, and what panels in log u are at most.
_BEND, _PANEL = 1.0, 0.75
# In units of sigma, y is taken to be no larger where log Lambda, and no other result, depends on that.
_MOST = {torch.float32: 1e15, torch.float64: 1e100}
# Entries times nodes that are done at a time stay in cache.
_AT_A_TIME = 1 << 17


class _Effort(NamedTuple):
    """How much is done: nodes; how far E goes from its least value; steps to that value, and to the ends."""

    nodes: int
    reach: float
    newton: int
    ends: int


_SINGLE, _DOUBLE, _EXACT = _Effort(24, 16.0, 3, 3), _Effort(48, 23.0, 4, 3), _Effort(256, 42.0, 24, 12)


@dataclass(frozen=True, eq=False)
class SparseLogNormal(Scaled):
    """Active features scale * exp(shape * g) with standard normal g; `scale` is the median.

    The shape is from 0.01 to 3, for coefficients of variation from 0.01 to 90.
    """

    shape: Each = 1.0

    name = "lognormal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checks.each("shape", self.shape, _checked_shape))
        super().__post_init__()

    @classmethod
    def fit(cls, rows: object) -> Self:
        """Fit every feature to its column of data, as `SparseTruncatedNormal.fit`."""
        return cls.of_moments(FeatureMoments.of(rows))

    @classmethod
    def of_moments(cls, moments: FeatureMoments) -> Self:
        """As `fit`, to data whose moments are known; ValueError as there."""
        if moments.least < 0:
            raise ValueError("rows holds negative numbers; allowed: numbers >= 0, or SparseGaussian.fit")
        return cls.of_amplitudes(*moments.shrunk())

    @classmethod
    def of_amplitudes(cls, p: Each, mean: Each, deviation: Each) -> Self:
        """Of features whose amplitudes have these means and deviations, as far as the shape is allowed."""
        shape = np.clip(np.sqrt(np.log1p((deviation / mean) ** 2)), LEAST_SHAPE, MOST_SHAPE)
        return cls(p, (mean * np.exp(-0.5 * shape**2))[()], shape[()])

    def _shapes(self) -> dict[str, Floats]:
        return {"shape": np.log(self._parts()["shape"])}

    def _of_shapes(self, scale: Each, shapes: dict[str, Each]) -> dict[str, Each]:  # noqa: ARG002
        return {"shape": np.clip(np.exp(shapes["shape"]), LEAST_SHAPE, MOST_SHAPE)}

    def _breaks(self) -> Floats:
        # In log u; the sixth power moves the centre of the mass by 6 deviations.
        shape = np.asarray(self.shape)[..., None]
        most = float(np.max(shape))
        step = min(1.0, _PANEL / most)
        count = math.ceil((19.0 + 6 * most) / step)
        return np.exp(shape * (-9.5 + (19.0 + 6 * shape) * np.linspace(0, 1, count + 1)))

    def _density(self, u: Floats) -> Floats:
        shape = np.asarray(self.shape)[..., None]
        return normal_pdf(np.log(u) / shape) / (shape * u)

    def _observed(self, y: Floats, sigma: Floats) -> Floats:
        shape = np.asarray(self.shape)[..., None]
        places = [torch.from_numpy(np.array(part)) for part in np.broadcast_arrays(y, sigma, shape)]
        log_mass = _posterior(places[0], places[1], places[2], _DOUBLE, against_off=False)[0]
        return np.exp(log_mass.numpy()) / (math.sqrt(2 * math.pi) * sigma)

    def observations(self, sigma: Floats) -> tuple[Floats, Floats, Floats]:
        # Panels of one sigma about 0, and where amplitudes can be, of one sigma or of a part of y.
        scale, shape, reach = np.asarray(self.scale), np.asarray(self.shape), self._reach
        s, shape = np.broadcast_arrays(sigma / scale, shape)
        part = np.minimum(shape, _PANEL)
        low = np.maximum(reach * s, np.exp(-9 * shape) - reach * s)
        high = np.exp(shape * (9 + 4 * shape)) + reach * s
        first, last = (np.arcsinh(part * end / s) / part for end in (low, high))
        count = math.ceil(float(np.max(last - first)))
        steps = first[..., None] + (last - first)[..., None] * np.linspace(0, 1, count + 1)
        above = (s / part)[..., None] * np.sinh(part[..., None] * steps)
        parts = [panels(s[..., None] * np.arange(-reach, reach + 1.0)), panels(above)]
        y, w = (np.concatenate(pair, axis=-1) for pair in zip(*parts, strict=True))
        s = s[..., None]
        return scale[..., None] * y, w * self._observed(y, s), w * normal_pdf(y / s) / s

    def _standard_moment(self, k: int) -> Each:
        return np.exp(0.5 * (k * self.shape) ** 2)

    @property
    def _standard_variance(self) -> Each:
        return np.exp(self.shape**2) * np.expm1(self.shape**2)

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        out = like.new_empty(shape).normal_(generator=generator).mul_(place(self.shape, like)).exp_()
        return out.mul_(place(self.scale, like))

    def _standard_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        return _posterior(y, sigma, place(self.shape, y), _EXACT)

    def _standard_active(self, y: Tensor, sigma: Tensor) -> Moments:
        effort = _SINGLE if y.dtype == torch.float32 else _DOUBLE
        log_ratio, mean, variance = _posterior(y, sigma, place(self.shape, y), effort)
        return inverse_ratio(-log_ratio), mean, variance


def _checked_shape(name: str, value: float) -> float:
    number = checks.positive(name, value)
    if not LEAST_SHAPE <= number <= MOST_SHAPE:
        allowed = f"a number from {LEAST_SHAPE:g} to {MOST_SHAPE:g}"
        raise ValueError(f"{name} is {checks.shown(value)}; allowed: {allowed}")
    return number


def _posterior(y: Tensor, sigma: Tensor, shape: Tensor, effort: _Effort, *, against_off: bool = True) -> Moments:
    """The log of Lambda(y), or of Lambda exp(-y^2 / 2 sigma^2), and mean and variance of u, of scale 1."""
    wide = torch.broadcast_tensors(y, sigma, shape)
    y, sigma, shape = (part.reshape(-1) for part in wide)
    if not len(y):
        return wide[0] * 0, wide[0] * 0, wide[0] * 0
    step = max(1, _AT_A_TIME // effort.nodes)
    blocks = [slice(k, k + step) for k in range(0, len(y), step)]
    found = [_entries(y[block], sigma[block], shape[block], effort, against_off) for block in blocks]
    one, two, three = (
        (parts[0] if len(parts) == 1 else torch.cat(parts)).view(wide[0].shape)
        for parts in zip(*found, strict=True)
    )
    return one, two, three


def _entries(y: Tensor, sigma: Tensor, shape: Tensor, effort: _Effort, against_off: bool) -> Moments:
    with torch.no_grad():
        grid = _Grid(y, sigma, shape)
        energy, mode = grid.least(effort.newton)
        low, high = grid.ends(energy + effort.reach, effort.ends)
        step = ((high - low) / (effort.nodes - 1)).clamp(min=1e-3)
        centre, shift = (part[0] for part in (grid.at(mode[None])[:2]))
        nodes = torch.arange(effort.nodes, dtype=y.dtype, device=y.device)[:, None]
        w, beyond, deviations, slope = grid.at(torch.addcmul(low, nodes, step))
        # Bounded, since far from all that is likely the least value may be missed.
        mass = grid.energy(beyond, deviations).neg_().add_(energy).clamp_(max=60.0).exp_().mul_(slope / w)
        offset = beyond - shift
        # exp(uy / sigma^2 - u^2 / 2 sigma^2) at the mode, without the squares that cancel.
        top = -0.5 * grid.deviations(centre).square()
        gained = centre * (grid.q - grid.n - 0.5 * centre) if against_off else -0.5 * (shift + grid.n).square()
        constant = top + gained + torch.log(step) - torch.log(shape) - LOG_SQRT_2PI
    if torch.is_grad_enabled() and (y.requires_grad or sigma.requires_grad):
        # The nodes stay where they are; only the likelihood changes.
        u, square = w * sigma.detach(), (y / sigma).square()
        exponent = -0.5 * ((u - y) / sigma).square()
        mass = mass * torch.exp(exponent - exponent.detach())
        constant = constant + 0.5 * (square - square.detach())
    total = _sum(mass)
    first = _sum(mass * offset) / total
    second = _sum(mass * (offset - first.detach()).square()) / total - (first - first.detach()).square()
    scale = sigma.detach()
    beyond_most = y.detach().clamp(min=0) - scale * grid.q
    return constant + torch.log(total), scale * (centre + first) + beyond_most, scale * scale * second


def _sum(parts: Tensor) -> Tensor:
    """The sum over the first axis, always in the same order."""
    while len(parts) > 1:
        half = len(parts) // 2
        added = parts[:half] + parts[half : 2 * half]
        parts = added if len(parts) % 2 == 0 else torch.cat([added, parts[2 * half :]])
    return parts[0]


class _Grid:
    """Places u = (sigma / k) log(1 + exp(k t)) of entries (n,), by d = t - max(y, 0) / sigma."""

    def __init__(self, y: Tensor, sigma: Tensor, shape: Tensor) -> None:
        self.shape, self.bend = shape, shape.clamp(max=_BEND)
        self.log_sigma = torch.log(sigma)
        # Squares of these are to stay in range.
        most = _MOST[y.dtype]
        self.q, self.n = ((side * y / sigma).clamp(0, most) for side in (1, -1))

    def at(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u / sigma, that without max(y, 0) / sigma, log(u) / shape, and the derivative of the first."""
        t = d + self.q
        # Branches take longer than what they save.
        rest = torch.mul(t, -self.bend).clamp_(-85.0, 85.0).exp_()
        bent = torch.minimum(rest, rest.reciprocal()).log1p_().div_(self.bend)
        w = t.clamp_(min=0).add_(bent)
        slope = rest.add_(1).reciprocal_()
        return w, torch.maximum(d, -self.q) + bent, self.deviations(w), slope

    def deviations(self, w: Tensor) -> Tensor:
        return torch.log(w).add_(self.log_sigma).div_(self.shape)

    def of(self, w: Tensor, beyond: Tensor) -> Tensor:
        """The d of a place, from u / sigma and that without max(y, 0) / sigma."""
        tiny = torch.finfo(w.dtype).tiny
        return beyond + torch.log(-torch.expm1(-self.bend * w.clamp(min=1e3 * tiny))) / self.bend

    def energy(self, beyond: Tensor, deviations: Tensor) -> Tensor:
        """E, for y < 0 without y^2 / 2 sigma^2."""
        return (0.5 * deviations).mul_(deviations).addcmul_(beyond, torch.add(self.n, beyond, alpha=0.5))

    def least(self, steps: int) -> tuple[Tensor, Tensor]:
        """The least of E, and where that is: from y on, and from the median."""
        median = torch.exp(-self.log_sigma)
        # Near y the slopes of both parts are equal where w (w - y / sigma) = -log(u) / shape^2.
        w = torch.maximum(torch.minimum(median, torch.ones_like(median)), self.q)
        for _ in range(3):
            pull = -self.deviations(w) / self.shape
            gap = self.q - self.n
            root = torch.sqrt((gap * gap + 4 * pull).clamp(min=0))
            # The larger root, of numbers of one sign.
            larger = torch.where(gap > 0, 0.5 * (gap + root), 2 * pull / (root - gap).clamp(min=1e-30))
            w = torch.where(larger > 0, larger, w)
        best = self._newton(self.of(w, w - self.q), steps)
        other = self._newton(self.of(median, median - self.q), steps)
        nearer = other[0] < best[0]
        return torch.where(nearer, other[0], best[0]), torch.where(nearer, other[1], best[1])

    def _newton(self, d: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """By Gauss and Newton, since E is a sum of two squares."""
        for _ in range(steps):
            w, beyond, deviations, slope = self.at(d)
            own = slope / (w * self.shape)
            down = (deviations * own + (beyond + self.n) * slope) / (own * own + slope * slope)
            d = d - down.clamp(-8, 8)
        _, beyond, deviations, _ = self.at(d)
        return self.energy(beyond, deviations), d

    def ends(self, top: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Between which E is below `top`: each part bounds the place, and at this bound the other part."""
        median = torch.exp(-self.log_sigma)
        lesser, greater = torch.minimum(median, self.q), torch.maximum(median, self.q)
        # Twice what either part is at least, beyond the lesser and the greater of y and the median.
        own_below, own_above = self.deviations(lesser.clamp(min=1e-30)), self.deviations(greater)
        own_below = torch.where(self.q < median, own_below, 0.0).square() * (self.q > 0)
        own_above = torch.where(self.q > median, own_above, 0.0).square()
        noise_below, noise_above = self._noise(lesser - self.q) * (self.n <= 0), self._noise(greater - self.q)
        own, noise = own_below, noise_below
        for _ in range(steps):
            reach = torch.sqrt((2 * top - own).clamp(min=0))
            by_noise = (self.q - reach).clamp(min=0)
            spread = self.shape * torch.sqrt((2 * top - noise).clamp(min=0))
            by_prior = torch.exp((-spread - self.log_sigma).clamp(min=-85.0))
            bound = torch.maximum(by_noise, by_prior)
            own = torch.where(bound > median, self.deviations(bound).square(), own_below)
            noise = torch.where(bound > self.q, self._noise(bound - self.q), noise_below)
        noisy = by_noise > by_prior
        low = self.of(bound, torch.where(noisy, -reach, by_prior - self.q))
        own, noise = own_above, noise_above
        for _ in range(steps):
            room = (2 * top - own).clamp(min=0)
            reach = room / (self.n + torch.sqrt(self.n * self.n + room)).clamp(min=1e-15)
            spread = self.shape * torch.sqrt((2 * top - noise).clamp(min=0))
            by_prior = torch.exp((spread - self.log_sigma).clamp(max=85.0))
            bound = torch.minimum(self.q + reach, by_prior)
            own = torch.where(bound < median, self.deviations(bound.clamp(min=1e-30)).square(), own_above)
            noise = torch.where(bound < self.q, self._noise(bound - self.q), noise_above)
        noisy = self.q + reach < by_prior
        high = self.of(bound, torch.where(noisy, reach, by_prior - self.q))
        return low, high

    def _noise(self, beyond: Tensor) -> Tensor:
        return beyond * (beyond + 2 * self.n)
