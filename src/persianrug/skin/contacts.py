"""What the patches of a skin feel: contact, net force, centre of pressure, area and slip, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.estimate import Estimate
from persianrug.skin.layout import Layout

Floats = NDArray[np.float64]

# Those entries of a symmetric matrix that tell all, and where each is in it.
_UPPER = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_PLACES = np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])
# Sums go over the numbers that are not 0 where these are up to so large a share.
_FEW = 0.05


@dataclass(frozen=True, eq=False)
class Contact:
    """What a patch feels, in the frame of its body; each standard error is of the estimate about the truth.

    Parameters
    ----------
    patch : str
    touching : bool
        Whether it is in contact, with hysteresis.
    pressing, pressing_stderr : float
        The sum of its taxels' pressing forces, in newtons.
    force, force_stderr : array (3,)
        The net force on the body, in newtons.
    centre, centre_stderr : array (3,)
        The mean position of its taxels, weighted with what presses on them, in metres; NaN where nothing presses.
    area, area_stderr : float
        Of its taxels that are touched, in square metres.
    slip, slip_stderr : float
        The force along the surface relative to the most that friction holds: at 1 it slips. The surface is that at
        right angles to the mean normal, weighted as the centre. NaN where nothing presses, or no shear is felt.
    valid : bool
        Whether to believe all this.
    """

    patch: str
    touching: bool
    pressing: float
    pressing_stderr: float
    force: Floats
    force_stderr: Floats
    centre: Floats
    centre_stderr: Floats
    area: float
    area_stderr: float
    slip: float
    slip_stderr: float
    valid: bool


class ContactTracker:
    """Contacts of a skin's patches, from one decoded frame to the next.

    Parameters
    ----------
    layout : Layout
    on, off : float
        A contact begins where the taxels of a patch are pressed with more than `on` newtons in sum, and ends below
        `off`.
    friction : float > 0
        The coefficient at which a contact slips.
    silence : float
        After so many seconds in which nothing was heard of a patch it is no longer valid.
    blocks : sequence of int, optional
        The block, of those with a code of their own, that each patch is in; all are in one by default.

    Raises
    ------
    ValueError
        If `off` is above `on`, a number is out of range, or `blocks` has another length.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        on: float = 1.0,
        off: float = 0.5,
        friction: float = 0.5,
        silence: float = 0.040,
        blocks: Sequence[int] | None = None,
    ) -> None:
        self.layout = checks.instance("layout", layout, Layout)
        self.on, self.off = checks.positive("on", on), checks.positive("off", off)
        if self.off > self.on:
            raise ValueError(f"off is {off}; allowed: up to {on}, what on is")
        self.friction = checks.positive("friction", friction)
        self.silence = checks.not_negative("silence", silence)
        patches = len(layout.patches)
        self.blocks = np.zeros(patches, dtype=np.int64) if blocks is None else np.asarray(blocks)
        if self.blocks.shape != (patches,) or self.blocks.dtype.kind not in "iu" or self.blocks.min() < 0:
            raise ValueError(f"blocks is {checks.shown(blocks)}; allowed: {patches} integers >= 0, one a patch")
        self._sums = _Sums(layout)
        self._touching = np.zeros(patches, dtype=bool)
        self._trusted = np.zeros(patches, dtype=bool)
        self._heard = np.full(patches, -np.inf)
        self._time = -np.inf
        # Nothing was heard yet: everything is uncertain, and nothing valid.
        self._last = self._sums.measure(Estimate.certain(0, np.zeros((layout.n_taxels, layout.axes), np.float32)),
                                        self.friction)  # fmt: skip

    def update(self, estimate: Estimate | None, time: float) -> list[Contact]:
        """The contacts of all patches at a time in seconds, from the frame that was decoded, or None if none came.

        Frames that were not heard, or are not explained, neither begin nor end a contact: their numbers are those
        of the estimate, or the last ones where there is none.

        Raises
        ------
        ValueError
            If the estimate is of another skin or has fewer blocks, or the time is before that of the last.
        """
        measured = self.measure(estimate, time)
        lists = (part.tolist() if part.ndim == 1 else part for part in measured.values())
        return [
            Contact(patch=name, **dict(zip(measured, row, strict=True)))
            for name, row in zip(self.layout.patches, zip(*lists, strict=True), strict=True)
        ]

    def measure(self, estimate: Estimate | None, time: float) -> dict[str, NDArray[Any]]:
        """As `update`, with an array over patches of each of what a Contact holds, by name."""
        now = checks.finite("time", time)
        if now < self._time:
            raise ValueError(f"time is {now:.6g} s; allowed: {self._time:.6g} s, the last one, or later")
        if estimate is not None:
            shape = (self.layout.n_taxels, self.layout.axes)
            if estimate.x.shape != shape:
                raise ValueError(f"estimate is of {estimate.x.shape}; allowed: {shape}, as the layout has")
            if len(estimate.heard) <= self.blocks.max():
                raise ValueError(
                    f"estimate has {len(estimate.heard)} blocks; allowed: {self.blocks.max() + 1} or more"
                )
            heard = estimate.heard[self.blocks]
            explained = estimate.explained[self.blocks]
            self._last = self._sums.measure(estimate, self.friction)
            self._heard[heard] = now
            self._trusted = np.where(heard, explained, self._trusted)
            pressing = self._last["pressing"]
            self._touching = np.where(
                heard & explained, pressing > np.where(self._touching, self.off, self.on), self._touching
            )
        self._time = now
        # Times are sums of steps: with room for how these round.
        valid = self._trusted & (now - self._heard <= self.silence + 1e-9)
        return self._last | {"touching": self._touching, "valid": valid}


