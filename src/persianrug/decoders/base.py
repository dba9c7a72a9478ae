"""What every decoder has: a way to be tuned, a way to read codes, and a law."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import Parts, map_rows, span
from persianrug.channel import Channel
from persianrug.encoders import KnottedRug
from persianrug.encoders.base import Encoder
from persianrug.encoders.energy import energy, own_group
from persianrug.sources import Each, Source

# An encoder whose features differ has its interference sorted into this many groups of equal count.
_MOST_LEVELS = 32

CLEAR = Channel()


@dataclass(frozen=True, eq=False)
class Decoder(Parts, ABC):
    """A way to estimate the features from a code; its fields are its parameters."""

    of_features: ClassVar[bool] = True
    name: ClassVar[str]
    # Whether it is zero below a threshold, and so of no use to a feature that can be negative.
    one_sided: ClassVar[bool] = False
    # Whether its law knows knots.
    bears_knots: ClassVar[bool] = False

    @abstractmethod
    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> Self:
        """The decoder of this kind with the least loss for n_sparse -> infinity.

        Raises
        ------
        ValueError
            If the source is signed and the decoder one-sided, or the decoder does not go with the encoder.
        """

    @abstractmethod
    def decode(
        self, z: Float[Tensor, "rows n_dense"], encoder: Encoder, mean: Each = 0.0, channel: Channel = CLEAR
    ) -> Float[Tensor, "rows n_sparse"]:
        """The estimate of the features from their codes, as they come from the channel."""

    @abstractmethod
    def limit(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """Predicted loss of every feature for n_sparse -> infinity at the encoder's interference.

        Returns
        -------
        array (n_sparse,), or () where it is the same for every feature
        """

    @abstractmethod
    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """Predicted loss of every feature with this very encoder, as `limit`."""

    @abstractmethod
    def formula(self) -> str:
        """The estimate as a formula, for people."""

    def recipe(self) -> dict[str, Any]:
        """What the decoder is made from: numbers, arrays, recipes."""
        return {"name": self.name, **{part.name: getattr(self, part.name) for part in fields(self)}}

    def _check_parts(self, source: Source, encoder: Encoder, channel: Channel) -> None:
        """Raise ValueError unless they are what they should be, and the decoder goes with the encoder."""
        check_parts(source, encoder, channel)
        # Interference within a knot is not Gaussian, which makes no difference to some.
        if isinstance(encoder, KnottedRug) and not self.bears_knots:
            raise ValueError(f"encoder is {encoder}; allowed with decoder {self.name}: encoders without knots")

    def _check_sides(self, source: Source) -> None:
        checks.instance("source", source, Source)
        if self.one_sided and source.signed:
            raise ValueError(
                f"source {source.name} is signed; allowed with decoder {self.name}: sources of features >= 0"
            )


@dataclass(frozen=True, eq=False)
class Elementwise(Decoder):
    """A decoder of one feature at a time, from the unbiased estimate y = x + sigma z that the code gives of it.

    `risk` is its law at one noise level; its losses at a finite or an infinite number of features are averages of
    that over the levels that an encoder makes. Parameters are numbers, or arrays (n_sparse,) where features
    differ.
    """

    one_sided = True

    def __post_init__(self) -> None:
        for part in fields(self):
            object.__setattr__(self, part.name, checks.each(part.name, getattr(self, part.name), checks.finite))

    @abstractmethod
    def tune(self, source: Source, sigma: ArrayLike) -> Self:
        """The decoder of this kind with the least risk on the source.

        Parameters
        ----------
        source : Source
            Of features that are alike; `adapt` takes others.
        sigma : float or array (k,)
            Standard deviation of the interference, or those of k groups of equally many features.

        Raises
        ------
        ValueError
            If sigma is negative or not finite, the source is signed and the decoder one-sided, or features differ.
        """

    @abstractmethod
    def risk(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        """Expected squared error of a feature at noise sigma, an array (...) of numbers >= 0.

        Where features differ, in the source or the decoder, the last axis is theirs.
        """

    @abstractmethod
    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        """Decode an unbiased estimate y, which may be overwritten."""

    def __call__(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        """Decode an unbiased estimate y."""
        return self.apply_(y.clone())

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> Self:
        """Tune the decoder to the noise that encoder and channel make, feature by feature where features differ.

        Features of which p, and scale and loc relative to the noise, differ by less than 15% share their
        parameters in these units, which costs 1e-3 of the loss or two, and up to 3% of a single feature's.
        """
        self._check_parts(source, encoder, channel)
        self._check_sides(source)
        sigma = noise_levels(source, encoder, channel)
        if source.n_sparse is None:
            (levels,), _ = _levels(sigma**2)
            return self.tune(source, np.sqrt(levels))
        sources, noise, scale, cell = source.cells(sigma)
        tuned = [self.tune(one, level) for one, level in zip(sources, noise, strict=True)]
        parameters = {part.name: np.array([getattr(one, part.name) for one in tuned]) for part in fields(self)}
        return type(self)(
            # All but the gain are in units of x.
            **{name: values[cell] * (1 if name == "gain" else scale) for name, values in parameters.items()}
        )

    def decode(
        self, z: Float[Tensor, "rows n_dense"], encoder: Encoder, mean: Each = 0.0, channel: Channel = CLEAR
    ) -> Float[Tensor, "rows n_sparse"]:
        estimate = encoder.estimator(mean, z, erasures=channel.erasures > 0)
        return map_rows(lambda rows: self.apply_(estimate(rows)), z, encoder.n_sparse)

    def limit(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        self._check_parts(source, encoder, channel)
        source = source.repeated(encoder.n_sparse) if self._differs else source
        sigma = noise_levels(source, encoder, channel)
        if source.n_sparse is not None:
            return self.risk(source, sigma)
        (levels,), group = _levels(sigma**2)
        return np.asarray(self.risk(source, np.sqrt(levels))[group])

    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """The risk, averaged over the energy of the other features.

        Those of a feature's own group, if it is in one, are active when it is.
        """
        self._check_parts(source, encoder, channel)
        source = source.repeated(encoder.n_sparse) if self._differs else source
        spread = energy(source, encoder.participation_of(channel))
        interference, noise = variances(source, encoder, channel)
        if source.n_sparse is not None:
            # One by one, since every risk is an integral for each feature.
            nodes = zip(spread.weights, spread.relative, strict=True)
            losses = [w * self._risk_at(source, part, interference, noise, encoder.n_sparse) for w, part in nodes]
            return np.asarray(np.sum(losses, axis=0))
        (interference, noise), group = _levels(interference, noise)
        risks = self._risk_at(source, spread.relative[:, None], interference, noise, encoder.n_sparse)
        return np.asarray((spread.weights @ risks)[group])

    def _risk_at(
        self, source: Source, energy: Each, interference: Each, noise: Each, n_sparse: int
    ) -> NDArray[np.float64]:
        """The risk where the others have so many times their mean energy, but for those of the own group."""
        if source.together == 1:
            return self.risk(source, np.sqrt(energy * interference + noise))
        share, *own = own_group(source, n_sparse)
        on, off = (np.sqrt(((1 - share) * energy + share * part) * interference + noise) for part in own)
        always = source.always()
        none = self.risk(source, off) - source.p * self.risk(always, off)
        return source.p * self.risk(always, on) + np.maximum(none, 0.0)

    @property
    def _differs(self) -> bool:
        """Whether features have parameters of their own."""
        return any(np.ndim(getattr(self, part.name)) for part in fields(self))

    def _checked(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        """Sigma as a float64 array (k,), or ValueError where `tune` raises it."""
        self._check_sides(source)
        if source.n_sparse is not None:
            raise ValueError(f"source {source.name} has features that differ; allowed here: alike ones, see adapt")
        levels = np.atleast_1d(checks.levels("sigma", sigma))
        if levels.ndim > 1:
            raise ValueError(f"sigma has shape {levels.shape}; allowed: a number, or an array (k,)")
        return levels


def check_parts(source: Source, encoder: Encoder, channel: Channel) -> None:
    """Raise ValueError unless these are a source, an encoder of whole groups of its features, and a channel."""
    checks.instance("source", source, Source)
    checks.instance("encoder", encoder, Encoder)
    if encoder.n_sparse % source.together:
        size = source.together
        raise ValueError(f"n_sparse is {encoder.n_sparse}; allowed in groups of {size}: multiples of {size}")
    checks.instance("channel", channel, Channel)


def levels_for(source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
    """Standard deviations that a risk on the source is asked for, or ValueError."""
    checks.instance("source", source, Source)
    return checks.levels("sigma", sigma)


def variances(
    source: Source, encoder: Encoder, channel: Channel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances of interference and noise on each feature, arrays (n_sparse,), or () where all have the same."""
    check_parts(source, encoder, channel)
    if source.n_sparse not in (None, encoder.n_sparse):
        raise ValueError(
            f"source {source.name} has {source.n_sparse} features; allowed with {encoder}: {encoder.n_sparse}"
        )
    return (
        np.asarray(encoder.interference_of(source.variance, channel)),
        channel.variance * encoder.noise_gain(channel),
    )


