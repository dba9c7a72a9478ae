"""Encoders from recipes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from persianrug._support import checks
from persianrug.encoders.base import Encoder
from persianrug.encoders.knotted import KnottedRug
from persianrug.encoders.matrix import Dense, Gaussian
from persianrug.encoders.rug import Rug


def from_recipe(recipe: dict[str, Any], tensors: dict[str, Tensor]) -> Encoder:
    """The encoder of a recipe and its tensors.

    Raises
    ------
    ValueError
        If the recipe names no encoder known here, or its arguments or tensors are not what that one takes.
    """
    makers: dict[str, Any] = {maker.name: maker.stored for maker in (Rug, Gaussian, Dense, KnottedRug)}
    name = checks.one_of("encoder", recipe.get("name", ""), makers)
    arguments = {key: value for key, value in recipe.items() if key != "name"}
    try:
        encoder: Encoder = makers[name](**arguments, **tensors)
    except (TypeError, KeyError):
        given = sorted({*arguments, *tensors})
        raise ValueError(f"recipe of encoder {name} has {given}; allowed: its own arguments") from None
    return encoder
