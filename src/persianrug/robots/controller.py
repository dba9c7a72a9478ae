"""From a plan to torques: the tasks of a legged robot."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.arm import ArmController
from persianrug.robots.contacts import ContactReading
from persianrug.robots.dynamics import Dynamics
from persianrug.robots.gait import FootTouch, GaitPlanner, Plan
from persianrug.robots.grip import Grip
from persianrug.robots.spec import RobotSpec
from persianrug.robots.state import RobotState
from persianrug.robots.whole_body import ContactPoint, Solution, Task, WholeBodyQP

Floats = NDArray[np.float64]

# Weights of the centre of mass, the base's height and tilt, feet in the air and on the ground.
_COM, _RISE = 30.0, 60.0
_TILT = np.array([10.0, 10.0, 5.0])
_SWING, _STANCE = 20.0, 500.0
# Gains of feet in the air (1/s^2, 1/s), and how fast those on the ground come to rest (1/s).
_FOLLOW = (450.0, 38.0)
_REST = 10.0
# Of the ground, as far as it is counted on.
_FRICTION = 0.45
# A foot that has just come down takes over its load within so many seconds, up to so many newtons.
_LOADING, _MOST = 0.03, 900.0
# A foot that feels the ground presses at least so much.
_LEAST = 15.0
_POSTURE = 0.05


class LeggedController:
    """Torques that do what a gait, an arm and a gripper should do.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the robot alone.
    spec : RobotSpec
    planner : GaitPlanner

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

    def __init__(self, model: mujoco.MjModel, spec: RobotSpec, planner: GaitPlanner) -> None:
        self.spec, self.planner = spec, planner
        self.dynamics = Dynamics(model, spec)
        motors = [model.actuator(i).trnid[0] for i in range(model.nu)]
        names = [model.joint(joint).name for joint in motors]
        self._dofs = self.dynamics.dofs(tuple(names))
        limits = np.abs(model.actuator_forcerange[:, 1])
        limits = np.where(model.actuator_forcelimited, limits, np.abs(model.actuator_ctrlrange[:, 1]))
        self.qp = WholeBodyQP(model.nv, self._dofs, limits)
        self.arm: ArmController | None = None
        self.grip: Grip | None = None
        self.load = np.zeros(3)
        self._feet = [foot.patch for foot in spec.feet]
        self._foot_bodies = [int(model.geom_bodyid[geom]) for geom in self.dynamics.foot_geoms]
        if spec.arm is not None:
            self.arm = ArmController(self.dynamics, spec.arm)
            self._finger = names.index(spec.arm.finger)
            motor = model.actuator(self._finger)
            self.grip = Grip(spec.arm, float(motor.gainprm[0]))
            self._finger_place = int(self.dynamics.places((spec.arm.finger,))[0])
        taken = set(self.arm.dofs.tolist()) if self.arm else set()
        rest = [dof for dof in self._dofs if dof not in taken]
        self._posture = np.zeros((len(rest), model.nv))
        self._posture[np.arange(len(rest)), rest] = 1.0
        self._posture_dofs = np.array(rest)
        self._tilt_rows = np.zeros((3, model.nv))
        self._tilt_rows[:, 3:6] = np.eye(3)
        self._height_row = np.zeros((1, model.nv))
        self._height_row[0, 2] = 1.0
        self._reading: ContactReading
        self.plan: Plan
        self.solution: Solution

    def observe(self, q: Floats, v: Floats, reading: ContactReading, time: float) -> RobotState:
        """Take in the estimated positions (nq,) and velocities (nv,) of this tick, and what is felt."""
        self._reading = reading
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
        force = reading.force[index]
        sideways = np.zeros(len(index))
        for k, body in enumerate(self._foot_bodies):
            world = self.dynamics.data.xmat[body].reshape(3, 3) @ force[k]
            sideways[k] = np.hypot(world[0], world[1])
        return FootTouch(reading.pressing[index], sideways, reading.valid[index])

    def _tasks(self, state: RobotState, plan: Plan, dt: float) -> list[Task]:
        dynamics = self.dynamics
        com, drift = dynamics.com_jacobian()
        tasks = [
            Task(com[:2], plan.linear[:2] - drift[:2], _COM),
            Task(self._height_row, plan.linear[2:], _RISE),
            Task(self._tilt_rows, state.rotation.T @ plan.angular, _TILT),
            Task(self._posture, -2.0 * state.v[self._posture_dofs], _POSTURE),
        ]
        for i, stands in enumerate(plan.stance):
            if stands:
                target, weight = -_REST * state.feet_velocity[i], _STANCE
            else:
                target = (
                    plan.acceleration[i]
                    + _FOLLOW[0] * (plan.position[i] - state.feet[i])
                    + _FOLLOW[1] * (plan.velocity[i] - state.feet_velocity[i])
                )
                weight = _SWING
            tasks.append(Task(dynamics.feet[i], target - dynamics.drift[i], weight))
        if self.arm is not None:
            tasks.append(self.arm.task(dt))
        return tasks

    def _contacts(self, plan: Plan) -> list[ContactPoint]:
        contacts = []
        for i in np.flatnonzero(plan.stance):
            most = _MOST * min(1.0, (plan.standing[i] + 0.01) / _LOADING)
            least = min(_LEAST, most) if plan.felt[i] or plan.standing[i] < 0.05 else 0.0
            contacts.append(ContactPoint(self.dynamics.feet[i], _FRICTION, least, most, np.eye(3)))
        return contacts
