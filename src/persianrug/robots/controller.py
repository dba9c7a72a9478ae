"""From a plan to torques: the tasks of a legged robot."""

from __future__ import annotations

from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.arm import ArmController
from persianrug.robots.contacts import ContactReading
from persianrug.robots.control import Planning
from persianrug.robots.dynamics import Dynamics
from persianrug.robots.gait import FootTouch, Plan
from persianrug.robots.grip import Grip
from persianrug.robots.spec import Kind, RobotSpec
from persianrug.robots.state import RobotState, about_z, crossing, rotation_vector
from persianrug.robots.whole_body import ContactPoint, Solution, Task, WholeBodyQP, motors_of

Floats = NDArray[np.float64]

# Weights of the centre of mass, the base's height and tilt, feet in the air and on the ground.
_COM, _RISE = 30.0, 60.0
_TILT = np.array([10.0, 10.0, 5.0])
_SWING, _STANCE = 20.0, 500.0
# Gains of feet in the air (1/s^2, 1/s), and how fast those on the ground come to rest (1/s).
_FOLLOW = (450.0, 38.0)
_REST = 10.0
# The same of how soles in the air are turned, with weights of flat ones and of lines, which turn about no axis of
# their own.
_TURN = (300.0, 30.0)
_TURNED = {Kind.FLAT: 5.0, Kind.LINE: 2.0}
# Of the ground, as far as it is counted on.
_FRICTION = 0.45
# A foot that has just come down takes over its load within so many seconds, up to so many newtons a point.
_LOADING, _MOST = 0.03, 900.0
# A foot that feels the ground presses at least so much.
_LEAST = 15.0
# Weights of legs that come to rest (1/s), and of all other joints that keep their posture (1/s^2, 1/s).
_LEGS, _CALM = 0.05, 2.0
_POSTURE, _KEEP = 1.0, (60.0, 14.0)


class Planner(Planning, Protocol):
    """Where the feet of a robot should be, and how its base should move."""

    def plan(self, state: RobotState, touch: FootTouch, dt: float) -> Plan:
        """The plan of this tick, `dt` seconds after the last one."""
        ...


