"""Numbers of the humanoid, and whose they are.

Modelled is the hydraulic Atlas of 2016 to 2018, of which its maker published height, mass, payload and the number
of joints, and others little more; the larger Atlas of DARPA's Robotics Challenge is quoted where it differs.
Lengths of limbs, masses of parts, torques and ends of joints are ours.
"""

from __future__ import annotations

import mujoco
import numpy as np

from persianrug.robots.facts import Fact, highest, lowest, mass, motors, offset, place, size, torque

_MAKER = "Atlas of 2018, as Boston Dynamics' page told it then"
_SHARES = "the Atlas before, as wevolver.com tells it: 6 a leg, 6 an arm, 3 in the back, 1 in the neck"
_LARGER = "the Atlas of DARPA's Robotics Challenge, as cnn.com told it on 16 July 2013"
_OURS = "ours; Atlas's is not published"


def _height(model: mujoco.MjModel) -> float:
    """From the soles to the top of the head where all angles are 0, in m."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    head, sole = model.geom("head"), model.geom("l_sole")
    top = data.geom_xpos[head.id][2] + head.size[0]
    return float(top - data.geom_xpos[sole.id][2] + sole.size[2])


def _hinges(model: mujoco.MjModel) -> float:
    """How many joints turn."""
    return float(np.sum(model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE))


def _below_ankle(model: mujoco.MjModel) -> float:
    """From the ankle to the underside of the sole, in m."""
    return -float(model.site("l_under").pos[2])


_LINKS = (
    ("from the pelvis to the hips, sideways", 0.1, "l_hip", 1),
    ("from the pelvis to the hips, up", -0.05, "l_hip", 2),
    ("from the hip to the knee, up", -0.37, "l_shank", 2),
    ("from the knee to the ankle, up", -0.37, "l_ankle", 2),
    ("from the waist to the shoulder, sideways", 0.25, "l_shoulder", 1),
    ("from the waist to the shoulder, up", 0.31, "l_shoulder", 2),
    ("from the shoulder to the elbow, sideways", 0.03, "l_forearm", 1),
    ("from the shoulder to the elbow, up", -0.28, "l_forearm", 2),
    ("from the elbow to the wrist, up", -0.22, "l_wrist", 2),
    ("from the waist to the neck, up", 0.385, "head", 2),
)
_MASSES = (
    ("pelvis", 12.0, ("pelvis",)),
    ("torso", 26.0, ("torso",)),
    ("head", 3.0, ("head",)),
    ("thigh", 6.0, ("l_thigh",)),
    ("shank", 3.5, ("l_shank",)),
    ("foot", 1.3, ("l_foot",)),
    ("upper arm", 1.2, ("l_upper_arm",)),
    ("forearm", 1.3, ("l_forearm",)),
    ("hand", 0.6, ("l_hand",)),
)
_JOINTS = (
    ("back's yaw", "back_z", -0.7, 0.7, 200.0),
    ("back's pitch", "back_y", -0.3, 0.7, 400.0),
    ("back's roll", "back_x", -0.5, 0.5, 300.0),
    ("neck", "neck_y", -0.6, 0.8, 30.0),
    ("hip's yaw", "l_hip_z", -0.9, 0.9, 150.0),
    ("hip's roll", "l_hip_x", -0.6, 0.6, 350.0),
    ("hip's pitch", "l_hip_y", -2.0, 0.8, 400.0),
    ("knee", "l_knee", 0.02, 2.4, 500.0),
    ("ankle's pitch", "l_ankle_y", -1.1, 0.8, 300.0),
    ("ankle's roll", "l_ankle_x", -0.7, 0.7, 120.0),
    ("shoulder's pitch", "l_sh_y", -3.0, 1.5, 120.0),
    ("left shoulder's roll", "l_sh_x", -0.2, 1.7, 120.0),
    ("upper arm's yaw", "l_sh_z", -1.5, 1.5, 80.0),
    ("elbow", "l_elbow", -2.3, -0.05, 80.0),
    ("wrist's yaw", "l_wr_z", -1.5, 1.5, 40.0),
    ("wrist's pitch", "l_wr_y", -1.0, 1.0, 40.0),
)

FACTS: tuple[Fact, ...] = (
    Fact("height", 1.5, "m", _MAKER, _height),
    Fact("mass", 80.0, "kg",
         "the Atlas of 2016, as alphr.com told it: 180 lb, rounded; its maker had 75 kg in 2018, later 89 kg",
         mass("pelvis", below=True)),
    Fact("joints", 28, "", _MAKER, _hinges),
    Fact("motors", 28, "", _SHARES, motors),
    Fact("payload", 11.0, "kg", _MAKER),
    Fact("height of the larger Atlas", 1.88, "m", _LARGER + ": 6 feet 2 inches; it is not modelled"),
    Fact("mass of the larger Atlas", 150.0, "kg", _LARGER + ": 330 pounds; it is not modelled"),
    Fact("mass of a leg", 13.5, "kg", _OURS, mass("l_hip", below=True)),
    Fact("mass of an arm", 5.0, "kg", _OURS, mass("l_shoulder", below=True)),
    *(Fact(f"mass of the {what}", value, "kg", _OURS, mass(*bodies)) for what, value, bodies in _MASSES),
    *(Fact(what, value, "m", _OURS, offset(body, axis)) for what, value, body, axis in _LINKS),
    Fact("from the ankle down to the ground", 0.075, "m", _OURS, _below_ankle),
    Fact("from the ankle to the sole's middle, forward", 0.035, "m", _OURS, place("l_sole", 0)),
    Fact("half the sole's length", 0.125, "m", _OURS, size("l_sole", 0)),
    Fact("half the sole's width", 0.06, "m", _OURS, size("l_sole", 1)),
    Fact("half the sole's thickness", 0.0125, "m", _OURS, size("l_sole", 2)),
    *(Fact(f"lower end of the {what}", low, "rad", _OURS, lowest(joint)) for what, joint, low, _, _ in _JOINTS),
    *(Fact(f"upper end of the {what}", high, "rad", _OURS, highest(joint)) for what, joint, _, high, _ in _JOINTS),
    *(Fact(f"torque of the {what}", most, "N m", _OURS, torque(joint)) for what, joint, _, _, most in _JOINTS),
)  # fmt: skip
