"""The paper's Figure 1: W of a rug, as it looks."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from persianrug.encoders.base import Encoder
from persianrug.figures.style import blank
from persianrug.figures.weave import palette


def rug(encoder: Encoder) -> Figure:
    """Draw W of an encoder in the dyes of a rug, and its upper left corner enlarged.

    Parameters
    ----------
    encoder : Encoder
        With at most some thousand features.
    """
    n = encoder.n_sparse
    entries = encoder.W_rows(0, n).numpy()
    # The same scale as in `weave`.
    most = 3 * float(np.sqrt(encoder.interference.mean() / (n - 1)))
    dyes = ListedColormap(palette() / 255)
    figure = blank(5.6)
    panels = figure.subplots(1, 2)
    corner = max(n // 8, 2)
    for axes, part, title in (
        (panels[0], entries, f"n_sparse = {n}, n_dense = {encoder.n_dense}"),
        (panels[1], entries[:corner, :corner], f"the first {corner} features"),
    ):
        image = axes.imshow(part, cmap=dyes, norm=Normalize(-most, most), interpolation="nearest")
        axes.set(xlabel="feature j", ylabel="feature i", title=title)
    figure.colorbar(
        image, ax=list(panels), label="W_ij (saturated; the diagonal is 1)", extend="both", shrink=0.85
    )
    return figure
