"""What runs, skills and estimators ask of whatever moves a robot."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from persianrug.robots.arm import ArmController
from persianrug.robots.contacts import ContactReading
from persianrug.robots.dynamics import Dynamics
from persianrug.robots.gait import Command
from persianrug.robots.grip import Grip
from persianrug.robots.spec import RobotSpec
from persianrug.robots.state import RobotState
from persianrug.robots.terrain import Terrain
from persianrug.robots.whole_body import WholeBodyQP

Floats = NDArray[np.float64]


class Planning(Protocol):
    """What a planner of feet or wheels is told, and what it says of them."""

    command: Command
    terrain: Terrain
    stance: NDArray[np.bool_]

    @property
    def threshold(self) -> float:
        """What feels so many newtons carries."""
        ...

    @property
    def settled(self) -> bool:
        """Whether the robot stands."""
        ...


class Planned(Protocol):
    """A plan, as it is logged."""

    @property
    def stance(self) -> NDArray[np.bool_]:
        """Which feet or wheels should stand."""
        ...


class Controller(Protocol):
    """What moves a robot.

    Attributes
    ----------
    arm, grip
        None of robots without.
    load : array (3,)
        The force of what the gripper holds on it, in the world, in newtons.
    """

    spec: RobotSpec
    dynamics: Dynamics
    qp: WholeBodyQP
    arm: ArmController | None
    grip: Grip | None
    load: Floats

    @property
    def planner(self) -> Planning:
        """Where feet should be."""
        ...

    @property
    def plan(self) -> Planned:
        """The last one."""
        ...

    def observe(self, q: Floats, v: Floats, reading: ContactReading, time: float) -> RobotState:
        """Take in the estimated positions (nq,) and velocities (nv,) of this tick, and what is felt."""
        ...

    def act(self, dt: float) -> Floats:
        """What the motors should do (nu,) in this tick of `dt` seconds."""
        ...
