"""The figures and claims of "The Persian Rug" (arXiv 2410.12101) from scratch: runs, pictures, a table, a page.

A `Plan` says how large it all is, `sweeps` which runs it takes, `FIGURES` which figures are drawn from which runs,
and `claims.py` what the paper says beside what is predicted and measured. Runs are kept in the folder that is
written to, so that what was interrupted goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persianrug import _checks
from persianrug.files import write_whole
from persianrug.store import DONE, FAILED, Store
from persianrug.sweep import KNOT, TRAINED, Sweep, one_thread, rows, run_sweep, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_FORMAT = "persianrug.reproduction"
_MARK, _STORE, _WEIGHTS, _FIGURES = "reproduction.json", "runs.sqlite", "weights", "figures"

# The paper's: its curves, its plane, its rug, and the network whose weights it shows.
_CURVE_P = (0.001, 0.01, 0.05, 0.1, 0.4, 0.6)
_CURVE_RATIOS = (0.01, 0.1, 0.3, 0.5, 0.8)
_LEAST, _MOST = 0.002, 0.8
_RUG = 8192
_SHOWN_P, _SHOWN_RATIO = 0.045, 0.25
# Where networks of many sizes are trained for many steps.
_BUDGET_POINTS = ((0.01, 0.25), (0.045, 0.25), (0.3, 0.5))
_BUDGETS = tuple(f"budget-{kind}{k}" for kind in ("", "knot-") for k in range(len(_BUDGET_POINTS)))
# Where the laws of rare features are cut and measured.
_CUT_RATIO = 0.25
_RARE_N = 1 << 20
# Runs that are few, and all needed.
_WHOLE = ("shown", *_BUDGETS, "rare", "ladder")
# A few steps of training, from which the time of all is estimated, and what runs without training take about.
_TRIAL_ENTRIES, _TRIAL_RATIO = 1 << 23, 0.4
_KNOT_SECONDS, _RUG_SECONDS = 1.5, 0.1

Progress = Callable[[int, int, str], object]


def _quiet(_done: int, _all: int, _what: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Plan:
    """How large a reproduction is.

    Attributes
    ----------
    name : str
    sizes : tuple of int
        n_sparse of the networks that are trained over the plane.
    curve_sizes : tuple of int
        And along the curves.
    side : int
        Points of the plane on each side.
    curve_points, rug_points : int
        Of every curve of trained networks and best knots, and of rugs.
    steps, batch : int
        Of every training but those of the budget, and of the network that is shown.
    budget_sizes, budget_steps, budget_seeds : tuple of int
        Sizes, steps and seeds that are compared.
    shown_n, shown_steps : int
        The network whose weights are shown.
    recovery_side, recovery_n, recovery_samples : int
        Points of OAMP's phase diagram on each side, features, and vectors a point.
    """

    name: str
    sizes: tuple[int, ...]
    curve_sizes: tuple[int, ...]
    side: int
    curve_points: int
    rug_points: int
    steps: int
    batch: int
    budget_sizes: tuple[int, ...]
    budget_steps: tuple[int, ...]
    budget_seeds: tuple[int, ...]
    shown_n: int
    shown_steps: int
    recovery_side: int
    recovery_n: int
    recovery_samples: int


PLANS = {
    "quick": Plan(
        "quick", sizes=(64, 128, 256), curve_sizes=(64, 256), side=6, curve_points=5, rug_points=10,
        steps=1000, batch=512,
        budget_sizes=(32, 64, 128, 256), budget_steps=(250, 1000, 4000), budget_seeds=(0,),
        shown_n=256, shown_steps=2000, recovery_side=12, recovery_n=1024, recovery_samples=32,
    ),
    "full": Plan(
        "full", sizes=(128, 1024, 8192), curve_sizes=(128, 1024, 8192), side=20, curve_points=8, rug_points=20,
        steps=2000, batch=1024,
        budget_sizes=(64, 256, 1024, 4096), budget_steps=(500, 2000, 8000), budget_seeds=(0, 1, 2),
        shown_n=512, shown_steps=4000, recovery_side=24, recovery_n=8192, recovery_samples=64,
    ),
}  # fmt: skip
"""What can be asked for, by name; `full` has the sizes and the grid of the paper."""


def sweeps(plan: Plan) -> dict[str, Sweep]:
    """The runs of a plan, by what they are for."""
    plane = span("plane", **{"from": _LEAST, "to": _MOST, "points": plan.side})
    curve = span("curve", **{"from": 0.02, "to": _MOST, "points": plan.curve_points, "scale": "log"})
    fine = span("fine", **{"from": _LEAST, "to": _MOST, "points": plan.rug_points, "scale": "log"})
    phase = span("phase", **{"from": 0.006, "to": 0.8, "points": plan.recovery_side, "scale": "log"})
    trained: dict[str, Any] = {"method": ("sampled",), "steps": (plan.steps,), "batch": plan.batch}
    rugs: dict[str, Any] = {"n_sparse": (_RUG,), "samples": 1024}
    knots = {**rugs, "method": ("knot",)}
    found = {
        "plane": Sweep(plane, plane, plan.sizes, **trained),
        "shown": Sweep(
            (_SHOWN_P,), (_SHOWN_RATIO,), (plan.shown_n,), ("sampled",), steps=(plan.shown_steps,), batch=1024
        ),
        **{
            f"budget-{k}": Sweep(
                (p,), (ratio,), plan.budget_sizes, ("sampled",), seed=plan.budget_seeds, steps=plan.budget_steps,
                batch=plan.batch,
            )
            for k, (p, ratio) in enumerate(_BUDGET_POINTS)
        },
        **{
            f"budget-knot-{k}": Sweep((p,), (ratio,), **knots)
            for k, (p, ratio) in enumerate(_BUDGET_POINTS)
        },
        "ratio-trained": Sweep(_CURVE_P, curve, plan.curve_sizes, **trained),
        "p-trained": Sweep(curve, _CURVE_RATIOS, plan.curve_sizes, **trained),
        "ratio-rug": Sweep(_CURVE_P, fine, **rugs),
        "p-rug": Sweep(fine, _CURVE_RATIOS, **rugs),
        "ratio-knot": Sweep(_CURVE_P, curve, **knots),
        "p-knot": Sweep(curve, _CURVE_RATIOS, **knots),
        "plane-rug": Sweep(plane, plane, (_RUG,), ("relu",), samples=256),
        "rare": Sweep((1e-4, 1e-3, 1e-2, 1e-1), (_CUT_RATIO,), (_RARE_N,), samples=32),
        "ladder": Sweep(
            (0.005, 0.01, 0.03, 0.1, 0.3, 0.6), (_CUT_RATIO,), (_RUG,),
            ("linear", "relu", "jumprelu", "prolu", "bayes"), samples=2048,
        ),
        "recovery": Sweep(phase, phase, (plan.recovery_n,), ("oamp",), samples=plan.recovery_samples),
    }  # fmt: skip
    return {name: Sweep(**{**sweep.recipe, "name": f"{plan.name}-{name}"}) for name, sweep in found.items()}


class Data:
    """What the runs of a plan gave: `data[name]` has the rows of a sweep that are done."""

    def __init__(self, plan: Plan, folder: Path, names: Iterable[str]) -> None:
        self.plan, self.folder = plan, folder
        self.sweeps = {name: sweep for name, sweep in sweeps(plan).items() if name in set(names)}
        self._rows = {name: rows(sweep, folder / _STORE) for name, sweep in self.sweeps.items()}

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self._rows[name] if row["state"] == DONE]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The rows of runs that failed."""
        return [row for found in self._rows.values() for row in found if row["state"] == FAILED]

    @property
    def every(self) -> list[dict[str, Any]]:
        """The rows of all runs that are done."""
        return [row for name in self._rows for row in self[name]]

    def check(self) -> None:
        """ValueError if so many runs failed that there is no figure or claim: all of a size, or one of a few."""
        for name, sweep in self.sweeps.items():
            failed = [row for row in self._rows[name] if row["state"] == FAILED]
            there = {(row["n_sparse"], row["method"]) for row in self[name]}
            wanted = set(itertools.product(sweep.n_sparse, sweep.method))
            if failed and (name in _WHOLE or there < wanted):
                raise ValueError(
                    f"{len(failed)} of {len(sweep)} runs for {name} failed, the first with: {failed[0]['error']}; "
                    "allowed: as many as leave something to draw; the next time they are tried again"
                )

    def network(self) -> Any:
        """The trained network whose weights are shown."""
        from persianrug.training import Network

        return Network.load(self.folder / _WEIGHTS / self["shown"][0]["weights"])


