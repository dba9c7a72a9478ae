"""What else could carry a skin's frames: bytes, latency and error where packets are lost.

All send frames with the same noise of every taxel, over the same kind of bus; what they do not hear of they leave
as it was. A taxel is on the lists where its numbers are beyond what noise alone makes of one in 100,000.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import zstandard
from sklearn.linear_model import OrthogonalMatchingPursuit  # type: ignore[import-untyped]

from benchmarks.skin_stream import BITS, PACKETS, Story
from persianrug.skin import SimulatedBus, SkinDecoder, SkinEncoder, SkinProfile, packets_of
from persianrug.skin.packets import MOST_BYTES

NOISE, LOSSES = 0.03, (0.0, 0.05, 0.2)
# A packet's header and checksum, as ours has them, and bits a second of the bus (10BASE-T1S).
HEADER, RATE = 22, 10e6
# Of the sender of changes: a number that has changed by so much is sent.
CHANGED = 6 * NOISE
# Matching pursuit takes seconds a frame.
PURSUED = 5

Frame = np.ndarray
# What is sent of a frame: packets' bytes, and what each makes of the receiver's frame when it comes.
Sent = list[tuple[int, Callable[[Frame], None]]]


def counted(x: Frame) -> Frame:
    """Values of 12 bits with one exponent a frame, as the code's are."""
    top = 2 ** (BITS - 1) - 1
    step = 2.0 ** max(np.ceil(np.log2(max(float(np.abs(x).max()), 1e-9) / top)), -9)
    return np.rint(x / step) * step


def places_of(x: Frame) -> np.ndarray:
    return np.flatnonzero(np.square(x).sum(axis=1) > NOISE**2 * (18.5 + 2.5 * x.shape[1]))


def put(places: np.ndarray, values: Frame, clear: bool) -> Callable[[Frame], None]:
    def take(held: Frame) -> None:
        if clear:
            held[:] = 0
        held[places] = values

    return take


