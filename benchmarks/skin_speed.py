"""Times of a skin's encoder and decoder, frame by frame on one core, beside those of today's `Sketcher`."""

from __future__ import annotations

import ctypes
import importlib.resources
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import persianrug as pr
from benchmarks.skin_stream import BITS, PACKETS, Story
from persianrug.skin import Assembler, Frames, SkinDecoder, SkinEncoder, SkinProfile, packets_of
from persianrug.skin.paley import paley

RATIO, NOISE, FRAMES, BATCH = 16, 0.03, 600, 1000


def times(function: Callable[[], object], count: int) -> np.ndarray:
    """Seconds of each call, after some to warm up."""
    for _ in range(20):
        function()
    found = np.empty(count)
    for k in range(count):
        start = time.perf_counter()
        function()
        found[k] = time.perf_counter() - start
    return found


def in_c(encoder: SkinEncoder, counts: np.ndarray, folder: Path) -> Callable[[], int] | None:
    """encode.c for the first block, as the compiler makes it with -O2; None where there is no compiler."""
    if shutil.which("cc") is None:
        return None
    source, library = importlib.resources.files("persianrug.skin") / "encode.c", folder / "encode.so"
    subprocess.run(["cc", "-std=c99", "-O2", "-fPIC", "-shared", str(source), "-o", str(library)], check=True)
    function, transform = ctypes.CDLL(str(library)).persianrug_encode, encoder.transforms[0]
    parts = [counts.astype(np.int32), np.packbits(transform.signs < 0, bitorder="little"),
             transform.columns.astype(np.uint16), paley(transform.base).copy(), transform.order.astype(np.uint16),
             np.empty(transform.size, np.int32), np.empty(encoder.n_dense[0], np.int16)]  # fmt: skip
    at = [ctypes.c_void_p(part.ctypes.data) for part in parts]
    clipped, log = ctypes.c_int(), (transform.size // transform.base).bit_length() - 1

    def call() -> int:
        assert len(parts) == len(at)  # What is pointed at stays.
        return function(at[0], transform.n, at[1], at[2], transform.base, log, at[3], at[4], encoder.n_dense[0],
                        encoder.bits, at[5], at[6], ctypes.byref(clipped))  # fmt: skip

    return call


def encoding(title: str, encoder: SkinEncoder, frame: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        call = in_c(encoder, encoder.counts(frame), Path(folder))
        c = "no compiler" if call is None else f"{1e6 * np.median(times(call, 2000)):.1f} us"
    python = times(lambda: encoder.encode(frame), 2000)
    (code,) = encoder.encode(frame)
    packets = times(lambda: packets_of(code, encoder.stream, PACKETS), 500)
    print(f"  {title}: encode in C {c}, in Python {1e6 * np.median(python):.1f} us; {PACKETS} packets of it "
          f"{1e6 * np.median(packets):.0f} us more")  # fmt: skip


def decoding(title: str, profile: SkinProfile, frames: Frames, noise: float) -> None:
    """The decoder alone, from readings that are there, over stretches of the story in its order."""
    encoder = profile.encoder(RATIO, bits=BITS)
    draw = np.random.default_rng(0)
    spent, cpu, errors = [], [], []
    length = min(100, len(frames))
    for start in np.linspace(0, len(frames) - length, FRAMES // length).astype(int):
        decoder = SkinDecoder(profile, encoder)
        assembler = Assembler(encoder.stream, encoder.n_dense, BITS, 1)
        for k in range(start, start + length):
            x = frames[k]
            felt = x + np.float32(noise) * draw.standard_normal(x.shape, dtype=np.float32) if noise else x
            readings = []
            for code in encoder.encode(felt):
                for packet in packets_of(code, encoder.stream):
                    readings += assembler.push(packet)
            began, of_thread = time.perf_counter(), time.thread_time()
            found = decoder.decode(readings)
            cpu.append(time.thread_time() - of_thread)
            spent.append(time.perf_counter() - began)
            if x.any():
                errors.append(np.linalg.norm(found.x.ravel() - x) / np.linalg.norm(x))
    wall, core = np.array(spent), np.array(cpu)
    print(f"  {title}, noise {noise} N: {1 / wall.mean():.0f} frames/s, median {1e3 * np.median(wall):.2f} ms, "
          f"p99 "
          f"{1e3 * np.quantile(wall, 0.99):.2f} ms; of the core's own time {1 / core.mean():.0f} frames/s, p99 "
          f"{1e3 * np.quantile(core, 0.99):.2f} ms; within 5% "
          f"{np.mean(np.array(errors) <= 0.05):.1%}")  # fmt: skip


def one_shot(title: str, encoder: SkinEncoder, frames: Frames) -> None:
    """ReLU: the transpose of the code, scaled to be unbiased, less a threshold of its own noise, if positive."""
    transform, k = encoder.transforms[0], encoder.n_dense[0]
    rows = transform.rows(k)
    gain = np.float32(transform.size / k)
    level = np.float32(3.0)

    def read(z: np.ndarray) -> np.ndarray:
        x = rows.adjoint(z)
        x *= gain
        # What the other numbers leave on each, |x|^2 / k in all.
        x -= level * np.float32((z @ z / k) ** 0.5 * gain**0.5)
        return np.maximum(x, 0, out=x)

    errors, touched, found = [], 0, 0
    for i in range(0, len(frames), max(1, len(frames) // 400)):
        x = frames[i]
        if not x.any():
            continue
        x_hat = read(rows.forward(x))
        errors.append(np.linalg.norm(x_hat - x) / np.linalg.norm(x))
        hard = x > 0.3 * x.max()
        touched, found = touched + int(hard.sum()), found + int((x_hat[hard] > 0).sum())
    z = rows.forward(x)
    spent = times(lambda: read(z), 4000)
    print(f"  {title}: {1 / np.median(spent):.0f} frames/s, p99 {1e6 * np.quantile(spent, 0.99):.0f} us; "
          f"relative error "
          f"{np.median(errors):.2f}, finds {found / touched:.0%} of numbers above 30% of a frame's "
          f"largest")  # fmt: skip


def sketcher(fitted: Frames, frames: Frames) -> None:
    """OAMP of rows one by one without times, in batches of 1,000."""
    train = fitted.rows[:: max(1, len(fitted) // 1000)].toarray()
    rows = frames.rows[:: max(1, len(frames) // BATCH)].toarray()[:BATCH]
    model = pr.Sketcher(n_dense=rows.shape[1] // RATIO, decoder="oamp", hold_out="blocks").fit(train)
    codes = model.transform(rows)
    model.inverse_transform(codes[:10])
    began = time.perf_counter()
    x_hat = np.asarray(model.inverse_transform(codes))
    spent = time.perf_counter() - began
    size = np.linalg.norm(rows, axis=1)
    errors = np.linalg.norm(x_hat - rows, axis=1)[size > 0] / size[size > 0]
    print(f"  Sketcher, OAMP, 4,096 pressures, in batches of {len(rows)} on one thread: "
          f"{1e3 * spent / len(rows):.2f} ms a "
          f"frame, {len(rows) / spent:.0f} frames/s, without noise; within 5% "
          f"{np.mean(errors <= 0.05):.1%}")  # fmt: skip


def pressing(frames: Frames) -> Frames:
    """What presses, of frames of three axes."""
    return Frames(frames.rows[:, ::3].maximum(0))


def table(pair: tuple[Story, Story], profile: SkinProfile) -> None:
    print(f"\nTimes on one core, {RATIO}:1, {BITS} bits; asked: encode 4,096 taxels in C < 20 us, in Python < "
          f"100 us; decode "
          "4,096 pressures at 1,000 frames/s and p99 < 2 ms, 12,288 numbers at 300 and p99 < 6 ms; one-shot "
          "10,000/s")  # fmt: skip
    fitted, story = pair
    flat_fitted, flat = pressing(fitted.frames), pressing(story.frames)
    flat_profile = SkinProfile.fit(flat_fitted, story.layout.without_shear(), noise=NOISE)
    middle = len(story) // 2
    encoders = {
        "4,096 pressures": (flat_profile.encoder(RATIO, bits=BITS), flat),
        "12,288 numbers": (profile.encoder(RATIO, bits=BITS), story.frames),
    }
    for title, (encoder, frames) in encoders.items():
        encoding(title, encoder, frames[middle])
    for noise in (0.0, NOISE):
        decoding(
            "decode 4,096 pressures", SkinProfile.fit(flat_fitted, flat_profile.layout, noise=noise), flat, noise
        )
        decoding("decode 12,288 numbers",
                 SkinProfile.fit(fitted.frames, story.layout, noise=noise), story.frames, noise)  # fmt: skip
    print("  One-shot: ReLU of the code's transpose less three times its noise")
    for title, (encoder, frames) in encoders.items():
        one_shot(f"  {title}", encoder, frames)
    sketcher(flat_fitted, flat)
