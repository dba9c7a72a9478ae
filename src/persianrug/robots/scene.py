"""Scenes: a robot's model with a world around it."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.feet import FeetFrames
from persianrug.robots.fits import check_fit
from persianrug.robots.models import read_model
from persianrug.robots.spec import RobotSpec

Floats = NDArray[np.float64]


def robot_model(spec: RobotSpec) -> mujoco.MjModel:
    """The robot alone, as its controller knows it; ValueError if its spec names what the model does not have."""
    model = read_model(spec.mjcf).compile()
    check_fit(model, spec)
    return model


def build_scene(
    spec: RobotSpec,
    furnish: Callable[[mujoco.MjSpec], None],
    *,
    friction: float = 0.8,
    change: Callable[[mujoco.MjSpec], None] | None = None,
) -> tuple[mujoco.MjModel, str]:
    """The robot in a world, and the same as MJCF.

    Parameters
    ----------
    spec : RobotSpec
    furnish : callable
        Adds everything else.
    friction : float
        Of the feet, as of the ground: MuJoCo takes the larger of two.
    change : callable, optional
        Changes the robot in ways that its controller does not know, as of masses.
    """
    scene = read_model(spec.mjcf)
    check_fit(scene.compile(), spec)
    if change is not None:
        change(scene)
    for foot in spec.feet:
        scene.geom(foot.geom).friction[0] = friction
    furnish(scene)
    scene.option.timestep = spec.step
    scene.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    scene.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    scene.option.impratio = 10
    model = scene.compile()
    return model, scene.to_xml()


def standing(
    model: mujoco.MjModel, spec: RobotSpec, place: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Floats:
    """Positions (nq,) of a scene with the robot standing on flat ground at x, y and yaw."""
    data = mujoco.MjData(model)
    for joint, angle in spec.posture.items():
        data.qpos[model.joint(joint).qposadr[0]] = angle
    if spec.arm is not None:
        for joint, angle in zip(spec.arm.joints, spec.arm.stowed, strict=True):
            data.qpos[model.joint(joint).qposadr[0]] = angle
    x, y, yaw = place
    data.qpos[:7] = x, y, spec.height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
    mujoco.mj_kinematics(model, data)
    frames = FeetFrames(model, spec)
    data.qpos[2] -= min(place[2] - below for place, below in zip(frames.places(data), frames.below, strict=True))
    return data.qpos.copy()


def footprint(model: mujoco.MjModel, spec: RobotSpec) -> Floats:
    """Where the feet are (n_feet, 2) from the base when the robot stands, in its heading."""
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, spec)
    mujoco.mj_kinematics(model, data)
    return FeetFrames(model, spec).places(data)[:, :2] - data.qpos[:2]
