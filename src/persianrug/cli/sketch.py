"""The commands that make sketches of data: fit, plan and compress."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.markup import escape

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import off_by, progress_bar
from persianrug.cli import options

if TYPE_CHECKING:
    from persianrug.sketches.hold_out import HoldOut
    from persianrug.sketches.plan import Plan
    from persianrug.sketches.profile import Profile
    from persianrug.sketches.rows import RowFile
    from persianrug.sketches.sketch import Sketch
from persianrug.cli.pipes import PIPE, binary_stream, expected_loss, size_of, succession_words

_Data = Annotated[
    Path,
    typer.Argument(help="Rows: a .npy, .npz (SciPy sparse or one array), .h5ad, .parquet or .safetensors file."),
]
_Bits = Annotated[
    str | None,
    typer.Option(help="Round entries to so many bits, 1 to 16, or auto.", show_default="32-bit floats"),
]
_Decoder = Annotated[
    str,
    typer.Option(
        help=f"{options.either(options.SKETCH_DECODERS)}; auto is that of the least expected loss.",
        autocompletion=options.completing(options.SKETCH_DECODERS),
    ),
]
_HoldOut = Annotated[
    str,
    typer.Option(
        help="Which rows are held out: random ones; blocks of rows; all of some values in a column, by "
        "column:NAME; those of another file, by its path; or auto, which is blocks where rows follow each other."
    ),
]
_Seed = Annotated[int, typer.Option(help="Of the rug, and of which rows are held out.")]

# Variances of data and of what was fitted that differ by more are both said.
_VARIES = 0.05
# A larger share of near copies among the rows held out is said.
_COPIES = 0.5

# Before the name of a column that says which rows belong together.
_COLUMN = "column:"

# Modules that need PyTorch are imported where they are used, so that help and usage errors come at once.


def fit(
    data: _Data,
    out: Annotated[Path, typer.Option(help="The profile, a .json file; it holds the rows held out, too.")],
    layer: options.Layer = None,
    hold_out: _HoldOut = "auto",
    seed: Annotated[int, typer.Option(help="Of which rows are held out.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Learn the profile of data in one pass: how features are distributed and go together, and rows held out.

    Example: persianrug fit cells.npz --out profile.json
    """
    from persianrug._support import checks
    from persianrug._support.files import check_writable

    checks.seed(seed)
    if out.suffix.lower() != ".json":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .json")
    check_writable(out)

    from persianrug.sketches.rows import open_rows

    profile, held = _fit(open_rows(data, layer=layer, column=_column(hold_out)), seed, hold_out)
    profile.save(out)
    report = {**_described(profile), "succession": held.succession, "out": str(out)}
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(
        f"{escape(str(out))}: profile of {_features(profile)} from {profile.rows} rows, "
        f"{escape(_held_words(profile, hold_out))}"
    )
    if held.follows and held.succession is not None:
        console.print(succession_words(held.succession))
    console.print(
        f"{report['source']} amplitudes, p = {report['p']:.4g} on average, mean = {report['mean']:.4g}, "
        f"variance = {report['variance']:.4g}"
    )
    variance = profile.data_variance
    if variance is not None and abs(report["variance"] - variance) > _VARIES * variance:
        console.print(
            f"the rows that were fitted have a variance of {variance:.4g}: fitted amplitudes do not quite meet it"
        )
    _say_unseen(console, profile.unseen)
    _say_broken(console, profile)
    _say_copies(console, profile)


