"""How long the runs of a plan will take here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from persianrug._support.threads import one_thread
from persianrug.sweeps.store import DONE, FAILED
from persianrug.sweeps.sweep import KNOT, TRAINED, Run, Sweep
from persianrug.sweeps.tables import rows

# A few steps of training, from which the time of all is estimated.
_TRIAL_ENTRIES, _TRIAL_RATIO = 1 << 23, 0.4
# And a decoder on a rug that is measured here; others take as long an entry, but not less than a part of it, and a
# run with the best knot, whose law takes more than its measurement, so many times as long.
_TRIAL_N, _TRIAL_SAMPLES = 8192, 1024
_LEAST_OF_TRIAL, _KNOT_OF_TRIAL = 0.35, 9.0


def estimate(planned: Sequence[Sweep], store: Path, jobs: int) -> float:
    """Seconds that the runs of sweeps will take which are not in the store, from trials here of what they do."""
    left: dict[tuple[int, int], float] = {}
    trials = 0.0
    for sweep in planned:
        done: set[int] = set()
        # A store that has not heard of the sweep is all still to be filled.
        with suppress(ValueError):
            done = {row["number"] for row in rows(sweep, store) if row["state"] in (DONE, FAILED)}
        for run in sweep.runs():
            if run.number in done:
                continue
            if run.method in TRAINED:
                key = (run.n_sparse, run.batch)
                left[key] = left.get(key, 0.0) + run.work
            else:
                trials += _in_trials(run)
    seconds = trials * _seconds_of_trial() if trials else 0.0
    return (seconds + sum(work * _seconds_per_work(*key) for key, work in left.items())) / jobs


def _in_trials(run: Run) -> float:
    """How many times as long a run without training takes as the trial on a rug."""
    if run.method == KNOT:
        return _KNOT_OF_TRIAL
    share = run.n_sparse * (run.samples or _TRIAL_SAMPLES) / (_TRIAL_N * _TRIAL_SAMPLES)
    return max(share, _LEAST_OF_TRIAL)


def _seconds_of_trial() -> float:
    """What a decoder on a rug takes here to be tuned and measured, on one thread."""
    from persianrug.sweeps.perform import perform

    runs = list(Sweep((0.1,), (_TRIAL_RATIO,), (_TRIAL_N,), ("relu",), samples=_TRIAL_SAMPLES).runs())
    with one_thread():
        # The first time, memory is new.
        return min(float(perform(runs)[0][0]["seconds"]) for _ in range(2))


def _seconds_per_work(n_sparse: int, batch: int) -> float:
    """What a unit of `Run.work` takes here, on one thread."""
    from persianrug.networks.descent import train
    from persianrug.networks.training import Training
    from persianrug.sources import SparseUniform

    steps = max(2, min(20, _TRIAL_ENTRIES // (n_sparse * batch)))
    run = next(Sweep((0.1,), (_TRIAL_RATIO,), (n_sparse,), ("sampled",), steps=(steps,), batch=batch).runs())
    with one_thread():
        # The first time, memory is new.
        return min(
            train(Training(n_sparse, run.n_dense, SparseUniform(0.1), steps=steps, batch=batch)).seconds / run.work
            for _ in range(2)
        )