@dataclass(frozen=True)
class Figure:
    """A figure of the page: what it is called, what it shows, and what it is drawn from."""

    title: str
    caption: str
    sweeps: tuple[str, ...]
    draw: Callable[[Data], Picture]


def _rug(_data: Data) -> Picture:
    from persianrug.encoders import Rug
    from persianrug.figures.rug import rug

    return rug(Rug.of_ratio(512, _SHOWN_RATIO, signs=False))


def _weights(data: Data) -> Picture:
    from persianrug.autoencoder import Autoencoder
    from persianrug.decoders import ReLU
    from persianrug.encoders import Rug
    from persianrug.figures.weights import weights
    from persianrug.sources import SparseUniform

    network = data.network()
    source = SparseUniform(_SHOWN_P)
    rug = Rug.of_ratio(data.plan.shown_n, _SHOWN_RATIO, signs=False)
    relu: Any = Autoencoder(rug, ReLU()).tune(source).decoder
    W = rug.W_rows(0, rug.n_sparse).double().numpy()
    mean = float(source.mean)
    # Of the network that the rug's decoder is; see `read_weights`.
    bias = relu.gain * (mean - W.sum(axis=1) * mean) + relu.bias
    trained = (network.W_out.double() @ network.W_in.double()).numpy()
    return weights([
        (f"trained, n = {data.plan.shown_n}", trained, network.bias.double().numpy()),
        (f"rug, n = {data.plan.shown_n}", relu.gain * W, bias),
    ])  # fmt: skip


