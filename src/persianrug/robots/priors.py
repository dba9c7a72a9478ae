"""What is usual of a robot's skin before it has ever moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from persianrug.robots.pressing import Softness, footprint
from persianrug.skin import Layout, SkinProfile

# Newtons of a contact, of which a patch bears so many at a time that it is often touched.
_FORCE, _CONTACTS = 50.0, 4.0
# On a patch that is made for touching no more than this share of taxels is touched; on others a taxel is with this
# probability.
_MOST, _RARELY = 0.5, 0.002
# A touch ends within so many frames.
_FRAMES = 20
# The largest sum of a frame, in newtons: impacts.
_LARGEST = 4000.0


def prior_of(
    layout: Layout, softness: Softness, codes: Sequence[Sequence[str]] = (), *, noise: float = 0.0
) -> SkinProfile:
    """The profile of a skin that is known by its patches alone: how many taxels a contact covers, and how hard.

    Parameters
    ----------
    layout : Layout
    softness : Softness
    codes : sequence of sequences of str
        Patches that share a code of their own, which are those that are made for touching.
    noise : float
        Of each number that taxels read, in newtons.
    """
    often = np.isin(layout.patch, [layout.patches.index(name) for code in codes for name in code])
    taxels, area = np.bincount(layout.patch), np.bincount(layout.patch, layout.area)
    share = np.minimum(footprint(_FORCE, softness, area / taxels) / area, 1.0)
    p = np.where(often, np.minimum(_CONTACTS * share, _MOST)[layout.patch], _RARELY)
    force = (_FORCE / np.maximum(share * taxels, 1.0))[layout.patch, None]
    mean = np.zeros((layout.n_taxels, layout.axes))
    mean[:, :1] = force / 2
    return SkinProfile(
        layout, p, mean, np.broadcast_to(force**2, mean.shape), 1 / _FRAMES, np.zeros(1),
        noise=noise, most=_LARGEST, codes=tuple(tuple(code) for code in codes),
    )  # fmt: skip
