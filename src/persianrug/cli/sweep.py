"""The commands that make many runs: sweep, and reproduce."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import progress_bar
from persianrug.cli import options

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Many runs over a grid, kept in a database: run them, see how far they are, export them.",
)

# Errors of failed runs that are printed.
_MOST_ERRORS = 5

_StoreOption = Annotated[
    str, typer.Option("--store", help="Where runs are kept: an SQLite file, or the URL of a database.")
]


@app.command("run")
def run(
    file: Annotated[Path | None, typer.Argument(help="A TOML file that describes the grid.")] = None,
    store: _StoreOption = "runs.sqlite",
    p: Annotated[
        str | None, typer.Option(help="As 0.01,0.045 or FROM:TO:POINTS or FROM:TO:POINTS:log; so are all lists.")
    ] = None,
    ratio: Annotated[str | None, typer.Option(help="n_dense / n_sparse.")] = None,
    n_sparse: Annotated[str | None, typer.Option(help="Numbers of features.", show_default="8192")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Decoders, {', '.join(options.DECODERS)}; or training, {options.either(options.METHODS)}.",
            show_default="relu",
            autocompletion=options.completing((*options.DECODERS, *options.METHODS)),
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help=f"Distributions: {', '.join(options.SOURCES)}.",
            show_default="uniform",
            autocompletion=options.completing(options.SOURCES),
        ),
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Of rugs, first weights and samples.", show_default="0")] = None,
    steps: Annotated[str | None, typer.Option(help="Of trainings.", show_default="2000")] = None,
    batch: Annotated[int | None, typer.Option(help="Vectors in a step.", show_default="1024")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Vectors that decoders are measured on.", show_default="as in solve")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the sweep.", show_default="that of FILE, or sweep")] = None,
    jobs: Annotated[int, typer.Option(help="Processes side by side.")] = 1,
    weights: Annotated[Path | None, typer.Option(help="A folder for the weights, one file a run.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try runs again that have failed.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run a grid, or go on with it where it was stopped. Several of these may share a store.

    It ends with exit code 1 if runs of the grid have failed.

    Example: persianrug sweep run --p 0.01,0.045 --ratio 0.1:0.5:5 --method relu,bayes --jobs 2
    """
    lists: dict[str, tuple[str | None, type]] = {
        "p": (p, float), "ratio": (ratio, float), "n_sparse": (n_sparse, int), "method": (method, str),
        "source": (source, str), "seed": (seed, int), "steps": (steps, int),
    }  # fmt: skip
    single = {"batch": batch, "samples": samples, "name": name}
    given: dict[str, Any] = {
        **{key: _values(key, text, kind) for key, (text, kind) in lists.items() if text is not None},
        **{key: value for key, value in single.items() if value is not None},
    }
    if file is None and not {"p", "ratio"} <= given.keys():
        raise ValueError("--p or --ratio is missing; allowed: both, or a TOML file")

    from persianrug.sweeps.running import run_sweep
    from persianrug.sweeps.sweep import Sweep

    sweep = Sweep.read(file, **given) if file is not None else Sweep(**given)
    with progress_bar(len(sweep), f"sweep {escape(sweep.name)}") as bar:
        counts = run_sweep(sweep, store, jobs=jobs, weights=weights, retry=retry, progress=bar.reach)
    report = {"sweep": sweep.name, "digest": sweep.digest, **counts}
    if as_json:
        typer.echo(json.dumps(report))
    else:
        console = make_console()
        console.print(f"{escape(_shown(store))}: sweep {escape(sweep.name)}, {counts['done']} runs done")
        if counts["failed"]:
            console.print(
                f"{counts['failed']} runs failed: `persianrug sweep status` says why, --retry tries again"
            )
    if counts["failed"]:
        # Scripts and batch systems see it too.
        raise typer.Exit(1)


@app.command("status")
def status(
    store: _StoreOption = "runs.sqlite",
    as_json: options.Json = False,
) -> None:
    """How far the sweeps of a store are, and which runs failed.

    Example: persianrug sweep status --store runs.sqlite
    """
    from persianrug.sweeps.store import FAILED, Store

    opened = Store(store, reading=True)
    try:
        sweeps = []
        for sweep in opened.sweeps():
            counts = opened.counts(sweep["id"])
            failed = [row for row in opened.rows(sweep["id"]) if row["state"] == FAILED] if counts[FAILED] else []
            parts = ("number", "source", "p", "ratio", "n_sparse", "method", "seed", "steps", "error")
            sweeps.append({
                "sweep": sweep["name"], "digest": sweep["digest"], **counts,
                "errors": [{part: row[part] for part in parts} for row in failed],
            })  # fmt: skip
    finally:
        opened.close()
    if as_json:
        typer.echo(json.dumps({"store": _shown(store), "sweeps": sweeps}, indent=2))
        return
    console = make_console()
    table = Table(box=SIMPLE_HEAD)
    for heading in ("sweep", "done", "failed", "claimed", "pending"):
        table.add_column(heading, justify="left" if heading == "sweep" else "right", no_wrap=True)
    for row in sweeps:
        table.add_row(escape(row["sweep"]), *(str(row[key]) for key in ("done", "failed", "claimed", "pending")))
    console.print(table)
    errors = [error for row in sweeps for error in row["errors"]]
    for error in errors[:_MOST_ERRORS]:
        at = ", ".join(f"{key} {error[key]}" for key in ("method", "source", "p", "ratio", "n_sparse", "seed"))
        console.print(f"failed: run {error['number']} ({at}): {escape(error['error'])}")
    if len(errors) > _MOST_ERRORS:
        console.print(f"and {len(errors) - _MOST_ERRORS} more; --json has all")


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="The table, a .parquet or .csv file.")],
    store: _StoreOption = "runs.sqlite",
) -> None:
    """Write all runs of a store as a table.

    Example: persianrug sweep export --store runs.sqlite --out runs.parquet
    """
    from persianrug.sweeps.tables import export as write

    typer.echo(f"{out}: {write(store, out)} runs")


def _shown(store: str) -> str:
    """How a store is printed: without a password."""
    from persianrug.sweeps.store import shown

    return shown(store)


def _values(name: str, text: str, kind: type) -> tuple[Any, ...]:
    """The values of a list such as 0.01,0.045, FROM:TO:POINTS or FROM:TO:POINTS:log."""
    from persianrug.sweeps.sweep import span

    numbers = "numbers separated by commas, or FROM:TO:POINTS, or FROM:TO:POINTS:log"
    words = {float: numbers, int: f"whole {numbers}", str: "names separated by commas"}
    try:
        if kind is str or ":" not in text:
            return tuple(kind(part.strip()) for part in text.split(","))
        low, high, points, *scale = text.split(":")
        if len(scale) > 1:
            raise ValueError
        table = {"from": kind(low), "to": kind(high), "points": int(points)}
    except ValueError:
        raise ValueError(f"{name} is {text!r}; allowed: {words[kind]}") from None
    return span(name, **table, scale=scale[0] if scale else "linear")
