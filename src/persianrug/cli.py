"""The command line: parse, call, print."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.exceptions import TyperException

from persianrug import cli_sketch
from persianrug._terminal import console as make_console
from persianrug._terminal import progress_bar
from persianrug.cli_sweep import app as sweeps
from persianrug.cli_sweep import reproduce

if TYPE_CHECKING:
    from persianrug.autoencoder import Autoencoder
    from persianrug.channel import Channel
    from persianrug.decoders import Decoder
    from persianrug.encoders import Encoder, Rug
    from persianrug.sources import Source

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Sparse data through a narrow linear bottleneck: the loss predicted, built without training, and "
    "measured.",
)

app.add_typer(sweeps, name="sweep")
app.command()(reproduce)
for command in (cli_sketch.fit, cli_sketch.plan, cli_sketch.compress, cli_sketch.decompress, cli_sketch.inspect,
                cli_sketch.verify):  # fmt: skip
    app.command()(command)

# Vectors that an iterative decoder is measured on by default.
_ITERATED = 512
# Parameters of decoders that are reported, where they are numbers.
_PARAMETERS = ("gain", "bias", "threshold")
# The row of the ReLU on the best knot known, beside those of the decoders of the plain rug.
_KNOT = "knot"
# A law that fails by more says nothing.
_OFF = 100.0

# Of a search, in seconds.
_LONGEST = 86400.0

_INTERRUPTED = 128 + signal.SIGINT

# Modules that need PyTorch are imported where they are used, so that help and usage errors come at once.


def _version(asked: bool) -> None:
    if asked:
        from persianrug import __version__

        typer.echo(f"persianrug {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def solve(
    ratio: Annotated[float, typer.Option(help="n_dense / n_sparse, in (0, 1].")],
    p: Annotated[float | None, typer.Option(help="Probability that a feature is active, in (0, 1].")] = None,
    n_sparse: Annotated[int | None, typer.Option(help="Number of features. [default: 8192]")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Distribution of active features: uniform, exponential, half-normal, truncated-normal, gaussian "
            "or constant. [default: uniform]"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows from a .npy or SciPy sparse .npz file instead of --p, --source and --n-sparse: the "
            "source is fitted on one half, losses are measured on the other."
        ),
    ] = None,
    decoders: Annotated[
        str | None, typer.Option(help="Which decoders, separated by commas. [default: all that fit the source]")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure every loss beside its law.")] = False,
    samples: Annotated[
        int | None,
        typer.Option(help="Vectors to measure on. [default: 4096 at 8192 features, as many entries at others]"),
    ] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation of Gaussian noise on the code.")] = 0.0,
    bits: Annotated[int | None, typer.Option(help="Round the code to so many bits an entry, 1 to 16.")] = None,
    erasures: Annotated[float, typer.Option(help="Share of the code's entries that go missing, in [0, 1).")] = 0.0,
    zipf: Annotated[
        float | None,
        typer.Option(help="Features that fire at rates like 1 / rank^ZIPF, of which --p is the mean."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the rug, the samples, and the halves of the data.")] = 0,
    device: Annotated[str, typer.Option(help="Where to measure, as PyTorch names it.")] = "cpu",
    save: Annotated[Path | None, typer.Option(help="Save the ReLU autoencoder to this .safetensors file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Predict the loss of every decoder on sparse data, and measure it."""
    from persianrug import _checks
    from persianrug.files import check_writable

    _checks.probability("ratio", ratio)
    _checks.integer("seed", seed, 0, 2**63 - 1)
    if save is not None:
        check_writable(save)
    if data is None:
        if p is None:
            raise ValueError("--p is missing; allowed: a number in (0, 1], or --data FILE")
        _checks.probability("p", p)
        n_sparse = _checks.integer("n_sparse", 8192 if n_sparse is None else n_sparse, 2)
    else:
        options = {"--p": p, "--source": source, "--n-sparse": n_sparse, "--samples": samples, "--zipf": zipf}
        _refuse(options, "--data", "the data has its own")
    if samples is not None:
        _checks.integer("samples", samples, 2, _checks.MOST_SAMPLES)

    import numpy as np

    from persianrug.channel import Channel

    channel = Channel(noise, bits, erasures)

    from persianrug.encoders import Rug
    from persianrug.sources import SOURCES, zipf_rates

    features: Source
    held_out = alike = None
    if p is not None:
        kind = SOURCES[_checks.one_of("source", source or "uniform", SOURCES)]
        features = kind(p if zipf is None else zipf_rates(cast(int, n_sparse), p, zipf))
    else:
        alike, features, held_out = _fit_half(cast(Path, data), seed)
        n_sparse = held_out.shape[1]
    rug = Rug.of_ratio(cast(int, n_sparse), ratio, seed)
    channel.kept(rug.n_dense)
    place = _device(device)
    kinds = _decoders(decoders, features, on_data=data is not None)
    if save is not None and "relu" not in kinds:
        raise ValueError(f"--save is {save}, which saves the relu; allowed with it: decoders with relu among them")
    solver = _Solver(rug, channel, ratio, held_out, samples, seed, place if measure else None)
    rows: dict[str, dict[str, Any]] = {}
    with progress_bar(len(kinds) * (2 if alike else 1), "solving") as bar:
        for name, kind_of in kinds.items():
            # Of data, features taken as alike come first, then each by its own law.
            own = solver.knotted(features) if name == _KNOT else solver
            rows[name] = own.solve(kind_of(), alike or features, bar)
            if alike:
                fits = name != "topk"
                rows[name]["per_feature"] = solver.solve(kind_of(), features, bar) if fits else None
            if save is not None and name == "relu":
                solver.tuned(kind_of(), features).save(save)
    if as_json:
        described = alike or features
        report: dict[str, Any] = {
            "source": {
                "name": described.name,
                "p": float(np.mean(described.p)),
                "mean": float(np.mean(described.mean)),
                "variance": float(np.mean(described.variance)),
            },
            "ratio": ratio,
            "n_sparse": n_sparse,
            "n_dense": rug.n_dense,
            "seed": seed,
            "channel": {"noise": noise, "bits": bits, "erasures": erasures},
            "decoders": {name: _without(row, "formula") for name, row in rows.items()},
        }
        if zipf is not None:
            report["source"]["zipf"] = zipf
        if alike:
            report["per_feature_source"] = features.name
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print_table(solver, alike or features, rows, zipf, data)


