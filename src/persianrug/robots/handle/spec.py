"""A robot of Handle's class, as data."""

from __future__ import annotations

from pathlib import Path

from persianrug.robots.spec import EndEffector, Kind, RobotSpec
from persianrug.robots.taxels import Patch

SIDES = ("l", "r")

_PATCHES = (
    *(Patch(f"{side}_wheel", f"{side}_wheel_link", 384) for side in SIDES),
    *(Patch(f"{side}_shank", f"{side}_shank", 256) for side in SIDES),
    *(Patch(f"{side}_thigh", f"{side}_thigh", 256) for side in SIDES),
    *(Patch(f"{side}_arm", f"{side}_arm", 384) for side in SIDES),
    Patch("trunk", "trunk", 1536),
)

SPEC = RobotSpec(
    name="handle",
    title="Handle class",
    mjcf=Path(__file__).with_name("handle.xml"),
    base="trunk",
    height=1.0,
    feet=tuple(
        EndEffector(
            side,
            Kind.WHEEL,
            f"{side}_tire",
            tuple(f"{side}_{joint}" for joint in ("roll", "hip", "knee", "wheel")),
            f"{side}_wheel",
        )
        for side in SIDES
    ),
    # The hips are 1 m above the ground, the trunk is upright, and the axles are below the centre of mass.
    posture={f"{side}_{joint}": angle for side in SIDES for joint, angle in (("hip", -0.6994), ("knee", 1.2825))},
    patches=_PATCHES,
    codes=(tuple(f"{side}_wheel" for side in SIDES),),
    step=0.002,
)