def plan(
    profile: Annotated[Path, typer.Argument(help="A profile that fit wrote.")],
    ratio: options.OptionalRatio = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Find the smallest code that loses no more per feature, instead.")
    ] = None,
    bits: _Bits = None,
    decoder: _Decoder = "auto",
    seed: _Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Say what a code of some size will lose, or how small one can be for a loss.

    Example: persianrug plan profile.json --target-loss 0.02 --bits auto
    """
    from persianrug._support import checks

    size = _size(ratio, target_loss)
    asked = _bits(bits)
    checks.seed(seed)

    from persianrug.sketches.plan import make_plan
    from persianrug.sketches.profile import Profile

    learned = Profile.load(profile)
    found, _ = make_plan(learned, **size, bits=asked, decoder=decoder, seed=seed)
    if as_json:
        typer.echo(json.dumps({**_described(learned), **found.recipe()}, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(f"{escape(str(profile))}: {_features(learned)}, {learned.rows} rows fitted")
    _say_plan(console, found, learned)


def compress(
    data: Annotated[
        Path,
        typer.Argument(
            help="Rows: a .npy, .npz (SciPy sparse or one array), .h5ad, .parquet or .safetensors file; "
            "- for a .npy array on standard input, with --profile."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The codes, a .rug file; - for standard output.")],
    profile: Annotated[
        Path | None, typer.Option(help="A profile that fit wrote.", show_default="of the data, fitted first")
    ] = None,
    laws: Annotated[Path | None, typer.Option(hidden=True, help="What --profile was called.")] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="Codes as in this .rug file in the same folder, with which the new one shares its sketch."
        ),
    ] = None,
    ratio: options.OptionalRatio = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Take the smallest code that loses no more per feature, instead.")
    ] = None,
    bits: _Bits = None,
    decoder: _Decoder = "auto",
    layer: options.Layer = None,
    hold_out: Annotated[
        str | None,
        typer.Option(help="Without --profile: which rows are held out, as of fit.", show_default="auto"),
    ] = None,
    seed: _Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Write the rows of data as codes of fixed size, whose loss is known before.

    Example: persianrug compress cells.npz --target-loss 0.02 --bits 8 --out cells.rug
    """
    if laws is not None:
        options.refuse({"--profile": profile}, "--laws", "which is what it was called")
        typer.echo("persianrug: --laws is now called --profile", err=True)
        profile = laws
    if like is not None:
        given = {"--profile": profile, "--hold-out": hold_out, "--ratio": ratio, "--target-loss": target_loss,
                 "--bits": bits, "--seed": seed or None}  # fmt: skip
        given["--decoder"] = None if decoder == "auto" else decoder
        options.refuse(given, "--like", "whose sketch it takes")
    size = {} if like is not None else _size(ratio, target_loss)
    asked = _bits(bits)

    from persianrug._support import checks
    from persianrug._support.files import check_writable

    checks.seed(seed)
    if profile is not None:
        options.refuse({"--hold-out": hold_out}, "--profile", "which has rows held out")
    if data == PIPE and profile is None and like is None:
        raise ValueError("--profile is missing; allowed with standard input, which is read but once: one of fit")
    if out == PIPE:
        if like is not None:
            raise ValueError(f"--out is -; allowed with --like: a file in the folder of {like}")
        _refuse_terminal()
    else:
        _check_rug(out)
        check_writable(out)

    from persianrug.sketches.plan import make_plan
    from persianrug.sketches.profile import Profile
    from persianrug.sketches.rows import open_rows

    pipe = binary_stream(sys.stdin) if data == PIPE else None
    rows = open_rows("standard input" if data == PIPE else data, pipe, layer, _column(hold_out))
    if like is not None:
        _compress_like(like, rows, out, as_json)
        return
    learned = _fit(rows, seed, hold_out or "auto")[0] if profile is None else Profile.load(profile)
    learned.check_names(rows.names, rows.n_sparse, f"data in {rows.path}")
    found, sketch = make_plan(learned, **size, bits=asked, decoder=decoder, seed=seed)
    written = _write(rows, sketch, out, plan=found, names=rows.names or learned.names)
    if out == PIPE:
        return
    report = {**found.recipe(), **written}
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    _say_written(console, report)
    _say_plan(console, found, learned)


def _compress_like(like: Path, rows: RowFile, out: Path, as_json: bool) -> None:
    """Write rows as codes whose sketch is in another file."""
    from persianrug.sketches.features import check_features
    from persianrug.sketches.rug_reader import RugReader

    if like.parent.resolve() != out.parent.resolve():
        raise ValueError(f"--like is {like}; allowed: a file in the folder of {out}")
    if like.resolve() == out.resolve():
        raise ValueError(f"--like is {like}, which is --out, too; allowed: another file")
    with RugReader(like) as reader:
        sketch = reader.sketch
        where = f"data in {rows.path}"
        check_features(reader.names, sketch.rug.n_sparse, rows.names, rows.n_sparse, where, f"are in {like}")
        written = _write(rows, sketch, out, like=reader)
        report = {**(reader.plan or {}), **written, "like": reader.origin[0]}
        expected = expected_loss(reader.plan, sketch)
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    _say_written(console, report)
    console.print(
        f"read by {sketch.decoder}, expected loss {expected:.5g} per feature; {escape(report['like'])} holds the "
        f"sketch of both files and must stay beside {escape(report['out'])}"
    )


