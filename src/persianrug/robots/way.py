"""How far a robot really went, and by how much it turned."""

from __future__ import annotations

import mujoco
import numpy as np


class Way:
    """The way of a robot from some second on.

    Parameters
    ----------
    since : float
        In seconds.

    Attributes
    ----------
    length : float
        Along where it looked, in metres: what it sways from side to side does not count.
    turned : float
        In rad.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.length = self.turned = 0.0
        self._last: tuple[float, float, float] | None = None

    def means(self, seconds: float) -> dict[str, float]:
        """How fast it was, in m/s, and how fast it turned, in rad/s, if that was within so many seconds."""
        return {"reached": self.length / seconds, "turned": self.turned / seconds}

    def measure(self, data: mujoco.MjData) -> None:
        """Look where it is in this tick."""
        x, y = data.qpos[:2]
        w, i, j, k = data.qpos[3:7]
        yaw = float(np.arctan2(2 * (w * k + i * j), 1 - 2 * (j * j + k * k)))
        if self._last is not None and data.time > self.since:
            before_x, before_y, before = self._last
            self.length += float((x - before_x) * np.cos(yaw) + (y - before_y) * np.sin(yaw))
            self.turned += float((yaw - before + np.pi) % (2 * np.pi) - np.pi)
        self._last = (float(x), float(y), yaw)
