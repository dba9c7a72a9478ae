"""What the figures have in common: colours that the colour-blind tell apart, sizes, and files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe and Ito's colours.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"

# Of networks by size, from small to large, so that they differ in lightness and shape too.
SERIES = ((ORANGE, "o"), (GREEN, "s"), (PURPLE, "D"), (SKY, "^"), (VERMILLION, "v"), (BLUE, "P"))

# Of a figure as wide as a page, in inches.
WIDTH = 11.0
# Dots per inch of a PNG.
_DPI = 110

# Numbers below this part of the largest have one colour.
_LEAST_SHOWN = 1e-8

Row = dict[str, Any]


def blank(height: float, width: float = WIDTH) -> Figure:
    """A figure without a window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def files(figure: Figure) -> dict[str, bytes]:
    """The figure as files, by ending."""
    out = {}
    # The same figure is the same file: ids and dates in it are not random.
    with matplotlib.rc_context({"svg.hashsalt": "persianrug"}):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=_DPI, metadata=metadata)
            out[kind] = content.getvalue()
    return out


def legend_below(figure: Figure, panels: Iterable[Axes], columns: int = 6) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        fontsize=9,
    )


def log_norm(values: NDArray[np.float64]) -> LogNorm | None:
    """A logarithmic scale over what is positive, of eight decades at most; None where nothing is."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return None
    low, high = float(positive.min()), float(positive.max())
    return LogNorm(max(low, _LEAST_SHOWN * high), high if high > low else 2 * low)


def edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges (k + 1,) of cells about evenly spaced centres (k,), none of which is below 0."""
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 0.05
    return np.maximum(np.append(centres - half, centres[-1] + half), 0.0)
