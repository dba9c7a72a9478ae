"""The command solve: what every decoder loses, predicted and measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import off_by, progress_bar
from persianrug.cli import options
from persianrug.cli.pipes import succession_words

if TYPE_CHECKING:
    import torch

    from persianrug.autoencoder import Autoencoder
    from persianrug.channel import Channel
    from persianrug.decoders.base import Decoder
    from persianrug.decoders.lmmse import LMMSE
    from persianrug.encoders import KnottedRug, Rug
    from persianrug.encoders.base import Encoder
    from persianrug.sketches.hold_out import Halves
    from persianrug.sources import Covariance, Source

# Vectors that an iterative decoder is measured on by default.
_ITERATED = 512
# What is said of decoders that know how features go together.
_TOGETHER = "Features as they go together, predicted by rows held out of the half that was fitted:"
# Parameters of decoders that are reported, where they are numbers.
_PARAMETERS = ("gain", "bias", "threshold")


def solve(
    ratio: options.Ratio,
    p: options.OptionalP = None,
    n_sparse: Annotated[int | None, typer.Option(help="Number of features.", show_default="8192")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help=f"Distribution of active features: {options.either(options.SOURCES)}.",
            show_default="uniform",
            autocompletion=options.completing(options.SOURCES),
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows from a .npy, .npz, .h5ad, .parquet or .safetensors file instead of --p, --source and "
            "--n-sparse: the source is fitted on one half, losses are measured on the other. Halves are random, "
            "or blocks where rows follow each other."
        ),
    ] = None,
    decoders: Annotated[
        str | None,
        typer.Option(
            help=f"Which decoders, separated by commas: {options.either(options.DECODERS)}.",
            show_default="all that fit the source, but cvamp",
            autocompletion=options.completing(options.DECODERS),
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure every loss beside its law.")] = False,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Vectors to measure on.", show_default="4096 at 8192 features, as many entries at others"
        ),
    ] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation of Gaussian noise on the code.")] = 0.0,
    bits: Annotated[
        int | None,
        typer.Option(help="Round the code to so many bits an entry, 1 to 16.", show_default="not rounded"),
    ] = None,
    erasures: Annotated[float, typer.Option(help="Share of the code's entries that go missing, in [0, 1).")] = 0.0,
    zipf: Annotated[
        float | None,
        typer.Option(help="Features that fire at rates like 1 / rank^ZIPF, of which --p is the mean."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the rug, the samples, and the halves of the data.")] = 0,
    device: Annotated[str, typer.Option(help="Where to measure, as PyTorch names it.")] = "cpu",
    save: Annotated[Path | None, typer.Option(help="Save the ReLU autoencoder to this .safetensors file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Predict the loss of every decoder on sparse data, and measure it.

    Example: persianrug solve --p 0.045 --ratio 0.25 --measure
    """
    from persianrug._support import checks
    from persianrug._support.files import check_writable

    checks.probability("ratio", ratio)
    checks.seed(seed)
    if save is not None:
        check_writable(save)
    if data is None:
        if p is None:
            raise ValueError("--p is missing; allowed: a number from 1e-30 to 1, or --data FILE")
        checks.rate("p", p)
        n_sparse = checks.integer("n_sparse", 8192 if n_sparse is None else n_sparse, 2)
    else:
        given = {"--p": p, "--source": source, "--n-sparse": n_sparse, "--samples": samples, "--zipf": zipf}
        options.refuse(given, "--data", "the data has its own")
    if samples is not None:
        checks.integer("samples", samples, 2, checks.MOST_SAMPLES)

    import numpy as np

    from persianrug._support.devices import known_device
    from persianrug.channel import Channel

    channel = Channel(noise, bits, erasures)

    from persianrug.decoders import LMMSE
    from persianrug.encoders import Rug
    from persianrug.sources import SOURCES, zipf_rates

    features: Source
    halves = alike = None
    if p is not None:
        kind = SOURCES[checks.one_of("source", source or "uniform", SOURCES)]
        features = kind(p if zipf is None else zipf_rates(cast(int, n_sparse), p, zipf))
    else:
        alike, features, halves = _fit_half(cast(Path, data), seed)
        n_sparse = halves.others.shape[1]
    rug = Rug.of_ratio(cast(int, n_sparse), ratio, seed)
    channel.kept(rug.n_dense)
    place = known_device(device)
    kinds = _decoders(decoders, features, on_data=data is not None)
    if save is not None and "relu" not in kinds:
        raise ValueError(f"--save is {save}, which saves the relu; allowed with it: decoders with relu among them")
    others = None if halves is None else halves.others
    solver = _Solver(rug, channel, ratio, others, samples, seed, place if measure else None)
    rows: dict[str, dict[str, Any]] = {}
    with progress_bar(len(kinds) * (2 if alike else 1), "solving") as bar:
        for name, kind_of in kinds.items():
            # Of data, features taken as alike come first, then each by its own distribution.
            own = solver.knotted(features) if name == options.KNOT else solver
            if halves is not None and issubclass(kind_of, LMMSE):
                rows[name] = {**solver.together(kind_of, features, halves.fitted, bar), "per_feature": None}
                continue
            rows[name] = own.solve(kind_of(), alike or features, bar)
            if alike:
                fits = name != "topk"
                rows[name]["per_feature"] = solver.solve(kind_of(), features, bar) if fits else None
            if save is not None and name == "relu":
                solver.tuned(kind_of(), features).save(save)
    if as_json:
        described = alike or features
        report: dict[str, Any] = {
            "source": {
                "name": described.name,
                "p": float(np.mean(described.p)),
                "mean": float(np.mean(described.mean)),
                "variance": float(np.mean(described.variance)),
            },
            "ratio": ratio,
            "n_sparse": n_sparse,
            "n_dense": rug.n_dense,
            "seed": seed,
            "channel": {"noise": noise, "bits": bits, "erasures": erasures},
            "decoders": {name: _without(row, "formula") for name, row in rows.items()},
        }
        if zipf is not None:
            report["source"]["zipf"] = zipf
        if alike:
            report["per_feature_source"] = features.name
        if halves is not None:
            report["hold_out"] = {
                "kind": halves.kind,
                "rows": halves.others.shape[0],
                "fitted_rows": halves.fitted.shape[0],
                "succession": halves.succession,
            }
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print_table(solver, alike or features, rows, zipf, data, halves)


