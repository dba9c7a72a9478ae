"""The figures and claims of "The Persian Rug" (arXiv 2410.12101) from scratch: runs, pictures, a table, a page.

A `Plan` says how large it all is, `sweeps` which runs it takes, `FIGURES` which figures are drawn from which runs,
and `claims` what the paper says beside what is predicted and measured. Runs are kept in the folder that is
written to, so that what was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from persianrug._support import checks
from persianrug._support.files import write_whole
from persianrug.paper.data import STORE, WEIGHTS, Data
from persianrug.paper.estimate import estimate
from persianrug.paper.pictures import FIGURES
from persianrug.paper.plan import Plan, sweeps
from persianrug.sweeps.running import run_sweep
from persianrug.sweeps.store import Store

_FORMAT = "persianrug.reproduction"
_MARK, _FIGURES = "reproduction.json", "figures"

Progress = Callable[[int, int, str], object]


def _quiet(_done: int, _all: int, _what: str) -> None:
    """Progress that nobody watches."""


def reproduce(
    plan: Plan,
    folder: str | os.PathLike[str],
    *,
    figure: str | None = None,
    jobs: int = 2,
    force: bool = False,
    say: Callable[[str], object] = lambda _line: None,
    progress: Progress = _quiet,
) -> list[Path]:
    """Run what is not done yet of a plan, draw its figures, and write the page and the table of claims.

    Parameters
    ----------
    plan : Plan
    folder : path
        Made if it is missing. In it `index.html` is the page, `claims.csv` the table, `figures` has every figure
        as PNG and SVG, and `runs.sqlite` all runs.
    figure : str, optional
        Only this figure is drawn, from the runs that it needs, and no page.
    jobs : int >= 1
        Processes that work side by side.
    force : bool
        Whether to write into a folder that holds something else.
    say : function
        Called with sentences for the user: how long it will take.
    progress : function
        Called with how much is done, of how much, and what it is.

    Returns
    -------
    paths : list of path
        What was written.

    Raises
    ------
    ValueError
        If the folder holds something else or cannot be written, an argument is out of its range, or so many runs
        fail that there is nothing to draw.
    OSError
        If the disk is full, or the store fails. What was stored is kept.
    """
    jobs = checks.integer("jobs", jobs, 1)
    if figure is not None:
        checks.one_of("figure", figure, FIGURES)
    place = _prepare(Path(checks.path("folder", folder)), plan, force)
    chosen = FIGURES if figure is None else {figure: FIGURES[figure]}
    needed = {name for one in chosen.values() for name in one.sweeps}
    planned = {name: sweep for name, sweep in sweeps(plan).items() if name in needed}
    began = time.perf_counter()
    if planned:
        # A store that cannot be used is said at once.
        Store(place / STORE).close()
        seconds = estimate(list(planned.values()), place / STORE, jobs)
        if seconds:
            say(
                f"about {_spoken(seconds)} on {jobs} process{'es' * (jobs > 1)}, and half a minute for the figures"
            )
    for name, sweep in planned.items():

        def report(done: int, whole: int, what: str = f"runs for {name}") -> None:
            progress(done, whole, what)

        weights = place / WEIGHTS if name == "shown" else None
        # What failed for want of memory may not fail again.
        run_sweep(sweep, place / STORE, jobs=jobs, weights=weights, retry=True, progress=report)
    data = Data(plan, place, needed)
    for row in data.failed:
        at = f"{row['method']}, n_sparse {row['n_sparse']}, p {row['p']:g}, ratio {row['ratio']:g}"
        say(f"a run failed ({at}): {row['error']}")
    data.check()
    from persianrug.figures.style import files

    pictures: dict[str, bytes] = {}
    written = []
    (place / _FIGURES).mkdir(exist_ok=True)
    for k, (name, one) in enumerate(chosen.items()):
        progress(k, len(chosen), f"drawing {name}")
        for kind, content in files(one.draw(data)).items():
            written.append(place / _FIGURES / f"{name}.{kind}")
            write_whole(written[-1], content)
            if kind == "png":
                pictures[name] = content
    if figure is None:
        from persianrug.paper.claims import claims, table
        from persianrug.paper.report import page

        progress(len(chosen), len(chosen), "writing the page")
        found = claims(data)
        for name, content in (
            ("claims.csv", table(found)),
            ("index.html", page(data, chosen, found, pictures, time.perf_counter() - began)),
        ):
            written.append(place / name)
            write_whole(written[-1], content)
    return written


def _spoken(seconds: float) -> str:
    """A time as one would say it."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return "a minute" if seconds >= 30 else "half a minute"


def _prepare(folder: Path, plan: Plan, force: bool) -> Path:
    """The folder, made if need be, with a mark that it is one of these; ValueError if it is something else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out is {folder}, which is a file; allowed: a folder")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"output folder {folder.absolute().parent} is missing; allowed: an existing folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        try:
            mark = json.loads((folder / _MARK).read_text())
            found = mark["plan"] if mark["format"] == _FORMAT else None
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found is None:
            raise ValueError(f"--out is {folder}, which holds something else; allowed: a new folder, or --force")
        if found != plan.name:
            raise ValueError(
                f"--out is {folder}, which holds a {found} reproduction; allowed: another folder, or --force"
            )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out is {folder}, which cannot be made: {error.strerror}; allowed: a folder") from None
    write_whole(folder / _MARK, json.dumps({"format": _FORMAT, "plan": plan.name}).encode())
    return folder
