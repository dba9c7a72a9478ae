"""The command reproduce: the figures and claims of the paper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import progress_bar
from persianrug.cli import options


def reproduce(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("reproduction"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Networks of up to 256 features, in minutes. The default.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="The sizes and the grid of the paper.")] = False,
    figure: Annotated[
        str | None,
        typer.Option(
            help=f"Draw only this figure: {options.either(options.FIGURES)}.",
            show_default="all",
            autocompletion=options.completing(options.FIGURES),
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes side by side.", show_default="one a core")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds something else.")] = False,
) -> None:
    """Rebuild the figures of "The Persian Rug" from scratch, and say which of its claims hold.

    Example: persianrug reproduce --quick --out reproduction
    """
    if quick and full:
        raise ValueError("--quick and --full are given; allowed: one of them")

    from persianrug.paper.build import reproduce as build
    from persianrug.paper.plan import PLANS

    console = make_console()
    with progress_bar(1, "reproducing") as bar:
        written = build(
            PLANS["full" if full else "quick"],
            out,
            figure=figure,
            jobs=(os.cpu_count() or 1) if jobs is None else jobs,
            force=force,
            say=lambda line: bar.say(escape(line)),
            progress=bar.reach,
        )
    for path in written:
        if figure is not None or path.parent == out:
            console.print(escape(str(path)))
