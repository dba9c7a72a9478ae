"""The decoder of a skin's stream: packets in, frames out, each read with what the frames before have told.

What was touched in a frame is most of what is touched in the next, so the posterior of one frame is the prior of
the next (dynamic compressed sensing; Ziniel and Schniter, arXiv 1205.4080). If a code is not explained by what was
found in this way it is read anew as if it were the first, and the better of the two readings counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.assembler import Assembler, Reading
from persianrug.skin.encoder import FRAMES, SkinEncoder
from persianrug.skin.estimate import Estimate
from persianrug.skin.packets import Request
from persianrug.skin.profile import SkinProfile, check_skin
from persianrug.skin.touch import NOTHING, CodeLook, Found, Touched, TouchFilter, most_noise

if TYPE_CHECKING:
    from persianrug.skin.smooth import SmoothReader

# After so many frames without a code what was touched says nothing.
_FORGOTTEN = 250
# The code of a smooth skin's frame may keep so many times what it usually keeps unexplained.
_ROOM = 4.0
# After so many frames whose codes are not explained it says nothing either.
_DOUBTED = 3


class SkinDecoder:
    """Reads the codes of a skin's frames in their order.

    Parameters
    ----------
    profile : SkinProfile
    encoder : SkinEncoder
        One made as that which sends: its transforms, lengths and resolution.
    memory : bool
        Whether frames are read with what was found in those before.
    depth : int, 1 to 64
        How many newer frames may begin before a frame whose packets are not all there is read as it is.

    Attributes
    ----------
    assembler : Assembler
        Its `counts` say how many packets of each kind came.

    Raises
    ------
    ValueError
        If profile and encoder are of different skins.
    """

    def __init__(self, profile: SkinProfile, encoder: SkinEncoder, *, memory: bool = True, depth: int = 1) -> None:
        check_skin(profile, encoder)
        self.profile, self.encoder = profile, encoder
        self.memory = checks.flag("memory", memory)
        self.blocks = [_Block(profile, encoder, b) for b in range(len(encoder.numbers))]
        sizes = [block.transform.size for block in self.blocks]
        self.assembler = Assembler(encoder.stream, encoder.n_dense, encoder.bits, depth, sizes)
        self._rest: NDArray[np.float32] = np.asarray(profile.rest, dtype=np.float32)
        self._rests = bool(self._rest.any())
        self._frame: int | None = None
        # What has come of the last frame, a list a block.
        self._come: list[list[Reading]] = [[] for _ in self.blocks]

    def __repr__(self) -> str:
        memory = "" if self.memory else ", memory=False"
        return f"SkinDecoder({self.encoder}{memory})"

    def step(self, packet: bytes) -> list[Estimate]:
        """Take a packet; return the frames that it finishes, in their order.

        What is no packet of this stream is counted and left out. A packet of more rows, which `requests` asked
        for, gives its frame once more.
        """
        return self._read(self.assembler.push(packet))

    def flush(self) -> list[Estimate]:
        """The frames that still wait for packets, as they are."""
        return self._read(self.assembler.flush())

    def _read(self, readings: list[Reading]) -> list[Estimate]:
        frames: OrderedDict[tuple[int, bool], list[Reading]] = OrderedDict()
        for reading in readings:
            frames.setdefault((reading.frame, self.is_answer(reading)), []).append(reading)
        # Of more rows only those of the last frame help; too much has been built on those before.
        return [
            self.decode(parts) for (frame, answer), parts in frames.items() if not answer or frame == self._frame
        ]

    def is_answer(self, reading: Reading) -> bool:
        """Whether these are more rows of a frame, which are numbered after those of its code."""
        return bool(reading.entries[0] >= self.encoder.n_dense[reading.block])

    def decode(self, readings: Sequence[Reading]) -> Estimate:
        """A frame from what has come of the codes of its blocks.

        More rows of the last frame are read together with what had come of it.

        Parameters
        ----------
        readings : sequence of Reading
            Of one frame.

        Raises
        ------
        ValueError
            If there is no reading, they are of several frames, or more rows of another frame than the last.
        """
        numbers = {reading.frame for reading in readings}
        if len(numbers) != 1:
            raise ValueError(f"readings are of {len(numbers)} frames; allowed: of one")
        (frame,) = numbers
        passed = 0
        if all(self.is_answer(reading) for reading in readings):
            if frame != self._frame:
                raise ValueError(f"readings are more rows of frame {frame}; allowed: of {self._frame}, the last")
        else:
            passed = _FORGOTTEN if self._frame is None else (frame - self._frame) % FRAMES
            # One that is not after the last is of a sender that has begun anew.
            passed = passed if 0 < passed < FRAMES // 2 else _FORGOTTEN
            self._frame, self._come = frame, [[] for _ in self.blocks]
        for reading in readings:
            self._add(reading)
        parts = [
            block.step(here, passed, self.memory) for block, here in zip(self.blocks, self._come, strict=True)
        ]
        return self._assembled(frame, parts, np.array([bool(here) for here in self._come]))

    def _add(self, reading: Reading) -> None:
        """Keep what is new of a reading."""
        here = self._come[reading.block]
        if here:
            new = ~np.isin(reading.entries, np.concatenate([one.entries for one in here]))
            reading = replace(reading, entries=reading.entries[new], values=reading.values[new])
        if len(reading.entries):
            here.append(reading)

    def _assembled(self, frame: int, parts: list[Found], heard: NDArray[np.bool_]) -> Estimate:
        layout = self.profile.layout
        shape = (layout.n_taxels, layout.axes)
        x, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        active = np.zeros(shape[0], np.float32)
        for block, found in zip(self.blocks, parts, strict=True):
            x[block.where], variance[block.where], active[block.where] = found.x, found.variance, found.active
        if layout.axes == 1:
            # What presses does not pull. Beside shears a taxel on an edge may be pulled.
            np.maximum(x, 0.0, out=x)
        if self._rests:
            x += self._rest
        energy = float(np.square(x).sum())
        doubt = sum(found.doubt for found in parts)
        return Estimate(
            frame=frame,
            x=x,
            variance=variance,
            active=active,
            expected_error=float((doubt / energy) ** 0.5) if energy > 0 else 0.0,
            explained=np.array([found.explained for found in parts]),
            heard=heard,
        )

    def requests(self, estimate: Estimate, share: float = 0.25) -> list[Request]:
        """What to ask the sender for where a frame is not explained: more rows of its blocks' transforms.

        Parameters
        ----------
        estimate : Estimate
        share : float in (0, 1]
            How many more rows, of as many as a code has.
        """
        share = checks.probability("share", share)
        asked = []
        for b in np.flatnonzero(~estimate.explained & estimate.heard):
            here = [one.entries.max() for one in self._come[b] if one.frame == estimate.frame]
            start = max(self.encoder.n_dense[b], max(map(int, here), default=-1) + 1)
            count = min(max(1, round(share * self.encoder.n_dense[b])), self.blocks[b].transform.size - start)
            if count > 0:
                asked.append(Request(self.encoder.stream, estimate.frame, int(b), start, count))
        return asked


class _Block:
    """The taxels that share a code."""

    def __init__(self, profile: SkinProfile, encoder: SkinEncoder, block: int) -> None:
        self.transform = encoder.transforms[block]
        self.taxels = encoder.numbers[block][:: encoder.axes] // encoder.axes
        # Side by side they are copied faster.
        start, end = int(self.taxels[0]), int(self.taxels[-1]) + 1
        row = np.array_equal(self.taxels, np.arange(start, end))
        self.where: slice | NDArray[np.int64] = slice(start, end) if row else self.taxels
        self.resolution, self.noise = encoder.resolution, profile.noise
        self.scale = encoder.resolution / self.transform.size**0.5
        self.filter = TouchFilter(profile.prior(self.taxels), self.transform.size)
        rest = profile.rest[self.taxels].astype(np.float32).ravel()  # type: ignore[index]
        # What dead taxels always read, of every entry of a code.
        self.rest = self.transform.rows(self.transform.size).forward(rest) if rest.any() else None
        # What was known before the last frame, and is after it, and how many frames ago that was.
        self._before: tuple[Touched | None, int] = (None, 0)
        self._touched: Touched | None = None
        self._age = 0
        self._whole = self.transform.rows(encoder.n_dense[block])
        self._smooth = None
        if profile.smooth:
            from persianrug.skin.smooth import SmoothReader

            self._smooth = SmoothReader(profile.smooth[block], self.transform, encoder.n_dense[block])

    def step(self, readings: list[Reading], passed: int, memory: bool) -> Found:
        """Read a frame that is so many after the last; 0 after, the last one anew, with more entries."""
        if passed:
            self._age += passed
            self._before = (self._touched if memory and self._age < _FORGOTTEN else None, self._age)
        before, age = self._before
        if not readings:
            return self.filter.expected(before, age)
        look = self._look(readings)
        if any(reading.cut for reading in readings):
            # The code is right, and of another frame.
            self._touched, self._age = None, 0
            return replace(self.filter.read(look, None), explained=False)
        if self._smooth is not None:
            return self._of_smooth(self._smooth, look)
        found = self.filter.step(look, before, age)
        if found.explained:
            self._touched, self._age = found.touched, 0
        else:
            # For a few frames what was known before is better than nothing; then it would be taken for the truth.
            self._touched, self._age = (before, age) if age < _DOUBTED else (None, 0)
        return found

    def _of_smooth(self, reader: SmoothReader, look: CodeLook) -> Found:
        x = reader.read(look.rows.entries, look.z, look.noise)
        left = look.left(x)
        variance = reader.variance.reshape(self.filter.shape)
        # As well as frames of the fit, with room for one that is not like all others.
        usual = _ROOM * float(variance.sum()) / self.transform.size
        x = x.reshape(self.filter.shape)
        active = (np.square(x).sum(axis=1) > 4 * variance.sum(axis=1)).astype(np.float32)
        doubt = float(variance.sum())
        fits = left <= most_noise(look) + usual
        return Found(x, variance, active, doubt, left, fits, 1, NOTHING)

    def _look(self, readings: list[Reading]) -> CodeLook:
        """The entries that have come, in newtons, less what dead taxels always read."""
        whole = len(readings) == 1 and np.array_equal(readings[0].entries, self._whole.entries)
        rows = self._whole if whole else self.transform.rows(np.concatenate([r.entries for r in readings]))
        steps = [self.scale * 2.0**reading.exponent for reading in readings]
        z = np.concatenate([r.values * np.float32(step) for r, step in zip(readings, steps, strict=True)])
        if self.rest is not None:
            z -= self.rest[rows.entries]
        # Codes of small sums are exact: then what taxels read is rounded, and no more.
        rounding = sum(
            len(r.values) * (step**2 if r.exponent else self.resolution**2) / 12
            for r, step in zip(readings, steps, strict=True)
        )
        rounding /= len(z)
        # Noise of the taxels makes that of rounding anew in every frame.
        repeated = max(rounding - self.noise**2, 0.0)
        return CodeLook(z.astype(np.float32, copy=False), rows, self.noise**2 + rounding, repeated)
