"""A biped of Cassie's class, as data."""

from __future__ import annotations

from pathlib import Path

from persianrug.robots.spec import EndEffector, Kind, RobotSpec
from persianrug.robots.taxels import Patch

SIDES = ("l", "r")
_JOINTS = ("hip_roll", "hip_yaw", "hip_pitch", "knee", "shin", "tarsus", "toe")

_PATCHES = (
    *(Patch(f"{side}_foot", f"{side}_foot", 512) for side in SIDES),
    *(Patch(f"{side}_tarsus", f"{side}_tarsus", 320) for side in SIDES),
    *(Patch(f"{side}_shin", f"{side}_shin", 320) for side in SIDES),
    *(Patch(f"{side}_knee", f"{side}_knee", 64) for side in SIDES),
    *(Patch(f"{side}_thigh", f"{side}_hip_pitch", 320) for side in SIDES),
    *(Patch(f"{side}_hip_yaw", f"{side}_hip_yaw", 64) for side in SIDES),
    *(Patch(f"{side}_hip_roll", f"{side}_hip_roll", 96) for side in SIDES),
    Patch("pelvis", "pelvis", 704),
)

# With springs at rest, soles flat, and the middle of the mass 17 mm behind the middle of the feet.
_POSTURE = {"hip_pitch": 0.4973, "knee": -0.414, "tarsus": 0.414, "toe": -1.5994}

SPEC = RobotSpec(
    name="cassie",
    title="Cassie class",
    mjcf=Path(__file__).with_name("cassie.xml"),
    base="pelvis",
    height=1.0071,
    feet=tuple(
        EndEffector(
            side,
            Kind.LINE,
            f"{side}_foot",
            tuple(f"{side}_{joint}" for joint in _JOINTS),
            f"{side}_foot",
            site=f"{side}_sole",
        )
        for side in SIDES
    ),
    posture={f"{side}_{joint}": angle for side in SIDES for joint, angle in _POSTURE.items()},
    patches=_PATCHES,
    codes=(tuple(f"{side}_foot" for side in SIDES),),
    ties={
        tied: by
        for side in SIDES
        for tied, by in ((f"{side}_shin", {}), (f"{side}_tarsus", {f"{side}_knee": -1.0}))
    },
    step=0.001,
)
