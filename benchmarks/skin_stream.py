"""Stories of a skin, streamed through packets, and what their decoder told beside the truth."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from persianrug.skin import (
    ContactTracker,
    Estimate,
    Frames,
    Layout,
    SimulatedBus,
    SkinDecoder,
    SkinEncoder,
    SkinProfile,
    packets_of,
)  # fmt: skip

PACKETS, BITS = 8, 12
# Phases in which a can is held out and the robot stands: those in which a pull is waited for.
ARMED = ("offer", "wait", "gripped", "pull")


@dataclass
class Told:
    """What was told of some frames, row by row.

    Attributes
    ----------
    index : (k,)
        Which frames of the story.
    error, expected : (k,)
        Relative L2 error, measured and as the decoder expects it; NaN where nothing is touched.
    quiet : (k,)
        Whether nothing is above three times the noise, or a step of the encoder.
    explained : (k,)
    lost, energy : (k, patches)
        Sums of squares of errors and of forces.
    force, centre : (k, patches, 3)
    touching : (k, patches)
    seconds : (k,)
        Spent on decoding each.
    bytes : (k,)
    """

    index: np.ndarray
    error: np.ndarray
    expected: np.ndarray
    quiet: np.ndarray
    explained: np.ndarray
    lost: np.ndarray
    energy: np.ndarray
    force: np.ndarray
    centre: np.ndarray
    touching: np.ndarray
    seconds: np.ndarray
    bytes: np.ndarray

    @property
    def touched(self) -> np.ndarray:
        return self.energy.sum(axis=1) > 0

    def share(self, bound: float) -> float:
        """Of frames with any touch, that whose relative error is at most so much."""
        return float((self.error[self.touched] <= bound).mean())

    @property
    def measured(self) -> float:
        """Root of the error's energy over that of the frames."""
        return float((self.lost.sum() / self.energy.sum()) ** 0.5)

    @property
    def promised(self) -> float:
        """As `measured`, from what the decoder expected of each frame."""
        energy = self.energy.sum(axis=1)
        return float((np.nansum(self.expected**2 * energy) / energy.sum()) ** 0.5)


class Story:
    """A recording of three axes, its skin, and what happens in it."""

    def __init__(self, path: Path, layout: Layout, part: slice = slice(None)) -> None:
        self.name, self.layout = path.stem, layout
        self.frames = Frames.read(path)[part]
        with np.load(path) as parts:
            self.arrays = {name: parts[name][part] for name in ("time", "phase", "quat")}
            self.arrays |= {name: parts[name] for name in ("phase_names", "quat_bodies", "t_felt")}

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, i: int) -> np.ndarray:
        return self.frames[i].reshape(self.layout.n_taxels, self.layout.axes)

    @cached_property
    def truth(self) -> Told:
        """What is told of the frames themselves."""
        tracker = ContactTracker(self.layout)
        rows = _Rows(self, range(len(self)), 0.0)
        for i in range(len(self)):
            x = self.frame(i)
            rows.add(i, x, Estimate.certain(i, x), tracker, 0.0, 0)
        return rows.told()

    def patch(self, name: str) -> int:
        return self.layout.patches.index(name)

    def turn(self, patch: str) -> Rotation:
        """From the frame of a patch's body to the world's, of every frame."""
        body = self.layout.bodies[self.patch(patch)]
        bodies = list(self.arrays["quat_bodies"])
        return Rotation.from_quat(self.arrays["quat"][:, bodies.index(body)].astype(float), scalar_first=True)

    def onsets(self, quiet: int = 10, newtons: float = 2.0) -> list[tuple[int, int]]:
        """Frames and patches where a patch that felt nothing for a while is pressed with some force."""
        touched = self.truth.energy > 0
        found = []
        for patch in range(touched.shape[1]):
            run = 0
            for i, on in enumerate(touched[:, patch]):
                later = self.truth.energy[i : i + 10, patch]
                if on and run >= quiet and len(later) == 10 and (later > newtons**2).all():
                    found.append((i, patch))
                run = 0 if on else run + 1
        return found