@dataclass
class _Solver:
    """What the decoders of one table have in common."""

    rug: Rug | KnottedRug
    channel: Channel
    ratio: float
    rows: Any
    samples: int | None
    seed: int
    device: torch.device | None

    def tuned(self, decoder: Decoder, source: Source) -> Autoencoder:
        from persianrug.autoencoder import Autoencoder

        return Autoencoder(self.rug, decoder, channel=self.channel).tune(source)

    def knotted(self, source: Source) -> _Solver:
        """The same on a rug that is woven of the best knot known for it."""
        from persianrug import knots

        # At the ratio asked for: a knot that fits it may not fit that of so many features, and fillers do.
        knot = knots.best(source, self.ratio, self.channel)
        from persianrug.encoders import KnottedRug

        rug = KnottedRug.weave(knot, self.rug.n_sparse, self.rug.n_dense, self.seed)
        return replace(self, rug=rug)

    def solve(self, decoder: Decoder, source: Source, progress: Any) -> dict[str, Any]:
        """Limit, law and measurement of a decoder tuned to the source, as a JSON object."""
        import numpy as np

        from persianrug.decoders import OAMP, TopK, recovery_threshold
        from persianrug.encoders import KnottedRug, Rug

        model = self.tuned(decoder, source)
        best: Decoder = model.decoder
        encoder: Encoder = self.rug
        knots = self.rug.knots if isinstance(self.rug, KnottedRug) else None
        if source.n_sparse is None and knots is None:
            # The limit is that of the ratio asked for; the model has the nearest that its size allows.
            encoder = Rug.of_ratio(1 << 30, self.ratio)
            best = decoder.adapt(source, encoder, model.channel)
        evolution = None
        if isinstance(model.decoder, OAMP):
            evolution = model.decoder.state_evolution(source, self.rug, model.channel)
        if evolution is not None and source.n_sparse is not None:
            # Here the law is the limit, and takes its time.
            limit = predicted = float(evolution.losses.mean())
        else:
            limit, predicted = float(best.limit(source, encoder, model.channel).mean()), model.law(source)
        row = _row(limit, predicted)
        parameters = {key: value for key, value in model.decoder.recipe().items() if key in _PARAMETERS}
        row |= {key: value for key, value in parameters.items() if not isinstance(value, np.ndarray)}
        if knots:
            row["knot"] = knots[0][0].name
        if isinstance(model.decoder, TopK):
            row["k"] = model.decoder.k
        iterative = evolution is not None
        if evolution is not None:
            row |= {
                "iterations": len(evolution.trace),
                "recovery_threshold": recovery_threshold(source),
                "recovers": evolution.recovers,
                "predicted_trace": evolution.trace.tolist(),
                "measured_trace": None,
            }
        row["formula"] = model.decoder.formula() + (f" on {self.rug}" if knots else "")
        self._measure(model, source, row, progress, iterative=iterative)
        return row

    def together(self, kind: type[LMMSE], source: Source, fitted: Any, progress: Any) -> dict[str, Any]:
        """As `solve`, for a decoder that knows how the features of the rows that were fitted go together.

        What it will lose is said by a quarter of these rows, held out: the others' covariance explains itself.
        """
        import torch

        from persianrug.sketches.hold_out import HoldOut
        from persianrug.sketches.plan import make_plan
        from persianrug.sketches.profile import ProfileFitter

        fitter = ProfileFitter(self.rug.n_sparse, self.seed)
        fitter.add(fitted, HoldOut("auto", fitted.shape[0]).groups(0, fitted))
        profile = fitter.profile()
        _, sketch = make_plan(profile, n_dense=self.rug.n_dense, decoder=kind.name, seed=self.seed)
        covariance = cast("Covariance", sketch.covariance)
        model = self.tuned(kind(covariance), source)
        if profile.held_out is None:
            law = float(cast("LMMSE", model.decoder).law_of(covariance, self.rug, model.channel).mean())
        else:
            known = profile.covariance(covariance.rank)
            other = self.tuned(kind(known.flattened() if covariance.flat else known), source)
            law = other.measure(profile.held_out, seed=self.seed, dtype=torch.float64).loss
        row = {**_row(law, law), "factors": covariance.rank, "formula": model.decoder.formula()}
        self._measure(model, source, row, progress, iterative=False)
        return row

    def _measure(
        self, model: Autoencoder, source: Source, row: dict[str, Any], progress: Any, *, iterative: bool
    ) -> None:
        """Fill in what is measured, if anything is."""
        import torch

        if self.device is None:
            progress(1, 1)
            return
        # Data may have an offset that leaves float32 no digits for what varies; and what is recovered has none.
        wide = self.rows is not None or iterative
        data = source if self.rows is None else self.rows
        samples = self.samples
        if samples is None and iterative and self.rows is None:
            # Each costs as much as some dozen elsewhere.
            samples = _ITERATED
        dtype = torch.float64 if wide else torch.float32
        result = model.measure(
            data, samples=samples, seed=self.seed, device=self.device, dtype=dtype, progress=progress
        )
        row |= {
            "measured": result.loss,
            "stderr": result.stderr,
            "samples": result.samples,
            "microseconds_per_vector": result.microseconds_per_vector,
        }
        if iterative:
            losses = model.trace(data, samples=min(result.samples, 64), seed=self.seed, device=self.device)
            row["measured_trace"] = losses.mean(axis=1).tolist()
            row["recovered"] = result.recovered


