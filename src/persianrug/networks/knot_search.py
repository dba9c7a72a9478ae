"""Search for knots: gradient descent from many random starts at once, chosen by the exact law.

All starts of one size (k, d) are one tensor program, which minimises the mean squared error of max(R (M x +
sigma z) + b, 0) on fresh samples over M, R and b, with sigma the noise that the weave leaves on a channel. What
comes out is judged by the law of `knots.law`, which needs no samples: so a start cannot win by lucky ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from persianrug._support import checks
from persianrug.decoders import ReLU
from persianrug.encoders import noise_level
from persianrug.knots import LARGEST_ENTRY, Found, Knot, named, nearest
from persianrug.sources import SparseUniform

# Features of a knot that are searched for; larger ones end in worse minima, and there are small ones as good.
_MOST_FEATURES = 64
_FEW_FEATURES = 40
_MOST_SIZES = 8
# Some that waste channels.
_LOOSE = [(3, 2), (4, 1), (8, 2), (12, 3)]
# The starts of one size: few to compare sizes, more of the best sizes, of which some go on.
_FEW_STARTS, _STARTS = 12, 32
_KEPT = 3
# Samples of a step: vectors with an active feature, and without any, where there is noise.
_ACTIVE = 256
_SILENT = 64
# Shares of the time: for all sizes, for the best of them, for the best knots.
_SHARES = (0.3, 0.4, 0.3)
_BEST_SIZES = 3
_POLISHED = 4
# Steps that are timed to see how many fit.
_TIMED = 5
_RATE = 0.03
# Features of a knot that are tried first, and the time that another size takes.
_LIKELY = 12
_SECONDS = 4.0
_LONGEST = 86400.0


def sizes(ratio: float) -> list[tuple[int, int]]:
    """Features and channels (k, d) that are tried: as many features as d channels bear, and some looser ones."""
    ratio = checks.probability("ratio", ratio)
    tight = [(math.floor(d / ratio + 1e-9), d) for d in range(1, _MOST_FEATURES)]
    # Channels to spare are noise less; those that waste much of one are left out.
    tight = [(k, d) for k, d in tight if d < k <= _MOST_FEATURES and ratio * k > 0.9 * d]
    loose = [(k, d) for k, d in _LOOSE if d >= ratio * k]
    few = [size for size in tight if size[0] <= _FEW_FEATURES][:_MOST_SIZES]
    return sorted({*(few or tight[:3]), *loose})


def search(
    p: float,
    ratio: float,
    *,
    budget: float = 60.0,
    seed: int = 0,
    progress: Callable[[float], object] = lambda _share: None,
) -> Found:
    """The best knot that is found in the time, for features uniform on [0, 1]; at least as good as those by name.

    The number of steps depends on the time, so that runs differ; what they return is judged exactly.

    Parameters
    ----------
    p : float from 1e-30 to 1
    ratio : float in (0, 1)
    budget : float > 0
        Seconds, at most a day.
    seed : int
    progress : function
        Called with the share of the time that is gone.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    source = SparseUniform(checks.rate("p", p))
    budget = min(checks.positive("budget", budget), _LONGEST)
    if checks.probability("ratio", ratio) == 1:
        raise ValueError("ratio is 1.0; allowed: a number in (0, 1), there is nothing to be tied at 1")
    generator = torch.Generator().manual_seed(checks.seed(seed))
    # What was found nearby is where the search goes on from.
    known = nearest(p, ratio)
    sigma = noise_level(source.variance, ratio)
    rug = float(ReLU().tune(source, sigma).risk(source, sigma))
    fitting = [knot for knot in [*named().values(), *(one.knot for one in known)] if knot.fits(ratio)]
    found = [(knot.law(source, knot.noise(source, ratio)), knot) for knot in fitting]
    hows = {id(knot): "by name" for knot in fitting} | {id(one.knot): one.how for one in known}
    began = time.perf_counter()

    def until(share: float) -> float:
        return budget * share - (time.perf_counter() - began)

    def report() -> None:
        progress(min((time.perf_counter() - began) / budget, 1.0))

    def judge(starts: _Starts, how: str, most: int) -> None:
        for loss, knot in starts.best(source, ratio, most):
            hows[id(knot)] = how
            found.append((loss, knot))
        report()

    # In little time fewer sizes, of the features that are most often best.
    tried = sorted(sizes(ratio), key=lambda size: abs(math.log(size[0] / _LIKELY)))
    tried = tried[: max(int(budget / _SECONDS), 1)]
    reached: dict[tuple[int, int], float] = {}
    for left, size in zip(range(len(tried), 0, -1), tried, strict=True):
        starts = _Starts.random(*size, _FEW_STARTS, source, ratio, generator)
        starts.descend(until(_SHARES[0]) / left, _ACTIVE, _RATE)
        reached[size] = starts.least()
        report()
    best = sorted(reached, key=lambda size: reached[size])[:_BEST_SIZES]
    for left, size in zip(range(len(best), 0, -1), best, strict=True):
        starts = _Starts.random(*size, _STARTS, source, ratio, generator)
        starts.descend(until(_SHARES[0] + _SHARES[1]) / left, _ACTIVE, _RATE)
        judge(starts, "gradient descent from random starts", _KEPT)
    found.sort(key=lambda one: one[0])
    polished = [knot for _, knot in found if hows[id(knot)] != "by name"][:_POLISHED]
    for left, knot in zip(range(len(polished), 0, -1), polished, strict=True):
        starts = _Starts.of(knot, source, ratio, generator)
        starts.descend(until(1.0) / left, 16 * _ACTIVE, 0.1 * _RATE)
        judge(starts, "gradient descent from random starts, polished", 1)
    loss, knot = min(found, key=lambda one: one[0])
    how = hows[id(knot)]
    if how != "by name":
        name = f"found-{knot.features}-{knot.channels}-p{p:g}-r{ratio:g}"
        knot = Knot(name, knot.matrix, knot.readout)
    return Found(knot, p, ratio, loss, rug, how)