class _Rows:
    """What is told, as it comes."""

    def __init__(self, story: Story, index: Sequence[int], noise: float) -> None:
        k, self.patches = len(index), len(story.layout.patches)
        self.layout, self.least = story.layout, max(3 * noise, 1 / 512)
        self.row = {i: row for row, i in enumerate(index)}
        self.columns: dict[str, np.ndarray] = {"index": np.asarray(index)}
        for name in ("error", "expected", "seconds", "bytes"):
            self.columns[name] = np.full(k, np.nan)
        for name in ("lost", "energy"):
            self.columns[name] = np.full((k, self.patches), np.nan)
        for name in ("force", "centre"):
            self.columns[name] = np.full((k, self.patches, 3), np.nan)
        self.columns["touching"] = np.zeros((k, self.patches), dtype=bool)
        for name in ("quiet", "explained"):
            self.columns[name] = np.zeros(k, dtype=bool)

    def add(
        self, i: int, x: np.ndarray, found: Estimate, tracker: ContactTracker | None, seconds: float, size: int
    ) -> None:
        row, at = self.row[i], self.columns
        patch = self.layout.patch
        at["lost"][row] = np.bincount(patch, np.square(found.x - x).sum(axis=1), self.patches)
        at["energy"][row] = np.bincount(patch, np.square(x).sum(axis=1), self.patches)
        energy = at["energy"][row].sum()
        if energy > 0:
            at["error"][row] = (at["lost"][row].sum() / energy) ** 0.5
            at["expected"][row] = found.expected_error
        at["quiet"][row] = np.abs(found.x).max() <= self.least
        at["explained"][row] = found.explained.all()
        at["seconds"][row], at["bytes"][row] = seconds, size
        if tracker is not None:
            told = tracker.update(found, 0.004 * i)
            at["touching"][row] = [one.touching for one in told]
            at["force"][row] = [one.force for one in told]
            at["centre"][row] = [one.centre for one in told]

    def told(self) -> Told:
        lost, energy = self.columns["lost"], self.columns["energy"]
        # Of frames of which nothing came nothing is known.
        missing = np.isnan(energy).any(axis=1)
        lost[missing], energy[missing] = 1.0, 1.0
        self.columns["error"][missing] = 1.0
        return Told(**self.columns)


def stream(
    profile: SkinProfile,
    encoder: SkinEncoder,
    story: Story,
    *,
    noise: float = 0.0,
    loss: float = 0.0,
    memory: bool = True,
    stretches: Iterable[range] | None = None,
    contacts: bool = True,
    seed: int = 0,
) -> Told:
    """Send a story, or stretches of it, each to a decoder that has just begun; eight packets a code."""
    stretches = [range(len(story))] if stretches is None else list(stretches)
    rows = _Rows(story, [i for stretch in stretches for i in stretch], noise)
    draw = np.random.default_rng(seed)
    blocks = profile.block_of_patch()
    for stretch in stretches:
        decoder = SkinDecoder(profile, encoder, memory=memory)
        bus = SimulatedBus(loss=loss, seed=int(draw.integers(2**31)))
        tracker = ContactTracker(story.layout, blocks=blocks) if contacts else None
        frames: dict[int, tuple[int, np.ndarray, int]] = {}
        spent = 0.0
        for i in stretch:
            x = story.frame(i)
            felt = x + np.float32(noise) * draw.standard_normal(x.shape, dtype=np.float32) if noise else x
            packets = [p for code in encoder.encode(felt) for p in packets_of(code, encoder.stream, PACKETS)]
            frames[(encoder.frame - 1) % 2**32] = i, x, sum(map(len, packets))
            for packet in packets:
                bus.send(0.0, packet)
            for packet in bus.receive(0.0):
                started = time.perf_counter()
                found = decoder.step(packet)
                spent += time.perf_counter() - started
                for one in found:
                    rows.add(frames[one.frame][0], frames[one.frame][1], one, tracker, spent, frames[one.frame][2])
                    spent = 0.0
        started = time.perf_counter()
        found = decoder.flush()
        spent += time.perf_counter() - started
        for one in found:
            rows.add(frames[one.frame][0], frames[one.frame][1], one, tracker, spent, frames[one.frame][2])
    return rows.told()


def pulls(story: Story, told: Told) -> tuple[list[float], list[float]]:
    """Seconds at which a pull of more than 6 N is felt while a can is held out: before somebody pulls, and then.

    The force on jaw and finger along the gripper's axis, low-passed with 20 ms, less its baseline, which follows
    (with 0.3 s) only while they differ by less than 2 N, is above 6 N for 30 ms.
    """
    arrays = story.arrays
    world = sum(story.turn(name).apply(told.force[:, story.patch(name)]) for name in ("jaw", "finger"))
    # The gripper's axis is the first one of the jaw's body.
    along = story.turn("jaw").inv().apply(world)[:, 0]
    names = list(map(str, arrays["phase_names"]))
    times, phase = arrays["time"], np.array(names)[arrays["phase"]]
    step = float(np.median(np.diff(times)))
    low = base = above = 0.0
    armed, fired = False, False
    false, true = [], []
    for k in range(len(along)):
        if phase[k] not in ARMED:
            armed = False
            continue
        value = along[k] if np.isfinite(along[k]) else low
        if not armed:
            armed, low, base, above = True, value, value, 0.0
        low += (value - low) * (1 - np.exp(-step / 0.020))
        if abs(low - base) < 2:
            base += (low - base) * (1 - np.exp(-step / 0.3))
        above = above + step if abs(low - base) > 6 else 0.0
        fires = above >= 0.030 - 1e-9
        if fires and not fired:
            (true if phase[k] == "pull" else false).append(float(times[k]))
        fired = fires
    return false, true