_CURVES = ("trained", "rug", "knot")


def _against(along: Literal["ratio", "p"]) -> Callable[[Data], Picture]:
    def draw(data: Data) -> Picture:
        from persianrug.figures.losses import losses

        return losses([row for kind in _CURVES for row in data[f"{along}-{kind}"]], along)

    return draw


def _planes(key: str, label: str, rugs: bool = False) -> Callable[[Data], Picture]:
    def draw(data: Data) -> Picture:
        from persianrug.figures.heatmaps import heatmap

        planes = [
            (f"trained, n = {n}", [row for row in data["plane"] if row["n_sparse"] == n]) for n in data.plan.sizes
        ]
        if rugs:
            found = data["plane-rug"]
            planes.append((f"rug, n = {_RUG}", found))
            planes.append(("rug, law", [{**row, key: row["limit"]} for row in found]))
        return heatmap(planes, key, label)

    return draw


def _scaling(data: Data) -> Picture:
    from persianrug.figures.scaling import scaling

    return scaling(data["rare"], _CUT_RATIO)


def _ladder(data: Data) -> Picture:
    from persianrug.figures.ladder import ladder

    return ladder(data["ladder"], _CUT_RATIO)


def _recovery(data: Data) -> Picture:
    from persianrug.figures.recovery import recovery

    return recovery(data["recovery"])


def _budget(data: Data) -> Picture:
    from persianrug.figures.budget import budget

    return budget([row for name in _BUDGETS for row in data[name]])


def _statistic(key: str, label: str, title: str, caption: str) -> Figure:
    return Figure(title, caption, ("plane",), _planes(key, label))


