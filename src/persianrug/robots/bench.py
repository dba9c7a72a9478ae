"""Many runs with everything drawn at random, kept one JSON line each, so that a bench that was stopped goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from persianrug._support import checks, files
from persianrug._support.threads import one_thread
from persianrug.robots.runs import SKIN, plain
from persianrug.sweeps.interrupts import Interrupts, deaf

# A line of a trial is no longer than this, in bytes.
_MOST_LINE = 1 << 20
# With what each begins: what else ends without a newline is not ours to cut off.
_HEAD = b'{"robot": '
# Of the intervals of shares.
_CONFIDENCE = 0.95

Progress = Callable[[int, int, float | None], object]


@dataclass(frozen=True)
class Asked:
    """A trial: all that its outcome depends on.

    Parameters
    ----------
    robot, scenario : str
    seed : int
    touch : dict
        What the robot feels with, as persianrug.robots.touching.Touch takes it.
    options : dict
        Others of the scenario.
    """

    robot: str
    scenario: str
    seed: int
    touch: dict[str, Any]
    options: dict[str, Any]

    @property
    def key(self) -> str:
        """The same text for the same trial."""
        try:
            return json.dumps(vars(self), sort_keys=True, allow_nan=False)
        except ValueError:
            raise ValueError(f"options is {checks.shown(self.options)}; allowed: finite numbers") from None


def perform(asked: Asked) -> dict[str, Any]:
    """Run a trial, on one thread, and say how it ended; what it fails with is its reason."""
    from persianrug.robots import ROBOTS
    from persianrug.robots.runner import Runner
    from persianrug.robots.touching import Touch

    begun = time.perf_counter()
    with one_thread():
        try:
            make = ROBOTS[asked.robot].trials[asked.scenario].make
            outcome = Runner(make(asked.seed, Touch(**asked.touch), **asked.options)).run()
        except Exception as error:  # Whatever a trial fails with is its result.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            found: dict[str, Any] = {
                "succeeded": False,
                "reason": reason,
                "seconds": None,
                "parts": {},
                "skin": {},
            }
        else:
            found = {
                "succeeded": outcome.succeeded,
                "reason": outcome.reason,
                "seconds": outcome.seconds,
                "parts": {part.name: {"done": part.done, "at": part.at} for part in outcome.parts},
                "skin": outcome.skin,
                "timing": outcome.timing,
                "drawn": outcome.drawn,
            }
    return plain({**vars(asked), **found, "took": time.perf_counter() - begun})


class Trials:
    """A file of trials that are done.

    Parameters
    ----------
    path : str or path
        Made by the first trial that is added.

    Raises
    ------
    ValueError
        If it cannot be written, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = files.check_writable(path)
        self.done: dict[str, dict[str, Any]] = {}
        new = not self.path.exists()
        try:
            # Whether it can be written is known before the first trial is run.
            self.path.open("ab").close()
            if new:
                self.path.unlink()
            else:
                self._read(path)
        except OSError as error:
            raise ValueError(f"--out is {path}: {error.strerror}; allowed: a file to write to") from None

    def _read(self, path: str | os.PathLike[str]) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE), b""), 1):
                begun = line.startswith(_HEAD) or _HEAD.startswith(line)
                if begun and not line.endswith(b"\n") and len(line) < _MOST_LINE:
                    # A process was killed while it wrote this: it is run again.
                    break
                try:
                    found = json.loads(line)
                    asked = Asked(**{name: found[name] for name in Asked.__dataclass_fields__})
                    found["succeeded"], found["took"]
                except (ValueError, KeyError, TypeError):
                    raise ValueError(f"trials file {path} has no trial in line {number}; allowed: a new file, or "
                                     "one of `robot bench`, from which a damaged line may be deleted: its trial "
                                     "is run again") from None  # fmt: skip
                self.done[asked.key] = found
                whole = file.tell()
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def add(self, found: dict[str, Any]) -> None:
        """Add a trial that is done."""
        line = json.dumps(found, allow_nan=False).encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.done[Asked(**{name: found[name] for name in Asked.__dataclass_fields__}).key] = found


