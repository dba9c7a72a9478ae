"""Knots: small dictionaries of d channels for k features, and what a ReLU loses on them.

The rug treats all interference alike. But interference that is negative is cut by the ReLU and costs nothing
while the feature is off, so a good W spends its off-diagonal entries on a few large negative ones. A *knot* (a
feature geometry: an antipodal pair, a triangle, a pentagon, ...) does so among k features, by a matrix M (d x k)
and a readout R (k x d) scaled so that C = R M has a diagonal of ones. A rug woven of knots repeats it over all
features, and mixes the channels M x of all of them with a plain rug (`weaves.py`). A feature of a knot is read as

    y_i = x_i + e_i,      e_i = sum_{j != i} C_ij (x_j - m) + sigma |R_i| z,

with m the source's mean, sigma the noise that the weave leaves on a channel, and standard normal z.

The loss of a decoder f is an integral over y,

    E (x - f(y))^2 = int dy [M2(y) - 2 f(y) M1(y) + f(y)^2 M0(y)],    Mq(y) dy = E[x^q; y],

whose densities are convolutions of those of the C_ij x_j: products of their Fourier transforms. They are taken on
a fine grid, to which every mass is distributed linearly, so that means are exact and all else is to second order.
No sampling is needed, however large the knot.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persianrug import _checks
from persianrug._arrays import Parts
from persianrug._quadrature import rectified_first
from persianrug.channel import Channel
from persianrug.sources import Source, SparseUniform

Floats = NDArray[np.float64]

_CLEAR = Channel()
# Features of a knot.
MOST_FEATURES = 4096
# Noise of more steps of the grid than this has a transform that ends before the grid's does.
_WIDE = 4.0
# Points of the table of found knots that are looked at.
_NEAREST = 4
# Of C, so that the coarse grid of a law is fine enough.
LARGEST_ENTRY = 1e5
# Entries of C beyond which a grid for all of them would be too coarse for the others.
_LARGE = 16.0
# Points of the grid to a root mean square amplitude, and in all.
_FINENESS = 2048
_MOST_POINTS = 1 << 17


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
            loss += _view(self, source, sigma, int(kind)).least * int(count) / self.features
            if loss > most:
                return math.inf
        return loss

    def fits(self, ratio: float) -> bool:
        """Whether its channels are as many as the dimensions that the ratio gives its features, or more."""
        return self.channels >= ratio * self.features - 1e-9

    def noise(self, source: Source, ratio: float, channel: Channel = _CLEAR) -> float:
        """Noise on a channel, where a rug of k / d times the ratio mixes the channels of infinitely many knots.

        Raises
        ------
        ValueError
            If ratio is not in (0, d / k]: a weave never has fewer channels than dimensions.
        """
        ratio = _checks.probability("ratio", ratio)
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
            If the source's features differ, sigma is negative or not finite, or R M has entries above 1e5.
        """
        self._check(source, sigma)
        made = {int(i): _view(self, source, sigma, int(i)) for i in np.unique(self.kinds)}
        return [made[int(i)] for i in self.kinds]

    def _check(self, source: Source, sigma: float) -> None:
        """ValueError unless there is a law."""
        if np.abs(self.product).max() > LARGEST_ENTRY:
            raise ValueError(
                f"readout @ matrix has entries up to {np.abs(self.product).max():g}; "
                f"allowed in a law: up to {LARGEST_ENTRY:g}"
            )
        _checks.not_negative("sigma", sigma)
        if source.n_sparse is not None:
            raise ValueError(f"source {source.name} has features that differ; allowed with knots: alike ones")