def _row(limit: float, predicted: float) -> dict[str, Any]:
    missing = dict.fromkeys(("measured", "stderr", "microseconds_per_vector"))
    return {"limit": limit, "predicted": predicted, **missing}


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    """A JSON object without a key, also in the objects in it."""
    return {
        name: _without(value, key) if isinstance(value, dict) else value
        for name, value in row.items()
        if name != key
    }


def _decoders(names: str | None, source: Source, on_data: bool) -> dict[str, type[Decoder]]:
    """The decoders asked for, or all of use to the source."""
    import numpy as np

    from persianrug._support import checks
    from persianrug.decoders import DECODERS, LMMSE, ReLU
    from persianrug.knots import LEAST_RATE
    from persianrug.sources.second_moments import MOST_VARIANCE

    kinds: dict[str, type[Decoder]] = {**DECODERS, options.KNOT: ReLU}
    # Last comes what leaves the single feature behind.
    kinds["oamp"] = kinds.pop("oamp")
    knottable = source.n_sparse is None and not source.signed and not on_data and source.p >= LEAST_RATE
    if names is not None:
        chosen = {name: kinds[checks.one_of("decoder", name, kinds)] for name in names.split(",")}
        if options.KNOT in chosen and not knottable:
            allowed = f"--p from {LEAST_RATE:g}, and features that are alike and >= 0"
            raise ValueError(f"decoder is 'knot'; allowed with it: {allowed}")
        return chosen
    # A soft threshold is for what has two sides, as one that cuts them off is for what has one.
    left_out = {name for name, kind in kinds.items() if kind.one_sided} if source.signed else {"soft"}
    left_out |= set() if knottable else {options.KNOT}
    # Where features are independent there is nothing for them to know, and the second takes long.
    smooth = on_data and float(np.max(source.variance + np.square(source.mean))) < MOST_VARIANCE
    left_out |= {
        name for name, kind in kinds.items() if issubclass(kind, LMMSE) and not (smooth and kind is LMMSE)
    }
    if source.n_sparse is not None and not on_data:
        # It has no law there; of data it has one for features taken as alike.
        left_out.add("topk")
    return {name: kind for name, kind in kinds.items() if name not in left_out}


def _fit_half(path: Path, seed: int) -> tuple[Source, Source, Halves]:
    """Sources fitted on one half of a file's rows, of all features alike and of each, and the halves."""
    from persianrug.sketches.hold_out import Halves
    from persianrug.sketches.rows import read_rows
    from persianrug.sources import Empirical, SparseGaussian, SparseTruncatedNormal

    halves = Halves.of(read_rows(path), seed)
    alike = Empirical.fit(halves.fitted)
    kind: Any = SparseGaussian if alike.signed else SparseTruncatedNormal
    return alike, kind.fit(halves.fitted), halves