def bench(
    wanted: Sequence[Asked],
    trials: Trials,
    *,
    jobs: int,
    progress: Progress,
    perform: Callable[[Asked], dict[str, Any]] = perform,
) -> list[dict[str, Any]]:
    """Run those trials that are not done yet, and give all that are wanted, in their order.

    Parameters
    ----------
    wanted : sequence of Asked
    trials : Trials
        Where they are kept as they end.
    jobs : int >= 1
        Processes that work side by side, with one thread each.
    progress : function
        Called after each trial with those that are done, all, and the seconds that the others will take: of those
        that were done before with None.
    perform : function
        Runs a trial.

    Raises
    ------
    OSError
        If the file cannot be written, or a process is killed. What was stored is kept.
    """
    jobs = checks.integer("jobs", jobs, 1)
    left = [asked for asked in wanted if asked.key not in trials.done]
    progress(len(wanted) - len(left), len(wanted), None)
    begun = time.monotonic()
    interrupts = Interrupts()
    with interrupts.noted():
        for count, found in enumerate(_performed(perform, left, min(jobs, len(left)), interrupts), 1):
            trials.add(found)
            # As fast as those before, whose processes are warm by then.
            pace = (time.monotonic() - begun) / count if count > jobs else found["took"] / min(jobs, len(left))
            progress(len(wanted) - len(left) + count, len(wanted), pace * (len(left) - count))
            interrupts.check()
    return [trials.done[asked.key] for asked in wanted]


def _performed(
    perform: Callable[[Asked], dict[str, Any]], left: Sequence[Asked], jobs: int, interrupts: Interrupts
) -> Iterable[dict[str, Any]]:
    """Trials as they end."""
    if jobs <= 1:
        for asked in left:
            with interrupts.raised():
                found = perform(asked)
            yield found
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
            # A terminal ends all processes at once; it is this one that ends the others.
            with deaf():
                ended = Parallel(return_as="generator_unordered", pre_dispatch="all", batch_size=1)(
                    delayed(perform)(asked) for asked in left
                )
            with catch_warnings(action="ignore", category=UserWarning), closing(ended):
                while True:
                    with interrupts.raised():
                        found = next(ended, {})
                    if not found:
                        return
                    yield found
    except TerminatedWorkerError:
        raise OSError(
            "a process of the bench was killed, perhaps for want of memory; trials that are done are kept, and it "
            "can be run again, with fewer --jobs"
        ) from None


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What trials of one scenario say together: shares with intervals of 95% (Clopper and Pearson), and means."""
    parts: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for one in found for name in one["parts"]):
        ended = [one["parts"][name]["at"] for one in found if name in one["parts"] and one["parts"][name]["done"]]
        parts[name] = {**share(len(ended), len(found)), "at": sum(ended) / len(ended) if ended else None}
    reasons: dict[str, list[int]] = {}
    for one in found:
        if not one["succeeded"]:
            reasons.setdefault(one["reason"] or "no reason", []).append(one["seed"])
    skin = {name: _mean([one["skin"].get(name) for one in found]) for name in SKIN}
    names = ("real_time", "control_p99", "steps_per_second", "wall")
    timing = {name: _mean([one.get("timing", {}).get(name) for one in found]) for name in names}
    succeeded = share(sum(bool(one["succeeded"]) for one in found), len(found))
    return {**succeeded, "parts": parts, "failed": reasons, "skin": skin, "timing": timing}


def share(successes: int, count: int) -> dict[str, Any]:
    """A share of trials, with the interval that holds it with 95%."""
    from scipy.stats import binomtest

    if not count:
        return {"trials": 0, "succeeded": 0, "share": None, "low": None, "high": None}
    interval = binomtest(successes, count).proportion_ci(_CONFIDENCE, method="exact")
    return {
        "trials": count,
        "succeeded": successes,
        "share": successes / count,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if numbers else None


def default_path(robot: str) -> Path:
    """Where trials are kept where users do not say."""
    return Path(f"{robot}-trials.jsonl")
