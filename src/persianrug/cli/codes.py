"""The commands on files of codes: decompress, inspect and verify."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import off_by, progress_bar
from persianrug.cli import options
from persianrug.cli.pipes import PIPE, binary_stream, expected_loss, size_of

if TYPE_CHECKING:
    from persianrug.sketches.rug_reader import RugReader

# Entries of an estimate smaller than this part of the expected error are written as zeros.
_NEGLIGIBLE = 0.01


def decompress(
    file: Annotated[Path, typer.Argument(help="Codes, a .rug file; - for standard input.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The estimates: a SciPy sparse matrix (.npz), an array (.npy), or with the names of rows and "
            "features an AnnData object (.h5ad) or a table (.parquet)."
        ),
    ],
    decoder: Annotated[
        str | None,
        typer.Option(
            help=f"Read codes by this decoder: {options.either(options.SKETCH_DECODERS[1:])}.",
            show_default="the planned",
            autocompletion=options.completing(options.SKETCH_DECODERS[1:]),
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of a file that is cut off or damaged, take the rows before that.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Estimate the rows of data from their codes.

    Example: persianrug decompress cells.rug --out back.npz
    """
    from persianrug._support.files import check_writable

    if out.suffix.lower() not in options.WRITTEN:
        raise ValueError(f"--out is {out}; allowed: a file that ends in {options.either(options.WRITTEN)}")
    if partial and file == PIPE:
        raise ValueError("--partial is given; allowed: with a file, not with standard input")
    check_writable(out)

    from dataclasses import replace

    import numpy as np

    from persianrug.decoders import DECODERS, LMMSE
    from persianrug.sketches.row_writer import RowWriter
    from persianrug.sketches.rug_reader import RugReader

    opened = RugReader.stream(binary_stream(sys.stdin)) if file == PIPE else RugReader(file)
    with opened as reader:
        sketch = reader.sketch
        if decoder is not None:
            sketch = replace(sketch, decoder=decoder)
            if issubclass(DECODERS[decoder], LMMSE) and sketch.covariance is None:
                others = [name for name in options.SKETCH_DECODERS[1:] if not issubclass(DECODERS[name], LMMSE)]
                raise ValueError(
                    f"--decoder is {decoder}; allowed of {file}, which does not know how features go together: "
                    f"{options.either(others)}"
                )
        if reader.problem is not None and not partial:
            raise ValueError(f"rug file {file} is damaged: {reader.problem}; allowed: whole files, or --partial")
        expected = expected_loss(reader.plan, sketch)
        problem, written = reader.problem, 0
        with (
            RowWriter(
                out, sketch.rug.n_sparse, reader.dtype, _NEGLIGIBLE * expected**0.5, reader.names, reader.named
            ) as writer,
            progress_bar(1, "decompressing") as bar,
        ):
            chunks = reader.named_chunks()
            while True:
                try:
                    chunk = next(chunks, None)
                except ValueError as error:
                    if not partial:
                        raise
                    problem = str(error)
                    break
                if chunk is None:
                    break
                codes, names = chunk
                writer.write(np.asarray(sketch.decode(codes)), names)
                written += len(codes)
                if file != PIPE:
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
    as_json: options.Json = False,
) -> None:
    """Say what a file of codes holds, and with exit code 2 if it is cut off or damaged.

    Example: persianrug inspect cells.rug
    """
    from persianrug.sketches.rug_reader import RugReader

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
            "rank": None if sketch.covariance is None else sketch.covariance.rank,
            "source": sketch.source.name,
            "mixture": reader.mixture.recipe(),
            "chunk_rows": reader.chunk_rows,
            "chunks": reader.chunk_count,
            "digest": reader.digest,
            "plan": reader.plan,
            "names": None if reader.names is None else len(reader.names),
            "row_names": reader.named,
            "like": reader.like,
            "problem": reader.problem,
            "bytes": file.stat().st_size,
        }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        _print_inspected(file, reader, report)
    if reader.problem is not None:
        raise ValueError(
            f"rug file {file} is damaged: {reader.problem}; allowed: whole files, or decompress --partial for the "
            "rows before that"
        )


def _print_inspected(file: Path, reader: RugReader, report: dict[str, Any]) -> None:
    console = make_console()
    sketch = reader.sketch
    kind = report["dtype"] if reader.bits is None else f"{reader.bits}-bit levels"
    console.print(
        f"{escape(str(file))}: {len(reader)} rows of {sketch.rug.n_sparse} features as {sketch.rug.n_dense} "
        f"numbers ({kind}), {size_of(report['bytes'])} in {reader.chunk_count} chunks"
    )
    console.print(f"{sketch.rug}, digest {reader.digest[:16]}")
    covariance = sketch.covariance
    of = "the file" if reader.like is None else reader.like
    known = (
        ""
        if covariance is None
        else f" with {covariance.rank} factors, {size_of(covariance.bytes)} of {escape(of)}"
    )
    console.print(
        f"read by {sketch.decoder}{known}, expected loss {expected_loss(reader.plan, sketch):.5g} per feature"
    )
    if reader.like is not None:
        console.print(f"its sketch is in {escape(reader.like)}, which must stay beside it")
    if reader.mixture.terms > 1:
        console.print(f"every row is a sum of {reader.mixture.terms} vectors")
    elif reader.mixture.words:
        console.print(f"every row is a vector {reader.mixture.words}")
    console.print("complete" if reader.problem is None else f"damaged: {reader.problem}")


def verify(
    file: Annotated[Path, typer.Argument(help="Codes, a .rug file.")],
    data: Annotated[
        Path | None, typer.Option(help="The rows that were compressed: measure what the codes lose, too.")
    ] = None,
    layer: options.Layer = None,
    as_json: options.Json = False,
) -> None:
    """Compare all checksums of a file of codes, and what it loses with what was predicted.

    Example: persianrug verify cells.rug --data cells.npz
    """
    import math

    import numpy as np

    from persianrug.sketches.rows import open_rows
    from persianrug.sketches.rug_reader import RugReader

    if layer is not None and data is None:
        raise ValueError(f"--layer is {layer!r}; allowed with --data")
    with RugReader(file) as reader:
        rows = reader.verify()
        report: dict[str, Any] = {"rows": rows, "chunks": reader.chunk_count, "complete": True}
        if data is not None:
            original = open_rows(data, layer=layer)
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
                "expected": expected_loss(reader.plan, reader.sketch),
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
        off = off_by(report["measured"], report["expected"])
        by = "" if off is None else f" ({off} of what was expected)"
        console.print(
            f"loss per feature: {report['law']:.5g} by the law, {report['expected']:.5g} expected, "
            f"{report['measured']:.5g}{stderr} measured{by}"
        )
