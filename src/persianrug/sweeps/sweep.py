"""The grid of a sweep, and its runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from persianrug._support import checks

# Methods that train a network; all others measure a decoder on a rug, or the ReLU on the best knot known.
TRAINED = ("sampled", "closure")
KNOT = "knot"

# Networks that are trained in one batch: at most so many, and with so many features of vectors in a step.
_MOST_TOGETHER = 16
_MOST_ENTRIES = 1 << 22
# Runs of a sweep.
MOST_RUNS = 1_000_000


@dataclass(frozen=True)
class Sweep:
    """A grid of runs: all combinations of what is listed.

    Parameters
    ----------
    p : sequence of float from 1e-30 to 1
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
        from persianrug.knots import LEAST_RATE
        from persianrug.sources import SOURCES

        methods = [*DECODERS, KNOT, *TRAINED]
        rules: dict[str, Callable[[str, Any], Any]] = {
            "p": checks.rate,
            "ratio": checks.probability,
            "n_sparse": lambda name, value: checks.integer(name, value, 2, 1 << 30),
            "method": lambda name, value: checks.one_of(name, value, methods),
            "source": lambda name, value: checks.one_of(name, value, SOURCES),
            "seed": lambda _name, value: checks.seed(value),
            "steps": lambda name, value: checks.integer(name, value, 1),
        }
        for name, check in rules.items():
            given = getattr(self, name)
            if (
                isinstance(given, str | bytes)
                or not isinstance(given, Iterable)
                or not getattr(given, "shape", (1,))
            ):
                given = (given,)
            values = tuple(check(name, value) for value in given)
            if not values:
                raise ValueError(f"{name} is empty, so that the grid has no runs; allowed: at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has {_repeated(values)} twice; allowed: different ones")
            object.__setattr__(self, name, values)
        if KNOT in self.method and min(self.p) < LEAST_RATE:
            raise ValueError(f"p is {min(self.p):g}; allowed with method knot: from {LEAST_RATE:g} to 1")
        object.__setattr__(self, "batch", checks.integer("batch", self.batch, 1))
        if self.samples is not None:
            samples = checks.integer("samples", self.samples, 2, checks.MOST_SAMPLES)
            object.__setattr__(self, "samples", samples)
        if not (isinstance(self.name, str) and 0 < len(self.name) <= 200):
            raise ValueError(f"name is {checks.shown(self.name)}; allowed: a text of 1 to 200 characters")
        if len(self) > MOST_RUNS:
            raise ValueError(f"the grid has {len(self)} runs; allowed: at most {MOST_RUNS}")

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
        checks.path("path", path)
        try:
            parts = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"sweep file {path} cannot be read: {reason}; allowed: a TOML file") from None
        known = [part.name for part in fields(cls)]
        for key in parts:
            checks.one_of(f"a key of {path}", key, known)
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
    scale = checks.one_of(f"{name}.scale", table.get("scale", "linear"), ("linear", "log"))
    check = checks.positive if scale == "log" else checks.not_negative
    for key in ("from", "to"):
        check(f"{name}.{key}", table[key])
    points = checks.integer(f"{name}.points", table["points"], 1, MOST_RUNS)
    whole = isinstance(table["from"], int) and isinstance(table["to"], int)
    low, high = (table[key] if whole else float(table[key]) for key in ("from", "to"))
    spaced = (np.geomspace if scale == "log" else np.linspace)(float(low), float(high), points).tolist()
    # What is typed as a decimal should not be off in the last digit, and no number beyond the ends.
    rounded = (round(number) if whole else float(f"{number:.12g}") for number in spaced[1:-1])
    inner = (max(min(low, high), min(number, max(low, high))) for number in rounded)
    return tuple(dict.fromkeys([low, *inner, *[high][: points - 1]]))


def _repeated(values: Sequence[Any]) -> Any:
    return next(value for k, value in enumerate(values) if value in values[:k])
