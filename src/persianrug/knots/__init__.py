"""Knots: small groups of features that share channels better than a rug shares dimensions."""

from persianrug.knots.knot import LARGEST_ENTRY, LEAST_RATE, MOST_FEATURES, Knot
from persianrug.knots.law import View
from persianrug.knots.library import Found, best, from_recipe, library, nearest
from persianrug.knots.shapes import cross_polytope, icosahedron, line, named, pair, polygon, simplex, single

__all__ = [
    "LARGEST_ENTRY",
    "LEAST_RATE",
    "MOST_FEATURES",
    "Found",
    "Knot",
    "View",
    "best",
    "cross_polytope",
    "from_recipe",
    "icosahedron",
    "library",
    "line",
    "named",
    "nearest",
    "pair",
    "polygon",
    "simplex",
    "single",
]
