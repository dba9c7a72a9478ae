"""Skins: whole stories of a robot through packets, beside what was asked for and what others make of it.

    python -m benchmarks.skin [--data FOLDER] [--frames FILE] [--only TABLES]

FOLDER (or the variable PERSIANRUG_SKIN) holds two stories, a.npz and b.npz, and their taxels.npz. Without it the
two seconds of examples/data are read: fitted on the first, streamed in the second. FILE (PERSIANRUG_FRAMES) holds
frames of pressure of a stiff and a soft skin. Everything runs on one thread; frames that the tables of streams do
not take whole are stretches of successive ones, each of which begins without any memory.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import skin_peers, skin_speed
from benchmarks.skin_stream import BITS, PACKETS, Story, Told, pulls, stream
from persianrug.skin import Frames, Layout, SkinDecoder, SkinProfile, packets_of, predict

HERE = Path(__file__).parents[1] / "examples" / "data"
NOISE, LOSS = 0.03, 0.05
FEET = ("fl_foot", "fr_foot", "hl_foot", "hr_foot")
HAND = ("jaw", "finger", "wrist")

Pair = tuple[Story, Story]


def stretches(story: Story, count: int, length: int) -> list[range]:
    """So many stretches of successive frames, evenly over the story, or all of it where it is no longer."""
    if count * length >= len(story):
        return [range(len(story))]
    starts = np.linspace(0, len(story) - length, count).astype(int)
    return [range(start, start + length) for start in starts]


class Runs:
    """Streams of a story that several tables read, each sent once."""

    def __init__(self) -> None:
        self.told: dict[tuple, Told] = {}
        self.profiles: dict[tuple, SkinProfile] = {}

    def profile(self, fitted: Story, noise: float, codes: Sequence[Sequence[str]] = ()) -> SkinProfile:
        key = fitted.name, len(fitted), noise, bool(codes)
        if key not in self.profiles:
            self.profiles[key] = SkinProfile.fit(fitted.frames, fitted.layout, noise=noise, codes=codes)
        return self.profiles[key]

    def whole(self, pair: Pair, ratio: float, noise: float) -> Told:
        """A whole story in its order, fitted on the other one; packets are lost where there is noise."""
        key = *(story.name for story in pair), ratio, noise
        if key not in self.told:
            profile = self.profile(pair[0], noise)
            self.told[key] = stream(
                profile, profile.encoder(ratio, bits=BITS), pair[1], noise=noise, loss=LOSS if noise else 0.0
            )
        return self.told[key]


def shares(pairs: list[Pair], runs: Runs) -> None:
    print(f"\nFitted on one story, streamed the other: {BITS} bits, {PACKETS} packets a frame; with noise of "
          f"{NOISE} N "
          f"{LOSS:.0%} of packets lost")  # fmt: skip
    print("  asked: without noise 99% of frames within 1% at 16:1; with noise within 5% 97% at 16:1, 95% at 32:1")
    print("  error: |x_hat - x| / |x|, all frames' energies together: by the law, as the decoder said, measured")
    for pair in pairs:
        for ratio, noise in ((16, 0.0), (16, NOISE), (32, NOISE)):
            profile = runs.profile(pair[0], noise)
            encoder = profile.encoder(ratio, bits=BITS)
            some = [range(k, k + 1) for k in range(0, len(pair[1]), max(1, len(pair[1]) // 500))]
            loss = LOSS if noise else 0.0
            for memory in (True, False):
                told = (
                    runs.whole(pair, ratio, noise)
                    if memory
                    else stream(profile, encoder, pair[1], noise=noise, loss=loss, memory=False, stretches=some,
                                contacts=False)
                )  # fmt: skip
                law = predict(profile, encoder, packet_loss=loss, packets=PACKETS, memory=memory)
                quiet = told.quiet[~told.touched]
                empty = f", empty right {quiet.mean():.2%} of {len(quiet)}" if len(quiet) else ""
                print(f"  {pair[0].name} -> {pair[1].name} {ratio:2}:1 noise {noise:4} N "
                      f"{'memory   ' if memory else 'no memory'} {len(told.index):5} frames: "
                      f"within 1% {told.share(0.01):7.2%} (law {law.within_1_percent:4.0%}), "
                      f"5% {told.share(0.05):7.2%} (law {law.within_5_percent:4.0%}); "
                      f"error law {law.error:.4f} said {told.promised:.4f} measured {told.measured:.4f}; "
                      f"explained {told.explained.mean():.2%}{empty}")  # fmt: skip
    print(
        f"  32:1, noise {NOISE} N, {LOSS:.0%} lost, other seeds of the transform, stretches of 60 frames: "
        f"within 5%"
    )
    for pair in pairs:
        profile = runs.profile(pair[0], NOISE)
        found = []
        for seed in range(5):
            told = stream(profile, profile.encoder(32, bits=BITS, seed=seed), pair[1], noise=NOISE, loss=LOSS,
                          stretches=stretches(pair[1], 8, 60), contacts=False)  # fmt: skip
            found.append(f"{told.share(0.05):.2%}")
        print(f"  {pair[0].name} -> {pair[1].name} seeds 0 to 4: {', '.join(found)}")


def forces(pairs: list[Pair], runs: Runs) -> None:
    print("\nContacts, in the frame of the patch's body, against those of the true frames")
    print(f"  net force, rms an axis in newtons, noise {NOISE} N, {LOSS:.0%} lost; asked: 0.6 at 16:1, 0.4 with "
          f"codes "
          "by patch (feet; jaw, finger and wrist; all others)")  # fmt: skip
    for pair in pairs:
        cases = {
            "16:1, one code": runs.whole(pair, 16, NOISE),
            "16:1, codes by patch": by_patch(pair, runs),
            "32:1, one code": runs.whole(pair, 32, NOISE),
        }
        for title, told in cases.items():
            found = []
            for names in (("jaw",), ("finger",), FEET):
                at = [pair[1].patch(name) for name in names]
                off = told.force[:, at] - pair[1].truth.force[told.index][:, at]
                held = (told.energy[:, at] > 0).any(axis=1)
                rms, then = (float(np.nanmean(part**2) ** 0.5) for part in (off, off[held]))
                found.append(f"{names[0] if len(names) == 1 else 'feet'} {rms:.3f} ({then:.3f} while touched)")
            print(f"  {pair[0].name} -> {pair[1].name} {title:21} {len(told.index):5} frames: {', '.join(found)}; "
                  f"contact right {right(pair[1], told):.3%}")  # fmt: skip
    print("  without noise, 16:1; asked: of patch-frames of 10 N and more 95% with the net force within 2% and "
          "the centre "
          "within 3 mm; contact yes or no right in 99.5%")  # fmt: skip
    for pair in pairs:
        told, truth = runs.whole(pair, 16, 0.0), pair[1].truth
        size = np.linalg.norm(truth.force, axis=2)
        heavy = (size >= 10) & np.isfinite(truth.centre).all(axis=2)
        force = np.linalg.norm(told.force - truth.force, axis=2)[heavy] / size[heavy]
        with np.errstate(invalid="ignore"):
            centre = np.linalg.norm(told.centre - truth.centre, axis=2)[heavy]
        both = (force <= 0.02) & (centre <= 3e-3)
        print(f"  {pair[0].name} -> {pair[1].name} {heavy.sum()} patch-frames: force "
              f"{np.mean(force <= 0.02):.2%}, "
              f"centre {np.mean(centre <= 3e-3):.2%}, both {both.mean():.2%}; contact right "
              f"{right(pair[1], told):.3%} of {told.touching.size}")  # fmt: skip


def by_patch(pair: Pair, runs: Runs) -> Told:
    """Stretches of a story through codes of their own for feet and hand."""
    profile = runs.profile(pair[0], NOISE, (FEET, HAND))
    encoder = profile.encoder(16, bits=BITS)
    return stream(profile, encoder, pair[1], noise=NOISE, loss=LOSS, stretches=stretches(pair[1], 20, 100))


def right(story: Story, told: Told) -> float:
    return float((told.touching == story.truth.touching[told.index]).mean())


def pull(pairs: list[Pair], runs: Runs) -> None:
    print("\nThe pull of 6 N on the can (low-passed 20 ms, 30 ms long): felt so long after the truth's; asked: "
          "within "
          f"16 ms, none before somebody pulls; noise {NOISE} N, {LOSS:.0%} lost")  # fmt: skip
    for pair in pairs:
        early, true = pulls(pair[1], pair[1].truth)
        felt = float(pair[1].arrays["t_felt"])
        if not true:
            print(f"  {pair[1].name}: the truth feels no pull in these frames")
            continue
        print(f"  {pair[1].name}: the truth feels it at {true[0]:.3f} s ({len(early)} false), the simulated "
              f"robot did at "
              f"{felt:.3f} s")  # fmt: skip
        for ratio, noise in ((16, 0.0), (16, NOISE), (32, NOISE)):
            false, found = pulls(pair[1], runs.whole(pair, ratio, noise))
            late = f"{1e3 * (found[0] - true[0]):+.0f} ms" if found else "never"
            print(f"    {ratio}:1 noise {noise:4} N: {late}, {len(false)} false")


def pressure(path: Path) -> None:
    print("\nPressure alone, 4,096 taxels, without noise: the first half of every label fitted, the second read")
    print(
        "  asked: 97% of stiff frames within 1% at 16:1; the file has no times, its frames are taken in its order"
    )
    layout = Layout.read(path)
    for skin in ("stiff", "soft"):
        frames = Frames.read(path, skin)
        halves: tuple[list[int], list[int]] = [], []
        for label in np.unique(frames.label):
            places = np.flatnonzero(frames.label == label)
            halves[0].extend(places[: len(places) // 2])
            halves[1].extend(places[len(places) // 2 :])
        fitted, held_out = (
            Frames(frames.rows[np.sort(half)], label=frames.label[np.sort(half)]) for half in halves
        )
        profile = SkinProfile.fit(fitted, layout, noise=0.0)
        for ratio in (16, 32):
            for memory in (True, False):
                errors = []
                encoder = profile.encoder(ratio, bits=BITS)
                decoder = SkinDecoder(profile, encoder, memory=memory)
                for x in held_out:
                    (code,) = encoder.encode(x)
                    (packet,) = packets_of(code, encoder.stream)
                    for found in decoder.step(packet):
                        size = np.linalg.norm(x)
                        errors.append(np.linalg.norm(found.x.ravel() - x) / size if size else np.nan)
                found = np.array(errors)
                touched = np.isfinite(found)
                labels = ", ".join(
                    f"{label}: {np.mean(found[touched & (held_out.label == label)] <= 0.01):.1%}"
                    for label in np.unique(held_out.label)
                )
                print(f"  {skin:5} {ratio}:1 {'memory   ' if memory else 'no memory'} {touched.sum()} frames: "
                      f"within 1% "
                      f"{np.mean(found[touched] <= 0.01):.2%} (label {labels}), 5% "
                      f"{np.mean(found[touched] <= 0.05):.2%}")  # fmt: skip


def memory(pairs: list[Pair], runs: Runs) -> None:
    print(f"\nWhat the last frame tells: noise {NOISE} N, {LOSS:.0%} lost, {pairs[0][0].name} -> "
          f"{pairs[0][1].name}, "
          "stretches of 60 frames, the first 5 of each left out")  # fmt: skip
    print("  rms: root of the mean squared relative error; asked: the same error from a code 1.5 times smaller")
    fitted, story = pairs[0]
    profile = runs.profile(fitted, NOISE)
    parts = stretches(story, 8, 60)
    late = np.concatenate([np.arange(len(part)) >= 5 for part in parts])
    ratios = (8, 12, 16, 24, 32, 48, 64, 96)
    rms: dict[bool, list[float]] = {True: [], False: []}
    middle: dict[bool, list[float]] = {True: [], False: []}
    for ratio in ratios:
        line = []
        for keep in (True, False):
            told = stream(profile, profile.encoder(ratio, bits=BITS), story, noise=NOISE, loss=LOSS, memory=keep,
                          stretches=parts, contacts=False)  # fmt: skip
            errors = told.error[told.touched & late]
            rms[keep].append(float((errors**2).mean() ** 0.5))
            middle[keep].append(float(np.median(errors)))
            line.append(f"{'memory' if keep else 'none'} rms {rms[keep][-1]:.4f} median {middle[keep][-1]:.4f} "
                        f"within 5% {np.mean(errors <= 0.05):.1%}")  # fmt: skip
        print(f"  {ratio:2}:1 {' | '.join(line)}")
    for title, found in (("rms", rms), ("median", middle)):
        curves = {keep: np.maximum.accumulate(np.log(values)) for keep, values in found.items()}
        smaller = []
        for ratio, error in zip(ratios, curves[False], strict=True):
            if curves[True][0] <= error <= curves[True][-1]:
                same = np.exp(np.interp(error, curves[True], np.log(ratios)))
                smaller.append(f"{ratio}:1 as {same:.0f}:1, {same / ratio:.2f}")
        print(
            f"  the same {title} error: without memory as with it at so many times smaller a code: "
            f"{'; '.join(smaller)}"
        )
    onsets = [(i, patch) for i, patch in story.onsets() if 10 <= i < len(story) - 10]
    if not onsets:
        return
    print(f"  By frames after a contact began ({len(onsets)} onsets, of at least 2 N where nothing was for 10 "
          f"frames), "
          "16:1: error of that patch's forces, median and rms in newtons")  # fmt: skip
    after = (0, 1, 2, 4, 9)
    encoder = profile.encoder(16, bits=BITS)
    begun = [range(i - 8, i + 10) for i, _ in onsets]
    with_ = stream(profile, encoder, story, noise=NOISE, loss=LOSS, stretches=begun, contacts=False)
    alone = [range(i + k, i + k + 1) for i, _ in onsets for k in after]
    without = stream(
        profile, encoder, story, noise=NOISE, loss=LOSS, memory=False, stretches=alone, contacts=False
    )
    size = story.truth.energy
    for j, k in enumerate(after):
        kept = np.array([with_.lost[18 * row + 8 + k, patch] for row, (_, patch) in enumerate(onsets)]) ** 0.5
        none = (
            np.array([without.lost[len(after) * row + j, patch] for row, (_, patch) in enumerate(onsets)]) ** 0.5
        )
        force = np.array([size[i + k, patch] for i, patch in onsets]) ** 0.5
        print(f"    {k}: of {np.median(force):6.2f} N, memory {np.median(kept):.3f} "
              f"{np.mean(kept**2) ** 0.5:.3f}, "
              f"none {np.median(none):.3f} {np.mean(none**2) ** 0.5:.3f}")  # fmt: skip


def stories(folder: Path | None) -> list[Pair]:
    if folder is None:
        layout, path = Layout.read(HERE / "taxels.npz"), HERE / "pull.npz"
        return [(Story(path, layout, slice(0, 250)), Story(path, layout, slice(100, None)))]
    layout = Layout.read(folder / "taxels.npz")
    a, b = (Story(folder / f"{name}.npz", layout) for name in "ab")
    return [(a, b), (b, a)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PERSIANRUG_SKIN"))
    parser.add_argument("--frames", type=Path, default=os.environ.get("PERSIANRUG_FRAMES"))
    parser.add_argument("--only", default="abcdefg", help="which tables: letters of abcdefg, in their order here")
    told = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    folder = None if told.data is None else Path(told.data)
    pairs = stories(folder)
    print(
        f"Skins: {', '.join(f'{v.name} ({len(u)} frames fitted, {len(v)} streamed)' for u, v in pairs)}, one "
        f"thread"
    )
    runs = Runs()
    tables = {
        "a": lambda: shares(pairs, runs),
        "b": lambda: forces(pairs, runs),
        "c": lambda: pull(pairs, runs),
        "d": lambda: pressure(Path(told.frames)) if told.frames else print("\nPressure alone: no --frames"),
        "e": lambda: memory(pairs, runs),
        "f": lambda: skin_speed.table(pairs[0], runs.profile(pairs[0][0], NOISE)),
        "g": lambda: skin_peers.table(pairs[0], runs.profile(pairs[0][0], NOISE)),
    }
    for letter, table in tables.items():
        if letter in told.only:
            begun = time.perf_counter()
            table()
            print(f"  ({time.perf_counter() - begun:.0f} s)", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
