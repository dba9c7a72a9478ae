"""What every decoder of one feature at a time has: a way to be tuned, a risk, and hence a law."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug import _checks
from persianrug.encoders import Encoder
from persianrug.energy import energy
from persianrug.sources import Source

# An encoder whose features differ has its interference sorted into this many groups of equal count.
_MOST_LEVELS = 32


@dataclass(frozen=True)
class Decoder(ABC):
    """An estimate of each feature from y = x + sigma z, elementwise; its fields are its parameters, all floats.

    `risk` is the law of a decoder at one noise level; its losses at a finite or an infinite number of features
    are averages of it over the levels that an encoder makes.
    """

    name: ClassVar[str]
    # Whether it is zero below a threshold, and so of no use to a feature that can be negative.
    one_sided: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checks.finite(field.name, getattr(self, field.name)))

    @abstractmethod
    def tune(self, source: Source, sigma: ArrayLike) -> Self:
        """The decoder of this kind with the least risk on the source.

        Parameters
        ----------
        source : Source
        sigma : float or array (k,)
            Standard deviation of the interference, or those of k groups of equally many features.

        Raises
        ------
        ValueError
            If sigma is negative or not finite, or the source is signed and the decoder one-sided.
        """

    @abstractmethod
    def risk(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        """Expected squared error of a feature at noise sigma, an array (...) of numbers >= 0."""

    @abstractmethod
    def apply_(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        """Decode an unbiased estimate y in place."""

    def __call__(self, y: Float[Tensor, "*batch n_sparse"]) -> Float[Tensor, "*batch n_sparse"]:
        """Decode an unbiased estimate y."""
        return self.apply_(y.clone())

    @abstractmethod
    def formula(self) -> str:
        """The estimate as a formula in y, for people."""

    def recipe(self) -> dict[str, Any]:
        """What the decoder is made from, as a JSON object."""
        return {"name": self.name, **asdict(self)}

    def _checked(self, source: Source, sigma: ArrayLike) -> NDArray[np.float64]:
        """Sigma as a float64 array (k,), or ValueError where `tune` raises it."""
        if self.one_sided and source.signed:
            raise ValueError(
                f"source {source.name} is signed; allowed with decoder {self.name}: sources of features >= 0"
            )
        levels = np.atleast_1d(np.asarray(sigma, dtype=np.float64))
        if not np.isfinite(levels).all() or (levels < 0).any():
            raise ValueError(f"sigma is {levels}; allowed: finite numbers >= 0")
        return levels

    def limit(self, source: Source, encoder: Encoder) -> float:
        """Predicted loss per feature for n_sparse -> infinity at the encoder's interference."""
        return float(self.risk(source, noise_levels(source, encoder)).mean())

    def law(self, source: Source, encoder: Encoder) -> float:
        """Predicted loss per feature of this very encoder: the risk, averaged over the energy."""
        spread = energy(source, encoder.inverse_participation)
        sigma = np.sqrt(spread.nodes * interference_levels(encoder)[:, None])
        return float((self.risk(source, sigma) @ spread.weights).mean())


def interference_levels(encoder: Encoder) -> NDArray[np.float64]:
    """The encoder's interference, as at most 32 levels of (nearly) equally many features each."""
    levels = np.sort(np.atleast_1d(encoder.interference))
    if len(levels) > _MOST_LEVELS:
        levels = np.array([group.mean() for group in np.array_split(levels, _MOST_LEVELS)])
    return levels


def noise_levels(source: Source, encoder: Encoder) -> NDArray[np.float64]:
    """Standard deviations of the encoder's interference in the limit, as `interference_levels`."""
    return np.sqrt(source.variance * interference_levels(encoder))


def signed(number: float) -> str:
    """The number with its sign set apart, to be added in a formula."""
    return f"{'-' if number < 0 else '+'} {abs(number):.6g}"
