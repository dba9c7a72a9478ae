"""The command line: parse, call, print."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.exceptions import TyperException

if TYPE_CHECKING:
    import scipy.sparse

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
            help="Distribution of active features: uniform, exponential, half-normal, gaussian or constant. "
            "[default: uniform]"
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
        options = {"--p": p, "--source": source, "--n-sparse": n_sparse, "--samples": samples}
        _refuse(options, "--data", "the data has its own")
    if samples is not None:
        _checks.integer("samples", samples, 2, _checks.MOST_SAMPLES)

    import torch

    from persianrug.autoencoder import Autoencoder
    from persianrug.encoders import Rug, noise_level
    from persianrug.sources import SOURCES

    features: Source
    if p is not None:
        features = SOURCES[_checks.one_of("source", source or "uniform", SOURCES)](p)
        held_out = None
    else:
        features, held_out = _fit_half(cast(Path, data), seed)
        n_sparse = held_out.shape[1]
    rug = Rug.of_ratio(cast(int, n_sparse), ratio, seed)
    place = _device(device)
    # The limit is that of the ratio asked for; the model has the nearest that its size allows.
    sigma = noise_level(features.variance, ratio)

    kinds = _decoders(decoders, features)
    if save is not None and "relu" not in kinds:
        raise ValueError(f"--save is {save}, which saves the relu; allowed with it: decoders with relu among them")
    rows: dict[str, dict[str, Any]] = {}
    formulas: dict[str, str] = {}
    with _progress(len(kinds), "measuring") if measure else nullcontext() as bar:
        for name, kind in kinds.items():
            best = kind().tune(features, sigma)
            model = Autoencoder(rug, kind()).tune(features)
            if save is not None and name == "relu":
                model.save(save)
            rows[name] = {
                "limit": float(best.risk(features, sigma)),
                "predicted": model.law(features),
                "measured": None,
                "stderr": None,
                "microseconds_per_vector": None,
            }
            rows[name] |= {key: value for key, value in model.decoder.recipe().items() if key != "name"}
            formulas[name] = model.decoder.formula()
            if measure:
                result = model.measure(
                    features if held_out is None else held_out,
                    samples=samples,
                    seed=seed,
                    device=place,
                    # Data may have an offset that leaves float32 no digits for what varies.
                    dtype=torch.float32 if held_out is None else torch.float64,
                    progress=bar or (lambda _done, _all: None),
                )
                rows[name] |= {
                    "measured": result.loss,
                    "stderr": result.stderr,
                    "samples": result.samples,
                    "microseconds_per_vector": result.microseconds_per_vector,
                }
    if as_json:
        report = {
            "source": {
                "name": features.name,
                "p": features.p,
                "mean": features.mean,
                "variance": features.variance,
            },
            "ratio": ratio,
            "n_sparse": n_sparse,
            "n_dense": rug.n_dense,
            "seed": seed,
            "decoders": rows,
        }
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print_table(features, rug, ratio, rows, formulas, data, held_out)


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

    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .png")
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


def _decoders(names: str | None, source: Source) -> dict[str, type[Decoder]]:
    """The decoders asked for, or all of use to the source."""
    from persianrug import _checks
    from persianrug.decoders import DECODERS

    if names is not None:
        return {name: DECODERS[_checks.one_of("decoder", name, DECODERS)] for name in names.split(",")}
    # A soft threshold is for what has two sides, the others for what has one; linear is the floor of all.
    return {name: kind for name, kind in DECODERS.items() if name == "linear" or kind.one_sided != source.signed}


def _refuse(options: dict[str, Any], beside: str, why: str) -> None:
    """Refuse options that were given and have no meaning beside another."""
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option} is {value}; allowed with {beside}: no {option}, {why}")


def _fit_half(path: Path, seed: int) -> tuple[Source, Any]:
    """A source fitted on a random half of a file's rows, and the other half."""
    import numpy as np

    from persianrug.files import read_rows
    from persianrug.sources import Empirical

    rows = read_rows(path)
    order = np.random.default_rng(seed).permutation(rows.shape[0])
    half = rows.shape[0] // 2
    return Empirical.fit(rows[order[:half]]), rows[order[half:]]


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


class _progress:
    """A progress bar on stderr, if that is a terminal."""

    def __init__(self, total: int, what: str) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> _progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, whole: int) -> None:
        self._bar.advance(self._task, done / whole)


def _print_table(
    source: Source,
    rug: Rug,
    ratio: float,
    rows: dict[str, dict[str, Any]],
    formulas: dict[str, str],
    data: Path | None,
    held_out: scipy.sparse.csr_array | None,
) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if data is None or held_out is None:
        drawn = next(iter(rows.values())).get("samples")
        measured_on = f", measured on {drawn} samples" if drawn else ""
        console.print(f"{source.name} source, p = {source.p:g}, ratio = {ratio:g}, {rug}{measured_on}")
    else:
        console.print(
            f"{escape(str(data))}: pooled over features, p = {source.p:.4f}, mean = {source.mean:.4f}, "
            f"variance = {source.variance:.4f}"
        )
        console.print(f"ratio = {ratio:g}, {rug}, measured on {held_out.shape[0]} rows that were not fitted")
    measured = any(row["measured"] is not None for row in rows.values())
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
            off = row["measured"] / row["predicted"] - 1 if row["predicted"] else None
            cells += [
                f"{row['measured']:.5g}",
                f"{row['stderr']:.1g}",
                "-" if off is None else f"{off:+.2%}",
                f"{row['microseconds_per_vector']:.1f}",
            ]
        table.add_row(name, *cells)
    console.print(table)
    for name, formula in formulas.items():
        console.print(f"{name}: x_hat = {formula}")
    if data is not None and measured:
        console.print("The law takes features to be alike and independent; 'off by' shows what that costs here.")


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
