"""Readings of frames from packets, however these come: late, doubled, in another order, damaged, or not at all.

Frames are given in their order. A frame waits for its packets until it is complete or `depth` newer frames have
begun, and frames after it wait with it. So what is kept is at most `depth` frames, whatever comes.

Numbers of frames go around, so a packet is of a newer frame if it is less than 2^31 ahead. One that is close, up
to 128 ahead of the newest frame, is taken at once. One that is far from it either way is of a sender that has
begun anew, or of a stream that was away for long, or of nobody: it is believed once packets of eight frames, each
a little ahead of the one before, have come without any of the present stream between them. What was ahead by
damage or malice alone never holds the stream up. A sender that begins anew with a number close behind the newest
is late until it has passed that: senders do best to begin with a number at random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.encoder import FRAMES, LEAST_BITS, MOST_BITS, MOST_BLOCKS
from persianrug.skin.hadamard import MOST_NUMBERS
from persianrug.skin.packets import DamagedPacket, Packet, read_packet

MOST_DEPTH = 64
# Frames up to so many from the newest are of the same stream; of so many others another one is told.
_REACH, _CONVINCING = 128, 8
# So many answers with more rows are remembered, so that none is taken twice.
_ANSWERS = 256


@dataclass(frozen=True, eq=False)
class Reading:
    """What has come of the code of one block of a frame.

    Attributes
    ----------
    frame, block : int
    entries : int64 array (k,)
        Which entries of the code, ascending; those from n_dense on are more rows, which were asked for.
    values : int32 array (k,)
    exponent : int
        A value v is v 2^exponent counts of the integer transform.
    cut : bool
        Whether counts were cut before, so that the code is of another frame.
    """

    frame: int
    block: int
    entries: NDArray[np.int64]
    values: NDArray[np.int32]
    exponent: int
    cut: bool = False


@dataclass
class Counts:
    """How many packets and frames of each kind have come.

    Attributes
    ----------
    packets : int
        All that came.
    damaged, foreign, wrong, late, doubled, stray : int
        Packets that were left out: with another checksum or length than they say; of another skin; at odds with
        what the skin or the rest of the frame is; of frames that were given already; that came before; far from
        the stream, without others beside them.
    complete, partial, missing : int
        Frames that were given with all numbers of their codes, with some of them; that no packet has come of.
    restarts : int
        How often another stream has taken over.
    """

    packets: int = 0
    damaged: int = 0
    foreign: int = 0
    wrong: int = 0
    late: int = 0
    doubled: int = 0
    stray: int = 0
    complete: int = 0
    partial: int = 0
    missing: int = 0
    restarts: int = 0


class Assembler:
    """Makes readings of packets.

    Parameters
    ----------
    stream : int
        `SkinEncoder.stream`.
    n_dense : int, or ints, one a block
        How many numbers the code of a block has.
    bits : int, 2 to 16
    depth : int, 1 to 64
        How many newer frames may begin before a frame is given as it is.
    sizes : ints, optional
        How many entries the transform of each block has, so that more rows of it can come.

    Attributes
    ----------
    counts : Counts

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(
        self,
        stream: int,
        n_dense: int | Sequence[int],
        bits: int = 12,
        depth: int = 2,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.stream = checks.integer("stream", stream, 0, FRAMES - 1)
        lengths = [n_dense] if isinstance(n_dense, int) else list(n_dense)
        if not 1 <= len(lengths) <= MOST_BLOCKS:
            raise ValueError(f"n_dense has {len(lengths)} numbers; allowed: 1 to {MOST_BLOCKS}, one a block")
        self.n_dense = tuple(checks.integer("n_dense", length, 1, MOST_NUMBERS) for length in lengths)
        self.bits = checks.integer("bits", bits, LEAST_BITS, MOST_BITS)
        self.depth = checks.integer("depth", depth, 1, MOST_DEPTH)
        self.sizes = self.n_dense if sizes is None else tuple(sizes)
        if len(self.sizes) != len(self.n_dense):
            raise ValueError(f"sizes has {len(self.sizes)} numbers; allowed: {len(self.n_dense)}, one a block")
        for size, length in zip(self.sizes, self.n_dense, strict=True):
            checks.integer("sizes", size, length, MOST_NUMBERS)
        self.counts = Counts()
        # Whether any packet has come; the newest frame, the last that was given, and those between that wait.
        self._begun = False
        self._newest = self._last = 0
        self._frames: dict[int, _Frame] = {}
        # The newest frame of what may become the stream, and how many of its frames have come.
        self._other: tuple[int, int] = (0, 0)
        self._answers: deque[tuple[int, int, int, int]] = deque(maxlen=_ANSWERS)

    def __repr__(self) -> str:
        return (
            f"Assembler(n_dense={self.n_dense}, bits={self.bits}, depth={self.depth}, waiting={len(self._frames)})"
        )

    def push(self, content: bytes) -> list[Reading]:
        """Take a packet, or what claims to be one; return the readings that are finished by it.

        Those of one frame come together, in the order of blocks, without blocks of which nothing has come. What is
        no packet of this stream is counted and left out.
        """
        self.counts.packets += 1
        try:
            packet = read_packet(content)
        except DamagedPacket:
            self.counts.damaged += 1
            return []
        if packet.stream != self.stream:
            self.counts.foreign += 1
            return []
        if not self._fits(packet):
            self.counts.wrong += 1
            return []
        if packet.start >= self.n_dense[packet.block]:
            return self._answer(packet)
        finished: list[Reading] = []
        if not self._begun:
            self._begin(packet.frame)
        ahead = _ahead(packet.frame, self._newest)
        if abs(ahead) > _REACH:
            if not self._convinces(packet.frame):
                self.counts.stray += 1
                return []
            finished = self.flush()
            self.counts.restarts += 1
            self._begin(packet.frame)
        elif ahead > 0:
            self._newest = packet.frame
        self._other = (0, 0)
        if _ahead(packet.frame, self._last) <= 0:
            self.counts.late += 1
            return finished
        frame = self._frames.get(packet.frame)
        if frame is None:
            frame = self._frames[packet.frame] = _Frame(self.n_dense)
        if not frame.takes(packet):
            self.counts.wrong += 1
        elif not frame.take(packet):
            self.counts.doubled += 1
        return finished + self._finished()

    def flush(self) -> list[Reading]:
        """The readings of all frames that wait, as where nothing more will come."""
        return [reading for number in self._waiting() for reading in self._give(number)]

    def _fits(self, packet: Packet) -> bool:
        """Whether there is such a block, with such entries in a code or after it."""
        if packet.bits != self.bits or packet.block >= len(self.n_dense):
            return False
        stop = packet.start + len(packet.values)
        length = self.n_dense[packet.block]
        return stop <= (length if packet.start < length else self.sizes[packet.block])

    def _convinces(self, frame: int) -> bool:
        """Whether a frame far from the stream, after others beside it, is of one that has taken over."""
        newest, count = self._other
        step = _ahead(frame, newest)
        if count and -_REACH <= step <= 0:
            return False
        count = count + 1 if count and 0 < step <= _REACH else 1
        self._other = frame, count
        return count >= _CONVINCING

    def _begin(self, frame: int) -> None:
        """Take a frame for the first of a stream."""
        self._begun, self._newest, self._last = True, frame, (frame - 1) % FRAMES
        self._answers.clear()

    def _answer(self, packet: Packet) -> list[Reading]:
        """More rows of a frame, given as they come."""
        if not (self._begun and -_REACH <= _ahead(packet.frame, self._newest) <= 0):
            self.counts.stray += 1
            return []
        key = (packet.frame, packet.block, packet.start, len(packet.values))
        if key in self._answers:
            self.counts.doubled += 1
            return []
        self._answers.append(key)
        entries = packet.start + np.arange(len(packet.values), dtype=np.int64)
        return [
            Reading(
                packet.frame, packet.block, entries, packet.values.astype(np.int32), packet.exponent, packet.cut
            )
        ]

    def _waiting(self) -> list[int]:
        """Frames that wait, oldest first."""
        return sorted(self._frames, key=lambda number: _ahead(number, self._newest))

    def _finished(self) -> list[Reading]:
        """Readings of frames from the oldest on, as far as they are finished."""
        finished: list[Reading] = []
        for number in self._waiting():
            if not self._frames[number].missing or _ahead(self._newest, number) >= self.depth:
                finished += self._give(number)
            else:
                break
        return finished

    def _give(self, number: int) -> list[Reading]:
        """The readings of a frame that waits no more."""
        frame = self._frames.pop(number)
        self.counts.missing += _ahead(number, self._last) - 1
        self._last = number
        if frame.missing:
            self.counts.partial += 1
        else:
            self.counts.complete += 1
        return [
            Reading(number, block, np.flatnonzero(here), values[here].astype(np.int32), *exponent)
            for block, (here, values, exponent) in enumerate(
                zip(frame.here, frame.values, frame.exponents, strict=True)
            )
            if exponent is not None
        ]


class _Frame:
    """What has come of a frame."""

    def __init__(self, n_dense: tuple[int, ...]) -> None:
        self.values = [np.zeros(length, dtype=np.int16) for length in n_dense]
        self.here = [np.zeros(length, dtype=bool) for length in n_dense]
        # And whether counts were cut.
        self.exponents: list[tuple[int, bool] | None] = [None] * len(n_dense)
        self.missing = sum(n_dense)

    def takes(self, packet: Packet) -> bool:
        """Whether a packet agrees with those before it."""
        part = slice(packet.start, packet.start + len(packet.values))
        here = self.here[packet.block][part]
        return self.exponents[packet.block] in (None, (packet.exponent, packet.cut)) and bool(
            (self.values[packet.block][part] == packet.values)[here].all()
        )

    def take(self, packet: Packet) -> bool:
        """Keep what a packet holds; whether any of it is new."""
        part = slice(packet.start, packet.start + len(packet.values))
        new = len(packet.values) - int(np.count_nonzero(self.here[packet.block][part]))
        self.values[packet.block][part] = packet.values
        self.here[packet.block][part] = True
        self.exponents[packet.block] = packet.exponent, packet.cut
        self.missing -= new
        return new > 0


def _ahead(frame: int, other: int) -> int:
    """How far a frame is ahead of another, from -2^31 to 2^31 - 1."""
    return (frame - other + FRAMES // 2) % FRAMES - FRAMES // 2
