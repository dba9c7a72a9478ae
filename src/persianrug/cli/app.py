"""The command line: its commands, and how they end."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer
from typer.exceptions import TyperException

from persianrug._support.interrupts import Terminations
from persianrug.cli.codes import decompress, inspect, verify
from persianrug.cli.draw import phase, weave
from persianrug.cli.networks import knots, symmetry, train
from persianrug.cli.paper import reproduce
from persianrug.cli.robot import app as robots
from persianrug.cli.sketch import compress, fit, plan
from persianrug.cli.skin import app as skins
from persianrug.cli.solve import solve
from persianrug.cli.sweep import app as sweeps

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="Sparse data through a narrow linear bottleneck: the loss predicted, built without training, and "
    "measured.",
)

_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Predict, and draw": (solve, phase, weave),
    "Knots and networks": (knots, train, symmetry),
    "Sketches of data": (fit, plan, compress, decompress, inspect, verify),
    "Many runs": (reproduce,),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(skins, name="skin", rich_help_panel="Skins")
app.add_typer(robots, name="robot", rich_help_panel="Robots")
app.add_typer(sweeps, name="sweep", rich_help_panel="Many runs")

_INTERRUPTED = 128 + signal.SIGINT
# Characters of an error.
_MOST_SHOWN = 1000


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


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    with Terminations() as terminations:
        try:
            code = _run()
        except KeyboardInterrupt:
            # Raised again, while the first ended it.
            code = _INTERRUPTED
        terminations.end()
        if code == _INTERRUPTED:
            if terminations.signal is not None:
                code = 128 + terminations.signal
            _fail("interrupted" if terminations.signal is None else "terminated")
    sys.exit(code)


def _run() -> int:
    try:
        # Typer itself ends an interrupted command with 130, and one whose output nobody reads with 1.
        for stream in (sys.stdout, sys.stderr):
            # A terminal or a file of a narrow encoding gets a question mark for what it cannot show.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        code: int = app(standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":
            # Without a command there is help, which Typer has printed already where it prints by Rich.
            print(message, end="\n" if message else "")
            code = 2
        else:
            code = _fail(message)
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
    return code


def _fail(message: str) -> int:
    line = " ".join(message.split())
    # Whatever was typed: what is allowed comes last.
    if len(line) > _MOST_SHOWN:
        line = f"{line[: _MOST_SHOWN // 2]}...{line[-_MOST_SHOWN // 2 :]}"
    print(f"persianrug: {line}", file=sys.stderr)
    return 2
