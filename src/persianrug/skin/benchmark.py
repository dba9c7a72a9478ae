"""What a stream of recorded frames loses and takes, frame by frame: through packets, a bus and the decoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.assembler import Reading
from persianrug.skin.bus import SimulatedBus
from persianrug.skin.decoder import SkinDecoder
from persianrug.skin.encoder import SkinEncoder
from persianrug.skin.estimate import Estimate
from persianrug.skin.frames import Frames
from persianrug.skin.law import predict
from persianrug.skin.packets import packets_of
from persianrug.skin.profile import SkinProfile

Floats = NDArray[np.float64]
Frame = NDArray[np.float32]

# Runs of frames by which standard errors are found: frames that follow each other are alike.
_RUNS = 20
# What is empty has nothing above so many times the noise.
_NOISES = 3.0


@dataclass(frozen=True)
class Benchmark:
    """What a stream has lost and taken.

    Errors are relative L2 errors against frames without the noise that was added. Shares and errors are None where
    there are no frames that they are of; standard errors, by leaving out runs of frames, where there are too few.

    Attributes
    ----------
    frames, touched, lost : int
        All frames; those in which anything is touched; those of which no packet has come, which count as wrong.
    share_within_1_percent, share_within_5_percent : float or None
        Of frames in which anything is touched.
    share_within_1_percent_stderr, share_within_5_percent_stderr : float or None
    empty_right : float or None
        The share of the other frames in which nothing is above three times the noise, or above a count of the
        encoder where there is less noise. Where no packet has come, what was last found stands.
    predicted_error, measured_error, measured_error_stderr : float or None
        By the law; root of the sum of squared errors over that of squared frames, lost ones included.
    expected_error : float or None
        The decoder's own: root of the sum of its variances over that of its squared estimates.
    explained : float
        The share of frames all codes of which are explained.
    frames_per_second, p99_ms : float or None
        Decoding on one thread, from the first packet of a frame to its estimate: one over the mean time, and the
        99th percentile.
    encode_us : float
        Encoding a frame, by the median, in microseconds.
    bytes_per_frame, packets_per_frame : float
        As they were sent, with headers.
    ratio, bits, noise, packet_loss, packets, seed
        How it was done; `noise` is what was added.
    """

    frames: int
    touched: int
    lost: int
    share_within_1_percent: float | None
    share_within_1_percent_stderr: float | None
    share_within_5_percent: float | None
    share_within_5_percent_stderr: float | None
    empty_right: float | None
    predicted_error: float
    measured_error: float | None
    measured_error_stderr: float | None
    expected_error: float | None
    explained: float
    frames_per_second: float | None
    p99_ms: float | None
    encode_us: float
    bytes_per_frame: float
    packets_per_frame: float
    ratio: float
    bits: int
    noise: float
    packet_loss: float
    packets: int
    seed: int


def bench(
    profile: SkinProfile,
    frames: Frames,
    *,
    ratio: float = 16.0,
    bits: int = 12,
    noise: float = 0.0,
    packet_loss: float = 0.0,
    packets: int = 8,
    seed: int = 0,
    limit: int | None = None,
    each: Callable[[int, Frame, Estimate | None], None] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Benchmark:
    """Stream frames in their order, one at a time, and compare what arrives with what was felt.

    Parameters
    ----------
    profile : SkinProfile
        What is usual; learnt from other frames than these, or the numbers say little.
    frames : Frames
    ratio : float >= 1
        Numbers of a frame for one of its code.
    bits : int, 2 to 16
        Of each number of a code.
    noise : float >= 0
        Standard deviation of Gaussian noise that is added to every number before it is encoded, in newtons. The
        profile is told, if it knows of less.
    packet_loss : float from 0 to 1
        The probability that a packet is lost, each by itself.
    packets : int >= 1
        In how many packets the code of each block is sent.
    seed : int >= 0
        Of the transform, the noise and the losses.
    limit : int >= 1, optional
        Take only so many frames from the beginning.
    each : callable, optional
        Called with the place of every frame, what was felt (n_taxels, axes), and its estimate, or None if no
        packet has come.
    progress : callable, optional
        Called after every frame with 1 and how many there are.

    Raises
    ------
    ValueError
        If an argument is out of its range, or there are no frames, or they are of another skin.
    """
    checks.instance("profile", profile, SkinProfile)
    checks.instance("frames", frames, Frames).check(profile.layout)
    noise = checks.not_negative("noise", noise)
    packets = checks.integer("packets", packets, 1)
    if limit is not None:
        frames = frames[: checks.integer("limit", limit, 1)]
    if not len(frames):
        raise ValueError(f"{frames.name} has no frames; allowed: one or more")
    bus = SimulatedBus(packet_loss, seed=seed)
    profile = replace(profile, noise=max(profile.noise, noise, frames.noise))
    encoder = profile.encoder(ratio, bits=bits, seed=seed)
    predicted = predict(profile, encoder, packet_loss=packet_loss, packets=packets)
    warm(profile, encoder)
    stream = _Stream(profile, encoder, bus, packets)
    generator = np.random.default_rng([seed, 1])
    sums = _Sums(profile, encoder)
    for x in frames:
        heard = x
        if noise:
            heard = x + np.float32(noise) * generator.standard_normal(len(x), dtype=np.float32)
        estimate = stream.frame(heard)
        sums.add(x, estimate)
        if each is not None:
            each(len(sums.come) - 1, x.reshape(profile.layout.n_taxels, profile.layout.axes), estimate)
        if progress is not None:
            progress(1, len(frames))
    return Benchmark(
        **sums.found(),
        **stream.took(),
        predicted_error=predicted.error,
        ratio=ratio,
        bits=encoder.bits,
        noise=noise,
        packet_loss=packet_loss,
        packets=packets,
        seed=seed,
    )


def warm(profile: SkinProfile, encoder: SkinEncoder) -> None:
    """Compile all that a stream needs, before its first frame; that takes seconds the first time on a machine."""
    decoder = SkinDecoder(profile, encoder)
    for frame in range(2):
        readings = [
            Reading(frame, block, np.arange(length), np.zeros(length, np.int32), 0)
            for block, length in enumerate(encoder.n_dense)
        ]
        decoder.decode(readings)
    for transform in encoder.transforms:
        transform.integers(np.zeros(transform.n, np.int32))


class _Stream:
    """Both ends of a stream, and the bus between."""

    def __init__(self, profile: SkinProfile, encoder: SkinEncoder, bus: SimulatedBus, packets: int) -> None:
        self.encoder, self.bus, self.packets = encoder, bus, packets
        self.decoder = SkinDecoder(profile, encoder)
        self.encoding: list[float] = []
        self.decoding: list[float] = []
        self.sent = self.bytes = 0

    def frame(self, x: Frame) -> Estimate | None:
        """The estimate of a frame, or None where no packet has come."""
        number = len(self.encoding)
        start = time.perf_counter()
        codes = self.encoder.encode(x)
        self.encoding.append(time.perf_counter() - start)
        for code in codes:
            for packet in packets_of(code, self.encoder.stream, self.packets):
                self.sent += 1
                self.bytes += len(packet)
                self.bus.send(number, packet)
        arrived = self.bus.receive(number)
        if not arrived:
            return None
        start = time.perf_counter()
        estimates = [estimate for packet in arrived for estimate in self.decoder.step(packet)]
        # Nothing more comes of it.
        estimates += self.decoder.flush()
        self.decoding.append(time.perf_counter() - start)
        (estimate,) = estimates
        return estimate

    def took(self) -> dict[str, Any]:
        """Times and sizes."""
        decoding = np.array(self.decoding)
        frames = len(self.encoding)
        return {
            "frames_per_second": float(1 / decoding.mean()) if len(decoding) else None,
            "p99_ms": float(1e3 * np.percentile(decoding, 99)) if len(decoding) else None,
            "encode_us": float(1e6 * np.median(self.encoding)),
            "bytes_per_frame": self.bytes / frames,
            "packets_per_frame": self.sent / frames,
        }


class _Sums:
    """What estimates are worth, frame by frame."""

    def __init__(self, profile: SkinProfile, encoder: SkinEncoder) -> None:
        self.rest = profile.rest.astype(np.float32).ravel()  # type: ignore[union-attr]
        # What was last found; before any frame, nothing.
        self.last = self.rest
        self.least = max(_NOISES * profile.noise, encoder.resolution)
        self.squares: list[tuple[float, float]] = []
        self.touched: list[bool] = []
        self.fine: list[bool] = []
        self.explained: list[bool] = []
        self.come: list[bool] = []
        self.doubt = self.found_energy = 0.0

    def add(self, x: Frame, estimate: Estimate | None) -> None:
        """Compare a frame with its estimate; where there is none, what was last found stands."""
        if estimate is not None:
            self.last = estimate.x.ravel()
            self.doubt += float(estimate.variance.sum())
            self.found_energy += _energy(self.last)
        self.squares.append((_energy(self.last - x), _energy(x)))
        self.touched.append(bool((x != self.rest).any()))
        self.fine.append(bool(np.abs(self.last - self.rest).max() <= self.least))
        self.explained.append(estimate is not None and bool(estimate.explained.all()))
        self.come.append(estimate is not None)

    def found(self) -> dict[str, Any]:
        """What Benchmark has of it."""
        squares = np.array(self.squares)
        touched, come = np.array(self.touched), np.array(self.come)
        lost, energy = squares[touched].T
        told: dict[str, Any] = {}
        for percent in (1, 5):
            right = come[touched] & (lost <= (0.01 * percent) ** 2 * energy)
            name = f"share_within_{percent}_percent"
            told[name] = float(right.mean()) if len(right) else None
            told[f"{name}_stderr"] = _stderr(right.astype(float), np.ones(len(right)))
        empty = np.array(self.fine)[~touched]
        all_lost, all_energy = squares.sum(axis=0)
        return told | {
            "frames": len(touched),
            "touched": int(touched.sum()),
            "lost": int((~come).sum()),
            "empty_right": float(empty.mean()) if len(empty) else None,
            "measured_error": float(np.sqrt(all_lost / all_energy)) if all_energy > 0 else None,
            "measured_error_stderr": _stderr(squares[:, 0], squares[:, 1], np.sqrt),
            "expected_error": float(np.sqrt(self.doubt / self.found_energy)) if self.found_energy > 0 else None,
            "explained": float(np.mean(self.explained)),
        }


def _energy(x: NDArray[Any]) -> float:
    flat = x.astype(np.float64)
    return float(flat @ flat)


def _stderr(top: Floats, bottom: Floats, of: Callable[[Floats], Floats] = lambda ratio: ratio) -> float | None:
    """The standard error of of(sum(top) / sum(bottom)), by the jackknife over runs of frames."""
    runs = min(_RUNS, len(top))
    if runs < 2:
        return None
    parts = np.array_split(np.arange(len(top)), runs)
    tops, bottoms = (np.array([values[part].sum() for part in parts]) for values in (top, bottom))
    without = bottoms.sum() - bottoms
    if without.min() <= 0:
        return None
    values = of((tops.sum() - tops) / without)
    return float(np.sqrt((runs - 1) / runs * np.square(values - values.mean()).sum()))
