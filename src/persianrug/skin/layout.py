"""Where the taxels of a skin are: positions, normals, areas, and the patches that they make up."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks, files, npy

Floats = NDArray[np.float32]

_KINDS = {".npz": "an .npz file of pos, normal and area, t1 and t2, patch, patch_names and patch_body"}
# Vectors in files are often rounded to 16 bits.
_UNIT = 2e-3
_MOST_TAXELS = 1 << 24


@dataclass(frozen=True, eq=False, repr=False)
class Layout:
    """A skin's taxels, in an order that both ends of a stream share.

    Taxel i lies on the body of its patch, and all its vectors are in that body's frame. Its force on the body is

        -normal f0 + t1 f1 + t2 f2,

    of which f0 is what presses on it and f1 and f2 are shears, all in newtons.

    Parameters
    ----------
    position : array (n_taxels, 3)
        In metres.
    normal : array (n_taxels, 3)
        Unit vectors that point outward.
    area : array (n_taxels,)
        In square metres.
    patch : array (n_taxels,)
        The patch of each taxel, an index into `patches`.
    patches : tuple of str
        Their names.
    bodies : tuple of str
        The name of the body that each patch lies on.
    tangents : array (n_taxels, 2, 3), optional
        Unit vectors t1 and t2 of the shears; without them taxels feel pressure alone.

    Raises
    ------
    ValueError
        If shapes disagree, vectors are not unit vectors at right angles, areas are not positive, or a patch has no
        name or no taxel.
    """

    position: Floats
    normal: Floats
    area: Floats
    patch: NDArray[np.int32]
    patches: tuple[str, ...]
    bodies: tuple[str, ...]
    tangents: Floats | None = None

    def __post_init__(self) -> None:
        position = _numbers("position", self.position)
        if position.ndim != 2 or position.shape[1] != 3 or not 0 < len(position) <= _MOST_TAXELS:
            raise ValueError(
                f"position has shape {position.shape}; allowed: (n_taxels, 3), of up to {_MOST_TAXELS}"
            )
        n = len(position)
        shapes = {"position": (n, 3), "normal": (n, 3), "area": (n,)}
        if self.tangents is not None:
            shapes["tangents"] = (n, 2, 3)
        for name, shape in shapes.items():
            values = _numbers(name, getattr(self, name))
            if values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}; allowed: {shape}, one a taxel as position has")
            object.__setattr__(self, name, values)
        if self.area.min() <= 0:
            raise ValueError(f"area of taxel {self.area.argmin()} is {self.area.min():g}; allowed: numbers > 0")
        _check_unit("normal", self.normal)
        if self.tangents is not None:
            _check_unit("t1", self.tangents[:, 0])
            _check_unit("t2", self.tangents[:, 1])
            _check_right_angle("t1", self.tangents[:, 0], "normal", self.normal)
            _check_right_angle("t2", self.tangents[:, 1], "normal", self.normal)
            _check_right_angle("t2", self.tangents[:, 1], "t1", self.tangents[:, 0])
        for name in ("patches", "bodies"):
            given = getattr(self, name)
            texts = tuple(given) if isinstance(given, tuple | list) else ()
            if not texts or not all(isinstance(text, str) and text for text in texts):
                raise ValueError(
                    f"{name} is {checks.shown(given)}; allowed: names, at least one, none of them empty"
                )
            object.__setattr__(self, name, tuple(map(str, texts)))
        if len(set(self.patches)) < len(self.patches):
            twice = next(name for name in self.patches if self.patches.count(name) > 1)
            raise ValueError(f"patches hold {twice!r} twice; allowed: a name of its own for each")
        if len(self.bodies) != len(self.patches):
            raise ValueError(f"bodies has {len(self.bodies)} names; allowed: {len(self.patches)}, one a patch")
        object.__setattr__(self, "patch", _patch_of_taxels(self.patch, n, self.patches))

    @property
    def n_taxels(self) -> int:
        """How many taxels there are."""
        return len(self.position)

    @property
    def axes(self) -> int:
        """Numbers of a taxel: 1, pressure, or 3, with two shears."""
        return 1 if self.tangents is None else 3

    @property
    def n_sparse(self) -> int:
        """Numbers of a frame."""
        return self.n_taxels * self.axes

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """The force on the body that a newton of each number is, (n_taxels, axes, 3)."""
        pressing = -self.normal[:, None].astype(np.float64)
        return pressing if self.tangents is None else np.concatenate([pressing, self.tangents], axis=1)

    @cached_property
    def digest(self) -> int:
        """A checksum of 32 bits over all that both ends of a stream must agree on."""
        found = zlib.crc32(json.dumps([self.n_taxels, self.axes, self.patches, self.bodies]).encode())
        for part in (self.position, self.normal, self.tangents, self.area):
            if part is not None:
                found = zlib.crc32(part.astype("<f4").tobytes(), found)
        return zlib.crc32(self.patch.astype("<i4").tobytes(), found)

    def of(self, patch: str) -> NDArray[np.int64]:
        """The taxels of a patch; ValueError if none has that name."""
        checks.one_of("patch", patch, self.patches)
        return np.flatnonzero(self.patch == self.patches.index(patch))

    def frame(self, values: Any) -> Floats:
        """A frame of this skin, (n_taxels, axes) in newtons, from its numbers in that shape or in a row.

        Raises
        ------
        ValueError
            If they are not as many, a number is not finite, or a pressure of taxels without shear is negative.
        """
        numbers = np.asarray(values)
        checks.real("frame", numbers)
        if numbers.shape not in ((self.n_sparse,), (self.n_taxels, self.axes)):
            raise ValueError(f"frame has shape {numbers.shape}; allowed: ({self.n_sparse},) or "
                             f"({self.n_taxels}, {self.axes}), numbers of this skin")  # fmt: skip
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32).reshape(self.n_taxels, self.axes)
        if not np.isfinite(numbers).all():
            place = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise ValueError(f"frame holds {numbers.flat[place]} at number {place}; allowed: finite newtons")
        if self.axes == 1 and numbers.min() < 0:
            place = int(numbers.argmin())
            raise ValueError(f"frame holds the pressure {numbers.flat[place]:g} at taxel {place}; allowed: >= 0 N")
        return numbers

    def without_shear(self) -> Layout:
        """The same taxels, which feel pressure alone."""
        return Layout(self.position, self.normal, self.area, self.patch, self.patches, self.bodies)

    @classmethod
    def plane(cls, rows: int, cols: int, pitch: float, *, axes: int = 1, name: str = "mat") -> Layout:
        """A mat in the plane z = 0, whose taxel row * cols + col is at x = col * pitch, y = row * pitch.

        Parameters
        ----------
        rows, cols : int >= 1
        pitch : float > 0
            From one taxel to the next, in metres.
        axes : int
            1, or 3 with shears along x and y.
        name : str
            Of its only patch, and of the body.
        """
        rows, cols = (checks.integer(what, value, 1, 1 << 16) for what, value in (("rows", rows), ("cols", cols)))
        pitch = checks.positive("pitch", pitch)
        n = rows * cols
        if n > _MOST_TAXELS:
            raise ValueError(f"rows * cols is {n}; allowed: up to {_MOST_TAXELS}")
        if checks.integer("axes", axes, 1, 3) == 2:
            raise ValueError("axes is 2; allowed: 1, 3")
        y, x = np.divmod(np.arange(n), cols)
        position = np.stack([x, y, np.zeros(n)], axis=1) * pitch
        tangents = np.tile(np.eye(3)[:2], (n, 1, 1)) if axes == 3 else None
        normal = np.tile(np.eye(3)[2], (n, 1))
        return cls(position, normal, np.full(n, pitch**2), np.zeros(n, dtype=np.int32), (name,), (name,), tangents)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Layout:
        """Read a layout from an .npz file.

        Its arrays are `pos`, `normal`, `area`, `t1`, `t2`, `patch`, `patch_names` and `patch_body`. Without `t1`
        and `t2` taxels feel pressure alone. Without `patch` each value of `body` is a patch, and without that all
        taxels are one. All names may begin with `taxel_`, as beside frames in one file.

        Raises
        ------
        ValueError
            If the file is no such file, or what it says is no layout.
        """
        with files.untrusted("layout", path, _KINDS) as target:
            return cls.of_arrays(target)

    @classmethod
    def of_arrays(cls, target: Path) -> Layout:
        """The layout among the arrays of an .npz file; any exception where there is none."""
        start = "taxel_" if "taxel_pos" in npy.names(target) else ""
        wanted = ("pos", "normal", "area", "t1", "t2", "patch", "patch_names", "patch_body", "body")
        parts = npy.read_arrays(target, [start + name for name in wanted])
        parts = {name.removeprefix(start): part for name, part in parts.items()}
        if missing := [name for name in ("pos", "normal", "area") if name not in parts]:
            raise ValueError(f"it holds no array {start}{missing[0]}")
        if ("t1" in parts) != ("t2" in parts):
            raise ValueError("it holds one of t1 and t2; allowed: both or none")
        tangents = None
        if "t1" in parts:
            if parts["t1"].shape != parts["t2"].shape:
                raise ValueError(f"t1 has shape {parts['t1'].shape}; allowed: {parts['t2'].shape}, as t2 has")
            tangents = np.stack([parts["t1"], parts["t2"]], axis=1)
        patch, patches, bodies = _patches(parts)
        return cls(parts["pos"], parts["normal"], parts["area"], patch, patches, bodies, tangents)

    def arrays(self) -> dict[str, Any]:
        """The arrays of a file of the layout, by name."""
        parts: dict[str, Any] = {
            "pos": self.position,
            "normal": self.normal,
            "area": self.area,
            "patch": self.patch,
        }
        if self.tangents is not None:
            parts |= {"t1": self.tangents[:, 0], "t2": self.tangents[:, 1]}
        parts |= {"patch_names": np.array(self.patches), "patch_body": np.array(self.bodies)}
        return parts

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layout to an .npz file that `read` reads; whole, or as it was before.

        Raises
        ------
        ValueError
            If the name has another ending, or the file cannot be written.
        """
        npy.write_arrays(path, self.arrays())

    def __repr__(self) -> str:
        kinds = "pressure" if self.axes == 1 else "pressure and two shears"
        patches = "1 patch" if len(self.patches) == 1 else f"{len(self.patches)} patches"
        return f"Layout({self.n_taxels} taxels of {kinds} in {patches})"


