"""Knots with a name: pairs, lines, polygons, simplices, cross-polytopes and the icosahedron."""

from __future__ import annotations

import math

import numpy as np

from persianrug._support import checks
from persianrug.knots.knot import MOST_FEATURES, Knot
from persianrug.knots.law import Floats

# Those with a name.


def single() -> Knot:
    """One feature on one channel: the plain rug."""
    return Knot("single", np.ones((1, 1)))


def pair() -> Knot:
    """An antipodal pair: two features on one channel, of opposite sign."""
    return Knot("pair", np.array([[1.0, -1.0]]))


def line(k: int) -> Knot:
    """k >= 1 features on one channel, of alternating sign."""
    k = checks.integer("k", k, 1, MOST_FEATURES)
    return Knot(f"line-{k}", np.where(np.arange(k) % 2, -1.0, 1.0)[None])


def polygon(k: int) -> Knot:
    """k >= 3 features on two channels, as a regular polygon: a triangle, a square, a pentagon, ..."""
    angles = 2 * np.pi * np.arange(checks.integer("k", k, 3, MOST_FEATURES)) / k
    return Knot(f"polygon-{k}", np.stack([np.cos(angles), np.sin(angles)]))


def simplex(k: int) -> Knot:
    """k >= 2 features on k - 1 channels, all at -1 / (k - 1) to each other: a pair, a triangle, a tetrahedron."""
    k = checks.integer("k", k, 2, MOST_FEATURES)
    # Rows of an orthogonal matrix whose first column is constant.
    basis: Floats = np.linalg.qr(np.column_stack([np.ones(k), np.eye(k)[:, : k - 1]]))[0][:, 1:]
    return Knot(f"simplex-{k}", basis.T * math.sqrt(k / (k - 1)))


def cross_polytope(d: int) -> Knot:
    """2 d features on d channels: d antipodal pairs at right angles."""
    d = checks.integer("d", d, 1, MOST_FEATURES // 2)
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
