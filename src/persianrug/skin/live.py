"""Both ends of a live stream of a skin: frames out as packets, packets in as frames and contacts.

Where a frame is not explained the receiver asks for more rows of its code, and the sender answers. A receiver that
is slower than the sender leaves out whole frames, so that what it says stays new.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from persianrug._support import checks
from persianrug.skin.assembler import Reading
from persianrug.skin.contacts import Contact, ContactTracker
from persianrug.skin.decoder import SkinDecoder
from persianrug.skin.encoder import FRAMES, SkinEncoder
from persianrug.skin.estimate import Estimate
from persianrug.skin.packets import packets_of, read_request
from persianrug.skin.profile import SkinProfile

# So many seconds after the last packet a frame waits for no more of them.
_PATIENCE = 0.020
# Of frames that wait to be decoded so many are; those before them are left out.
_MOST_WAITING = 8
# How often more rows of a frame are asked for.
_MOST_ASKED = 2


class Outgoing(Protocol):
    """What a sender sends by, as UdpSender."""

    def send(self, packets: list[bytes], /) -> None: ...
    def receive(self, timeout: float = 0.0) -> list[bytes]: ...


class Incoming(Protocol):
    """What a receiver hears by, as UdpReceiver."""

    def receive(self, timeout: float = 0.0) -> list[bytes]: ...
    def reply(self, content: bytes, /) -> bool: ...


class LiveSender:
    """Sends frames of a skin, and answers those who ask for more rows of their codes.

    Its first frame has a number at random, so that a receiver can tell a sender that has begun anew.

    Parameters
    ----------
    encoder : SkinEncoder
    bus : UdpSender, or another with its `send` and `receive`
    packets : int >= 1
        In how many packets the code of each block is sent.

    Attributes
    ----------
    frames, bytes, answered, refused : int
        Frames and bytes that were sent; requests that were answered, and those that could not be.
    """

    def __init__(self, encoder: SkinEncoder, bus: Outgoing, packets: int = 8) -> None:
        self.encoder, self.bus = checks.instance("encoder", encoder, SkinEncoder), bus
        self.packets = checks.integer("packets", packets, 1)
        encoder.frame = secrets.randbelow(FRAMES)
        self.frames = self.bytes = self.answered = self.refused = 0

    def send(self, frame: Any) -> None:
        """Send a frame; parameters and errors are as of `SkinEncoder.encode`."""
        sent = []
        for code in self.encoder.encode(frame):
            sent += packets_of(code, self.encoder.stream, self.packets)
        self.bus.send(sent)
        self.frames += 1
        self.bytes += sum(map(len, sent))

    def answer(self, timeout: float = 0.0) -> None:
        """Answer requests that have come, or come within so many seconds; all others are counted and left out."""
        end = time.monotonic() + timeout
        while True:
            for content in self.bus.receive(max(end - time.monotonic(), 0.0)):
                try:
                    asked = read_request(content)
                    if asked.stream != self.encoder.stream:
                        raise ValueError(f"stream is {asked.stream}; allowed: {self.encoder.stream}")
                    code = self.encoder.more(asked.frame, asked.block, asked.start, asked.count)
                except ValueError:
                    self.refused += 1
                    continue
                sent = packets_of(code, self.encoder.stream, 1)
                self.bus.send(sent)
                self.answered += 1
                self.bytes += sum(map(len, sent))
            if time.monotonic() >= end:
                return


@dataclass(frozen=True, eq=False)
class Felt:
    """A frame as it was received.

    Attributes
    ----------
    time : float
        In seconds, by the receiver's clock.
    estimate : Estimate
    contacts : list of Contact
        One a patch.
    again : bool
        Whether it is the last frame once more, with more rows of its code.
    """

    time: float
    estimate: Estimate
    contacts: list[Contact]
    again: bool


class LiveReceiver:
    """Decodes the frames of a stream as they come.

    Parameters
    ----------
    profile : SkinProfile
    encoder : SkinEncoder
        One made as that of the sender.
    bus : UdpReceiver, or another with its `receive` and `reply`
    clock : callable
        Gives the time in seconds, never one before the last.

    Attributes
    ----------
    decoder : SkinDecoder
        Its `assembler.counts` say how many packets of each kind came.
    contacts : list of Contact
        The last ones.
    frames, explained, skipped, asked, answered : int
        Frames that were decoded, and those explained in the end; those that were left out for later ones;
        requests, and frames that came once more with what was asked for.
    lost : float
        The share of the numbers of codes that have not come, of all frames since the first.
    """

    def __init__(
        self,
        profile: SkinProfile,
        encoder: SkinEncoder,
        bus: Incoming,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bus, self.clock = bus, clock
        self.decoder = SkinDecoder(profile, encoder)
        self.tracker = ContactTracker(profile.layout, blocks=profile.block_of_patch())
        self.contacts = self.tracker.update(None, clock())
        self.frames = self.explained = self.skipped = self.asked = self.answered = 0
        self._packet_time = clock()
        self._last: tuple[int, int, bool] | None = None
        self._come = 0

    @property
    def lost(self) -> float:
        counts = self.decoder.assembler.counts
        frames = counts.complete + counts.partial + counts.missing
        return 1 - self._come / (frames * sum(self.decoder.encoder.n_dense)) if frames else 0.0

    def receive(self, timeout: float = 0.0) -> list[Felt]:
        """The frames that are finished by what comes at once, or within so many seconds.

        Where none is, `contacts` are brought up to date all the same: they are not valid when nothing is heard.
        """
        arrived = self.bus.receive(timeout)
        now = self.clock()
        assembler = self.decoder.assembler
        readings: list[Reading] = []
        if arrived:
            self._packet_time = now
            for packet in arrived:
                readings += assembler.push(packet)
        elif now - self._packet_time >= _PATIENCE:
            readings = assembler.flush()
        felt = self._felt(readings)
        if not felt:
            self.contacts = self.tracker.update(None, self.clock())
        return felt

    def _felt(self, readings: list[Reading]) -> list[Felt]:
        """Decode what has come, in the order of frames; more rows of the last frame come before newer ones."""
        answers = [one for one in readings if self.decoder.is_answer(one)]
        frames: OrderedDict[int, list[Reading]] = OrderedDict()
        for reading in readings:
            if not self.decoder.is_answer(reading):
                frames.setdefault(reading.frame, []).append(reading)
                self._come += len(reading.entries)
        felt = []
        # Of frames before the last too much has been built on them.
        current = [one for one in answers if self._last is not None and one.frame == self._last[0]]
        if current:
            self.answered += 1
            felt.append(self._decoded(current, True))
        waiting = list(frames.values())
        self.skipped += max(len(waiting) - _MOST_WAITING, 0)
        felt += [self._decoded(parts, False) for parts in waiting[-_MOST_WAITING:]]
        return felt

    def _decoded(self, parts: list[Reading], again: bool) -> Felt:
        estimate = self.decoder.decode(parts)
        explained = bool(estimate.explained.all())
        asked = self._last[1] if again and self._last is not None else 0
        if again and self._last is not None:
            self.explained += explained - self._last[2]
        else:
            self.frames += 1
            self.explained += explained
        now = self.clock()
        self.contacts = self.tracker.update(estimate, now)
        if asked < _MOST_ASKED:
            for request in self.decoder.requests(estimate):
                self.asked += self.bus.reply(request.pack())
            asked += 1
        self._last = estimate.frame, asked, explained
        return Felt(now, estimate, self.contacts, again)
