"""What is special about a robot, as data: everything else in this folder is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from persianrug.robots.taxels import Patch


class Kind(Enum):
    """How an end effector touches."""

    POINT = "point"
    LINE = "line"
    FLAT = "flat"
    WHEEL = "wheel"


@dataclass(frozen=True)
class EndEffector:
    """A foot or a wheel.

    Parameters
    ----------
    name : str
    kind : Kind
    geom : str
        Of the model: what touches the ground. Of a point it is a sphere, of a line a capsule, of a sole a box,
        and of a wheel an ellipsoid that turns about its y axis.
    joints : tuple of str
        Of its limb, from the base outwards.
    patch : str
        The patch of skin that it wears.
    site : str
        Of lines and flat soles: the site in the middle of the underside, x forward and z up.
    """

    name: str
    kind: Kind
    geom: str
    joints: tuple[str, ...]
    patch: str
    site: str = ""


@dataclass(frozen=True)
class Arm:
    """An arm with a gripper of two parts: a jaw that is part of the hand, and a finger that closes on it.

    Parameters
    ----------
    joints : tuple of str
        From the base outwards, without the finger's.
    grasp : str
        The site on the hand where what is held is. Its x axis points out of the gripper, y along what is held, z
        from jaw to finger.
    finger : str
        The finger's joint; 0 is closed, and negative angles open it.
    opened : float
        The finger's angle when it is wide open, in rad.
    reach : float
        From the finger's hinge to where it presses, in metres.
    jaw_patch, finger_patch : str
        The patches of skin on the two.
    stowed, ready : tuple of float
        Angles of the joints when the arm is folded away, and when it is about to reach for something, in rad.
    """

    joints: tuple[str, ...]
    grasp: str
    finger: str
    opened: float
    reach: float
    jaw_patch: str
    finger_patch: str
    stowed: tuple[float, ...]
    ready: tuple[float, ...]


@dataclass(frozen=True)
class RobotSpec:
    """A robot, as data.

    Parameters
    ----------
    name : str
        As users type it.
    title : str
        As they read it.
    mjcf : Path
        The file of its model: the robot alone, with a free joint first.
    base : str
        The body with the free joint.
    height : float
        Of the base's origin above the ground where it stands, in metres.
    feet : tuple of EndEffector
    posture : mapping of str to float
        Angles of joints where it stands, in rad; others are 0.
    patches : tuple of Patch
        Of its skin.
    codes : tuple of tuple of str
        Patches that share a code of their own; all others share one more.
    arm : Arm, optional
    ties : mapping of str to mapping of str to float
        Joints with stiff springs and no motor, which the controller takes as rigid: the speed of each is the sum
        of other joints' speeds with these factors.
    step : float
        Of the physics, in seconds: stiff springs need shorter ones.
    """

    name: str
    title: str
    mjcf: Path = field(repr=False)
    base: str
    height: float
    # What is printed says which robot it is; these would be pages.
    feet: tuple[EndEffector, ...] = field(repr=False)
    posture: Mapping[str, float] = field(repr=False)
    patches: tuple[Patch, ...] = field(repr=False)
    codes: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    arm: Arm | None = field(default=None, repr=False)
    ties: Mapping[str, Mapping[str, float]] = field(default_factory=dict, repr=False)
    step: float = 0.002
