"""Run every benchmark: `python -m benchmarks`."""

from __future__ import annotations

import functools
import itertools
import math
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import Lasso, OrthogonalMatchingPursuit  # type: ignore[import-untyped]

import persianrug as pr
from benchmarks.timing import medians
from persianrug import knots, sweeps
from persianrug.autoencoder import Measurement
from persianrug.decoders import DECODERS
from persianrug.encoders import transforms
from persianrug.encoders.energy import vector_energy
from persianrug.networks.descent import Descent, train
from persianrug.networks.training import Training

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


def off(law: float, result: Measurement, second_moment: float) -> str:
    """Law, measured, and how far that is off, with `!` where it is by more than 2% and 3 standard errors."""
    if max(law, result.loss) < 1e-9 * second_moment:
        return f"{law:.4g} {result.loss:.4g} exact"
    difference = result.loss - law
    share = difference / law if law else math.inf
    errors = difference / result.stderr if result.stderr else math.copysign(math.inf, difference)
    flag = " !" if abs(share) > 0.02 and abs(errors) > 3 else ""
    return f"{law:.4g} {result.loss:.4g} {share:+.2%} {errors:+.1f}{flag}"


def ladder() -> None:
    print("\nEvery decoder, n_sparse 8192: law, measured, off in percent and in standard errors; ! over 2% and 3")
    started = time.perf_counter()
    lines = flags = 0
    for kind in (
        pr.SparseUniform,
        pr.SparseExponential,
        pr.SparseHalfNormal,
        pr.SparseConstant,
        pr.SparseGaussian,
    ):
        for p in (0.01, 0.045, 0.1, 0.3):
            source = kind(p)
            rows = {
                torch.float32: source.sample(512, 8192, seed=0),
                torch.float64: source.sample(128, 8192, seed=0, dtype=torch.float64),
            }
            for ratio in (0.1, 0.25, 0.5):
                rug = pr.Rug.of_ratio(8192, ratio)
                found = []
                for name, decoder in DECODERS.items():
                    if decoder.one_sided and source.signed:
                        continue
                    if name == "soft" and not source.signed:
                        continue
                    model = pr.Autoencoder(rug, decoder()).tune(source)
                    dtype = torch.float64 if name == "oamp" else torch.float32
                    result = model.measure(rows[dtype], dtype=dtype)
                    found.append(f"{name} {off(model.law(source), result, float(source.second_moment))}")
                print(f"  {source.name} p {p} ratio {ratio}: " + " | ".join(found))
                lines += len(found)
                flags += sum(one.endswith("!") for one in found)
    print(f"  {flags} of {lines} flagged, {time.perf_counter() - started:.0f} s")


def oamp() -> None:
    print("\nOAMP, uniform, n_sparse 8192, p 0.045, ratio 0.25, float64, 128 vectors")
    source = pr.SparseUniform(0.045)
    rug = pr.Rug.of_ratio(8192, 0.25)
    model = pr.Autoencoder(rug, pr.OAMP()).tune(source)
    losses = model.trace(source, samples=128)
    measured, stderr = losses.mean(axis=1), losses.std(axis=1, ddof=1) / losses.shape[1] ** 0.5
    predicted = pr.OAMP(source).state_evolution(source, rug).trace
    finite = pr.OAMP(source).state_evolution(source, rug, spread=vector_energy(source, 8192)).trace
    print("  iteration: measured and its standard error; state evolution in the limit, off; at this n_sparse, off")
    for number, loss in enumerate(measured):
        laws = [
            f"{law[number]:.5g}  {loss / law[number] - 1:+.2%}" if number < len(law) else "-"
            for law in (predicted, finite)
        ]
        print(f"  {number + 1:3}: {loss:.5g} ({stderr[number] / loss:.1%}); {laws[0]}; {laws[1]}")
    below = {
        "state evolution": predicted[:, None] < 1e-10,
        "mean of the vectors": losses.mean(axis=1, keepdims=True) < 1e-10,
        "every vector": (losses < 1e-10).all(axis=1, keepdims=True),
    }
    print(
        "  iterations to a loss < 1e-10: "
        + ", ".join(f"{name} {1 + int(done.argmax()) if done.any() else 'never'}" for name, done in below.items())
    )
    for dtype in (torch.float32, torch.float64):
        result = model.measure(source, samples=512, dtype=dtype)
        print(f"  loss in the end, {dtype}, 512 vectors: {result.loss:.3g}")

    print("  Share of 512 vectors with an error below 1e-6, n_sparse 8192, at 1.15 times the threshold")
    for p in (0.01, 0.045, 0.1, 0.3):
        source = pr.SparseUniform(p)
        threshold = pr.recovery_threshold(source)
        model = pr.Autoencoder(pr.Rug.of_ratio(8192, 1.15 * threshold), pr.OAMP()).tune(source)
        x = source.sample(512, 8192, seed=0, dtype=torch.float64)
        errors = (model(x) - x).square().mean(dim=1)
        print(
            f"    p {p:5}  threshold {threshold:.4f}  ratio {1.15 * threshold:.4f}  "
            f"recovered {float((errors < 1e-6).double().mean()):.4f}  worst {float(errors.max()):.2g}  "
            f"law {model.law(source):.3g}  measured {float(errors.mean()):.3g}"
        )

    source = pr.SparseUniform(0.045)
    for n in (512, 999):
        model = pr.Autoencoder(pr.Rug.of_ratio(n, 0.25), pr.OAMP()).tune(source)
        x = source.sample(4096, n, seed=0, dtype=torch.float64)
        errors = (model(x) - x).square().mean(dim=1)
        print(
            f"  n_sparse {n}, ratio 0.25, 4096 vectors: recovered {float((errors < 1e-6).double().mean()):.4f}, "
            f"loss {float(errors.mean()):.3g}, law {model.law(source):.3g}, limit {model.limit(source):.3g}"
        )

    print("  Channels, p 0.045, ratio 0.25, 256 vectors: law, measured, off in percent and in standard errors")
    channels = {
        "8 bits": pr.Channel(bits=8),
        "20% erased": pr.Channel(erasures=0.2),
        "8 bits, 20% erased": pr.Channel(bits=8, erasures=0.2),
        "noise 0.003": pr.Channel(noise=0.003),
        "noise 0.01": pr.Channel(noise=0.01),
        "noise 0.03": pr.Channel(noise=0.03),
    }
    kinds = (pr.OAMP, pr.Bayes, pr.ReLU, pr.Linear)
    for title, channel in channels.items():
        found = []
        for kind in kinds:
            model = pr.Autoencoder(rug, kind(), channel=channel).tune(source)
            result = model.measure(source, samples=256, dtype=torch.float64)
            found.append(f"{kind.name} {off(model.law(source), result, float(source.second_moment))}")
        print(f"    {title}: " + " | ".join(found))


