"""What a robot believes of the ground before it: flat, with bars across its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persianrug._support import checks

# A foot keeps so far from a bar's front, and from its end, in metres.
_BEFORE, _BEHIND = 0.024, 0.014
# A bar is stepped on if so much more of it than a foot takes is there.
_ROOM = 0.008
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


@dataclass(frozen=True)
class Terrain:
    """Flat ground with bars.

    Parameters
    ----------
    bars : sequence of Bar
    foot : float
        From the middle of a foot to its toes, and to its heel, in metres.
    lean : float
        Behind a bar a foot keeps away by so much of its height as well: the shank leans back over the foot.
    """

    bars: Sequence[Bar] = ()
    foot: float = 0.036
    lean: float = 0.95

    def keep_out(self, bar: Bar) -> tuple[float, float]:
        """The middle of no foot is set down between these, in metres along x, unless it is on the bar."""
        return bar.front - self.foot - _BEFORE, bar.end + self.foot + _BEHIND + self.lean * bar.height

    def top(self, bar: Bar) -> tuple[float, float] | None:
        """Where the middle of a foot may be set down on a bar, in metres along x."""
        return (bar.front + self.foot, bar.end - self.foot) if bar.depth >= 2 * self.foot + _ROOM else None

    def height(self, x: float) -> float:
        """Of the ground at x, in metres."""
        return max((bar.height for bar in self.bars if bar.front - 0.01 < x < bar.end + 0.01), default=0.0)

    def foothold(self, x: float) -> float:
        """The place nearest to x where a foot may be set down."""
        for bar in self.bars:
            first, last = self.keep_out(bar)
            if not first < x < last:
                continue
            options = [first, last]
            if (top := self.top(bar)) is not None:
                options.append(min(max(x, top[0]), top[1]))
            x = min(options, key=lambda option: abs(option - x))
        return x

    def crossed(self, start: float, end: float) -> float:
        """The height of the highest bar that a swing from x = `start` to x = `end` passes; 0 of none."""
        low, high = min(start, end), max(start, end)
        return max(
            (bar.height for bar in self.bars if low < bar.end + _NEAR_END and high > bar.front - _NEAR_FRONT),
            default=0.0,
        )
