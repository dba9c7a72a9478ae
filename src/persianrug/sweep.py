"""Many runs over a grid of sources, p, ratio, n_sparse, methods and seeds, each predicted and measured.

sweep = Sweep(p=(0.01, 0.045), ratio=(0.1, 0.25), n_sparse=(128, 256), method=("relu", "sampled"))
run_sweep(sweep, "runs.sqlite", jobs=2)
rows(sweep, "runs.sqlite")

Runs are independent, and are stored as they finish (`store.py`): a sweep that was stopped goes on where it was.
Each has one thread, so that its numbers depend on the sweep alone, not on how many are at work. Networks of one
shape are trained side by side, in batches that the sweep alone decides as well.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import secrets
import signal
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from persianrug import _checks
from persianrug.files import check_writable, write_whole
from persianrug.store import CLAIMED, DONE, FAILED, PENDING, Batch, Outcome, Store

# Methods that train a network; all others measure a decoder on a rug, or the ReLU on the best knot known.
TRAINED = ("sampled", "closure")
KNOT = "knot"

# Networks that are trained in one batch: at most so many, and with so many features of vectors in a step.
_MOST_TOGETHER = 16
_MOST_ENTRIES = 1 << 22
# Runs of a sweep.
_MOST_RUNS = 1_000_000
# Seconds between looks at the store: for progress, and for batches that other processes may leave behind.
_PAUSE = 0.25

Progress = Callable[[int, int], object]


def _quiet(_done: int, _all: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Sweep:
    """A grid of runs: all combinations of what is listed.

    Parameters
    ----------
    p : sequence of float in (0, 1]
    ratio : sequence of float in (0, 1]
        n_dense is the integer nearest to ratio * n_sparse, and at least 1.
    n_sparse : sequence of int >= 2
    method : sequence of str
        Decoders by name, which are tuned and measured on a rug; `knot`, the ReLU on a rug of the best knot known;
        `sampled` and `closure`, networks trained that way.
    source : sequence of str
        Distributions of active features, by name.
    seed : sequence of int >= 0
        Of rugs, first weights and samples.
    steps : sequence of int >= 1
        Of trainings.
    batch : int >= 1
        Vectors in a step of `sampled`.
    samples : int >= 2, optional
        Vectors that decoders are measured on; by default as in `Autoencoder.measure`, and 512 for oamp.
    name : str
        What it is called; two sweeps that differ in nothing else are the same.

    Raises
    ------
    ValueError
        If a list is empty or has an entry out of its range or twice, or there are more than a million runs.
    """

    p: tuple[float, ...]
    ratio: tuple[float, ...]
    n_sparse: tuple[int, ...] = (8192,)
    method: tuple[str, ...] = ("relu",)
    source: tuple[str, ...] = ("uniform",)
    seed: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = (2000,)
    batch: int = 1024
    samples: int | None = None
    name: str = field(default="sweep", compare=False)

    def __post_init__(self) -> None:
        from persianrug.decoders import DECODERS
        from persianrug.sources import SOURCES

        methods = [*DECODERS, KNOT, *TRAINED]
        checks: dict[str, Callable[[str, Any], Any]] = {
            "p": _checks.probability,
            "ratio": _checks.probability,
            "n_sparse": lambda name, value: _checks.integer(name, value, 2, 1 << 30),
            "method": lambda name, value: _checks.one_of(name, value, methods),
            "source": lambda name, value: _checks.one_of(name, value, SOURCES),
            "seed": lambda name, value: _checks.integer(name, value, 0, 2**62),
            "steps": lambda name, value: _checks.integer(name, value, 1),
        }
        for name, check in checks.items():
            given = getattr(self, name)
            if isinstance(given, str | bytes) or not isinstance(given, Iterable):
                given = (given,)
            values = tuple(check(name, value) for value in given)
            if not values:
                raise ValueError(f"{name} is empty, so that the grid has no runs; allowed: at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has {_repeated(values)} twice; allowed: different ones")
            object.__setattr__(self, name, values)
        object.__setattr__(self, "batch", _checks.integer("batch", self.batch, 1))
        if self.samples is not None:
            samples = _checks.integer("samples", self.samples, 2, _checks.MOST_SAMPLES)
            object.__setattr__(self, "samples", samples)
        if not (isinstance(self.name, str) and 0 < len(self.name) <= 200):
            raise ValueError(f"name is {self.name!r}; allowed: a text of 1 to 200 characters")
        if len(self) > _MOST_RUNS:
            raise ValueError(f"the grid has {len(self)} runs; allowed: at most {_MOST_RUNS}")

    def __len__(self) -> int:
        """The number of runs."""
        points = len(self.source) * len(self.p) * len(self.ratio) * len(self.n_sparse) * len(self.seed)
        trained = sum(method in TRAINED for method in self.method)
        return points * (trained * len(self.steps) + len(self.method) - trained)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **given: Any) -> Sweep:
        """The sweep that a TOML file describes.

        Its keys are the parameters. A list may also be one value, or a table {from, to, points, scale}, with scale
        "linear" (the default) or "log". What is `given` replaces what the file says.

        Raises
        ------
        ValueError
            If the file cannot be read, has other keys or lacks p or ratio, or as in the class.
        """
        try:
            parts = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"sweep file {path} cannot be read: {reason}; allowed: a TOML file") from None
        known = [part.name for part in fields(cls)]
        for key in parts:
            _checks.one_of(f"a key of {path}", key, known)
        parts = {key: span(key, **value) if isinstance(value, dict) else value for key, value in parts.items()}
        parts = {"name": Path(path).stem, **parts, **given}
        for key in ("p", "ratio"):
            if key not in parts:
                raise ValueError(f"sweep file {path} has no {key}; allowed: a list of numbers in (0, 1]")
        return cls(**parts)

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides its numbers, as a JSON object."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.compare}

    @property
    def digest(self) -> str:
        """What tells it from other sweeps."""
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()

    def runs(self) -> Iterator[Run]:
        """All runs, in the order of the parameters."""
        number = itertools.count()
        for source, p, ratio, n_sparse, method, seed in itertools.product(
            self.source, self.p, self.ratio, self.n_sparse, self.method, self.seed
        ):
            for steps in self.steps if method in TRAINED else (None,):
                yield Run(next(number), source, p, ratio, n_sparse, method, seed, steps, self.batch, self.samples)

    def batches(self) -> list[list[Run]]:
        """The runs in the batches that are worked on at once, those that take longest first."""
        alone: list[list[Run]] = []
        shapes: dict[tuple[Any, ...], list[Run]] = {}
        for run in self.runs():
            if run.steps is None:
                alone.append([run])
            else:
                shapes.setdefault((run.method, run.n_sparse, run.n_dense, run.steps), []).append(run)
        out = []
        for (_, n_sparse, _, _), runs in shapes.items():
            most = max(1, min(_MOST_TOGETHER, _MOST_ENTRIES // (n_sparse * self.batch)))
            out += [runs[start : start + most] for start in range(0, len(runs), most)]
        out.sort(key=lambda runs: -sum(run.work for run in runs))
        return out + sorted(alone, key=lambda runs: -runs[0].work)


@dataclass(frozen=True)
class Run:
    """One point of a grid; attributes as in `Sweep`, with steps None where nothing is trained."""

    number: int
    source: str
    p: float
    ratio: float
    n_sparse: int
    method: str
    seed: int
    steps: int | None
    batch: int
    samples: int | None

    @property
    def n_dense(self) -> int:
        """Length of the code."""
        return max(1, round(self.ratio * self.n_sparse))

    @property
    def work(self) -> float:
        """Roughly how much there is to compute, comparable within a method."""
        if self.steps is None:
            return float(self.n_sparse)
        vectors = self.batch if self.method == "sampled" else self.n_dense
        return float(self.steps) * vectors * self.n_sparse * (self.n_dense + 20)


def span(name: str, /, **table: Any) -> tuple[float, ...]:
    """Numbers from one to another, which a table {from, to, points, scale} describes; whole ones between such.

    Raises
    ------
    ValueError
        If keys are missing or unknown, or values out of range.
    """
    allowed = "{from, to, points} and optionally scale, linear or log"
    if not {"from", "to", "points"} <= table.keys() <= {"from", "to", "points", "scale"}:
        raise ValueError(f"{name} is a table of {', '.join(table) or 'nothing'}; allowed: {allowed}")
    scale = _checks.one_of(f"{name}.scale", table.get("scale", "linear"), ("linear", "log"))
    check = _checks.positive if scale == "log" else _checks.not_negative
    for key in ("from", "to"):
        check(f"{name}.{key}", table[key])
    points = _checks.integer(f"{name}.points", table["points"], 1, _MOST_RUNS)
    whole = isinstance(table["from"], int) and isinstance(table["to"], int)
    low, high = (table[key] if whole else float(table[key]) for key in ("from", "to"))
    spaced = (np.geomspace if scale == "log" else np.linspace)(float(low), float(high), points).tolist()
    # What is typed as a decimal should not be off in the last digit, and no number beyond the ends.
    rounded = (round(number) if whole else float(f"{number:.12g}") for number in spaced[1:-1])
    inner = (max(min(low, high), min(number, max(low, high))) for number in rounded)
    return tuple(dict.fromkeys([low, *inner, *[high][: points - 1]]))


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
    jobs = _checks.integer("jobs", jobs, 1)
    # Of the sweep and the number of the run, so that sweeps may share a folder.
    prefix = None if weights is None else f"{_folder(Path(weights))}/{sweep.digest[:12]}-"
    store = Store(where)
    owner = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
    try:
        wanted = [[asdict(run) for run in batch] for batch in sweep.batches()]
        sweep_id = store.add(sweep.digest, sweep.name, sweep.recipe, wanted)
        if retry:
            store.retry(sweep_id)
        interrupts = _Interrupts()
        with interrupts.noted(), _watched(store, sweep_id, progress):
            counts = store.counts(sweep_id)
            # As many processes as there is work for.
            jobs = min(jobs, max(1, counts[PENDING] + counts[CLAIMED]))
            if jobs == 1:
                with one_thread():
                    _work(store, sweep_id, f"{owner}:0", prefix, interrupts)
            else:
                with interrupts.raised():
                    _work_apart(store, _anywhere(where), sweep_id, owner, prefix, jobs)
        counts = store.counts(sweep_id)
        return {DONE: counts[DONE], FAILED: counts[FAILED]}
    finally:
        # What an interruption left unfinished is free at once; of a store that fails, claims expire.
        with suppress(OSError):
            store.release(owner)
        store.close()


def rows(sweep: Sweep, where: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a store holds of the runs of a sweep: a dict a run, with what was asked for and what was found.

    Keys are those of `Run`, state and error, and of runs that are done

    - n_dense;
    - limit, predicted: laws, for infinitely many features and for this encoder; of trained networks those of the
      ReLU on a rug of this size;
    - measured, stderr, samples, seconds;
    - parameters of the decoder; or of trained networks the closure of their weights, verdict, and the statistics
      of `Symmetry`;
    - weights: the name of the file that holds them, where they were asked for.

    Raises
    ------
    ValueError
        If there is no such store or sweep.
    """
    store = Store(where, reading=True)
    try:
        found = [row["id"] for row in store.sweeps() if row["digest"] == sweep.digest]
        if not found:
            raise ValueError(f"store {store.name} has no sweep {sweep.name!r}; allowed: one that was run")
        return store.rows(found[0])
    finally:
        store.close()


