"""Decoders by name, and from recipes."""

from __future__ import annotations

from typing import Any

from persianrug._support import checks
from persianrug.decoders.base import Decoder
from persianrug.decoders.bayes import Bayes
from persianrug.decoders.cvamp import CVAMP
from persianrug.decoders.jumprelu import Gated, JumpReLU, ProLU
from persianrug.decoders.linear import Linear
from persianrug.decoders.lmmse import LMMSE
from persianrug.decoders.oamp import OAMP
from persianrug.decoders.relu import ReLU
from persianrug.decoders.soft import SoftThreshold
from persianrug.decoders.topk import TopK
from persianrug.sources import Covariance
from persianrug.sources import from_recipe as source_from_recipe

DECODERS: dict[str, type[Decoder]] = {
    decoder.name: decoder
    for decoder in (Linear, ReLU, JumpReLU, TopK, Gated, ProLU, SoftThreshold, Bayes, OAMP, LMMSE, CVAMP)
}
"""Decoders by name."""


def from_recipe(recipe: dict[str, Any]) -> Decoder:
    """The decoder of a recipe.

    Raises
    ------
    ValueError
        If the recipe names no decoder known here, or its parameters are not what that one takes.
    """
    name = checks.one_of("decoder", recipe.get("name", ""), DECODERS)
    parameters = {key: value for key, value in recipe.items() if key != "name"}
    if isinstance(parameters.get("source"), dict):
        parameters["source"] = source_from_recipe(parameters["source"])
    if isinstance(parameters.get("covariance"), dict):
        parameters["covariance"] = Covariance.from_recipe(parameters["covariance"])
    try:
        return DECODERS[name](**parameters)
    except TypeError:
        raise ValueError(
            f"recipe of decoder {name} has {sorted(parameters)}; allowed: its own parameters"
        ) from None
