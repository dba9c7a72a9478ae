"""The two ends of a live stream of a skin: skin send and skin receive."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from persianrug._support.interrupts import handled
from persianrug._support.terminal import console as make_console
from persianrug.cli import options
from persianrug.cli.skin_files import (
    RATE,
    Bits,
    FramesFile,
    Packets,
    Ratio,
    check_recording,
    error_words,
    need_numba,
    percent,
    skin_words,
)

if TYPE_CHECKING:
    from persianrug.skin.bus import UdpSender
    from persianrug.skin.contacts import Contact
    from persianrug.skin.frames import Frames
    from persianrug.skin.live import Felt, LiveReceiver, LiveSender
    from persianrug.skin.recording import RecordingWriter

_Profile = Annotated[Path, typer.Option(help="A profile that skin fit wrote, the same at both ends.")]
_Seed = Annotated[int, typer.Option(help="Of the transform, the same at both ends.")]

# Seconds between lines that say how it goes; that one waits for packets, and a sender, in the end, for requests.
_SAID, _WAIT, _LINGER = 1.0, 0.02, 0.1
# A sender that is late by more does not make up for it.
_LATE = 0.1
# Signals this close to the first are the same, sent to a process and to its group.
_AGAIN = 1.0


class _Ends:
    """Ends a stream between two frames where an interrupt or a termination comes."""

    def __init__(self) -> None:
        self.come: float | None = None

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if self.come is not None and now - self.come > _AGAIN:
            # Who insists is heard.
            raise KeyboardInterrupt
        self.come = now if self.come is None else self.come


@contextmanager
def _ending() -> Iterator[_Ends]:
    """With interrupts noted, so that summaries are printed and recordings are whole; raised at the end."""
    ends = _Ends()
    with handled(ends):
        yield ends
    if ends.come is not None:
        raise KeyboardInterrupt


def send(
    frames: FramesFile,
    profile: _Profile,
    to: Annotated[str, typer.Option(help="Where the receiver is, as HOST:PORT.")],
    ratio: Ratio = 16.0,
    bits: Bits = 12,
    packets: Packets = 8,
    seed: _Seed = 0,
    rate: Annotated[
        float | None,
        typer.Option(help="Frames a second.", show_default="that of the frames, or of the profile, or 100"),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again after the last frame.")] = False,
    as_json: options.Json = False,
) -> None:
    """Send frames as a skin does, one after the other over UDP, whether or not anyone receives them yet.

    Example: persianrug skin send pull.npz --profile profile.npz --to 127.0.0.1:7400
    """
    need_numba()
    host, port = _address(to)

    from persianrug._support import checks
    from persianrug.skin.benchmark import warm
    from persianrug.skin.bus import UdpSender
    from persianrug.skin.frames import Frames
    from persianrug.skin.live import LiveSender
    from persianrug.skin.profile import SkinProfile

    if rate is not None:
        checks.positive("rate", rate)
    learned, felt = SkinProfile.load(profile), Frames.read(frames)
    felt.check(learned.layout)
    if not len(felt):
        raise ValueError(f"frames file {frames} has no frames; allowed: one or more")
    rate = rate or felt.rate or learned.rate or RATE
    encoder = learned.encoder(ratio, bits=bits, seed=seed)
    with UdpSender(host, port) as bus, _ending() as ends:
        sender = LiveSender(encoder, bus, packets)
        warm(learned, encoder)
        console = make_console()
        if not as_json:
            console.print(f"{escape(frames)}: {len(felt)} frames, {rate:.4g} a second to {escape(to)}, "
                          f"{ratio:.4g}:1 in {bits} bits")  # fmt: skip
        start = time.monotonic()
        _send_all(sender, felt, rate, loop, ends, None if as_json else console.print)
        if ends.come is None:
            # What the last frames lack may still be asked for.
            sender.answer(_LINGER)
        report = _sent(sender, bus, time.monotonic() - start)
        if as_json:
            typer.echo(json.dumps(report, indent=2, allow_nan=False))
        else:
            console.print("ended: " + _sent_words(report))


def _send_all(
    sender: LiveSender, frames: Frames, rate: float, loop: bool, ends: _Ends, say: Callable[..., Any] | None
) -> None:
    """Send frames at their times, and answer requests between them."""
    start = due = time.monotonic()
    told = start + _SAID
    while ends.come is None:
        for frame in frames:
            sender.send(frame)
            due += 1 / rate
            now = time.monotonic()
            if say is not None and now >= told:
                told = now + _SAID
                say(_sent_words(_sent(sender, sender.bus, now - start)))
            if now - due > _LATE:
                due = now
            while ends.come is None:
                sender.answer(min(max(due - now, 0.0), _WAIT))
                now = time.monotonic()
                if now >= due:
                    break
            if ends.come is not None:
                break
        if not loop:
            return


def _sent(sender: LiveSender, bus: Any, took: float) -> dict[str, Any]:
    udp: UdpSender = bus
    return {
        "frames": sender.frames,
        "seconds": took,
        "frames_per_second": sender.frames / took if took > 0 else None,
        "bytes_per_frame": sender.bytes / max(sender.frames, 1),
        "answered": sender.answered,
        "requests_refused": sender.refused,
        "packets_refused": udp.refused,
    }


def _sent_words(report: dict[str, Any]) -> str:
    rate = "" if report["frames_per_second"] is None else f", {report['frames_per_second']:.1f} a second"
    nobody = f", {report['packets_refused']} packets found nobody" if report["packets_refused"] else ""
    answered = f", {report['answered']} requests answered" if report["answered"] else ""
    return f"{report['frames']} frames sent{rate}, {report['bytes_per_frame']:.0f} bytes a frame{answered}{nobody}"


def receive(
    profile: _Profile,
    port: Annotated[int, typer.Option(help="Where to receive packets, 0 for any that is free.")],
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 hears other computers too.")
    ] = "127.0.0.1",
    ratio: Ratio = 16.0,
    bits: Bits = 12,
    seed: _Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Record what is received, in a .mcap file.")] = None,
    frames: Annotated[int | None, typer.Option(help="End after so many frames.", show_default="never")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="End when no frame comes for so many seconds.", show_default="never")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Receive a stream, say which contacts begin and end, and record it.

    It may start before the sender and outlast it. It asks for more rows of frames that are not explained.

    Example: persianrug skin receive --profile profile.npz --port 7400 --out touch.mcap
    """
    need_numba()

    from persianrug._support import checks

    for name, value in (("--frames", frames), ("--timeout", timeout)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value:g}; allowed: a number > 0")
    if timeout is not None:
        checks.finite("timeout", timeout)
    if out is not None:
        check_recording(out)

    from persianrug.skin.benchmark import warm
    from persianrug.skin.bus import UdpReceiver
    from persianrug.skin.live import LiveReceiver
    from persianrug.skin.profile import SkinProfile
    from persianrug.skin.recording import RecordingWriter

    learned = SkinProfile.load(profile)
    encoder = learned.encoder(ratio, bits=bits, seed=seed)
    with ExitStack() as stack:
        bus = stack.enter_context(UdpReceiver(port, host))
        warm(learned, encoder)
        ends = stack.enter_context(_ending())
        # Opened by the first frame: until then what was there stays.
        opened = None if out is None else lambda: stack.enter_context(RecordingWriter(out, learned.layout))
        # A clock of the day, that never goes back.
        since = time.time() - time.monotonic()
        receiver = LiveReceiver(learned, encoder, bus, lambda: since + time.monotonic())
        heard = _Heard(receiver, opened, None if as_json else make_console().print)
        heard.say(f"{profile}: {skin_words(learned.layout)}; waiting at {host}:{bus.port}")
        quiet = heard.run(ends, math.inf if frames is None else frames, math.inf if timeout is None else timeout)
        heard.flush()
        report = heard.report()
        if quiet and not receiver.frames:
            came = f"nothing of this skin came to port {bus.port} in {timeout:g} s"
            raise ValueError(f"{came}; allowed: a sender with this profile")
        if as_json:
            typer.echo(json.dumps(report, indent=2, allow_nan=False))
        else:
            heard.say("ended: " + heard.words(report))
            if out is not None:
                heard.say(f"{out}: {report['recorded']} frames recorded")


