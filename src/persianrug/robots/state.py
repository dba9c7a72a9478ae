"""What a controller knows of a robot's motion: numbers, of whatever made them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RobotState:
    """Where a robot is and how it moves, in the frame of the world; metres, radians, seconds.

    Parameters
    ----------
    time : float
    q, v : array (nq,), (nv,)
        Positions and velocities of all joints, as MuJoCo orders them.
    position, velocity : array (3,)
        Of the base's origin.
    rotation : array (3, 3)
        From the base's frame to the world's.
    angular_velocity : array (3,)
    com, com_velocity : array (3,)
    feet, feet_velocity : array (n_feet, 3)
        Of the middles of its feet.
    feet_rotation : array (n_feet, 3, 3)
        From the feet's frames to the world's.
    feet_angular_velocity : array (n_feet, 3)
    """

    time: float
    q: Floats
    v: Floats
    position: Floats
    velocity: Floats
    rotation: Floats
    angular_velocity: Floats
    com: Floats
    com_velocity: Floats
    feet: Floats
    feet_velocity: Floats
    feet_rotation: Floats
    feet_angular_velocity: Floats

    @property
    def rpy(self) -> Floats:
        """Roll, pitch and yaw of the base."""
        r = self.rotation
        return np.array([np.arctan2(r[2, 1], r[2, 2]), np.arcsin(min(max(-r[2, 0], -1.0), 1.0)), self.yaw])

    @cached_property
    def yaw(self) -> float:
        """The direction in which the base looks, from x towards y."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))

    @cached_property
    def heading(self) -> Floats:
        """The rotation (3, 3) by the yaw alone."""
        return about_z(self.yaw)


def about_z(angle: float) -> Floats:
    """The rotation (3, 3) by an angle about the vertical."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def wrapped(angle: float) -> float:
    """The same angle, from -pi up to pi."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def crossing(a: Floats) -> Floats:
    """The matrix (3, 3) that multiplies as the vector product with a vector (3,) does."""
    return np.array([[0.0, -a[2], a[1]], [a[2], 0.0, -a[0]], [-a[1], a[0], 0.0]])


def rotation_vector(rotation: Floats) -> Floats:
    """Axis times angle (3,) of a rotation (3, 3), for angles below pi."""
    axis = 0.5 * np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine = float(np.sqrt(axis @ axis))
    cosine = 0.5 * (rotation[0, 0] + rotation[1, 1] + rotation[2, 2] - 1.0)
    return axis if sine < 1e-9 else axis * (np.arctan2(sine, cosine) / sine)
