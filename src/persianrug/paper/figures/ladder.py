"""What elementwise decoders lose relative to the best one there is, over the plane of (p, ratio)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, ScalarFormatter

from persianrug.decoders import Bayes, JumpReLU, Linear, ProLU, ReLU
from persianrug.decoders.base import Decoder
from persianrug.figures.laws import limit
from persianrug.figures.style import BLACK, BLUE, GREY, ORANGE, Row, blank, log_norm

_KINDS: tuple[tuple[type[Decoder], str, str], ...] = (
    (Linear, GREY, "o"), (ReLU, BLACK, "s"), (JumpReLU, BLUE, "D"), (ProLU, ORANGE, "^"),
)  # fmt: skip
_SIDE = 18
_LEAST, _MOST = 1e-5, 0.9
_LEAST_RATIO = 0.01
_LEAST_CUT = 1e-8


def ladder(rows: Sequence[Row], ratio: float) -> Figure:
    """Draw the laws of linear, ReLU, JumpReLU and ProLU relative to the posterior mean's, and a cut at a ratio.

    A gated ReLU has the law of the JumpReLU.

    Parameters
    ----------
    rows : sequence of dict
        Runs of these decoders and of `bayes` on rugs of this ratio, as a sweep gives them.
    ratio : float
    """
    p = np.geomspace(_LEAST, _MOST, _SIDE)
    ratios = np.geomspace(_LEAST_RATIO, _MOST, _SIDE)
    bayes = np.array([[limit(Bayes, one, r) for one in p] for r in ratios])
    figure = blank(7.4)
    panels = figure.subplots(2, 3)
    for axes, (kind, _, _) in zip((panels[0, 0], panels[0, 1], panels[1, 0], panels[1, 1]), _KINDS, strict=True):
        over = np.array([[limit(kind, one, r) for one in p] for r in ratios]) / bayes
        image = axes.pcolormesh(
            p, ratios, over, norm=log_norm(over), cmap="viridis", shading="nearest", rasterized=True
        )
        bar = figure.colorbar(image, ax=axes)
        small = float(over.max()) < 10
        bar.ax.yaxis.set_major_formatter(ScalarFormatter() if small else LogFormatterSciNotation())
        bar.ax.yaxis.set_minor_formatter(
            ScalarFormatter() if small else LogFormatterSciNotation(labelOnlyBase=True)
        )
        axes.set(
            xscale="log", yscale="log", xlabel="p", ylabel="ratio", title=f"{kind.name}: 1.00 to {over.max():.3g}"
        )
        axes.axhline(ratio, color="white", linewidth=0.8, linestyle=":")
    _cut(panels[0, 2], rows, ratio, _MOST)
    panels[0, 2].set_title(f"cut at ratio {ratio:g}")
    _cut(panels[1, 2], [], ratio, _LEAST_CUT)
    panels[1, 2].set_title("down to rare features")
    figure.suptitle("loss relative to the best elementwise decoder (posterior mean)", fontsize=12)
    return figure


def _cut(axes: Axes, rows: Sequence[Row], ratio: float, least: float) -> None:
    low = least if not rows else min(row["p"] for row in rows) / 1.3
    p = np.geomspace(low, _MOST, 2 * _SIDE)
    bayes = np.array([limit(Bayes, one, ratio) for one in p])
    measured = {row["p"]: row for row in rows if row["method"] == "bayes"}
    for kind, colour, marker in _KINDS:
        law = np.array([limit(kind, one, ratio) for one in p]) / bayes
        axes.plot(p, law, color=colour, label=f"{kind.name}, law")
        found = [row for row in rows if row["method"] == kind.name]
        over = [row["measured"] / measured[row["p"]]["measured"] for row in found]
        axes.plot([row["p"] for row in found], over, marker, color=colour, markersize=5)
    if rows:
        n = max(row["n_sparse"] for row in rows)
        axes.plot([], [], "o", color="0.4", markersize=5, label=f"measured, n = {n}")
    axes.legend(fontsize=8)
    axes.set(xscale="log", xlabel="p", ylabel="loss / posterior mean's", ylim=(0.9, 3.2 if rows else 9.0))
