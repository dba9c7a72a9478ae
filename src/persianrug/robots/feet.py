"""Feet as their kinds are: where the middle of each is, how it is turned, and where it can touch."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug.robots.spec import EndEffector, Kind, RobotSpec

Floats = NDArray[np.float64]


class FeetFrames:
    """The frames of a robot's feet.

    Of a point or a wheel that is its geom's: the middle of a sphere or ellipsoid. Of a line or a flat sole it is
    in the middle of the underside, x forward and z up.

    Parameters
    ----------
    model : mujoco.MjModel
    spec : RobotSpec

    Attributes
    ----------
    bodies : list of int
    points : list of array (k, 3)
        Where each foot can touch, in its frame, in metres: the middle of a point or a wheel, the ends of a line,
        and the corners of a sole.
    below : array (n_feet,)
        How far the lowest point of a foot that stands upright is below its middle, in metres.
    """

    def __init__(self, model: mujoco.MjModel, spec: RobotSpec) -> None:
        self._geoms = [model.geom(foot.geom).id for foot in spec.feet]
        self._sites = [model.site(foot.site).id if foot.site else None for foot in spec.feet]
        self.bodies = [int(model.geom_bodyid[geom]) for geom in self._geoms]
        self.points = [_points(model, foot) for foot in spec.feet]
        self.below = np.array([_below(model, foot) for foot in spec.feet])
        self._sizes = [model.geom_size[geom].copy() for geom in self._geoms]

    def places(self, data: mujoco.MjData) -> Floats:
        """Where their middles are (n_feet, 3)."""
        return np.array(
            [
                data.geom_xpos[geom] if site is None else data.site_xpos[site]
                for geom, site in zip(self._geoms, self._sites, strict=True)
            ]
        )

    def rotations(self, data: mujoco.MjData) -> Floats:
        """How they are turned (n_feet, 3, 3), from their frames to the world's."""
        return np.array(
            [
                data.geom_xmat[geom] if site is None else data.site_xmat[site]
                for geom, site in zip(self._geoms, self._sites, strict=True)
            ]
        ).reshape(-1, 3, 3)

    def lowest(self, data: mujoco.MjData, i: int, up: Floats) -> Floats:
        """The point (3,) of foot i that touches ground whose normal is `up`, if it stands on it."""
        site = self._sites[i]
        if site is not None:
            return data.site_xpos[site].copy()
        turned, size = data.geom_xmat[self._geoms[i]].reshape(3, 3), self._sizes[i]
        # The support point of an ellipsoid; a sphere's size is its radius.
        axes = np.where(size > 0, size, size[0])
        away = turned @ (axes**2 * (turned.T @ up))
        return data.geom_xpos[self._geoms[i]] - away / np.sqrt(up @ away)


def _points(model: mujoco.MjModel, foot: EndEffector) -> Floats:
    size = model.geom(foot.geom).size
    if foot.kind is Kind.LINE:
        return np.array([[-size[1], 0.0, 0.0], [size[1], 0.0, 0.0]])
    if foot.kind is Kind.FLAT:
        return np.array([[x * size[0], y * size[1], 0.0] for x in (-1, 1) for y in (-1, 1)])
    return np.zeros((1, 3))


def _below(model: mujoco.MjModel, foot: EndEffector) -> float:
    return 0.0 if foot.site else float(model.geom(foot.geom).size[0])