@app.command()
def weave(
    out: Annotated[Path, typer.Option(help="The picture, a .png file.")],
    n_sparse: Annotated[int | None, typer.Option(help="Number of features. [default: 512]")] = None,
    ratio: Annotated[float | None, typer.Option(help="n_dense / n_sparse, in (0, 1]. [default: 0.25]")] = None,
    seed: Annotated[int | None, typer.Option(help="Which rows of the transform. [default: 0]")] = None,
    signs: Annotated[bool, typer.Option("--signs", help="Flip signs at random, which hides the pattern.")] = False,
    model: Annotated[Path | None, typer.Option(help="Draw the encoder of this saved autoencoder instead.")] = None,
    pixels: Annotated[
        int | None, typer.Option(help="Side of an entry in pixels. [default: for 1024 pixels or more]")
    ] = None,
) -> None:
    """Draw the rug's W as a picture."""
    from persianrug import _checks
    from persianrug.files import check_writable, write_whole

    _check_picture(out)
    check_writable(out)
    if pixels is not None:
        _checks.integer("pixels", pixels, 1)
    if model is not None:
        options = {"--n-sparse": n_sparse, "--ratio": ratio, "--seed": seed, "--signs": signs or None}
        _refuse(options, "--model", "the model has its own")
    ratio = _checks.probability("ratio", 0.25 if ratio is None else ratio)

    from persianrug.autoencoder import load
    from persianrug.encoders import Rug
    from persianrug.figures.weave import MOST_FEATURES
    from persianrug.figures.weave import weave as draw

    encoder: Encoder
    if model is not None:
        encoder = load(model).encoder
    else:
        n_sparse = _checks.integer("n_sparse", 512 if n_sparse is None else n_sparse, 2, MOST_FEATURES)
        encoder = Rug.of_ratio(n_sparse, ratio, 0 if seed is None else seed, signs)
    picture = draw(encoder, -(-1024 // encoder.n_sparse) if pixels is None else pixels)
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    write_whole(out, content.getvalue())
    typer.echo(f"{out}: W of {encoder}, {picture.width} x {picture.height} pixels")


@app.command()
def phase(
    out: Annotated[Path, typer.Option(help="The picture, a .png file.")],
    p: Annotated[float, typer.Option(help="Where to cut the plane, in [0.002, 0.95].")] = 0.045,
    source: Annotated[str, typer.Option(help="Distribution of active features, as in solve.")] = "uniform",
) -> None:
    """Draw the plane of (p, ratio): what the best decoder loses, and from where it loses nothing."""
    from persianrug import _checks
    from persianrug.files import check_writable, write_whole

    _check_picture(out)
    check_writable(out)
    if not 0.002 <= _checks.finite("p", p) <= 0.95:
        raise ValueError(f"p is {p}; allowed: a number from 0.002 to 0.95")

    from persianrug.figures.phase import phase as draw
    from persianrug.sources import SOURCES

    kind = SOURCES[_checks.one_of("source", source, SOURCES)]
    with progress_bar(1, "drawing") as bar:
        figure = draw(kind, p, bar)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_whole(out, content.getvalue())
    typer.echo(f"{out}: the plane of (p, ratio), {source} source, cut at p = {p:g}")


@app.command()
def knots(
    p: Annotated[float, typer.Option(help="Probability that a feature is active, in (0, 1].")],
    ratio: Annotated[float, typer.Option(help="n_dense / n_sparse, in (0, 1).")],
    budget: Annotated[str, typer.Option(help="Time to search for, as 60s or 5m.")] = "60s",
    seed: Annotated[int, typer.Option(help="Of the starts and samples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Save the best knot to this .json file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Search for small groups of features that share dimensions better than a rug does."""
    from persianrug import _checks
    from persianrug.files import check_writable, write_whole

    seconds = _seconds(budget)
    _checks.probability("p", p)
    if _checks.probability("ratio", ratio) == 1:
        raise ValueError("ratio is 1.0; allowed: a number in (0, 1)")
    if out is not None:
        check_writable(out)

    from persianrug import knots as known
    from persianrug.knot_search import search
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


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="The network, a .safetensors file.")],
    n_sparse: Annotated[int, typer.Option(help="Number of features.")] = 512,
    ratio: Annotated[float, typer.Option(help="n_dense / n_sparse, in (0, 1].")] = 0.25,
    p: Annotated[float, typer.Option(help="Probability that a feature is active, in (0, 1].")] = 0.045,
    source: Annotated[str, typer.Option(help="Distribution of active features, as in solve.")] = "uniform",
    method: Annotated[
        str, typer.Option(help="sampled: on fresh batches; closure: on the law of Gaussian interference, no data.")
    ] = "sampled",
    paper: Annotated[bool, typer.Option("--paper", help="The paper's settings: 45000 steps of Adam.")] = False,
    activation: Annotated[str, typer.Option(help="identity, relu, leaky_relu, gelu or tanh.")] = "relu",
    tied: Annotated[bool, typer.Option("--tied", help="W_out is the transpose of W_in.")] = False,
    bias: Annotated[bool, typer.Option("--bias/--no-bias", help="A bias before the last activation.")] = True,
    hidden: Annotated[int, typer.Option(help="Hidden layers after the code.")] = 0,
    residual: Annotated[bool, typer.Option("--residual", help="Hidden layers add to their input.")] = False,
    importance: Annotated[float, typer.Option(help="Exponent a: errors are weighted by rank^(-a/2).")] = 0.0,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser. [default: 2000]")] = None,
    batch: Annotated[int | None, typer.Option(help="Vectors in a step. [default: 1024]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's. [default: 0.005, less above 512 features]")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or constant. [default: cosine]")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop on a plateau of so many steps.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights and the samples.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train, as PyTorch names it.")] = "cpu",
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints, in OUT.checkpoint.")] = 500,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Train a network by gradient descent, and compare it with the rug's law."""
    from persianrug import _checks
    from persianrug.files import check_writable

    if out.suffix.lower() != ".safetensors":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .safetensors")
    check_writable(out)
    checkpoint = out.with_name(out.name + ".checkpoint")
    if checkpoint.exists() and not resume:
        raise ValueError(f"checkpoint {checkpoint} exists; allowed: --resume to go on from it, or to remove it")
    _checks.probability("p", p)
    given = {
        "steps": steps, "batch": batch, "learning_rate": learning_rate, "schedule": schedule, "patience": patience
    }  # fmt: skip
    if paper:
        _refuse(
            {f"--{name.replace('_', '-')}": value for name, value in given.items()}, "--paper", "it has its own"
        )

    from persianrug.autoencoder import Autoencoder
    from persianrug.decoders import Linear, ReLU
    from persianrug.encoders import Rug
    from persianrug.sources import SOURCES
    from persianrug.training import Training
    from persianrug.training import train as run

    kind: Any = SOURCES[_checks.one_of("source", source, SOURCES)]
    features = kind(p)
    options: dict[str, Any] = {
        "seed": seed, "method": method, "activation": activation, "tied": tied, "bias": bias, "hidden": hidden,
        "residual": residual, "importance": importance,
        **{name: value for name, value in given.items() if value is not None},
    }  # fmt: skip
    rug = Rug.of_ratio(n_sparse, ratio)
    if paper:
        training = replace(Training.paper(n_sparse, rug.n_dense, features), **options)
    else:
        training = Training(n_sparse, rug.n_dense, features, **options)
    place = _device(device)
    decoder = Linear() if activation == "identity" or features.signed else ReLU()
    law = Autoencoder(rug, decoder).tune(features).law(features) * float(training.weights.mean())
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    # What is raised while a destructor runs is lost; then `progress` raises it again.
    signal.signal(signal.SIGINT, interrupt)
    with progress_bar(training.steps, "training") as bar:
        before = 0

        def progress(step: int, _steps: int, loss: float) -> None:
            nonlocal before
            if interrupted:
                raise KeyboardInterrupt
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
    off = f" ({result.loss / law - 1:+.1%})" if law > 0 else ""
    console.print(
        f"loss {result.loss:.5g} ± {result.stderr:.1g}; {decoder.name} law of a rug of this size {law:.5g}{off}"
    )


@app.command()
def symmetry(
    file: Annotated[Path, typer.Argument(help="A .safetensors or .npz file with W_in, W_out, bias; or a model.")],
    p: Annotated[float, typer.Option(help="Probability that a feature is active, in (0, 1].")] = 0.045,
    source: Annotated[str, typer.Option(help="Distribution of active features, as in solve.")] = "uniform",
    seed: Annotated[int, typer.Option(help="Of the samples of interference.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell from the weights of a network whether it is a rug, knotted, or neither."""
    from persianrug import _checks

    _checks.probability("p", p)

    from dataclasses import asdict

    from persianrug.sources import SOURCES
    from persianrug.symmetry import measure_symmetry, read_weights

    kind: Any = SOURCES[_checks.one_of("source", source, SOURCES)]
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
    from persianrug import _checks

    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (time[:-1], units[time[-1]]) if time[-1:] in units else (time, 1.0)
    try:
        seconds = _checks.positive("budget", float(number) * unit)
    except ValueError:
        seconds = math.inf
    if seconds > _LONGEST:
        raise ValueError(f"budget is {time!r}; allowed: a time > 0, as 60s or 5m, up to 24h")
    return seconds


def _check_picture(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out is {path}; allowed: a file that ends in .png")


@dataclass
class _Solver:
    """What the decoders of one table have in common."""

    rug: Rug
    channel: Channel
    ratio: float
    rows: Any
    samples: int | None
    seed: int
    device: str | None

    def tuned(self, decoder: Decoder, source: Source) -> Autoencoder:
        from persianrug.autoencoder import Autoencoder

        return Autoencoder(self.rug, decoder, channel=self.channel).tune(source)

    def knotted(self, source: Source) -> _Solver:
        """The same on a rug that is woven of the best knot known for it."""
        from persianrug import knots
        from persianrug.encoders import Rug

        # At the ratio asked for: a knot that fits it may not fit that of so many features, and fillers do.
        knot = knots.best(source, self.ratio, self.channel)
        rug = Rug(self.rug.n_sparse, self.rug.n_dense, self.seed, knot=knot)
        return replace(self, rug=rug)

    def solve(self, decoder: Decoder, source: Source, progress: Any) -> dict[str, Any]:
        """Limit, law and measurement of a decoder tuned to the source, as a JSON object."""
        import numpy as np
        import torch

        from persianrug.decoders import OAMP, TopK, recovery_threshold
        from persianrug.encoders import Rug
        from persianrug.weaves import KnottedRug

        model = self.tuned(decoder, source)
        best: Decoder = model.decoder
        encoder: Encoder = self.rug
        knots = self.rug.knots if isinstance(self.rug, KnottedRug) else None
        if source.n_sparse is None and knots is None:
            # The limit is that of the ratio asked for; the model has the nearest that its size allows.
            encoder = Rug.of_ratio(1 << 30, self.ratio)
            best = decoder.adapt(source, encoder, model.channel)
        evolution = None
        if isinstance(model.decoder, OAMP):
            evolution = model.decoder.state_evolution(source, self.rug, model.channel)
        if evolution is not None and source.n_sparse is not None:
            # Here the law is the limit, and takes its time.
            limit = predicted = float(evolution.losses.mean())
        else:
            limit, predicted = float(best.limit(source, encoder, model.channel).mean()), model.law(source)
        row: dict[str, Any] = {
            "limit": limit,
            "predicted": predicted,
            "measured": None,
            "stderr": None,
            "microseconds_per_vector": None,
        }
        parameters = {key: value for key, value in model.decoder.recipe().items() if key in _PARAMETERS}
        row |= {key: value for key, value in parameters.items() if not isinstance(value, np.ndarray)}
        if knots:
            row["knot"] = knots[0][0].name
        if isinstance(model.decoder, TopK):
            row["k"] = model.decoder.k
        iterative = evolution is not None
        if evolution is not None:
            row |= {
                "iterations": len(evolution.trace),
                "recovery_threshold": recovery_threshold(source),
                "recovers": evolution.recovers,
                "predicted_trace": evolution.trace.tolist(),
                "measured_trace": None,
            }
        row["formula"] = model.decoder.formula() + (f" on {self.rug}" if knots else "")
        if self.device is None:
            progress(1, 1)
            return row
        # Data may have an offset that leaves float32 no digits for what varies; and what is recovered has none.
        wide = self.rows is not None or iterative
        data = source if self.rows is None else self.rows
        samples = self.samples
        if samples is None and iterative and self.rows is None:
            # Each costs as much as some dozen elsewhere.
            samples = _ITERATED
        dtype = torch.float64 if wide else torch.float32
        result = model.measure(
            data, samples=samples, seed=self.seed, device=self.device, dtype=dtype, progress=progress
        )
        row |= {
            "measured": result.loss,
            "stderr": result.stderr,
            "samples": result.samples,
            "microseconds_per_vector": result.microseconds_per_vector,
        }
        if iterative:
            losses = model.trace(data, samples=min(result.samples, 64), seed=self.seed, device=self.device)
            row["measured_trace"] = losses.mean(axis=1).tolist()
            row["recovered"] = result.recovered
        return row


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    """A JSON object without a key, also in the objects in it."""
    return {
        name: _without(value, key) if isinstance(value, dict) else value
        for name, value in row.items()
        if name != key
    }


def _decoders(names: str | None, source: Source, on_data: bool) -> dict[str, type[Decoder]]:
    """The decoders asked for, or all of use to the source."""
    from persianrug import _checks
    from persianrug.decoders import DECODERS, ReLU

    kinds: dict[str, type[Decoder]] = {**DECODERS, _KNOT: ReLU}
    # Last comes what leaves the single feature behind.
    kinds["oamp"] = kinds.pop("oamp")
    knottable = source.n_sparse is None and not source.signed and not on_data
    if names is not None:
        chosen = {name: kinds[_checks.one_of("decoder", name, kinds)] for name in names.split(",")}
        if _KNOT in chosen and not knottable:
            raise ValueError("decoder is 'knot'; allowed with it: --p, and features that are alike and >= 0")
        return chosen
    # A soft threshold is for what has two sides, as one that cuts them off is for what has one.
    left_out = {name for name, kind in kinds.items() if kind.one_sided} if source.signed else {"soft"}
    left_out |= set() if knottable else {_KNOT}
    if source.n_sparse is not None and not on_data:
        # It has no law there; of data it has one for features taken as alike.
        left_out.add("topk")
    return {name: kind for name, kind in kinds.items() if name not in left_out}


def _refuse(options: dict[str, Any], beside: str, why: str) -> None:
    """Refuse options that were given and have no meaning beside another."""
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option} is {value}; allowed with {beside}: no {option}, {why}")


def _fit_half(path: Path, seed: int) -> tuple[Source, Source, Any]:
    """Sources fitted on a random half of a file's rows, of all features alike and of each, and the other half."""
    import numpy as np

    from persianrug.files import read_rows
    from persianrug.sources import Empirical, SparseGaussian, SparseTruncatedNormal

    rows = read_rows(path)
    order = np.random.default_rng(seed).permutation(rows.shape[0])
    half = rows.shape[0] // 2
    fitted = rows[order[:half]]
    alike = Empirical.fit(fitted)
    kind: Any = SparseGaussian if alike.signed else SparseTruncatedNormal
    return alike, kind.fit(fitted), rows[order[half:]]


def _device(name: str) -> str:
    import torch

    try:
        # Others may exist, but nothing here was ever run on them.
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"device is {name!r}; allowed here: {', '.join(available)}") from None
    return name


def _print_table(
    solver: _Solver,
    source: Source,
    rows: dict[str, dict[str, Any]],
    zipf: float | None,
    data: Path | None,
) -> None:
    import numpy as np

    console = make_console()
    measured = solver.device is not None
    first = next(iter(rows.values()))
    at = f"ratio = {solver.ratio:g}, {solver.rug}"
    if data is None:
        law = f"p = {np.mean(source.p):g}" + (
            f" on average, rates like rank^-{zipf:g}" if zipf is not None else ""
        )
        on = f", measured on {first['samples']} samples" if measured else ""
        console.print(f"{source.name} source, {law}, {at}{on}")
    else:
        console.print(
            f"{escape(str(data))}: p = {source.p:.4f}, mean = {source.mean:.4f}, variance = {source.variance:.4f}"
        )
        on = f", measured on {solver.rows.shape[0]} rows that were not fitted" if measured else ""
        console.print(f"{at}{on}")
    channel = solver.channel
    if not channel.clear:
        parts = [
            f"noise {channel.noise:g}" if channel.noise else "",
            f"{channel.bits} bits" if channel.bits else "",
            f"{channel.erasures:.0%} erased" if channel.erasures else "",
        ]
        console.print(f"code: {', '.join(part for part in parts if part)}")
    if data is None:
        _print_losses(console, rows, measured)
    else:
        console.print("\nAll features taken to be alike:")
        _print_losses(console, rows, measured)
        console.print("Each feature by its own law:")
        _print_losses(
            console, {name: row["per_feature"] for name, row in rows.items() if row["per_feature"]}, measured
        )
    for name, row in rows.items():
        if data is None:
            console.print(f"{name}: x_hat = {escape(row['formula'])}")
        own = row.get("per_feature") or row
        if "recovery_threshold" in own:
            console.print(f"{name}: {_recovery(own, solver)}")
    if data is not None and measured:
        console.print("The laws take features to be independent; 'off by' shows what that costs here.")


def _print_losses(console: Console, rows: dict[str, dict[str, Any]], measured: bool) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("decoder", no_wrap=True)
    headings = ["limit", "predicted"]
    if measured:
        headings += ["measured", "± stderr", "off by", "µs/vector"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        cells = [f"{row['limit']:.5g}", f"{row['predicted']:.5g}"]
        if measured:
            # Where nothing is lost but rounding errors, their ratio says nothing.
            exact = row.get("recovers") and row.get("recovered") == 1
            off = row["measured"] / row["predicted"] - 1 if row["predicted"] and not exact else None
            cells += [
                f"{row['measured']:.5g}",
                f"{row['stderr']:.1g}",
                "exact" if exact else "-" if off is None or off > _OFF else f"{off:+.2%}",
                f"{row['microseconds_per_vector']:.1f}",
            ]
        table.add_row(name, *cells)
    console.print(table)


def _recovery(row: dict[str, Any], solver: _Solver) -> str:
    """Whether OAMP recovers, predicted and measured, as a sentence."""
    ratio = solver.channel.kept(solver.rug.n_dense) / solver.rug.n_sparse
    threshold = f"the threshold {row['recovery_threshold']:.3g}"
    if row["recovers"]:
        steps = row["iterations"]
        said = f"exact recovery after {steps} iterations, as the ratio {ratio:.3g} is above {threshold}"
        if "recovered" in row:
            said += f" ({row['recovered']:.1%} of the vectors measured are recovered)"
        return said
    if ratio > row["recovery_threshold"]:
        return f"the ratio {ratio:.3g} is above {threshold}; what is lost is what the code lost"
    return f"no recovery, the ratio {ratio:.3g} is below {threshold}; every vector keeps its best iterate"


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    try:
        # Typer itself ends an interrupted command with 130, and one whose output nobody reads with 1.
        for stream in (sys.stdout, sys.stderr):
            # A terminal or a file of a narrow encoding gets a question mark for what it cannot show.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        code = app(standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        # Without a command, help was printed instead.
        code = _fail(message) if message else 2
    except ValueError as error:
        code = _fail(str(error))
    except OSError as error:
        code = _fail(str(error))
        # If it was the output that failed, what is left of it would fail again at exit.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (MemoryError, RuntimeError) as error:
        # PyTorch has no MemoryError: it says so.
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        code = _fail("out of memory; allowed: a smaller --n-sparse, less data, or another --device")
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        _fail("interrupted")
    sys.exit(code)


def _fail(message: str) -> int:
    print("persianrug: " + " ".join(message.split()), file=sys.stderr)
    return 2
