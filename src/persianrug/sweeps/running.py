"""Many runs over a grid of sources, p, ratio, n_sparse, methods and seeds, each predicted and measured.

sweep = Sweep(p=(0.01, 0.045), ratio=(0.1, 0.25), n_sparse=(128, 256), method=("relu", "sampled"))
run_sweep(sweep, "runs.sqlite", jobs=2)
rows(sweep, "runs.sqlite")

Runs are independent, and are stored as they finish (`store.py`): a sweep that was stopped goes on where it was.
Each has one thread, so that its numbers depend on the sweep alone, not on how many are at work. Networks of one
shape are trained side by side, in batches that the sweep alone decides as well.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from warnings import catch_warnings

from persianrug._support import checks
from persianrug._support.files import check_writable, marked_temporaries, remove_temporaries
from persianrug._support.threads import one_thread
from persianrug.sweeps.interrupts import Interrupts, deaf
from persianrug.sweeps.perform import perform
from persianrug.sweeps.store import CLAIMED, DONE, FAILED, PENDING, Batch, Outcome, Store, store_name
from persianrug.sweeps.sweep import Run, Sweep

# Seconds between looks at the store: for progress, and for batches that other processes may leave behind.
_PAUSE = 0.25

Progress = Callable[[int, int], object]


def _quiet(_done: int, _all: int) -> None:
    """Progress that nobody watches."""


def run_sweep(
    sweep: Sweep,
    where: str | os.PathLike[str],
    *,
    jobs: int = 1,
    weights: str | os.PathLike[str] | None = None,
    retry: bool = False,
    progress: Progress = _quiet,
) -> dict[str, int]:
    """Run what is not done yet of a sweep, and wait for what other processes work on.

    Parameters
    ----------
    sweep : Sweep
    where : path or URL
        The store, as in `Store`.
    jobs : int >= 1
        Processes that work side by side, with one thread each.
    weights : path, optional
        A folder for the weights of networks and the recipes of rugs, one safetensors file a run.
    retry : bool
        Whether runs that have failed are tried again.
    progress : function
        Called about every 0.25 s, and at the end, with the runs that are done or failed, and all.

    Returns
    -------
    counts : dict
        How many runs are done and failed.

    Raises
    ------
    ValueError
        If the store or the folder cannot be used, or an argument is out of its range.
    OSError
        If the store fails, or a worker is killed. What was stored is kept.
    """
    jobs = checks.integer("jobs", jobs, 1)
    # Of the sweep and the number of the run, so that sweeps may share a folder.
    prefix = None if weights is None else f"{_folder(weights)}/{sweep.digest[:12]}-"
    store = Store(where)
    mark = secrets.token_hex(4)
    owner = f"{socket.gethostname()[:40]}:{os.getpid()}:{mark}"
    try:
        wanted = [[asdict(run) for run in batch] for batch in sweep.batches()]
        sweep_id = store.add(sweep.digest, sweep.name, sweep.recipe, wanted)
        if retry:
            store.retry(sweep_id)
        interrupts = Interrupts()
        with interrupts.noted(), _watched(store, sweep_id, progress):
            counts = store.counts(sweep_id)
            # As many processes as there is work for.
            jobs = min(jobs, max(1, counts[PENDING] + counts[CLAIMED]))
            if jobs == 1:
                with one_thread():
                    _work(store, sweep_id, f"{owner}:0", prefix, interrupts)
            else:
                try:
                    _work_apart(store, _anywhere(where), sweep_id, owner, prefix, jobs, mark, interrupts)
                finally:
                    if prefix is not None:
                        # Workers are killed in the middle of what they write.
                        remove_temporaries(Path(prefix).parent, mark)
        counts = store.counts(sweep_id)
        return {DONE: counts[DONE], FAILED: counts[FAILED]}
    finally:
        # What an interruption left unfinished is free at once; of a store that fails, claims expire.
        with suppress(OSError):
            store.release(owner)
        store.close()


def _folder(weights: str | os.PathLike[str]) -> Path:
    """A folder that can be written to, made if its parent is there."""
    path = Path(checks.path("weights", weights))
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"weights folder {path} cannot be made: {error.strerror}; allowed: a folder") from None
    check_writable(path / "run")
    return path.resolve()


@contextmanager
def _watched(store: Store, sweep: int, progress: Progress) -> Iterator[None]:
    """With a thread that reports how far a sweep is."""
    ended = threading.Event()

    def report() -> None:
        counts = store.counts(sweep)
        progress(counts[DONE] + counts[FAILED], sum(counts.values()))

    def watch() -> None:
        while not ended.wait(_PAUSE):
            # A store that cannot be read now is not this thread's trouble.
            with suppress(OSError, ValueError):
                report()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    report()


def _work_apart(
    store: Store,
    where: str,
    sweep: int,
    owner: str,
    prefix: str | None,
    jobs: int,
    mark: str,
    interrupts: Interrupts,
) -> None:
    """As `_work`, in processes of their own."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
            # A terminal or a scheduler ends all processes at once; it is this one that ends the others.
            with deaf():
                ended = Parallel(return_as="generator")(
                    delayed(_worker)(where, sweep, f"{owner}:{k}", prefix, os.getpid(), mark) for k in range(jobs)
                )
            # If what ends it came meanwhile, nothing was taken yet, of which joblib would warn.
            with catch_warnings(action="ignore", category=UserWarning), closing(ended), interrupts.raised():
                for _ in ended:
                    pass
    except TerminatedWorkerError:
        # If it is always the same batch that kills them, others should go on some time.
        store.release(owner, died=True)
        raise OSError(
            "a worker was killed, perhaps for want of memory; what was stored is kept, and the sweep can be run "
            "again, with fewer --jobs"
        ) from None


