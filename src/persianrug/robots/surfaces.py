"""Surfaces of geoms: points on them at random, and whether points lie within."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Floats = NDArray[np.float64]

_GEOM = mujoco.mjtGeom
_KINDS = {
    _GEOM.mjGEOM_SPHERE: "sphere",
    _GEOM.mjGEOM_CAPSULE: "capsule",
    _GEOM.mjGEOM_ELLIPSOID: "ellipsoid",
    _GEOM.mjGEOM_CYLINDER: "cylinder",
    _GEOM.mjGEOM_BOX: "box",
    _GEOM.mjGEOM_MESH: "mesh",
}
# An ellipsoid's area is a mean over so many directions.
_DIRECTIONS = 20_000


class Surface:
    """The surface of a geom, in the frame of its body; that of a mesh is its convex hull, as what collides is.

    Parameters
    ----------
    model : mujoco.MjModel
    geom : int

    Attributes
    ----------
    area : float
        In square metres.

    Raises
    ------
    ValueError
        If the geom is of a kind that has no such surface, as a plane.
    """

    def __init__(self, model: mujoco.MjModel, geom: int) -> None:
        kind = _KINDS.get(_GEOM(int(model.geom_type[geom])))
        if kind is None:
            name = _GEOM(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
            raise ValueError(f"its geom {geom} is of kind {name}; allowed: {', '.join(_KINDS.values())}")
        self.kind, self.size = kind, np.array(model.geom_size[geom], dtype=np.float64)
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        self.rotation, self.place = rotation.reshape(3, 3), np.array(model.geom_pos[geom], dtype=np.float64)
        if kind == "mesh":
            mesh = int(model.geom_dataid[geom])
            start = int(model.mesh_vertadr[mesh])
            corners = model.mesh_vert[start : start + int(model.mesh_vertnum[mesh])].astype(np.float64)
            hull = ConvexHull(corners)
            self._planes, self._corners = hull.equations, corners[hull.simplices]
            one, two = self._corners[:, 1] - self._corners[:, 0], self._corners[:, 2] - self._corners[:, 0]
            self._parts: Floats = np.linalg.norm(np.cross(one, two), axis=1) / 2
        else:
            self._parts = self._areas()
        self.area = float(self._parts.sum())

    def _areas(self) -> Floats:
        """The areas of the parts of the surface: sides and ends, or pairs of faces."""
        a, b, c = self.size.tolist()
        round_ = 2 * np.pi * a
        areas = {
            "sphere": [2 * round_ * a],
            "capsule": [2 * round_ * b, 2 * round_ * a],
            "cylinder": [2 * round_ * b, round_ * a],
            "box": [8 * b * c, 8 * a * c, 8 * a * b],
        }
        if self.kind == "ellipsoid":
            ball = _directions(_DIRECTIONS, np.random.default_rng(0))
            return np.array([4 * np.pi * self._stretch(ball).mean()])
        return np.array(areas[self.kind])

    def _stretch(self, ball: Floats) -> Floats:
        """How many times as large as the unit ball's the ellipsoid's surface is, at directions (k, 3)."""
        return float(self.size.prod()) * np.linalg.norm(ball / self.size, axis=1)

    def sample(self, count: int, random: np.random.Generator) -> tuple[Floats, Floats]:
        """Points, as many for every square metre, and the normals there; both (count, 3)."""
        part = random.choice(len(self._parts), size=count, p=self._parts / self.area)
        place, normal = self._points(part, random)
        return place @ self.rotation.T + self.place, normal @ self.rotation.T

    def _points(self, part: NDArray[np.int64], random: np.random.Generator) -> tuple[Floats, Floats]:
        count, (a, b, _) = len(part), self.size.tolist()
        if self.kind == "mesh":
            u, v = np.sqrt(random.random(count)), random.random(count)
            share = np.stack([1 - u, u * (1 - v), u * v], axis=1)
            return np.einsum("kc,kcx->kx", share, self._corners[part]), self._planes[part, :3]
        if self.kind == "box":
            place = random.uniform(-1, 1, (count, 3))
            normal = np.zeros((count, 3))
            rows = np.arange(count)
            normal[rows, part] = place[rows, part] = random.choice([-1.0, 1.0], count)
            return place * self.size, normal
        if self.kind == "ellipsoid":
            ball = _directions(0, random)
            while len(ball) < count:
                more = _directions(count, random)
                stretch = self._stretch(more) / (float(self.size.prod()) / float(self.size.min()))
                ball = np.concatenate([ball, more[random.random(count) < stretch]])
            ball = ball[:count]
            normal = ball / self.size
            return ball * self.size, normal / np.linalg.norm(normal, axis=1, keepdims=True)
        ball = _directions(count, random)
        if self.kind == "sphere":
            return a * ball, ball
        side = part == 0
        around = _directions(count, random, 2)
        up = np.where(ball[:, 2] > 0, 1.0, -1.0)
        normal = ball if self.kind == "capsule" else np.stack([0 * up, 0 * up, up], axis=1)
        normal[side] = np.column_stack([around, 0 * up])[side]
        place = a * normal
        if self.kind == "cylinder":
            place[~side, :2] = (a * np.sqrt(random.random(count))[:, None] * around)[~side]
            place[~side, 2] = 0.0
        place[:, 2] += b * np.where(side, random.uniform(-1, 1, count), up)
        return place, normal

    def contains(self, points: Floats) -> NDArray[np.bool_]:
        """Which points (k, 3) lie within."""
        place = (points - self.place) @ self.rotation
        a, b, _ = self.size.tolist()
        if self.kind == "mesh":
            inside = np.ones(len(place), dtype=bool)
            for plane in self._planes:
                inside &= place @ plane[:3] + plane[3] < 0
            return inside
        if self.kind == "box":
            return np.asarray((np.abs(place) < self.size).all(axis=1))
        if self.kind == "ellipsoid":
            return np.asarray(np.square(place / self.size).sum(axis=1) < 1)
        if self.kind == "cylinder":
            return (np.abs(place[:, 2]) < b) & (np.hypot(place[:, 0], place[:, 1]) < a)
        if self.kind == "capsule":
            place[:, 2] -= np.clip(place[:, 2], -b, b)
        return np.square(place).sum(axis=1) < a**2


def _directions(count: int, random: np.random.Generator, axes: int = 3) -> Floats:
    """Unit vectors (count, axes), all directions as likely."""
    found = random.standard_normal((count, axes))
    return found / np.linalg.norm(found, axis=1, keepdims=True)
