"""Trained networks of many sizes beside the laws of what needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# A law below this part of the rug's is off the panel, whose title says so.
_FLOOR = 1e-3

_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1, 1.5, 2, 3, 5, 8)

_COLOURS = {
    "linear": "0.5",
    "rug": "#2b5a8c",
    "pair": "#5f9ea0",
    "best knot": "#8c1c22",
    "Bayes on the rug": "#d99a2b",
    "OAMP on the rug": "#10204d",
}


def trained(rows: Sequence[dict[str, Any]], laws: dict[float, dict[str, float]], ratio: float) -> Figure:
    """Draw measured losses of trained networks against n_sparse, a panel for every p, and the laws as lines.

    Parameters
    ----------
    rows : sequence of dict
        Of each network p, n_sparse, loss and stderr.
    laws : dict
        By p, laws by name.
    ratio : float
        Of all of them.
    """
    figure = Figure(figsize=(4.0 * len(laws), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(laws), squeeze=False)[0]
    for axes, (p, lines) in zip(panels, laws.items(), strict=True):
        for name, loss in lines.items():
            if loss in _shown(lines):
                axes.axhline(loss / lines["rug"], color=_COLOURS[name], label=name)
            else:
                axes.plot([], [], color=_COLOURS[name], label=name)
        exact = "" if len(_shown(lines)) == len(lines) else "; OAMP recovers all"
        points = sorted(
            (row["n_sparse"], row["loss"] / lines["rug"], row["stderr"] / lines["rug"])
            for row in rows
            if row["p"] == p
        )
        if points:
            sizes, losses, errors = zip(*points, strict=True)
            axes.errorbar(
                sizes, losses, yerr=errors, fmt="o-", color="black", markersize=4, label="trained, measured"
            )
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set(yscale="log", xlabel="n_sparse", title=f"p = {p:g}, ratio = {ratio:g}{exact}")
        axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0.75 * min(_shown(lines)) / lines["rug"], 1.2 * lines["linear"] / lines["rug"])
    panels[0].set_ylabel("loss / law of the rug")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=9)
    return figure


def _shown(lines: dict[str, float]) -> list[float]:
    """The laws that are not as good as 0."""
    return [loss for loss in lines.values() if loss >= _FLOOR * lines["rug"]]