def _anywhere(where: str | os.PathLike[str]) -> str:
    """A store as it is named in other folders: processes stay where they were started, and are used again."""
    text = store_name(where)
    return text if "://" in text else os.fspath(Path(text).absolute())


def _worker(where: str, sweep: int, owner: str, prefix: str | None, parent: int, mark: str) -> None:
    """The whole life of a process of a sweep."""
    store = Store(where)
    try:
        with one_thread(), marked_temporaries(mark):
            _work(store, sweep, owner, prefix, Interrupts(), parent)
    finally:
        store.close()


def _work(
    store: Store, sweep: int, owner: str, prefix: str | None, interrupts: Interrupts, parent: int | None = None
) -> None:
    """Claim, run and store batches until all of a sweep is done, by whomever, or the parent is gone."""
    ended = threading.Event()

    def renew() -> None:
        renewed = time.monotonic()
        while not ended.wait(_PAUSE):
            if parent is not None and os.getppid() != parent:
                # Nobody waits for these numbers any more.
                os._exit(1)
            if time.monotonic() - renewed > store.lease / 5:
                # If claims cannot be renewed, others take over.
                with suppress(OSError, ValueError):
                    store.renew(owner)
                    renewed = time.monotonic()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        while True:
            batch = store.claim(sweep, owner)
            if batch is not None:
                with interrupts.raised():
                    outcomes = _outcomes(batch, prefix, interrupts)
                store.finish(batch, outcomes)
                continue
            counts = store.counts(sweep)
            # What is pending here is being claimed, or given back.
            if not counts[PENDING] + counts[CLAIMED]:
                return
            with interrupts.raised():
                time.sleep(_PAUSE)
    finally:
        ended.set()
        thread.join()


def _outcomes(batch: Batch, prefix: str | None, interrupts: Interrupts) -> dict[int, Outcome]:
    """What comes of the runs of a batch by their ids, one by one where they fail together."""
    runs = {run: Run(**asked) for run, asked in batch.asked.items()}
    try:
        results = perform(list(runs.values()))
    except Exception as error:  # Whatever a run fails with is its result.
        interrupts.check()
        if len(runs) > 1:
            alone = [replace(batch, asked={run: asked}) for run, asked in batch.asked.items()]
            parts = [_outcomes(one, prefix, interrupts) for one in alone]
            return {run: outcome for part in parts for run, outcome in part.items()}
        message = " ".join(str(error).split())
        said = message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}".rstrip(": ")
        return {run: Outcome(error=said) for run in runs}
    outcomes = {}
    for (run, asked), (result, model) in zip(runs.items(), results, strict=True):
        if prefix is not None:
            path = Path(f"{prefix}{asked.number}.safetensors")
            model.save(path)
            result["weights"] = path.name
        outcomes[run] = Outcome(result)
    return outcomes
