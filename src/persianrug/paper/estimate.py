"""How long the runs of a plan will take here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from persianrug._support.threads import one_thread
from persianrug.sweeps.store import DONE, FAILED
from persianrug.sweeps.sweep import KNOT, TRAINED, Sweep
from persianrug.sweeps.tables import rows

# A few steps of training, from which the time of all is estimated, and what runs without training take about.
_TRIAL_ENTRIES, _TRIAL_RATIO = 1 << 23, 0.4
_KNOT_SECONDS, _RUG_SECONDS = 1.5, 0.1


def estimate(planned: Sequence[Sweep], store: Path, jobs: int) -> float:
    """Seconds that the runs of sweeps will take which are not in the store, from a few steps of each training."""
    left: dict[tuple[int, int], float] = {}
    seconds = 0.0
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
                seconds += _KNOT_SECONDS if run.method == KNOT else _RUG_SECONDS
    return (seconds + sum(work * _seconds_per_work(*key) for key, work in left.items())) / jobs


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
