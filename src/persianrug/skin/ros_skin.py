"""A layout, and the contacts of its patches, as ROS 2 messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin import ros
from persianrug.skin.contacts import Contact
from persianrug.skin.layout import Layout

LAYOUT, NAMES = "/skin/layout", "/skin/names"
_VERSION = 1

_PLACE, _NORMAL, _FIRST, _SECOND = (
    ("x", "y", "z"),
    ("normal_x", "normal_y", "normal_z"),
    ("t1_x", "t1_y", "t1_z"),
    ("t2_x", "t2_y", "t2_z"),
)
# Numbers of a contact, in the order of its points' fields, and of what they are called there.
_VECTORS = {"centre": _PLACE} | {
    name: tuple(f"{name}_{axis}" for axis in "xyz") for name in ("centre_stderr", "force", "force_stderr")
}
_SCALARS = ("pressing", "pressing_stderr", "area", "area_stderr", "slip", "slip_stderr")
_FLAGS = ("touching", "valid")
_CONTACT_FLOATS = [*(field for fields in _VECTORS.values() for field in fields), *_SCALARS]
_FLAGS_AT = 4 * len(_CONTACT_FLOATS)
# Points are of whole words.
CONTACT = np.dtype(
    {
        "names": [*_CONTACT_FLOATS, *_FLAGS],
        "formats": ["<f4"] * len(_CONTACT_FLOATS) + ["u1"] * len(_FLAGS),
        "offsets": [*range(0, _FLAGS_AT, 4), *range(_FLAGS_AT, _FLAGS_AT + len(_FLAGS))],
        "itemsize": _FLAGS_AT + 4,
    }
)


def pack_layout(layout: Layout, stamp: int) -> list[tuple[str, bytes]]:
    """The messages of a layout, with their topics, at a time in nanoseconds."""
    vectors = [(_PLACE, layout.position), (_NORMAL, layout.normal)]
    if layout.tangents is not None:
        vectors += [(_FIRST, layout.tangents[:, 0]), (_SECOND, layout.tangents[:, 1])]
    names = [field for fields, _ in vectors for field in fields]
    points = np.zeros(layout.n_taxels, dtype=[*((name, "<f4") for name in (*names, "area")), ("patch", "<i4")])
    for fields, values in vectors:
        for field, column in zip(fields, values.T, strict=True):
            points[field] = column
    points["area"], points["patch"] = layout.area, layout.patch
    said = {
        "version": _VERSION,
        "axes": layout.axes,
        "digest": layout.digest,
        "patches": layout.patches,
        "bodies": layout.bodies,
    }
    content = ros.PointPacker(points.dtype, layout.n_taxels, "skin")(stamp, points)
    return [(LAYOUT, content), (NAMES, ros.pack_text(json.dumps(said)))]


def unpack_layout(parts: dict[str, bytes]) -> Layout:
    """The layout of such messages by topic; any exception where they are none."""
    if missing := [topic for topic in (LAYOUT, NAMES) if topic not in parts]:
        raise ValueError(f"it holds no message {missing[0]}")
    said = json.loads(ros.unpack_text(parts[NAMES]))
    if said["version"] != _VERSION:
        raise ValueError(f"its version is {checks.shown(said['version'])}; allowed: {_VERSION}")
    points = ros.unpack_points(parts[LAYOUT])

    def vectors(fields: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([points[field] for field in fields], axis=1)

    tangents = np.stack([vectors(_FIRST), vectors(_SECOND)], axis=1) if said["axes"] == 3 else None
    names = tuple(said["patches"]), tuple(said["bodies"])
    layout = Layout(vectors(_PLACE), vectors(_NORMAL), points["area"], points["patch"], *names, tangents)
    if layout.digest != said["digest"]:
        raise ValueError(f"its layout has the digest {layout.digest}; allowed: {said['digest']}, as it says")
    return layout


def contact_points(contacts: Sequence[Contact]) -> NDArray[Any]:
    """A point (of CONTACT) for each contact."""
    points = np.zeros(len(contacts), dtype=CONTACT)
    vectors = [np.stack([getattr(one, name) for one in contacts]) for name in _VECTORS]
    scalars = np.array([[getattr(one, name) for name in _SCALARS] for one in contacts])
    floats = points.view(np.float32).reshape(len(contacts), -1)
    floats[:, : len(_CONTACT_FLOATS)] = np.concatenate([*vectors, scalars], axis=1)
    for name in _FLAGS:
        points[name] = [getattr(one, name) for one in contacts]
    return points


def contacts_of(points: NDArray[Any], patches: Sequence[str]) -> list[Contact]:
    """The contacts of patches from such points."""
    found = []
    for patch, point in zip(patches, points, strict=True):
        values: dict[str, Any] = {name: float(point[name]) for name in _SCALARS}
        values |= {name: bool(point[name]) for name in _FLAGS}
        for name, fields in _VECTORS.items():
            values[name] = np.array([point[field] for field in fields], dtype=np.float64)
        found.append(Contact(patch=patch, **values))
    return found
