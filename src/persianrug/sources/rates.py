"""Rates of features that differ: Zipf's law."""

from __future__ import annotations

import numpy as np

from persianrug._support import checks
from persianrug.sources.base import Floats


def zipf_rates(n_sparse: int, p: float, exponent: float = 1.0) -> Floats:
    """Rates of features that fire by Zipf's law: p_i proportional to 1 / i^exponent, at most 1, with mean p.

    Parameters
    ----------
    n_sparse : int >= 2
    p : float from 1e-30 to 1
        Mean of the rates.
    exponent : float, 0 to 10

    Returns
    -------
    array (n_sparse,), descending, and nowhere below 1e-30

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    n_sparse = checks.integer("n_sparse", n_sparse, 2)
    p = checks.rate("p", p)
    exponent = checks.not_negative("exponent", exponent)
    if exponent > 10:
        raise ValueError(f"exponent is {exponent}; allowed: a number from 0 to 10")
    weights = np.arange(1, n_sparse + 1, dtype=np.float64) ** -exponent
    # The first k are always active; the others make up the rest.
    tails = np.cumsum(weights[::-1])[::-1]
    shares = np.maximum(p * n_sparse - np.arange(n_sparse), 0) / tails
    full = int(np.argmax(shares * weights <= 1)) if bool((shares * weights <= 1).any()) else n_sparse
    rates = np.ones(n_sparse)
    if full < n_sparse:
        rates[full:] = np.maximum(shares[full] * weights[full:], checks.SMALLEST)
    return rates
