"""Trained networks against the law of the rug, by size and by steps: where it describes training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from persianrug.figures.style import BLACK, GREY, SERIES, VERMILLION, Row, blank


def budget(rows: Sequence[Row]) -> Figure:
    """Draw losses relative to the rug's law for n → ∞: above against n_sparse, below against steps.

    Parameters
    ----------
    rows : sequence of dict
        Runs of trained networks at some points (p, ratio), and of the best knot there, as sweeps give them.
    """
    points = sorted({(row["p"], row["ratio"]) for row in rows})
    figure = blank(7.4)
    panels = figure.subplots(2, len(points), squeeze=False, sharey=True)
    for column, (p, ratio) in enumerate(points):
        found = [row for row in rows if (row["p"], row["ratio"]) == (p, ratio)]
        here = [row for row in found if row["steps"] is not None]
        best = next(row["limit"] for row in found if row["method"] == "knot") / here[0]["limit"]
        for axes, along, other, name in (
            (panels[0, column], "n_sparse", "steps", "{} steps"),
            (panels[1, column], "steps", "n_sparse", "n = {}"),
        ):
            for value, (colour, marker) in zip(sorted({row[other] for row in here}), SERIES, strict=False):
                line = _mean(
                    sorted((row for row in here if row[other] == value), key=lambda row: row[along]), along
                )
                axes.errorbar(
                    line[0],
                    line[1],
                    yerr=line[2],
                    color=colour,
                    marker=marker,
                    markersize=5,
                    label=name.format(value),
                )
            axes.axhline(1.0, color=BLACK, label="rug, law")
            axes.axhline(best, color=VERMILLION, linestyle="-.", label="best knot known, law")
            ticks = sorted({row[along] for row in here})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(ScalarFormatter())
            axes.grid(color=GREY, alpha=0.25, which="both", linewidth=0.5)
            axes.set_xlabel({"n_sparse": "n_sparse", "steps": "training steps"}[along])
            if column == len(points) - 1:
                axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
        panels[0, column].set_title(f"p = {p:g}, ratio = {ratio:g}")
    for axes in panels[:, 0]:
        axes.set_ylabel("measured loss / law of the rug")
    return figure


def _mean(rows: Sequence[Row], along: str) -> tuple[list[float], list[float], list[float]]:
    """Means over seeds of losses relative to the law, and their standard errors."""
    out: tuple[list[float], list[float], list[float]] = ([], [], [])
    for value in dict.fromkeys(row[along] for row in rows):
        found = [row for row in rows if row[along] == value]
        errors = np.array([row["stderr"] / row["limit"] for row in found])
        out[0].append(value)
        out[1].append(float(np.mean([row["measured"] / row["limit"] for row in found])))
        out[2].append(float(np.sqrt((errors**2).sum()) / len(found)))
    return out
