"""Sketches: a stream of 100,000 rows x 8192 features, and what is predicted beside what is measured.

    python -m benchmarks.sketching [ROWS]

Rows are drawn as they are needed, and drawn again to be compared; the time that takes is not counted. Rates are
bytes of dense float32 rows a second, beside that of the transform alone on the same rows.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

import persianrug as pr
from persianrug.encoders import transforms
from persianrug.sketches.plan import losses, make_plan

CELLS = Path(__file__).parents[1] / "examples" / "data" / "pbmc68k_reduced.npz"

N_SPARSE, BLOCK = 8192, 512


def stream(rows: int, source: pr.Source) -> Iterator[torch.Tensor]:
    for start in range(0, rows, BLOCK):
        yield source.sample(min(BLOCK, rows - start), N_SPARSE, seed=start)


class Clock:
    """Seconds spent on each of several things."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result


def predicted(title: str, fitted, rows, decoders: tuple[str, ...], ratios: tuple[float, ...]) -> None:
    print(f"\n{title}: loss by the law, expected (law corrected by rows held out), and measured on other rows")
    laws = pr.Sketcher(n_dense=1, decoder="linear").fit(fitted).profile_
    for ratio in ratios:
        for decoder in decoders:
            plan, sketch = make_plan(laws, ratio=ratio, decoder=decoder)
            found = losses(sketch, rows)
            measured, stderr = found.mean(), found.std() / len(found) ** 0.5
            print(f"  ratio {ratio:4} {decoder:6}: law {plan.law:.5g} ({measured / plan.law - 1:+.1%}), "
                  f"expected {plan.loss:.5g} +- {plan.stderr:.1g} ({measured / plan.loss - 1:+.1%}), "
                  f"measured {measured:.5g} +- {stderr:.1g}")  # fmt: skip


def predictions() -> None:
    for kind in (pr.SparseUniform, pr.SparseHalfNormal, pr.SparseExponential):
        source = kind(pr.zipf_rates(N_SPARSE, 0.01))
        fitted, rows = (source.sample(4096, N_SPARSE, seed=seed).numpy() for seed in (0, 1))
        predicted(f"Zipf-like rates, p 0.01 on average, {kind.name}", fitted, rows, ("linear", "relu", "bayes"),
                  (0.1, 0.25))  # fmt: skip
    cells = scipy.sparse.load_npz(CELLS).tocsr()
    order = np.random.default_rng(0).permutation(cells.shape[0])
    predicted("Cells, one half fitted and the other measured", cells[order[:350]], cells[order[350:]],
              ("linear", "relu", "bayes", "oamp"), (0.25, 0.5, 0.6))  # fmt: skip


def at_size(rows: int) -> None:
    source = pr.SparseUniform(0.01)
    clock = Clock()
    fitter = pr.ProfileFitter(N_SPARSE)
    for block in stream(rows, source):
        clock("fit", fitter.add, block.numpy())
    laws = clock("laws", fitter.laws)
    plan, sketch = clock("plan", lambda: make_plan(laws, ratio=0.25, decoder="relu"))
    errors, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.rug"
        with pr.RugWriter(path, sketch, plan=plan) as writer:
            for block in stream(rows, source):
                clock("transform", transforms.forward, block)
                codes = clock("encode", sketch.encode, block)
                clock("write", writer.write, codes)
        size = path.stat().st_size
        with pr.RugReader(path) as reader:
            for block in stream(rows, source):
                codes = clock("read", reader.__getitem__, slice(count, count + len(block)))
                x_hat = clock("decode", sketch.decode, codes)
                errors.append(np.square(x_hat - block.numpy()).mean(axis=1))
                count += len(block)
    found = np.concatenate(errors)
    dense = 4 * rows * N_SPARSE
    print(f"\n{rows} rows x {N_SPARSE} features, p 0.01, {dense / 1e9:.2f} GB dense, {size / 1e9:.2f} GB "
          f"of codes, {torch.get_num_threads()} threads")  # fmt: skip
    for name in ("transform", "fit", "encode", "write", "read", "decode"):
        seconds = clock.seconds[name]
        print(
            f"  {name:9} {dense / seconds / 1e9:6.2f} GB/s, {seconds / clock.seconds['transform']:5.2f} transforms"
        )
    print(f"  laws {clock.seconds['laws']:.1f} s, plan {clock.seconds['plan']:.1f} s")
    print(f"  loss {found.mean():.6g} +- {found.std() / len(found) ** 0.5:.1g}, law {plan.law:.6g}, "
          f"held out {plan.held_out:.6g}")  # fmt: skip
    # Not getrusage: its peak counts the process that this one was forked from.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    print(f"  peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    # First, since its peak is that of all there was before.
    at_size(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    predictions()
