"""Beside other programs, and small: ratios to a copy, to one thread, and to dense products.

Run by `python -m benchmarks.load`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch

import persianrug as pr
from benchmarks.timing import medians
from persianrug._support.threads import one_thread

# Processes that do nothing but work, two for each of two cores.
_BUSY = 4


def load() -> None:
    print(f"\nBeside {_BUSY} busy processes on {len(os.sched_getaffinity(0))} cores: loaded / idle, medians")
    source = pr.SparseUniform(0.045)
    model = pr.Autoencoder(pr.Rug(8192, 2048), pr.ReLU()).tune(source)
    x = source.sample(1024, 8192, seed=0)
    large = np.ones(1 << 23)
    target = np.empty_like(large)
    works: dict[str, Callable[[], object]] = {
        "copy of 64 MiB": lambda: np.copyto(target, large),
        "encode and decode, 1024 x 8192": lambda: model(x),
    }
    idle = medians(works, rounds=15)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(_BUSY)]
    try:
        loaded = medians(works, rounds=15)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    slower = {name: loaded[name] / idle[name] for name in works}
    for name, ratio in slower.items():
        print(f"  {name}: {1e3 * idle[name]:.1f} ms idle, {1e3 * loaded[name]:.1f} ms loaded, {ratio:.2f}")
    copy, ours = slower.values()
    print(f"  ours over the copy: {ours / copy:.2f}")


def threads() -> None:
    print("\nSmall work: time with the threads that PyTorch has / with one")
    source = pr.SparseUniform(0.045)
    for n, rows in ((64, 1024), (1024, 16), (1024, 1024), (4096, 1), (8192, 1)):
        for kind in (pr.ReLU, pr.OAMP):
            model = pr.Autoencoder(pr.Rug(n, n // 4), kind()).tune(source)
            z = model.encode(source.sample(rows, n, seed=0))

            def alone(model: pr.Autoencoder = model, z: torch.Tensor = z) -> None:
                with one_thread():
                    model.decode(z)

            def shared(model: pr.Autoencoder = model, z: torch.Tensor = z) -> None:
                model.decode(z)

            seconds = medians({"shared": shared, "alone": alone}, rounds=15)
            print(f"  {kind.name}, {rows} x {n}: {seconds['shared'] / seconds['alone']:.2f}")


def products() -> None:
    print(
        "\nEncode and read out, 1024 rows, ratio 1/4, float32: our time / that of products with the dense matrix"
    )
    for n in (64, 128, 256, 512, 765, 999, 1000, 1024, 2047, 4096):
        rug = pr.Rug(n, n // 4)
        x, matrix = torch.randn(1024, n), rug.W_in(torch.float32)
        z = x @ matrix.T
        seconds = medians(
            {
                "encode": lambda rug=rug, x=x: rug.encode(x),  # type: ignore[misc]
                "encode densely": lambda x=x, matrix=matrix: x @ matrix.T,  # type: ignore[misc]
                "read": lambda rug=rug, z=z: rug.readout(z),  # type: ignore[misc]
                "read densely": lambda z=z, matrix=matrix: z @ matrix,  # type: ignore[misc]
            },
            rounds=21,
        )
        print(
            f"  n {n:5}: encode {seconds['encode'] / seconds['encode densely']:.2f}, "
            f"readout {seconds['read'] / seconds['read densely']:.2f}"
        )


def main() -> None:
    """Print all of it."""
    load()
    threads()
    products()


if __name__ == "__main__":
    main()
