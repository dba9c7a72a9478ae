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
# Feet are accelerated by at most so much, in m/s^2.
_MOST_PUSH = 60.0


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


class Pursuit:
    """A foot on its way to a target that may move: it always goes along the quintic that ends there at rest.

    Attributes
    ----------
    begun : array (3,)
        Where it started.
    """

    def __init__(self) -> None:
        self.begun = np.zeros(3)
        self._position, self._velocity, self._acceleration = np.zeros(3), np.zeros(3), np.zeros(3)

    @property
    def reference(self) -> tuple[Floats, Floats, Floats]:
        """Position, velocity and acceleration (3,)."""
        return self._position, self._velocity, self._acceleration

    def start(self, place: Floats) -> None:
        """Begin at rest at a place (3,)."""
        self.begun = place.copy()
        self._position, self._velocity, self._acceleration = place.copy(), np.zeros(3), np.zeros(3)

    def pursue(self, axis: int, target: float, left: float, dt: float) -> None:
        """Go on for `dt` seconds towards a target that is to be reached in `left` seconds."""
        left = max(left, 0.03)
        away = target - self._position[axis]
        jerk = (60 * away / left - 36 * self._velocity[axis]) / left**2 - 9 * self._acceleration[axis] / left
        push = self._acceleration[axis] + jerk * dt
        self._acceleration[axis] = min(max(push, -_MOST_PUSH), _MOST_PUSH)
        self._velocity[axis] += self._acceleration[axis] * dt
        self._position[axis] += self._velocity[axis] * dt

    def rest(self, axis: int) -> None:
        """Stay where it is."""
        self._velocity[axis] = self._acceleration[axis] = 0.0

    def fall(self, axis: int, speed: float, dt: float) -> None:
        """Go down at a speed in m/s."""
        self._velocity[axis], self._acceleration[axis] = -speed, 0.0
        self._position[axis] -= speed * dt
