"""Models of robots, read from MJCF files."""

from __future__ import annotations

import os
from pathlib import Path

import mujoco
import numpy as np

from persianrug._support import checks

# Files of ours have some kB; those with meshes in them are not what a robot is described by.
_LARGEST = 16 << 20


def read_model(path: str | os.PathLike[str]) -> mujoco.MjSpec:
    """The model of a robot, to which a scene can be added.

    Parameters
    ----------
    path : path
        An MJCF file of up to 16 MiB, whose first joint is free and which has motors.

    Returns
    -------
    mujoco.MjSpec
        It compiles.

    Raises
    ------
    ValueError
        In one line: the file is missing, too large, no MJCF, or no robot that moves freely by motors.
    """
    file = Path(checks.path("path", path))
    said = checks.shown(str(file))
    try:
        if not file.is_file():
            raise ValueError(f"path is {said}, no file; allowed: an MJCF file")
        size = file.stat().st_size
    except OSError as error:
        raise ValueError(f"path is {said}: {error.strerror}; allowed: an MJCF file that can be read") from None
    if size > _LARGEST:
        raise ValueError(f"path is {said}, of {size} bytes; allowed: an MJCF file of up to {_LARGEST} bytes")
    try:
        spec = mujoco.MjSpec.from_file(str(file))
        model = spec.compile()
    # MuJoCo raises its errors as ValueError, FatalError or RuntimeError, of several lines.
    except Exception as error:
        raise ValueError(f"path is {said}, no model: {checks.shortened(str(error))}") from None
    _check(said, model)
    return spec


def _check(said: str, model: mujoco.MjModel) -> None:
    """Raise ValueError unless a model moves freely, by motors, and has masses."""
    if model.njnt == 0 or model.jnt_type[0] != mujoco.mjtJoint.mjJNT_FREE:
        raise ValueError(f"path is {said}, whose first joint is not free; allowed: robots that move freely")
    if model.nu == 0:
        raise ValueError(f"path is {said}, without actuators; allowed: robots with motors")
    inertias = np.concatenate([model.body_mass, model.body_inertia.ravel(), model.body_ipos.ravel()])
    if not np.isfinite(inertias).all():
        raise ValueError(f"path is {said}, with masses or inertias that are no numbers; allowed: finite ones")
