"""What a run does: a decoder on a rug is tuned and measured, or a network is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, cast

from persianrug.sweeps.sweep import KNOT, TRAINED, Run


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
    from persianrug.encoders import KnottedRug, Rug

    began = time.perf_counter()
    source = _source(run)
    knot = knots.best(source, run.ratio) if run.method == KNOT else None
    shape = run.n_sparse, run.n_dense, run.seed
    rug = Rug(*shape) if knot is None else KnottedRug.weave(knot, *shape)
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
    from persianrug.networks.descent import train_many
    from persianrug.networks.symmetry import measure_symmetry
    from persianrug.networks.training import Training

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
