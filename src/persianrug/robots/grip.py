"""The finger of a gripper: opened, closed until it feels something, holding."""

from __future__ import annotations

from persianrug.robots.spec import Arm

# It opens so fast, in rad/s.
_OPEN_SPEED = 6.0


class Grip:
    """The target of the finger's motor, which is a spring to it.

    Parameters
    ----------
    arm : Arm
    stiffness : float
        Of the motor, in N m/rad.

    Attributes
    ----------
    target : float
        The angle that it should go to, in rad.
    force : float
        What it presses with at most, in newtons at its reach.
    """

    def __init__(self, arm: Arm, stiffness: float) -> None:
        self.arm, self.stiffness = arm, stiffness
        self.target, self.force = 0.0, 20.0
        self._goal = 0.0
        self._speed = _OPEN_SPEED

    def open(self) -> None:
        """Open widely, with all it has."""
        self._goal, self._speed, self.force = self.arm.opened, _OPEN_SPEED, 150.0

    def close(self, speed: float, force: float) -> None:
        """Close at so many rad/s, pressing with at most so many newtons."""
        self._goal, self._speed, self.force = 0.0, speed, force

    def command(self, angle: float, dt: float) -> float:
        """The motor's target in rad, where the finger is at an angle, in this tick of `dt` seconds."""
        step = self._speed * dt
        self.target += min(max(self._goal - self.target, -step), step)
        # The target leads the finger by no more than what its force is the spring of.
        lead = self.force * self.arm.reach / self.stiffness
        self.target = min(max(self.target, angle - lead), angle + lead)
        return self.target