class _Sums:
    """Sums over patches of a frame's numbers and of their variances, with a table and a sparse matrix of each."""

    def __init__(self, layout: Layout) -> None:
        n, axes = layout.n_taxels, layout.axes
        patches = len(layout.patches)
        self.count, self.axes, self.patch, self.patches = n, axes, layout.patch, patches
        normal = layout.normal.astype(np.float64)
        # Positions from the middle of a patch: squares of these cancel less.
        size = np.bincount(layout.patch, minlength=patches)
        position = layout.position.astype(np.float64)
        middle = [np.bincount(layout.patch, part, patches) / size for part in position.T]
        self.middle = np.stack(middle, axis=1)
        position = position - self.middle[layout.patch]
        self.area = layout.area.astype(np.float64)
        ones = np.ones((n, 1))
        pairs = np.stack([normal[:, a] * normal[:, b] for a, b in _UPPER], axis=1)
        pressure = [ones, position, normal, np.zeros((n, 3))]
        spread = [ones, position, position**2, pairs, np.zeros((n, 6))]
        values, variances = [np.concatenate(pressure, axis=1)], [np.concatenate(spread, axis=1)]
        for axis in range(1, axes):
            tangent = layout.directions[:, axis]
            pairs = np.stack([tangent[:, a] * tangent[:, b] for a, b in _UPPER], axis=1)
            values.append(np.concatenate([np.zeros((n, 7)), tangent], axis=1))
            variances.append(np.concatenate([np.zeros((n, 13)), pairs], axis=1))
        self.of_values, self.of_variances = self._matrix(values), self._matrix(variances)

    def _matrix(self, of_axes: list[Floats]) -> tuple[Floats, Any]:
        """The table (n_taxels * axes, k) of statistics of each number, and the matrix that sums them by patch."""
        table = np.stack(of_axes, axis=1).reshape(self.count * self.axes, -1)
        k = table.shape[1]
        column, which = np.nonzero(table)
        row = self.patch[column // self.axes] * k + which
        entries = table[column, which]
        shape = (self.patches * k, len(table))
        return table, scipy.sparse.csr_array((entries, (row, column)), shape=shape)

    def _summed(self, of: tuple[Floats, Any], values: NDArray[np.float32]) -> Floats:
        """Statistics (patches, k) of numbers."""
        table, matrix = of
        numbers = values.ravel()
        places = np.flatnonzero(numbers != 0)
        if len(places) > _FEW * len(numbers):
            return (matrix @ numbers.astype(np.float64)).reshape(self.patches, -1)
        # Most frames are mostly zeros.
        sums = np.zeros((self.patches, table.shape[1]))
        np.add.at(sums, self.patch[places // self.axes], table[places] * numbers[places, None].astype(np.float64))
        return sums

    def measure(self, estimate: Estimate, friction: float) -> dict[str, Any]:
        """What Contact holds, of all patches, in its order."""
        sums = self._summed(self.of_values, estimate.x)
        pressing, moment, inward, shear = sums[:, 0], sums[:, 1:4], sums[:, 4:7], sums[:, 7:10]
        spread = self._summed(self.of_variances, estimate.variance)
        variance, lever, inertia = spread[:, 0], spread[:, 1:4], spread[:, 4:7]
        # Covariances of the sum of normals and of that of shears: independent, as taxels' numbers are taken to be.
        of_normals, of_shears = spread[:, 7:13][:, _PLACES], spread[:, 13:19][:, _PLACES]
        force = shear - inward
        pressed = pressing > 0
        weight = np.where(pressed, pressing, np.nan)[:, None]
        centre = moment / weight
        # Of sum p f / sum f to first order: each number moves it by (p - centre) / sum f.
        moved = inertia - 2 * centre * lever + centre**2 * variance[:, None]
        slip, slip_variance = np.full((2, self.patches), np.nan)
        if self.axes == 3 and pressed.any():
            held = np.flatnonzero(pressed)
            slip[held], slip_variance[held] = _slip(
                force[held], inward[held], of_normals[held], of_shears[held], friction
            )
        # Rounded in 32 bits it may be more than all.
        active = np.clip(estimate.active.astype(np.float64), 0.0, 1.0)
        doubt = active * (1 - active)
        return {
            "pressing": pressing,
            "pressing_stderr": np.sqrt(variance),
            "force": force,
            "force_stderr": np.sqrt(np.einsum("pii->pi", of_normals + of_shears)),
            "centre": self.middle + centre,
            "centre_stderr": np.sqrt(np.maximum(moved, 0)) / weight,
            "area": np.bincount(self.patch, self.area * active, self.patches),
            "area_stderr": np.sqrt(np.bincount(self.patch, self.area**2 * doubt, self.patches)),
            "slip": slip,
            "slip_stderr": np.sqrt(slip_variance),
        }


def _slip(
    force: Floats, inward: Floats, of_normals: Floats, of_shears: Floats, friction: float
) -> tuple[Floats, Floats]:
    """Slip (k,) and its variance to first order, from sums (k, 3) and the covariances (k, 3, 3) of their parts.

    With the mean normal u = m / |m|, m the sum of normals times pressures and F the force, the surface is pressed
    by P = -F . u and pulled along by T = |F + P u|; slip = T / (friction P).
    """
    size = np.linalg.norm(inward, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = inward / size
        press = -(force * u).sum(axis=1, keepdims=True)
        press = np.where(press > 0, press, np.nan)
        along = force + press * u
        pull = np.linalg.norm(along, axis=1, keepdims=True)
        t = np.where(pull > 0, along / pull, 0.0)
        slip = pull / (friction * press)
        # dT = t . dF + P t . du and dP = -u . dF - F . du, with du = (dm - u u . dm) / |m| and F = T t - P u.
        by_force = t / (friction * press) + slip * u / press
        by_normal = t / friction / size + slip * (pull * t) / press / size
    # F is the sum of shears less m.
    gradient = by_normal - by_force
    variance = np.einsum("pi,pij,pj->p", gradient, of_normals, gradient)
    variance += np.einsum("pi,pij,pj->p", by_force, of_shears, by_force)
    return slip[:, 0], np.maximum(variance, 0)
