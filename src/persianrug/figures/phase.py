"""The plane of (p, ratio): what the best decoder loses, and from where it recovers everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.autoencoder import Autoencoder
from persianrug.decoders import OAMP, Bayes, Linear, ReLU, SoftThreshold
from persianrug.decoders.base import Decoder
from persianrug.encoders import Rug, noise_level
from persianrug.sources import Source

# Points of the plane on each side, and of noise between which a fixed point is interpolated.
_SIDE = 80
_NOISES = 200
_LEAST, _MOST = 0.002, 0.95

# Where the cut through the plane is measured, and on what.
_RATIOS = (0.05, 0.08, 0.15, 0.25, 0.4, 0.6)
_N_SPARSE = 2048
_SAMPLES = 128

# Losses below this part of a feature's variance are not told apart.
_FLOOR = 1e-6

Floats = NDArray[np.float64]


def fixed_points(source: Source, ratios: Floats) -> tuple[Floats, float]:
    """Where OAMP ends for n_sparse -> infinity: the largest sigma with mmse(sigma) = ratio sigma^2, and its mmse.

    State evolution comes down to it from a rug's noise, which is above; where there is none all is recovered.

    Parameters
    ----------
    source : Source
        Of features that are alike.
    ratios : array (k,)

    Returns
    -------
    losses : array (k,)
        Mean squared error per feature, 0 where x is recovered.
    threshold : float
        The largest mmse(sigma) / sigma^2; see `recovery_threshold`.
    """
    checks.instance("source", source, Source)
    scale = float(np.sqrt(source.second_moment / source.p))
    sigma = np.geomspace(1e-3 * scale, noise_level(source.variance, float(ratios.min())) + scale, _NOISES)
    on, off, _, _ = source.mismatch(sigma, sigma)
    mmse = source.p * on + (1 - source.p) * off
    mmse = np.maximum(mmse, 1e-300)
    share = np.log(mmse) - 2 * np.log(sigma)
    losses = np.zeros(len(ratios))
    for k, ratio in enumerate(np.log(ratios)):
        over = np.flatnonzero(share >= ratio)
        if len(over):
            last = over[-1]
            part = (share[last] - ratio) / (share[last] - share[last + 1])
            losses[k] = np.exp(np.log(mmse[last]) + part * np.log(mmse[last + 1] / mmse[last]))
    return losses, float(np.exp(share.max()))


def phase(
    make: Callable[[float], Source],
    p: float,
    progress: Callable[[int, int], object] = lambda _done, _all: None,
) -> Figure:
    """Draw the plane, and a cut through it at p with the laws of several decoders, predicted and measured.

    Parameters
    ----------
    make : function
        The source with a given p.
    p : float
        Where to cut.
    progress : function, optional
        Called after every column and every measurement with its part of the work, and the whole.
    """
    kinds: tuple[type[Decoder], ...] = (Linear, SoftThreshold if make(p).signed else ReLU, Bayes, OAMP)
    rates, ratios = np.geomspace(_LEAST, _MOST, _SIDE), np.geomspace(_LEAST, _MOST, _SIDE)
    work = _SIDE + len(kinds) * len(_RATIOS)
    losses, thresholds = np.empty((_SIDE, _SIDE)), np.empty(_SIDE)
    for column, rate in enumerate(rates):
        losses[:, column], thresholds[column] = fixed_points(make(float(rate)), ratios)
        progress(1, work)

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    plane, cut = figure.subplots(1, 2)
    shown = np.ma.masked_equal(losses, 0)
    # Gouraud shading of a masked array leaves gaps at its edge.
    image = plane.pcolormesh(
        rates, ratios, shown, norm=LogNorm(shown.min(), shown.max()), cmap="YlOrBr", shading="nearest"
    )
    figure.colorbar(image, ax=plane, label="predicted loss per feature, best decoder")
    plane.plot(rates, thresholds, color="#10204d", linewidth=2, label="OAMP's threshold")
    plane.plot(rates, rates, color="#8c1c22", linestyle="--", label="ratio = p, below which nothing recovers")
    plane.axvline(p, color="0.45", linestyle=":", label=f"cut at p = {p:g}")
    plane.text(0.004, 0.35, "exact recovery", color="#10204d", fontsize=12)
    plane.set(
        xscale="log",
        yscale="log",
        xlabel="p, probability that a feature is active",
        ylabel="ratio = n_dense / n_sparse",
        title=f"{make(p).name} source",
        xlim=(_LEAST, _MOST),
        ylim=(_LEAST, _MOST),
    )
    plane.legend(loc="lower right", fontsize=8)
    _cut(cut, make(p), kinds, lambda: progress(1, work))
    return figure


def _cut(axes: Axes, source: Source, kinds: tuple[type[Decoder], ...], progress: Callable[[], object]) -> None:
    """Laws of the decoders along the ratio, and measurements on rugs."""
    ratios = np.geomspace(0.02, 0.98, _SIDE)
    floor, threshold = _FLOOR * source.variance, 1.0
    for kind, colour in zip(kinds, ("0.5", "#2b5a8c", "#d99a2b", "#8c1c22"), strict=True):
        if kind is OAMP:
            laws, threshold = fixed_points(source, ratios)
        else:
            huge = [Rug.of_ratio(1 << 30, float(ratio)) for ratio in ratios]
            laws = np.array([float(kind().adapt(source, rug).limit(source, rug)) for rug in huge])
        axes.plot(ratios, np.maximum(laws, floor), color=colour, label=kind.name)
        measured = []
        for ratio in _RATIOS:
            model = Autoencoder(Rug.of_ratio(_N_SPARSE, ratio), kind()).tune(source)
            measured.append(max(model.measure(source, samples=_SAMPLES, dtype=torch.float64).loss, floor))
            progress()
        axes.plot(_RATIOS, measured, "o", color=colour, markersize=4)
    axes.plot([], [], "o", color="0.3", markersize=4, label=f"measured, n_sparse = {_N_SPARSE}")
    axes.axvline(threshold, color="#10204d", linewidth=1, label="OAMP's threshold")
    axes.axvline(source.p, color="#8c1c22", linestyle="--", linewidth=1, label="ratio = p")
    axes.text(0.98, 1.6 * floor, "exact recovery", color="#8c1c22", horizontalalignment="right")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(ratios[0], 1.0),
        ylim=(floor, 2 * source.variance),
        xlabel="ratio = n_dense / n_sparse",
        ylabel="loss per feature",
        title=f"laws (lines) at p = {source.p:g}",
    )
    axes.legend(loc="lower left", fontsize=8)