def _write(rows: RowFile, sketch: Sketch, out: Path, **options: Any) -> dict[str, Any]:
    """Write codes of rows, and say how much that is."""
    from persianrug._support.files import whole_file
    from persianrug.sketches.rug_writer import RugWriter

    target: AbstractContextManager[BinaryIO] = (
        nullcontext(binary_stream(sys.stdout)) if out == PIPE else whole_file(out)
    )
    with (
        target as file,
        RugWriter(file, sketch, named=rows.named, **options) as writer,
        progress_bar(1, "compressing") as bar,
    ):
        for block, names in zip(rows.blocks(), rows.blocks_of_names(), strict=True):
            writer.write(sketch.encode(block), names)
            bar(block.shape[0], rows.rows)
    return {
        "n_sparse": rows.n_sparse,
        "rows": rows.rows,
        "bytes": 0 if out == PIPE else out.stat().st_size,
        "dense_bytes": 4 * rows.rows * rows.n_sparse,
        "out": str(out),
    }


def _say_written(console: Any, report: dict[str, Any]) -> None:
    size, dense = report["bytes"], report["dense_bytes"]
    console.print(
        f"{escape(report['out'])}: {report['rows']} rows of {report['n_sparse']} features in {size_of(size)}, "
        f"{size / dense:.1%} of {size_of(dense)} as 32-bit floats"
    )


def _fit(rows: RowFile, seed: int, hold_out: str) -> tuple[Profile, HoldOut]:
    from dataclasses import replace

    import numpy as np

    from persianrug.sketches.features import check_features
    from persianrug.sketches.hold_out import KINDS, HoldOut
    from persianrug.sketches.profile import ProfileFitter
    from persianrug.sketches.rows import open_rows

    others = None
    if hold_out not in KINDS and rows.labels is None:
        if not Path(hold_out).exists():
            raise ValueError(
                f"--hold-out is {hold_out!r}; allowed: {options.either(KINDS)}, column:NAME, or a file of rows"
            )
        others = open_rows(hold_out)
        check_features(
            rows.names, rows.n_sparse, others.names, others.n_sparse, f"--hold-out {hold_out}", "are fitted"
        )
    if rows.labels is not None and len(set(rows.labels)) < 2:
        raise ValueError(
            f"--hold-out is {hold_out!r}, which says the same of all rows; allowed: of two values or more"
        )
    held = HoldOut(hold_out if hold_out in KINDS else "auto", rows.rows, rows.labels, seed)
    fitter = ProfileFitter(rows.n_sparse, seed)
    with progress_bar(1, "fitting") as bar:
        start = 0
        for block in rows.blocks():
            none = np.full(block.shape[0], -1)
            fitter.add(block, held.groups(start, block) if others is None else none)
            start += block.shape[0]
            bar(block.shape[0], rows.rows)
        if others is not None:
            start = 0
            for block in others.blocks():
                fitter.add(block, held.group(start, block.shape[0], others.rows))
                start += block.shape[0]
        way = "file" if others is not None else "column" if rows.labels is not None else held.kind
        return replace(fitter.profile(rows.names), held_by=way), held


def _column(hold_out: str | None) -> str | None:
    """The column that says which rows are held out, if one does."""
    return hold_out.removeprefix(_COLUMN) if hold_out is not None and hold_out.startswith(_COLUMN) else None


def _size(ratio: float | None, target_loss: float | None) -> dict[str, Any]:
    from persianrug._support import checks

    if (ratio is None) == (target_loss is None):
        both = "are both given" if ratio is not None else "are both missing"
        raise ValueError(f"--ratio and --target-loss {both}; allowed: one of them")
    if ratio is not None:
        return {"ratio": checks.probability("ratio", ratio)}
    return {"target_loss": checks.positive("target_loss", target_loss)}  # type: ignore[arg-type]


def _bits(bits: str | None) -> int | str | None:
    from persianrug._support import checks

    if bits is None or bits == "auto":
        return bits
    if not bits.isdecimal():
        raise ValueError(f"bits is {bits!r}; allowed: an integer from 1 to 16, or auto")
    return checks.integer("bits", int(bits), 1, 16)


def _check_rug(path: Path) -> None:
    if path.suffix.lower() != ".rug":
        raise ValueError(f"--out is {path}; allowed: a file that ends in .rug, or -")


def _refuse_terminal() -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        raise ValueError("--out is -, and standard output is a terminal; allowed: a pipe or a file")


