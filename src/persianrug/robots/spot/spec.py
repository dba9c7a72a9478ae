"""A quadruped of SpotMini's class, as data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from persianrug.robots.gait import Gait, trot
from persianrug.robots.spec import Arm, EndEffector, Kind, RobotSpec
from persianrug.robots.taxels import Patch

LEGS = ("fl", "fr", "hl", "hr")

_PATCHES = (
    *(Patch(f"{leg}_foot", f"{leg}_lower", 192, (f"{leg}_foot",)) for leg in LEGS),
    Patch("jaw", "arm_wr1", 512),
    Patch("finger", "finger", 512),
    Patch("wrist", "arm_wr0", 192),
    *(Patch(f"{leg}_lower", f"{leg}_lower", 96) for leg in LEGS),
    *(Patch(f"{leg}_upper", f"{leg}_upper", 128) for leg in LEGS),
    Patch("trunk", "trunk", 768),
    Patch("sh0", "arm_sh0", 96),
    Patch("sh1", "arm_sh1", 128),
    Patch("el0", "arm_el0", 96),
    Patch("el1", "arm_el1", 128),
)

SPEC = RobotSpec(
    name="spot",
    title="SpotMini class",
    mjcf=Path(__file__).with_name("spot.xml"),
    base="trunk",
    height=0.53,
    feet=tuple(
        EndEffector(leg, Kind.POINT, f"{leg}_foot", (f"{leg}_hx", f"{leg}_hy", f"{leg}_kn"), f"{leg}_foot")
        for leg in LEGS
    ),
    posture={f"{leg}_{joint}": angle for leg in LEGS for joint, angle in (("hy", 0.72), ("kn", -1.42))},
    patches=_PATCHES,
    arm=Arm(
        joints=("arm_sh0", "arm_sh1", "arm_el0", "arm_el1", "arm_wr0", "arm_wr1"),
        grasp="grasp",
        finger="finger",
        opened=-1.1,
        reach=0.10,
        jaw_patch="jaw",
        finger_patch="finger",
        stowed=(0.0, -3.0, 3.0, 0.0, 0.0, 0.0),
        ready=(0.0, -1.75, 2.2, 0.0, -0.45, np.pi / 2),
    ),
    codes=(tuple(f"{leg}_foot" for leg in LEGS), ("jaw", "finger")),
)

GAIT = Gait(groups=trot(), period=0.50, duty=0.62, height=SPEC.height)