def _print_table(
    solver: _Solver,
    source: Source,
    rows: dict[str, dict[str, Any]],
    zipf: float | None,
    data: Path | None,
    halves: Halves | None,
) -> None:
    import numpy as np

    console = make_console()
    measured = solver.device is not None
    first = next(iter(rows.values()))
    at = f"ratio = {solver.ratio:g}, {solver.rug}"
    if data is None:
        law = f"p = {np.mean(source.p):g}" + (
            f" on average, rates like rank^-{zipf:g}" if zipf is not None else ""
        )
        on = f", measured on {first['samples']} samples" if measured else ""
        console.print(f"{source.name} source, {law}, {at}{on}")
    else:
        console.print(
            f"{escape(str(data))}: p = {source.p:.4f}, mean = {source.mean:.4f}, variance = {source.variance:.4f}"
        )
        on = f", measured on {solver.rows.shape[0]} rows that were not fitted" if measured else ""
        console.print(f"{at}{on}")
    if halves is not None:
        console.print(_halves_words(halves))
    channel = solver.channel
    if not channel.clear:
        parts = [
            f"noise {channel.noise:g}" if channel.noise else "",
            f"{channel.bits} bits" if channel.bits else "",
            f"{channel.erasures:.0%} erased" if channel.erasures else "",
        ]
        console.print(f"code: {', '.join(part for part in parts if part)}")
    if data is None:
        _print_losses(console, rows, measured)
    else:
        tables: dict[str, dict[str, Any]] = {
            "\nAll features taken to be alike:": {n: row for n, row in rows.items() if "factors" not in row},
            "Each feature by its own distribution:": {
                name: row["per_feature"] for name, row in rows.items() if row["per_feature"]
            },
            _TOGETHER: {n: row for n, row in rows.items() if "factors" in row},
        }
        for heading, table in tables.items():
            if table:
                console.print(heading)
                _print_losses(console, table, measured)
    for name, row in rows.items():
        if data is None:
            console.print(f"{name}: x_hat = {escape(row['formula'])}")
        own = row.get("per_feature") or row
        if "recovery_threshold" in own:
            console.print(f"{name}: {_recovery(own, solver)}")
    independent = ["factors" not in row for row in rows.values()]
    if data is not None and measured and any(independent):
        rest = "The laws" if all(independent) else "The other laws"
        console.print(f"{rest} take features to be independent; 'off by' shows what that costs here.")


def _halves_words(halves: Halves) -> str:
    from persianrug.sketches.hold_out import BLOCKS

    fitted, others = halves.fitted.shape[0], halves.others.shape[0]
    if halves.kind == "random" or halves.succession is None:
        return f"split at random: {fitted} rows fitted, {others} held out"
    return (
        f"split in blocks: {fitted} rows fitted, {others} held out in {BLOCKS} blocks\n"
        f"{succession_words(halves.succession)}"
    )


def _print_losses(console: Console, rows: dict[str, dict[str, Any]], measured: bool) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("decoder", no_wrap=True)
    headings = ["limit", "predicted"]
    if measured:
        headings += ["measured", "± stderr", "off by", "µs/vector"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        cells = [f"{row['limit']:.5g}", f"{row['predicted']:.5g}"]
        if measured:
            # Where nothing is lost but rounding errors, their ratio says nothing.
            exact = row.get("recovers") and row.get("recovered") == 1
            cells += [
                f"{row['measured']:.5g}",
                f"{row['stderr']:.1g}",
                "exact" if exact else off_by(row["measured"], row["predicted"], 2) or "-",
                f"{row['microseconds_per_vector']:.1f}",
            ]
        table.add_row(name, *cells)
    console.print(table)


def _recovery(row: dict[str, Any], solver: _Solver) -> str:
    """Whether OAMP recovers, predicted and measured, as a sentence."""
    ratio = solver.channel.kept(solver.rug.n_dense) / solver.rug.n_sparse
    threshold = f"the threshold {row['recovery_threshold']:.3g}"
    if row["recovers"]:
        steps = row["iterations"]
        said = f"exact recovery after {steps} iterations, as the ratio {ratio:.3g} is above {threshold}"
        if "recovered" in row:
            said += f" ({row['recovered']:.1%} of the vectors measured are recovered)"
        return said
    if ratio > row["recovery_threshold"]:
        return f"the ratio {ratio:.3g} is above {threshold}; what is lost is what the code lost"
    return f"no recovery, the ratio {ratio:.3g} is below {threshold}; every vector keeps its best iterate"
