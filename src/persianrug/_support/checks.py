"""Checks of arguments, in one voice: what was given, and what is allowed."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Sizes of data, so that the moments which the laws are made of stay within the range of float64.
SMALLEST, LARGEST = 1e-30, 1e30
# With room for how 32 bits round it.
BEYOND = LARGEST * (1 + 1e-6)
# Sums of squares of numbers up to this stay within the range of 32 bits.
SQUARES_FIT = 1e15
# Of a measurement, which keeps one loss a vector: 1 GiB.
MOST_SAMPLES = 1 << 27
# PyTorch takes no larger ones in one form, and databases none.
MOST_SEED = 2**63 - 1


def probability(name: str, value: float) -> float:
    """Return `value` as a float in (0, 1], or raise ValueError."""
    number = finite(name, value, "a number in (0, 1]")
    if not 0 < number <= 1:
        raise ValueError(f"{name} is {value}; allowed: a number in (0, 1]")
    return number


def rate(name: str, value: float) -> float:
    """Return `value`, the probability that a feature is active, as a float from 1e-30 to 1, or raise ValueError.

    Noise is of the size of sqrt(p) amplitudes: where features are rarer, it is below how float64 rounds these.
    """
    allowed = f"a number from {SMALLEST:g} to 1"
    number = finite(name, value, allowed)
    # With room for how powers of ten round.
    if not SMALLEST * (1 - 1e-12) <= number <= 1:
        raise ValueError(f"{name} is {value}; allowed: {allowed}")
    return number


def positive(name: str, value: float) -> float:
    """Return `value` as a finite float above 0, or raise ValueError."""
    number = finite(name, value, "a finite number > 0")
    if number <= 0:
        raise ValueError(f"{name} is {value}; allowed: a finite number > 0")
    return number


def not_negative(name: str, value: float) -> float:
    """Return `value` as a finite float >= 0, or raise ValueError."""
    number = finite(name, value, "a finite number >= 0")
    if number < 0:
        raise ValueError(f"{name} is {value}; allowed: a finite number >= 0")
    return number


def scale(name: str, value: float) -> float:
    """Return `value` as a float whose sixth powers are finite, from 1e-30 to 1e30, or raise ValueError."""
    number = positive(name, value)
    if not SMALLEST <= number <= LARGEST:
        raise ValueError(f"{name} is {value}; allowed: a number from {SMALLEST:g} to {LARGEST:g}")
    return number


def each(name: str, value: Any, check: Callable[[str, float], float]) -> Any:
    """Return a number, or an array (n,) of at least two numbers as float64, all of which pass `check`."""
    if np.ndim(value) == 0:
        return check(name, value)
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"{name} has shape {np.shape(value)}; allowed: a number, or an array of one a feature")
    # Whatever is out of range is an extreme, or not a number and then is the result of both.
    check(name, float(numbers.min()))
    check(name, float(numbers.max()))
    numbers.flags.writeable = False
    return numbers


def importance(value: ArrayLike, n_sparse: int) -> NDArray[np.float64]:
    """Return weights (n_sparse,) of the features in the loss, scaled to a mean of 1, or raise ValueError."""
    weights = np.array(value, dtype=np.float64)
    if weights.shape != (n_sparse,):
        raise ValueError(f"importance has shape {weights.shape}; allowed: ({n_sparse},), one number a feature")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
        raise ValueError("importance holds negative or infinite numbers, or nothing but 0; allowed: numbers >= 0")
    weights /= weights.max()
    return weights / weights.mean()


def finite(name: str, value: float, allowed: str = "a finite number") -> float:
    """Return `value` as a finite float, or raise ValueError."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")
    return number


def integer(name: str, value: int, low: int, high: int | None = None) -> int:
    """Return `value` as an int in [low, high], or raise ValueError."""
    allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} is {number}; allowed: {allowed}")
    return number


def seed(value: int) -> int:
    """Return a seed as an int from 0 to 2^63 - 1, the same range everywhere, or raise ValueError."""
    return integer("seed", value, 0, MOST_SEED)


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`, or raise ValueError."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
    return value


def bottleneck(shape: tuple[int, ...]) -> None:
    """Raise ValueError if W_in, of a shape (n_dense, n_sparse), makes codes longer than what they are codes of.

    Nobody means to, but W_in and W_out that are taken for each other fit as well.
    """
    n_dense, n_sparse = shape
    if n_dense > n_sparse:
        raise ValueError(
            f"W_in has shape {tuple(shape)}; allowed: (n_dense, n_sparse) with n_dense <= n_sparse; "
            "are W_in and W_out, or their transposes, the wrong way round?"
        )


def rows(name: str, value: Any, width: int) -> None:
    """Raise ValueError unless `value` is an array, tensor or sparse matrix (rows, width)."""
    if not (hasattr(value, "ndim") and hasattr(value, "dtype")):
        raise ValueError(f"{name} is a {type(value).__name__}; allowed: an array or matrix (rows, {width})")
    if value.ndim != 2 or value.shape[1] != width:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; allowed: (rows, {width})")
