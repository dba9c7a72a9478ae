"""Recorded frames of a skin: files of them, read without trust, and given out one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from persianrug._support import checks, files, npy
from persianrug.skin.layout import Layout

_KINDS = {
    ".npz": "an .npz file of frames, or of their data, indices, indptr and shape",
    ".npy": "an .npy file of frames x numbers",
}
_PARTS = ("data", "indices", "indptr")
# Numbers of a file that are looked at in one go.
_BLOCK = 1 << 22

# Frames that the noise is estimated from, and numbers that one has at least.
_SAMPLED, _MANY = 256, 32
# Where more of all taxels is touched on average, a skin is smooth.
SMOOTH = 0.15
# No noise is beyond so many times its standard deviation.
BELOW = 12.0


class Frames:
    """Frames of a skin in the order in which they were felt.

    Parameters
    ----------
    rows : array or SciPy sparse matrix (frames, n_sparse)
        In newtons, or whatever the skin counts in; number i is that of taxel i // axes and axis i % axes.
    time : array (frames,), optional
        In seconds; no frame comes before the one before it.
    label : array (frames,) of int, optional
        What goes on in each frame.
    label_names : sequence of str
        What labels 0, 1, ... mean.

    Raises
    ------
    ValueError
        If a number is not finite, or lengths disagree.
    """

    def __init__(
        self,
        rows: Any,
        time: Any = None,
        label: Any = None,
        label_names: Sequence[str] = (),
        *,
        name: str = "frames",
    ) -> None:
        if not scipy.sparse.issparse(rows) and not isinstance(rows, np.ndarray):
            rows = checks.array(name, rows, "frames x numbers")
        checks.real(name, rows)
        if rows.ndim != 2 or rows.shape[1] < 1:
            raise ValueError(f"{name} has shape {tuple(rows.shape)}; allowed: (frames, n_sparse)")
        self.name, self.rows = name, _finite(name, rows)
        self.time = None if time is None else _times(time, len(self))
        self.label = None if label is None else _labels(label, len(self), len(label_names))
        self.label_names = tuple(map(str, label_names))

    @classmethod
    def read(cls, path: str | os.PathLike[str], skin: str | None = None) -> Frames:
        """Read a file of frames.

        Parameters
        ----------
        path : str or path
            An .npy file of frames x numbers; or an .npz file of `frames`, or of `data`, `indices`, `indptr` and
            `shape` as SciPy's CSR matrices have them, and of `time`, and `label`, or `phase` and `phase_names`,
            where these are. Of several skins in a file, whose arrays are `stiff_data` and so on, `FILE.npz:stiff`
            is one.
        skin : str, optional
            Which of several skins, where that is not said with the path.

        Raises
        ------
        ValueError
            If the file is no such file, claims more than it can hold, or what it holds is no frames.
        """
        head, colon, tail = os.fspath(checks.path("path", path)).rpartition(":")
        if colon and skin is None and Path(head).suffix.lower() in _KINDS:
            path, skin = head, tail
        with files.untrusted("frames", path, _KINDS) as target:
            name = Path(path).name
            if target.suffix.lower() == ".npz":
                return _read_npz(target, name, skin)
            if skin is not None:
                raise ValueError(f"it holds one skin, and none of the name {checks.shown(skin)}; allowed: no name")
            return cls(_read_npy(target), name=name)

    @property
    def n_sparse(self) -> int:
        """Numbers of a frame."""
        return self.rows.shape[1]

    @property
    def rate(self) -> float | None:
        """Frames a second, where there are times of two or more."""
        if self.time is None or len(self) < 2 or self.time[-1] <= self.time[0]:
            return None
        rate = float((len(self) - 1) / (self.time[-1] - self.time[0]))
        return rate if np.isfinite(rate) else None

    @cached_property
    def noise(self) -> float:
        """The standard deviation of numbers of taxels that nothing touches: 0 where half of all read 0.

        Most numbers are of such taxels: it is that of a normal distribution with the median of their magnitudes.
        Where they are not, as many are beyond all noise or none is negative, what is measured is no noise.
        """
        # Of a few taxels most may be touched.
        if not len(self) or self.n_sparse < _MANY:
            return 0.0
        places = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int))
        sample = np.stack([self[int(place)] for place in places])
        sizes = np.abs(sample)
        noise = float(np.median(sizes) / 0.67449)
        # Noise is as often negative, and touches are few beside it.
        little = sample[sizes <= 2 * noise]
        centred = len(little) and 0.2 < float((little < 0).mean()) < 0.8
        return noise if centred and (sizes > 5 * noise).mean() <= SMOOTH else 0.0

    def check(self, layout: Layout) -> None:
        """ValueError unless these are frames of a skin; of one without shear none is pulled beyond all noise."""
        if self.n_sparse != layout.n_sparse:
            raise ValueError(
                f"{self.name} has {self.n_sparse} numbers a frame; allowed: {layout.n_sparse}, as {layout}"
            )
        if layout.axes == 1:
            self.check_pressure()

    def check_pressure(self) -> None:
        """ValueError if a number is negative, which pressure is not, by more than noise makes it."""
        least = -BELOW * self.noise
        for start, block in _blocks(self.rows):
            numbers = _numbers(block)
            if numbers.size and numbers.min() < least:
                frame, taxel = _place(block, lambda values: values < least)
                raise ValueError(f"{self.name} holds the pressure {_number(block, frame, taxel):g} in frame "
                                 f"{start + frame} at taxel {taxel}; allowed: numbers >= {least:.3g}")  # fmt: skip

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """The frames, each (n_sparse,) in an array of its own."""
        for frame in range(len(self)):
            yield self._dense(frame)

    def __getitem__(self, frames: int | slice) -> Any:
        """A frame (n_sparse,), or a part of the recording as Frames."""
        if isinstance(frames, slice):
            part = Frames.__new__(Frames)
            part.name, part.rows, part.label_names = self.name, self.rows[frames], self.label_names
            part.time = None if self.time is None else self.time[frames]
            part.label = None if self.label is None else self.label[frames]
            return part
        place = checks.integer("frame", frames, -len(self), len(self) - 1)
        return self._dense(place % len(self))

    def _dense(self, frame: int) -> NDArray[np.float32]:
        if not _is_sparse(self.rows):
            return np.array(self.rows[frame], dtype=np.float32)
        part = slice(self.rows.indptr[frame], self.rows.indptr[frame + 1])
        dense = np.zeros(self.n_sparse, dtype=np.float32)
        dense[self.rows.indices[part]] = self.rows.data[part]
        return dense

    def __repr__(self) -> str:
        rate = "" if self.rate is None else f", {self.rate:.4g} a second"
        return f"Frames({self.name}: {len(self)} frames of {self.n_sparse} numbers{rate})"


def _read_npy(target: Path) -> NDArray[Any]:
    with target.open("rb") as file:
        shape, _, dtype = npy.npy_header(file)
        start = file.tell()
    npy.check_numeric(dtype)
    if len(shape) != 2 or min(shape) < 0:
        raise ValueError(f"its array has shape {shape}; allowed: frames x numbers")
    if start + shape[0] * shape[1] * dtype.itemsize > target.stat().st_size:
        raise ValueError(f"it claims an array of shape {shape}, and ends before that does")
    # Left in the file until a frame is asked for.
    return np.load(target, mmap_mode="r", allow_pickle=False) if shape[0] else np.empty(shape, dtype=np.float32)


def _read_npz(target: Path, name: str, skin: str | None) -> Frames:
    names = npy.names(target)
    skins = sorted(one.removesuffix("_data") for one in names if one.endswith("_data") and one != "_data")
    allowed = [one for one in skins if all(f"{one}_{part}" in names for part in _PARTS)]
    start = ""
    if skin is not None:
        if skin not in allowed:
            said = f"one of {', '.join(allowed)}" if allowed else "no name, it holds one skin"
            raise ValueError(f"it holds no skin of the name {checks.shown(skin)}; allowed: {said}")
        start = f"{skin}_"
    elif not {"frames", "data"} & set(names):
        if allowed:
            raise ValueError(f"it holds {len(allowed)} skins; allowed: a name after it, {name}:{allowed[0]}, "
                             f"of {', '.join(allowed)}")  # fmt: skip
        raise ValueError("it holds no array frames, and none of data, indices and indptr")
    own = ("frames", "shape", *_PARTS)
    others = ("time", "label", "phase", "phase_names", "format", "taxel_pos")
    found = npy.read_arrays(target, [start + part for part in own] + [*others])
    parts = {one.removeprefix(start): part for one, part in found.items()}
    labels = parts.get("label", parts.get("phase"))
    # Names are those of phases.
    of_labels = parts.get("phase_names") if "label" not in parts else None
    if of_labels is not None and (of_labels.dtype.kind != "U" or of_labels.ndim != 1):
        raise ValueError(f"phase_names has shape {of_labels.shape} of {of_labels.dtype}; allowed: a row of texts")
    rows = parts["frames"] if "frames" in parts else _sparse(parts)
    return Frames(rows, parts.get("time"), labels, () if of_labels is None else tuple(of_labels), name=name)


def _sparse(parts: dict[str, NDArray[Any]]) -> Any:
    """A CSR matrix, every part of which is what it should be."""
    if missing := [part for part in _PARTS if part not in parts]:
        raise ValueError(f"it holds no array {missing[0]}")
    # SciPy's own files say which of its formats they have, in bytes.
    if (kind := parts.get("format")) is not None and kind.tolist() not in ("csr", b"csr"):
        raise ValueError(f"its format is {checks.shown(kind)}; allowed: csr")
    data, indices, indptr = (parts[part] for part in _PARTS)
    npy.check_numeric(data.dtype)
    for name in ("indices", "indptr"):
        if parts[name].dtype.kind not in "iu" or parts[name].ndim != 1:
            raise ValueError(
                f"{name} has shape {parts[name].shape} of {parts[name].dtype}; allowed: a row of integers"
            )
    frames, n_sparse = _shape(parts, len(indptr) - 1)
    npy.check_claim("numbers a frame", n_sparse, data.nbytes)
    if frames != len(indptr) - 1:
        raise ValueError(
            f"indptr has {len(indptr)} entries; allowed: {frames + 1}, one more than there are frames"
        )
    if data.shape != indices.shape:
        raise ValueError(f"data has shape {data.shape} where indices has {indices.shape}; allowed: the same")
    if indptr[0] != 0 or indptr[-1] != len(data) or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(f"indptr does not run from 0 to {len(data)}, the entries of data, without going back")
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < n_sparse:
        place = int(((indices < 0) | (indices >= n_sparse)).argmax())
        frame = int(np.searchsorted(indptr, place, side="right")) - 1
        raise ValueError(f"indices holds {indices[place]} in frame {frame}; allowed: 0 to {n_sparse - 1}")
    # Sums of numbers up to n_sparse are within 32 bits, those of 16 bits would wrap.
    rows = scipy.sparse.csr_array(
        (data, indices.astype(np.int32), indptr.astype(np.int64)), shape=(frames, n_sparse)
    )
    rows.sum_duplicates()
    return rows


def _shape(parts: dict[str, NDArray[Any]], frames: int) -> tuple[int, int]:
    if "shape" in parts:
        shape = parts["shape"]
        if shape.shape != (2,) or shape.dtype.kind not in "iu" or shape.min() < 0 or shape[1] < 1:
            raise ValueError(f"shape is {shape.tolist()}; allowed: frames and numbers a frame")
        return int(shape[0]), int(shape[1])
    if parts.get("taxel_pos") is None or parts["taxel_pos"].ndim != 2:
        raise ValueError("it holds no array shape, frames and numbers a frame")
    return frames, len(parts["taxel_pos"])


def _finite(name: str, rows: Any) -> Any:
    """Rows in which all numbers are finite in 32 bits; sparse ones as CSR of these, dense ones as they are."""
    if _is_sparse(rows):
        with np.errstate(over="ignore"):
            rows = rows.tocsr().astype(np.float32)
    for start, block in _blocks(rows):
        with np.errstate(over="ignore"):
            fine = np.isfinite(_numbers(block).astype(np.float32, copy=False))
        if not fine.all():
            frame, number = _place(block, lambda values: ~np.isfinite(values.astype(np.float32)))
            raise ValueError(f"{name} holds {_number(block, frame, number)} in frame {start + frame} at number "
                             f"{number}; allowed: finite numbers of 32 bits")  # fmt: skip
    return rows


def _blocks(rows: Any) -> Iterator[tuple[int, Any]]:
    """Rows a few at a time, with the place of the first."""
    if _is_sparse(rows):
        yield 0, rows
        return
    step = max(_BLOCK // rows.shape[1], 1)
    for start in range(0, rows.shape[0], step):
        yield start, rows[start : start + step]


def _is_sparse(rows: Any) -> bool:
    return scipy.sparse.issparse(rows)


def _numbers(block: Any) -> NDArray[Any]:
    """All numbers of rows, of sparse ones those that are stored."""
    return block.data if _is_sparse(block) else block


def _place(block: Any, wrong: Any) -> tuple[int, int]:
    """Row and column of the first number that is wrong."""
    with np.errstate(over="ignore"):
        place = np.argwhere(wrong(_numbers(block)))[0]
    if len(place) == 2:
        return int(place[0]), int(place[1])
    return int(np.searchsorted(block.indptr, place[0], side="right")) - 1, int(block.indices[place[0]])


def _number(block: Any, row: int, column: int) -> float:
    return float(block[row, column])


def _times(value: Any, frames: int) -> NDArray[np.float64]:
    times = checks.array("time", value, f"seconds ({frames},)")
    if times.shape != (frames,):
        raise ValueError(f"time has shape {times.shape}; allowed: ({frames},), one a frame")
    if not np.isfinite(times).all():
        raise ValueError(f"time of frame {int((~np.isfinite(times)).argmax())} is not finite; allowed: seconds")
    if (back := times[1:] < times[:-1]).any():
        frame = int(back.argmax()) + 1
        raise ValueError(f"time of frame {frame} is {times[frame]:.6g} s after {times[frame - 1]:.6g} s; allowed: "
                         "times in order")  # fmt: skip
    times.flags.writeable = False
    return times


def _labels(value: Any, frames: int, names: int) -> NDArray[np.int64]:
    labels = np.asarray(value)
    if labels.shape != (frames,) or labels.dtype.kind not in "iu":
        raise ValueError(f"label has shape {labels.shape} of {labels.dtype}; allowed: integers ({frames},)")
    if names and frames and not 0 <= int(labels.min()) <= int(labels.max()) < names:
        frame = int(((labels < 0) | (labels >= names)).argmax())
        raise ValueError(
            f"label of frame {frame} is {labels[frame]}; allowed: 0 to {names - 1}, as there are names"
        )
    return labels.astype(np.int64)
