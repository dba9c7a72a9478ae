"""Whether somebody pulls at what the gripper holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class PullDetector:
    """A pull along the gripper, felt as a change of the force on it.

    The force is low-passed and compared with a baseline, which follows it while it changes little: a weight that
    is taken over slowly, or an arm that settles, is no pull. A push, or a lift, is none either: what counts is the
    force along the gripper's axis, away from the robot.

    Parameters
    ----------
    threshold : float
        In newtons.
    hold : float
        For so many seconds a pull must be felt.
    smooth : float
        The time constant of the low-pass, in seconds.
    still : float
        The baseline follows while the change is below so many newtons.

    Attributes
    ----------
    pull : float
        What is felt now, in newtons.
    change : array (3,)
        Of the force, in newtons.
    """

    def __init__(
        self, threshold: float = 7.0, hold: float = 0.03, smooth: float = 0.02, still: float = 2.0
    ) -> None:
        self.threshold, self.hold, self.smooth, self.still = threshold, hold, smooth, still
        self.reset()

    def reset(self) -> None:
        """Begin anew, with what is felt next as baseline."""
        self.pull, self.change = 0.0, np.zeros(3)
        self._force: Floats | None = None
        self._baseline = np.zeros(3)
        self._age = self._felt = 0.0

    def update(self, force: Floats, axis: Floats, dt: float) -> bool:
        """Whether a pull is felt.

        Parameters
        ----------
        force : array (3,)
            On the gripper, in newtons.
        axis : array (3,)
            The direction in which it points, away from the robot, in the same frame.
        dt : float
            Since the last update, in seconds.
        """
        if self._force is None:
            self._force, self._baseline = force.copy(), force.copy()
        self._age += dt
        self._force += (force - self._force) * min(1.0, dt / self.smooth)
        self.change = self._force - self._baseline
        if self._age < _SETTLE:
            self._baseline += (force - self._baseline) * min(1.0, dt / _QUICK)
        elif np.sqrt(self.change @ self.change) < self.still:
            self._baseline += (force - self._baseline) * min(1.0, dt / _SLOW)
        self.pull = float(self.change @ axis)
        armed = self._age > _SETTLE and self.pull > self.threshold
        self._felt = self._felt + dt if armed else 0.0
        return self._felt >= self.hold


# In its first seconds the baseline follows quickly, and nothing is a pull; then slowly. Time constants in seconds.
_SETTLE, _QUICK, _SLOW = 0.4, 0.1, 5.0
