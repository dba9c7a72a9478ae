"""Sketches of rows that are smooth: recordings that were not fitted, and a stream of 100,000 rows x 8192 features.

    python -m benchmarks.smooth [ROWS]

Losses are per feature at 8 bits, by the decoder that `auto` takes, beside as many principal components of the rows
that were fitted, not rounded. Of the stream, the time that drawing rows takes is not counted; rates are bytes of
dense float32 rows a second.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np

import persianrug as pr
from persianrug.sketches.hold_out import HoldOut
from persianrug.sketches.plan import losses
from persianrug.sketches.rows import open_rows

DATA = Path(__file__).parents[1] / "examples" / "data"
N_SPARSE, RANK, BLOCK = 8192, 64, 1024


def frames(*names: str) -> np.ndarray:
    return np.vstack([np.vstack(list(open_rows(DATA / f"{name}.npz").blocks())) for name in names]).astype(float)


def components(fitted: np.ndarray, rows: np.ndarray, count: int) -> tuple[float, int]:
    mean = fitted.mean(axis=0)
    _, sizes, directions = np.linalg.svd(fitted - mean, full_matrices=False)
    count = min(count, int(np.sum(sizes > 1e-9 * sizes[0])))
    left = rows - mean
    return float(np.square(left - left @ directions[:count].T @ directions[:count]).mean()), count


def recordings() -> None:
    for title, names, other in (
        ("mattress", ("mattress_0", "mattress_1"), "mattress_2"),
        ("insoles", ("insoles_0",), "insoles_1"),
    ):
        fitted, rows = frames(*names), frames(other)
        held, fitter = HoldOut("auto", len(fitted)), pr.ProfileFitter(fitted.shape[1])
        fitter.add(fitted, held.groups(0, fitted))
        profile = fitter.profile()
        print(f"\n{title}: {len(fitted)} rows fitted, {len(rows)} of another recording read")
        for ratio in (0.5, 0.25, 0.125):
            plan, sketch = pr.make_plan(profile, ratio=ratio, bits=8)
            found, (pca, count) = losses(sketch, rows), components(fitted, rows, plan.n_dense)
            besides = 0 if sketch.covariance is None else sketch.covariance.bytes / 1e3
            stderr, matrix = found.std() / len(found) ** 0.5, 4e-3 * count * rows.shape[1]
            print(f"  ratio {ratio:5}: {plan.decoder} expected {plan.loss:.4g} +- {plan.stderr:.2g}, "
                  f"lost {found.mean():.4g} +- {stderr:.2g}, {besides:.0f} kB besides; "
                  f"{count} principal components {pca:.4g}, {matrix:.0f} kB besides")  # fmt: skip


def at_size(rows: int) -> None:
    rng = np.random.default_rng(0)
    shape = np.cumsum(rng.standard_normal((RANK, N_SPARSE)), axis=1) / N_SPARSE**0.5
    true = pr.Covariance(np.zeros(N_SPARSE), shape, np.full(N_SPARSE, 0.01))
    fitter, seconds = pr.ProfileFitter(N_SPARSE), 0.0
    for start in range(0, rows, BLOCK):
        block = true.sample(min(BLOCK, rows - start), seed=start).astype(np.float32)
        began = time.perf_counter()
        fitter.add(block)
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    profile = fitter.profile()
    seconds += time.perf_counter() - began
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    memory = "" if peak is None else f", peak {int(peak[1]) / 2**20:.2f} GiB"
    size = 4 * rows * N_SPARSE
    print(f"\n{rows} rows x {N_SPARSE}: fitted in {seconds:.0f} s, {size / seconds / 1e6:.0f} MB/s{memory}")
    for flat in (True, False):
        learned = profile.covariance(RANK)
        covariance = learned.flattened() if flat else learned
        sketch = pr.Sketch(profile.source, pr.Rug.of_ratio(N_SPARSE, 0.25), 8, "lmmse", covariance=covariance)
        block = true.sample(4 * BLOCK, seed=1).astype(np.float32)
        codes = sketch.encode(block)
        sketch.decode(codes[:2])
        times = []
        for _ in range(3):
            began = time.perf_counter()
            x_hat = sketch.decode(codes)
            times.append(time.perf_counter() - began)
        lost, law = float(np.square(x_hat - block).mean()), sketch.law()
        rate = block.nbytes / min(times) / 1e6
        kind = "flat" if flat else "own"
        print(f"  {RANK} factors, {kind} diagonal: decoded at {rate:.0f} MB/s; lost {lost:.5g}, law {law:.5g} "
              f"({lost / law - 1:+.1%})")  # fmt: skip


if __name__ == "__main__":
    recordings()
    at_size(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
