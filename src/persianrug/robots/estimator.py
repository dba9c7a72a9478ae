"""Where a robot takes itself to be: the truth, or what its legs and an inertial sensor tell."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.contacts import ContactReading
from persianrug.robots.control import Planning
from persianrug.robots.feet import FeetFrames
from persianrug.robots.spec import RobotSpec

Floats = NDArray[np.float64]


class Estimator(Protocol):
    """Positions and velocities of the robot's joints, the free one first."""

    def estimate(self, data: mujoco.MjData, reading: ContactReading, dt: float) -> tuple[Floats, Floats]:
        """q (nq,) and v (nv,) at this tick, `dt` seconds after the last one."""
        ...


class TrueState:
    """The state of the simulation as it is.

    Parameters
    ----------
    nq, nv : int
        Of the robot alone, whose joints come first in the scene.
    """

    def __init__(self, nq: int, nv: int) -> None:
        self.nq, self.nv = nq, nv

    def estimate(self, data: mujoco.MjData, reading: ContactReading, dt: float) -> tuple[Floats, Floats]:  # noqa: ARG002
        return data.qpos[: self.nq].copy(), data.qvel[: self.nv].copy()


@dataclass(frozen=True)
class BodyNoise:
    """Standard deviations of what a robot measures of itself.

    Parameters
    ----------
    tilt : float
        Of the base's orientation, in rad.
    gyro : float
        In rad/s.
    accelerometer : float
        In m/s^2.
    angle, speed : float
        Of joints, in rad and rad/s.
    """

    tilt: float = 0.003
    gyro: float = 0.01
    accelerometer: float = 0.15
    angle: float = 0.0005
    speed: float = 0.03


# A foot carries where it has felt the ground for so long, in seconds.
_LOADED = 0.04
# Time constants of speed and height in seconds.
_SPEED, _HEIGHT = 0.03, 0.1
_UP = np.array([0.0, 0.0, 1.0])
# So far is the lowest point of a loaded foot below its radius, in metres: it is soft.
_SUNK = 0.003
# Ground that is so much higher or lower than believed is taken to be where it was found, in metres.
_SURPRISE = 0.02


class LegOdometry:
    """Speed and place from the feet that carry, and from an inertial sensor on the base.

    A foot that carries rolls on the ground: the point of it that touches stands still. So the speed of the base is
    minus that of this point relative to it. The accelerometer fills the time between.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the robot alone.
    spec : RobotSpec
    planner : Planning
        Which feet should stand, and how high the ground is where they do.
    noise : BodyNoise
    seed : int
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        spec: RobotSpec,
        planner: Planning,
        noise: BodyNoise | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.planner, self.noise = model, planner, noise or BodyNoise()
        self.data = mujoco.MjData(model)
        self.random = np.random.default_rng(seed)
        self.frames = FeetFrames(model, spec)
        self.patches = [foot.patch for foot in spec.feet]
        self.position: Floats | None = None
        self.velocity = np.zeros(3)
        self._loaded = np.zeros(len(spec.feet))
        # How high the ground is under each foot that carries.
        self._ground = np.full(len(spec.feet), np.nan)
        self._jacobian = np.zeros((3, model.nv))

    def estimate(self, data: mujoco.MjData, reading: ContactReading, dt: float) -> tuple[Floats, Floats]:
        q, v, acceleration = self._measure(data)
        if self.position is None:
            self.position = data.qpos[:3].copy()
        q[:3], v[:3] = 0.0, 0.0
        self.data.qpos[:] = q
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        self.velocity = self.velocity + acceleration * dt
        index = reading.places(self.patches)
        felt = reading.valid[index] & (reading.pressing[index] > self.planner.threshold)
        self._loaded = np.where(felt & self.planner.stance, self._loaded + dt, 0.0)
        self._ground[self._loaded == 0] = np.nan
        carrying = np.flatnonzero(self._loaded > _LOADED)
        if len(carrying):
            speeds, heights = zip(*(self._of_foot(int(i), v) for i in carrying), strict=True)
            error = sum(speeds) / len(speeds) - self.velocity
            self.velocity = self.velocity + (1 - math.exp(-dt / _SPEED)) * error
            height = statistics.median(heights)
            self.position[2] += (1 - math.exp(-dt / _HEIGHT)) * (height - self.position[2])
        self.position = self.position + self.velocity * dt
        q[:3], v[:3] = self.position, self.velocity
        return q, v

    def _measure(self, data: mujoco.MjData) -> tuple[Floats, Floats, Floats]:
        """What joints, gyroscope and accelerometer say, and the acceleration of the base in the world."""
        noise, draw = self.noise, self.random.normal
        nq, nv = self.model.nq, self.model.nv
        q, v = data.qpos[:nq].copy(), data.qvel[:nv].copy()
        true, measured, slip = np.zeros(9), np.zeros(9), np.zeros(4)
        mujoco.mju_quat2Mat(true, q[3:7])
        tilt = draw(0, noise.tilt, 3)
        size = float(np.sqrt(tilt @ tilt))
        mujoco.mju_axisAngle2Quat(slip, tilt / max(size, 1e-12), size)
        turned = np.zeros(4)
        mujoco.mju_mulQuat(turned, q[3:7], slip)
        q[3:7] = turned
        mujoco.mju_quat2Mat(measured, turned)
        v[3:6] += draw(0, noise.gyro, 3)
        q[7:] += draw(0, noise.angle, nq - 7)
        v[6:] += draw(0, noise.speed, nv - 6)
        gravity = self.model.opt.gravity
        # What the sensor feels in its own frame, and what that says with the orientation that was measured.
        felt = true.reshape(3, 3).T @ (data.qacc[:3] - gravity) + draw(0, noise.accelerometer, 3)
        return q, v, measured.reshape(3, 3) @ felt + gravity

    def _of_foot(self, i: int, v: Floats) -> tuple[Floats, float]:
        """The speed (3,) of the base, and its height, if foot i stands still."""
        lowest = self.frames.lowest(self.data, i, _UP)
        mujoco.mj_jac(self.model, self.data, self._jacobian, None, lowest, self.frames.bodies[i])
        assert self.position is not None  # noqa: S101
        if np.isnan(self._ground[i]):
            believed = self.planner.terrain.height(float(self.position[0] + lowest[0])) - _SUNK
            found = float(self.position[2] + lowest[2])
            self._ground[i] = believed if abs(found - believed) < _SURPRISE else found
        return -(self._jacobian @ v), self._ground[i] - lowest[2]