@dataclass(frozen=True)
class View:
    """The joint law of a feature x and its estimate y, on a grid of y.

    Attributes
    ----------
    y : array (n,), ascending
    moments : array (3, n)
        Masses E[x^q; y] for q = 0, 1, 2.
    """

    y: Floats
    moments: Floats

    def loss(self, gain: float, bias: float) -> float:
        """E (x - max(gain y + bias, 0))^2."""
        x_hat = np.maximum(gain * self.y + bias, 0.0)
        loss = np.sum(self.moments[2] + x_hat * (x_hat * self.moments[0] - 2 * self.moments[1]))
        # Of a loss far below the grid's accuracy not even the sign is left.
        return max(float(loss), 0.0)

    @cached_property
    def least(self) -> float:
        """The loss of the best gain and bias."""
        return self.loss(*self.best_relu)

    @cached_property
    def best_relu(self) -> tuple[float, float]:
        """Gain and bias of least loss.

        For each threshold t = -bias / gain the gain is a least squares fit, N / D with N = E[x (y - t)_+] and D =
        E[(y - t)_+^2], and what it leaves is E x^2 - N^2 / D. Sums from above say that for every t of the grid. Or
        the mean of x is as good.
        """
        m0, m1, _ = self.moments
        y = self.y

        def above(part: Floats) -> Floats:
            return np.cumsum(part[::-1])[::-1]

        count, x = above(m0), above(m1)
        overlap = above(m1 * y) - y * x
        power = above(m0 * y * y) - 2 * y * above(m0 * y) + y * y * count
        # Sums of so little are rounding errors.
        useful = power > 1e-13 * power[0]
        gained = np.divide(np.maximum(overlap, 0.0) ** 2, power, out=np.zeros_like(power), where=useful)
        best = int(np.argmax(gained))
        if gained[best] <= x[0] ** 2:
            return 0.0, max(float(x[0]), 0.0)
        gain = float(overlap[best] / power[best])
        return gain, -gain * float(y[best])


def _view(knot: Knot, source: Source, sigma: float, feature: int) -> View:
    others = np.delete(knot.product[feature], feature)
    others = others[others != 0]
    noise = sigma * float(np.linalg.norm(knot.readout[feature]))
    large = np.abs(others) > _LARGE
    y, moments = _moments(source, others[~large], noise)
    if large.any():
        # Where none of the large entries is active a fine grid is needed, and else a coarse one does.
        none = (1 - source.p) ** int(large.sum())
        places, all_moments = _moments(source, others, noise, others[~large])
        y, moments = np.concatenate([y, places]), np.concatenate([none * moments, all_moments], axis=1)
        order = np.argsort(y, kind="stable")
        y, moments = y[order], moments[:, order]
    return View(y - source.mean * float(others.sum()), moments)


def _moments(source: Source, others: Floats, noise: float, without: Floats | None = None) -> tuple[Floats, Floats]:
    """A grid of x + sum of others x_j + noise z, and its moments (3, n) as in `View`.

    With `without`, those of others but for the large ones, the case that no large one is active is left out.
    """
    unit = math.sqrt(source.second_moment / source.p)
    u, _ = _amplitudes(source)
    reach = np.array([min(u.min(), 0.0), max(u.max(), 0.0)])
    ends = np.sort(np.outer(others, reach), axis=1).sum(axis=0) + reach
    # Of many others, no more than a few are active at once.
    spread = math.sqrt(float(np.sum(others**2)) * source.variance + noise**2)
    centre = source.mean * float(others.sum())
    most = 12 * spread + 6 * unit * float(np.abs(others).max(initial=0.0))
    low = max(ends[0], centre - most + reach[0]) - 9 * noise
    high = min(ends[1], centre + most + reach[1]) + 9 * noise
    if without is None and source.variance > 0:
        # The best affine decoder is zero at y = -mean spread^2 / v, below which nothing is to be found.
        low = min(low, -source.mean * spread**2 / source.variance)
    points = 1 << math.ceil(math.log2(max(2.0, 1.05 * (high - low) * _FINENESS / unit)))
    points = min(max(points, 1 << 12), _MOST_POINTS)
    step = 1.05 * (high - low) / points

    def sums(entries: Floats) -> NDArray[np.complex128]:
        """The transform of the sum of entries x_j, and noise."""
        transform = _noise(noise / step, points)
        for entry, count in zip(*np.unique(np.round(entries, 12), return_counts=True), strict=True):
            factor = 1 - source.p + source.p * _binned(source, entry / step, points, 0)
            transform *= factor if count == 1 else factor ** int(count)
        return transform

    transform = sums(others)
    if without is not None:
        transform -= (1 - source.p) ** (len(others) - len(without)) * sums(without)
    on = [source.p * transform * _binned(source, 1 / step, points, q) for q in range(3)]
    off = (1 - source.p) * transform
    moments = np.fft.irfft(np.stack([off + on[0], on[1], on[2]]), points)
    # The grid is periodic: it starts at the multiple of the step below `low`.
    start = math.floor((low - 0.02 * (high - low)) / step)
    return step * (start + np.arange(points)), np.roll(moments, -start, axis=1)


