"""Sketches at size: a stream of 100,000 rows x 8192 features, compressed and decompressed; its speed and memory.

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
import torch

import persianrug as pr
from persianrug import transforms
from persianrug.plan import make_plan

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


def main(rows: int) -> None:
    source = pr.SparseUniform(0.01)
    clock = Clock()
    fitter = pr.LawFitter(N_SPARSE)
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
    losses = np.concatenate(errors)
    dense = 4 * rows * N_SPARSE
    print(f"{rows} rows x {N_SPARSE} features, p 0.01, {dense / 1e9:.2f} GB dense, {size / 1e9:.2f} GB of codes, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    for name in ("transform", "fit", "encode", "write", "read", "decode"):
        seconds = clock.seconds[name]
        print(f"  {name:9} {dense / seconds / 1e9:6.2f} GB/s, {seconds / clock.seconds['transform']:5.2f} transforms")
    print(f"  laws {clock.seconds['laws']:.1f} s, plan {clock.seconds['plan']:.1f} s")
    print(f"  loss {losses.mean():.6g} +- {losses.std() / len(losses) ** 0.5:.1g}, law {plan.law:.6g}, "
          f"held out {plan.held_out:.6g}")  # fmt: skip
    # Not getrusage: its peak counts the process that this one was forked from.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    print(f"  peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
