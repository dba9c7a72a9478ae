"""A number over the plane of (p, ratio), for several sizes, in linear and in logarithmic colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from persianrug.figures.style import Row, blank, edges, log_norm

Floats = NDArray[np.float64]


def heatmap(planes: Sequence[tuple[str, Sequence[Row]]], key: str, label: str) -> Figure:
    """Draw a column for every plane: above in linear colours, below in logarithmic ones.

    Parameters
    ----------
    planes : sequence of (title, rows)
        Rows have p, ratio and the number, and lie on a grid.
    key : str
        Which number; it is drawn without its sign.
    label : str
        What it is, with its unit.
    """
    grids = [_grid(rows, key) for _, rows in planes]
    every = np.concatenate([values.ravel() for _, _, values in grids])
    figure = blank(6.4)
    panels = figure.subplots(2, len(planes), squeeze=False, sharex=True, sharey=True)
    finite = every[np.isfinite(every)]
    scales = (Normalize(0.0, float(finite.max(initial=0.0)) or 1.0), log_norm(every))
    for line, (norm, how) in enumerate(zip(scales, ("linear colours", "logarithmic colours"), strict=True)):
        for axes, (title, _), (p, ratio, values) in zip(panels[line], planes, grids, strict=True):
            shown = np.ma.masked_invalid(values)
            if norm is None or line:
                shown = np.ma.masked_less_equal(shown, 0)
            axes.set_facecolor("0.8")
            image = axes.pcolormesh(edges(p), edges(ratio), shown, norm=norm, cmap="viridis", rasterized=True)
            if line == 0:
                axes.set_title(title)
            else:
                axes.set_xlabel("p")
        panels[line, 0].set_ylabel("ratio = n_dense / n_sparse")
        below = line == 1 and norm is not None and float(finite[finite > 0].min()) < float(norm.vmin or 0.0)
        figure.colorbar(
            image, ax=list(panels[line]), label=f"{label}\n({how})", extend="min" if below else "neither"
        )
    return figure


def _grid(rows: Sequence[Row], key: str) -> tuple[Floats, Floats, Floats]:
    """p (k,), ratio (m,), and sizes of the number (m, k), NaN where there is none."""
    p, ratio = (np.array(sorted({row[name] for row in rows})) for name in ("p", "ratio"))
    values = np.full((len(ratio), len(p)), np.nan)
    for row in rows:
        if row.get(key) is not None:
            values[np.searchsorted(ratio, row["ratio"]), np.searchsorted(p, row["p"])] = abs(row[key])
    return p, ratio, values
