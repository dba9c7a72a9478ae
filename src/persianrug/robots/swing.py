"""The way of a foot through the air."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Shares of a swing: at its beginning and end the foot moves along the vertical only; it is at its highest between
# the other two.
_RISE = 0.12
_TOP = (0.42, 0.62)
# A foot that has found no ground goes down so far, in metres.
_SEARCH = 0.12


def swing(
    start: Floats, end: Floats, top: float, progress: float, duration: float, descent: float
) -> tuple[Floats, Floats, Floats]:
    """Position, velocity and acceleration (3,) of a foot that goes from `start` over `top` to `end`.

    Parameters
    ----------
    start, end : array (3,)
        In metres.
    top : float
        The height of its highest point.
    progress : float
        The share of the duration that has passed; beyond 1 the foot goes on down.
    duration, descent : float
        Of the swing in seconds, and how fast the foot goes down after it, in m/s.
    """
    if progress > 1:
        depth = min(descent * (progress - 1) * duration, _SEARCH)
        falls = descent if depth < _SEARCH else 0.0
        return end - [0, 0, depth], np.array([0.0, 0.0, -falls]), np.zeros(3)
    position, velocity, acceleration = np.zeros(3), np.zeros(3), np.zeros(3)
    span = (1 - 2 * _RISE) * duration
    along, speed, push = minimum_jerk((progress - _RISE) * duration / span)
    way = end[:2] - start[:2]
    position[:2] = start[:2] + way * along
    velocity[:2], acceleration[:2] = way * speed / span, way * push / span**2
    if progress < _TOP[0]:
        low, high, span, share = start[2], top, _TOP[0] * duration, progress / _TOP[0]
    elif progress < _TOP[1]:
        low, high, span, share = top, top, duration, 0.0
    else:
        low, high, span, share = top, end[2], (1 - _TOP[1]) * duration, (progress - _TOP[1]) / (1 - _TOP[1])
    along, speed, push = minimum_jerk(share)
    position[2] = low + (high - low) * along
    velocity[2], acceleration[2] = (high - low) * speed / span, (high - low) * push / span**2
    return position, velocity, acceleration


def minimum_jerk(share: float) -> tuple[float, float, float]:
    """The share of a way at a share of the time, and its first and second derivatives, at rest at both ends."""
    s = min(max(share, 0.0), 1.0)
    return s**3 * (10 - 15 * s + 6 * s * s), 30 * (s * (1 - s)) ** 2, 60 * s * (1 - s) * (1 - 2 * s)
