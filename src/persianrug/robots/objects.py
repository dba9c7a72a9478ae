"""What stands around robots: a floor, a bar, a stand, a can, and a person's hand, each added to a mujoco.MjSpec.

Add them to the robot's own model, so that its joints and motors stay first. All lengths are in metres, masses in
kg and forces in newtons. Geoms of group 2 are seen, those of group 3 only collide.
"""

from __future__ import annotations

import math
from typing import Any

import mujoco

from persianrug._support import checks

# Of what touches robots, and each other.
_TOUCHES = {"contype": 3, "conaffinity": 3}
# What others stand on; what is held by robots and people; what stands on the first alone.
_GROUND = {"contype": 10, "conaffinity": 3}
_HELD = {"contype": 0, "conaffinity": 1}
_STANDS = {"contype": 0, "conaffinity": 8}
# Along each rim of a can so many balls, of so many metres.
_BALLS, _BALL = 8, 0.002
_SEEN = {"contype": 0, "conaffinity": 0, "mass": 0.0, "group": 2}
_HIDDEN = 3

# Of a can of 330 ml: radius, and half the height.
CAN_RADIUS, CAN_HALF = 0.033, 0.0575

# Contacts of a can are its own whatever touches it, and hard: MuJoCo's are as soft as bodies are light, so that a
# grip of 50 N would press an empty can 12 mm into the gripper.
_HARD = {"solref": [0.005, 1], "solimp": [0.95, 0.99, 0.001, 0.5, 2], "solmix": 1000.0}

# A person's hand: it is drawn to where it should be by so much, in N/m, damped by so much, in N s/m, with so much.
_STIFFNESS, _DAMPING, _STRONGEST = 400.0, 25.0, 25.0
# The fingers' middles are so far from the hand's; they open by so much, and close until both are nearer to each
# other than a can is high by 15 mm.
_FINGERS_APART, _FINGERS_OPEN, _FINGERS_CLOSE = 0.08, -0.012, 0.022
_FINGER_FORCES = (-10.0, 60.0)

_PLANE, _BOX = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
_CYLINDER, _CAPSULE = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE
_ELLIPSOID, _SPHERE = mujoco.mjtGeom.mjGEOM_ELLIPSOID, mujoco.mjtGeom.mjGEOM_SPHERE

_SKIN, _SLEEVE, _CUFF = [0.87, 0.66, 0.53, 1.0], [0.20, 0.33, 0.55, 1.0], [0.93, 0.93, 0.93, 1.0]
_RED, _SILVER = [0.80, 0.10, 0.12, 1.0], [0.75, 0.76, 0.78, 1.0]
_WOOD, _TOP = [0.88, 0.87, 0.84, 1.0], [0.55, 0.42, 0.30, 1.0]
_BAR, _STRIPE = [0.55, 0.42, 0.30, 1.0], [0.90, 0.88, 0.80, 1.0]


def add_floor(spec: mujoco.MjSpec, friction: float) -> None:
    """Add the geom `floor`, flat at height 0, with a sky and lights.

    Parameters
    ----------
    spec : mujoco.MjSpec
    friction : float
        Coefficient of sliding, which MuJoCo takes the larger of two of.
    """
    _check_spec(spec)
    friction = _friction(friction)
    spec.add_texture(name="floor", type=mujoco.mjtTexture.mjTEXTURE_2D,
                     builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER, rgb1=[0.80, 0.81, 0.82],
                     rgb2=[0.72, 0.74, 0.76], width=256, height=256)  # fmt: skip
    spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
                     builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
                     rgb1=[0.93, 0.95, 0.97], rgb2=[0.62, 0.70, 0.79], width=256, height=1536)  # fmt: skip
    material = spec.add_material(name="floor", texrepeat=[2, 2], texuniform=True, specular=0.1, shininess=0.1)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    world = spec.worldbody
    world.add_geom(name="floor", type=_PLANE, size=[20, 20, 0.1], material="floor",
                   friction=[friction, 0.02, 0.01], **_GROUND)  # fmt: skip
    directional = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    world.add_light(name="key", type=directional, pos=[2, -3, 5], dir=[-0.25, 0.45, -1],
                    diffuse=[0.45, 0.45, 0.43], specular=[0.3, 0.3, 0.3], castshadow=True)  # fmt: skip
    world.add_light(name="fill", type=directional, pos=[-3, 3, 4], dir=[0.6, -0.6, -0.8],
                    diffuse=[0.18, 0.19, 0.20], specular=[0, 0, 0], castshadow=False)  # fmt: skip
    spec.visual.headlight.ambient = [0.28, 0.28, 0.29]
    spec.visual.headlight.diffuse = [0.20, 0.20, 0.20]
    spec.visual.headlight.specular = [0.05, 0.05, 0.05]