@lru_cache(maxsize=64)
def _amplitudes(source: Source) -> tuple[Floats, Floats]:
    """Nodes of the amplitude, some hundreds, as losses change where a ReLU opens."""
    u, _ = source.amplitude_nodes(np.zeros(1), np.array(0.0))
    centres = np.linspace(float(u.min()), float(u.max()), 3)
    return source.amplitude_nodes(centres, np.array(float(np.ptp(u)) / 32))


def _binned(source: Source, steps: float, points: int, q: int) -> NDArray[np.complex128]:
    """The transform of the masses E[u^q; u steps], each shared by the two nearest points of the grid."""
    u, w = _amplitudes(source)
    places, weights = steps * u, w * u**q
    below = np.floor(places)
    part = places - below
    index = below.astype(np.int64) % points
    masses = np.bincount(index, weights * (1 - part), points)
    masses += np.bincount((index + 1) % points, weights * part, points)
    return np.fft.rfft(masses)


def _noise(steps: float, points: int) -> NDArray[np.complex128]:
    """The transform of Gaussian noise of a standard deviation in steps of the grid."""
    if steps > _WIDE:
        return np.exp(-0.5 * (2 * np.pi * steps * np.fft.rfftfreq(points)) ** 2).astype(np.complex128)
    # Narrower noise is shared by the nearest points, as all masses are: its transform would be cut off, which
    # makes negative masses. The mass of point k >= 1 is a second difference of E max(steps z - k, 0).
    k = np.arange(0.0, 10 * _WIDE + 2)
    beyond = np.zeros(len(k)) if steps == 0 else rectified_first(-k, np.full(len(k), steps))
    masses = np.zeros(points)
    masses[1 : len(k) - 1] = beyond[:-2] - 2 * beyond[1:-1] + beyond[2:]
    masses[1 - len(k) + 1 :] = masses[1 : len(k) - 1][::-1]
    masses[0] = 1 - masses.sum()
    return np.fft.rfft(masses)


def _matrix(name: str, value: ArrayLike) -> Floats:
    try:
        matrix = np.array(value)
        matrix = matrix.astype(np.float64) if np.isrealobj(matrix) else np.empty(0)
    except (TypeError, ValueError, RuntimeError):
        matrix = np.empty(0)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"{name} has shape {np.shape(value)}; allowed: a matrix of finite numbers")
    if matrix.size and not _checks.SMALLEST <= np.abs(matrix).max() <= _checks.LARGEST:
        allowed = f"from {_checks.SMALLEST:g} to {_checks.LARGEST:g}"
        raise ValueError(f"{name} has entries up to {np.abs(matrix).max():g}; allowed: {allowed}")
    return matrix


# Those with a name.


def single() -> Knot:
    """One feature on one channel: the plain rug."""
    return Knot("single", np.ones((1, 1)))


def pair() -> Knot:
    """An antipodal pair: two features on one channel, of opposite sign."""
    return Knot("pair", np.array([[1.0, -1.0]]))


def line(k: int) -> Knot:
    """k >= 1 features on one channel, of alternating sign."""
    k = _checks.integer("k", k, 1, MOST_FEATURES)
    return Knot(f"line-{k}", np.where(np.arange(k) % 2, -1.0, 1.0)[None])


def polygon(k: int) -> Knot:
    """k >= 3 features on two channels, as a regular polygon: a triangle, a square, a pentagon, ..."""
    angles = 2 * np.pi * np.arange(_checks.integer("k", k, 3, MOST_FEATURES)) / k
    return Knot(f"polygon-{k}", np.stack([np.cos(angles), np.sin(angles)]))


def simplex(k: int) -> Knot:
    """k >= 2 features on k - 1 channels, all at -1 / (k - 1) to each other: a pair, a triangle, a tetrahedron."""
    k = _checks.integer("k", k, 2, MOST_FEATURES)
    # Rows of an orthogonal matrix whose first column is constant.
    basis: Floats = np.linalg.qr(np.column_stack([np.ones(k), np.eye(k)[:, : k - 1]]))[0][:, 1:]
    return Knot(f"simplex-{k}", basis.T * math.sqrt(k / (k - 1)))


