"""Encoder gains: how loudly each feature is put into the code."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from persianrug._support import checks
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Elementwise, check_parts, spread_levels, variances
from persianrug.encoders.base import Encoder
from persianrug.sources import Source

# A feature's noise is at most so many times more or less than without gains. Decoders are tuned at steps of the
# log of the noise; between these their loss is interpolated.
_RANGE = 100.0
_STEP = 0.35


def encoder_gains(
    source: Source,
    encoder: Encoder,
    decoder: Elementwise,
    importance: ArrayLike | None = None,
    channel: Channel = CLEAR,
) -> NDArray[np.float64]:
    """Gains of least predicted loss for n_sparse -> infinity, with the decoder tuned to each feature.

    With gains c_i the encoder is given c_i x_i. The interference on c_i x_i comes from all features, and is the
    same for all but for the part of their own, which vanishes. So c_i sets the noise on x_i, sigma_i = s / c_i.
    The code keeps its power:

        minimise sum_i w_i L_i(s / c_i)    subject to    sum_i v_i c_i^2 = sum_i v_i,

    with w the importance, v the variances and L_i the decoder's tuned risk: water-filling. With a multiplier mu
    every feature goes for the least w_i L_i + mu v_i c_i^2 by itself, a corner of the lower convex hull of L_i as
    a function of c_i^2. Where L_i is not convex, some of the features that are alike are loud and the others are
    next to silent.

    Parameters
    ----------
    source : Source
    encoder : Encoder
        Of any kind whose interference is much the same for all features, as the rug's is.
    decoder : Elementwise
        Of the kind that will read the code; its parameters do not matter.
    importance : array (n_sparse,), optional
        Weights of the features in the loss, up to a factor; by default all alike.
    channel : Channel

    Returns
    -------
    array (n_sparse,), for `Autoencoder(..., gains=...)`

    Raises
    ------
    ValueError
        If weights are out of their range, the decoder does not read features one by one or is one-sided and the
        source signed, or the source has groups, or no scale of its own to be changed.
    """
    if not isinstance(decoder, Elementwise):
        name = getattr(decoder, "name", checks.shown(decoder))
        raise ValueError(f"decoder is {name}; allowed: those that read every feature by itself")
    check_parts(source, encoder, channel)
    if source.together > 1:
        raise ValueError(f"source {source.name} has groups; allowed with gains: features one by one, its members")
    n = encoder.n_sparse
    weights = np.ones(n) if importance is None else checks.importance(importance, n)
    interference, noise = variances(source, encoder, spread_levels(channel, source, encoder))
    level = float(np.sqrt(np.mean(interference + noise)))
    source = source.scaled(np.ones(n))
    variance, scale = (np.broadcast_to(part, n) for part in (source.variance, cast(Any, source).scale))
    if level == 0 or not variance.any():
        return np.ones(n)
    # Features of one shape, alike but for their scale, share one curve of the loss against q =
    # (c scale / level)^2, for which a feature pays price q of the code's power.
    shapes, _, _, shape = source.cells(scale)
    price = variance * (level / scale) ** 2
    members = [np.flatnonzero(shape == k) for k in range(len(shapes))]
    hulls = [_hull(one, decoder, level / scale[own]) for one, own in zip(shapes, members, strict=True)]
    with np.errstate(divide="ignore"):
        cost = np.log(price / (weights * scale**2))

    def chosen(log_multiplier: float) -> NDArray[np.float64]:
        q = np.empty(n)
        for own, (corners, log_slopes) in zip(members, hulls, strict=True):
            q[own] = corners[np.searchsorted(-log_slopes, -(log_multiplier + cost[own]))]
        return q

    # Between all features as loud as they get and all next to silent.
    total = float(variance.sum())
    slopes = np.concatenate([log_slopes for _, log_slopes in hulls])
    finite = cost[np.isfinite(cost)]
    low, high = slopes.min() - finite.max() - 1, slopes.max() - finite.min() + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if price @ chosen(middle) > total else (low, middle)
    louder, q = chosen(low), chosen(high)
    # Those for which both are equally good: as many of them loud as there is power left.
    affordable = np.cumsum(price * (louder - q)) <= total - price @ q
    gains = level / scale * np.sqrt(np.where(affordable, louder, q))
    return gains * np.sqrt(total / (variance @ gains**2))


def _hull(
    source: Source, decoder: Elementwise, noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower convex hull of the decoder's tuned risk as a function of q = sigma^-2.

    Parameters
    ----------
    noise : array (k,)
        What sigma is without gains, for every feature.

    Returns
    -------
    corners : array (m,), ascending
    log_slopes : array (m - 1,), descending
        Of what is gained between them.
    """
    low, high = np.log(noise.min() / _RANGE), np.log(noise.max() * _RANGE)
    places = np.linspace(low, high, round((high - low) / _STEP))
    losses = [float(decoder.tune(source, sigma).risk(source, sigma)) for sigma in np.exp(places)]
    fine = np.linspace(high, low, 80 * len(places))
    q = np.exp(-2 * fine)
    loss = np.exp(CubicSpline(places, np.log(np.maximum(losses, 1e-300)))(fine))
    corners = [0]
    for k in range(1, len(q)):
        while len(corners) > 1 and _slope(q, loss, corners[-2], corners[-1]) <= _slope(q, loss, corners[-1], k):
            corners.pop()
        corners.append(k)
    slopes = _slope(q, loss, np.array(corners[:-1]), np.array(corners[1:]))
    useful = slopes > 0
    return q[corners][: 1 + useful.sum()], np.log(slopes[useful])


def _slope(q: NDArray[np.float64], loss: NDArray[np.float64], start: Any, stop: Any) -> Any:
    """What is gained from start to stop, per q."""
    return (loss[start] - loss[stop]) / (q[stop] - q[start])
