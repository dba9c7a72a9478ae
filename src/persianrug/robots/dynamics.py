"""A robot's kinematics and dynamics as its controller knows them: a model of its own, set from an estimated state.

The model has no contacts and no constraints: forces of the ground are unknowns of the controller. Joints that the
robot's data tie to others (stiff springs) are taken as rigid: accelerations are those of the others, v' = N y',
and all terms here are in y. Where nothing is tied, y = v.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.feet import FeetFrames
from persianrug.robots.spec import RobotSpec
from persianrug.robots.state import RobotState

Floats = NDArray[np.float64]


class Dynamics:
    """The terms of M(q) y' + h(q, v) = S' tau + J' f, at the state that was set last.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the robot alone; it is copied.
    spec : RobotSpec

    Attributes
    ----------
    nq, nv : int
    ny : int
        Of accelerations that are free: nv, less the joints that are tied.
    mass : float
        In kg.
    M : array (ny, ny)
    h : array (ny,)
        Gravity, Coriolis and centrifugal forces, passive ones of joints left out.
    feet, drift : array (n_feet, 3, ny), (n_feet, 3)
        Jacobians of the feet's middles, and their change with time, times v.
    turns, turn_drift : array (n_feet, 3, ny), (n_feet, 3)
        The same of how they turn.
    state : RobotState
    """

    def __init__(self, model: mujoco.MjModel, spec: RobotSpec) -> None:
        from copy import copy

        self.model, self.spec = copy(model), spec
        off = mujoco.mjtDisableBit
        self.model.opt.disableflags |= int(
            off.mjDSBL_CONTACT | off.mjDSBL_CONSTRAINT | off.mjDSBL_ACTUATION | off.mjDSBL_EQUALITY
        )
        self.data = mujoco.MjData(self.model)
        self.nq, self.nv = self.model.nq, self.model.nv
        self.base = self.model.body(spec.base).id
        self.mass = float(self.model.body_subtreemass[self.base])
        self.frames = FeetFrames(self.model, spec)
        self._M, self._h = np.zeros((self.nv, self.nv)), np.zeros(self.nv)
        tied = self.dofs(tuple(spec.ties))
        self._free = np.setdiff1d(np.arange(self.nv), tied)
        self.ny = len(self._free)
        # v' = N y'.
        self._N = np.zeros((self.nv, self.ny))
        self._N[self._free, np.arange(self.ny)] = 1.0
        for joint, sum_of in spec.ties.items():
            self._N[self.dofs((joint,)), self.columns(tuple(sum_of))] = list(sum_of.values())
        self._untied = len(tied) == 0
        n = len(spec.feet)
        self._feet, self._turns = np.zeros((n, 3, self.nv)), np.zeros((n, 3, self.nv))
        self._rate, self._turn_rate = np.zeros((3, self.nv)), np.zeros((3, self.nv))
        self.drift, self.turn_drift = np.zeros((n, 3)), np.zeros((n, 3))
        self.M: Floats
        self.h: Floats
        self.feet: Floats
        self.turns: Floats
        self.state: RobotState

    def dofs(self, joints: tuple[str, ...]) -> NDArray[np.int64]:
        """Where velocities of joints of one degree of freedom are in v."""
        return np.array([self.model.joint(name).dofadr[0] for name in joints], dtype=np.int64)

    def columns(self, joints: tuple[str, ...]) -> NDArray[np.int64]:
        """Where accelerations of joints of one degree of freedom that are not tied are in y'."""
        return np.searchsorted(self._free, self.dofs(joints))

    def places(self, joints: tuple[str, ...]) -> NDArray[np.int64]:
        """Where positions of joints of one degree of freedom are in q."""
        return np.array([self.model.joint(name).qposadr[0] for name in joints], dtype=np.int64)

    def set(self, q: Floats, v: Floats, time: float) -> RobotState:
        """Compute everything at positions (nq,) and velocities (nv,)."""
        model, data = self.model, self.data
        data.qpos[:], data.qvel[:] = q, v
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_makeM(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_rne(model, data, 0, self._h)
        mujoco.mj_subtreeVel(model, data)
        mujoco.mj_fullM(model, data, self._M)
        places = self.frames.places(data)
        for i, body in enumerate(self.frames.bodies):
            mujoco.mj_jac(model, data, self._feet[i], self._turns[i], places[i], body)
            mujoco.mj_jacDot(model, data, self._rate, self._turn_rate, places[i], body)
            self.drift[i], self.turn_drift[i] = self._rate @ v, self._turn_rate @ v
        if self._untied:
            self.M, self.h, self.feet, self.turns = self._M, self._h, self._feet, self._turns
        else:
            N = self._N
            self.M, self.h, self.feet, self.turns = (
                N.T @ self._M @ N,
                N.T @ self._h,
                self._feet @ N,
                self._turns @ N,
            )
        rotation = data.xmat[self.base].reshape(3, 3).copy()
        self.state = RobotState(
            time=time,
            q=q,
            v=v,
            position=data.xpos[self.base].copy(),
            velocity=v[:3],
            rotation=rotation,
            angular_velocity=rotation @ v[3:6],
            com=data.subtree_com[self.base].copy(),
            com_velocity=data.subtree_linvel[self.base].copy(),
            feet=places,
            feet_velocity=self._feet @ v,
            feet_rotation=self.frames.rotations(data),
            feet_angular_velocity=self._turns @ v,
        )
        return self.state

    def com_jacobian(self) -> tuple[Floats, Floats]:
        """The Jacobian (3, ny) of the centre of mass, and its change with time, times v (3,).

        Of a free joint whose linear velocity is the world's, the first three rows of M are those of momentum.
        """
        return self.M[:3] / self.mass, self.h[:3] / self.mass + self.model.opt.gravity

    def site(self, name: str) -> tuple[Floats, Floats, Floats]:
        """Where a site is (3,), how it is turned (3, 3), and its Jacobian (6, ny): translation, then rotation."""
        site = self.model.site(name).id
        jacobian = np.zeros((6, self.nv))
        mujoco.mj_jacSite(self.model, self.data, jacobian[:3], jacobian[3:], site)
        return (
            self.data.site_xpos[site].copy(),
            self.data.site_xmat[site].reshape(3, 3).copy(),
            jacobian if self._untied else jacobian @ self._N,
        )

    def body_rotation(self, name: str) -> Floats:
        """From a body's frame to the world's, (3, 3)."""
        return self.data.xmat[self.model.body(name).id].reshape(3, 3)