def recovery_speed() -> None:
    print("\nRecovery, n_sparse 4096, ratio 0.25, p 0.045: ours in float32, scikit-learn's with the dense W_in")
    source = pr.SparseUniform(0.045)
    rug = pr.Rug.of_ratio(4096, 0.25)
    models = {kind.name: pr.Autoencoder(rug, kind()).tune(source) for kind in (pr.OAMP, pr.ReLU)}
    x = source.sample(256, 4096, seed=0)
    z = rug.encode(x)
    seconds = medians(
        {
            "oamp": lambda: models["oamp"].decode(z[0]),
            "relu": lambda: models["relu"].decode(z[0]),
        },
        rounds=51,
    )
    batch = medians({"oamp": lambda: models["oamp"].decode(z)}, rounds=5)["oamp"] / len(x)
    error = float((models["oamp"].decode(z[0]) - x[0]).square().mean())
    print(
        f"  OAMP {1e3 * batch:.2f} ms a vector in batches of 256; one vector {1e3 * seconds['oamp']:.2f} ms, "
        f"error {error:.2g}; ReLU, one vector, {1e3 * seconds['relu']:.3f} ms"
    )
    truth = x[0].double().numpy()
    weights = rug.W_in(torch.float64).numpy()
    code = weights @ truth
    # Matching pursuit is told how many features are active.
    solvers = {
        "OrthogonalMatchingPursuit": OrthogonalMatchingPursuit(
            n_nonzero_coefs=np.count_nonzero(truth), fit_intercept=False
        ),
        **{
            f"Lasso, alpha {alpha:g}": Lasso(alpha=alpha, positive=True, max_iter=2000, fit_intercept=False)
            for alpha in (1e-4, 1e-6)
        },
    }
    for name, solver in solvers.items():
        spent = medians({name: functools.partial(solver.fit, weights, code)}, rounds=3)[name]
        found = float(np.mean((solver.coef_ - truth) ** 2))
        print(
            f"  {name}: {1e3 * spent:.0f} ms, error {found:.2g}; "
            f"over OAMP, one vector {spent / seconds['oamp']:.0f}, in batches {spent / batch:.0f}"
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

        def dense(
            batch: torch.Tensor = batch, weights: tuple[torch.Tensor, torch.Tensor] = weights
        ) -> torch.Tensor:
            return batch @ weights[0].T @ weights[1].T

        times = medians({"ours": functools.partial(other_model, batch), "dense": dense}, rounds=7)
        print(f"  n_sparse {n}: dense products / ours {times['dense'] / times['ours']:.1f}")


def training() -> None:
    print("\nTraining at n_sparse 512, ratio 0.25, p 0.045: a step of batch 1024 against a plain PyTorch loop")
    source = pr.SparseUniform(0.045)
    run = Descent([Training.of_ratio(512, 0.25, source, steps=10**6)], torch.device("cpu"), torch.float32)
    net = torch.nn.Sequential(
        torch.nn.Linear(512, 128, bias=False), torch.nn.Linear(128, 512), torch.nn.ReLU()
    )  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), 1e-3)

    def plain() -> None:
        x = torch.rand(1024, 512) * (torch.rand(1024, 512) < source.p)
        loss = (net(x) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    times = medians({"ours": run.advance, "plain": plain}, rounds=21)
    print(
        f"  ours {1e3 * times['ours']:.1f} ms, plain {1e3 * times['plain']:.1f} ms: "
        f"plain / ours {times['plain'] / times['ours']:.2f}"
    )
    print("  32 models of n_sparse 64 in one batch against one after another, by vectors in a step")
    for batch in (64, 256, 1024):
        plans = [Training.of_ratio(64, 0.25, source, seed=k, batch=batch, steps=10**6) for k in range(32)]
        many = Descent(plans, torch.device("cpu"), torch.float32)
        ones = [Descent([plan], torch.device("cpu"), torch.float32) for plan in plans]

        def each(ones: list[Descent] = ones) -> None:
            for one in ones:
                one.advance()

        times = medians({"many": many.advance, "each": each}, rounds=7)
        print(f"    {batch:5}: {times['each'] / times['many']:.1f} times faster")
    rug = pr.Autoencoder(pr.Rug.of_ratio(512, 0.25), pr.ReLU()).tune(source)
    for name, steps in (("closure", 600), ("closure", 2000), ("sampled", 2000)):
        result = train(Training.of_ratio(512, 0.25, source, method=name, steps=steps))
        law = result.network.autoencoder(source).limit(source)
        print(
            f"  {name}, {steps} steps: {result.seconds:.1f} s, measured {result.loss:.5f} +- {result.stderr:.5f}, "
            f"its closure {law:.7f} ({law / rug.limit(source) - 1:+.3%} of the rug law)"
        )


def woven() -> None:
    print("\nKnots woven to n_sparse 8192: law of the knot, predicted, measured")
    for p, ratio in ((0.045, 0.25), (0.01, 0.25), (0.1, 0.25), (0.3, 0.5), (0.045, 0.5)):
        source = pr.SparseUniform(p)
        for knot in (knots.pair(), knots.best(source, ratio)):
            model = pr.Autoencoder(pr.KnottedRug.weave(knot, 8192, round(ratio * 8192)), pr.ReLU()).tune(source)
            law, predicted = knot.law(source, knot.noise(source, ratio)), model.law(source)
            result = model.measure(source)
            compared = off(predicted, result, source.second_moment)
            print(f"  p {p:5} ratio {ratio:4} {knot.name:24} {law:.6g}; {compared}")


def sweeping() -> None:
    runs = 1000
    print(f"\nA store of {runs} runs that do nothing, beside a bare sqlite3 that commits twice a run")
    grid = sweeps.Sweep(p=tuple(np.arange(1, runs + 1) / (runs + 1)), ratio=(0.5,), name="nothing")
    perform, sweeps.perform = (
        sweeps.perform,
        lambda batch: [({"measured": 0.0, "seconds": 0.0}, None) for _ in batch],
    )
    folder = tempfile.TemporaryDirectory()
    count = itertools.count()

    def stored() -> None:
        sweeps.run_sweep(grid, f"{folder.name}/{next(count)}.sqlite")

    def bare() -> None:
        connection = sqlite3.connect(f"{folder.name}/{next(count)}.sqlite", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, state TEXT, result TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?, 'pending', NULL)", [(k,) for k in range(runs)])
        for _ in range(runs):
            found = connection.execute("SELECT id FROM runs WHERE state = 'pending' LIMIT 1").fetchone()
            connection.execute("UPDATE runs SET state = 'claimed' WHERE id = ?", found)
            connection.execute("UPDATE runs SET state = 'done', result = '{}' WHERE id = ?", found)
        connection.close()

    seconds = medians({"store": stored, "bare": bare}, rounds=3)
    sweeps.perform = perform
    folder.cleanup()
    print(
        f"  {seconds['store']:.2f} s, {1e3 * seconds['store'] / runs:.2f} ms a run; "
        f"bare {seconds['bare']:.2f} s ({seconds['store'] / seconds['bare']:.1f} times)"
    )


def kernels() -> None:
    print("\nTransforms of 1024 rows of float32, ms, and a copy of the rows")
    for n in (512, 8192, 999, 5000, 6144, 8191):
        x = torch.rand(1024, n)
        functions: dict[str, Callable[[], object]] = {
            "forward": functools.partial(transforms.forward, x),
            "copy": x.clone,
        }
        if transforms.is_power_of_two(n):
            functions["matrix products"] = functools.partial(transforms._hadamard_products, x)
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
    for benchmark in (
        laws, measurements, ladder, oamp, woven, recovery_speed, training, sampling, coding, sweeping,
        kernels, memory,
    ):  # fmt: skip
        benchmark()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{time.perf_counter() - start:.0f} s, peak memory {peak:.1f} GiB")
