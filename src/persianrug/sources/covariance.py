"""Second moments of features that go together: a few factors, and what is left of each feature.

Features x of mean mu are taken to have the covariance

    C = F^T F + diag(d),

with the *factors* F (k, n_sparse), k far below n_sparse, and what they do not explain on the diagonal d. That is
the covariance of factor analysis. Linear estimates, and what they lose, depend on nothing else of the features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.arrays import Parts
from persianrug.sources.base import Source

Floats = NDArray[np.float64]

# Groups of vectors by their energy, and how many Gaussian ones are drawn where energies of real ones are unknown.
_GROUPS, _DRAWN = 8, 1024


@dataclass(frozen=True, eq=False)
class Covariance(Parts):
    """Mean and covariance of features, C = F^T F + diag(d).

    Parameters
    ----------
    mean : array (n_sparse,)
    factors : array (k, n_sparse)
        F; k may be 0.
    diagonal : array (n_sparse,)
        d >= 0.
    energies : array (g,), optional
        Energies |x - mean|^2 of vectors relative to their mean, of g groups of equally many, for which codes are
        rounded: of features that go together they differ, however many features there are. By default those of
        Gaussian vectors.

    Raises
    ------
    ValueError
        If arrays do not fit each other, hold what is not finite, or the diagonal a negative number.
    """

    mean: Floats
    factors: Floats
    diagonal: Floats
    energies: Floats | None = None

    def __post_init__(self) -> None:
        for name, axes in (("mean", 1), ("factors", 2), ("diagonal", 1)):
            value = checks.array(name, getattr(self, name), "finite numbers")
            shape = "(n_sparse,)" if axes == 1 else "(k, n_sparse)"
            if not np.isfinite(value).all():
                raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers {shape}")
            if value.ndim != axes:
                raise ValueError(f"{name} has shape {value.shape}; allowed: {shape}")
            object.__setattr__(self, name, value)
        for name in ("factors", "diagonal"):
            if getattr(self, name).shape[-1] != self.n_sparse:
                raise ValueError(
                    f"{name} is of {getattr(self, name).shape[-1]} features; allowed: {self.n_sparse}, as mean"
                )
        if self.energies is not None:
            energies = checks.levels("energies", self.energies)
            if energies.ndim != 1 or not len(energies) or energies.mean() <= 0:
                raise ValueError(f"energies has shape {energies.shape}; allowed: (g,), of a mean above 0")
            object.__setattr__(self, "energies", energies)
        if self.n_sparse < 1 or self.diagonal.min() < 0:
            least = self.diagonal.min(initial=0.0)
            raise ValueError(f"diagonal holds {least:g} for {self.n_sparse} features; allowed: numbers >= 0")

    @classmethod
    def of(cls, source: Source, n_sparse: int) -> Covariance:
        """That of independent features."""
        checks.instance("source", source, Source)
        mean, variance = (np.broadcast_to(part, n_sparse) for part in (source.mean, source.variance))
        return cls(mean, np.zeros((0, n_sparse)), variance)

    @property
    def n_sparse(self) -> int:
        """How many features there are."""
        return len(self.mean)

    @property
    def rank(self) -> int:
        """How many factors there are, k."""
        return len(self.factors)

    @property
    def variance(self) -> Floats:
        """Variance of every feature, (n_sparse,)."""
        return np.asarray(np.square(self.factors).sum(axis=0) + self.diagonal)

    @property
    def flat(self) -> bool:
        """Whether all features have the same left on the diagonal."""
        return bool(np.ptp(self.diagonal) == 0)

    @cached_property
    def row_energies(self) -> Floats:
        """`energies`, or those of Gaussian vectors where there are none."""
        if self.energies is not None:
            return self.energies
        energies = np.square(self.sample(_DRAWN) - self.mean).sum(axis=1)
        return grouped(energies) if energies.any() else np.ones(1)

    def flattened(self) -> Covariance:
        """The same with the mean of the diagonal instead of it."""
        return replace(self, diagonal=np.full(self.n_sparse, np.float32(self.diagonal.mean())))

    def of_sums(self, weight: float, power: float) -> Covariance:
        """That of a weighted sum of independent vectors, by the sums of the weights and of their squares."""
        return Covariance(weight * self.mean, abs(power) ** 0.5 * self.factors, power * self.diagonal)

    def sample(self, batch: int, seed: int = 0) -> Floats:
        """Gaussian vectors (batch, n_sparse) of this mean and covariance."""
        generator = np.random.default_rng(checks.seed(seed))
        batch = checks.integer("batch", batch, 1)
        own = generator.standard_normal((batch, self.n_sparse)) * np.sqrt(self.diagonal)
        return np.asarray(self.mean + own + generator.standard_normal((batch, self.rank)) @ self.factors)

    def recipe(self) -> dict[str, Any]:
        """Arrays in single precision, and for a flat diagonal one number."""
        diagonal: Any = float(self.diagonal[0]) if self.flat else self.diagonal.astype(np.float32)
        recipe = {
            "mean": self.mean.astype(np.float32),
            "factors": self.factors.astype(np.float32),
            "diagonal": diagonal,
        }
        return recipe if self.energies is None else {**recipe, "energies": self.energies}

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> Covariance:
        """The covariance of a recipe; ValueError if it is none."""
        try:
            mean, factors, diagonal = (recipe[name] for name in ("mean", "factors", "diagonal"))
            mean = checks.array("mean", mean, "finite numbers (n_sparse,)")
            if np.ndim(diagonal) == 0:
                diagonal = np.full(mean.shape, checks.not_negative("diagonal", diagonal))
            return cls(mean, factors, diagonal, recipe.get("energies"))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"recipe is none of a covariance: {error!r}; allowed: one that it wrote") from None

    @property
    def bytes(self) -> int:
        """What its arrays take in a file, as base64."""
        return sum(-(-part.nbytes // 3) * 4 for part in self.recipe().values() if isinstance(part, np.ndarray))


def grouped(energies: Floats) -> Floats:
    """Mean energies of groups of as many vectors each, relative to their mean, which is above 0."""
    parts = np.array_split(np.sort(energies), min(_GROUPS, len(energies)))
    means = np.array([part.mean() for part in parts])
    return np.asarray(means / means.mean())
