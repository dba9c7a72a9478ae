"""How the ReLU law scales where features are rare, between its bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from persianrug.decoders import Bayes, ReLU, relu_bounds
from persianrug.figures.laws import limit, noise
from persianrug.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, Row, blank
from persianrug.sources import SparseUniform

_LEAST, _MOST, _POINTS = 1e-8, 0.3, 60
_RATIOS = ((0.1, ORANGE, "--"), (0.25, BLACK, "-"), (0.5, PURPLE, "-."))


def scaling(rows: Sequence[Row], ratio: float) -> Figure:
    """Draw the law against p between its bounds, and relative to what the best elementwise decoder tends to.

    Parameters
    ----------
    rows : sequence of dict
        Runs of `relu` on rugs of this ratio, as a sweep gives them.
    ratio : float
    """
    p = np.geomspace(_LEAST, _MOST, _POINTS)
    figure = blank(4.9)
    loss, relative = figure.subplots(1, 2)
    lower, upper = np.array([relu_bounds(SparseUniform(one), noise(one, ratio)) for one in p]).T
    law = np.array([limit(ReLU, one, ratio) for one in p])
    unit = np.array([one * noise(one, ratio) ** 2 for one in p])
    ordered = sorted(rows, key=lambda row: row["p"])
    rates = np.array([row["p"] for row in ordered])
    units = np.array([row["p"] * noise(row["p"], ratio) ** 2 for row in ordered])
    n = max(row["n_sparse"] for row in rows)
    for axes, by, bys in ((loss, np.ones_like(p), np.ones_like(units)), (relative, unit, units)):
        axes.fill_between(p, lower / by, upper / by, color="0.85", label="between the proven bounds")
        axes.plot(p, law / by, color=BLACK, label=f"law at ratio {ratio:g}, n → ∞")
        axes.errorbar(
            rates, [row["measured"] for row in ordered] / bys, yerr=[row["stderr"] for row in ordered] / bys,
            fmt="o", color=BLUE, markersize=5, label=f"measured on a rug, n = {n}",
        )  # fmt: skip
        axes.plot(
            rates, [row["predicted"] for row in ordered] / bys, color=BLUE, linestyle=":",
            label="law of that rug, n finite",
        )  # fmt: skip
        axes.set(xscale="log", xlabel="p, probability that a feature is active")
    bayes = [limit(Bayes, one, ratio) for one in p]
    loss.plot(p, bayes, color=GREEN, label="best elementwise decoder (Bayes)")
    loss.set(yscale="log", ylabel="loss per feature", title=f"loss at ratio {ratio:g}")
    loss.legend(fontsize=8)
    relative.plot(p, bayes / unit, color=GREEN, label="best elementwise decoder (Bayes)")
    for other, colour, style in _RATIOS:
        if other != ratio:
            shown = [limit(ReLU, one, other) / (one * noise(one, other) ** 2) for one in p]
            relative.plot(p, shown, color=colour, linestyle=style, label=f"law at ratio {other:g}")
    growth = 1 + np.log(1 / p) / 2
    relative.plot(p, growth, color=GREY, linestyle="--", label="1 + log(1 / p) / 2, whose slope it tends to")
    relative.set(ylabel="loss / (p sigma²)", title="relative to p sigma²", ylim=(0, 1.15 * growth.max()))
    relative.legend(fontsize=8, loc="upper right")
    return figure