def add_bar(spec: mujoco.MjSpec, front: float, depth: float, height: float, friction: float) -> None:
    """Add the geom `bar`, 1.8 m wide, across the x axis.

    Parameters
    ----------
    spec : mujoco.MjSpec
    front : float
        x of its front, in metres.
    depth, height : float
        Along x and z, in metres.
    friction : float
        Coefficient of sliding.
    """
    _add_across(spec, "bar", front, depth, height, friction, half_width=0.9, rgba=_BAR)
    middle, half = front + depth / 2, height / 2
    for side in (-0.6, 0.0, 0.6):
        spec.worldbody.add_geom(type=_BOX, size=[depth / 2 + 5e-4, 0.15, half + 5e-4], pos=[middle, side, half],
                                rgba=_STRIPE, **_SEEN)  # fmt: skip


def add_slab(spec: mujoco.MjSpec, name: str, front: float, depth: float, height: float, friction: float) -> None:
    """Add a geom, 3 m wide, across the x axis, on which robots can walk.

    Parameters
    ----------
    spec : mujoco.MjSpec
    name : str
    front : float
        x of its front, in metres.
    depth, height : float
        Along x and z, in metres.
    friction : float
        Coefficient of sliding.
    """
    _add_across(spec, name, front, depth, height, friction, half_width=1.5, rgba=_WOOD)


def _add_across(
    spec: mujoco.MjSpec, name: str, front: float, depth: float, height: float, friction: float, *,
    half_width: float, rgba: list[float],
) -> None:  # fmt: skip
    """Add a box that lies across the x axis."""
    _check_spec(spec)
    front, depth = checks.finite("front", front), checks.positive("depth", depth)
    height, friction = checks.positive("height", height), _friction(friction)
    spec.worldbody.add_geom(name=name, type=_BOX, size=[depth / 2, half_width, height / 2],
                            pos=[front + depth / 2, 0, height / 2], rgba=rgba,
                            friction=[friction, 0.02, 0.01], **_GROUND)  # fmt: skip


def add_ramp(
    spec: mujoco.MjSpec,
    name: str,
    front: float,
    length: float,
    slope: float,
    friction: float,
    *,
    down: bool = False,
) -> float:
    """Add a geom, 3 m wide, that goes up along the x axis, or down again; returns its height where it is highest.

    Parameters
    ----------
    spec : mujoco.MjSpec
    name : str
    front : float
        x where it begins, in metres.
    length : float
        Along x, in metres.
    slope : float
        In rad.
    friction : float
        Coefficient of sliding.
    down : bool
        Whether it begins at its highest.
    """
    _check_spec(spec)
    front, length = checks.finite("front", front), checks.positive("length", length)
    slope, friction = checks.positive("slope", slope), _friction(friction)
    along, half = length / math.cos(slope) / 2, 0.05
    height, tilt = length * math.tan(slope), slope if down else -slope
    # The middle of its upper face is half way up.
    middle = [front + length / 2 - half * math.sin(tilt), 0.0, height / 2 - half * math.cos(slope)]
    spec.worldbody.add_geom(name=name, type=_BOX, size=[along, 1.5, half], pos=middle, rgba=_WOOD,
                            quat=[math.cos(tilt / 2), 0, math.sin(tilt / 2), 0],
                            friction=[friction, 0.02, 0.01], **_GROUND)  # fmt: skip
    return height


def add_stand(spec: mujoco.MjSpec, x: float, y: float, height: float) -> None:
    """Add the body and geom `stand`, a round one of 24 cm, and the body `stand_top` in the middle of its top.

    Parameters
    ----------
    spec : mujoco.MjSpec
    x, y, height : float
        In metres.
    """
    _check_spec(spec)
    x, y, height = checks.finite("x", x), checks.finite("y", y), checks.positive("height", height)
    stand = spec.worldbody.add_body(name="stand", pos=[x, y, height / 2])
    stand.add_geom(name="stand", type=_CYLINDER, size=[0.12, height / 2, 0], rgba=_WOOD,
                   friction=[0.6, 0.01, 0.001], **_GROUND)  # fmt: skip
    stand.add_geom(type=_CYLINDER, size=[0.1205, 0.008, 0], pos=[0, 0, height / 2 - 0.0078], rgba=_TOP, **_SEEN)
    stand.add_body(name="stand_top", pos=[0, 0, height / 2])


def add_can(spec: mujoco.MjSpec, x: float, y: float, z: float, mass: float) -> None:
    """Add the body, free joint and geom `can`: a standing cylinder of 66 by 115 mm.

    Parameters
    ----------
    spec : mujoco.MjSpec
    x, y, z : float
        Where its middle is, in metres.
    mass : float
        In kg; a full one is of 0.37, an empty one of 0.015.
    """
    _check_spec(spec)
    place = [checks.finite(name, value) for name, value in (("x", x), ("y", y), ("z", z))]
    can = spec.worldbody.add_body(name="can", pos=place)
    can.add_freejoint(name="can")
    can.add_geom(name="can", type=_CYLINDER, size=[CAN_RADIUS, CAN_HALF, 0], mass=checks.positive("mass", mass),
                 rgba=_RED, friction=[0.8, 0.02, 0.002], condim=4, **_HARD, **_HELD)  # fmt: skip
    # Between a cylinder and what it stands on MuJoCo finds, once in a while, a contact that is not there, and the
    # can flies off. Balls along both rims are found exactly.
    for end in (-1, 1):
        for k in range(_BALLS):
            angle = 2 * math.pi * k / _BALLS
            around = CAN_RADIUS - _BALL
            place = [around * math.cos(angle), around * math.sin(angle), end * (CAN_HALF - _BALL)]
            can.add_geom(type=_SPHERE, size=[_BALL, 0, 0], pos=place, mass=0.0, group=_HIDDEN,
                         friction=[0.6, 0.01, 0.001], **_HARD, **_STANDS)  # fmt: skip
    for end in (-1, 1):
        can.add_geom(type=_CYLINDER, size=[CAN_RADIUS + 3e-4, 0.004, 0], pos=[0, 0, end * (CAN_HALF - 0.0038)],
                     rgba=_SILVER, **_SEEN)  # fmt: skip
    can.add_geom(type=_CYLINDER, size=[CAN_RADIUS + 2e-4, 0.012, 0], pos=[0, 0, 0.008], rgba=_CUFF, **_SEEN)