def export(where: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write all runs of a store as a table, `.parquet` or `.csv`, and return their number.

    Raises
    ------
    ValueError
        If the store cannot be read, or the file is of another kind or cannot be written.
    """
    target = Path(out)
    suffix = target.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out is {out}; allowed: a file that ends in .parquet or .csv")
    check_writable(target)
    store = Store(where, reading=True)
    try:
        found = [{"sweep": sweep["name"], **row} for sweep in store.sweeps() for row in store.rows(sweep["id"])]
    finally:
        store.close()
    columns = list(dict.fromkeys(name for row in found for name in row))
    content = io.BytesIO()
    if suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        content.write(text.getvalue().encode())
    else:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({name: [row.get(name) for row in found] for name in columns})
        pyarrow.parquet.write_table(table, content)
    write_whole(target, content.getvalue())
    return len(found)


def _repeated(values: Sequence[Any]) -> Any:
    return next(value for k, value in enumerate(values) if value in values[:k])


def _folder(path: Path) -> Path:
    """A folder that can be written to, made if its parent is there."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"weights folder {path} cannot be made: {error.strerror}; allowed: a folder") from None
    check_writable(path / "run")
    return path.resolve()


@contextmanager
def one_thread() -> Iterator[None]:
    """With one thread of PyTorch: sums in another order have other last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _on_main_thread() -> bool:
    """Whether this thread may set what signals do."""
    return threading.current_thread() is threading.main_thread()


class _Interrupts:
    """What becomes of interrupts while a sweep runs.

    One that comes while the store is at work may leave a lock behind for which another thread waits for ever. One
    in a destructor is lost, and one in an import may become another error. So all are noted, and raised where they
    do no harm.
    """

    def __init__(self) -> None:
        self._noted = self._at_once = False

    def check(self) -> None:
        """Raise what was noted."""
        if self._noted:
            raise KeyboardInterrupt

    def _interrupt(self, *_: object) -> None:
        # Who insists is heard.
        at_once = self._at_once or self._noted
        self._noted = True
        if at_once:
            raise KeyboardInterrupt

    @contextmanager
    def noted(self) -> Iterator[None]:
        """With interrupts noted, where they do what they do by default; raised at the end at the latest."""
        if not _on_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.check()

    @contextmanager
    def raised(self) -> Iterator[None]:
        """With interrupts raised at once."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False
        self.check()


@contextmanager
def _deaf() -> Iterator[None]:
    """With interrupts ignored, as they then are in all processes that are started."""
    if not _on_main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work_apart(store: Store, where: str, sweep: int, owner: str, prefix: str | None, jobs: int) -> None:
    """As `_work`, in processes of their own."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
            # A terminal interrupts all processes at once; it is this one that ends the others.
            with _deaf():
                ended = Parallel(return_as="generator")(
                    delayed(_worker)(where, sweep, f"{owner}:{k}", prefix, os.getpid()) for k in range(jobs)
                )
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
    text = os.fspath(where)
    return text if "://" in text else os.fspath(Path(text).absolute())


def _worker(where: str, sweep: int, owner: str, prefix: str | None, parent: int) -> None:
    """The whole life of a process of a sweep."""
    store = Store(where)
    try:
        with one_thread():
            _work(store, sweep, owner, prefix, _Interrupts(), parent)
    finally:
        store.close()


def _work(
    store: Store, sweep: int, owner: str, prefix: str | None, interrupts: _Interrupts, parent: int | None = None
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


def _outcomes(batch: Batch, prefix: str | None, interrupts: _Interrupts) -> dict[int, Outcome]:
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


def perform(runs: Sequence[Run]) -> list[tuple[dict[str, Any], Any]]:
    """Run a batch: of each run its result, and the network or autoencoder.

    Raises
    ------
    ValueError
        If a run is not possible or its training diverges.
    """
    return _train(runs) if runs[0].method in TRAINED else [_measure(run) for run in runs]


def _source(run: Run) -> Any:
    from persianrug.sources import SOURCES

    kind: Any = SOURCES[run.source]
    return kind(run.p)


def _measure(run: Run) -> tuple[dict[str, Any], Any]:
    """A decoder on a rug, tuned and measured."""
    import torch

    from persianrug import knots
    from persianrug.autoencoder import Autoencoder
    from persianrug.decoders import DECODERS, OAMP, ReLU
    from persianrug.encoders import Rug
    from persianrug.weaves import KnottedRug

    began = time.perf_counter()
    source = _source(run)
    knot = knots.best(source, run.ratio) if run.method == KNOT else None
    rug = Rug(run.n_sparse, run.n_dense, run.seed, knot=knot)
    decoder = ReLU() if run.method == KNOT else DECODERS[run.method]()
    model = Autoencoder(rug, decoder).tune(source)
    iterative = isinstance(decoder, OAMP)
    samples = 512 if iterative and run.samples is None else run.samples
    limit = model.limit(source)
    # A pure tiling has no noise, and the same law at every size.
    tiling = isinstance(rug, KnottedRug) and rug.rug is None
    predicted = limit if tiling else model.law(source)
    # What is recovered is lost in the rounding of float32.
    dtype = torch.float64 if iterative else torch.float32
    found = model.measure(source, samples=samples, seed=run.seed, dtype=dtype)
    result: dict[str, Any] = {
        "n_dense": run.n_dense, "limit": limit, "predicted": predicted, "measured": found.loss,
        "stderr": found.stderr, "samples": found.samples,
    }  # fmt: skip
    if knot is not None:
        result["knot"] = knot.name
    elif iterative:
        result["recovered"] = found.recovered
    else:
        recipe = model.decoder.recipe()
        result |= {name: recipe[name] for name in ("gain", "bias", "threshold") if name in recipe}
    return {**result, "seconds": time.perf_counter() - began}, model


def _train(runs: Sequence[Run]) -> list[tuple[dict[str, Any], Any]]:
    """Networks of one shape, trained side by side and measured."""
    from persianrug.autoencoder import Autoencoder
    from persianrug.decoders import Linear, ReLU
    from persianrug.encoders import Rug
    from persianrug.symmetry import measure_symmetry
    from persianrug.training import Training, train_many

    trainings = [
        Training(
            run.n_sparse, run.n_dense, _source(run), run.seed,
            method=run.method, steps=cast(int, run.steps), batch=run.batch,
        )
        for run in runs
    ]  # fmt: skip
    out = []
    for run, trained in zip(runs, train_many(trainings), strict=True):
        began = time.perf_counter()
        source, network = trained.training.source, trained.network
        rug = Autoencoder(Rug(run.n_sparse, run.n_dense), Linear() if source.signed else ReLU()).tune(source)
        closure = None
        # Where features are given up the diagonal is not positive, and there is no such autoencoder.
        with suppress(ValueError):
            closure = network.autoencoder(source).limit(source)
        found = measure_symmetry(network.W_out, network.W_in, network.bias, source, seed=run.seed)
        statistics = {
            name: value for name, value in asdict(found).items() if name not in ("n_sparse", "n_dense", "partners")
        }
        result = {
            "n_dense": run.n_dense, "limit": rug.limit(source), "predicted": rug.law(source),
            "measured": trained.loss, "stderr": trained.stderr, "closure": closure, **statistics,
            "seconds": trained.seconds / len(runs) + time.perf_counter() - began,
        }  # fmt: skip
        out.append((result, network))
    return out