class LeggedController:
    """Torques that do what a gait, an arm and a gripper should do.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the robot alone.
    spec : RobotSpec
    planner : Planner

    Attributes
    ----------
    dynamics : Dynamics
    arm : ArmController or None
    grip : Grip or None
    load : array (3,)
        The force of what the gripper holds on it, in the world, in newtons.
    plan : Plan
        The last one.
    solution : Solution
        The last one.
    """

    def __init__(self, model: mujoco.MjModel, spec: RobotSpec, planner: Planner) -> None:
        self.spec, self.planner = spec, planner
        self.dynamics = Dynamics(model, spec)
        names, limits = motors_of(model)
        self.qp = WholeBodyQP(self.dynamics.ny, self.dynamics.columns(names), limits)
        self.arm: ArmController | None = None
        self.grip: Grip | None = None
        self.load = np.zeros(3)
        self._feet = [foot.patch for foot in spec.feet]
        bodies = {patch.name: patch.body for patch in spec.patches}
        self._foot_bodies = [model.body(bodies[foot.patch]).id for foot in spec.feet]
        self._ties = [
            (
                self.dynamics.places((joint, *sum_of)),
                self.dynamics.dofs((joint, *sum_of)),
                list(sum_of.values()),
                i,
            )
            for joint, sum_of in spec.ties.items()
            for i, foot in enumerate(spec.feet)
            if joint in foot.joints
        ]
        taken: set[str] = set()
        if spec.arm is not None:
            self.arm = ArmController(self.dynamics, spec.arm)
            self._finger = names.index(spec.arm.finger)
            motor = model.actuator(self._finger)
            self.grip = Grip(spec.arm, float(motor.gainprm[0]))
            self._finger_place = int(self.dynamics.places((spec.arm.finger,))[0])
            taken = set(spec.arm.joints)
        legs = {joint for foot in spec.feet for joint in foot.joints}
        if spec.arm is not None:
            legs.add(spec.arm.finger)
        self._legs = self._rows(tuple(name for name in names if name in legs))
        self._upper = self._rows(tuple(name for name in names if name not in legs | taken))
        self._kept = np.array([spec.posture.get(name, 0.0) for name in names if name not in legs | taken])
        ny = self.dynamics.ny
        self._tilt_rows = np.zeros((3, ny))
        self._tilt_rows[:, 3:6] = np.eye(3)
        self._height_row = np.zeros((1, ny))
        self._height_row[0, 2] = 1.0
        self._reading: ContactReading
        self.plan: Plan
        self.solution: Solution

    def _rows(self, joints: tuple[str, ...]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """The Jacobian of some joints' accelerations, and where they are in q and v."""
        rows = np.zeros((len(joints), self.dynamics.ny))
        rows[np.arange(len(joints)), self.dynamics.columns(joints)] = 1.0
        return rows, self.dynamics.places(joints), self.dynamics.dofs(joints)

    def observe(self, q: Floats, v: Floats, reading: ContactReading, time: float) -> RobotState:
        """Take in the estimated positions (nq,) and velocities (nv,) of this tick, and what is felt."""
        self._reading = reading
        for places, dofs, factors, foot in self._ties:
            # Springs of a leg in the air swing about where they would be at rest.
            if not self.planner.stance[foot]:
                q[places[0]], v[dofs[0]] = q[places[1:]] @ factors, v[dofs[1:]] @ factors
        return self.dynamics.set(q, v, time)

    def act(self, dt: float) -> Floats:
        """What the motors should do (nu,) in this tick of `dt` seconds: torques, and the finger's angle."""
        state = self.dynamics.state
        self.plan = plan = self.planner.plan(state, self._touch(self._reading), dt)
        h = self.dynamics.h
        if self.arm is not None and self.load.any():
            jacobian = self.dynamics.site(self.arm.arm.grasp)[2]
            h = h - jacobian[:3].T @ self.load
        self.solution = self.qp.solve(self.dynamics.M, h, self._tasks(state, plan, dt), self._contacts(plan))
        command = np.clip(self.solution.torque, -self.qp.limits, self.qp.limits)
        if self.grip is not None:
            command[self._finger] = self.grip.command(float(state.q[self._finger_place]), dt)
        return command

    def _touch(self, reading: ContactReading) -> FootTouch:
        index = reading.places(self._feet)
        state, data = self.dynamics.state, self.dynamics.data
        sideways, centre = np.zeros(len(index)), np.zeros((len(index), 2))
        for k, body in enumerate(self._foot_bodies):
            turned = data.xmat[body].reshape(3, 3)
            world = turned @ reading.force[index[k]]
            sideways[k] = np.hypot(world[0], world[1])
            place = data.xpos[body] + turned @ reading.centre[index[k]]
            centre[k] = (state.feet_rotation[k].T @ (place - state.feet[k]))[:2]
        return FootTouch(reading.pressing[index], sideways, reading.valid[index], centre)

    def _tasks(self, state: RobotState, plan: Plan, dt: float) -> list[Task]:
        dynamics = self.dynamics
        com, drift = dynamics.com_jacobian()
        legs, _, dofs = self._legs
        tasks = [
            Task(com[:2], plan.linear[:2] - drift[:2], _COM),
            Task(self._height_row, plan.linear[2:], _RISE),
            Task(self._tilt_rows, state.rotation.T @ plan.angular, _TILT),
            Task(legs, -_CALM * state.v[dofs], _LEGS),
        ]
        for i, stands in enumerate(plan.stance):
            tasks += self._standing(i, state) if stands else self._swinging(i, state, plan)
        upper, places, dofs = self._upper
        if len(dofs):
            target = _KEEP[0] * (self._kept - state.q[places]) - _KEEP[1] * state.v[dofs]
            tasks.append(Task(upper, target, _POSTURE))
        if self.arm is not None:
            tasks.append(self.arm.task(dt))
        return tasks

    def _standing(self, i: int, state: RobotState) -> list[Task]:
        """No point of a foot that stands moves."""
        dynamics, turning = self.dynamics, crossing(state.feet_angular_velocity[i])
        tasks = []
        for arm, jacobian in self._points(i):
            velocity = state.feet_velocity[i] + turning @ arm
            drift = dynamics.drift[i] + crossing(dynamics.turn_drift[i]) @ arm + turning @ turning @ arm
            tasks.append(Task(jacobian, -_REST * velocity - drift, _STANCE))
        return tasks

    def _swinging(self, i: int, state: RobotState, plan: Plan) -> list[Task]:
        """A foot in the air goes where it should, and is turned as it should be."""
        dynamics = self.dynamics
        target = (
            plan.acceleration[i]
            + _FOLLOW[0] * (plan.position[i] - state.feet[i])
            + _FOLLOW[1] * (plan.velocity[i] - state.feet_velocity[i])
        )
        tasks = [Task(dynamics.feet[i], target - dynamics.drift[i], _SWING)]
        kind = self.spec.feet[i].kind
        if kind in _TURNED:
            wanted = about_z(plan.facing)
            away = rotation_vector(wanted @ state.feet_rotation[i].T)
            turn = _TURN[0] * away - _TURN[1] * state.feet_angular_velocity[i] - dynamics.turn_drift[i]
            axes = np.eye(3) if kind is Kind.FLAT else wanted[:, 1:].T
            tasks.append(Task(axes @ dynamics.turns[i], axes @ turn, _TURNED[kind]))
        return tasks

    def _points(self, i: int) -> list[tuple[Floats, Floats]]:
        """Where foot i can touch, from its middle (3,), with Jacobians (3, ny)."""
        dynamics = self.dynamics
        arms = dynamics.frames.points[i] @ dynamics.state.feet_rotation[i].T
        if len(arms) == 1:
            return [(arms[0], dynamics.feet[i])]
        return [(arm, dynamics.feet[i] - crossing(arm) @ dynamics.turns[i]) for arm in arms]

    def _contacts(self, plan: Plan) -> list[ContactPoint]:
        contacts = []
        for i in np.flatnonzero(plan.stance).tolist():
            most = _MOST * min(1.0, (plan.standing[i] + 0.01) / _LOADING)
            points = self._points(i)
            least = min(_LEAST, most) if plan.felt[i] or plan.standing[i] < 0.05 else 0.0
            for _, jacobian in points:
                contacts.append(ContactPoint(jacobian, _FRICTION, least / len(points), most, np.eye(3)))
        return contacts
