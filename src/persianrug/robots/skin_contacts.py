"""A robot's touch through a rug: taxels, a code of a fixed size, a bus that loses packets, a decoder, contacts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.robots.contacts import ContactReading, ContactSensor, TrueContacts
from persianrug.robots.flaws import Flaws, Mending
from persianrug.robots.pressing import SOFT, STIFF, Pressing
from persianrug.robots.priors import prior_of
from persianrug.robots.taxel_log import TouchFrame
from persianrug.robots.taxels import Patch, taxel_layout
from persianrug.skin import Code, ContactTracker, Estimate, Layout, SimulatedBus, SkinDecoder, packets_of

Floats = NDArray[np.float64]

SKINS = {"stiff": STIFF, "soft": SOFT}
# In so many packets the code of each group of patches is sent.
_PACKETS = 4
# Patches of which nothing is heard for so many seconds, and so many frames, are not valid.
_SILENCE, _SILENT_FRAMES = 0.040, 3.0
# Of how many frames on the bus the truth is kept.
_KEPT = 256
# Times are sums of steps: room for how these round, in seconds.
_ROUNDING = 1e-9
# A patch touches, in statistics, where so many newtons press.
_TOUCHES = 1.0


class _Sent(NamedTuple):
    """A frame on the bus: when it was felt, what pressed, its codes, and net forces (P, 3) as taxels read them."""

    time: float
    pressed: Floats
    codes: list[Code]
    true: ContactReading
    read: Floats


class SkinContacts:
    """A sensor that feels through a skin: what it says is late by the bus, and as exact as what is decoded.

    At its rate it reads its taxels, which are noisy, and some dead; fills in these from their neighbours; encodes
    all, one code for each group of patches; sends the codes in packets over a bus; and decodes what arrives, which
    is its reading until the next.
    A patch whose codes do not come, or are not explained by what is decoded, is not valid.

    Parameters
    ----------
    model : mujoco.MjModel
        Of the whole scene.
    patches : sequence of Patch
    codes : sequence of sequences of str
        Names of patches that share a code of their own, as feet or a gripper; all others share one more.
    ratio : float in (0, 1]
        Numbers of all codes for one of a frame.
    rate : float
        Frames a second; at most one is read in a call of `sense`.
    packet_loss : float in [0, 1)
        The share of packets that do not arrive.
    delay : float
        Of the bus, in seconds.
    skin : str
        "stiff" or "soft".
    seed : int >= 0
        Of flaws and losses; where taxels lie and how they are coded depends on the patches alone.

    Attributes
    ----------
    layout : Layout
    true : ContactReading
        What presses now, as `TrueContacts` reads it: newer than what `sense` returns.
    newest : TouchFrame or None
        The last frame that was decoded.
    frame : float32 array (n_taxels, 3)
        What taxels read last, with their flaws, as it was encoded.
    bus : SimulatedBus

    Raises
    ------
    ValueError
        If an argument is out of its range, or patches are not of this model.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        patches: Sequence[Patch],
        *,
        codes: Sequence[Sequence[str]] = (),
        ratio: float = 0.0625,
        rate: float = 100.0,
        packet_loss: float = 0.05,
        delay: float = 0.008,
        skin: str = "stiff",
        seed: int = 0,
    ) -> None:
        checks.one_of("skin", skin, SKINS)
        names = tuple(patch.name for patch in patches)
        for name in (name for code in codes for name in code):
            checks.one_of("codes", name, names)
        self.ratio, self.rate = checks.probability("ratio", ratio), checks.positive("rate", rate)
        seed = checks.seed(seed)
        self.layout: Layout = taxel_layout(model, patches)
        self.patches = self.layout.patches
        self._contacts = TrueContacts(model, patches)
        self._pressing = Pressing(self.layout, patches, SKINS[skin])
        self._flaws = Flaws(self.layout.n_taxels, seed=seed)
        self._mending = Mending(self.layout, self._flaws.gains == 0)
        self.profile = prior_of(self.layout, SKINS[skin], codes, noise=self._flaws.noise)
        self._encoder = self.profile.encoder(1 / self.ratio)
        self._decoder = SkinDecoder(self.profile, self.profile.encoder(1 / self.ratio))
        self.bus = SimulatedBus(packet_loss, delay=delay, seed=seed)
        silence = max(_SILENCE, _SILENT_FRAMES / self.rate)
        self._blocks = self.profile.block_of_patch()
        self._tracker = ContactTracker(self.layout, silence=silence, blocks=self._blocks)
        self._warm()
        self._due: float | None = None
        # When a frame was last decoded.
        self._taken = -np.inf
        # Frames on the bus, by their numbers.
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._counts = {"sent": 0, "decoded": 0, "codes": 0, "explained": 0, "bytes": 0, "touching": 0}
        self._squares = np.zeros(3)
        self.newest: TouchFrame | None = None
        self.frame = np.zeros((self.layout.n_taxels, 3), dtype=np.float32)
        self.true: ContactReading = _nothing(self.patches)
        self._reading = replace(self.true, valid=np.zeros(len(self.patches), dtype=bool))

    def _warm(self) -> None:
        """Compile, or load, all loops, so that no tick waits for it."""
        codes = self._encoder.encode(np.zeros((self.layout.n_taxels, 3), dtype=np.float32))
        decoder = SkinDecoder(self.profile, self._encoder)
        for code in codes:
            for packet in packets_of(code, self._encoder.stream, 1):
                decoder.step(packet)
        self._pressing.frame(self._contacts.forces.none())
        self._encoder.frame = 0

    def sense(self, data: mujoco.MjData) -> ContactReading:
        now = float(data.time)
        touches = self._contacts.forces.touches(data)
        self.true = self._contacts.reading(touches, now)
        if self._due is None or now >= self._due - _ROUNDING:
            self._send(self._pressing.frame(touches), now)
            # Where a tick is longer than a frame the rate is that of ticks.
            step = 1 / self.rate
            self._due = now + step if self._due is None or self._due + step < now else self._due + step
        estimates = []
        for packet in self.bus.receive(now + _ROUNDING):
            estimates += self._decoder.step(packet)
        # All packets of a frame arrive together: what is not there is lost.
        estimates += self._decoder.flush()
        for estimate in estimates:
            self._take(estimate, now)
        # Between frames nothing changes: it is asked only where one is missing.
        if not estimates and now >= self._taken + 1.5 / self.rate:
            self._reading = replace(self._reading, valid=self._tracker.measure(None, now)["valid"])
        return self._reading

    def _send(self, pressed: Floats, now: float) -> None:
        """Read taxels, and put the codes of what they read on the bus."""
        self.frame = self._flaws.apply(pressed)
        self._mending.mend(self.frame)
        number, codes = self._encoder.frame, self._encoder.encode(self.frame)
        for code in codes:
            for packet in packets_of(code, self._encoder.stream, _PACKETS):
                self.bus.send(now, packet)
                self._counts["bytes"] += len(packet)
        self._counts["sent"] += 1
        self._sent[number] = _Sent(now, pressed, codes, self.true, self._net(pressed))
        if len(self._sent) > _KEPT:
            self._sent.popitem(last=False)

    def _net(self, pressed: Floats) -> Floats:
        """The net forces (P, 3) that taxels read of a frame, less their noise."""
        force = np.zeros((len(self.patches), 3))
        read = self._flaws.without_noise(pressed)
        self._mending.mend(read)
        number = np.flatnonzero(read != 0)
        taxel, axis = np.divmod(number, 3)
        part = read.ravel()[number, None] * self.layout.directions[taxel, axis]
        np.add.at(force, self.layout.patch[taxel], part)
        return force

    def _take(self, estimate: Estimate, now: float) -> None:
        """Make a reading of a frame that was decoded."""
        sent = self._sent.pop(estimate.frame)
        contacts = self._tracker.measure(estimate, now)
        self.newest, self._taken = TouchFrame(sent.time, sent.pressed, estimate, sent.codes), now
        self._reading = ContactReading(self.patches, sent.time, **{name: contacts[name] for name in _READ})
        counts = self._counts
        counts["decoded"] += 1
        counts["codes"] += len(estimate.explained)
        counts["explained"] += int((estimate.explained & estimate.heard).sum())
        touching = (sent.true.pressing > _TOUCHES) & contacts["valid"]
        counts["touching"] += int(touching.sum())
        gaps = contacts["force_stderr"], contacts["force"] - sent.read, contacts["force"] - sent.true.force
        self._squares += [float(np.square(gap[touching]).sum()) for gap in gaps]

    def statistics(self) -> dict[str, Any]:
        """How the stream did so far.

        Returns
        -------
        ratio : float
            Numbers of the codes of a frame for one of the frame's.
        bytes_per_second : float
        frames : int
            How many were decoded.
        explained : float
            The share of codes that came and are explained by what was decoded.
        packets_lost : float
            The share of packets that did not arrive.
        force_error_predicted, force_error_measured, force_error_of_truth : float
            Root mean squares, over frames and patches that touch and are valid, of the error of a patch's net
            force, in newtons: as the decoder expects it; as it is against what taxels read, less their noise; as
            it is against the contacts of the same instant, so with what gains and dead taxels do to it too.
        """
        counts = self._counts
        seconds = counts["sent"] / self.rate
        error = np.sqrt(self._squares / max(counts["touching"], 1))
        return {
            "ratio": sum(self._encoder.n_dense) / self.layout.n_sparse,
            "bytes_per_second": counts["bytes"] / seconds if seconds else 0.0,
            "frames": counts["decoded"],
            "explained": counts["explained"] / counts["codes"] if counts["codes"] else 0.0,
            "packets_lost": self.bus.lost / self.bus.sent if self.bus.sent else 0.0,
            "force_error_predicted": float(error[0]),
            "force_error_measured": float(error[1]),
            "force_error_of_truth": float(error[2]),
        }


_READ = ("pressing", "force", "centre", "area", "valid")


def _nothing(patches: tuple[str, ...], time: float = -np.inf) -> ContactReading:
    """The reading of patches that nothing touches."""
    zeros = np.zeros(len(patches))
    vectors = np.zeros((len(patches), 3))
    return ContactReading(
        patches, time, zeros, vectors, np.full_like(vectors, np.nan), zeros, np.ones(len(patches), dtype=bool)
    )


class NothingFelt:
    """A sensor of which nothing is left: what it reads is valid, and zero everywhere.

    Parameters
    ----------
    sensor : ContactSensor
        Whose patches it has.
    """

    def __init__(self, sensor: ContactSensor) -> None:
        self.sensor, self.patches = sensor, sensor.patches
        self.true: ContactReading

    def sense(self, data: mujoco.MjData) -> ContactReading:
        self.sensor.sense(data)
        self.true = self.sensor.true
        return _nothing(self.patches, float(data.time))
