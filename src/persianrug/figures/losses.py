"""Loss against ratio at several p, or against p at several ratios: laws as lines, measurements as points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persianrug.decoders import Linear, ReLU
from persianrug.figures.laws import limit
from persianrug.figures.style import BLACK, BLUE, GREY, SERIES, VERMILLION, Row, blank, legend_below

_NAMES = {"ratio": "ratio = n_dense / n_sparse", "p": "p, probability that a feature is active"}
_POINTS = 40
_LEAST, _MOST = 0.002, 0.95


def losses(rows: Sequence[Row], along: Literal["ratio", "p"]) -> Figure:
    """Draw a panel for every p, or ratio, that is in the rows.

    Parameters
    ----------
    rows : sequence of dict
        Runs of the uniform source as a sweep gives them: of `relu` and `knot` on rugs, and of trained networks.
    along : str
        What runs along the x axis.
    """
    fixed = "p" if along == "ratio" else "ratio"
    values = sorted({row[fixed] for row in rows})
    sizes = sorted({row["n_sparse"] for row in rows if row["steps"] is not None})
    across = min(3, len(values))
    down = -(-len(values) // across)
    figure = blank(3.3 * down + 0.7)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels[len(values) :]:
        axes.remove()
    for axes, value in zip(panels, values, strict=False):
        here = [row for row in rows if row[fixed] == value]
        x = np.geomspace(_LEAST, _MOST, _POINTS)
        points = [(value, one) if along == "ratio" else (one, value) for one in x]
        linear = [limit(Linear, p, ratio) for p, ratio in points]
        axes.plot(x, linear, color=GREY, linestyle="--", label="optimal linear, law")
        axes.plot(x, [limit(ReLU, p, ratio) for p, ratio in points], color=BLACK, label="rug, law for n → ∞")
        knots = sorted((row for row in here if row["method"] == "knot"), key=lambda row: row[along])
        axes.plot(
            [row[along] for row in knots], [row["limit"] for row in knots], color=VERMILLION, linewidth=1.2,
            linestyle="-.", label="best knot known, law for n → ∞",
        )  # fmt: skip
        for method, colour, marker, name in (("knot", VERMILLION, "x", "best knot"), ("relu", BLUE, "+", "rug")):
            found = [row for row in here if row["method"] == method]
            n = max((row["n_sparse"] for row in found), default=0)
            _points(axes, found, along, color=colour, marker=marker, markersize=8, label=f"{name}, n = {n}")
            if method == "relu":
                ordered = sorted(found, key=lambda row: row[along])
                axes.plot(
                    [row[along] for row in ordered], [row["predicted"] for row in ordered], color=colour,
                    linestyle=":", label=f"rug, law at n = {n}",
                )  # fmt: skip
        for n, (colour, marker) in zip(sizes, SERIES, strict=False):
            found = [row for row in here if row["steps"] is not None and row["n_sparse"] == n]
            _points(axes, found, along, color=colour, marker=marker, markersize=5, label=f"trained, n = {n}")
        if along == "ratio":
            axes.axvline(value, color=GREY, linewidth=0.8, linestyle=":", label="ratio = p")
        shown = [row["measured"] for row in here if row["measured"] > 0]
        axes.set(
            xscale="log", yscale="log", xlim=(_LEAST, 1.0), title=f"{fixed} = {value:g}", xlabel=_NAMES[along],
            ylim=(0.5 * min([*shown, *linear]), 2 * max([*shown, *linear])),
        )  # fmt: skip
    for axes in panels[::across]:
        axes.set_ylabel("loss per feature")
    legend_below(figure, panels[: len(values)], columns=4)
    return figure


def _points(axes: Axes, found: Sequence[Row], along: str, **style: Any) -> None:
    found = sorted(found, key=lambda row: row[along])
    axes.errorbar(
        [row[along] for row in found], [row["measured"] for row in found], yerr=[row["stderr"] for row in found],
        linestyle="none", elinewidth=0.8, **style,
    )  # fmt: skip
