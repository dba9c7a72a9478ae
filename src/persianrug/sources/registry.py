"""Sources by name, and from recipes."""

from __future__ import annotations

from typing import Any

from persianrug._support import checks
from persianrug.sources.atoms import Empirical, SparseConstant
from persianrug.sources.base import Source
from persianrug.sources.exponential import SparseExponential
from persianrug.sources.groups import Groups
from persianrug.sources.lognormal import SparseLogNormal
from persianrug.sources.normal import SparseGaussian, SparseHalfNormal, SparseTruncatedNormal
from persianrug.sources.scaled import Scaled
from persianrug.sources.uniform import SparseUniform

SOURCES: dict[str, type[Scaled] | type[SparseConstant]] = {
    source.name: source
    for source in (
        SparseUniform,
        SparseExponential,
        SparseHalfNormal,
        SparseTruncatedNormal,
        SparseLogNormal,
        SparseGaussian,
        SparseConstant,
    )
}
"""Sources by name, those that need only p."""


def from_recipe(recipe: dict[str, Any]) -> Source:
    """The source of a recipe.

    Raises
    ------
    ValueError
        If the recipe names no source known here, or its parameters are not what that one takes.
    """
    kinds: dict[str, Any] = {**SOURCES, Empirical.name: Empirical, Groups.name: Groups}
    name = checks.one_of("source", recipe.get("name", ""), kinds)
    parameters = {key: value for key, value in recipe.items() if key != "name"}
    if isinstance(parameters.get("members"), dict):
        parameters["members"] = from_recipe(parameters["members"])
    try:
        source: Source = kinds[name](**parameters)
    except TypeError:
        raise ValueError(
            f"recipe of source {name} has {sorted(parameters)}; allowed: its own parameters"
        ) from None
    return source
