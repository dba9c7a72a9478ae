"""Where taxels lie: patches of a robot's bodies, covered evenly on the geoms that collide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import QhullError

from persianrug._support import checks
from persianrug.robots.surfaces import Surface
from persianrug.skin import Layout

Floats = NDArray[np.float64]

# Points to choose from, for each taxel and for each patch at least.
_CHOICE, _LEAST_CHOICE = 16, 4000
# What is nearer than this to the surface of another geom is on it, in metres.
_ON = 2e-4


@dataclass(frozen=True)
class Patch:
    """A part of a robot that is covered with taxels.

    Parameters
    ----------
    name : str
    body : str
        The body that it lies on.
    taxels : int >= 1
        How many.
    geoms : tuple of str
        The geoms of that body that it covers; by default all that collide and are in no other patch's `geoms`.
    """

    name: str
    body: str
    taxels: int
    geoms: tuple[str, ...] = ()


def geoms_of_patches(model: mujoco.MjModel, patches: Sequence[Patch]) -> list[list[int]]:
    """The numbers of the geoms that each patch covers.

    Raises
    ------
    ValueError
        If a patch names a body or geom that there is not, covers none, or covers one of another patch.
    """
    names = [patch.name for patch in patches]
    taken: dict[int, str] = {}
    bodies: list[int] = []
    for patch in patches:
        if names.count(patch.name) > 1:
            raise ValueError(f"patch {patch.name!r} is there twice; allowed: a name of its own for each")
        body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, patch.body)
        if body < 0:
            known = ", ".join(model.body(i).name for i in range(1, model.nbody))
            raise ValueError(f"patch {patch.name!r}: body is {patch.body!r}; allowed: {known}")
        bodies.append(body)
        for name in patch.geoms:
            geom = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, name)
            if geom < 0 or model.geom_bodyid[geom] != body:
                raise ValueError(f"patch {patch.name!r}: geom is {name!r}; allowed: geoms of body {patch.body}")
            if taken.setdefault(geom, patch.name) != patch.name:
                raise ValueError(
                    f"patch {patch.name!r}: geom {name} is of patch {taken[geom]!r} too; allowed: one"
                )
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    found = []
    for patch, body in zip(patches, bodies, strict=True):
        here = [geom for geom, of in taken.items() if of == patch.name]
        if not patch.geoms:
            here = np.flatnonzero((model.geom_bodyid == body) & collides).tolist()
            here = [geom for geom in here if geom not in taken]
            taken |= dict.fromkeys(here, patch.name)
        if not here:
            raise ValueError(
                f"patch {patch.name!r} covers no geom of body {patch.body}; allowed: one that collides"
            )
        found.append(sorted(here))
    return found


def taxel_layout(model: mujoco.MjModel, patches: Sequence[Patch], seed: int = 0) -> Layout:
    """Cover patches with taxels, as evenly as points are that lie as far as can be from those chosen before.

    Parameters
    ----------
    model : mujoco.MjModel
    patches : sequence of Patch
    seed : int >= 0
        Of the points to choose from.

    Raises
    ------
    ValueError
        If a patch is not of this model, or covers geoms that have no surface for taxels; it names the patch.
    """
    if not patches:
        raise ValueError("patches are none; allowed: one or more")
    seed = checks.seed(seed)
    parts: list[tuple[Floats, Floats, float]] = []
    for index, (patch, geoms) in enumerate(zip(patches, geoms_of_patches(model, patches), strict=True)):
        count = checks.integer(f"patch {patch.name!r}: taxels", patch.taxels, 1)
        try:
            shapes = [Surface(model, geom) for geom in geoms]
            parts.append(_covered(shapes, count, np.random.default_rng((seed, index))))
        except (ValueError, QhullError) as error:
            raise ValueError(f"patch {patch.name!r}: {error}") from None
    normal = np.concatenate([normals for _, normals, _ in parts])
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin(axis=1)])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    counts = [len(position) for position, _, _ in parts]
    return Layout(
        np.concatenate([position for position, _, _ in parts]),
        normal,
        np.repeat([area / count for (_, _, area), count in zip(parts, counts, strict=True)], counts),
        np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        tuple(patch.name for patch in patches),
        tuple(patch.body for patch in patches),
        np.stack([first, np.cross(normal, first)], axis=1),
    )


def _covered(shapes: list[Surface], count: int, random: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Positions and normals (count, 3) of taxels on what shapes show together, and its area."""
    areas = np.array([shape.area for shape in shapes])
    most = max(_CHOICE * count, _LEAST_CHOICE)
    positions, normals = [], []
    for index, shape in enumerate(shapes):
        place, normal = shape.sample(max(1, round(most * shape.area / areas.sum())), random)
        seen = np.ones(len(place), dtype=bool)
        for other, hides in enumerate(shapes):
            if other != index:
                seen &= ~hides.contains(place + _ON * normal)
            if other < index:
                # On the surface of both it is of the first.
                seen &= ~hides.contains(place - _ON * normal)
        positions.append(place[seen])
        normals.append(normal[seen])
    position, normal = np.concatenate(positions), np.concatenate(normals)
    if len(position) < count:
        raise ValueError(
            f"its geoms show too little of themselves for {count} taxels; allowed: those with a surface"
        )
    chosen = _far_apart(position, count)
    return position[chosen], normal[chosen], float(areas.sum()) * len(position) / most


def _far_apart(position: Floats, count: int) -> NDArray[np.int64]:
    """Which `count` points are each as far as can be from those before."""
    chosen = np.empty(count, dtype=np.int64)
    x, y, z = np.ascontiguousarray(position.T)
    far = np.full(len(position), np.inf)
    here = 0
    for i in range(count):
        chosen[i] = here
        np.minimum(far, (x - x[here]) ** 2 + (y - y[here]) ** 2 + (z - z[here]) ** 2, out=far)
        here = int(far.argmax())
    return chosen
