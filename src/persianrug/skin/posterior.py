"""The posterior of touched taxels, compiled: what a noisy look at all numbers says, given what was known before.

A taxel's g numbers are on together. Before a frame is seen a taxel is off; or newly touched, with numbers N(m, v)
as the profile has them; or touched as it was in the frame before, with numbers N(m', v' + tau w) about what they
were. Under the look y = x + sqrt(s2) z each of the three has a likelihood in closed form, and so have mean and
variance of the numbers. How far touches move between frames, tau, is itself measured from the look (a step of EM).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support.compiled import compiled

# Taxels of lower log odds are taken to be off: of thousands, together, they would add 1% to the doubt of one that
# is touched.
_OFF = np.float32(-9.0)
_HALF_LOG_2 = np.float32(0.5 * np.log(2.0))


@compiled
def _odds_of_new(
    y: NDArray[Any],
    s2: Any,
    log_odds: NDArray[Any],
    mean: NDArray[Any],
    variance: NDArray[Any],
    out: NDArray[Any],
    wide: NDArray[Any],
    wide_bits: NDArray[Any],
) -> None:
    """The log odds that a taxel is newly touched, or up to 0.35 more, in vector instructions.

    They lack the logarithm of sqrt(prod(1 + variance / s2)), of whose argument `wide` the exponent is taken, as
    wide_bits, the same memory read as int32, has it.
    """
    half, one, inverse = np.float32(0.5), np.float32(1.0), np.float32(1.0) / s2
    if y.shape[1] == 1:
        for i in range(len(out)):
            a = y[i, 0] - mean[i, 0]
            out[i] = log_odds[i] + half * (y[i, 0] * y[i, 0] * inverse - a * a / (variance[i, 0] + s2))
            wide[i] = one + variance[i, 0] * inverse
    else:
        for i in range(len(out)):
            a, b, c = y[i, 0] - mean[i, 0], y[i, 1] - mean[i, 1], y[i, 2] - mean[i, 2]
            energy = (y[i, 0] * y[i, 0] + y[i, 1] * y[i, 1] + y[i, 2] * y[i, 2]) * inverse
            u, v, w = variance[i, 0] + s2, variance[i, 1] + s2, variance[i, 2] + s2
            out[i] = log_odds[i] + half * (energy - (a * a / u + b * b / v + c * c / w))
            wide[i] = (u * inverse) * (v * inverse) * (w * inverse)
    for i in range(len(out)):
        out[i] -= _HALF_LOG_2 * np.float32((wide_bits[i] >> 23) - 127)


@compiled
def posterior(
    y: NDArray[Any],
    s2: Any,
    log_odds: NDArray[Any],
    mean: NDArray[Any],
    variance: NDArray[Any],
    slot: NDArray[Any],
    stay_odds: NDArray[Any],
    stay_mean: NDArray[Any],
    stay_variance: NDArray[Any],
    stay_steps: NDArray[Any],
    tau: Any,
    x: NDArray[Any],
    doubt: NDArray[Any],
    active: NDArray[Any],
    on_mean: NDArray[Any],
    on_variance: NDArray[Any],
    room: NDArray[Any],
    wide: NDArray[Any],
    wide_bits: NDArray[Any],
) -> tuple[float, float]:
    """The posterior of all taxels.

    Parameters
    ----------
    y : float32 array (n, g), g 1 or 3
        Numbers, each with noise of variance s2.
    log_odds, mean, variance : float32 arrays (n,), (n, g), (n, g)
        Newly touched against off, and the numbers then.
    slot : int32 array (n,)
        The place among the k taxels that were touched before, or -1.
    stay_odds, stay_mean, stay_variance, stay_steps : float32 arrays (k,), and three (k, g)
        Touched as before against off, and the numbers then, whose variance is stay_variance + tau stay_steps.
    x, doubt, on_mean, on_variance : float32 arrays (n, g)
        Set to mean and variance of the numbers, and to both given that the taxel is touched, these only where it
        is not taken to be off.
    active : float32 array (n,)
        Set to the probability that it is.
    room, wide : float32 arrays (n,)
    wide_bits : int32 array (n,)
        `wide` in its bits.

    Returns
    -------
    total : float
        The sum of `doubt`.
    tau : float
        How far touches moved, anew; 0 if none was before.
    """
    g = y.shape[1]
    half, one = np.float32(0.5), np.float32(1.0)
    _odds_of_new(y, s2, log_odds, mean, variance, room, wide, wide_bits)
    total, moved, count = 0.0, 0.0, 0.0
    for i in range(len(room)):
        j = slot[i]
        if j < 0 and room[i] < _OFF:
            active[i] = 0
            for a in range(g):
                x[i, a] = doubt[i, a] = 0
            continue
        new, stay = log_odds[i], np.float32(-1e30)
        for a in range(g):
            gap, spread = y[i, a] - mean[i, a], variance[i, a] + s2
            new += half * (y[i, a] * y[i, a] / s2 - gap * gap / spread - np.log(spread / s2))
        if j >= 0:
            stay = stay_odds[j]
            for a in range(g):
                gap, spread = y[i, a] - stay_mean[j, a], stay_variance[j, a] + tau * stay_steps[j, a] + s2
                stay += half * (y[i, a] * y[i, a] / s2 - gap * gap / spread - np.log(spread / s2))
        top = max(np.float32(0), new, stay)
        off, new, stay = np.exp(-top), np.exp(new - top), np.exp(stay - top)
        scale = one / (off + new + stay)
        new, stay = new * scale, stay * scale
        p = min(new + stay, one)
        active[i] = p
        share = new / max(p, np.float32(1e-30))
        for a in range(g):
            gain = variance[i, a] / (variance[i, a] + s2)
            first = mean[i, a] + gain * (y[i, a] - mean[i, a])
            square = gain * s2 + first * first
            centre = first
            if j >= 0:
                step = tau * stay_steps[j, a]
                spread = stay_variance[j, a] + step
                gain = spread / (spread + s2)
                second = stay_mean[j, a] + gain * (y[i, a] - stay_mean[j, a])
                # Of what the numbers are off by, the part that is a step, and its variance.
                part = step / (spread + s2)
                gap = part * (y[i, a] - stay_mean[j, a])
                moved += stay * (gap * gap + part * (spread - step + s2)) / stay_steps[j, a]
                centre = share * first + (one - share) * second
                square = share * square + (one - share) * (gain * s2 + second * second)
            x[i, a] = p * centre
            on_mean[i, a] = centre
            on_variance[i, a] = max(square - centre * centre, np.float32(0))
            doubt[i, a] = p * on_variance[i, a] + p * (one - p) * centre * centre
            total += doubt[i, a]
        count += g * stay
    return total, moved / count if count > 1e-3 else 0.0
