"""Numbers of the biped, and whose they are.

Cassie's as its description for Gazebo has them, which Agility Robotics published in 2018; as a simulation of it
has them, where that says nothing; or ours, where neither does.
"""

from __future__ import annotations

import mujoco

from persianrug.robots.facts import Fact, Measure, highest, lowest, mass, motors, offset, place, size, torque

_SDF = "Cassie: cassie_v2.sdf in example-robot-data 6.0.0 (Agility Robotics, ISC licence)"
_PLACES = _SDF + ", from poses of links"
_LUMPED = _SDF + ", with "
_SIMULATED = "Cassie, as osudrl/cassie-mujoco-sim on GitHub simulates it"
_GEARED = _SIMULATED + ": the motor's times the gear's ratio of "
_OURS = "ours"

_MASSES = (
    ("the pelvis", 10.33, "pelvis", _SDF),
    ("a hip's roll", 1.82, "l_hip_roll", _SDF),
    ("a hip's yaw", 1.171, "l_hip_yaw", _SDF),
    ("a thigh", 5.6767, "l_hip_pitch", _LUMPED + "the achilles rod"),
    ("a knee", 0.7578, "l_knee", _SDF),
    ("a shin", 0.577, "l_shin", _SDF),
    ("a tarsus", 1.1527, "l_tarsus", _LUMPED + "the heel's spring, the toe's crank and its rod"),
    ("a foot", 0.1498, "l_foot", _SDF),
)
_LINKS = (
    ("hips' roll from the pelvis, forward", 0.021, "l_hip_roll", 0),
    ("hips' roll from the pelvis, sideways", 0.135, "l_hip_roll", 1),
    ("from the hip's roll to its yaw, forward", -0.07, "l_hip_yaw", 0),
    ("from the hip's yaw to its pitch, up", -0.09, "l_hip_pitch", 2),
    ("from the hip to the knee, along the thigh", 0.12, "l_knee", 0),
    ("from the hip to the knee, sideways", 0.0045, "l_knee", 2),
    ("from the knee to the shin's spring, along the knee", 0.06068, "l_shin", 0),
    ("from the knee to the shin's spring, across", 0.04741, "l_shin", 1),
    ("from the shin's spring to the tarsus, along the shin", 0.43476, "l_tarsus", 0),
    ("from the shin's spring to the tarsus, across", 0.02, "l_tarsus", 1),
    ("from the tarsus to the toe, along the tarsus", 0.408, "l_foot", 0),
    ("from the tarsus to the toe, across", -0.04, "l_foot", 1),
)
_ENDS = (
    ("hip's roll", "l_hip_roll", -0.2618, 0.3491),
    ("hip's yaw", "l_hip_yaw", -0.384, 0.384),
    ("hip's pitch", "l_hip_pitch", -0.8727, 1.3963),
    ("knee", "l_knee", -2.07694, 0.13963),
    ("shin's spring", "l_shin", -0.34907, 0.34907),
    ("tarsus", "l_tarsus", -0.13963, 1.95477),
    ("toe", "l_toe", -2.4435, -0.6109),
)
# Torques, and the inertias of rotors as joints feel them.
_MOTORS = (
    ("hip's roll", "l_hip_roll", 112.5, 0.038125, "25"),
    ("hip's yaw", "l_hip_yaw", 112.5, 0.038125, "25"),
    ("hip's pitch", "l_hip_pitch", 195.2, 0.09344, "16"),
    ("knee", "l_knee", 195.2, 0.09344, "16"),
    ("toe", "l_toe", 45.0, 0.01225, "50"),
)


def _rotor(joint: str) -> Measure:
    """The inertia of a motor's rotor as its joint feels it, in kg m²."""
    return lambda model: float(model.dof_armature[model.joint(joint).dofadr[0]])


def _damping(joint: str) -> Measure:
    """Of a joint, in N m s/rad."""
    return lambda model: float(model.dof_damping[model.joint(joint).dofadr[0]])


def _shin(model: mujoco.MjModel) -> float:
    """The stiffness of its spring, in N m/rad."""
    return float(model.jnt_stiffness[model.joint("l_shin").id])


def _heel(model: mujoco.MjModel) -> float:
    """The stiffness of its spring, in N m/rad."""
    return float(model.tendon_stiffness[model.tendon("l_heel").id])


FACTS: tuple[Fact, ...] = (
    Fact("mass", 32.94, "kg", _SDF + ", summed over its links", mass("pelvis", below=True)),
    Fact("mass of a leg", 11.305, "kg", _SDF + ", summed over its links", mass("l_hip_roll", below=True)),
    *(Fact(f"mass of {what}", value, "kg", source, mass(body)) for what, value, body, source in _MASSES),
    Fact("motors", 10, "", _SIMULATED, motors),
    *(Fact(what, value, "m", _PLACES, offset(body, axis)) for what, value, body, axis in _LINKS),
    Fact("radius of a foot", 0.0168, "m", _SDF, size("l_foot")),
    Fact("half a foot's length without its ends", 0.08988, "m", "ours; 0.09 in " + _SDF, size("l_foot", 1), 1e-4),
    Fact("from the toe's hinge to the foot's middle, along its x axis", 0.01, "m", _SDF, place("l_foot", 0)),
    Fact("from the toe's hinge to the foot's middle, along its y axis", 0.045, "m", _SDF, place("l_foot", 1)),
    *(Fact(f"lower end of the {what}", low, "rad", _SDF, lowest(joint)) for what, joint, low, _ in _ENDS),
    *(Fact(f"upper end of the {what}", high, "rad", _SDF, highest(joint)) for what, joint, _, high in _ENDS),
    *(Fact(f"torque of the {what}", most, "N m", _GEARED + ratio, torque(joint))
      for what, joint, most, _, ratio in _MOTORS),
    *(Fact(f"inertia of the {what}'s rotor, as the joint feels it", inertia, "kg m²", _SIMULATED, _rotor(joint))
      for what, joint, _, inertia, _ in _MOTORS),
    Fact("stiffness of the shin's spring", 1500.0, "N m/rad", _SDF, _shin),
    Fact("stiffness of the heel's spring", 1250.0, "N m/rad",
         _SDF + ", where it is about the spring's own hinge; ours is about the sum of the angles", _heel),
    Fact("knee and tarsus together, with springs at rest", 0.0, "rad",
         "ours at all angles, from the SDF's zeroes, which are -45 and 58 degrees; that the tarsus has 13 degrees "
         "less the knee is what the README of cassie_description on GitHub says that others use, and calls rough",
         lambda model: float(model.tendon_lengthspring[model.tendon("l_heel").id].max())),
    *(Fact(f"damping of the {what}", value, "N m s/rad", _SDF, _damping(joint)) for what, value, joint in (
        ("hip's roll", 1.0, "l_hip_roll"), ("hip's yaw", 1.0, "l_hip_yaw"), ("hip's pitch", 1.0, "l_hip_pitch"),
        ("knee", 1.0, "l_knee"), ("tarsus", 0.1, "l_tarsus"), ("toe", 1.0, "l_toe"),
    )),
    Fact("damping of the shin's spring", 1.0, "N m s/rad", "ours; 0.1 in " + _SDF, _damping("l_shin")),
    Fact("damping of the heel's spring", 2.0, "N m s/rad", _OURS,
         lambda model: float(model.tendon_damping[model.tendon("l_heel").id])),
    Fact("friction of a foot", 0.9, "", _OURS, lambda model: float(model.geom("l_foot").friction[0])),
)  # fmt: skip
