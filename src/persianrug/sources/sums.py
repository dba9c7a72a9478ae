"""Sums of independent vectors of one source, as a source."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from persianrug._support import checks
from persianrug.sources.base import Source
from persianrug.sources.normal import SparseGaussian, SparseTruncatedNormal


def sum_of(source: Source, terms: int, weight: float, power: float, *, signed: bool) -> Source:
    """The source of sums of independent vectors of one, each times a number.

    A feature of the sum is active where one of the terms' is. Its amplitude has the right mean and variance
    and is taken to be normal, or, where nothing is negative, normal and cut at 0, so never wider than an
    exponential one.

    Parameters
    ----------
    terms : int >= 1
    weight, power : float
        Sums of the numbers, and of their squares.
    signed : bool
        Whether one of them is negative.
    """
    p = -np.expm1(terms * np.log1p(-np.minimum(source.p, 1 - 1e-16)))
    mean = weight * source.mean / p
    # (Var + E^2) / p - (E / p)^2, with the squares of means put together.
    variance = (power * source.variance - (1 - p) * p * mean**2) / p
    deviation = np.sqrt(np.maximum(variance, (1e-4 * mean) ** 2 + checks.SMALLEST**2))
    kind: Any = SparseGaussian if signed or source.signed else SparseTruncatedNormal
    loc, scale = kind.loc_and_scale(*map(np.atleast_1d, (mean, deviation)), 0.0)
    shape = np.shape(mean)
    return cast(Source, kind(p, scale.reshape(shape)[()], loc.reshape(shape)[()]))