def add_person(spec: mujoco.MjSpec) -> None:
    """Add a person's hand, which comes along x from the front and grips a can at its ends.

    The body `person`, whose origin is where the can's middle should be, slides by the joints and motors
    `person_x`, `person_y` and `person_z`: springs to their targets (m), of 400 N/m and at most 25 N. Its fingers,
    the bodies, joints and motors `person_top` and `person_bottom`, close with the motors' forces (N), on the
    can's ends and not much further. The hand itself weighs nothing.
    """
    _check_spec(spec)
    hand = spec.worldbody.add_body(name="person", gravcomp=1)
    for i, axis in enumerate("xyz"):
        name = f"person_{axis}"
        hand.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[float(i == k) for k in range(3)],
                       damping=_DAMPING)  # fmt: skip
        _add_motor(spec, name, gain=_STIFFNESS, biastype=mujoco.mjtBias.mjBIAS_AFFINE,
                   biasprm=[0.0, -_STIFFNESS] + [0.0] * 8, forcelimited=True,
                   forcerange=[-_STRONGEST, _STRONGEST])  # fmt: skip
    hand.add_geom(name="palm", type=_BOX, size=[0.015, 0.05, 0.04], pos=[0.06, 0, 0], mass=0.5, group=_HIDDEN,
                  **_TOUCHES)  # fmt: skip
    _draw_palm(hand)
    for name, side in (("person_bottom", -1.0), ("person_top", 1.0)):
        finger = hand.add_body(name=name, pos=[0, 0, side * _FINGERS_APART], gravcomp=1)
        finger.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -side], limited=True,
                         range=[_FINGERS_OPEN, _FINGERS_CLOSE], damping=8.0)  # fmt: skip
        finger.add_geom(name=name, type=_BOX, size=[0.04, 0.025, 0.008], pos=[0.02, 0, 0], mass=0.1, group=_HIDDEN,
                        friction=[1.0, 0.02, 0.002], condim=4, **_TOUCHES)  # fmt: skip
        _draw_finger(finger, side)
        _add_motor(spec, name, gain=1.0, ctrllimited=True, ctrlrange=_FINGER_FORCES)


def _add_motor(spec: mujoco.MjSpec, joint: str, *, gain: float, **more: Any) -> None:
    spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT,
                      gaintype=mujoco.mjtGain.mjGAIN_FIXED, gainprm=[gain] + [0.0] * 9, **more)  # fmt: skip


def _draw_palm(hand: Any) -> None:
    """The palm, and an arm in a sleeve behind it."""
    hand.add_geom(type=_ELLIPSOID, size=[0.024, 0.05, 0.055], pos=[0.07, 0, 0], rgba=_SKIN, **_SEEN)
    _draw_rod(hand, [0.075, 0, 0], [0.15, 0, -0.01], 0.029, _SKIN)
    _draw_rod(hand, [0.16, 0, -0.012], [0.175, 0, -0.014], 0.036, _CUFF)
    _draw_rod(hand, [0.19, 0, -0.016], [0.62, 0, -0.09], 0.044, _SLEEVE)


def _draw_finger(finger: Any, side: float) -> None:
    """Three fingers on top, or the thumb below, with knuckles that reach to the palm."""
    places, radius = ((-0.017, 0.0, 0.017), 0.0085) if side > 0 else ((0.0,), 0.0115)
    height = side * (radius - 0.008)
    for y in places:
        tip, knuckle = [-0.018 + 0.3 * abs(y), y, height], [0.056, y, height]
        _draw_rod(finger, tip, knuckle, radius, _SKIN)
        _draw_rod(finger, knuckle, [0.072, y, -side * 0.045], radius * 1.1, _SKIN)


def _draw_rod(body: Any, start: list[float], end: list[float], radius: float, rgba: list[float]) -> None:
    body.add_geom(type=_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], rgba=rgba, **_SEEN)


def _check_spec(spec: mujoco.MjSpec) -> None:
    checks.instance("spec", spec, mujoco.MjSpec)


def _friction(value: float) -> float:
    return checks.positive("friction", value)