def cross_polytope(d: int) -> Knot:
    """2 d features on d channels: d antipodal pairs at right angles."""
    d = _checks.integer("d", d, 1, MOST_FEATURES // 2)
    return Knot(f"cross-polytope-{d}", np.concatenate([np.eye(d), -np.eye(d)], axis=1))


def icosahedron() -> Knot:
    """Twelve features on three channels: six antipodal pairs along the axes of the icosahedron."""
    golden = (1 + math.sqrt(5)) / 2
    corners: Floats = np.array(
        [np.roll([0.0, a, b * golden], turn) for turn in range(3) for a in (1, -1) for b in (1, -1)]
    )
    return Knot("icosahedron", corners.T / math.hypot(*corners[0]))


def named() -> dict[str, Knot]:
    """The knots that are known by name, of up to twelve features."""
    knots = [single(), pair(), icosahedron()]
    knots += [polygon(k) for k in range(3, 9)] + [simplex(k) for k in range(4, 9)]
    knots += [cross_polytope(d) for d in range(2, 7)]
    return {knot.name: knot for knot in knots}


# Those that were found.


@dataclass(frozen=True)
class Found:
    """A knot that a search has found.

    Attributes
    ----------
    knot : Knot
    p, ratio : float
        Where it was searched for, for features uniform on [0, 1].
    loss : float
        Its law there.
    rug : float
        The law of the plain rug there.
    how : str
        How it was found.
    """

    knot: Knot
    p: float
    ratio: float
    loss: float
    rug: float
    how: str

    def recipe(self) -> dict[str, Any]:
        """A JSON object, which also says gain and bias of every feature: x_hat = max(gain y + bias, 0)."""
        source = SparseUniform(self.p)
        views = self.knot.views(source, self.knot.noise(source, self.ratio))
        gain, bias = zip(*(view.best_relu for view in views), strict=True)
        return {
            "name": self.knot.name,
            "p": self.p,
            "ratio": self.ratio,
            "loss": self.loss,
            "rug": self.rug,
            "how": self.how,
            "matrix": self.knot.matrix.tolist(),
            "readout": self.knot.readout.tolist(),
            "gain": gain,
            "bias": bias,
        }


def from_recipe(recipe: dict[str, Any]) -> Found:
    """What `Found.recipe` described.

    Raises
    ------
    ValueError
        If it is not such a description.
    """
    try:
        knot = Knot(str(recipe["name"]), recipe["matrix"], recipe["readout"])
        p, ratio, loss, rug = (float(recipe[name]) for name in ("p", "ratio", "loss", "rug"))
        return Found(knot, p, ratio, loss, rug, str(recipe["how"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"knot has no {error}; allowed: what a search wrote") from None


@lru_cache(maxsize=1)
def library() -> list[Found]:
    """The best knots known on a grid of (p, ratio), as they ship with the package."""
    text = resources.files("persianrug").joinpath("data/knots.json").read_text()
    return [from_recipe(recipe) for recipe in json.loads(text)["knots"]]


def nearest(p: float, ratio: float) -> list[Found]:
    """The knots found at the nearest points of the grid, nearest first."""

    def distance(one: Found) -> float:
        return math.log(one.p / p) ** 2 + math.log(one.ratio / ratio) ** 2

    return sorted(library(), key=distance)[:_NEAREST]


def best(source: Source, ratio: float, channel: Channel = _CLEAR) -> Knot:
    """The knot with the least law at the ratio, among those by name and those found nearby.

    Those that are found for a code without noise hold features of very different sizes, and bear little noise.

    Parameters
    ----------
    source : Source
        Of features that are alike, and not negative.
    ratio : float in (0, 1]
    channel : Channel

    Raises
    ------
    ValueError
        If ratio is outside (0, 1], or the source's features differ.
    """
    ratio = _checks.probability("ratio", ratio)
    knots = [*named().values(), *(one.knot for one in nearest(source.p, ratio))]
    # Small ones first: they take little time, and tell which of the large ones need not be looked at to the end.
    fitting = sorted((knot for knot in knots if knot.fits(ratio)), key=lambda knot: knot.features)
    least, found = math.inf, fitting[0]
    for knot in fitting:
        loss = knot.law(source, knot.noise(source, ratio, channel), least)
        if loss < least:
            least, found = loss, knot
    return found
