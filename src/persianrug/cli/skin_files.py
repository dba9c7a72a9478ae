"""What the commands of skins share: how skins and their files are given, and how they are said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persianrug._support.extras import installing

if TYPE_CHECKING:
    from persianrug.skin.frames import Frames
    from persianrug.skin.layout import Layout

# Frames a second where neither frames nor a profile say.
RATE = 100.0

FramesFile = Annotated[
    str,
    typer.Argument(
        help="Frames, in newtons: a .npz file (SciPy's CSR parts, or frames) or a .npy file of frames x numbers; "
        "FILE.npz:NAME of a file of several skins."
    ),
]
LayoutFile = Annotated[
    Path | None,
    typer.Option(
        "--layout", help="The taxels, a .npz file.", show_default="the taxels beside the frames, in the same file"
    ),
]
Mat = Annotated[
    str | None,
    typer.Option(help="Taxels of a plane mat in rows, as ROWSxCOLS:PITCH, the pitch in metres: 64x27:0.03."),
]
Ratio = Annotated[float, typer.Option(help="Numbers of a frame for one of its code, 1 or more.")]
Bits = Annotated[int, typer.Option(help="Of each number of a code, 2 to 16.")]
Packets = Annotated[int, typer.Option(help="Packets that the code of each block of patches is sent in.")]
PacketLoss = Annotated[float, typer.Option(help="Share of packets that are lost, in [0, 1).")]


def need_numba() -> None:
    """ValueError with what installs it, unless Numba is here, which compiles the loops of skins."""
    try:
        import numba  # noqa: F401
    except ImportError:
        raise ValueError(f"skins take the package numba; allowed: after {installing('skin')}") from None


def check_recording(out: Path) -> None:
    """ValueError unless a recording can be written there, before any work is done for it."""
    from persianrug._support.files import check_writable

    if out.suffix.lower() != ".mcap":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .mcap")
    check_writable(out)
    try:
        import mcap.writer  # noqa: F401
    except ImportError:
        raise ValueError(f"recordings take the package mcap; allowed: after {installing('skin')}") from None


def layout_of(file: str, layout: Path | None, mat: str | None, n_sparse: int) -> Layout:
    """The layout that frames of so many numbers are of: that which is given, or that beside the frames."""
    from persianrug.skin.layout import Layout

    if mat is not None:
        if layout is not None:
            raise ValueError(f"--mat is {mat} beside --layout; allowed: one of them")
        rows, cols, pitch = _mat(mat)
        axes = 3 if n_sparse == 3 * rows * cols else 1
        return Layout.plane(rows, cols, pitch, axes=axes)
    found = Layout.read(layout) if layout is not None else _beside(file)
    # Frames of pressure alone are those of the same taxels.
    return found.without_shear() if found.axes == 3 and n_sparse == found.n_taxels else found


def _mat(text: str) -> tuple[int, int, float]:
    size, _, pitch = text.partition(":")
    try:
        rows, cols = (int(part) for part in size.split("x"))
        return rows, cols, float(pitch)
    except ValueError:
        raise ValueError(f"--mat is {text!r}; allowed: ROWSxCOLS:PITCH in metres, as 64x27:0.03") from None


def _beside(file: str) -> Layout:
    """The layout whose arrays are in a file of frames."""
    from persianrug._support import npy
    from persianrug.skin.layout import Layout

    path, _ = split_name(file)
    if path.suffix.lower() == ".npz" and {"pos", "taxel_pos"} & set(npy.names(path)):
        return Layout.read(path)
    raise ValueError(f"frames file {file} holds no taxels; allowed: with --layout TAXELS.npz, or of a plane mat "
                     "with --mat ROWSxCOLS:PITCH")  # fmt: skip


def split_name(file: str) -> tuple[Path, str | None]:
    """The path, and the name of one of its skins where one is said: FILE.npz:NAME."""
    head, colon, tail = file.rpartition(":")
    return (Path(head), tail) if colon and Path(head).suffix.lower() == ".npz" else (Path(file), None)


def read(file: str, layout: Path | None, mat: str | None) -> tuple[Frames, Layout]:
    """Frames and the layout that they are of."""
    from persianrug.skin.frames import Frames

    frames = Frames.read(file)
    found = layout_of(file, layout, mat, frames.n_sparse)
    frames.check(found)
    return frames, found


def percent(share: float | None) -> str:
    """A share as it is said; more digits where it is close to all."""
    if share is None:
        return "none"
    return f"{share:.1%}" if share in (0, 1) or share < 0.99 else f"{share:.2%}"


def error_words(error: float | None, stderr: float | None = None) -> str:
    """A relative error in percent, as it is said."""
    if error is None:
        return "none"
    more = "" if stderr is None else f" ± {100 * stderr:.1g}%"
    return f"{100 * error:.3g}%{more}"


def seconds(value: float) -> str:
    """A duration as it is said."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def skin_words(layout: Layout) -> str:
    """What a layout is, in a line."""
    kinds = "pressure" if layout.axes == 1 else "pressure and two shears"
    patches = "1 patch" if len(layout.patches) == 1 else f"{len(layout.patches)} patches"
    return f"{layout.n_taxels} taxels of {kinds} in {patches}"


def finite(value: Any) -> Any:
    """A value for JSON, which has no NaN: None in its place."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