class _Starts:
    """Knots (B, d, k), their readouts and biases, that are improved together."""

    def __init__(
        self, parts: list[Tensor], source: SparseUniform, ratio: float, generator: torch.Generator
    ) -> None:
        self.parts = [part.requires_grad_() for part in parts]
        self.source, self.generator = source, generator
        d, k = parts[0].shape[1:]
        # Noise on a channel, per variance of what is in it.
        self.noise = max(d / (ratio * k) - 1, 0.0)
        self.noise = 0.0 if self.noise < 1e-9 else self.noise

    @classmethod
    def random(
        cls, k: int, d: int, count: int, source: SparseUniform, ratio: float, generator: torch.Generator
    ) -> _Starts:
        matrix = torch.randn(count, d, k, generator=generator)
        matrix /= matrix.norm(dim=1, keepdim=True)
        return cls([matrix, matrix.mT.clone(), torch.full((count, 1, k), -0.1)], source, ratio, generator)

    @classmethod
    def of(cls, knot: Knot, source: SparseUniform, ratio: float, generator: torch.Generator) -> _Starts:
        views = knot.views(source, knot.noise(source, ratio))
        tuned = np.array([view.best_relu for view in views])
        # The bias is that of an estimate which is centred on the source's mean.
        bias = tuned[:, 1] - tuned[:, 0] * source.mean * (knot.product.sum(axis=1) - 1)
        parts = [knot.matrix, knot.readout * tuned[:, :1], bias[None]]
        return cls([torch.tensor(part, dtype=torch.float32)[None] for part in parts], source, ratio, generator)

    def descend(self, seconds: float, samples: int, rate: float) -> None:
        """Adam, whose rate falls to 0 like a cosine over as many steps as fit into the time."""
        optimiser = torch.optim.Adam(self.parts, lr=rate, betas=(0.9, 0.99))
        began, steps, step = time.perf_counter(), _TIMED, 0
        while step < steps:
            loss = self._losses(*self._sample(samples)).sum()
            optimiser.zero_grad()
            loss.backward()
            falling = 0.5 * (1 + math.cos(math.pi * step / steps)) if step > _TIMED else 1.0
            for group in optimiser.param_groups:
                group["lr"] = rate * falling
            optimiser.step()
            step += 1
            if step == _TIMED:
                steps = max(int(seconds / (time.perf_counter() - began) * _TIMED), _TIMED)

    def _losses(self, x: Tensor, weights: Tensor) -> Tensor:
        """The mean squared error of every start on the samples x (S, k), (B,)."""
        matrix, readout, bias = self.parts
        code = x @ matrix.mT
        if self.noise:
            power = matrix.square().sum(dim=(1, 2), keepdim=True) / matrix.shape[1]
            normal = torch.randn(1, *code.shape[1:], generator=self.generator)
            code = code + (self.noise * self.source.variance * power).sqrt() * normal
        count, rows, k = len(bias), len(x), x.shape[1]
        x_hat = torch.baddbmm(bias.expand(count, rows, k), code, readout.mT).relu()
        return ((x_hat - x).square().mean(dim=2) * weights).sum(dim=1)

    def _sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Samples and their weights: of vectors with an active feature, and of the vector with none."""
        k, p = self.parts[0].shape[2], self.source.p
        silent = (1 - p) ** k
        none = _SILENT if self.noise else 1
        place = torch.arange(k)
        first = torch.zeros(count, 1)
        if p < 1:
            # The first active feature, given that there is one.
            chance = torch.rand(count, 1, generator=self.generator)
            first = (torch.log1p(-chance * (1 - silent)) / math.log1p(-p)).floor().clamp(0, k - 1)
        later = (torch.rand(count, k, generator=self.generator) < p) & (place > first)
        x = torch.rand(count, k, generator=self.generator) * (later | (place == first))
        weights = torch.cat([torch.full((count,), (1 - silent) / count), torch.full((none,), silent / none)])
        return torch.cat([x, torch.zeros(none, k)]), weights

    def least(self) -> float:
        """The least loss of a start, on fresh samples."""
        with torch.no_grad():
            return float(self._losses(*self._sample(4096)).nan_to_num(nan=math.inf).min())

    def best(self, source: SparseUniform, ratio: float, most: int) -> list[tuple[float, Knot]]:
        """Laws and knots of the best starts, by fresh samples, ascending in the law."""
        with torch.no_grad():
            losses = self._losses(*self._sample(4096))
            chosen = losses.argsort()[:most]
            parts = [part[chosen].double().numpy() for part in self.parts[:2]]
        knots = [_knot(matrix, readout) for matrix, readout in zip(*parts, strict=True)]
        laws = [(knot.law(source, knot.noise(source, ratio)), knot) for knot in knots if knot is not None]
        return sorted(laws, key=lambda one: one[0])


def _knot(matrix: np.ndarray, readout: np.ndarray) -> Knot | None:
    """A knot of these matrices, if it has a law; features that were given up are next to silent in it."""
    if not (np.isfinite(matrix).all() and np.isfinite(readout).all()):
        return None
    # Of one size, so that numbers of it are about 1.
    unit = np.sqrt(np.mean(np.sum(matrix**2, axis=0)))
    matrix, readout = matrix / unit, readout * unit
    silent = np.einsum("kd,dk->k", readout, matrix) < 1e-3
    matrix[:, silent] = 1e-3 / np.sqrt(len(matrix))
    readout[silent] = matrix[:, silent].T
    knot = Knot("found", matrix, readout)
    return knot if np.abs(knot.product).max() < LARGEST_ENTRY else None
