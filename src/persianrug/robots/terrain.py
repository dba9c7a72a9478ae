"""What a robot believes of the ground before it: flat, with bars across its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persianrug._support import checks

# A foothold keeps so far from a bar's front, and from its end, where the shank leans back over the foot: that, and
# so much of the bar's height. In metres.
_BEFORE, _BEHIND, _LEAN = 0.06, 0.05, 0.95
# A bar at least so deep is stepped on, so far from its edges.
_DEEP, _EDGE = 0.08, 0.035
# Before a bar's front, and behind its end, a swing has to clear it.
_NEAR_FRONT, _NEAR_END = 0.12, 0.05


@dataclass(frozen=True)
class Bar:
    """A bar that lies across the way, as far as one can see to both sides.

    Parameters
    ----------
    front : float
        Where it begins, in metres along x.
    depth, height : float
        In metres.
    """

    front: float
    depth: float
    height: float

    def __post_init__(self) -> None:
        checks.finite("front", self.front)
        checks.positive("depth", self.depth)
        checks.positive("height", self.height)

    @property
    def end(self) -> float:
        """Where it ends, in metres along x."""
        return self.front + self.depth

    @property
    def keep_out(self) -> tuple[float, float]:
        """No foot is set down between these, in metres along x, unless it is on the bar."""
        return self.front - _BEFORE, self.end + _BEHIND + _LEAN * self.height

    @property
    def top(self) -> tuple[float, float] | None:
        """Where a foot may be set down on it, in metres along x."""
        return (self.front + _EDGE, self.end - _EDGE) if self.depth >= _DEEP else None


@dataclass(frozen=True)
class Terrain:
    """Flat ground with bars."""

    bars: Sequence[Bar] = ()

    def height(self, x: float) -> float:
        """Of the ground at x, in metres."""
        return max((bar.height for bar in self.bars if bar.front - 0.01 < x < bar.end + 0.01), default=0.0)

    def foothold(self, x: float) -> float:
        """The place nearest to x where a foot may be set down."""
        for bar in self.bars:
            first, last = bar.keep_out
            if not first < x < last:
                continue
            options = [first, last]
            if bar.top is not None:
                options.append(min(max(x, bar.top[0]), bar.top[1]))
            x = min(options, key=lambda option: abs(option - x))
        return x

    def crossed(self, start: float, end: float) -> float:
        """The height of the highest bar that a swing from x = `start` to x = `end` passes; 0 of none."""
        low, high = min(start, end), max(start, end)
        return max(
            (bar.height for bar in self.bars if low < bar.end + _NEAR_END and high > bar.front - _NEAR_FRONT),
            default=0.0,
        )