def _numbers(name: str, value: Any) -> Floats:
    """A copy in 32 bits that is not written to again, of numbers all of which are finite."""
    with np.errstate(over="ignore"):
        numbers = checks.array(name, value, "an array of finite numbers").astype(np.float32)
    if not np.isfinite(numbers).all():
        place = np.argwhere(~np.isfinite(numbers))[0]
        raise ValueError(f"{name} holds {numbers[tuple(place)]} at taxel {place[0]}; allowed: finite numbers")
    numbers.flags.writeable = False
    return numbers


def _check_unit(name: str, vectors: Floats) -> None:
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    worst = int(np.abs(length - 1).argmax())
    if abs(length[worst] - 1) > _UNIT:
        raise ValueError(f"{name} of taxel {worst} has length {length[worst]:.6g}; allowed: unit vectors")


def _check_right_angle(name: str, vectors: Floats, other: str, others: Floats) -> None:
    cosine = np.abs((vectors.astype(np.float64) * others).sum(axis=1))
    if cosine.max() > _UNIT:
        raise ValueError(
            f"{name} of taxel {cosine.argmax()} leans on its {other}; allowed: vectors at right angles"
        )


def _patch_of_taxels(patch: Any, n: int, patches: tuple[str, ...]) -> NDArray[np.int32]:
    found = np.asarray(patch)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise ValueError(f"patch has shape {found.shape} of {found.dtype}; allowed: integers ({n},), one a taxel")
    wrong = (found < 0) | (found >= len(patches))
    if wrong.any():
        taxel = int(wrong.argmax())
        raise ValueError(f"patch of taxel {taxel} is {found[taxel]}; allowed: 0 to {len(patches) - 1}, "
                         f"one of {len(patches)} patches")  # fmt: skip
    counts = np.bincount(found, minlength=len(patches))
    if counts.min() == 0:
        raise ValueError(f"patch {patches[int(counts.argmin())]!r} has no taxel; allowed: patches of one or more")
    found = found.astype(np.int32)
    found.flags.writeable = False
    return found


def _patches(parts: dict[str, NDArray[Any]]) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The patch of each taxel of a file, their names, and those of their bodies."""
    if "patch" not in parts:
        body = parts.get("body", np.zeros(len(parts["pos"]), dtype=np.int64))
        values, patch = np.unique(body, return_inverse=True)
        names = tuple(f"body{value}" for value in values) if "body" in parts else ("skin",)
        return patch, names, names
    if "patch_names" not in parts:
        raise ValueError("it holds an array patch, but none of patch_names")
    for name in ("patch_names", "patch_body"):
        if name in parts and (parts[name].ndim != 1 or parts[name].dtype.kind != "U"):
            raise ValueError(
                f"{name} has shape {parts[name].shape} of {parts[name].dtype}; allowed: a row of texts"
            )
    names = tuple(map(str, parts["patch_names"]))
    return parts["patch"], names, tuple(map(str, parts.get("patch_body", parts["patch_names"])))
