"""Sources whose amplitude takes finitely many values: binary features, and amplitudes as data has them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import place
from persianrug._support.quadrature import normal_pdf, panels
from persianrug.sources.base import Each, Floats, Nodes, Source, check_one_length
from persianrug.sources.moments import nonzeros
from persianrug.sources.posterior import Moments, inverse_ratio

# Of places with the atoms of an empirical source, at a time.
_MOST_MEETINGS = 1 << 20


class Atomic(Source):
    """A source whose amplitude takes finitely many values."""

    @property
    @abstractmethod
    def _atoms(self) -> Nodes:
        """Values (k,), or (n_sparse, k), and their probabilities (k,)."""

    def amplitude_nodes(self, centre: Floats, width: Floats) -> Nodes:  # noqa: ARG002
        u, w = self._atoms
        shape = np.broadcast_shapes(np.shape(width), u.shape[:-1])
        return np.broadcast_to(u, (*shape, u.shape[-1])), np.broadcast_to(w, (*shape, len(w)))

    def observations(self, sigma: Floats) -> tuple[Floats, Floats, Floats]:
        # Panels of about one sigma, since between off and active the posterior changes within a fraction of that.
        # Where noise is stronger than the distance of values, few of them are enough for all.
        (u, w), reach = self._atoms, self._reach
        sigma = np.broadcast_to(sigma, np.broadcast_shapes(np.shape(sigma), u.shape[:-1]))
        s, x = sigma[..., None], np.concatenate([np.zeros_like(u[..., :1]), u], axis=-1)
        breaks = np.sort(
            (x[..., None] + s[..., None] * np.arange(-reach, reach + 1.0)).reshape(*sigma.shape, -1), axis=-1
        )
        nodes = panels(_thinned(breaks.reshape(-1, breaks.shape[-1]), 0.9 * sigma.reshape(-1)))
        y, dy = (part.reshape(*sigma.shape, -1) for part in nodes)
        on = np.zeros_like(y)
        for k, weight in enumerate(w):
            on += weight * normal_pdf((y - u[..., k, None]) / s)
        return y, dy * on / s, dy * normal_pdf(y / s) / s

    def _draw(self, shape: torch.Size, generator: torch.Generator | None, like: Tensor) -> Tensor:
        u, w = self._atoms
        values = torch.tensor(u, dtype=like.dtype, device=like.device)
        if len(w) == 1:
            return values[..., 0].expand(shape)
        edges = torch.from_numpy(np.cumsum(w)[:-1]).to(like.device)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)
        return values[torch.searchsorted(edges, uniform, right=True)]

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        u, w = (torch.tensor(part, device=y.device) for part in self._atoms)
        exponent = torch.log(w) + (y[..., None] * u - 0.5 * u * u) / (sigma * sigma)[..., None]
        log_ratio = torch.logsumexp(exponent, -1)
        mass = torch.exp(exponent - log_ratio[..., None])
        mean = (mass * u).sum(-1)
        variance = (mass * (u - mean[..., None]) ** 2).sum(-1)
        return log_ratio, mean, variance


def _thinned(breaks: Floats, distance: Floats) -> Floats:
    """Ascending breaks (rows, k) without those nearer to the last than a distance (rows,), as many everywhere."""
    rows = []
    for row, least in zip(breaks, distance, strict=True):
        kept = [row[0]]
        for edge in row[1:]:
            if edge - kept[-1] >= least:
                kept.append(edge)
        rows.append([*kept, row[-1]])
    width = max(len(row) for row in rows)
    return np.array([row + [row[-1]] * (width - len(row)) for row in rows])


@dataclass(frozen=True, eq=False)
class SparseConstant(Atomic):
    """Active features all equal to `scale`: binary data."""

    scale: Each = 1.0

    name = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", checks.each("scale", self.scale, checks.scale))
        check_one_length(self)

    @property
    def _atoms(self) -> Nodes:
        return np.asarray(self.scale)[..., None], np.ones(1)

    def amplitude_moment(self, k: int) -> Each:
        return self.scale**k

    @property
    def amplitude_variance(self) -> float:
        return 0.0

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        scale = place(self.scale, y)
        exponent = (0.5 * scale - y) * (scale / (sigma * sigma))
        mean = torch.as_tensor(scale, dtype=y.dtype, device=y.device)
        return inverse_ratio(exponent), mean, torch.zeros_like(mean)


@dataclass(frozen=True, eq=False)
class Empirical(Atomic):
    """Amplitudes that take given values with given probabilities, usually fitted to data by `Empirical.fit`.

    Features are drawn independently and all alike: what is drawn has the values of data, but correlations between
    the features of its rows are lost, and so is which feature is frequent.

    Parameters
    ----------
    p : float from 1e-30 to 1
        Probability that a feature is active.
    values : array (k,)
        The amplitudes, none of them 0.
    weights : array (k,), optional
        Their probabilities, up to a factor; by default all alike.

    Raises
    ------
    ValueError
        If values or weights are not finite, are empty or do not fit each other, a value is 0 or of a
        size beyond 1e-30 to 1e30, or a weight is not positive.
    """

    values: Floats = field(repr=False)
    weights: Floats | None = field(default=None, repr=False)

    name = "empirical"

    # As many atoms as `fit` keeps. Above, values are merged; the variance lost is that within a group.
    MOST_ATOMS: ClassVar[int] = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", checks.rate("p", self.p))
        values = checks.array("values", self.values, "one axis of at least one number")
        weights = np.ones(values.shape)
        if self.weights is not None:
            weights = checks.array("weights", self.weights, "finite numbers > 0, one a value")
        if values.ndim != 1 or not len(values):
            raise ValueError(f"values has shape {values.shape}; allowed: one axis of at least one number")
        sizes = np.abs(values)
        if not ((sizes >= checks.SMALLEST) & (sizes <= checks.LARGEST)).all():
            raise ValueError(
                f"values holds sizes from {sizes.min():g} to {sizes.max():g}; "
                f"allowed: from {checks.SMALLEST:g} to {checks.LARGEST:g}"
            )
        if weights.shape != values.shape or not np.isfinite(weights).all() or not (weights > 0).all():
            raise ValueError(
                f"weights has shape {weights.shape}; allowed: {len(values)} finite numbers > 0, one a value"
            )
        object.__setattr__(self, "values", values)
        # Those that add up to 1 stay as they are, so that a source that was stored is the same.
        total = weights.sum()
        object.__setattr__(self, "weights", weights if abs(total - 1) < 1e-12 else weights / total)

    @property
    def _atoms(self) -> Nodes:
        return self.values, cast(Floats, self.weights)

    def _each(self) -> list[str]:
        return []

    def amplitude_moment(self, k: int) -> float:
        u, w = self._atoms
        return float(w @ u**k)

    @property
    def amplitude_variance(self) -> float:
        u, w = self._atoms
        return float(w @ (u - w @ u) ** 2)

    def active(self, y: Tensor, sigma: Tensor) -> Moments:
        # Every place meets every atom: in pieces, whose memory is bounded.
        shape = torch.broadcast_shapes(y.shape, sigma.shape)
        step = max(1, _MOST_MEETINGS // len(self.values))
        places = (part.expand(shape).reshape(-1).split(step) for part in (y, sigma))
        parts = zip(*(self._meet(*piece) for piece in zip(*places, strict=True)), strict=True)
        inverse, mean, variance = (torch.cat(part).reshape(shape) for part in parts)
        return inverse, mean, variance

    def _meet(self, y: Tensor, sigma: Tensor) -> Moments:
        u, w = (torch.from_numpy(part).to(y) for part in self._atoms)
        precision = (sigma * sigma).reciprocal()[:, None]
        exponent = torch.addcmul(torch.log(w), y[:, None] * precision, u).addcmul_(precision, u * u, value=-0.5)
        top = exponent.amax(-1, keepdim=True)
        mass = (exponent - top).exp_()
        middle = u.mean()
        total, first, second = (mass @ torch.stack([torch.ones_like(u), u - middle, (u - middle) ** 2], 1)).unbind(
            1
        )
        mean = first / total
        inverse = inverse_ratio(-top[:, 0]) / total
        return inverse, mean + middle, (second / total - mean * mean).clamp(min=0.0)

    def _active_posterior(self, y: Tensor, sigma: Tensor) -> Moments:
        step = max(1, _MOST_MEETINGS // len(self.values))
        pieces = zip(y.reshape(-1).split(step), sigma.reshape(-1).split(step), strict=True)
        parts = zip(*(super(Empirical, self)._active_posterior(*piece) for piece in pieces), strict=True)
        log_ratio, mean, variance = (torch.cat(part).reshape(y.shape) for part in parts)
        return log_ratio, mean, variance

    @classmethod
    def fit(cls, rows: object) -> Empirical:
        """Fit to data: p is the share of entries that are not 0, the amplitudes are their values.

        All features are pooled, and taken to be independent: correlations between the features of the rows are
        lost, so that a law or a loss on samples need not be that of the rows, on which `Autoencoder.measure`
        measures. Up to 64 distinct values are kept as they are; more are merged into at
        most 64 groups, each represented by its mean, so that the mean is kept exactly. As the source
        is discrete, its posterior at noise far below the distance between values snaps to the values.

        Parameters
        ----------
        rows : array (rows, features), tensor or SciPy sparse matrix

        Raises
        ------
        ValueError
            If rows has no entries, entries that are not finite, or nothing but zeros.
        """
        size, active, _, _ = nonzeros(rows)
        if not len(active):
            raise ValueError("rows holds nothing but zeros; allowed: at least one entry that is not 0")
        values, counts = np.unique(active, return_counts=True)
        if len(values) > cls.MOST_ATOMS:
            # Half of the edges make groups of equal count, half of equal width, for the bulk and for the tails.
            ordered, half = np.sort(active), cls.MOST_ATOMS // 2
            edges = [
                np.quantile(ordered, np.linspace(0, 1, half + 1)),
                np.linspace(values[0], values[-1], half + 1),
            ]
            cuts = np.searchsorted(ordered, np.unique(np.concatenate(edges))[1:-1])
            groups = [g for g in np.split(ordered, cuts) if len(g)]
            values = np.array([g.mean() for g in groups])
            counts = np.array([len(g) for g in groups])
            # Groups on both sides of zero could in principle average to it.
            keep = values != 0
            values, counts = values[keep], counts[keep]
        return cls(len(active) / size, values, counts.astype(np.float64))
