"""A run and the folder that it leaves behind: log, recording, film, page, and how it ended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from persianrug._support import checks, files
from persianrug._support.interrupts import handled
from persianrug.robots.log import Log

REPORT, LOG, RECORDING, FILM, PAGE = "run.json", "log.npz", "touch.mcap", "film.mp4", "page.html"
FILES = (REPORT, LOG, RECORDING, FILM, PAGE)
# What the report of any run has, also of one that is under way.
_MARKS = {"robot", "scenario", "seed", "state"}
_MOST_REPORT = 1 << 20
# Of the skin, in every report; None where contacts are the truth.
SKIN = ("ratio", "frames", "explained", "packets_lost", "force_error_predicted", "force_error_measured")

Say = Callable[[str], object]
Progress = Callable[[float, float], object]


def _unseen(*_: object) -> None:
    """Progress that nobody watches."""


class RunFolder:
    """A folder for one run, new, empty, or that of an earlier run, which is lost when another one begins.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    ValueError
        If it cannot be made or written to, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(checks.path("out", path))
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out is {path}, a file; allowed: a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            found = sorted(one.name for one in self.path.iterdir())
        except OSError as error:
            raise ValueError(f"--out is {path}: {error.strerror}; allowed: a folder to write to") from None
        files.check_writable(self.path / REPORT)
        # Those of a process that was killed within a file are hidden.
        others = [name for name in found if name not in FILES and not _temporary(name)]
        if others or (found and not self._earlier()):
            what = f"{others[0]}" if others else "no earlier run"
            raise ValueError(
                f"--out is {path}, which holds {what}; allowed: a new or empty folder, or an earlier run"
            )

    def _earlier(self) -> bool:
        report = self.path / REPORT
        try:
            told = json.loads(report.read_bytes()) if report.stat().st_size <= _MOST_REPORT else None
        except (OSError, ValueError):
            return False
        return isinstance(told, dict) and told.keys() >= _MARKS

    def begin(self, report: dict[str, Any]) -> None:
        """Remove what is there of an earlier run, and say that one is under way."""
        for one in self.path.iterdir():
            if one.name in FILES or _temporary(one.name):
                one.unlink()
        self.report(report)

    def report(self, report: dict[str, Any]) -> None:
        """Write how far a run is."""
        files.write_whole(self.path / REPORT, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())

    def __truediv__(self, name: str) -> Path:
        return self.path / name


def _temporary(name: str) -> bool:
    return name.startswith(tuple(f".{one}." for one in FILES)) and name.endswith(".tmp")


def run_into(
    folder: RunFolder,
    scenario: Any,
    options: dict[str, Any],
    *,
    film: bool = True,
    on_part: Callable[[Any], None] = _unseen,
    on_event: Callable[[float, str], None] = _unseen,
    say: Say = _unseen,
    progress: Progress = _unseen,
) -> dict[str, Any]:
    """Run a scenario, and write all of it into a folder.

    Parameters
    ----------
    folder : RunFolder
    scenario : Scenario
    options : dict
        What was asked for, as it is written down.
    film : bool
        Whether a film is drawn.
    on_part, on_event : function
        Called with each part that is over, and with the time of an event and its text.
    say : function
        Called with what is being written.
    progress : function
        Called with the pictures of the film that are drawn, and all.

    Returns
    -------
    report : dict
        As run.json holds it. `missing` has the files that could not be written, and why.

    Raises
    ------
    OSError
        If the disk is full; what could be written is there.
    KeyboardInterrupt
        If it was interrupted: the log so far is there, and run.json says so.
    """
    from persianrug.robots.pull import PullDetector
    from persianrug.robots.runner import Runner

    begun = {"robot": scenario.spec.name, "scenario": scenario.name, "seed": scenario.seed, "options": options}
    folder.begin({**begun, "state": "running"})
    log = Log.of(scenario, {"options": options, "pull_threshold": PullDetector().threshold})
    runner = Runner(scenario, log)
    try:
        outcome = runner.run(on_part=on_part, on_event=on_event)
    except BaseException as error:
        ended = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {error}"
        # Whoever insists within this second waits.
        with handled(_unseen), suppress(OSError, ValueError):
            log.meta["outcome"] = {"succeeded": None, "reason": ended}
            log.save(folder / LOG)
            folder.report(_report(begun, ended.partition(":")[0], log, reason=ended))
        raise
    log.note(runner.body)
    log.finish([(part.name, part.done, part.at) for part in outcome.parts])
    found = {"succeeded": outcome.succeeded, "reason": outcome.reason, "skin": outcome.skin,
             "timing": outcome.timing, "drawn": outcome.drawn}  # fmt: skip
    log.meta["outcome"] = plain(found)
    report = _report(begun, "done", log, seconds=outcome.seconds, **log.meta["outcome"])
    return _written(folder, log, report, film, say, progress)


def _written(
    folder: RunFolder, log: Log, report: dict[str, Any], film: bool, say: Say, progress: Progress
) -> dict[str, Any]:
    """Write all files of a run that has ended; each is tried, whatever the others do."""
    from persianrug.robots.page import write_page
    from persianrug.robots.recording import write_recording

    missing: dict[str, str] = {}
    full: OSError | None = None

    def draw() -> None:
        from persianrug.robots.film import write_film

        write_film(log, folder / FILM, progress=progress)

    def show() -> None:
        drawn = folder / FILM if film and FILM not in missing else None
        write_page(log, folder / PAGE, film=drawn, missing=missing.get(FILM, ""))

    steps: dict[str, Callable[[], object]] = {LOG: lambda: log.save(folder / LOG)}
    steps[REPORT] = lambda: folder.report({**report, "missing": missing})
    steps[RECORDING] = lambda: write_recording(log, folder / RECORDING)
    if film:
        steps[FILM] = draw
    steps[PAGE] = show
    for name, step in steps.items():
        say(name)
        try:
            step()
        except OSError as error:
            full = full or error
            missing[name] = str(error.strerror or error)
        except ValueError as error:
            missing[name] = str(error)
    report = {**report, "files": [name for name in steps if name not in missing], "missing": missing}
    with suppress(OSError):
        folder.report(report)
    if full is not None:
        raise OSError(full.errno, f"{full.strerror or full}: not written: {', '.join(missing)}")
    return report


def _report(begun: dict[str, Any], state: str, log: Log, **ended: Any) -> dict[str, Any]:
    """What run.json holds, in the order in which it is read."""
    skin = ended.pop("skin", None) or {}
    names = ("robot", "scenario", "seed")
    return plain(
        {
            **{name: begun[name] for name in names},
            "succeeded": ended.pop("succeeded", False),
            "seconds": ended.pop("seconds", float(log["time"][-1]) if len(log) else 0.0),
            "parts": {part.name: {"done": part.done, "at": part.at} for part in log.parts},
            "skin": {**dict.fromkeys(SKIN), **skin},
            "state": state,
            "options": begun["options"],
            **ended,
        }
    )


def plain(value: Any) -> Any:
    """A value for JSON: NumPy's numbers and arrays as Python's, and None for what is no finite number."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
