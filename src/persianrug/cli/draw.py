"""The commands that draw: weave and phase."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianrug._support.terminal import progress_bar
from persianrug.cli import options

if TYPE_CHECKING:
    from persianrug.encoders.base import Encoder


def weave(
    out: Annotated[Path, typer.Option(help="The picture, a .png file.")],
    n_sparse: Annotated[int | None, typer.Option(help="Number of features.", show_default="512")] = None,
    ratio: Annotated[
        float | None, typer.Option(help="n_dense / n_sparse, in (0, 1].", show_default="0.25")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which rows of the transform.", show_default="0")] = None,
    signs: Annotated[bool, typer.Option("--signs", help="Flip signs at random, which hides the pattern.")] = False,
    model: Annotated[Path | None, typer.Option(help="Draw the encoder of this saved autoencoder instead.")] = None,
    pixels: Annotated[
        int | None, typer.Option(help="Side of an entry in pixels.", show_default="for 1024 pixels or more")
    ] = None,
) -> None:
    """Draw the rug's W as a picture.

    Example: persianrug weave --n-sparse 512 --ratio 0.25 --out rug.png
    """
    from persianrug._support import checks
    from persianrug._support.files import check_writable, write_whole

    _check_picture(out)
    check_writable(out)
    if pixels is not None:
        checks.integer("pixels", pixels, 1)
    if model is not None:
        given = {"--n-sparse": n_sparse, "--ratio": ratio, "--seed": seed, "--signs": signs or None}
        options.refuse(given, "--model", "the model has its own")
    ratio = checks.probability("ratio", 0.25 if ratio is None else ratio)

    from persianrug.autoencoder import Autoencoder
    from persianrug.encoders import Rug
    from persianrug.figures.weave import MOST_FEATURES
    from persianrug.figures.weave import weave as draw

    encoder: Encoder
    if model is not None:
        from persianrug._support.tensors import stored_kind
        from persianrug.networks import network

        if stored_kind(model) == network.FORMAT:
            raise ValueError(
                f"--model is {model}, a network; allowed: an autoencoder, as `solve --save` writes one; "
                "`persianrug symmetry` describes the weights of networks"
            )
        encoder = Autoencoder.load(model).encoder
    else:
        n_sparse = checks.integer("n_sparse", 512 if n_sparse is None else n_sparse, 2, MOST_FEATURES)
        encoder = Rug.of_ratio(n_sparse, ratio, 0 if seed is None else seed, signs)
    picture = draw(encoder, -(-1024 // encoder.n_sparse) if pixels is None else pixels)
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    write_whole(out, content.getvalue())
    typer.echo(f"{out}: W of {encoder}, {picture.width} x {picture.height} pixels")


def phase(
    out: Annotated[Path, typer.Option(help="The picture, a .png file.")],
    p: Annotated[float, typer.Option(help="Where to cut the plane, in [0.002, 0.95].")] = 0.045,
    source: options.Source = "uniform",
) -> None:
    """Draw the plane of (p, ratio): what the best decoder loses, and from where it loses nothing.

    Example: persianrug phase --p 0.045 --out phase.png
    """
    from persianrug._support import checks
    from persianrug._support.files import check_writable, write_whole

    _check_picture(out)
    check_writable(out)
    if not 0.002 <= checks.finite("p", p) <= 0.95:
        raise ValueError(f"p is {p}; allowed: a number from 0.002 to 0.95")

    from persianrug.figures.phase import phase as draw
    from persianrug.sources import SOURCES

    kind = SOURCES[checks.one_of("source", source, SOURCES)]
    with progress_bar(1, "drawing") as bar:
        figure = draw(kind, p, bar)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_whole(out, content.getvalue())
    typer.echo(f"{out}: the plane of (p, ratio), {source} source, cut at p = {p:g}")


def _check_picture(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out is {path}; allowed: a file that ends in .png")
