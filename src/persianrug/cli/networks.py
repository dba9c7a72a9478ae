"""The commands on networks: knots, train and symmetry."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import off_by, progress_bar
from persianrug.cli import options

# Of a search, in seconds.
_LONGEST = 86400.0


def knots(
    p: options.P,
    ratio: Annotated[float, typer.Option(help="n_dense / n_sparse, in (0, 1).")],
    budget: Annotated[str, typer.Option(help="Time to search for, as 60s or 5m.")] = "60s",
    seed: Annotated[int, typer.Option(help="Of the starts and samples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Save the best knot to this .json file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Search for small groups of features that share dimensions better than a rug does.

    Example: persianrug knots --p 0.045 --ratio 0.25 --budget 30s --out knot.json
    """
    from persianrug._support import checks
    from persianrug._support.files import check_writable, write_whole

    seconds = _seconds(budget)
    checks.rate("p", p)
    if checks.probability("ratio", ratio) == 1:
        raise ValueError("ratio is 1.0; allowed: a number in (0, 1)")
    if out is not None:
        check_writable(out)

    from persianrug import knots as known
    from persianrug.networks.knot_search import search
    from persianrug.sources import SparseUniform

    with progress_bar(1, "searching") as bar:
        shown = 0.0

        def progress(share: float) -> None:
            nonlocal shown
            bar(share - shown, 1)
            shown = share

        found = search(p, ratio, budget=seconds, seed=seed, progress=progress)
    recipe = found.recipe()
    if out is not None:
        write_whole(out, (json.dumps(recipe) + "\n").encode())
    if as_json:
        typer.echo(json.dumps(recipe, indent=2, allow_nan=False))
        return
    source = SparseUniform(p)
    others = [knot for knot in (known.pair(), known.best(source, ratio)) if knot.fits(ratio)]
    laws = [(knot.name, knot.law(source, knot.noise(source, ratio))) for knot in others]
    laws = [("single (the plain rug)", found.rug), *laws]
    console = make_console()
    console.print(f"uniform source, p = {p:g}, ratio = {ratio:g}: ReLU laws for infinitely many features\n")
    for name, loss in laws:
        console.print(f"  {name:<28} {loss:.6g}  ({loss / found.rug:.1%} of the rug)")
    console.print(
        f"\nbest: {found.knot.name}, {found.loss:.6g} ({found.loss / found.rug:.1%} of the rug), {found.how}"
    )
    console.print(f"{found.knot.features} features on {found.knot.channels} channels, M =")
    for line in found.knot.matrix:
        console.print("  " + " ".join(f"{value:8.4f}" for value in line))


