"""What taxels read where something presses: contact forces spread over a soft skin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.compiled import compiled
from persianrug.robots.contacts import Touches
from persianrug.robots.taxels import Patch
from persianrug.skin import Layout

Floats = NDArray[np.float64]

# Of what presses and is pressed together, in metres, as Hertz's law takes it.
_RADIUS = 0.02
# Taxels face a contact whose normals are turned from it by less than acos of this; and lie no farther than so many
# metres from its plane, or than it is wide.
_FACING, _DEEP = 0.2, 0.015
# A skin's cover spreads a contact over no less than this many times the distance between taxels, so that several
# feel it.
_SPREAD = 1.2


@dataclass(frozen=True)
class Softness:
    """What a skin is made of.

    Parameters
    ----------
    modulus : float > 0
        Of elasticity, in pascals.
    blur : float > 0
        How far a point's force spreads within the skin, in metres.
    """

    modulus: float
    blur: float

    def __post_init__(self) -> None:
        checks.positive("modulus", self.modulus)
        checks.positive("blur", self.blur)


STIFF, SOFT = Softness(1e6, 0.004), Softness(1e5, 0.012)


def footprint(force: float, softness: Softness, area: Floats) -> Floats:
    """The area that a contact of a force in newtons covers where taxels have these areas, all in square metres."""
    hertz = (0.75 * _RADIUS / softness.modulus * force) ** (2 / 3)
    return np.pi * np.maximum(hertz + softness.blur**2, _SPREAD**2 * area)


class Pressing:
    """Spreads the forces of contacts over taxels.

    A contact with the force F covers the radius a, a^2 = (3 F R / 4 E)^(2/3) + blur^2: Hertz's, and what the skin
    blurs; and no less than 1.2 times the distance between taxels, so that several feel it. Each taxel of the patch
    that faces it, at the distance d along its plane, bears a share of the force vector in proportion to
    sqrt(1 - d^2 / a^2), as pressure has it under a sphere; the shares sum to 1. Where no taxel is so near the
    nearest bears all.

    Parameters
    ----------
    layout : Layout
        Of `taxel_layout`, with shears.
    patches : sequence of Patch
        Those of the layout.
    softness : Softness

    Raises
    ------
    ValueError
        If patches are not those of the layout, or taxels have no shears.
    """

    def __init__(self, layout: Layout, patches: Sequence[Patch], softness: Softness = STIFF) -> None:
        names = tuple(patch.name for patch in patches)
        if names != layout.patches:
            raise ValueError(
                f"patches are {', '.join(names)}; allowed: {', '.join(layout.patches)}, as the layout has"
            )
        if layout.tangents is None:
            raise ValueError("layout has no tangents; allowed: taxels of pressure and two shears")
        self.layout, self.softness = layout, softness
        if (np.diff(layout.patch) < 0).any():
            raise ValueError("taxels of a patch are not side by side; allowed: as taxel_layout has them")
        self._edges = np.searchsorted(layout.patch, np.arange(len(names) + 1))
        self._position = layout.position.astype(np.float64)
        self._normal = layout.normal.astype(np.float64)
        # The numbers of a taxel of which a force is the sum: the inverse of its directions.
        self._numbers = np.ascontiguousarray(np.linalg.inv(layout.directions).transpose(0, 2, 1))
        self._least = _SPREAD**2 * layout.area[self._edges[:-1]].astype(np.float64)
        self._room = np.empty(layout.n_taxels)

    def frame(self, touches: Touches) -> Floats:
        """What taxels read (n_taxels, 3), in newtons, were they without flaws."""
        frame = np.zeros((self.layout.n_taxels, 3))
        _spread(
            touches.patch, touches.place, touches.outward, touches.force, touches.pressing,
            self._edges, self._position, self._normal, self._numbers,
            0.75 * _RADIUS / self.softness.modulus, self.softness.blur**2, self._least, frame, self._room,
        )  # fmt: skip
        return frame


@compiled
def _spread(
    patch: NDArray[Any],
    place: NDArray[Any],
    outward: NDArray[Any],
    force: NDArray[Any],
    pressing: NDArray[Any],
    edges: NDArray[Any],
    position: NDArray[Any],
    normal: NDArray[Any],
    numbers: NDArray[Any],
    give: float,
    blur: float,
    least_square: NDArray[Any],
    frame: NDArray[Any],
    share: NDArray[Any],
) -> None:
    """Add to `frame` (n, 3) what k contacts press; `share` (n,) is room."""
    for k in range(len(patch)):
        low, high = edges[patch[k]], edges[patch[k] + 1]
        square = max((give * pressing[k]) ** (2 / 3) + blur, least_square[patch[k]])
        deep = max(_DEEP, square**0.5)
        total, nearest, least = 0.0, low, np.inf
        for i in range(low, high):
            facing = height = away = 0.0
            for c in range(3):
                gap = position[i, c] - place[k, c]
                facing += normal[i, c] * outward[k, c]
                height += gap * outward[k, c]
                away += gap * gap
            share[i] = 0.0
            along = max(away - height * height, 0.0)
            if facing > _FACING and abs(height) < deep:
                if along < square:
                    share[i] = (1 - along / square) ** 0.5
                    total += share[i]
            else:
                # Only where no other is.
                along = away + 1e6
            if along < least:
                nearest, least = i, along
        if total <= 0:
            share[nearest] = total = 1.0
        for i in range(low, high):
            if share[i] > 0:
                for a in range(3):
                    part = 0.0
                    for c in range(3):
                        part += numbers[i, a, c] * force[k, c]
                    frame[i, a] += part * share[i] / total
