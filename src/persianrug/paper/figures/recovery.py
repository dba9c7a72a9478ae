"""Where OAMP recovers all: the phase diagram, predicted by state evolution and measured on rugs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from persianrug.figures.phase import fixed_points
from persianrug.figures.style import BLACK, VERMILLION, Row, blank, log_norm
from persianrug.sources import SparseUniform

_SIDE = 40
_LEAST, _MOST = 0.004, 0.95


def recovery(rows: Sequence[Row]) -> Figure:
    """Draw the predicted loss of OAMP over the plane, and the measured share of vectors that it recovers.

    Parameters
    ----------
    rows : sequence of dict
        Runs of `oamp` over a grid, as a sweep gives them.
    """
    p, ratio = np.geomspace(_LEAST, _MOST, _SIDE), np.geomspace(_LEAST, _MOST, _SIDE)
    columns = [fixed_points(SparseUniform(float(one)), ratio) for one in p]
    losses = np.array([loss for loss, _ in columns]).T
    thresholds = np.array([threshold for _, threshold in columns])
    figure = blank(4.9)
    predicted, measured = figure.subplots(1, 2, sharex=True, sharey=True)
    shown = np.ma.masked_equal(losses, 0)
    image = predicted.pcolormesh(
        p, ratio, shown, norm=log_norm(losses), cmap="viridis", shading="nearest", rasterized=True
    )
    figure.colorbar(image, ax=predicted, label="predicted loss per feature (white: 0)")
    predicted.set_title("predicted, n → ∞")
    points = sorted({row["p"] for row in rows}), sorted({row["ratio"] for row in rows})
    share = np.full((len(points[1]), len(points[0])), np.nan)
    for row in rows:
        share[points[1].index(row["ratio"]), points[0].index(row["p"])] = row["recovered"]
    image = measured.pcolormesh(*points, share, vmin=0, vmax=1, cmap="cividis", shading="nearest", rasterized=True)
    figure.colorbar(image, ax=measured, label="measured share of vectors recovered")
    n, samples = max(row["n_sparse"] for row in rows), max(row["samples"] for row in rows)
    measured.set_title(f"measured, n = {n}, {samples} vectors a point")
    for axes, colour in ((predicted, BLACK), (measured, VERMILLION)):
        axes.plot(p, thresholds, color=colour, linewidth=2, label="threshold of state evolution")
        axes.plot(p, p, color=colour, linestyle="--", label="ratio = p, below which nothing recovers")
        axes.set(
            xscale="log", yscale="log", xlabel="p, probability that a feature is active",
            xlim=(_LEAST, _MOST), ylim=(_LEAST, _MOST),
        )  # fmt: skip
        axes.legend(loc="lower right", fontsize=8)
    predicted.set_ylabel("ratio = n_dense / n_sparse")
    return figure
