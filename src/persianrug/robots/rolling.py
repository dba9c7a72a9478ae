"""Wheels on legs: a pendulum on an axle that is driven, with legs that lean, squat and jump.

Along its heading the robot is a pendulum, c'' = w^2 (c - p), on an axle at p whose acceleration is the input: a
linear quadratic regulator on how far the axle is from where it should be, how far the centre of mass is before it,
and on both speeds. Everything else is tasks of the whole-body program: height, tilt, legs beside each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_continuous_are

from persianrug.robots.arm import ArmController
from persianrug.robots.contacts import ContactReading
from persianrug.robots.dynamics import Dynamics
from persianrug.robots.gait import Command
from persianrug.robots.grip import Grip
from persianrug.robots.spec import RobotSpec
from persianrug.robots.state import RobotState, crossing, rotation_vector, wrapped
from persianrug.robots.terrain import Terrain
from persianrug.robots.whole_body import ContactPoint, Solution, Task, WholeBodyQP, motors_of

Floats = NDArray[np.float64]

_GRAVITY = 9.81
# Costs of the regulator: of the axle's place, of the lean before it, of both speeds, and of what it does.
_COSTS, _EFFORT = np.diag([2.0, 20.0, 8.0, 2.0]), 0.6
# The axle is at most so far from where it should be (m) and accelerated by so much (m/s^2).
_LEASH, _MOST = 0.3, 8.0
# What is missing of a steady speed is added to what is aimed at, at a rate (1/s), up to so much (m/s).
_TRIM, _MOST_TRIM = 0.5, 0.8
# What is commanded changes by so much: speed (m/s^2), turning (rad/s^2), and height (m/s).
_CHANGES = (1.5, 2.0, 0.8)
# Gains of height, of roll, pitch and yaw, of joints that keep their posture, of wheels beside each other, and of
# legs in the air (1/s^2, 1/s).
_HEIGHT = (60.0, 14.0)
_TILT = (np.array([80.0, 40.0, 40.0]), np.array([16.0, 12.0, 12.0]))
_KEEP, _BESIDE, _DRAW = (50.0, 14.0), (60.0, 15.0), (200.0, 25.0)
# Weights of the same, of the axle, and of wheels that roll.
_RISES, _TILTS, _KEEPS, _ROLLS, _BESIDES, _DRAWS = 40.0, np.array([20.0, 10.0, 10.0]), 0.5, 5.0, 5.0, 10.0
_AXLE, _GROUND, _SLIPS = 100.0, 2000.0, 10.0
# While it pushes off: weights of the axle and of tilts, and of turning about the wheels' axis, which comes to rest
# at a rate (1/s).
_AXLE_PUSHED, _TILTS_PUSHED, _SPIN = 3.0, np.array([20.0, 5.0, 10.0]), (2.0, 20.0)
# Of the ground, as far as it is counted on, and what a wheel may press with, in newtons.
_FRICTION, _PRESSES = 0.6, 3000.0
# It leans into bends by at most so much, and turns back to where it should look from so much, in rad.
_LEANS, _LOOKS = 0.4, 0.5
# Slopes are low-passed with a time constant in seconds, if a wheel is pressed by so many newtons; changes by more
# than so much (rad) are not believed at once; a wheel that feels so many newtons stands.
_SMOOTH, _SURE, _STEEP, _TOUCH = 0.04, 200.0, 0.6, 20.0


class Mode(Enum):
    """What the legs do."""

    ROLL = "roll"
    PUSH_OFF = "push off"
    FLY = "fly"


@dataclass(frozen=True, eq=False)
class RollPlan:
    """What is planned in this tick.

    Attributes
    ----------
    stance : bool array (n_wheels,)
        Which wheels are on the ground.
    """

    stance: NDArray[np.bool_]


class RollPlanner:
    """What a robot on wheels should do.

    Parameters
    ----------
    height : float
        Of the centre of mass above the ground, in metres.
    wheels : int

    Attributes
    ----------
    command : Command
    height : float
        It may be changed.
    mode : Mode
    push_off : float
        The acceleration of the centre of mass while it pushes off, in m/s^2.
    leg : float
        From hip to axle in the air, in metres.
    speed, turn, rise : float
        What is aimed at in this tick: m/s, rad/s, and the height in metres.
    """

    def __init__(self, height: float, wheels: int = 2) -> None:
        self.command, self.terrain = Command(), Terrain()
        self.height = self.rise = height
        self.mode, self.push_off, self.leg = Mode.ROLL, 10.0, 0.72
        self.stance = np.ones(wheels, dtype=bool)
        self.speed = self.turn = 0.0
        self.facing: float | None = None

    @property
    def threshold(self) -> float:
        """A wheel that feels so many newtons carries."""
        return _TOUCH

    @property
    def settled(self) -> bool:
        """Whether it stands on its wheels, which do not turn."""
        return self.mode is Mode.ROLL and abs(self.speed) < 0.05

    @property
    def steady(self) -> bool:
        """Whether it is to go on at a speed that it should have come to."""
        return self.mode is Mode.ROLL and bool(self.speed) and self.speed == float(self.command.velocity[0])

    def go_on(self, state: RobotState, dt: float) -> None:
        """Come nearer to what is commanded."""
        command = self.command
        self.speed += float(np.clip(command.velocity[0] - self.speed, -_CHANGES[0] * dt, _CHANGES[0] * dt))
        self.turn += float(np.clip(command.turn - self.turn, -_CHANGES[1] * dt, _CHANGES[1] * dt))
        self.rise += float(np.clip(self.height - self.rise, -_CHANGES[2] * dt, _CHANGES[2] * dt))
        facing = state.yaw if self.facing is None else wrapped(self.facing + self.turn * dt)
        away = wrapped(facing - state.yaw)
        self.facing = wrapped(state.yaw + min(max(away, -_LOOKS), _LOOKS))
        self.stance[:] = self.mode is not Mode.FLY


class RollingController:
    """Torques of a robot whose feet are wheels.

    The joints of each limb are, from the base outwards, the hip's roll, the hip, the knee and the wheel.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the robot alone.
    spec : RobotSpec
    planner : RollPlanner

    Attributes
    ----------
    dynamics : Dynamics
    qp : WholeBodyQP
    arm, grip : None
        It has none that a controller knows of.
    plan : RollPlan
    solution : Solution
    above : float
        The height of the centre of mass above the ground, in metres.
    touching : bool array (n_wheels,)
        Which wheels feel the ground.
    astray : float
        How far the axle is before where it should be, in metres.
    """

    def __init__(self, model: mujoco.MjModel, spec: RobotSpec, planner: RollPlanner) -> None:
        self.spec, self.planner = spec, planner
        self.dynamics = dynamics = Dynamics(model, spec)
        names, limits = motors_of(model)
        self.qp = WholeBodyQP(dynamics.ny, dynamics.columns(names), limits)
        self.arm: ArmController | None = None
        self.grip: Grip | None = None
        self.load = np.zeros(3)
        self._patches = [foot.patch for foot in spec.feet]
        limbs = [foot.joints for foot in spec.feet]
        self._rolls = tuple(limb[0] for limb in limbs)
        self._wheels = dynamics.dofs(tuple(limb[3] for limb in limbs))
        in_limbs = {joint for limb in limbs for joint in limb}
        self._upper = tuple(name for name in names if name not in in_limbs)
        self._bent = [(limb[1], limb[2]) for limb in limbs]
        self._turning = [limb[3] for limb in limbs]
        # Of thigh and shank.
        links = [model.body_pos[model.joint(joint).bodyid[0]] for joint in limbs[0][2:4]]
        self._length = float(np.linalg.norm(links, axis=1).sum())
        self.radius = float(dynamics.frames.below[0])
        # How the ground falls ahead under each wheel, in rad, and the directions of its normals.
        self._slopes = np.zeros(len(limbs))
        self._normals = np.zeros((len(limbs), 3))
        self.astray = 0.0
        # Bends and drag hold it back or push it on: what is aimed at is moved until it is as fast as it should be.
        self._trim = 0.0
        self._reading: ContactReading
        self.plan: RollPlan
        self.solution: Solution
        self.above = 0.0
        self.touching = np.ones(len(limbs), dtype=bool)

    def observe(self, q: Floats, v: Floats, reading: ContactReading, time: float) -> RobotState:
        """Take in the estimated positions (nq,) and velocities (nv,) of this tick, and what is felt."""
        self._reading = reading
        return self.dynamics.set(q, v, time)

    def act(self, dt: float) -> Floats:
        """What the motors should do (nu,) in this tick of `dt` seconds, in N m."""
        dynamics, planner = self.dynamics, self.planner
        state = dynamics.state
        planner.go_on(state, dt)
        self._feel(state, dt)
        self.plan = RollPlan(planner.stance.copy())
        contacts, tasks = self._contacts(state)
        axles, speeds = state.feet, state.feet_velocity
        ahead = state.heading[:, 0]
        self.above = float(state.com[2] - axles[:, 2].mean()) + self.radius
        if planner.mode is not Mode.FLY or self.touching.any():
            tasks += self._driving(state, ahead, dt)
        tasks += self._upright(state)
        apart = dynamics.feet[0] - dynamics.feet[1]
        between = axles[0] - axles[1]
        # In a bend the outer wheel is faster, and that is as it should be.
        turning = crossing(np.array([0.0, 0.0, state.angular_velocity[2]])) @ between
        beside = ahead @ (
            -_BESIDE[0] * between
            - _BESIDE[1] * (speeds[0] - speeds[1] - turning)
            - (dynamics.drift[0] - dynamics.drift[1])
        )
        tasks.append(Task((ahead @ apart)[None], np.array([beside]), _BESIDES))
        tasks += [self._keep(self._rolls, 0.0, _KEEP, _ROLLS), self._keep(self._upper, 0.0, _KEEP, _KEEPS)]
        if planner.mode is Mode.FLY:
            bend = 2 * math.acos(min(planner.leg / self._length, 1.0))
            for hip, knee in self._bent:
                tasks += [self._keep((hip,), -bend / 2, _DRAW, _DRAWS), self._keep((knee,), bend, _DRAW, _DRAWS)]
            tasks.append(self._spinning(planner.speed / self.radius))
        self.solution = self.qp.solve(dynamics.M, dynamics.h, tasks, contacts)
        return np.clip(self.solution.torque, -self.qp.limits, self.qp.limits)

    def _feel(self, state: RobotState, dt: float) -> None:
        """Where the ground is under each wheel, by where it is pressed."""
        reading = self._reading
        index = reading.places(self._patches)
        self.touching = reading.valid[index] & (reading.pressing[index] > _TOUCH)
        ahead = state.heading[:, 0]
        for k, place in enumerate(index):
            slope = 0.0
            if self.touching[k] and np.isfinite(reading.centre[place]).all():
                # The wheel has turned on since this was felt, in the last step of the physics before that time.
                lag = state.time - reading.time + self.spec.step
                turned = state.feet_rotation[k] @ _about_y(-state.v[self._wheels[k]] * lag)
                away = -turned @ (reading.centre[place] * [1, 0, 1])
                slope = math.atan2(float(ahead @ away), max(float(away[2]), 1e-6))
            # What is hardly pressed says little.
            share = min(1.0, float(reading.pressing[place]) / _SURE) * dt / _SMOOTH
            self._slopes[k] += min(max(slope - self._slopes[k], -_STEEP), _STEEP) * share
            # Across its way the ground is taken to be level.
            self._normals[k] = math.sin(self._slopes[k]) * ahead
            self._normals[k, 2] = math.cos(self._slopes[k])

    def _contacts(self, state: RobotState) -> tuple[list[ContactPoint], list[Task]]:
        """Where wheels touch the ground, and that they roll on it."""
        dynamics, contacts, tasks = self.dynamics, [], []
        for k, normal in enumerate(self._normals):
            if self.planner.mode is Mode.FLY and not self.touching[k]:
                continue
            away = dynamics.frames.lowest(dynamics.data, k, normal) - state.feet[k]
            jacobian = dynamics.feet[k] - crossing(away) @ dynamics.turns[k]
            # The point that touches does not turn with the wheel.
            drift = dynamics.drift[k] + crossing(dynamics.turn_drift[k]) @ away
            slip = state.feet_velocity[k] + crossing(state.feet_angular_velocity[k]) @ away
            tasks.append(Task(jacobian, -_SLIPS * slip - drift, _GROUND))
            forward = crossing(state.feet_rotation[k][:, 1]) @ normal
            forward = forward / np.sqrt(forward @ forward)
            frame = np.stack([forward, crossing(normal) @ forward, normal])
            contacts.append(ContactPoint(jacobian, _FRICTION, 0.0, _PRESSES, frame))
        return contacts, tasks

    def _driving(self, state: RobotState, ahead: Floats, dt: float) -> list[Task]:
        """The axle's acceleration along the heading, and the height."""
        dynamics, planner = self.dynamics, self.planner
        axle, speed = state.feet.mean(axis=0), state.feet_velocity.mean(axis=0)
        jacobian, change = dynamics.feet.mean(axis=0), dynamics.drift.mean(axis=0)
        if planner.steady:
            missing = planner.speed - float(ahead @ speed)
            self._trim = min(max(self._trim + _TRIM * missing * dt, -_MOST_TRIM), _MOST_TRIM)
        wanted = planner.speed + self._trim
        self.astray += (float(ahead @ speed) - wanted) * dt
        self.astray = min(max(self.astray, -_LEASH), _LEASH)
        leaning = np.array(
            [
                self.astray,
                ahead @ (state.com - axle),
                ahead @ speed - wanted,
                ahead @ (state.com_velocity - speed),
            ]
        )
        gains = np.array(regulator(round(min(max(self.above, 0.4), 1.4), 2)))
        drive = min(max(float(-gains @ leaning), -_MOST), _MOST)
        pushed = planner.mode is Mode.PUSH_OFF
        com, drift = dynamics.com_jacobian()
        rise = planner.push_off
        if not pushed:
            rise = _HEIGHT[0] * (planner.rise - self.above) - _HEIGHT[1] * float(state.com_velocity[2] - speed[2])
        tasks = [
            Task((ahead @ jacobian)[None], np.array([drive - ahead @ change]), _AXLE_PUSHED if pushed else _AXLE),
            Task(com[2:], np.array([rise - drift[2]]), _RISES),
        ]
        if pushed:
            momentum = np.zeros((3, dynamics.nv))
            mujoco.mj_angmomMat(dynamics.model, dynamics.data, momentum, dynamics.base)
            row = state.heading[:, 1] @ momentum
            tasks.append(Task(row[None], np.array([-_SPIN[1] * float(row @ state.v)]), _SPIN[0]))
        return tasks

    def _upright(self, state: RobotState) -> list[Task]:
        """The base upright, leaning into bends, and looking where it should."""
        planner = self.planner
        lean = math.atan(-planner.turn * planner.speed / _GRAVITY)
        lean = min(max(lean, -_LEANS), _LEANS)
        facing = planner.facing if planner.facing is not None else state.yaw
        c, s, cl, sl = math.cos(facing), math.sin(facing), math.cos(lean), math.sin(lean)
        wanted = np.array([[c, -s * cl, s * sl], [s, c * cl, -c * sl], [0.0, sl, cl]])
        away = state.heading.T @ rotation_vector(wanted @ state.rotation.T)
        turning = state.heading.T @ (np.array([0.0, 0.0, planner.turn]) - state.angular_velocity)
        rows = np.zeros((3, self.dynamics.ny))
        rows[:, 3:6] = state.heading.T @ state.rotation
        weights = _TILTS_PUSHED if planner.mode is Mode.PUSH_OFF else _TILTS
        return [Task(rows, _TILT[0] * away + _TILT[1] * turning, weights)]

    def _keep(self, joints: tuple[str, ...], angle: float, gains: tuple[float, float], weight: float) -> Task:
        """Some joints at an angle."""
        dynamics = self.dynamics
        state, rows = dynamics.state, np.zeros((len(joints), dynamics.ny))
        rows[np.arange(len(joints)), dynamics.columns(joints)] = 1.0
        target = gains[0] * (angle - state.q[dynamics.places(joints)]) - gains[1] * state.v[dynamics.dofs(joints)]
        return Task(rows, target, weight)

    def _spinning(self, rate: float) -> Task:
        """Wheels in the air that turn as fast as they will have to."""
        joints = tuple(self._turning)
        rows = np.zeros((len(joints), self.dynamics.ny))
        rows[np.arange(len(joints)), self.dynamics.columns(joints)] = 1.0
        return Task(rows, 5.0 * (rate - self.dynamics.state.v[self._wheels]), 1.0)


@lru_cache(maxsize=256)
def regulator(height: float) -> tuple[float, ...]:
    """Gains of the regulator for a centre of mass at a height in metres: of place, lean and both speeds."""
    A, B = np.zeros((4, 4)), np.array([[0.0], [0.0], [1.0], [-1.0]])
    A[0, 2] = A[1, 3] = 1.0
    A[3, 1] = _GRAVITY / height
    cost = solve_continuous_are(A, B, _COSTS, np.array([[_EFFORT]]))
    return tuple((B.T @ cost / _EFFORT)[0].tolist())


def _about_y(angle: float) -> Floats:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