FIGURES = {
    "rug": Figure(
        "The Persian rug",
        "W = W_out W_in of 512 features on 128 dimensions, made of rows of a Hadamard matrix. Nothing was "
        "trained. (Paper: figure 1.)",
        (), _rug,
    ),
    "weights": Figure(
        "Weights of a trained network and of a rug",
        "The first 30 features, and all entries. Diagonals are equal in both. Off the diagonal the rug's entries "
        "are symmetric about 0; the trained network has a tail of large negative ones, which a ReLU forgives. "
        "(Paper: figure 2a.)",
        ("shown",), _weights,
    ),
    "loss-ratio": Figure(
        "Loss against ratio",
        "Lines are laws, made before anything is measured; points are measurements with their standard errors. "
        "Where p is small, few features of a training's samples are ever active, and short trainings of small "
        "networks do not reach the rug. (Paper: figure 2b and the loss curves.)",
        tuple(f"ratio-{kind}" for kind in _CURVES), _against("ratio"),
    ),
    "loss-p": Figure(
        "Loss against p", "As above, at five ratios.", tuple(f"p-{kind}" for kind in _CURVES), _against("p"),
    ),
    "budget": Figure(
        "Where the law describes training, and where training beats it",
        "Loss of trained networks relative to the law of the rug, by size and by training steps. Above 1 training "
        "is not at its end, or could not reach the rug; below 1 it has found something better than a rug. "
        "(Not in the paper.)",
        _BUDGETS, _budget,
    ),
    "heatmap-loss": Figure(
        "Loss over the plane",
        "Trained networks, the rug as measured, and its law. (Paper: the loss of its figures 4 to 6.)",
        ("plane", "plane-rug"), _planes("measured", "loss per feature", rugs=True),
    ),
    "heatmap-diagonal": _statistic(
        "diagonal_variance", "variance of W_ii over features", "Do diagonals differ?",
        "The paper takes a network to be symmetric where this falls as n_sparse grows.",
    ),
    "heatmap-bias": _statistic(
        "bias_variance", "variance of the bias over features", "Do biases differ?", "As above.",
    ),
    "heatmap-interference": _statistic(
        "interference_variance_mean", "mean over features of Var nu_i", "How much interference is there?",
        "The variance over data of nu_i, what other features add to the argument of the ReLU; mean over features.",
    ),
    "heatmap-interference-spread": _statistic(
        "interference_variance_variance", "variance over features of Var nu_i", "Does interference differ?",
        "The variance over features of what the figure above shows the mean of.",
    ),
    "heatmap-offset": _statistic(
        "interference_mean_variance", "variance over features of E nu_i", "Do means of interference differ?",
        "A bias can make up for such a mean, so that it does not break the symmetry by itself.",
    ),
    "heatmap-lyapunov-max": _statistic(
        "lyapunov_max", "largest Lyapunov ratio of a row", "Lyapunov's condition, worst row",
        "sum_j |W_ij|^3 / (sum_j W_ij^2)^(3/2), j ≠ i: interference is Gaussian where it vanishes; it is 1 where "
        "a single entry is all there is.",
    ),
    "heatmap-lyapunov-mean": _statistic(
        "lyapunov_mean", "mean Lyapunov ratio of the rows", "Lyapunov's condition, mean over rows", "As above.",
    ),
    "heatmap-ks": _statistic(
        "ks_p_value", "KS test, p-value", "Is interference Gaussian?",
        "Median over features of the p-value of nu_i against a Gaussian, on 1024 samples: about 0.5 where it is "
        "one, 0 where it is not.",
    ),
    "heatmap-skewness": _statistic(
        "skewness", "|skewness| of the entries of a row", "Are entries off the diagonal symmetric noise?",
        "Mean over rows, without its sign, which is negative where it is large. 0 for a rug. (Not in the paper.)",
    ),
    "scaling": Figure(
        "Rare features",
        "The ReLU law between its two proven bounds, and measurements on a rug of 2^20 features. Relative to "
        "p sigma², which the best elementwise decoder tends to as p → 0, the law grows like log(1 / p).",
        ("rare",), _scaling,
    ),
    "ladder": Figure(
        "How much another elementwise decoder could gain",
        "Losses of elementwise decoders on the rug's code relative to the posterior mean. The paper says that "
        "nothing elementwise gains more than a constant factor.",
        ("ladder",), _ladder,
    ),
    "recovery": Figure(
        "Beyond elementwise: exact recovery from the same code",
        "OAMP reads the same code again and again. Above a threshold it recovers everything. (Not in the paper.)",
        ("recovery",), _recovery,
    ),
}  # fmt: skip
"""The figures of the page, in its order."""


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
    jobs = _checks.integer("jobs", jobs, 1)
    if figure is not None:
        _checks.one_of("figure", figure, FIGURES)
    place = _prepare(Path(folder), plan, force)
    chosen = FIGURES if figure is None else {figure: FIGURES[figure]}
    needed = {name for one in chosen.values() for name in one.sweeps}
    planned = {name: sweep for name, sweep in sweeps(plan).items() if name in needed}
    began = time.perf_counter()
    if planned:
        # A store that cannot be used is said at once.
        Store(place / _STORE).close()
        seconds = estimate(list(planned.values()), place / _STORE, jobs)
        if seconds:
            say(
                f"about {_spoken(seconds)} on {jobs} process{'es' * (jobs > 1)}, and half a minute for the figures"
            )
    for name, sweep in planned.items():

        def report(done: int, whole: int, what: str = f"runs for {name}") -> None:
            progress(done, whole, what)

        weights = place / _WEIGHTS if name == "shown" else None
        # What failed for want of memory may not fail again.
        run_sweep(sweep, place / _STORE, jobs=jobs, weights=weights, retry=True, progress=report)
    data = Data(plan, place, needed)
    for row in data.failed:
        at = f"{row['method']}, n_sparse {row['n_sparse']}, p {row['p']:g}, ratio {row['ratio']:g}"
        say(f"a run failed ({at}): {row['error']}")
    data.check()
    from persianrug.figures._style import files

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
        from persianrug.claims import claims, table
        from persianrug.figures.report import page

        progress(len(chosen), len(chosen), "writing the page")
        found = claims(data)
        for name, content in (
            ("claims.csv", table(found)),
            ("index.html", page(data, chosen, found, pictures, time.perf_counter() - began)),
        ):
            written.append(place / name)
            write_whole(written[-1], content)
    return written


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
    from persianrug.sources import SparseUniform
    from persianrug.training import Training, train

    steps = max(2, min(20, _TRIAL_ENTRIES // (n_sparse * batch)))
    run = next(Sweep((0.1,), (_TRIAL_RATIO,), (n_sparse,), ("sampled",), steps=(steps,), batch=batch).runs())
    with one_thread():
        # The first time, memory is new.
        return min(
            train(Training(n_sparse, run.n_dense, SparseUniform(0.1), steps=steps, batch=batch)).seconds / run.work
            for _ in range(2)
        )


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
