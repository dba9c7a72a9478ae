"""The arm: from where the gripper should be to how joints should turn (resolved rates, damped least squares)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.dynamics import Dynamics
from persianrug.robots.spec import Arm
from persianrug.robots.state import rotation_vector
from persianrug.robots.whole_body import Task

Floats = NDArray[np.float64]

# Errors of place and direction are taken off at these rates (1/s), up to these speeds (m/s, rad/s).
_RATES = (6.0, 5.0)
_SPEEDS = (0.5, 1.5)
# Weights of translation and rotation, and the damping of the least squares.
_WEIGHTS = np.array([1.0, 1.0, 1.0, 0.3, 0.3, 0.3])
_DAMPING = 3e-4
# Joints turn at most so fast, in rad/s, and targets lead them by at most so much, in rad.
_MOST_SPEED, _MOST_LEAD = 2.5, 0.25
# They keep so far from their ends, in rad.
_MARGIN = 0.02
# Gains of the joints (1/s^2, 1/s), and the weight of their task.
_GAINS = (300.0, 34.0)
_WEIGHT = 5.0


class ArmController:
    """Follows joint angles, or a pose of the gripper in the world.

    Parameters
    ----------
    dynamics : Dynamics
    arm : Arm

    Attributes
    ----------
    target : array (n_joints,)
        Where the joints should be, in rad.
    speed : array (n_joints,)
        How fast they should turn, in rad/s.
    pose : (position (3,), rotation (3, 3), velocity (3,)) or None
        Where the gripper should be; None leaves the joints to `target`.
    error : (float, float)
        Of the pose, in metres and radians.
    span : float
        From the first joint to the grasp when the arm is straight, in metres.
    """

    def __init__(self, dynamics: Dynamics, arm: Arm) -> None:
        self.dynamics, self.arm = dynamics, arm
        self.places, self.dofs = dynamics.places(arm.joints), dynamics.dofs(arm.joints)
        limits = np.array([dynamics.model.joint(name).range for name in arm.joints])
        self.lowest, self.highest = limits[:, 0] + _MARGIN, limits[:, 1] - _MARGIN
        self.target, self.speed = np.array(arm.stowed, dtype=np.float64), np.zeros(len(arm.joints))
        self.pose: tuple[Floats, Floats, Floats] | None = None
        self.error = (0.0, 0.0)
        model = dynamics.model
        links = [model.body_pos[model.joint(name).bodyid[0]] for name in arm.joints[1:]]
        self.span = float(np.linalg.norm([*links, model.site(arm.grasp).pos], axis=1).sum())
        self._columns = dynamics.columns(arm.joints)
        self._rows = np.zeros((len(self.dofs), dynamics.ny))
        self._rows[np.arange(len(self.dofs)), self._columns] = 1.0

    def task(self, dt: float) -> Task:
        """What the joints should do in this tick of `dt` seconds."""
        state = self.dynamics.state
        if self.pose is not None:
            self._follow(dt)
        turn = _GAINS[0] * (self.target - state.q[self.places]) + _GAINS[1] * (self.speed - state.v[self.dofs])
        return Task(self._rows, turn, _WEIGHT)

    def _follow(self, dt: float) -> None:
        """Move the joints' targets towards the pose, with the base's own motion taken off."""
        assert self.pose is not None  # noqa: S101
        place, rotation, velocity = self.pose
        state = self.dynamics.state
        here, turned, jacobian = self.dynamics.site(self.arm.grasp)
        away, twist = place - here, rotation_vector(rotation @ turned.T)
        self.error = (float(np.sqrt(away @ away)), float(np.sqrt(twist @ twist)))
        wanted = np.concatenate(
            [
                velocity + np.clip(_RATES[0] * away, -_SPEEDS[0], _SPEEDS[0]),
                np.clip(_RATES[1] * twist, -_SPEEDS[1], _SPEEDS[1]),
            ]
        )
        wanted -= jacobian[:, :6] @ state.v[:6]
        own = jacobian[:, self._columns]
        weighted = own.T * _WEIGHTS
        speed = np.linalg.solve(weighted @ own + _DAMPING * np.eye(len(self.dofs)), weighted @ wanted)
        self.speed = np.clip(speed, -_MOST_SPEED, _MOST_SPEED)
        angles = state.q[self.places]
        target = np.clip(self.target + self.speed * dt, angles - _MOST_LEAD, angles + _MOST_LEAD)
        self.target = np.clip(target, self.lowest, self.highest)


def gripper_pose(direction: float, pitch: float = 0.0) -> Floats:
    """The rotation (3, 3) of a gripper that points along a direction (yaw in rad) and holds something upright.

    Its x axis points forward, and down by the pitch; its y axis is up, so that jaw and finger close sideways.
    """
    forward = np.array([np.cos(direction) * np.cos(pitch), np.sin(direction) * np.cos(pitch), -np.sin(pitch)])
    up = np.array([0.0, 0.0, 1.0]) - forward * forward[2]
    up /= np.sqrt(up @ up)
    side = np.array(
        [
            forward[1] * up[2] - forward[2] * up[1],
            forward[2] * up[0] - forward[0] * up[2],
            forward[0] * up[1] - forward[1] * up[0],
        ]
    )
    return np.stack([forward, up, side], axis=1)