def noise_levels(source: Source, encoder: Encoder, channel: Channel) -> NDArray[np.float64]:
    """Standard deviation of what is added to each feature, in the limit: shapes as `variances`."""
    interference, noise = variances(source, encoder, channel)
    return np.sqrt(interference + noise)


def code_variance(source: Source, encoder: Encoder) -> float:
    """Variance of an entry of the code, on average."""
    return encoder.code_power * float(np.mean(source.variance))


def spread_levels(channel: Channel, source: Source, encoder: Encoder, *, dithered: bool = True) -> Channel:
    """The channel with its levels, if it rounds, spread for the codes of a source, which differ in energy."""
    variance = code_variance(source, encoder)
    if channel.bits is None:
        return channel.spread_for(variance)
    spread = energy(source, encoder.participation_of(CLEAR))
    return channel.spread_for(variance, spread.relative, spread.weights, dithered=dithered)


def _levels(*variances: NDArray[np.float64]) -> tuple[list[NDArray[np.float64]], Any]:
    """At most 32 levels (k,) of (nearly) equally many features each, and the level of every feature.

    Variances (), the same for all features, make one level.
    """
    variances = tuple(np.broadcast_arrays(*variances))
    if variances[0].ndim == 0:
        return [part[None] for part in variances], 0
    order = np.argsort(sum(variances), kind="stable")
    groups = np.array_split(order, min(_MOST_LEVELS, len(order)))
    group = np.empty(len(order), dtype=np.int64)
    for index, members in enumerate(groups):
        group[members] = index
    return [np.array([part[members].mean() for members in groups]) for part in variances], group


def number(value: Each) -> str:
    """A parameter for people: a number, or the range of those of features that differ."""
    if np.ndim(value) == 0:
        return f"{value:.6g}"
    return span(value)


def signed(value: Each) -> str:
    """As `number`, with the sign set apart, to be added in a formula."""
    if np.ndim(value) == 0:
        return f"{'-' if value < 0 else '+'} {abs(value):.6g}"
    return f"+ {number(value)}"
