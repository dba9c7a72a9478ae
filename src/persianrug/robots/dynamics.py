"""A robot's kinematics and dynamics as its controller knows them: a model of its own, set from an estimated state.

The model has no contacts and no constraints: forces of the ground are unknowns of the controller.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.spec import RobotSpec
from persianrug.robots.state import RobotState

Floats = NDArray[np.float64]


class Dynamics:
    """The terms of M(q) v' + h(q, v) = S' tau + J' f, at the state that was set last.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the robot alone; it is copied.
    spec : RobotSpec

    Attributes
    ----------
    nq, nv : int
    mass : float
        In kg.
    M : array (nv, nv)
    h : array (nv,)
        Gravity, Coriolis and centrifugal forces, passive ones of joints left out.
    feet, drift : array (n_feet, 3, nv), (n_feet, 3)
        Jacobians of the feet's middles, and their change with time, times v.
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
        self.foot_geoms = [self.model.geom(foot.geom).id for foot in spec.feet]
        self._foot_bodies = [int(self.model.geom_bodyid[geom]) for geom in self.foot_geoms]
        self.M, self.h = np.zeros((self.nv, self.nv)), np.zeros(self.nv)
        self.feet = np.zeros((len(spec.feet), 3, self.nv))
        self._rate = np.zeros((3, self.nv))
        self.drift = np.zeros((len(spec.feet), 3))
        self.state: RobotState

    def dofs(self, joints: tuple[str, ...]) -> NDArray[np.int64]:
        """Where velocities of joints of one degree of freedom are in v."""
        return np.array([self.model.joint(name).dofadr[0] for name in joints], dtype=np.int64)

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
        mujoco.mj_rne(model, data, 0, self.h)
        mujoco.mj_subtreeVel(model, data)
        mujoco.mj_fullM(model, data, self.M)
        feet = data.geom_xpos[self.foot_geoms]
        for i, body in enumerate(self._foot_bodies):
            mujoco.mj_jac(model, data, self.feet[i], None, feet[i], body)
            mujoco.mj_jacDot(model, data, self._rate, None, feet[i], body)
            self.drift[i] = self._rate @ v
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
            feet=feet,
            feet_velocity=self.feet @ v,
        )
        return self.state

    def com_jacobian(self) -> tuple[Floats, Floats]:
        """The Jacobian (3, nv) of the centre of mass, and its change with time, times v (3,).

        Of a free joint whose linear velocity is the world's, the first three rows of M are those of momentum.
        """
        return self.M[:3] / self.mass, self.h[:3] / self.mass + self.model.opt.gravity

    def site(self, name: str) -> tuple[Floats, Floats, Floats]:
        """Where a site is (3,), how it is turned (3, 3), and its Jacobian (6, nv): translation, then rotation."""
        site = self.model.site(name).id
        jacobian = np.zeros((6, self.nv))
        mujoco.mj_jacSite(self.model, self.data, jacobian[:3], jacobian[3:], site)
        return self.data.site_xpos[site].copy(), self.data.site_xmat[site].reshape(3, 3).copy(), jacobian

    def body_rotation(self, name: str) -> Floats:
        """From a body's frame to the world's, (3, 3)."""
        return self.data.xmat[self.model.body(name).id].reshape(3, 3)
