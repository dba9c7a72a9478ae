"""What is known of a skin before a frame is seen: how often, how hard and how long each taxel is touched."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from persianrug._support import checks, files, npy
from persianrug.skin.encoder import SkinEncoder
from persianrug.skin.frames import Frames
from persianrug.skin.layout import Layout
from persianrug.skin.paley import size_for
from persianrug.skin.touch import Prior

if TYPE_CHECKING:
    from persianrug.sketches.profile import Profile
    from persianrug.sources import Source

Floats = NDArray[np.float64]

_FORMAT = "persianrug skin profile 1"
_KINDS = {".npz": "a profile as `persianrug skin fit` writes it"}

# Taxels that were never touched will be: with this probability, and at least so many of them are pooled.
_FLOOR = 3e-5
# Touches that a taxel's numbers are pooled with, as those of an average taxel of its patch.
_SHRINK = 3.0
# Where they are touched, forces may have been otherwise: sheared either way, up to this share of what presses, as
# friction allows; pressed by so much more or less; and in all with so much more variance.
_SHEAR, _PRESS, _MORE = 0.5, 0.3, 1.3
# Least variance of numbers of a taxel that is touched, in square newtons.
_LEAST = 1.3e-3
# Quantiles of how much touches change from a frame to the next that are kept.
_QUANTILES = np.linspace(0, 1, 33)
# Where more of all taxels is touched on average, a skin is smooth.
_SMOOTH = 0.15
# Of fewer numbers nothing is learnt of how they go together.
_LEAST_ROWS = 16
# Frames that the noise is estimated from, and that are read at a time.
_SAMPLED, _CHUNK = 256, 64
# No noise is beyond so many times its standard deviation.
_BELOW = 12.0
# In so many frames a taxel that always reads the same, beside others that do not, is dead.
_LONG = 100


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
            object.__setattr__(self, name, value)
        if self.p.min() < 0 or self.p.max() > 1:
            raise ValueError(f"p is from {self.p.min():g} to {self.p.max():g}; allowed: 0 to 1")
        if self.variance.min() < 0:
            raise ValueError(f"variance holds {self.variance.min():g}; allowed: numbers >= 0")
        dead = np.asarray(self.dead)
        if dead.shape != shape[:1] or dead.dtype != bool:
            raise ValueError(f"dead has shape {dead.shape} of {dead.dtype}; allowed: {shape[:1]} of bool")
        object.__setattr__(self, "dead", dead)
        object.__setattr__(self, "leave", checks.probability("leave", self.leave))
        object.__setattr__(self, "noise", checks.not_negative("noise", self.noise))
        change = checks.levels("change", self.change)
        if change.ndim != 1 or not len(change):
            raise ValueError(f"change has shape {change.shape}; allowed: (k,)")
        object.__setattr__(self, "change", change)
        if self.rate is not None:
            object.__setattr__(self, "rate", checks.positive("rate", self.rate))
        object.__setattr__(self, "frames", checks.integer("frames", self.frames, 0))
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
        frames.check(layout)
        if len(frames) < 2:
            raise ValueError(f"{frames.name} has {len(frames)} frames; allowed: two or more")
        here = _noise_of(frames)
        noise = here if noise is None else checks.not_negative("noise", noise)
        sums = _Sums(layout, here)
        for frame in frames:
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
            rest=rest,
            dead=dead,
            rate=frames.rate,
            frames=len(frames),
            codes=tuple(tuple(code) for code in codes),
        )
        few = min(len(numbers) for numbers in profile.numbers()) < _LEAST_ROWS
        if few or sums.touched[~dead].mean() <= _SMOOTH * len(frames):
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
            seed=seed,
            blocks=blocks if len(blocks) > 1 else None,
            layout=self.layout.digest,
            # What noise makes of no pressure is rarely beyond that.
            noise=_BELOW * self.noise,
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
        if not os.fspath(checks.path("path", path)).lower().endswith(".npz"):
            raise ValueError(f"path is {checks.shown(os.fspath(path))}; allowed: a name that ends in .npz")
        told = {"format": _FORMAT, "leave": self.leave, "noise": self.noise, "rate": self.rate,
                "frames": self.frames, "codes": self.codes}  # fmt: skip
        parts: dict[str, Any] = self.layout.arrays() | {name: getattr(self, name) for name in _ARRAYS}
        for block, rows in enumerate(self.smooth):
            content = io.BytesIO()
            rows.write(content)
            parts[f"{_SMOOTH_ROWS}{block}"] = np.frombuffer(content.getvalue(), dtype=np.uint8)
        with files.whole_file(path) as file:
            np.savez_compressed(file, **parts, profile=np.array(json.dumps(told)))

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
            wanted = {"leave", "noise", "rate", "frames", "codes"}
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


def _rows(content: NDArray[Any], path: Path) -> Profile:
    if content.dtype != np.uint8 or content.ndim != 1:
        raise ValueError(f"its profile of rows is an array of {content.dtype}; allowed: bytes")
    from persianrug.sketches.profile import Profile

    return Profile.of_bytes(content.tobytes(), path)


def _noise_of(frames: Frames) -> float:
    """The standard deviation of numbers of taxels that nothing touches: 0 where half of all read 0.

    Most numbers are of such taxels, so it is that of a normal distribution with the median of their magnitudes.
    Where they are not, as many are beyond all noise, what is measured is no noise.
    """
    places = np.unique(np.linspace(0, len(frames) - 1, _SAMPLED).astype(int))
    sample = np.abs(np.stack([frames[int(place)] for place in places]))
    noise = float(np.median(sample) / 0.67449)
    return noise if (sample > 5 * noise).mean() <= _SMOOTH else 0.0


class _Sums:
    """Sums over frames of what each taxel shows."""

    def __init__(self, layout: Layout, noise: float) -> None:
        self.layout, self.noise = layout, noise
        n, axes = layout.n_taxels, layout.axes
        self.frames = 0
        self.touched = np.zeros(n)
        self.first, self.second = np.zeros((n, axes)), np.zeros((n, axes))
        self.low, self.high = np.full((n, axes), np.inf), np.full((n, axes), -np.inf)
        self.begun, self.ended = 0, 0
        self.changes: list[float] = []
        # Beyond this energy noise alone is rare: once in 100,000 looks at a taxel.
        self.least = noise**2 * (18.5 + 2.5 * axes)
        self._before: tuple[NDArray[Any], NDArray[np.bool_]] | None = None

    def add(self, frame: NDArray[np.float32]) -> None:
        """Take a frame (n_taxels, axes)."""
        np.minimum(self.low, frame, out=self.low)
        np.maximum(self.high, frame, out=self.high)
        touched = np.square(frame).sum(axis=1) > self.least
        places = np.flatnonzero(touched)
        here = frame[places].astype(np.float64)
        self.frames += 1
        self.touched[places] += 1
        self.first[places] += here
        self.second[places] += here**2
        if self._before is not None:
            last, was = self._before
            both = was & touched
            self.begun += int(was.sum())
            self.ended += int((was & ~touched).sum())
            energy = float(np.square(frame[both]).sum())
            if energy > 0:
                moved = float(np.square(frame[both] - last[both]).sum())
                moved = max(moved - 2 * self.noise**2 * int(both.sum()) * frame.shape[1], 0.0)
                self.changes.append((moved / energy) ** 0.5)
        self._before = frame.copy(), touched

    @property
    def leave(self) -> float:
        """The share of touches that end from one frame to the next, a touch and an end more."""
        return (self.ended + 1) / (self.begun + 2)

    def dead(self) -> tuple[NDArray[np.bool_], Floats]:
        """Taxels that always read the same where that says something, and what they read."""
        still = (self.high == self.low).all(axis=1)
        # Without noise those that were never touched read 0 as well: only what is not 0 tells.
        dead = still & ((self.noise > 0) | (self.high != 0).any(axis=1)) & (self.frames >= _LONG)
        return dead, np.where(dead[:, None], self.high, 0.0)

    def pooled(self, dead: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Probability, mean and variance of every taxel, with what its neighbours show."""
        layout, touched = self.layout, np.where(dead, 0.0, self.touched)
        first, second = (np.where(dead[:, None], 0.0, part) for part in (self.first, self.second))
        second = np.maximum(second - self.noise**2 * touched[:, None], 0.0)
        typical = second.sum(axis=0) / touched.sum()
        p, mean, variance = np.zeros(layout.n_taxels), np.zeros_like(first), np.zeros_like(first)
        for patch in range(len(layout.patches)):
            i = np.flatnonzero((layout.patch == patch) & ~dead)
            if not len(i):
                continue
            near, nearer = _neighbours(layout.position[i])
            p[i] = 0.5 * (touched[i] + (near @ touched[i]) / near.sum(axis=1)) / self.frames
            usual = second[i].sum(axis=0) / touched[i].sum() if touched[i].any() else typical
            count = (nearer @ touched[i])[:, None] + _SHRINK
            mean[i] = (nearer @ first[i]) / count
            variance[i] = (nearer @ second[i] + _SHRINK * usual) / count - mean[i] ** 2
        variance = np.maximum(variance, 0.0)
        p = np.where(dead, 0.0, np.clip(p + _FLOOR, 0.0, 0.995))
        return p, mean, variance


def _neighbours(position: NDArray[np.float32]) -> tuple[Any, Any]:
    """Weights (k, k), sparse, of taxels for each other: of those near, and of those nearer than that."""
    tree = cKDTree(position)
    # Of one taxel alone there is no spacing, and none is needed.
    spacing = float(np.median(np.atleast_2d(tree.query(position, k=2)[0])[:, 1])) if len(position) > 1 else 1.0
    width = 0.75 * (spacing or 1.0)
    distance = csr_array(tree.sparse_distance_matrix(tree, 3.7 * width, output_type="coo_matrix"))
    near, nearer = distance.copy(), distance.copy()
    near.data = np.exp(-((distance.data / width) ** 2) / 2)
    nearer.data = np.exp(-2 * (distance.data / width) ** 2)
    return near, nearer