def _described(profile: Profile) -> dict[str, Any]:
    import numpy as np

    return {
        "n_sparse": profile.n_sparse,
        "rows": profile.rows,
        "held_out_rows": _held(profile),
        "held_by": profile.held_by,
        "source": profile.source.name,
        "p": float(np.mean(profile.source.p)),
        "mean": float(np.mean(profile.source.mean)),
        "variance": float(np.mean(profile.source.variance)),
        "data_variance": profile.data_variance,
        "unseen": profile.unseen,
        "broken": profile.broken,
        "suspect": profile.suspect,
    }


def _held(profile: Profile) -> int:
    return 0 if profile.held_out is None else profile.held_out.shape[0]


def _held_words(profile: Profile, of: str = "another file", rows: str = "") -> str:
    """How many rows are held out, and how: of which file, where they are of another."""
    held = _held(profile)
    if profile.groups is None:
        return f"{held} {rows}held out"
    blocks = len(set(profile.groups.tolist()))
    counted = f"{blocks} block{'s' if blocks > 1 else ''}"
    if profile.held_by == "file":
        return f"{held} rows of {of} held out (error from {counted})"
    return f"{held} {rows}held out in {counted}"


def _say_unseen(console: Any, unseen: int) -> None:
    if unseen:
        console.print(
            f"{unseen} of the features were never active: their distributions are guesses, which do no harm "
            "if they stay 0"
        )


def _say_broken(console: Any, profile: Profile) -> None:
    if profile.broken:
        rows = "a row" if profile.broken == 1 else f"{profile.broken} rows"
        console.print(f"{rows} with over 100 times the energy of any other left out of those held out: broken?")
    if profile.suspect:
        rows = "a row" if profile.suspect == 1 else f"{profile.suspect} rows"
        console.print(f"{rows} with over 100 times the energy of any other among those that were fitted: broken?")


def _say_copies(console: Any, profile: Profile) -> None:
    if profile.groups is not None:
        return
    copies = profile.near_copies
    if copies is not None and copies > _COPIES:
        console.print(
            f"{copies:.0%} of the rows held out are near copies of rows that were fitted: others may lose more; "
            "--hold-out takes a file of other rows"
        )


def _features(profile: Profile) -> str:
    return f"{profile.n_sparse} features"


def _say_plan(console: Any, plan: Plan, profile: Profile) -> None:
    bits = "32-bit floats" if plan.bits is None else f"{plan.bits} bits each"
    console.print(
        f"code: {plan.n_dense} numbers (ratio {plan.ratio:.4g}), {bits}, {plan.bytes_per_row} bytes a row, "
        f"read by {plan.decoder}" + ("" if plan.rank is None else f" with {plan.rank} factors")
    )
    console.print(f"loss per feature, of a variance of {plan.variance:.5g}:")
    which = "were interference Gaussian"
    if plan.rank is not None:
        which = "of features of this covariance" if plan.held_out is None else "of rows as those held out"
    console.print(f"  {plan.law:.5g} predicted, {which}")
    if plan.held_out is None or plan.stderr is None:
        console.print("  there were too few rows to hold some out and see how far that is off")
        return
    off = off_by(plan.loss, plan.law)
    by = "" if off is None else f", {off} of that"
    console.print(
        f"  {plan.loss:.5g} ± {plan.stderr:.1g} expected{by}, by {plan.held_out:.5g} on "
        f"{_held_words(profile, rows='rows ')}"
    )
    if plan.pca is None:
        return
    fewer = "" if plan.pca_components == plan.n_dense else f", all that {profile.sample.shape[0]} rows show"
    console.print(
        f"  {plan.pca:.5g} by {plan.pca_components} principal components, not rounded, on the same rows{fewer}"
    )
    if plan.pca_gain is not None and plan.pca_stderr is not None:
        by = f"by {plan.pca_gain:.3g} ± {plan.pca_stderr:.1g} on the same rows"
        better = f"are better here, {by}: these features are far from independent"
        doubtful = f"lose less here, {by}, which is not beyond doubt"
        console.print(f"principal components, a linear code too, {better if plan.pca_is_better else doubtful}")
    if profile.held_by == "blocks":
        console.print("rows of another session may differ by more; fit --hold-out OTHER measures that")
    _say_unseen(console, plan.unseen)
    _say_broken(console, profile)
    _say_copies(console, profile)