def cut(places: np.ndarray, values: Frame, size: float, clear: bool) -> Sent:
    """Entries of `size` bytes each in as few packets as carry them; the first clears what was before."""
    most = int((MOST_BYTES - HEADER) // size)
    starts = range(0, max(len(places), 1), most)
    return [
        (HEADER + int(np.ceil(size * len(places[k : k + most]))),
         put(places[k : k + most], values[k : k + most], clear and k == 0))
        for k in starts
    ]  # fmt: skip


def raw(x: Frame, sent: dict) -> Sent:
    """Every taxel, those that noise alone explains as zeros."""
    del sent
    now, places = np.zeros_like(x), places_of(x)
    now[places] = counted(x)[places]
    return cut(np.arange(len(x)), now, 1.5 * x.shape[1], clear=False)


def listed(x: Frame, sent: dict) -> Sent:
    """12 bits a taxel and 12 a number."""
    del sent
    places = places_of(x)
    return cut(places, counted(x)[places], 1.5 * (1 + x.shape[1]), clear=True)


def changes(x: Frame, sent: dict) -> Sent:
    """As `listed`, of taxels that have changed since they were last sent, or come or gone."""
    held = sent.setdefault("held", np.zeros_like(x))
    now = np.zeros_like(x)
    places = places_of(x)
    now[places] = counted(x)[places]
    moved = np.flatnonzero((np.abs(now - held) > CHANGED).any(axis=1) | (held.any(axis=1) != now.any(axis=1)))
    held[moved] = now[moved]
    return cut(moved, now[moved], 1.5 * (1 + x.shape[1]), clear=False) if len(moved) else []


def squeezed(x: Frame, sent: dict) -> Sent:
    """Zstandard of gaps between touched taxels and their numbers, 16 bits each, all in one packet."""
    places = places_of(x)
    values = counted(x)[places]
    step = max(float(np.abs(values).max(initial=0)) / 2047, 1e-9)
    parts = np.diff(places, prepend=-1).astype("<u2").tobytes(), np.rint(values.T / step).astype("<i2").tobytes()
    zstd = sent.setdefault("zstd", zstandard.ZstdCompressor(level=3))
    return [(HEADER + len(zstd.compress(b"".join(parts))), put(places, values, clear=True))]


def show(name: str, sizes: list[int], late: float, errors: dict[float, list[float]]) -> None:
    found = []
    for loss in LOSSES:
        every = np.array(errors[loss])
        found.append(f"{np.median(every):.4f} {np.mean(every**2) ** 0.5:6.4f} {np.mean(every <= 0.05):6.1%}")
    wire = max(sizes) * 8 / RATE
    print(
        f"  {name:24} {np.mean(sizes):7.0f} {max(sizes):6d}  {1e3 * (wire + late):6.2f}   {' | '.join(found)}",
        flush=True,
    )


def relative(x_hat: Frame, x: Frame) -> float:
    return float(np.linalg.norm(x_hat - x) / np.linalg.norm(x))


def table(pair: tuple[Story, Story], profile: SkinProfile) -> None:
    story = pair[1]
    length = min(60, len(story))
    parts = [range(k, k + length) for k in np.linspace(0, len(story) - length, 8).astype(int)]
    print(f"\nOther ways to send {sum(map(len, parts))} frames, 12,288 numbers, noise {NOISE} N; stretches of "
          f"{length}, the "
          "first 5 of each left out")  # fmt: skip
    print("  latency: the largest frame on a bus of 10 Mbit/s and the median time to encode and decode it, in ms")
    print("  errors where 0%, 5% and 20% of packets are lost: median, root of the mean square, share within 5%")
    print(f"  {'':24} {'bytes':>7} {'most':>6} {'latency':>8}")
    for name, send in (("raw, 12 bits", raw), ("list of taxels touched", listed), ("send on change", changes),
                       ("zstandard of the list", squeezed)):  # fmt: skip
        sizes, spent, errors = [], [], {loss: [] for loss in LOSSES}
        for loss in LOSSES:
            for n, part in enumerate(parts):
                draw, bus = np.random.default_rng(n), SimulatedBus(loss=loss, seed=n)
                held, sent = np.zeros((story.layout.n_taxels, story.layout.axes), np.float32), {}
                for k, i in enumerate(part):
                    x = story.frame(i)
                    felt = x + np.float32(NOISE) * draw.standard_normal(x.shape, dtype=np.float32)
                    began = time.perf_counter()
                    packets = send(felt, sent)
                    spent.append(time.perf_counter() - began)
                    sizes.append(sum(size for size, _ in packets))
                    for number, _ in enumerate(packets):
                        bus.send(0.0, number.to_bytes(4, "big"))
                    for content in bus.receive(0.0):
                        packets[int.from_bytes(content, "big")][1](held)
                    if k >= 5 and x.any():
                        errors[loss].append(relative(held, x))
        show(name, sizes, float(np.median(spent)), errors)
    for ratio in (16, 32, 64):
        ours(f"code {ratio}:1, {PACKETS} packets", story, parts, profile, profile.encoder(ratio, bits=BITS))
    pursuit(story, parts, profile.encoder(16, bits=BITS))
    print("  The list is smaller where little is touched, and as large as what is touched: its bus must carry "
          "the most that "
          "may come.\n  The code has one size and one latency, its codes add up on the wire, and a lost packet "
          "costs noise.")  # fmt: skip


def ours(name: str, story: Story, parts: list[range], profile: SkinProfile, encoder: SkinEncoder) -> None:
    sizes, spent, errors = [], [], {loss: [] for loss in LOSSES}
    for loss in LOSSES:
        for n, part in enumerate(parts):
            draw, bus = np.random.default_rng(n), SimulatedBus(loss=loss, seed=n)
            decoder, frames = SkinDecoder(profile, encoder), {}

            def took(found, frames=frames, loss=loss) -> None:
                for one in found:
                    k, x = frames[one.frame]
                    if k >= 5 and x.any():
                        errors[loss].append(relative(one.x, x))

            for k, i in enumerate(part):
                x = story.frame(i)
                felt = x + np.float32(NOISE) * draw.standard_normal(x.shape, dtype=np.float32)
                began = time.perf_counter()
                packets = [p for code in encoder.encode(felt) for p in packets_of(code, encoder.stream, PACKETS)]
                sizes.append(sum(map(len, packets)))
                frames[(encoder.frame - 1) % 2**32] = k, x
                for packet in packets:
                    bus.send(0.0, packet)
                found = [one for packet in bus.receive(0.0) for one in decoder.step(packet)]
                spent.append(time.perf_counter() - began)
                took(found)
            took(decoder.flush())
    show(name, sizes, float(np.median(spent)), errors)


def pursuit(story: Story, parts: list[range], encoder: SkinEncoder) -> None:
    """Orthogonal matching pursuit on the same code, told how many numbers there are, of a few frames."""
    transform, k = encoder.transforms[0], encoder.n_dense[0]
    rows = transform.rows(k)
    matrix = np.stack([rows.adjoint(row) for row in np.eye(k, dtype=np.float32)])
    frames = [part[length // 2] for part in parts if (length := len(part))]
    frames = [i for i in frames if story.frame(i).any()][:PURSUED]
    sizes, spent, errors = [], [], {loss: [] for loss in LOSSES}
    for loss in LOSSES:
        for i in frames:
            draw = np.random.default_rng(i)
            x = story.frame(i).ravel()
            z = rows.forward(x + np.float32(NOISE) * draw.standard_normal(x.shape, dtype=np.float32))
            come = np.repeat(draw.random(PACKETS) >= loss, -(-k // PACKETS))[:k]
            began = time.perf_counter()
            with warnings.catch_warnings():
                # It stops where what is left no longer tells its columns apart.
                warnings.simplefilter("ignore")
                model = OrthogonalMatchingPursuit(n_nonzero_coefs=int((x != 0).sum()), fit_intercept=False)
                model.fit(matrix[come], z[come])
            spent.append(time.perf_counter() - began)
            sizes.append(int(k * BITS / 8) + HEADER * PACKETS)
            errors[loss].append(relative(model.coef_, x))
    show(f"OMP, 16:1, {len(frames)} frames", sizes, float(np.median(spent)), errors)
