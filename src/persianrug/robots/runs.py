"""A run and the folder that it leaves behind: log, recording, film, page, and how it ended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from persianrug._support import checks, files, processes
from persianrug._support.interrupts import handled
from persianrug.robots.log import Log

REPORT, LOG, RECORDING, FILM, PAGE = "run.json", "log.npz", "touch.mcap", "film.mp4", "page.html"
FILES = (REPORT, LOG, RECORDING, FILM, PAGE)
# What the report of any run has, also of one that is under way.
_MARKS = {"robot", "scenario", "seed", "state"}
_MOST_REPORT = 1 << 20
# States of a run that a process is busy with: of the story, and of its files.
_RUNNING, _WRITING = "running", "writing"
_UNDER_WAY = (_RUNNING, _WRITING)
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
        If it cannot be made or written to, holds something else, or a run is under way in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(checks.path("out", path))
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out is {path}, a file; allowed: a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check()
        except OSError as error:
            raise ValueError(f"--out is {path}: {error.strerror}; allowed: a folder to write to") from None

    def _check(self) -> None:
        allowed = "allowed: a new or empty folder, or an earlier run"
        found = sorted(self.path.iterdir(), key=lambda one: one.name)
        # Those of a process that was killed within a file are hidden.
        ours = {one for one in found if one.name in FILES or _temporary(one.name)}
        if others := [one.name for one in found if one not in ours]:
            raise ValueError(f"--out is {self.path}, which holds {others[0]}; {allowed}")
        for one in found:
            if not (one.is_file() or one.is_symlink()):
                raise ValueError(f"--out is {self.path}, whose {one.name} is no file; {allowed}")
        files.check_writable(self.path / REPORT)
        told = self._earlier()
        if told is None and not all(_temporary(one.name) for one in found):
            raise ValueError(f"--out is {self.path}, which holds no earlier run; {allowed}")
        if told is not None and told["state"] in _UNDER_WAY and processes.alive(told):
            raise ValueError(
                f"--out is {self.path}, in which a run is under way, process {told['pid']}; allowed: another "
                "folder, or this one when that has ended"
            )

    def _earlier(self) -> dict[str, Any] | None:
        """The report of an earlier run; None if there is none."""
        report = self.path / REPORT
        try:
            told = json.loads(report.read_bytes()) if report.stat().st_size <= _MOST_REPORT else None
        except (OSError, ValueError, RecursionError):
            return None
        return told if isinstance(told, dict) and told.keys() >= _MARKS else None

    def begin(self, report: dict[str, Any]) -> None:
        """Say that a run is under way, and remove what is there of an earlier one.

        Raises
        ------
        ValueError
            If the report is none, or another run began meanwhile; then nothing is removed.
        """
        content = _packed(report)
        with processes.alone(self.path):
            self._check()
            # What cannot be written costs nobody an earlier run.
            files.write_whole(self.path / REPORT, content)
            for one in self.path.iterdir():
                if one.name != REPORT and (one.name in FILES or _temporary(one.name)):
                    one.unlink()

    def report(self, report: dict[str, Any]) -> None:
        """Write how far a run is."""
        files.write_whole(self.path / REPORT, _packed(report))

    def __truediv__(self, name: str) -> Path:
        return self.path / name


def _packed(report: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"options cannot be written down: {error}; allowed: what JSON holds") from None


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
        If the disk is full; what could be written is there, each file whole.
    KeyboardInterrupt
        If it was interrupted: the log so far, or what was written by then, is there, and run.json says so.
    """
    from persianrug.robots.pull import PullDetector
    from persianrug.robots.runner import Runner

    begun = {"robot": scenario.spec.name, "scenario": scenario.name, "seed": scenario.seed, "options": options}
    log = Log.of(scenario, {"options": options, "pull_threshold": PullDetector().threshold})
    wanted = [name for name in (LOG, REPORT, RECORDING, FILM, PAGE) if film or name != FILM]
    folder.begin({**begun, "state": _RUNNING, **processes.this_process()})
    try:
        runner = Runner(scenario, log)
        outcome = runner.run(on_part=on_part, on_event=on_event)
        log.note(runner.body)
        log.finish([(part.name, part.done, part.at) for part in outcome.parts])
        found = {"succeeded": outcome.succeeded, "reason": outcome.reason, "skin": outcome.skin,
                 "timing": outcome.timing, "drawn": outcome.drawn}  # fmt: skip
        log.meta["outcome"] = plain(found)
        report = _report(begun, "done", log, seconds=outcome.seconds, **log.meta["outcome"])
    except BaseException as error:
        state, reason = _broken(error)
        # Whoever insists within this second waits.
        with handled(_unseen):
            log.meta["outcome"] = {"succeeded": None, "reason": reason}
            with suppress(OSError, ValueError):
                log.save(folder / LOG)
            with suppress(OSError, ValueError):
                _tell(folder, _report(begun, state, log, reason=reason), wanted, {}, reason)
        raise
    return _written(folder, log, report, wanted, say, progress)


def _broken(error: BaseException) -> tuple[str, str]:
    """The state of what an error has ended, and why."""
    return ("interrupted",) * 2 if isinstance(error, KeyboardInterrupt) else ("failed", f"failed: {error}")


def _tell(
    folder: RunFolder, report: dict[str, Any], wanted: list[str], missing: dict[str, str], otherwise: str
) -> dict[str, Any]:
    """Write a report with the files that are there, all of them whole, and why others are not."""
    there = [name for name in wanted if name == REPORT or (folder / name).is_file()]
    gone = {name: missing.get(name, otherwise) for name in wanted if name not in there}
    told = {**report, "files": there, "missing": gone}
    folder.report(told)
    return told


def _written(
    folder: RunFolder, log: Log, report: dict[str, Any], wanted: list[str], say: Say, progress: Progress
) -> dict[str, Any]:
    """Write all files of a run that has ended; each is tried, whatever the others do."""
    from persianrug.robots.page import write_page
    from persianrug.robots.recording import write_recording

    missing: dict[str, str] = {}
    full: OSError | None = None
    busy = {**report, "state": _WRITING, **processes.this_process()}

    def draw() -> None:
        from persianrug.robots.film import write_film

        write_film(log, folder / FILM, progress=progress)

    def show() -> None:
        drawn = folder / FILM if FILM in wanted and FILM not in missing else None
        write_page(log, folder / PAGE, film=drawn, missing=missing.get(FILM, ""))

    steps: dict[str, Callable[[], object]] = {
        LOG: lambda: log.save(folder / LOG),
        RECORDING: lambda: write_recording(log, folder / RECORDING),
        FILM: draw,
        PAGE: show,
    }
    try:
        for name in (one for one in steps if one in wanted):
            # Whatever ends the process, its report claims no more than there is.
            with suppress(OSError):
                _tell(folder, busy, wanted, missing, "not written yet")
            say(name)
            try:
                steps[name]()
            except OSError as error:
                full = full or error
                missing[name] = str(error.strerror or error)
            except ValueError as error:
                missing[name] = str(error)
        try:
            report = _tell(folder, report, wanted, missing, "not written")
        except OSError as error:
            full = full or error
            missing[REPORT] = str(error.strerror or error)
    except BaseException as error:
        state, reason = _broken(error)
        with handled(_unseen), suppress(OSError, ValueError):
            _tell(folder, {**report, "state": state, "reason": reason}, wanted, missing, reason)
        raise
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
