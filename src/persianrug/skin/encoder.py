"""The encoder of a skin, as a microcontroller runs it: integer additions, signs, and one rounding.

What taxels read is counted in steps of `resolution` newtons. The Hadamard transform of the counts is exact; of its
entries the first n_dense are the code, shifted to the right by one exponent for the whole frame, the smallest with
which every value fits its bits, and rounded half up. So the noise of rounding is 2^e resolution / sqrt(12 N)
newtons on the orthonormal scale, small where little is touched. encode.c beside this file makes the same bits.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.hadamard import MOST_NUMBERS, SignedHadamard
from persianrug.skin.paley import paley

# Numbers of frames go around.
FRAMES = 1 << 32
MOST_BLOCKS = 256
LEAST_BITS, MOST_BITS = 2, 16
# Whose transforms an encoder keeps, for those who ask for more rows of them.
_KEPT = 32
_LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Code:
    """Some entries of the code of one block of a frame.

    A value v is v 2^exponent counts of the integer transform, v 2^exponent resolution / sqrt(N) newtons of the
    orthonormal one.

    Attributes
    ----------
    frame : int
        From 0 to 2^32 - 1, and then from 0 again.
    block : int
    values : int16 array (k,)
        Of magnitudes up to 2^(bits - 1) - 1.
    exponent : int, 0 to 31
    bits : int
    start : int
        The first of the entries: 0 of a code, more of rows that were asked for.
    cut : bool
        Whether counts were cut to fit 32 bits, so that the code is of another frame.
    """

    frame: int
    block: int
    values: NDArray[np.int16]
    exponent: int
    bits: int
    start: int = 0
    cut: bool = False


class SkinEncoder:
    """Codes of frames of taxels, one a block.

    Parameters
    ----------
    n_taxels : int
    n_dense : int, or ints, one a block
        How many numbers the code of a block has.
    axes : int, 1 or 3
        1: pressure; 3: the normal force and two shears.
    bits : int, 2 to 16
        Of each number of a code.
    resolution : float
        Newtons a count.
    seed : int >= 0
        Of signs and rows; block b has those of seed + b.
    blocks : sequence of int arrays, optional
        The taxels of each block; every taxel is in one. By default one block has all.
    layout : int, 0 to 2^32 - 1
        A digest of whatever else both ends must agree on, as where the taxels are.
    noise : float
        How far below zero a pressure may read, in newtons.

    Attributes
    ----------
    transforms : tuple of SignedHadamard
        One a block.
    numbers : tuple of int64 arrays
        Which numbers of a flat frame each block has: taxel * axes + axis.
    stream : int
        What packets call this skin: a digest of all that the decoder must know, except of the noise.
    frame : int
        The number of the next frame; it may be set, best at random where a sender may begin anew.
    clipped : int
        How many blocks of frames had sums that do not fit 32 bits. All counts of such a block are cut to a
        magnitude of (2^31 - 1) / n, of 1,024 N for 4,096 numbers of 1/512 N.

    Raises
    ------
    ValueError
        If an argument is out of its range, or blocks leave a taxel out or share one.
    """

    def __init__(
        self,
        n_taxels: int,
        n_dense: int | Sequence[int],
        *,
        axes: int = 1,
        bits: int = 12,
        resolution: float = 1 / 512,
        seed: int = 0,
        blocks: Sequence[Any] | None = None,
        layout: int = 0,
        noise: float = 0.0,
    ) -> None:
        self.axes = checks.integer("axes", axes, 1, 3)
        if self.axes == 2:
            raise ValueError("axes is 2; allowed: 1 or 3")
        self.n_taxels = checks.integer("n_taxels", n_taxels, 1, MOST_BLOCKS * MOST_NUMBERS)
        self.bits = checks.integer("bits", bits, LEAST_BITS, MOST_BITS)
        self.resolution = checks.scale("resolution", resolution)
        self.seed = checks.seed(seed)
        self.layout = checks.integer("layout", layout, 0, FRAMES - 1)
        self.noise = checks.not_negative("noise", noise)
        taxels = [np.arange(self.n_taxels)] if blocks is None else _partition(blocks, self.n_taxels)
        self.numbers = tuple((part[:, None] * self.axes + np.arange(self.axes)).ravel() for part in taxels)
        for part in self.numbers:
            if len(part) > MOST_NUMBERS:
                raise ValueError(f"a block has {len(part)} numbers; allowed: up to {MOST_NUMBERS}, in more blocks")
        self.transforms = tuple(
            SignedHadamard(len(part), (self.seed + b) % (checks.MOST_SEED + 1))
            for b, part in enumerate(self.numbers)
        )
        lengths = [n_dense] * len(taxels) if np.ndim(n_dense) == 0 else list(n_dense)  # type: ignore[arg-type]
        if len(lengths) != len(taxels):
            raise ValueError(f"n_dense has {len(lengths)} numbers; allowed: one, or {len(taxels)}, one a block")
        self.n_dense = tuple(
            checks.integer("n_dense", length, 1, transform.size)  # type: ignore[arg-type]
            for length, transform in zip(lengths, self.transforms, strict=True)
        )
        sizes = [len(part) for part in self.numbers]
        told = (self.layout, self.axes, self.bits, self.seed, self.resolution, self.n_dense, sizes)
        self.stream = zlib.crc32(repr(told).encode())
        for part in self.numbers:
            self.stream = zlib.crc32(part.astype("<i8").tobytes(), self.stream)
        self.frame = 0
        self.clipped = 0
        self._whole = blocks is None
        self._places = [t.order[:k] for t, k in zip(self.transforms, self.n_dense, strict=True)]
        self._kept: deque[tuple[int, list[tuple[NDArray[np.int32], bool]]]] = deque(maxlen=_KEPT)

    def __repr__(self) -> str:
        blocks = "" if self._whole else f", blocks={len(self.numbers)}"
        n_dense = self.n_dense[0] if self._whole else self.n_dense
        what = f"axes={self.axes}, bits={self.bits}, seed={self.seed}{blocks}"
        return f"SkinEncoder({self.n_taxels}, {n_dense}, {what})"

    @property
    def n_sparse(self) -> int:
        """How many numbers a frame has."""
        return self.n_taxels * self.axes

    def encode(self, frame: Any) -> list[Code]:
        """The codes of a frame, one a block; its number is `frame`, which goes up by one.

        Parameters
        ----------
        frame : array (n_taxels, axes) or flat (n_sparse,)
            In newtons; a NumPy array of integers is in counts.

        Raises
        ------
        ValueError
            If it is no such array, or holds NaN, infinities or, where axes is 1, pressures below -noise. The
            number of the next frame stays as it was.
        """
        counts = self.counts(frame)
        number = self.frame
        work: list[tuple[NDArray[np.int32], bool]] = []
        codes: list[Code] = []
        for block, transform in enumerate(self.transforms):
            part = counts if self._whole else counts[self.numbers[block]]
            total = int(np.abs(part.astype(np.int64)).sum())
            # As much as 32 bits hold is what `counts` has made of more.
            cut = total > _LARGEST or int(part.max()) == _LARGEST or int(part.min()) == -_LARGEST
            if total > _LARGEST:
                part = part.clip(-(_LARGEST // transform.n), _LARGEST // transform.n)
                self.clipped += 1
            work.append((transform.integers(part), cut))
            values, exponent = _rounded(work[-1][0].take(self._places[block]), self.bits)
            codes.append(Code(number, block, values, exponent, self.bits, 0, cut))
        self._kept.append((number, work))
        self.frame = (number + 1) % FRAMES
        return codes

    def more(self, frame: int, block: int, start: int, count: int) -> Code:
        """More entries of the code of one of the last few frames, with an exponent of their own.

        Raises
        ------
        ValueError
            If the frame is not among the last 32, or it has no such block or entries.
        """
        kept = dict(self._kept)
        number = checks.integer("frame", frame, 0, FRAMES - 1)
        if number not in kept:
            last = "none is there yet" if not kept else f"{self._kept[0][0]} to {self._kept[-1][0]}"
            raise ValueError(f"frame is {number}; allowed: the last {_KEPT}, {last}")
        work = kept[number]
        block = checks.integer("block", block, 0, len(work) - 1)
        order = self.transforms[block].order
        start = checks.integer("start", start, 0, len(order) - 1)
        count = checks.integer("count", count, 1, len(order) - start)
        entries, cut = work[block]
        values, exponent = _rounded(entries[order[start : start + count]], self.bits)
        return Code(number, block, values, exponent, self.bits, start, cut)

    def counts(self, frame: Any) -> NDArray[np.int32]:
        """A frame in counts, flat; parameters and errors are as of `encode`.

        What does not fit 32 bits becomes the nearest that does.
        """
        allowed = f"an array ({self.n_taxels}, {self.axes}) or ({self.n_sparse},) of newtons or counts"
        if not isinstance(frame, np.ndarray) or isinstance(frame, np.ma.MaskedArray):
            frame = checks.array("frame", frame, allowed)
        if frame.dtype.kind not in "iuf":
            raise ValueError(f"frame has dtype {frame.dtype}; allowed: {allowed}")
        if frame.shape not in ((self.n_sparse,), (self.n_taxels, self.axes)):
            raise ValueError(f"frame has shape {frame.shape}; allowed: {allowed}")
        flat = np.asarray(frame).reshape(-1)
        step = self.resolution if flat.dtype.kind == "f" else 1
        if flat.dtype.kind == "f" and flat.dtype not in (np.float32, np.float64):
            flat = flat.astype(np.float64)
        # NaN is the least number, and the largest, of all that it is among.
        low, high = float(flat.min()), float(flat.max())
        if not -np.inf < low <= high < np.inf:
            at = int(np.flatnonzero(~np.isfinite(flat))[0])
            raise ValueError(f"frame is {flat[at]} at {self._named(at)}; allowed: finite newtons")
        least = -self.noise * step / self.resolution
        if self.axes == 1 and low < least:
            taxel = self._named(int(flat.argmin()))
            raise ValueError(f"frame is {low:.6g} at {taxel}; allowed: pressures of {least:.6g} or more")
        # Where 32 bits may not do, with room for how floats round.
        if max(-low, high) >= _LARGEST / 2 * step:
            flat = flat.astype(np.float64).clip((-_LARGEST - 1) * step, _LARGEST * step)
        if flat.dtype.kind == "f":
            flat = np.rint(flat * flat.dtype.type(1 / step))
        return flat.astype(np.int32)

    def c_tables(self, block: int = 0) -> str:
        """A C header with the tables of a block for the function of encode.c, for a microcontroller's firmware."""
        transform = self.transforms[checks.integer("block", block, 0, len(self.transforms) - 1)]
        log = (transform.size // transform.base).bit_length() - 1
        signs = np.packbits(transform.signs < 0, bitorder="little")
        tables = (
            (
                "uint16_t" if self.n_taxels <= MOST_NUMBERS else "uint32_t",
                "taxels",
                self.numbers[block][:: self.axes] // self.axes,
            ),
            ("uint8_t", "signs", signs),
            ("uint16_t", "columns", transform.columns),
            ("int8_t", "matrix", paley(transform.base).ravel()),
            ("uint16_t", "order", transform.order),
        )
        numbers = {
            "N": transform.n,
            "N_DENSE": self.n_dense[block],
            "AXES": self.axes,
            "BITS": self.bits,
            "BASE": transform.base,
            "LOG2N": log,
            "SIZE": transform.size,
            "BLOCK": block,
            "STREAM": f"0x{self.stream:08x}u",
            "COUNTS_PER_NEWTON": f"{1 / self.resolution!r}",
        }
        lines = [
            f"/* {self!r}, block {block}, for encode.c of persianrug:",
            "   int32_t work[SKIN_SIZE]; int16_t values[SKIN_N_DENSE]; int clipped;",
            "   exponent = persianrug_encode(counts, SKIN_N, skin_signs, skin_columns, SKIN_BASE, SKIN_LOG2N,",
            "                                skin_matrix, skin_order, SKIN_N_DENSE, SKIN_BITS, work, values,",
            "                                &clipped); */",
            "#include <stdint.h>",
            *(f"#define SKIN_{name} {value}" for name, value in numbers.items()),
        ]
        for kind, name, values in tables:
            lines.append(f"static const {kind} skin_{name}[{len(values)}] = {{")
            lines += [f"{', '.join(map(str, values[i : i + 16]))}," for i in range(0, len(values), 16)]
            lines.append("};")
        return "\n".join(lines) + "\n"

    def _named(self, number: int) -> str:
        taxel, axis = divmod(number, self.axes)
        return f"taxel {taxel}" + (f", axis {axis}" if self.axes > 1 else "")


def _rounded(z: NDArray[np.int32], bits: int) -> tuple[NDArray[np.int16], int]:
    """Values of so many bits and their exponent: as the last lines of encode.c, where nothing leaves 32 bits."""
    top, exponent = 2 ** (bits - 1) - 1, 0
    low, high = int(z.min()), int(z.max())
    while _half_up(high, exponent) > top or _half_up(low, exponent) < -top:
        exponent += 1
    return _half_up(z, exponent).astype(np.int16), exponent


def _half_up(z: Any, exponent: int) -> Any:
    return (z >> exponent) + (z >> (exponent - 1) & 1) if exponent else z


def _partition(blocks: Sequence[Any], n_taxels: int) -> list[NDArray[np.int64]]:
    """The taxels of each block, checked."""
    if not 1 <= len(blocks) <= MOST_BLOCKS:
        raise ValueError(f"blocks are {len(blocks)}; allowed: 1 to {MOST_BLOCKS}")
    parts = []
    times = np.zeros(n_taxels, dtype=np.int64)
    for block in blocks:
        part = np.asarray(block)
        if part.ndim != 1 or part.dtype.kind not in "iu" or part.size == 0:
            raise ValueError(f"blocks hold {checks.shown(block)}; allowed: integers (k,), the taxels of each")
        if not 0 <= part.min() <= part.max() < n_taxels:
            raise ValueError(f"blocks hold taxels {part.min()} to {part.max()}; allowed: 0 to {n_taxels - 1}")
        np.add.at(times, part, 1)
        parts.append(part.astype(np.int64))
    if (times != 1).any():
        taxel = int(np.flatnonzero(times != 1)[0])
        raise ValueError(f"blocks hold taxel {taxel} {times[taxel]} times; allowed: every taxel once")
    return parts
