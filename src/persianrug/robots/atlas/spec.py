"""A humanoid of Atlas's class, as data."""

from __future__ import annotations

from pathlib import Path

from persianrug.robots.spec import EndEffector, Kind, RobotSpec
from persianrug.robots.taxels import Patch

SIDES = ("l", "r")
LEG = ("hip_z", "hip_x", "hip_y", "knee", "ankle_y", "ankle_x")

_PATCHES = (
    *(Patch(f"{side}_sole", f"{side}_foot", 640, (f"{side}_sole",)) for side in SIDES),
    *(Patch(f"{side}_hand", f"{side}_hand", 320) for side in SIDES),
    *(Patch(f"{side}_shank", f"{side}_shank", 192) for side in SIDES),
    *(Patch(f"{side}_thigh", f"{side}_thigh", 224) for side in SIDES),
    *(Patch(f"{side}_forearm", f"{side}_forearm", 160) for side in SIDES),
    *(Patch(f"{side}_upper_arm", f"{side}_upper_arm", 128) for side in SIDES),
    Patch("pelvis", "pelvis", 192),
    Patch("torso", "torso", 448),
    Patch("head", "head", 128),
)

_LEGS_BENT = (("hip_y", -0.45), ("knee", 0.9), ("ankle_y", -0.45))
_ARMS_BENT = (("sh_y", 0.2), ("elbow", -0.8))

SPEC = RobotSpec(
    name="atlas",
    title="Atlas class",
    mjcf=Path(__file__).with_name("atlas.xml"),
    base="pelvis",
    height=0.791331,
    feet=tuple(
        EndEffector(
            side,
            Kind.FLAT,
            f"{side}_sole",
            tuple(f"{side}_{joint}" for joint in LEG),
            f"{side}_sole",
            site=f"{side}_under",
        )
        for side in SIDES
    ),
    posture={f"{side}_{joint}": angle for side in SIDES for joint, angle in (*_LEGS_BENT, *_ARMS_BENT)}
    | {"l_sh_x": 0.15, "r_sh_x": -0.15},
    patches=_PATCHES,
    codes=(tuple(f"{side}_sole" for side in SIDES),),
    step=0.002,
)
