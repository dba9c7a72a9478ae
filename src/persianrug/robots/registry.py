"""The robots that ship, by name."""

from __future__ import annotations

from persianrug.robots.atlas import ROBOT as ATLAS
from persianrug.robots.cassie import ROBOT as CASSIE
from persianrug.robots.handle import ROBOT as HANDLE
from persianrug.robots.robot import Robot
from persianrug.robots.spot import ROBOT as SPOT

ROBOTS: dict[str, Robot] = {robot.spec.name: robot for robot in (SPOT, CASSIE, ATLAS, HANDLE)}
