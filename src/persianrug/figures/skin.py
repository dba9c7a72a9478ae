"""A frame of a skin on its taxels' positions, patch by patch: the true one beside the decoded one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.figures.style import WIDTH, blank

Floats = NDArray[np.float64]

_UNTOUCHED = "#E8E8E8"
_COLOURS = "magma_r"
# Forces below this part of the largest are drawn as untouched.
_LEAST_SHOWN = 1e-3
# Between patches, in taxels.
_GAP = 2.0
# Diameter of a taxel.
_DOT = 0.95
# Height of a name, and width of its letters, relative to a panel's width.
_NAME, _LETTER = 0.033, 0.0125
# Of a letter of the caption, in inches.
_CAPTION = 0.062
# Of a panel, width to height.
_SHAPE = 1.0
# Normals whose mean is longer than this point to one side, and are of a patch that does not go around its body.
_OPEN = 0.5
# Taxels on slopes are seen closer together than they are.
_SPREAD = 1.25


class Taxels(Protocol):
    """What a picture takes of a layout; `persianrug.skin.Layout` has it."""

    @property
    def position(self) -> NDArray[Any]: ...
    @property
    def normal(self) -> NDArray[Any]: ...
    @property
    def area(self) -> NDArray[Any]: ...
    @property
    def patch(self) -> NDArray[Any]: ...
    @property
    def patches(self) -> tuple[str, ...]: ...


def skin(
    layout: Taxels,
    true: Any,
    decoded: Any = None,
    *,
    patches: Sequence[str] | None = None,
    name: str = "true",
) -> Figure:
    """Draw the size of the force on every taxel, in newtons, on a logarithmic scale.

    Patches lie on different bodies, and most go all around one: each is seen from where it is pressed and, to the
    right of that, from behind. Taxels of all patches have one size; beside a name is what that is.

    Parameters
    ----------
    layout : Layout
    true : array (n_taxels, axes) or (n_sparse,)
        In newtons.
    decoded : array of the same numbers, optional
    patches : sequence of str, optional
        Those that are drawn; all by default.
    name : str
        What the first frame is called, as where it is no true one.

    Raises
    ------
    ValueError
        If a frame has other numbers than the layout, or there is no patch of a name.
    """
    count = len(layout.position)
    drawn = list(layout.patches) if patches is None else list(patches)
    for patch in drawn:
        checks.one_of("patches", patch, layout.patches)
    if not drawn:
        raise ValueError("patches is empty; allowed: one name or more")
    frames = {name: _rows("true", true, count)}
    if decoded is not None:
        frames["decoded"] = _rows("decoded", decoded, count)
        if frames["decoded"].shape != frames[name].shape:
            raise ValueError(f"decoded has {frames['decoded'].shape[1]} numbers a taxel; allowed: "
                             f"{frames[name].shape[1]}, as true has")  # fmt: skip
    forces = {title: np.linalg.norm(frame, axis=1) for title, frame in frames.items()}
    placed = _placed(layout, drawn, forces[name])
    peak = max(float(force.max()) for force in forces.values()) or 1.0
    wide, high = placed.size
    width = WIDTH if decoded is not None else WIDTH * 0.6
    figure = blank(min(0.85 * width / len(frames) * high / wide + 1.0, 14.0), width)
    panels = list(figure.subplots(1, len(frames), squeeze=False).flat)
    for axes, (title, force), frame in zip(panels, forces.items(), frames.values(), strict=True):
        shades = _draw(axes, placed, force, peak)
        axes.set_title(_title(title, frames[name], frame), fontsize=11)
    said = "force below a thousandth of the largest is grey; beside a name: how far its taxels are apart"
    if placed.behind:
        said = f"every patch from where it is pressed and, to the right, from behind; {said}"
    figure.supxlabel(textwrap.fill(said, int(width / _CAPTION)), fontsize=8)
    figure.colorbar(shades, ax=panels, label="force on a taxel (N)", shrink=0.7, aspect=35, extend="min")
    return figure


class _Placed:
    """Where patches are in a panel: taxels, their places, and the names above them."""

    def __init__(self) -> None:
        self.taxels: list[NDArray[np.int64]] = []
        self.places: list[Floats] = []
        self.names: list[tuple[float, float, str]] = []
        self.size = (0.0, 0.0)
        # Whether any of them is seen from behind too.
        self.behind = False


def _placed(layout: Taxels, drawn: Sequence[str], force: Floats) -> _Placed:
    """Patches in lines from left to right, in their order, as words in a text."""
    flats = []
    placed = _Placed()
    for name in drawn:
        taxels = np.flatnonzero(np.asarray(layout.patch) == layout.patches.index(name))
        pitch = float(np.sqrt(np.mean(layout.area[taxels])))
        position, normal = (np.asarray(part, dtype=float)[taxels] for part in (layout.position, layout.normal))
        flat, behind = _views(position, normal, force[taxels])
        placed.behind |= behind
        flats.append((taxels, _SPREAD / pitch * flat, f"{name}, {1e3 * pitch:.0f} mm"))
    sizes = [np.ptp(flat, axis=0) + 1 for _, flat, _ in flats]
    # With room for names, and for what remains at the ends of lines.
    area = 1.5 * sum((width + _GAP) * (height + _GAP) for width, height in sizes)
    line = max(np.sqrt(_SHAPE * area), max(width for width, _ in sizes))
    name_height = _NAME * line
    x = y = tallest = 0.0
    for (taxels, flat, name), (width, height) in zip(flats, sizes, strict=True):
        width = max(width, _LETTER * line * len(name))
        if x > 0 and x + width > line:
            x, y, tallest = 0.0, y - tallest - _GAP - name_height, 0.0
        placed.taxels.append(taxels)
        placed.places.append(flat - [flat[:, 0].min(), flat[:, 1].max()] + [x + 0.5, y - name_height - 0.5])
        placed.names.append((x, y - name_height + 0.2, name))
        x += width + _GAP
        tallest = max(tallest, height)
        placed.size = max(placed.size[0], x - _GAP), -(y - name_height - tallest)
    return placed


def _views(position: Floats, normal: Floats, force: Floats) -> tuple[Floats, bool]:
    """A patch as it is seen from where it is pressed and, beside that, from behind, (k, 2) in metres.

    Also whether any of it is seen from behind. What is pressed nowhere is seen along that axis of its body's frame
    along which most normals point, and what does not go around its body from the side to which it points.
    """
    towards = force @ normal
    size = float(np.linalg.norm(towards))
    mean = normal.mean(axis=0)
    if np.linalg.norm(mean) > _OPEN:
        towards = mean
    elif size < 0.1 * force.sum() or size == 0:
        towards = np.eye(3)[np.square(normal).mean(axis=0).argmax()]
    towards = towards / np.linalg.norm(towards)
    # The longest axis of what is seen runs to the right.
    seen = np.eye(3) - np.outer(towards, towards)
    # A single taxel has no extent.
    extent = (np.ptp(position @ seen, axis=0) + 1e-9) * np.linalg.norm(seen, axis=0)
    right = seen[int(extent.argmax())]
    right = right / np.linalg.norm(right)
    up = np.cross(towards, right)
    # Turned so that the axis of the body which runs up or down runs up.
    if up[np.abs(up).argmax()] < 0:
        right, up = -right, -up
    flat = np.stack([position @ right, position @ up], axis=1)
    behind = normal @ towards < 0
    if behind.any():
        left, end = flat[:, 0].min(), flat[:, 0].max()
        gap = 0.12 * (end - left)
        flat[behind, 0] = end + gap + (end - flat[behind, 0])
    return flat, bool(behind.any())


def _draw(axes: Axes, placed: _Placed, force: Floats, peak: float) -> EllipseCollection:
    taxels, places = np.concatenate(placed.taxels), np.concatenate(placed.places)
    least = _LEAST_SHOWN * peak
    touched = force[taxels] >= least
    size = np.full(len(taxels), _DOT)
    dots = [
        EllipseCollection(
            size[shown], size[shown], 0 * size[shown], units="xy", linewidth=0, offsets=places[shown],
            offset_transform=axes.transData,
        )
        for shown in (~touched, touched)
    ]  # fmt: skip
    dots[0].set(facecolor=_UNTOUCHED)
    dots[1].set(array=force[taxels][touched], cmap=_COLOURS, norm=LogNorm(least, peak))
    for one in dots:
        axes.add_collection(one)
    for x, y, name in placed.names:
        axes.text(x, y, name, fontsize=6.5, va="bottom")
    wide, high = placed.size
    axes.set(xlim=(-0.5, wide + 0.5), ylim=(-high - 0.5, 0), aspect="equal")
    axes.axis("off")
    return dots[1]


def _title(title: str, first: Floats, frame: Floats) -> str:
    if frame is first:
        touched = int((first != 0).any(axis=1).sum())
        return f"{title}, {touched} of {len(first)} taxels touched"
    size = float(np.linalg.norm(first))
    off = float(np.linalg.norm(frame - first))
    return f"{title}, relative L2 error {off / size:.2g}" if size > 0 else f"{title}, off by {off:.2g} N"


def _rows(name: str, frame: Any, count: int) -> Floats:
    """A frame as numbers (n_taxels, axes)."""
    numbers = checks.array(name, frame, "numbers of a frame")
    if (
        not numbers.size
        or numbers.size % count
        or numbers.size // count > 3
        or len(numbers) not in (count, numbers.size)
    ):
        raise ValueError(f"{name} has shape {numbers.shape}; allowed: ({count}, axes), or all in a row")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds a number that is not finite; allowed: newtons")
    return numbers.reshape(count, -1)