def train(
    out: Annotated[Path, typer.Option(help="The network, a .safetensors file.")],
    n_sparse: Annotated[int, typer.Option(help="Number of features.")] = 512,
    ratio: options.Ratio = 0.25,
    p: options.P = 0.045,
    source: options.Source = "uniform",
    method: Annotated[
        str,
        typer.Option(
            help="sampled: on fresh batches; closure: on the law of Gaussian interference, no data.",
            autocompletion=options.completing(options.METHODS),
        ),
    ] = "sampled",
    paper: Annotated[bool, typer.Option("--paper", help="The paper's settings: 45000 steps of Adam.")] = False,
    activation: Annotated[
        str,
        typer.Option(
            help=f"{options.either(options.ACTIVATIONS)}.",
            autocompletion=options.completing(options.ACTIVATIONS),
        ),
    ] = "relu",
    tied: Annotated[bool, typer.Option("--tied", help="W_out is the transpose of W_in.")] = False,
    bias: Annotated[bool, typer.Option("--bias/--no-bias", help="A bias before the last activation.")] = True,
    hidden: Annotated[int, typer.Option(help="Hidden layers after the code.")] = 0,
    residual: Annotated[bool, typer.Option("--residual", help="Hidden layers add to their input.")] = False,
    importance: Annotated[float, typer.Option(help="Exponent a: errors are weighted by rank^(-a/2).")] = 0.0,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser.", show_default="2000")] = None,
    batch: Annotated[int | None, typer.Option(help="Vectors in a step.", show_default="1024")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's.", show_default="0.005, less above 512 features")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"{options.either(options.SCHEDULES)}.",
            show_default="cosine",
            autocompletion=options.completing(options.SCHEDULES),
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop on a plateau of so many steps.", show_default="never")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights and the samples.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train, as PyTorch names it.")] = "cpu",
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints, in OUT.checkpoint.")] = 500,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    as_json: options.Json = False,
) -> None:
    """Train a network by gradient descent, and compare it with the rug's law.

    Example: persianrug train --n-sparse 256 --ratio 0.25 --p 0.045 --out network.safetensors
    """
    from persianrug._support import checks
    from persianrug._support.files import check_writable

    if out.suffix.lower() != ".safetensors":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .safetensors")
    check_writable(out)
    checkpoint = out.with_name(out.name + ".checkpoint")
    if checkpoint.exists() and not resume:
        raise ValueError(f"checkpoint {checkpoint} exists; allowed: --resume to go on from it, or to remove it")
    checks.rate("p", p)
    given = {
        "steps": steps, "batch": batch, "learning_rate": learning_rate, "schedule": schedule, "patience": patience
    }  # fmt: skip
    if paper:
        options.refuse(
            {f"--{name.replace('_', '-')}": value for name, value in given.items()}, "--paper", "it has its own"
        )

    from persianrug._support.devices import known_device
    from persianrug.autoencoder import Autoencoder
    from persianrug.decoders import Linear, ReLU
    from persianrug.encoders import Rug
    from persianrug.networks.descent import train as run
    from persianrug.networks.training import Training
    from persianrug.sources import SOURCES

    kind: Any = SOURCES[checks.one_of("source", source, SOURCES)]
    features = kind(p)
    settings: dict[str, Any] = {
        "seed": seed, "method": method, "activation": activation, "tied": tied, "bias": bias, "hidden": hidden,
        "residual": residual, "importance": importance,
        **{name: value for name, value in given.items() if value is not None},
    }  # fmt: skip
    rug = Rug.of_ratio(n_sparse, ratio)
    if paper:
        training = replace(Training.paper(n_sparse, rug.n_dense, features), **settings)
    else:
        training = Training(n_sparse, rug.n_dense, features, **settings)
    place = known_device(device)
    decoder = Linear() if activation == "identity" or features.signed else ReLU()
    law = Autoencoder(rug, decoder).tune(features).law(features) * float(training.weights.mean())
    with progress_bar(training.steps, "training") as bar:
        before = 0

        def progress(step: int, _steps: int, loss: float) -> None:
            nonlocal before
            bar(step - before, 1, f"loss {loss:.5g}, law of the rug {law:.5g}")
            before = step

        result = run(
            training, device=place, checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress
        )
    result.network.save(out)
    checkpoint.unlink()
    report = {
        "loss": result.loss, "stderr": result.stderr, "law": law, "seconds": result.seconds, "steps": result.steps
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(f"{escape(str(out))}: {result.network}, {result.steps} steps in {result.seconds:.1f} s")
    off = off_by(result.loss, law)
    by = "" if off is None else f" ({off})"
    console.print(
        f"loss {result.loss:.5g} ± {result.stderr:.1g}; {decoder.name} law of a rug of this size {law:.5g}{by}"
    )


def symmetry(
    file: Annotated[Path, typer.Argument(help="A .safetensors or .npz file with W_in, W_out, bias; or a model.")],
    p: options.P = 0.045,
    source: options.Source = "uniform",
    seed: Annotated[int, typer.Option(help="Of the samples of interference.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Tell from the weights of a network whether it is a rug, knotted, or neither.

    Example: persianrug symmetry network.safetensors --p 0.045
    """
    from persianrug._support import checks

    checks.rate("p", p)

    from dataclasses import asdict

    from persianrug.networks.symmetry import measure_symmetry
    from persianrug.networks.weights import read_weights
    from persianrug.sources import SOURCES

    kind: Any = SOURCES[checks.one_of("source", source, SOURCES)]
    found = measure_symmetry(*read_weights(file), kind(p), seed=seed)
    statistics = asdict(found)
    partners = [[int(j) for j in row if j >= 0] for row in statistics.pop("partners")]
    if as_json:
        typer.echo(json.dumps({**statistics, "partners": partners}, allow_nan=False))
        return
    console = make_console()
    verdict = statistics.pop("verdict")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("statistic", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for name, value in statistics.items():
        table.add_row(name.replace("_", " "), f"{value:.5g}")
    console.print(f"{escape(str(file))}, {source} source, p = {p:g}")
    console.print(table)
    console.print(f"verdict: {escape(verdict)}")


def _seconds(time: str) -> float:
    """A time such as 60, 60s or 5m in seconds."""
    from persianrug._support import checks

    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (time[:-1], units[time[-1]]) if time[-1:] in units else (time, 1.0)
    try:
        seconds = checks.positive("budget", float(number) * unit)
    except ValueError:
        seconds = math.inf
    if seconds > _LONGEST:
        raise ValueError(f"budget is {time!r}; allowed: a time > 0, as 60s or 5m, up to 24h")
    return seconds
