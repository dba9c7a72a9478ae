"""What is usual of a robot's skin before it has ever moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from persianrug.skin import Layout, SkinProfile

# Patches of a code of their own are touched often; in all others a contact is rare.
_OFTEN, _RARELY = 0.08, 0.002
# Newtons on a taxel that is touched: mean and standard deviation.
_FORCE = (2.0, 4.0)
# A touch ends within so many frames.
_FRAMES = 20
_MOST = 4000.0


def prior_of(layout: Layout, codes: Sequence[Sequence[str]] = (), *, noise: float = 0.0) -> SkinProfile:
    """The profile of a skin that is known by its patches alone.

    Parameters
    ----------
    layout : Layout
    codes : sequence of sequences of str
        Patches that share a code of their own, which are those that are made for touching.
    noise : float
        Of each number that taxels read, in newtons.
    """
    often = np.isin(layout.patch, [layout.patches.index(name) for code in codes for name in code])
    n, axes = layout.n_taxels, layout.axes
    mean = np.zeros((n, axes))
    mean[:, 0] = _FORCE[0]
    variance = np.full((n, axes), _FORCE[1] ** 2)
    return SkinProfile(
        layout, np.where(often, _OFTEN, _RARELY), mean, variance, 1 / _FRAMES, np.zeros(1),
        noise=noise, most=_MOST, codes=tuple(tuple(code) for code in codes),
    )  # fmt: skip
