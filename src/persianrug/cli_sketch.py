"""The commands on sketches of data: fit, plan, compress, decompress, inspect, verify."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.markup import escape

from persianrug._terminal import console as make_console
from persianrug._terminal import progress_bar

if TYPE_CHECKING:
    from persianrug.feature_laws import FeatureLaws
    from persianrug.plan import Plan
    from persianrug.rows import RowFile
    from persianrug.sketch import Sketch

_PIPE = Path("-")
# Entries of an estimate smaller than this part of the expected error are written as zeros.
_NEGLIGIBLE = 0.01

_Data = Annotated[
    Path,
    typer.Argument(help="Rows: a .npy, .npz (SciPy sparse or one array), .h5ad, .parquet or .safetensors file."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_Ratio = Annotated[float | None, typer.Option(help="n_dense / n_sparse, in (0, 1].")]
_Bits = Annotated[
    str | None,
    typer.Option(help="Round entries to so many bits, 1 to 16, or auto. [default: 32-bit floats]"),
]
_Decoder = Annotated[str, typer.Option(help="A decoder by name, or auto for that of the least expected loss.")]
_Seed = Annotated[int, typer.Option(help="Of the rug, and of which rows are held out.")]

# Modules that need PyTorch are imported where they are used, so that help and usage errors come at once.


def fit(
    data: _Data,
    out: Annotated[Path, typer.Option(help="The laws, a .json file; it holds the rows held out, too.")],
    seed: _Seed = 0,
    as_json: _Json = False,
) -> None:
    """Learn a law of every feature of data, in one pass."""
    from persianrug import _checks
    from persianrug.files import check_writable

    _checks.integer("seed", seed, 0, 2**63 - 1)
    if out.suffix.lower() != ".json":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .json")
    check_writable(out)

    from persianrug.rows import open_rows

    laws = _fit(open_rows(data), seed)
    laws.save(out)
    report = {**_described(laws), "out": str(out)}
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(f"{escape(str(out))}: laws of {_features(laws)} from {laws.rows} rows, {_held(laws)} held out")
    console.print(
        f"p = {report['p']:.4g} on average, mean = {report['mean']:.4g}, variance = {report['variance']:.4g}"
    )
    if laws.unseen:
        console.print(f"{laws.unseen} of the features were never active: their laws are guesses")


def plan(
    laws: Annotated[Path, typer.Argument(help="Laws that fit wrote.")],
    ratio: _Ratio = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Find the smallest code that loses no more per feature, instead.")
    ] = None,
    bits: _Bits = None,
    decoder: _Decoder = "auto",
    seed: _Seed = 0,
    as_json: _Json = False,
) -> None:
    """Say what a code of some size will lose, or how small one can be for a loss."""
    from persianrug import _checks

    size = _size(ratio, target_loss)
    asked = _bits(bits)
    _checks.integer("seed", seed, 0, 2**63 - 1)

    from persianrug.feature_laws import FeatureLaws
    from persianrug.plan import make_plan

    learned = FeatureLaws.load(laws)
    found, _ = make_plan(learned, **size, bits=asked, decoder=decoder, seed=seed)
    if as_json:
        typer.echo(json.dumps({**found.recipe(), **_described(learned)}, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(f"{escape(str(laws))}: {_features(learned)}, {learned.rows} rows fitted")
    _say_plan(console, found, _held(learned))


def compress(
    data: Annotated[
        Path,
        typer.Argument(
            help="Rows: a .npy, .npz (SciPy sparse or one array), .h5ad, .parquet or .safetensors file; "
            "- for a .npy array on standard input, with --laws."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The codes, a .rug file; - for standard output.")],
    laws: Annotated[
        Path | None, typer.Option(help="Laws that fit wrote. [default: of the data, fitted first]")
    ] = None,
    ratio: _Ratio = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Take the smallest code that loses no more per feature, instead.")
    ] = None,
    bits: _Bits = None,
    decoder: _Decoder = "auto",
    seed: _Seed = 0,
    as_json: _Json = False,
) -> None:
    """Write the rows of data as codes of fixed size, whose loss is known before."""
    size = _size(ratio, target_loss)
    asked = _bits(bits)

    from persianrug import _checks
    from persianrug.files import check_writable, whole_file

    _checks.integer("seed", seed, 0, 2**63 - 1)
    if data == _PIPE and laws is None:
        raise ValueError("--laws is missing; allowed with standard input, which is read but once: laws of fit")
    if out == _PIPE:
        _refuse_terminal()
    else:
        _check_rug(out)
        check_writable(out)

    from persianrug.feature_laws import FeatureLaws
    from persianrug.plan import make_plan
    from persianrug.rows import open_rows
    from persianrug.rugfile import RugWriter

    rows = open_rows("standard input", _stream(sys.stdin)) if data == _PIPE else open_rows(data)
    learned = _fit(rows, seed) if laws is None else FeatureLaws.load(laws)
    learned.check_names(rows.names, rows.n_sparse, f"data in {rows.path}")
    found, sketch = make_plan(learned, **size, bits=asked, decoder=decoder, seed=seed)
    target: AbstractContextManager[BinaryIO] = (
        nullcontext(_stream(sys.stdout)) if out == _PIPE else whole_file(out)
    )
    with (
        target as file,
        RugWriter(file, sketch, plan=found, names=learned.names) as writer,
        progress_bar(1, "compressing") as bar,
    ):
        for block in rows.blocks():
            writer.write(sketch.encode(block))
            bar(block.shape[0], rows.rows)
    if out == _PIPE:
        return
    dense = 4 * rows.rows * rows.n_sparse
    report = {
        **found.recipe(),
        "rows": rows.rows,
        "bytes": out.stat().st_size,
        "dense_bytes": dense,
        "out": str(out),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(
        f"{escape(str(out))}: {rows.rows} rows of {_features(learned)} in {_bytes(report['bytes'])}, "
        f"{report['bytes'] / dense:.1%} of {_bytes(dense)} as 32-bit floats"
    )
    _say_plan(console, found, _held(learned))


def decompress(
    file: Annotated[Path, typer.Argument(help="Codes, a .rug file; - for standard input.")],
    out: Annotated[
        Path, typer.Option(help="The estimates: a SciPy sparse matrix in a .npz file, or an array in a .npy file.")
    ],
    decoder: Annotated[str | None, typer.Option(help="Read codes by this decoder. [default: the planned]")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of a file that is cut off or damaged, take the rows before that.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Estimate the rows of data from their codes."""
    from persianrug.files import check_writable

    if out.suffix.lower() not in (".npz", ".npy"):
        raise ValueError(f"--out is {out}; allowed: a file that ends in .npz or .npy")
    if partial and file == _PIPE:
        raise ValueError("--partial is given; allowed: with a file, not with standard input")
    check_writable(out)

    from dataclasses import replace

    import numpy as np

    from persianrug.rows import RowWriter
    from persianrug.rugfile import RugReader

    opened = RugReader.stream(_stream(sys.stdin)) if file == _PIPE else RugReader(file)
    with opened as reader:
        sketch = reader.sketch if decoder is None else replace(reader.sketch, decoder=decoder)
        if reader.problem is not None and not partial:
            raise ValueError(f"rug file {file} is damaged: {reader.problem}; allowed: whole files, or --partial")
        expected = _expected(reader.plan, sketch)
        problem, written = reader.problem, 0
        with (
            RowWriter(out, sketch.rug.n_sparse, reader.dtype, _NEGLIGIBLE * expected**0.5) as writer,
            progress_bar(1, "decompressing") as bar,
        ):
            chunks = reader.chunks()
            while True:
                try:
                    codes = next(chunks, None)
                except ValueError as error:
                    if not partial:
                        raise
                    problem = str(error)
                    break
                if codes is None:
                    break
                writer.write(np.asarray(sketch.decode(codes)))
                written += len(codes)
                if file != _PIPE:
                    bar(len(codes), len(reader))
    report = {
        "rows": written,
        "n_sparse": sketch.rug.n_sparse,
        "decoder": sketch.decoder,
        "expected_loss": expected,
        "problem": problem,
        "bytes": out.stat().st_size,
        "out": str(out),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(
        f"{escape(str(out))}: {written} rows of {sketch.rug.n_sparse} features by {sketch.decoder}, expected loss "
        f"{expected:.5g} per feature"
    )
    if problem is not None:
        console.print(f"{escape(str(file))} is damaged: {escape(problem)}; these are the rows before that")


def inspect(
    file: Annotated[Path, typer.Argument(help="Codes, a .rug file.")],
    as_json: _Json = False,
) -> None:
    """Say what a file of codes holds."""
    from persianrug.rugfile import RugReader

    with RugReader(file) as reader:
        sketch = reader.sketch
        report: dict[str, Any] = {
            "rows": len(reader),
            "n_sparse": sketch.rug.n_sparse,
            "n_dense": sketch.rug.n_dense,
            "seed": sketch.rug.seed,
            "bits": reader.bits,
            "dtype": reader.dtype.name,
            "decoder": sketch.decoder,
            "source": sketch.source.name,
            "mixture": reader.mixture.recipe(),
            "chunk_rows": reader.chunk_rows,
            "chunks": reader.chunk_count,
            "digest": reader.digest,
            "plan": reader.plan,
            "names": None if reader.names is None else len(reader.names),
            "problem": reader.problem,
            "bytes": file.stat().st_size,
        }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    kind = report["dtype"] if reader.bits is None else f"{reader.bits}-bit levels"
    console.print(
        f"{escape(str(file))}: {len(reader)} rows of {sketch.rug.n_sparse} features as {sketch.rug.n_dense} "
        f"numbers ({kind}), {_bytes(report['bytes'])} in {reader.chunk_count} chunks"
    )
    console.print(f"{sketch.rug}, digest {reader.digest[:16]}")
    console.print(f"read by {sketch.decoder}, expected loss {_expected(reader.plan, sketch):.5g} per feature")
    if not reader.mixture.single:
        console.print(f"every row is a sum of {reader.mixture.terms} vectors")
    console.print("complete" if reader.problem is None else f"damaged: {reader.problem}")


def verify(
    file: Annotated[Path, typer.Argument(help="Codes, a .rug file.")],
    data: Annotated[
        Path | None, typer.Option(help="The rows that were compressed: measure what the codes lose, too.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Compare all checksums of a file of codes, and what it loses with what was predicted."""
    import math

    import numpy as np

    from persianrug.rows import open_rows
    from persianrug.rugfile import RugReader

    with RugReader(file) as reader:
        rows = reader.verify()
        report: dict[str, Any] = {"rows": rows, "chunks": reader.chunk_count, "complete": True}
        if data is not None:
            original = open_rows(data)
            if (original.rows, original.n_sparse) != (rows, reader.sketch.rug.n_sparse):
                raise ValueError(
                    f"data in {data} has shape {(original.rows, original.n_sparse)}; "
                    f"allowed: that of what was compressed, {(rows, reader.sketch.rug.n_sparse)}"
                )
            found, start = [], 0
            with progress_bar(1, "measuring") as bar:
                for block in original.blocks():
                    x = block.toarray() if hasattr(block, "toarray") else block
                    x_hat = np.asarray(reader.sketch.decode(reader[start : start + len(x)]))
                    found.append(np.square(x_hat.astype(np.float64) - x).mean(axis=1))
                    start += len(x)
                    bar(len(x), rows)
            losses = np.concatenate(found)
            report |= {
                "law": reader.sketch.law() if reader.plan is None else reader.plan["law"],
                "expected": _expected(reader.plan, reader.sketch),
                "measured": float(losses.mean()),
                "stderr": float(losses.std(ddof=1) / math.sqrt(rows)) if rows > 1 else None,
            }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(f"{escape(str(file))}: {rows} rows in {report['chunks']} chunks, all checksums fit")
    if data is not None:
        stderr = "" if report["stderr"] is None else f" ± {report['stderr']:.1g}"
        off = report["measured"] / report["expected"] - 1 if report["expected"] else 0.0
        by = f" ({off:+.1%} of what was expected)" if off < 10 else ""
        console.print(
            f"loss per feature: {report['law']:.5g} by the law, {report['expected']:.5g} expected, "
            f"{report['measured']:.5g}{stderr} measured{by}"
        )


def _fit(rows: RowFile, seed: int) -> FeatureLaws:
    from persianrug.feature_laws import LawFitter

    fitter = LawFitter(rows.n_sparse, seed)
    with progress_bar(1, "fitting") as bar:
        for block in rows.blocks():
            fitter.add(block)
            bar(block.shape[0], rows.rows)
        return fitter.laws(rows.names)


def _size(ratio: float | None, target_loss: float | None) -> dict[str, Any]:
    from persianrug import _checks

    if (ratio is None) == (target_loss is None):
        both = "are both given" if ratio is not None else "are both missing"
        raise ValueError(f"--ratio and --target-loss {both}; allowed: one of them")
    if ratio is not None:
        return {"ratio": _checks.probability("ratio", ratio)}
    return {"target_loss": _checks.positive("target_loss", target_loss)}  # type: ignore[arg-type]


def _bits(bits: str | None) -> int | str | None:
    from persianrug import _checks

    if bits is None or bits == "auto":
        return bits
    if not bits.isdecimal():
        raise ValueError(f"bits is {bits!r}; allowed: an integer from 1 to 16, or auto")
    return _checks.integer("bits", int(bits), 1, 16)


def _check_rug(path: Path) -> None:
    if path.suffix.lower() != ".rug":
        raise ValueError(f"--out is {path}; allowed: a file that ends in .rug, or -")


def _stream(stream: Any) -> BinaryIO:
    if stream is None:
        raise ValueError("a standard stream is closed; allowed: an open one, or a file")
    buffer: BinaryIO = stream.buffer
    return buffer


def _refuse_terminal() -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        raise ValueError("--out is -, and standard output is a terminal; allowed: a pipe or a file")


def _described(laws: FeatureLaws) -> dict[str, Any]:
    import numpy as np

    return {
        "n_sparse": laws.n_sparse,
        "rows": laws.rows,
        "held_out_rows": _held(laws),
        "source": laws.source.name,
        "p": float(np.mean(laws.source.p)),
        "mean": float(np.mean(laws.source.mean)),
        "variance": float(np.mean(laws.source.variance)),
        "unseen": laws.unseen,
    }


def _held(laws: FeatureLaws) -> int:
    return 0 if laws.held_out is None else laws.held_out.shape[0]


def _features(laws: FeatureLaws) -> str:
    return f"{laws.n_sparse} features"


def _expected(plan: dict[str, Any] | None, sketch: Sketch) -> float:
    """The loss that was planned with this decoder, or its law."""
    if plan is not None and plan.get("decoder") == sketch.decoder:
        return float(plan["loss"])
    return sketch.law()


def _say_plan(console: Any, plan: Plan, held_out: int) -> None:
    bits = "32-bit floats" if plan.bits is None else f"{plan.bits} bits each"
    console.print(
        f"code: {plan.n_dense} numbers (ratio {plan.ratio:.4g}), {bits}, {plan.bytes_per_row} bytes a row, "
        f"read by {plan.decoder}"
    )
    console.print(f"loss per feature, of a variance of {plan.variance:.5g}:")
    console.print(f"  {plan.law:.5g} predicted, were interference Gaussian")
    if plan.held_out is None or plan.stderr is None:
        console.print("  there were too few rows to hold some out and see how far that is off")
        return
    off = plan.loss / plan.law - 1 if plan.law else 0.0
    by = f", {off:+.1%} of that" if off < 10 else ""
    console.print(
        f"  {plan.loss:.5g} ± {plan.stderr:.1g} expected{by}, by {plan.held_out:.5g} on {held_out} rows held out"
    )
    if plan.pca is None:
        return
    fewer = "" if plan.pca_components == plan.n_dense else f", all that {plan.pca_components + 1} rows show"  # type: ignore[operator]
    console.print(
        f"  {plan.pca:.5g} by {plan.pca_components} principal components, not rounded, on the same rows{fewer}"
    )
    if plan.pca_is_better:
        console.print(
            "principal components, a linear code too, are better here: these features are far from independent"
        )


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
