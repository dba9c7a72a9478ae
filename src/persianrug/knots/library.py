"""Knots that searches have found, and the best one known for a source and a ratio."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from persianrug._support import checks
from persianrug.channel import Channel
from persianrug.knots.knot import _CLEAR, Knot
from persianrug.knots.shapes import named
from persianrug.sources import Source, SparseUniform

# Points of the table of found knots that are looked at.
_NEAREST = 4


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
    text = resources.files("persianrug.knots").joinpath("data/knots.json").read_text()
    return [from_recipe(recipe) for recipe in json.loads(text)["knots"]]


def nearest(p: float, ratio: float) -> list[Found]:
    """The knots found at the nearest points of the grid, nearest first; ValueError unless both are in (0, 1]."""
    p, ratio = checks.rate("p", p), checks.probability("ratio", ratio)

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
        If ratio is outside (0, 1], or the source's features differ or are active less often than 1e-5.
    """
    ratio = checks.probability("ratio", ratio)
    checks.instance("source", source, Source)
    if source.n_sparse is not None:
        raise ValueError(f"source {source.name} has features that differ; allowed with knots: alike ones")
    knots = [*named().values(), *(one.knot for one in nearest(source.p, ratio))]
    # Small ones first: they take little time, and tell which of the large ones need not be looked at to the end.
    fitting = sorted((knot for knot in knots if knot.fits(ratio)), key=lambda knot: knot.features)
    least, found = math.inf, fitting[0]
    for knot in fitting:
        loss = knot.law(source, knot.noise(source, ratio, channel), least)
        if loss < least:
            least, found = loss, knot
    return found
