"""Run every benchmark: `python -m benchmarks`."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np
import torch

import persianrug as pr
from benchmarks.timing import medians
from persianrug import transforms

# The table of the toy model: p, ratio, linear, ReLU (arXiv 2410.12101's law, solved independently).
TABLE = [
    (0.045, 0.25, 0.0108703125, 0.0048558),
    (0.01, 0.10, 0.0029775, 0.00099630),
    (0.3, 0.5, 0.03875, 0.030268),
]


def laws() -> None:
    print("\nLaws in the limit against independent values, relative error")
    for p, ratio, linear, relu in TABLE:
        source = pr.SparseUniform(p)
        sigma = pr.noise_level(source.variance, ratio)
        found = [float(kind().tune(source, sigma).risk(source, sigma)) for kind in (pr.Linear, pr.ReLU)]
        print(
            f"  p {p:5}  ratio {ratio:4}  linear {found[0]:.7g} ({found[0] / linear - 1:+.0e})  "
            f"relu {found[1]:.7g} ({found[1] / relu - 1:+.0e})"
        )

    grid = np.linspace(0.002, 0.8, 20)

    def solve() -> None:
        for p in grid:
            source = pr.SparseUniform(float(p))
            for ratio in grid:
                sigma = pr.noise_level(source.variance, float(ratio))
                for kind in (pr.Linear, pr.ReLU):
                    kind().tune(source, sigma).risk(source, sigma)

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    seconds = medians({"grid": solve}, rounds=3)["grid"]
    os.sched_setaffinity(0, cores)
    print(f"  20 x 20 grid of (p, ratio), both decoders, one core: {seconds:.2f} s")


def measurements() -> None:
    print("\nMeasured against the finite-n law, ReLU")
    points = [(8192, p, r) for p in (0.01, 0.045, 0.3) for r in (0.1, 0.25, 0.5)]
    points += [(n, p, 0.25) for n in (512, 999, 5000, 6144) for p in (0.01, 0.045, 0.3)]
    for n, p, ratio in points:
        source = pr.SparseUniform(p)
        model = pr.Autoencoder(pr.Rug.of_ratio(n, ratio), pr.ReLU()).tune(source)
        law, result = model.law(source), model.measure(source)
        off = result.loss - law
        print(
            f"  n {n:5}  p {p:5}  ratio {ratio:4}  samples {result.samples:5}  "
            f"limit {model.limit(source):.6g}  law {law:.6g}  measured {result.loss:.6g}  "
            f"off {off / law:+.2%} = {off / result.stderr:+.1f} stderr"
        )


def sampling() -> None:
    print("\nSampling 1024 x 8192 float32, seconds of two dense uniform draws / seconds of ours")
    for p in (0.001, 0.01, 0.045, 0.1, 0.15, 0.2, 0.3):
        source = pr.SparseUniform(p)
        generator = torch.Generator().manual_seed(0)

        def dense(p: float = p, generator: torch.Generator = generator) -> torch.Tensor:
            shape = (1024, 8192)
            return torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < p)

        def ours(source: pr.Source = source, generator: torch.Generator = generator) -> torch.Tensor:
            return source.sample(1024, 8192, seed=generator)

        seconds = medians({"dense": dense, "ours": ours}, rounds=7)
        print(f"  p {p:5}  {seconds['dense'] / seconds['ours']:5.1f}   ({1e3 * seconds['ours']:.1f} ms)")


def coding() -> None:
    print("\nEncode + decode of 1024 x 8192 float32 at ratio 0.25")
    source = pr.SparseUniform(0.045)
    model = pr.Autoencoder(pr.Rug(8192, 2048), pr.ReLU()).tune(source)
    x = source.sample(1024, 8192, seed=0)
    x_hat = model(x)
    encoder, decoder = model.encoder.W_in(torch.float32), model.encoder.W_out(torch.float32)
    other = torch.empty_like(x)
    seconds = medians(
        {
            "ours": lambda: model(x),
            "encode": lambda: model.encode(x),
            "dense": lambda: x @ encoder.T @ decoder.T,
            "copy": lambda: (x.clone(), x_hat.clone()),
            "copy into place": lambda: (other.copy_(x), other.copy_(x_hat)),
        },
        rounds=9,
    )
    ours = seconds["ours"]
    print(f"  ours {1e3 * ours:.1f} ms, of which encode {1e3 * seconds['encode']:.1f} ms")
    print(f"  dense products x @ W_in.T @ W_out.T / ours: {seconds['dense'] / ours:.1f}")
    print(f"  ours / copy of x and x_hat: {ours / seconds['copy']:.2f}")
    print(f"  ours / copy of x and x_hat into memory that is there: {ours / seconds['copy into place']:.2f}")
    # In batches, as data is streamed.
    for n in (6144, 5000, 999, 765):
        other_model = pr.Autoencoder(pr.Rug.of_ratio(n, 0.25), pr.ReLU()).tune(source)
        batch = source.sample(1024, n, seed=0)
        weights = other_model.encoder.W_in(torch.float32), other_model.encoder.W_out(torch.float32)
        times = medians(
            {"ours": lambda m=other_model, b=batch: m(b), "dense": lambda w=weights, b=batch: b @ w[0].T @ w[1].T},
            rounds=7,
        )
        print(f"  n_sparse {n}: dense products / ours {times['dense'] / times['ours']:.1f}")


def kernels() -> None:
    print("\nTransforms of 1024 rows of float32, ms, and a copy of the rows")
    for n in (512, 8192, 999, 5000, 6144, 8191):
        x = torch.rand(1024, n)
        functions = {"forward": lambda x=x: transforms.forward(x), "copy": lambda x=x: x.clone()}
        if transforms.is_power_of_two(n):
            functions["matrix products"] = lambda x=x: transforms._hadamard_products(x)
        seconds = medians(functions, rounds=7)
        print(f"  n {n}: " + ", ".join(f"{name} {1e3 * value:.2f}" for name, value in seconds.items()))


MEMORY = """
import pathlib, re, torch, persianrug as pr
source = pr.SparseUniform(0.01)
model = pr.Autoencoder(pr.Rug(2**20, 2**18), pr.ReLU()).tune(source)
x = source.sample(8, 2**20, seed=0)
error = float((model(x) - x).square().mean())
# Not getrusage: its peak counts the process that this one was forked from.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 2**20
print(f"  peak {peak:.2f} GiB, loss {error:.6g}, law {model.law(source):.6g}")
"""


def memory() -> None:
    print("\nn_sparse 2^20, ratio 0.25, 8 vectors, in a process of its own")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-c", MEMORY], check=True)


if __name__ == "__main__":
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    start = time.perf_counter()
    for benchmark in (laws, measurements, sampling, coding, kernels, memory):
        benchmark()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{time.perf_counter() - start:.0f} s, peak memory {peak:.1f} GiB")
