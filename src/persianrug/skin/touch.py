"""What is known of a block's taxels before a frame and after it, and the iteration between the code and that.

The iteration is OAMP (see decoders/oamp.py) with the posterior of posterior.py. Its first estimate is what is
expected, so that where little has changed little is left to find. The innovation, the energy of what the code says
beyond that, tells how far touches have moved at all, before anything is known of where.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from persianrug.skin.hadamard import Rows
from persianrug.skin.posterior import posterior

Floats = NDArray[np.float32]

# Between frames a touch moves by about so much, in newtons and as a share of its force, times what is measured.
_STEP, _SHARE = 0.05, 0.02
_LEAST_TAU, _MOST_TAU = 1e-3, 400.0
# Of those that stay touched so many are as if newly touched: they slip, or are pressed anew.
_ANEW = 0.02
# Taxels that are less likely touched than this are no longer followed.
_FORGOTTEN = 1e-4

_ITERATIONS = 40
# The relative error at which an estimate is good enough, where no noise ends the iteration before.
_ENOUGH = 2e-3
# It ends when the doubt has not become less by 3% for so many iterations; at the floor of the noise, for so many.
_BETTER, _PATIENCE, _PATIENCE_AT_FLOOR = 0.97, 5, 2
# An estimate explains its code if what is left of it is noise, up to so many standard errors, and a share of its
# energy that a relative error of 1% leaves.
_ERRORS, _UNEXPLAINED = 6.0, 2e-5
# And if so many numbers an entry are found by it at most.
_CROWDED = 0.6


class Look(Protocol):
    """What a code says of the numbers of a block.

    Attributes
    ----------
    entries : int
        How many entries of the code there are.
    noise : float
        The variance of the noise of each.
    repeated : float
        The part of it that is the same in every frame of a touch that does not change, as that of rounding.
    energy : float
        The mean square of each.
    """

    entries: int
    noise: float
    repeated: float
    energy: float

    def left(self, x: Floats) -> float:
        """The mean square of what is left of the code's entries, less the estimate's, x (n,)."""

    def numbers(self, x: Floats, variance: float) -> Floats:
        """The numbers as the code has them, given that estimate: with noise of this variance."""

    def unexplained(self, x: Floats) -> float:
        """As `left`, of the last estimate."""


class CodeLook:
    """The look that a code gives through its transform.

    Parameters
    ----------
    z : float32 array (k,)
        Entries of the code, in newtons.
    rows : Rows
        Which entries these are.
    noise, repeated : float
        The variance of their noise, and of the part of it that is the same where nothing changes.
    """

    def __init__(self, z: Floats, rows: Rows, noise: float, repeated: float = 0.0) -> None:
        self.z, self.rows, self.noise, self.repeated = z, rows, noise, repeated
        self.entries, self.energy = len(z), float(z @ z) / len(z)
        self._gain = np.float32(rows.transform.size / len(z))
        self._residual = z

    def left(self, x: Floats) -> float:
        self._residual = self.z - self.rows.forward(x)
        return float(self._residual @ self._residual) / len(self.z)

    def numbers(self, x: Floats, variance: float) -> Floats:  # noqa: ARG002
        y = self.rows.adjoint(self._residual)
        y *= self._gain
        y += x
        return y

    unexplained = left


class FreshLook:
    """The look of state evolution: of numbers x (n,) that are known, with fresh noise in every iteration."""

    def __init__(
        self, x: Floats, size: int, entries: int, noise: float, repeated: float, generator: np.random.Generator
    ) -> None:
        self.x, self.size, self.entries, self.noise, self.generator = x, size, entries, noise, generator
        self.repeated = repeated
        self.energy = float(x @ x) / size + noise

    def left(self, x: Floats) -> float:
        gap = self.x - x
        return float(gap @ gap) / self.size + self.noise

    def numbers(self, x: Floats, variance: float) -> Floats:  # noqa: ARG002
        z = self.generator.standard_normal(len(self.x), dtype=np.float32)
        return self.x + np.float32(variance**0.5) * z

    def unexplained(self, x: Floats) -> float:
        # Noise is fitted too, as far as an estimate that knows what is touched would do it: that leaves a x noise
        # / (1 - a) of error, a = touched numbers / entries, and no more in the code than noise alone.
        share = np.count_nonzero(self.x) / self.entries
        fitted = self.noise * share / (1 - share) if share < 1 else 0.0
        return max(self.left(x) - fitted, self.noise)


@dataclass(frozen=True, eq=False)
class Prior:
    """What is expected of the taxels of a block whose frame before is not known.

    Parameters
    ----------
    p : array (n,)
        The probability that a taxel is touched.
    mean, variance : arrays (n, axes)
        Of its numbers then.
    leave : float
        The probability that a touch ends from one frame to the next.
    """

    p: NDArray[Any]
    mean: NDArray[Any]
    variance: NDArray[Any]
    leave: float
    # Log odds of touched against off; where the frame before is known, how likely one appears, and its log odds.
    odds: Floats = field(init=False)
    appears: Floats = field(init=False)
    new_odds: Floats = field(init=False)

    def __post_init__(self) -> None:
        p = np.clip(self.p.astype(np.float64), 0.0, 1 - 1e-6)
        with np.errstate(divide="ignore"):
            odds = np.log(p / (1 - p))
            # A touch appears as often as one ends.
            appears = np.minimum(0.5, np.where(p > 0, 10 * self.leave * p + 1e-5, 0.0))
            new = np.log(appears / (1 - appears))
        for name, value in (("odds", odds), ("appears", appears), ("new_odds", new)):
            object.__setattr__(self, name, value.astype(np.float32))
        for name, value in (("p", self.p), ("mean", self.mean), ("variance", self.variance)):
            object.__setattr__(self, name, np.ascontiguousarray(value, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Touched:
    """The taxels that are probably touched, and what is known of them.

    Attributes
    ----------
    places : int64 array (k,)
    p : float32 array (k,)
    mean, variance : float32 arrays (k, axes)
        Of their numbers, given that they are touched.
    """

    places: NDArray[np.int64]
    p: Floats
    mean: Floats
    variance: Floats


NOTHING = Touched(
    np.empty(0, np.int64), np.empty(0, np.float32), np.empty((0, 1), np.float32), np.empty((0, 1), np.float32)
)


@dataclass(frozen=True, eq=False)
class Found:
    """What a frame's code has told of a block.

    Attributes
    ----------
    x, variance : float32 arrays (n, axes)
    active : float32 array (n,)
    doubt : float
        The sum of the variances.
    left : float
        The mean square of what is left of the code.
    explained : bool
    iterations : int
    touched : Touched
    """

    x: Floats
    variance: Floats
    active: Floats
    doubt: float
    left: float
    explained: bool
    iterations: int
    touched: Touched


class TouchFilter:
    """The posterior of a block's taxels from frame to frame.

    Parameters
    ----------
    prior : Prior
    size : int
        Numbers of the transform, N, of which those beyond the block's are zero.
    """

    def __init__(self, prior: Prior, size: int) -> None:
        self.prior, self.size = prior, size
        n, axes = prior.mean.shape
        self.shape = (n, axes)
        self._slot = np.full(n, -1, dtype=np.int32)
        # Estimate, doubt, active, mean and variance where active: of this iteration, and of the best one so far.
        shapes = ((n, axes), (n, axes), (n,), (n, axes), (n, axes))
        self._rooms = [[np.zeros(shape, np.float32) for shape in shapes] for _ in range(2)]
        room, wide = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self._pass = (room, wide, wide.view(np.int32))

    def expected(self, before: Touched | None, frames: int = 1) -> Found:
        """What is expected so many frames after these taxels were touched, without a code."""
        n, axes = self.shape
        x, variance, active = (
            np.zeros((n, axes), np.float32),
            np.zeros((n, axes), np.float32),
            np.zeros(n, np.float32),
        )
        if before is None:
            p = self.prior.p[:, None]
            x, active = p * self.prior.mean, self.prior.p.copy()
            variance = p * (self.prior.variance + (1 - p) * self.prior.mean**2)
            before = Touched(np.empty(0, np.int64), active[:0], x[:0], x[:0])
        else:
            p = before.p * (1 - self.prior.leave) ** frames
            spread = before.variance + frames * _steps(before.mean)
            x[before.places], active[before.places] = p[:, None] * before.mean, p
            variance[before.places] = p[:, None] * (spread + (1 - p)[:, None] * before.mean**2)
            before = Touched(before.places, p, before.mean, spread)
        return Found(x, variance, active, float(variance.sum()), np.inf, False, 0, before)

    def step(self, look: Look, before: Touched | None, frames: int = 1) -> Found:
        """What a code says, given what was touched so many frames before, or without that where it misleads."""
        if before is None:
            return self.read(look, None)
        found = self.read(look, before, frames)
        if found.explained:
            return found
        anew = self.read(look, None)
        return anew if anew.explained or anew.left < found.left else found

    def read(self, look: Look, before: Touched | None, frames: int = 1) -> Found:
        """What a code says, given what was touched so many frames before; with None, given what is usual."""
        prior = self.prior
        if before is None:
            log_odds = prior.odds
            places, weights = np.empty(0, np.int64), np.empty(0, np.float32)
            mean = np.empty((0, self.shape[1]), np.float32)
            spread, steps, x = mean, mean, prior.p[:, None] * prior.mean
        else:
            places, mean, spread = before.places, before.mean, before.variance
            p = np.minimum(before.p * (1 - prior.leave) ** frames, 0.999)
            stay = (1 - _ANEW) * p
            new = _ANEW * p + (1 - p) * np.minimum(prior.appears[places] * frames, 0.5)
            off = np.maximum(1 - stay - new, 1e-6)
            log_odds = prior.new_odds.copy()
            log_odds[places] = np.log(new / off)
            weights = np.log(stay / off)
            steps = frames * _steps(mean)
            x = np.zeros(self.shape, np.float32)
            x[places] = p[:, None] * mean
        self._slot[places] = np.arange(len(places), dtype=np.int32)
        try:
            return self._iterate(look, x.ravel(), log_odds, weights, mean, spread, steps)
        finally:
            self._slot[places] = -1

    def _iterate(
        self, look: Look, x: Floats, log_odds: Floats, weights: Floats, mean: Floats, spread: Floats, steps: Floats
    ) -> Found:
        now, best = self._rooms
        ratio, noise = look.entries / self.size, look.noise
        left = look.left(x)
        floor = noise / ratio
        tau = 1.0
        if len(mean):
            innovation = (left - noise) * self.size - float(spread.sum())
            tau = float(np.clip(innovation / float(steps.sum()), _LEAST_TAU, _MOST_TAU))
        least, doubt, level, idle, iterations = np.inf, 0.0, 0.0, 0, 0
        while True:
            iterations += 1
            sigma2 = max(max(left - noise, 0.0) * (1 - ratio) / ratio + floor, 1e-9)
            y = look.numbers(x, sigma2)
            total, moved = posterior(
                y.reshape(self.shape), np.float32(sigma2), log_odds, self.prior.mean, self.prior.variance,
                self._slot, weights, mean, spread, steps, np.float32(tau), *self._outputs(now),
            )  # fmt: skip
            if len(mean):
                tau = min(max(moved, _LEAST_TAU), _MOST_TAU)
            eta = max(total / self.size, 1e-12)
            idle = 0 if eta < _BETTER * least else idle + 1
            m = now[0].ravel()
            if eta <= least:
                least, doubt, level = eta, total, sigma2
                now, best = best, now
            enough = total < _ENOUGH**2 * float(m @ m)
            at_floor = sigma2 < 1.2 * floor
            stuck = idle >= (_PATIENCE_AT_FLOOR if at_floor else _PATIENCE)
            if stuck or iterations == _ITERATIONS or (enough and (at_floor or floor < eta)):
                break
            share = eta / max(sigma2 - eta, 1e-3 * sigma2)
            x = m + (m - y) * np.float32(share)
            left = look.left(x)
        estimate, variance, active, on_mean, on_variance = best
        if self.shape[1] == 1:
            # What presses does not pull; what would have to pull to explain the code does not explain it.
            np.maximum(estimate, 0.0, out=estimate)
            np.maximum(on_mean, 0.0, out=on_mean)
        places = np.flatnonzero(active > _FORGOTTEN)
        # Noise that repeats is no less for being looked at again and again.
        known = np.maximum(on_variance[places], np.float32(look.repeated / ratio))
        touched = Touched(places, active[places], on_mean[places], known)
        left = look.unexplained(estimate.ravel())
        fits = left <= most_noise(look) + _UNEXPLAINED * look.energy
        # As many numbers as there are entries explain anything; of one that is found anew the doubt is the look's.
        fits = fits and doubt <= _CROWDED * look.entries * level
        # Copies, as the next frame is read in the same memory.
        return Found(estimate.copy(), variance.copy(), active.copy(), doubt, left, fits, iterations, touched)

    def _outputs(self, room: list[Floats]) -> tuple[Any, ...]:
        """What the compiled posterior writes to."""
        return (*room, *self._pass)


def most_noise(look: Look) -> float:
    """What noise alone leaves of a code, at most."""
    return look.noise * (1 + _ERRORS * (2 / look.entries) ** 0.5)


def _steps(mean: Floats) -> Floats:
    """The variance (k, axes) by which numbers move between frames, before that is measured."""
    energy = np.square(mean).sum(axis=1, keepdims=True)
    return np.broadcast_to(np.float32(_STEP**2) + np.float32(_SHARE**2) * energy, mean.shape)
