"""The quadratic program that turns tasks into torques; it knows no robot.

Unknown are the accelerations v' and the contact forces f. The unactuated rows of the equation of motion,

    M_uu v'_u + M_ua v'_a + h_u = J_u' f,

are solved for v'_u, so that they hold exactly, and v'_a and f are left. Tasks J v' = a are fitted in the sense of
weighted least squares; torques and friction are hard limits. The program always has a solution: with tau = 0 and
the least forces that are allowed, v' is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import daqp
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Forces are counted in so many newtons, so that all unknowns are of one size.
_UNIT = 100.0
# Weights of the squares of accelerations and forces that no task asks for.
_CALM, _LIGHT = 1e-3, 2e-3
_TOLERANCE = 1e-9
# Of the friction pyramid.
_SIDES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


@dataclass(frozen=True, eq=False)
class Task:
    """What some of a robot's accelerations should be: J v' = target.

    Parameters
    ----------
    jacobian : array (k, nv)
    target : array (k,)
        With the change of the Jacobian, J' v, taken off.
    weight : float or array (k,)
    """

    jacobian: Floats
    target: Floats
    weight: float | Floats


@dataclass(frozen=True, eq=False)
class ContactPoint:
    """A point at which the world pushes.

    Parameters
    ----------
    jacobian : array (3, nv)
    friction : float
    least, most : float
        Of the force along the normal, in newtons.
    frame : array (3, 3)
        Rows: two tangents and the normal, in the world.
    """

    jacobian: Floats
    friction: float
    least: float
    most: float
    frame: Floats


@dataclass(frozen=True, eq=False)
class Solution:
    """What was found.

    Attributes
    ----------
    acceleration : array (nv,)
    forces : array (n_contacts, 3)
        On the robot, in the world, in newtons.
    torque : array (n_actuated,)
        In N m.
    solved : bool
        Whether the program was solved; if not no motor does anything, and contacts push as little as they may.
    """

    acceleration: Floats
    forces: Floats
    torque: Floats
    solved: bool


class WholeBodyQP:
    """Torques for tasks.

    Parameters
    ----------
    nv : int
    actuated : array of int (n_actuated,)
        Which of the velocities have a motor.
    limits : array (n_actuated,)
        Of the motors' torques, in N m.

    Attributes
    ----------
    failed : int
        How many programs were not solved.
    """

    def __init__(self, nv: int, actuated: Sequence[int] | NDArray[np.int64], limits: Floats) -> None:
        self.nv = nv
        self.actuated = np.asarray(actuated)
        self.free = np.setdiff1d(np.arange(nv), self.actuated)
        self.limits = np.asarray(limits, dtype=np.float64)
        self.failed = 0

    def solve(self, M: Floats, h: Floats, tasks: Sequence[Task], contacts: Sequence[ContactPoint]) -> Solution:
        """The accelerations, forces and torques that fit the tasks best.

        Parameters
        ----------
        M, h : array (nv, nv), (nv,)
            Of M v' + h = S' tau + J' f.
        tasks : sequence of Task
        contacts : sequence of ContactPoint
        """
        a, u, n = self.actuated, self.free, len(self.actuated)
        size = n + 3 * len(contacts)
        # Forces are in each contact's own frame: there limits are bounds, and friction a pyramid.
        push = [_UNIT * contact.frame @ contact.jacobian for contact in contacts]
        J = np.concatenate(push) if push else np.zeros((0, self.nv))
        # v' = T x + t of the unknowns x.
        T, t = np.zeros((self.nv, size)), np.zeros(self.nv)
        T[a, np.arange(n)] = 1.0
        Mu = M[u]
        right = np.concatenate([-Mu[:, a], J[:, u].T, -h[u, None]], axis=1)
        answer = np.linalg.solve(Mu[:, u], right)
        T[u], t[u] = answer[:, :-1], answer[:, -1]
        rows = np.concatenate([task.jacobian for task in tasks])
        weight = np.empty(len(rows))
        place = 0
        for task in tasks:
            weight[place : place + len(task.target)] = task.weight
            place += len(task.target)
        fit = rows @ T
        miss = np.concatenate([task.target for task in tasks]) - rows @ t
        weighted = fit * weight[:, None]
        hessian = weighted.T @ fit
        # The diagonal.
        hessian.flat[: n * (size + 1) : size + 1] += _CALM
        hessian.flat[n * (size + 1) :: size + 1] += _LIGHT
        gradient = -weighted.T @ miss
        # tau = M_a v' + h_a - J_a' f.
        torque = M[a] @ T
        torque[:, n:] -= J[:, a].T
        start = M[a] @ t + h[a]
        lowest, highest = np.full(size, -1e30), np.full(size, 1e30)
        cone = np.zeros((4 * len(contacts), size))
        for k, contact in enumerate(contacts):
            at = n + 3 * k
            lowest[at + 2], highest[at + 2] = contact.least / _UNIT, contact.most / _UNIT
            cone[4 * k : 4 * k + 4, at : at + 2] = _SIDES
            cone[4 * k : 4 * k + 4, at + 2] = -contact.friction
        matrix = np.concatenate([torque, cone])
        upper = np.concatenate([highest, self.limits - start, np.zeros(len(cone))])
        lower = np.concatenate([lowest, -self.limits - start, np.full(len(cone), -1e30)])
        x, _, flag, _ = daqp.solve(
            hessian, gradient, matrix, upper, lower, np.zeros(len(upper), np.int32), primal_tol=_TOLERANCE
        )
        solved = flag > 0 and bool(np.isfinite(x).all())
        if not solved:
            # No motor does anything, and the ground pushes as little as it may.
            self.failed += 1
            x = np.zeros(size)
            x[n + 2 :: 3] = [contact.least / _UNIT for contact in contacts]
            x[:n] = -np.linalg.lstsq(torque[:, :n], start + torque[:, n:] @ x[n:], rcond=None)[0]
        forces = x[n:].reshape(-1, 3)
        world = [_UNIT * contact.frame.T @ force for contact, force in zip(contacts, forces, strict=True)]
        return Solution(T @ x + t, np.array(world).reshape(-1, 3), torque @ x + start, solved)


def motors_of(model: mujoco.MjModel) -> tuple[tuple[str, ...], Floats]:
    """The joints that motors turn, in the motors' order, and what each motor can do at most, in N m."""
    joints = [model.joint(model.actuator(i).trnid[0]).name for i in range(model.nu)]
    limits = np.abs(model.actuator_forcerange[:, 1])
    return tuple(joints), np.where(model.actuator_forcelimited, limits, np.abs(model.actuator_ctrlrange[:, 1]))