class _Heard:
    """What a receiver has heard, as it is said and recorded."""

    def __init__(
        self,
        receiver: LiveReceiver,
        opened: Callable[[], RecordingWriter] | None,
        printed: Callable[..., Any] | None,
    ) -> None:
        self.receiver, self.opened, self.printed = receiver, opened, printed
        self.writer: RecordingWriter | None = None
        self.touching: set[str] = set()
        self.begun = self.ended = 0
        self.start: float | None = None
        self.last = 0.0
        self.errors = (0.0, 0)
        self._silent = self._told_foreign = False
        self._next = time.monotonic() + _SAID
        self._before = (0, 0, 0)
        # The last frame is recorded when the next one comes: more rows of it may come before.
        self._waiting: Felt | None = None

    def say(self, line: str) -> None:
        """Print a line, where lines are printed."""
        if self.printed is not None:
            self.printed(escape(line))

    def run(self, ends: _Ends, frames: float, timeout: float) -> bool:
        """Receive until something ends that; whether it is that nothing comes."""
        receiver = self.receiver
        heard = time.monotonic()
        while ends.come is None and receiver.frames < frames:
            felt = receiver.receive(_WAIT)
            now = time.monotonic()
            if felt:
                heard = now
            for one in felt:
                self.take(one)
            self._say_silence()
            self._say_foreign()
            if now >= self._next:
                self._next = now + _SAID
                self._say_progress()
            if now - heard >= timeout:
                return True
        return False

    def take(self, felt: Felt) -> None:
        """Take note of a frame."""
        if not felt.again:
            self.flush()
        self._waiting = felt
        self.start = felt.time if self.start is None else self.start
        self.last = felt.time
        error, count = self.errors
        self.errors = error + felt.estimate.expected_error**2, count + 1
        for contact in felt.contacts:
            self._contact(contact, felt.time)

    def flush(self) -> None:
        """Record the frame that waits."""
        felt, self._waiting = self._waiting, None
        if felt is not None and self.opened is not None:
            self.writer = self.opened() if self.writer is None else self.writer
            self.writer.write(felt.time, felt.estimate, felt.contacts)

    def _contact(self, contact: Contact, now: float) -> None:
        name = contact.patch
        if contact.touching == (name in self.touching):
            return
        at = f"{self._at(now)}  {name}:"
        if contact.touching:
            self.begun += 1
            self.touching.add(name)
            force = ", ".join(f"{part:.2f}" for part in contact.force)
            self.say(f"{at} contact, pressed with {contact.pressing:.3g} ± {contact.pressing_stderr:.1g} N, "
                     f"force ({force}) N")  # fmt: skip
        else:
            self.ended += 1
            self.touching.discard(name)
            self.say(f"{at} contact ended")

    def _at(self, now: float) -> str:
        return f"{now - (self.start or now):8.3f} s"

    def _say_silence(self) -> None:
        """Say once when patches are no longer valid since nothing is heard, and when they are again."""
        if not self.receiver.frames:
            return
        late = self.receiver.clock() - self.last > self.receiver.tracker.silence
        silent = late and not any(one.valid for one in self.receiver.contacts)
        if silent and not self._silent:
            self.say(f"{self._at(self.last)}  nothing comes any more: contacts are no longer valid")
        elif self._silent and not silent:
            self.say(f"{self._at(self.last)}  frames come again")
        self._silent = silent

    def _say_foreign(self) -> None:
        if self.receiver.decoder.assembler.counts.foreign and not self._told_foreign:
            self._told_foreign = True
            self.say("packets of another skin or other settings come: profile, --ratio, --bits and --seed must be "
                     "the same at both ends")  # fmt: skip

    def _say_progress(self) -> None:
        receiver = self.receiver
        frames, explained, skipped = receiver.frames, receiver.explained, receiver.skipped
        before, self._before = self._before, (frames, explained, skipped)
        new = frames - before[0]
        if not new:
            return
        left = f", {skipped - before[2]} left out" if skipped > before[2] else ""
        touching = ", ".join(sorted(self.touching)) or "nothing"
        self.say(
            f"{new / _SAID:.0f} frames a second, {percent((explained - before[1]) / new)} explained, "
            f"{percent(receiver.lost)} of code numbers lost{left}; touched: {touching}"
        )

    def report(self) -> dict[str, Any]:
        """What has come, in all."""
        receiver = self.receiver
        took = self.last - (self.start or self.last)
        error, count = self.errors
        return {
            "frames": receiver.frames,
            "seconds": took,
            "frames_per_second": (receiver.frames - 1) / took if took > 0 else None,
            "explained": receiver.explained / receiver.frames if receiver.frames else None,
            "expected_error": (error / count) ** 0.5 if count else None,
            "lost": receiver.lost,
            "skipped": receiver.skipped,
            "asked": receiver.asked,
            "answered": receiver.answered,
            "contacts_begun": self.begun,
            "contacts_ended": self.ended,
            "touching": sorted(self.touching),
            "valid": [one.patch for one in receiver.contacts if one.valid],
            "recorded": 0 if self.writer is None else self.writer.frames,
            "counts": asdict(receiver.decoder.assembler.counts),
        }

    def words(self, report: dict[str, Any]) -> str:
        """The report, in a line."""
        if not report["frames"]:
            return f"no frames, {report['counts']['packets']} packets of others"
        rate = "" if report["frames_per_second"] is None else f", {report['frames_per_second']:.1f} a second"
        left = f", {report['skipped']} left out" if report["skipped"] else ""
        asked = f", more rows of {report['answered']} came" if report["asked"] else ""
        lost = f"{percent(report['lost'])} of code numbers lost{left}{asked}"
        contacts = f"{report['contacts_begun']} contacts begun, {report['contacts_ended']} ended"
        return (
            f"{report['frames']} frames{rate}, {percent(report['explained'])} explained, error "
            f"{error_words(report['expected_error'])} expected, {lost}; {contacts}"
        )


def _address(to: str) -> tuple[str, int]:
    host, colon, port = to.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
        raise ValueError(f"--to is {to!r}; allowed: HOST:PORT, a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)
