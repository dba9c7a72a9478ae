"""What is known of a skin before a frame is seen: how often, how hard and how long each taxel is touched."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks, files, npy
from persianrug.skin.encoder import SkinEncoder
from persianrug.skin.frames import BELOW, SMOOTH, Frames
from persianrug.skin.layout import Layout
from persianrug.skin.paley import size_for
from persianrug.skin.touch import Prior
from persianrug.skin.touch_sums import TouchSums

if TYPE_CHECKING:
    from persianrug.sketches.profile import Profile
    from persianrug.sources import Source

Floats = NDArray[np.float64]

_FORMAT = "persianrug skin profile 1"
_KINDS = {".npz": "a profile as `persianrug skin fit` writes it"}

# Where they are touched, forces may have been otherwise: sheared either way, up to this share of what presses, as
# friction allows; pressed by so much more or less; and in all with so much more variance.
_SHEAR, _PRESS, _MORE = 0.5, 0.3, 1.3
# Least variance of numbers of a taxel that is touched, in square newtons.
_LEAST = 1.3e-3
# Of forces, in newtons, and their squares: sums of squares of these stay within 32 bits.
_LARGEST = 1e12
_MOST_FORCE = 1e6
# Newtons of a count, at least, and how many times the largest frame of the fit fits 32 bits of them.
_RESOLUTION, _ROOM = 1 / 512, 8
# Quantiles of how much touches change from a frame to the next that are kept.
_QUANTILES = np.linspace(0, 1, 33)
# Of fewer numbers nothing is learnt of how they go together.
_LEAST_ROWS = 16


@dataclass(frozen=True, eq=False)
class SkinProfile:
    """What is usual of a skin's frames.

    Parameters
    ----------
    layout : Layout
    p : array (n_taxels,)
        The probability that a taxel is touched; 0 of dead ones.
    mean, variance : arrays (n_taxels, axes)
        Of its numbers then, in newtons and square newtons.
    leave : float
        The probability that a touch ends from one frame to the next.
    change : array (k,)
        Quantiles, from least to most, of how far touches move from a frame to the next: |x' - x| / |x|.
    noise : float
        Standard deviation of every number that a taxel reads, in newtons.
    most : float
        The largest sum of the magnitudes of a frame, in newtons: counts are such that eight times as much fits.
    rest : array (n_taxels, axes)
        What dead taxels read, in newtons; 0 of others.
    dead : bool array (n_taxels,)
    rate : float or None
        Frames a second.
    frames : int
        How many it was learnt from.
    codes : tuple of tuples of str
        Patches that share a code of their own; patches that are in none share one more. By default all share one.
    smooth : tuple of sketches.Profile
        Of skins of which much is touched at once: the distribution of the frames of each code, padded to the
        length of its transform. Others have none.

    Raises
    ------
    ValueError
        If shapes disagree, or values are out of their range.
    """

    layout: Layout
    p: Floats
    mean: Floats
    variance: Floats
    leave: float
    change: Floats
    noise: float = 0.0
    most: float = 0.0
    rest: Floats | None = None
    dead: NDArray[np.bool_] | None = None
    rate: float | None = None
    frames: int = 0
    codes: tuple[tuple[str, ...], ...] = ()
    smooth: tuple[Profile, ...] = ()

    def __post_init__(self) -> None:
        layout = checks.instance("layout", self.layout, Layout)
        shape = (layout.n_taxels, layout.axes)
        shapes: dict[str, tuple[int, ...]] = {"p": shape[:1], "mean": shape, "variance": shape, "rest": shape}
        if self.rest is None:
            object.__setattr__(self, "rest", np.zeros(shape))
        if self.dead is None:
            object.__setattr__(self, "dead", np.zeros(shape[0], dtype=bool))
        for name, wanted in shapes.items():
            value = checks.array(name, getattr(self, name), f"finite numbers {wanted}")
            if value.shape != wanted or not np.isfinite(value).all():
                raise ValueError(f"{name} has shape {value.shape}; allowed: finite numbers {wanted}")
            if np.abs(value).max() > _LARGEST:
                raise ValueError(f"{name} holds {np.abs(value).max():g}; allowed: sizes up to {_LARGEST:g}")
            object.__setattr__(self, name, value)
        if self.p.min() < 0 or self.p.max() > 1:
            raise ValueError(f"p is from {self.p.min():g} to {self.p.max():g}; allowed: 0 to 1")
        if self.variance.min() < 0:
            raise ValueError(f"variance holds {self.variance.min():g}; allowed: numbers >= 0")
        dead = np.asarray(self.dead)
        if dead.shape != shape[:1] or dead.dtype != bool:
            raise ValueError(f"dead has shape {dead.shape} of {dead.dtype}; allowed: {shape[:1]} of bool")
        if (self.p[dead] > 0).any():
            raise ValueError(f"p of a dead taxel is {self.p[dead].max():g}; allowed: 0")
        object.__setattr__(self, "dead", dead)
        object.__setattr__(self, "leave", checks.probability("leave", self.leave))
        object.__setattr__(self, "noise", checks.not_negative("noise", self.noise))
        if self.noise > _LARGEST:
            raise ValueError(f"noise is {self.noise:g}; allowed: up to {_LARGEST:g} N")
        object.__setattr__(self, "most", checks.not_negative("most", self.most))
        change = checks.levels("change", self.change)
        if change.ndim != 1 or not len(change):
            raise ValueError(f"change has shape {change.shape}; allowed: (k,)")
        object.__setattr__(self, "change", change)
        if self.rate is not None:
            object.__setattr__(self, "rate", checks.positive("rate", self.rate))
        object.__setattr__(self, "frames", checks.integer("frames", self.frames, 0))
        if not all(isinstance(code, tuple | list) for code in (self.codes, *_listed(self.codes))):
            raise ValueError(f"codes is {checks.shown(self.codes)}; allowed: sequences of names of patches")
        codes = tuple(tuple(map(str, code)) for code in self.codes)
        named = [name for code in codes for name in code]
        for name in named:
            checks.one_of("codes", name, layout.patches)
            if named.count(name) > 1:
                raise ValueError(f"codes hold patch {name} twice; allowed: once")
        object.__setattr__(self, "codes", codes)
        sizes = [size_for(len(taxels) * layout.axes) for taxels in self.blocks()]
        if self.smooth and [rows.n_sparse for rows in self.smooth] != [size for size, _ in sizes]:
            found = [rows.n_sparse for rows in self.smooth]
            raise ValueError(f"smooth has profiles of {found} numbers; allowed: as long as the codes' transforms")

    @classmethod
    def fit(
        cls,
        frames: Frames,
        layout: Layout,
        *,
        noise: float | None = None,
        codes: Sequence[Sequence[str]] = (),
        progress: Callable[[float, float], None] | None = None,
    ) -> SkinProfile:
        """Learn what is usual from frames in the order in which they were felt.

        What a taxel shows counts for its neighbours on the patch too, less the farther they are, so that one that
        was hardly ever touched has a distribution. Shears may point either way when they are felt, whatever way
        they pointed here.

        Parameters
        ----------
        frames : Frames
        layout : Layout
        noise : float, optional
            Standard deviation of what taxels will read, in newtons; by default, as it is measured in these frames.
        codes : sequence of sequences of str
            See the class.
        progress : callable, optional
            Called after every frame with 1 and how many there are.

        Raises
        ------
        ValueError
            If the frames are not of this skin, there are fewer than two, or nothing is ever touched.
        """
        checks.instance("frames", frames, Frames).check(checks.instance("layout", layout, Layout))
        if len(frames) < 2:
            raise ValueError(f"{frames.name} has {len(frames)} frames; allowed: two or more")
        here = frames.noise
        noise = here if noise is None else checks.not_negative("noise", noise)
        sums = TouchSums(layout, here)
        for number, frame in enumerate(frames):
            if (largest := float(np.abs(frame).max())) > _MOST_FORCE:
                where = f"{frames.name} holds the force {largest:g} in frame {number}"
                raise ValueError(f"{where}; allowed: up to {_MOST_FORCE:g} N")
            sums.add(frame.reshape(layout.n_taxels, layout.axes))
            if progress is not None:
                progress(1, len(frames))
        dead, rest = sums.dead()
        if not sums.touched[~dead].any():
            raise ValueError(f"{frames.name} shows no touch in {len(frames)} frames; allowed: frames with touches")
        p, mean, variance = sums.pooled(dead)
        profile = cls(
            layout=layout,
            p=p,
            mean=mean,
            variance=variance,
            leave=sums.leave,
            change=np.quantile(sums.changes, _QUANTILES) if sums.changes else np.zeros(1),
            noise=noise,
            most=sums.most,
            rest=rest,
            dead=dead,
            rate=frames.rate,
            frames=len(frames),
            codes=codes,  # type: ignore[arg-type]
        )
        few = min(len(numbers) for numbers in profile.numbers()) < _LEAST_ROWS
        if few or sums.touched[~dead].mean() <= SMOOTH * len(frames):
            return profile
        from persianrug.skin.smooth import fit_rows

        return replace(profile, smooth=tuple(fit_rows(frames, numbers) for numbers in profile.numbers()))

    def numbers(self) -> list[NDArray[np.int64]]:
        """Which numbers of a flat frame each code is of."""
        axes = self.layout.axes
        return [(taxels[:, None] * axes + np.arange(axes)).ravel() for taxels in self.blocks()]

    def blocks(self) -> list[NDArray[np.int64]]:
        """The taxels of each code: those of `codes`, and last those of all other patches."""
        layout = self.layout
        parts = [np.isin(layout.patch, [layout.patches.index(name) for name in code]) for code in self.codes]
        others = ~np.any(parts, axis=0) if parts else np.ones(layout.n_taxels, dtype=bool)
        return [np.flatnonzero(part) for part in [*parts, others] if part.any()]

    def block_of_patch(self) -> list[int]:
        """Which of the blocks each patch is in."""
        blocks = self.blocks()
        return [
            next(b for b, taxels in enumerate(blocks) if patch in self.layout.patch[taxels])
            for patch in range(len(self.layout.patches))
        ]

    def encoder(self, ratio: float = 16.0, *, bits: int = 12, seed: int = 0) -> SkinEncoder:
        """The encoder whose codes have one number for `ratio` of a frame's in all.

        Of several codes each has its share of them: the mean of its shares of the taxels and of touches.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        if checks.positive("ratio", ratio) < 1:
            raise ValueError(f"ratio is {ratio:g}; allowed: 1 or more, numbers of a frame for one of its code")
        blocks = self.blocks()
        touched = np.array([self.p[taxels].sum() for taxels in blocks]) / max(self.p.sum(), checks.SMALLEST)
        share = [
            (len(taxels) / self.layout.n_taxels + part) / 2 for taxels, part in zip(blocks, touched, strict=True)
        ]
        room = [len(taxels) * self.layout.axes for taxels in blocks] if len(blocks) > 1 else [self.layout.n_sparse]
        n_dense = [
            min(max(1, round(self.layout.n_sparse / ratio * part)), most)
            for part, most in zip(share, room, strict=True)
        ]  # fmt: skip
        return SkinEncoder(
            self.layout.n_taxels,
            n_dense,
            axes=self.layout.axes,
            bits=bits,
            resolution=_RESOLUTION
            * 2.0 ** max(0, math.ceil(math.log2(max(_ROOM * self.most / _RESOLUTION, 1) / 2**31))),
            seed=seed,
            blocks=blocks if len(blocks) > 1 else None,
            layout=self.layout.digest,
            # What noise makes of no pressure is rarely beyond that.
            noise=BELOW * self.noise,
        )

    def prior(self, taxels: NDArray[np.int64]) -> Prior:
        """What a decoder takes to be usual of some taxels, with room for forces that were not felt in the fit."""
        mean, variance = self.mean[taxels].copy(), self.variance[taxels].copy()
        force = np.abs(mean[:, :1]) + np.sqrt(variance[:, :1])
        variance[:, :1] += (_PRESS * force) ** 2
        mean[:, 1:] *= 0.5
        variance[:, 1:] += (_SHEAR * force) ** 2
        return Prior(self.p[taxels], mean, _MORE * np.maximum(variance, _LEAST), self.leave)

    def source(self) -> Source:
        """`prior` of all taxels, for any decoder: the numbers of a taxel are on together.

        Dead taxels are never touched. Pressures are normal here, though none is below 0.
        """
        # Sources need PyTorch, a receiver of packets does not.
        from persianrug.sources import Groups, SparseGaussian

        axes, prior = self.layout.axes, self.prior(np.arange(self.layout.n_taxels))
        alone = SparseGaussian(
            p=np.repeat(np.maximum(self.p, checks.SMALLEST), axes),
            loc=prior.mean.ravel().astype(np.float64),
            scale=np.sqrt(prior.variance.ravel().astype(np.float64)),
        )
        return Groups(alone, axes) if axes > 1 else alone

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile to an .npz file; whole, or as it was before.

        Raises
        ------
        ValueError
            If the name has another ending, or the file cannot be written.
        """
        told = {"format": _FORMAT, "leave": self.leave, "noise": self.noise, "most": self.most, "rate": self.rate,
                "frames": self.frames, "codes": self.codes}  # fmt: skip
        parts: dict[str, Any] = self.layout.arrays() | {name: getattr(self, name) for name in _ARRAYS}
        for block, rows in enumerate(self.smooth):
            content = io.BytesIO()
            rows.write(content)
            parts[f"{_SMOOTH_ROWS}{block}"] = np.frombuffer(content.getvalue(), dtype=np.uint8)
        npy.write_arrays(path, parts | {"profile": np.array(json.dumps(told))})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SkinProfile:
        """Read a profile.

        Raises
        ------
        ValueError
            If the file is none, is damaged, or of another version.
        """
        with files.untrusted("profile", path, _KINDS) as target:
            parts = npy.read_arrays(target, [*_ARRAYS, "profile"])
            if missing := [name for name in (*_ARRAYS, "profile") if name not in parts]:
                raise ValueError(f"it holds no array {missing[0]}")
            told: Any = json.loads(str(parts.pop("profile")[()]))
            if not isinstance(told, dict) or told.pop("format", None) != _FORMAT:
                raise ValueError(f"it is of another format; allowed: {_FORMAT}")
            wanted = {"leave", "noise", "most", "rate", "frames", "codes"}
            if told.keys() != wanted:
                raise ValueError(f"it tells {sorted(told)}; allowed: {sorted(wanted)}")
            blocks = sorted(name for name in npy.names(target) if name.startswith(_SMOOTH_ROWS))
            found = npy.read_arrays(target, blocks)
            smooth = tuple(_rows(found[f"{_SMOOTH_ROWS}{block}"], target) for block in range(len(blocks)))
            kept: dict[str, Any] = {**parts, **told, "smooth": smooth}
            return cls(Layout.of_arrays(target), **kept)

    def __repr__(self) -> str:
        noise = f", noise {self.noise:.3g} N" if self.noise else ""
        return (
            f"SkinProfile({self.layout.n_taxels} taxels, {self.layout.axes} axes, of {self.frames} frames{noise})"
        )


_SMOOTH_ROWS = "rows_of_code_"
_ARRAYS = ("p", "mean", "variance", "change", "rest", "dead")


def _listed(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else ()


def check_skin(profile: SkinProfile, encoder: SkinEncoder) -> None:
    """ValueError unless these are a profile and an encoder of one skin."""
    layout = checks.instance("profile", profile, SkinProfile).layout
    checks.instance("encoder", encoder, SkinEncoder)
    if (encoder.n_taxels, encoder.axes) != (layout.n_taxels, layout.axes):
        raise ValueError(f"encoder is {encoder}; allowed with this profile: {layout}")
    if profile.smooth and len(encoder.numbers) != len(profile.smooth):
        raise ValueError(
            f"encoder has {len(encoder.numbers)} blocks; allowed: {len(profile.smooth)}, as the profile"
        )


def _rows(content: NDArray[Any], path: Path) -> Profile:
    if content.dtype != np.uint8 or content.ndim != 1:
        raise ValueError(f"its profile of rows is an array of {content.dtype}; allowed: bytes")
    from persianrug.sketches.profile import Profile

    return Profile.of_bytes(content.tobytes(), path)
