"""W of networks side by side, as a trained one and a rug: corners with the biases, and all entries of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from persianrug.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, WIDTH, blank

# Features that are shown.
_CORNER = 30
_BINS = 60
# Columns between W and the bias, and of the bias.
_GAP = 2
# Of histograms, the first of which is filled.
_COLOURS = (ORANGE, BLUE, GREEN, PURPLE, VERMILLION, SKY)

Floats = NDArray[np.float64]


def weights(matrices: Sequence[tuple[str, Floats, Floats]]) -> Figure:
    """Draw the corners of matrices W with their biases, and histograms of diagonals and of other entries.

    Parameters
    ----------
    matrices : at least one of (name, W, bias)
        W is (n_sparse, n_sparse), bias (n_sparse,).

    Raises
    ------
    ValueError
        If there is none.
    """
    if not matrices:
        raise ValueError("matrices is empty; allowed: at least one of (name, W, bias)")
    count = len(matrices)
    figure = blank(8.8, max(WIDTH, count * WIDTH / 2))
    grid = figure.add_gridspec(2, 2 * count, height_ratios=(1.3, 1))
    upper = [figure.add_subplot(grid[0, 2 * place : 2 * place + 2]) for place in range(count)]
    lower = [figure.add_subplot(grid[1, :count]), figure.add_subplot(grid[1, count:])]
    parts = [(W[:_CORNER, :_CORNER], bias[:_CORNER]) for _, W, bias in matrices]
    low = min(min(float(W.min()), float(bias.min())) for W, bias in parts)
    high = max(float(W.max()) for W, _ in parts)
    norm = TwoSlopeNorm(0.0, min(low, -1e-6), max(high, 1e-6))
    for axes, (name, _, _), (corner, bias) in zip(upper, matrices, parts, strict=True):
        shown = len(bias)
        # The bias is a column of its own beside W.
        beside = np.column_stack([np.full((shown, _GAP), np.nan), np.repeat(bias[:, None], _GAP, axis=1)])
        image = axes.imshow(np.hstack([corner, beside]), cmap="RdBu_r", norm=norm, interpolation="nearest")
        ticks = list(range(0, shown, 5))
        axes.set_xticks([*ticks, shown + 1.5 * _GAP - 0.5], [*map(str, ticks), "bias"])
        axes.set(xlabel="feature j", ylabel="feature i", title=f"{name}: W of {shown} features")
    figure.colorbar(image, ax=upper, label="W_ij or bias_i", shrink=0.9)

    diagonals, others = lower
    for place, (name, W, _) in enumerate(matrices):
        colour = _COLOURS[place % len(_COLOURS)]
        style: Literal["step", "stepfilled"] = "step" if place else "stepfilled"
        off = W[~np.eye(len(W), dtype=bool)]
        for axes, values in ((diagonals, np.diag(W)), (others, off)):
            spread = f"{values.mean():.3g} ± {values.std():.2g}"
            # Numbers that are all alike have no range to cut into bins.
            width = max(float(np.ptp(values)), 1e-3 * (abs(float(values.mean())) + 1e-12))
            middle = (float(values.min()) + float(values.max())) / 2
            axes.hist(
                values, bins=_BINS, range=(middle - width / 2, middle + width / 2), histtype=style, color=colour,
                alpha=0.75, linewidth=1.8, label=f"{name} ({spread})",
                weights=np.full(len(values), 1 / len(values)),
            )  # fmt: skip
    diagonals.set(
        xlabel="diagonal entry W_ii", ylabel="share of entries in a bin", title="diagonals", yscale="log"
    )
    others.set(
        xlabel="entry W_ij, i ≠ j", ylabel="share of entries in a bin", title="off the diagonal", yscale="log"
    )
    for axes in lower:
        axes.set_ylim(top=10.0)
        axes.legend(title="mean ± standard deviation", fontsize=8, title_fontsize=8, loc="upper left")
    return figure
