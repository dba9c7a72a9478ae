"""What taxels felt and what was decoded of it, now and then in a run: sparse, since most feel nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug.skin.estimate import Estimate
from persianrug.skin.layout import Layout
from persianrug.skin.recording import BlockCode, RecordedCode

# Smaller numbers, in newtons, are not kept: a decoder leaves some in every taxel.
_LEAST = 0.005
_START = "frames_"


@dataclass(frozen=True, eq=False)
class TouchFrame:
    """A frame of a skin, on both ends of its code.

    Attributes
    ----------
    time : float
        When it was felt, in seconds.
    true : array (n_taxels, axes)
        What presses on the taxels, in newtons, without their flaws.
    estimate : Estimate
        What was decoded.
    code : sequence of BlockCode
        What was sent.
    """

    time: float
    true: NDArray[Any]
    estimate: Estimate
    code: Sequence[BlockCode]


class TaxelLog:
    """Frames of a skin, true and decoded, with their codes.

    Parameters
    ----------
    layout : Layout

    Attributes
    ----------
    time : list of float
        When each frame was felt, in seconds.
    estimates : list of (int, float, array (n_blocks,), array (n_blocks,))
        Of each frame its number, its expected relative error, and which blocks are explained and were heard.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.time: list[float] = []
        self.estimates: list[tuple[int, float, NDArray[np.bool_], NDArray[np.bool_]]] = []
        self._kept: dict[str, list[tuple[NDArray[np.int32], NDArray[np.float32]]]] = {"true": [], "decoded": []}
        self._codes: list[tuple[RecordedCode, ...]] = []

    def __len__(self) -> int:
        return len(self.time)

    def append(self, time: float, true: NDArray[Any], estimate: Estimate, code: Sequence[BlockCode] = ()) -> None:
        """Keep a frame: the true one (n_taxels, axes) in newtons, and what was decoded of it."""
        for name, frame in (("true", true), ("decoded", estimate.x)):
            values = np.asarray(frame, dtype=np.float32).ravel()
            if len(values) != self.layout.n_sparse:
                raise ValueError(f"{name} has {len(values)} numbers; allowed: {self.layout.n_sparse}, a frame")
            places = np.flatnonzero(np.abs(values) >= _LEAST).astype(np.int32)
            self._kept[name].append((places, values[places]))
        self.time.append(float(time))
        self.estimates.append((estimate.frame, float(estimate.expected_error), estimate.explained, estimate.heard))
        self._codes.append(
            tuple(RecordedCode(one.block, np.array(one.values, np.int32), one.exponent, one.bits) for one in code)
        )

    def true(self, place: int) -> NDArray[np.float32]:
        """The frame (n_taxels, axes) that was felt, in newtons, without numbers below 5 mN."""
        return self._frame("true", place)

    def decoded(self, place: int) -> NDArray[np.float32]:
        """What was decoded of it."""
        return self._frame("decoded", place)

    def estimate(self, place: int) -> Estimate:
        """The decoded frame as it is recorded, without the variances, which are not kept."""
        frame, error, explained, heard = self.estimates[place]
        known = Estimate.certain(frame, self.decoded(place))
        return Estimate(frame, known.x, known.variance, known.active, error, explained, heard)

    def code(self, place: int) -> tuple[RecordedCode, ...]:
        """The codes of its blocks; none where they were not kept."""
        return self._codes[place]

    def nearest(self, time: float) -> int:
        """The place of the frame that was felt nearest to a time in seconds; ValueError if there is none."""
        if not self.time:
            raise ValueError("the log holds no frames of the skin; allowed: one or more")
        return int(np.abs(np.array(self.time) - time).argmin())

    def _frame(self, name: str, place: int) -> NDArray[np.float32]:
        frame = np.zeros(self.layout.n_sparse, dtype=np.float32)
        places, values = self._kept[name][place]
        frame[places] = values
        return frame.reshape(self.layout.n_taxels, self.layout.axes)

    def arrays(self) -> dict[str, Any]:
        """The arrays of a file of all this, by name."""
        blocks = len(self.estimates[0][2]) if self.estimates else 0
        parts: dict[str, Any] = {
            "time": np.array(self.time),
            "number": np.array([one[0] for one in self.estimates], dtype=np.int64),
            "expected_error": np.array([one[1] for one in self.estimates]),
            "explained": np.array([one[2] for one in self.estimates], dtype=bool).reshape(len(self), blocks),
            "heard": np.array([one[3] for one in self.estimates], dtype=bool).reshape(len(self), blocks),
        }
        for name, kept in self._kept.items():
            parts[f"{name}_indices"] = _joined([places for places, _ in kept], np.int32)
            parts[f"{name}_data"] = _joined([values for _, values in kept], np.float32)
            parts[f"{name}_indptr"] = _ends([len(places) for places, _ in kept])
        codes = [one for frame in self._codes for one in frame]
        parts["code_indptr"] = _ends([len(frame) for frame in self._codes])
        parts["code_values"] = _joined([one.values for one in codes], np.int32)
        parts["code_values_indptr"] = _ends([len(one.values) for one in codes])
        told = [(one.block, one.exponent, one.bits) for one in codes]
        parts["code_told"] = np.array(told, dtype=np.int32).reshape(-1, 3)
        return {_START + name: part for name, part in parts.items()}

    @staticmethod
    def names() -> list[str]:
        """The names of these arrays."""
        parts = ("time", "number", "expected_error", "explained", "heard", "code_indptr", "code_values",
                 "code_values_indptr", "code_told")  # fmt: skip
        of_frames = (f"{name}_{part}" for name in ("true", "decoded") for part in ("indices", "data", "indptr"))
        return [_START + name for name in (*parts, *of_frames)]

    @classmethod
    def of_arrays(cls, layout: Layout, found: dict[str, NDArray[Any]]) -> TaxelLog:
        """The frames of such arrays of a file; any exception where they are none."""
        parts = {name: found[name] for name in cls.names()}
        parts = {name.removeprefix(_START): part for name, part in parts.items()}
        log = cls(layout)
        log.time = parts["time"].astype(np.float64).tolist()
        count = len(log.time)
        flags = parts["explained"].astype(bool), parts["heard"].astype(bool)
        if flags[0].ndim != 2 or any(one.shape != (count, flags[0].shape[1]) for one in flags):
            raise ValueError(f"explained has shape {flags[0].shape} and heard {flags[1].shape}, of {count} frames")
        numbers, errors = parts["number"].tolist(), parts["expected_error"].astype(np.float64).tolist()
        log.estimates = list(zip(numbers, errors, *flags, strict=True))
        if len(log.estimates) != count:
            raise ValueError(f"it has {count} times and {len(log.estimates)} frames")
        for name, kept in log._kept.items():
            places, values = parts[f"{name}_indices"].astype(np.int32), parts[f"{name}_data"].astype(np.float32)
            if len(places) and not 0 <= places.min() <= places.max() < layout.n_sparse:
                raise ValueError(f"{name}_indices go up to {places.max()}; allowed: 0 to {layout.n_sparse - 1}")
            if places.shape != values.shape:
                raise ValueError(f"{name}_indices has shape {places.shape} where data has {values.shape}")
            rows = _rows(parts[f"{name}_indptr"], count, len(places))
            kept.extend((places[row], values[row]) for row in rows)
        log._codes = _codes(parts, count)
        return log


def _codes(parts: dict[str, NDArray[Any]], count: int) -> list[tuple[RecordedCode, ...]]:
    """The codes of so many frames."""
    told, values = parts["code_told"].tolist(), parts["code_values"].astype(np.int32)
    codes = [
        RecordedCode(block, values[row], exponent, bits)
        for (block, exponent, bits), row in zip(
            told, _rows(parts["code_values_indptr"], len(told), len(values)), strict=True
        )
    ]
    return [tuple(codes[row]) for row in _rows(parts["code_indptr"], count, len(codes))]


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _ends(sizes: list[int]) -> NDArray[np.int64]:
    """Where rows of such sizes begin and end in a row of all of them."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _rows(ends: NDArray[Any], count: int, size: int) -> list[slice]:
    """The places of rows by such ends; ValueError if these are not of so many rows, of so many numbers in all."""
    ends = ends.astype(np.int64)
    if ends.shape != (count + 1,) or ends[0] != 0 or ends[-1] != size or (np.diff(ends) < 0).any():
        raise ValueError(f"rows end at {ends.shape} places, not at {count} that go up to {size}")
    return [slice(start, end) for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
