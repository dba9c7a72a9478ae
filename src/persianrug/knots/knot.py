"""Knots: small dictionaries of d channels for k features, and what a ReLU loses on them.

The rug treats all interference alike. But interference that is negative is cut by the ReLU and costs nothing
while the feature is off, so a good W spends its off-diagonal entries on a few large negative ones. A *knot* (a
feature geometry: an antipodal pair, a triangle, a pentagon, ...) does so among k features, by a matrix M (d x k)
and a readout R (k x d) scaled so that C = R M has a diagonal of ones. A rug woven of knots repeats it over all
features, and mixes the channels M x of all of them with a plain rug (`KnottedRug`). A feature of a knot is read as

    y_i = x_i + e_i,      e_i = sum_{j != i} C_ij (x_j - m) + sigma |R_i| z,

with m the source's mean, sigma the noise that the weave leaves on a channel, and standard normal z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persianrug._support import checks
from persianrug._support.arrays import Parts
from persianrug.channel import Channel
from persianrug.knots.law import Floats, View, view
from persianrug.sources import Source

_CLEAR = Channel()
# Features of a knot.
MOST_FEATURES = 4096
# Of C, so that the coarse grid of a law is fine enough.
LARGEST_ENTRY = 1e5
# Below, noise is narrower than the grid of a law: at 1e-5 that costs 3% of the loss, at 1e-6 up to 16%.
LEAST_RATE = 1e-5


@dataclass(frozen=True, eq=False)
class Knot(Parts):
    """k features on d channels.

    Parameters
    ----------
    name : str
    matrix : array (d, k)
        M, what a feature puts into the channels.
    readout : array (k, d), optional
        R, by default the transpose of M; its rows are scaled so that R M has a diagonal of ones.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, or a diagonal entry of R M is not positive.
    """

    name: str
    matrix: Floats = field(repr=False)
    readout: Floats = field(repr=False, default=cast(Any, None))

    def __post_init__(self) -> None:
        matrix = _matrix("matrix", self.matrix)
        d, k = matrix.shape
        if not 1 <= d <= k <= MOST_FEATURES:
            raise ValueError(
                f"matrix has shape {matrix.shape}; allowed: (d, k) with 1 <= d <= k <= {MOST_FEATURES}"
            )
        readout = matrix.T if self.readout is None else _matrix("readout", self.readout)
        if readout.shape != (k, d):
            raise ValueError(f"readout has shape {readout.shape}; allowed: {(k, d)}, as matrix")
        diagonal = np.einsum("kd,dk->k", readout, matrix)
        if not (diagonal > 0).all():
            feature = int(np.flatnonzero(~(diagonal > 0))[0])
            raise ValueError(
                f"readout @ matrix has {diagonal[feature]:g} on its diagonal at feature {feature}; "
                "allowed: numbers > 0"
            )
        # Those that were stored are scaled already, up to rounding, and are kept to the bit.
        scaled = bool((np.abs(diagonal - 1) < 1e-12).all())
        readout = readout.copy() if scaled else readout / diagonal[:, None]
        for name, part in (("matrix", matrix), ("readout", readout)):
            part.flags.writeable = False
            object.__setattr__(self, name, part)

    def __repr__(self) -> str:
        return f"Knot({self.name!r}, {self.features} features on {self.channels} channels)"

    @property
    def features(self) -> int:
        """k."""
        return self.matrix.shape[1]

    @property
    def channels(self) -> int:
        """d."""
        return self.matrix.shape[0]

    @cached_property
    def product(self) -> Floats:
        """C = R M, (k, k), with a diagonal of ones."""
        return self.readout @ self.matrix

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """Which features see the same: the first of each, (k,)."""
        off = self.product.copy()
        np.fill_diagonal(off, -np.inf)
        norms = np.linalg.norm(self.readout, axis=1)
        seen = np.column_stack([np.sort(off, axis=1)[:, 1:], norms / norms.max()])
        _, first, kind = np.unique(np.round(seen, 9), axis=0, return_index=True, return_inverse=True)
        return first[kind]

    def channel_variance(self, source: Source) -> float:
        """Variance of a channel of M x, averaged over the channels."""
        checks.instance("source", source, Source)
        return float(np.mean(source.variance) * np.sum(self.matrix**2) / self.channels)

    def law(self, source: Source, sigma: float, most: float = math.inf) -> float:
        """The loss per feature of the best ReLU, with a gain and a bias for every feature, at channel noise sigma.

        A knot that is found to lose more than `most` before all of its features are looked at loses infinity.

        Raises
        ------
        ValueError
            As `views`.
        """
        self._check(source, sigma)
        loss = 0.0
        for kind, count in zip(*np.unique(self.kinds, return_counts=True), strict=True):
            # Views are large, and each is only looked at once.
            loss += self._view(source, sigma, int(kind)).least * int(count) / self.features
            if loss > most:
                return math.inf
        return loss

    def fits(self, ratio: float) -> bool:
        """Whether its channels are as many as the dimensions a ratio in (0, 1] gives its features, or more."""
        ratio = checks.probability("ratio", ratio)
        return self.channels >= ratio * self.features - 1e-9

    def noise(self, source: Source, ratio: float, channel: Channel = _CLEAR) -> float:
        """Noise on a channel, where a rug of k / d times the ratio mixes the channels of infinitely many knots.

        Raises
        ------
        ValueError
            If ratio is not in (0, d / k]: a weave never has fewer channels than dimensions.
        """
        ratio = checks.probability("ratio", ratio)
        checks.instance("channel", channel, Channel)
        if not self.fits(ratio):
            raise ValueError(f"ratio is {ratio}; allowed with {self}: up to {self.channels / self.features:.4g}")
        variance = self.channel_variance(source)
        within = min(ratio * self.features / self.channels, 1.0) * (1 - channel.erasures)
        return math.sqrt((1 / within - 1) * variance + channel.spread_for(variance).variance / within)

    def views(self, source: Source, sigma: float) -> list[View]:
        """What every feature looks like, (k,), at noise sigma on every channel; those of one kind share a view.

        Raises
        ------
        ValueError
            If the source's features differ or p is below 1e-5, sigma is negative or not finite, or R M has
            entries above 1e5.
        """
        self._check(source, sigma)
        made = {int(i): self._view(source, sigma, int(i)) for i in np.unique(self.kinds)}
        return [made[int(i)] for i in self.kinds]

    def _view(self, source: Source, sigma: float, feature: int) -> View:
        others = np.delete(self.product[feature], feature)
        return view(source, others[others != 0], sigma * float(np.linalg.norm(self.readout[feature])))

    def _check(self, source: Source, sigma: float) -> None:
        """ValueError unless there is a law."""
        checks.instance("source", source, Source)
        if np.abs(self.product).max() > LARGEST_ENTRY:
            raise ValueError(
                f"readout @ matrix has entries up to {np.abs(self.product).max():g}; "
                f"allowed in a law: up to {LARGEST_ENTRY:g}"
            )
        checks.not_negative("sigma", sigma)
        if source.n_sparse is not None:
            raise ValueError(f"source {source.name} has features that differ; allowed with knots: alike ones")
        if source.p < LEAST_RATE:
            raise ValueError(f"p is {source.p:g}; allowed with knots: from {LEAST_RATE:g} to 1")


def _matrix(name: str, value: ArrayLike) -> Floats:
    matrix = checks.array(name, value, "a matrix of finite numbers")
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(
            f"{name} has shape {matrix.shape}, or NaN or infinity; allowed: a matrix of finite numbers"
        )
    if matrix.size and not checks.SMALLEST <= np.abs(matrix).max() <= checks.LARGEST:
        allowed = f"from {checks.SMALLEST:g} to {checks.LARGEST:g}"
        raise ValueError(f"{name} has entries up to {np.abs(matrix).max():g}; allowed: {allowed}")
    return matrix
