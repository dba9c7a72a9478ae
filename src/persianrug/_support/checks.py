"""Checks of arguments, in one voice: what was given, and what is allowed."""

from __future__ import annotations

import errno
import math
import operator
import os
import reprlib
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")

# Sizes of data, so that the moments which the laws are made of stay within the range of float64.
SMALLEST, LARGEST = 1e-30, 1e30
# With room for how 32 bits round it.
BEYOND = LARGEST * (1 + 1e-6)
# Sums of squares of numbers up to this stay within the range of 32 bits.
SQUARES_FIT = 1e15
# Of a measurement, which keeps one loss a vector: 1 GiB.
MOST_SAMPLES = 1 << 27
# PyTorch takes no larger ones as a seed in one form, and NumPy and databases none.
MOST_INTEGER = MOST_SEED = 2**63 - 1


# Characters of a value in a message.
_MOST_SHOWN = 80
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = _MOST_SHOWN


def shown(value: Any) -> str:
    """A value for messages, short and in one line: of an array its shape, of long values their beginning."""
    value = _plain(value)
    shape = _shape(value)
    if isinstance(shape, tuple):
        return f"an array of shape {tuple(shape)}"
    if isinstance(value, int) and value.bit_length() > 256:
        # Python refuses to write far longer ones.
        return f"an integer of {value.bit_length()} bits"
    return shortened(_repr.repr(value), _MOST_SHOWN)


def shortened(text: str, most: int = 2 * _MOST_SHOWN) -> str:
    """A text in one line, of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _plain(value: Any) -> Any:
    """The number that a NumPy scalar, or an array or tensor () holds; everything else as it is."""
    if _shape(value) == () and hasattr(value, "item") and not isinstance(value, np.ma.MaskedArray):
        try:
            return value.item()
        except (RuntimeError, TypeError, ValueError):
            # Tensors without content.
            return value
    return value


def _shape(value: Any) -> Any:
    """The shape of an array or tensor; None of everything else, and of nested tensors, which have none."""
    try:
        return getattr(value, "shape", None)
    except RuntimeError:
        return None


def probability(name: str, value: float) -> float:
    """Return `value` as a float in (0, 1], or raise ValueError."""
    number = finite(name, value, "a number in (0, 1]")
    if not 0 < number <= 1:
        raise ValueError(f"{name} is {shown(value)}; allowed: a number in (0, 1]")
    return number


def rate(name: str, value: float) -> float:
    """Return `value`, the probability that a feature is active, as a float from 1e-30 to 1, or raise ValueError.

    Noise is of the size of sqrt(p) amplitudes: where features are rarer, it is below how float64 rounds these.
    """
    allowed = f"a number from {SMALLEST:g} to 1"
    number = finite(name, value, allowed)
    # With room for how powers of ten round.
    if not SMALLEST * (1 - 1e-12) <= number <= 1:
        raise ValueError(f"{name} is {shown(value)}; allowed: {allowed}")
    return number


def positive(name: str, value: float) -> float:
    """Return `value` as a finite float above 0, or raise ValueError."""
    number = finite(name, value, "a finite number > 0")
    if number <= 0:
        raise ValueError(f"{name} is {shown(value)}; allowed: a finite number > 0")
    return number


def not_negative(name: str, value: float) -> float:
    """Return `value` as a finite float >= 0, or raise ValueError."""
    number = finite(name, value, "a finite number >= 0")
    if number < 0:
        raise ValueError(f"{name} is {shown(value)}; allowed: a finite number >= 0")
    return number


def scale(name: str, value: float) -> float:
    """Return `value` as a float whose sixth powers are finite, from 1e-30 to 1e30, or raise ValueError."""
    number = positive(name, value)
    if not SMALLEST <= number <= LARGEST:
        raise ValueError(f"{name} is {shown(value)}; allowed: a number from {SMALLEST:g} to {LARGEST:g}")
    return number


def each(name: str, value: Any, check: Callable[[str, float], float]) -> Any:
    """Return a number, or an array (n,) of at least two numbers as float64, all of which pass `check`."""
    if not isinstance(value, list | tuple) and getattr(value, "shape", ()) == ():
        return check(name, value)
    numbers = array(name, value, "a number, or an array of one a feature")
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"{name} has shape {numbers.shape}; allowed: a number, or an array of one a feature")
    # Whatever is out of range is an extreme, or not a number and then is the result of both.
    check(name, float(numbers.min()))
    check(name, float(numbers.max()))
    numbers.flags.writeable = False
    return numbers


def array(name: str, value: Any, allowed: str) -> NDArray[np.float64]:
    """A copy of numbers, an array, a tensor, lists or one number, as a float64 array, or raise ValueError.

    Masked arrays are refused, whose masks would be lost, and so are texts, objects, booleans and complex numbers.
    """
    try:
        if hasattr(value, "detach"):
            # NumPy knows no bfloat16.
            value = value.detach().cpu().double() if value.is_floating_point() else value.cpu()
        numbers = np.asanyarray(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is {shown(value)}; allowed: {allowed}") from None
    if isinstance(numbers, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array; allowed: {allowed}, without a mask")
    if numbers.dtype.kind not in "iuf":
        raise ValueError(f"{name} is {shown(value)} of {numbers.dtype}; allowed: {allowed}")
    return np.array(numbers, dtype=np.float64)


def levels(name: str, value: Any) -> NDArray[np.float64]:
    """Return standard deviations, an array of any shape or a number, as a float64 array, or raise ValueError."""
    allowed = "finite numbers >= 0"
    numbers = array(name, value, allowed)
    low, high = numbers.min(initial=math.inf), numbers.max(initial=-math.inf)
    if not 0 <= low <= high < math.inf:
        said = f"[{low:.4g} to {high:.4g}]" if numbers.size else "[]"
        said = shown(value) if numbers.ndim == 0 else said
        raise ValueError(f"{name} is {said}; allowed: {allowed}")
    return numbers


def importance(value: ArrayLike, n_sparse: int) -> NDArray[np.float64]:
    """Return weights (n_sparse,) of the features in the loss, scaled to a mean of 1, or raise ValueError."""
    weights = array("importance", value, f"numbers ({n_sparse},), one a feature")
    if weights.shape != (n_sparse,):
        raise ValueError(f"importance has shape {weights.shape}; allowed: ({n_sparse},), one number a feature")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
        raise ValueError("importance holds negative or infinite numbers, or nothing but 0; allowed: numbers >= 0")
    weights /= weights.max()
    return weights / weights.mean()


def finite(name: str, value: float, allowed: str = "a finite number") -> float:
    """Return `value` as a finite float, or raise ValueError."""
    plain = _plain(value)
    try:
        number = float(plain) if isinstance(plain, Real) and not isinstance(plain, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {shown(value)}; allowed: {allowed}")
    return number


def integer(name: str, value: int, low: int, high: int | None = None) -> int:
    """Return `value` as an int in [low, high], by default of up to 64 bits, or raise ValueError."""
    allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    high = MOST_INTEGER if high is None else high
    plain = _plain(value)
    try:
        # What still has a shape is an array, of which PyTorch takes one of a single integer for that.
        if isinstance(plain, bool) or hasattr(plain, "shape"):
            raise TypeError
        number = operator.index(plain)
    except TypeError:
        raise ValueError(f"{name} is {shown(value)}; allowed: {allowed}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {shown(number)}; allowed: {allowed}")
    return number


def seed(value: int) -> int:
    """Return a seed as an int from 0 to 2^63 - 1, the same range everywhere, or raise ValueError."""
    return integer("seed", value, 0, MOST_SEED)


def stored_seed(value: int) -> int:
    """Return a seed that was stored, by any version, as an int >= 0, or raise ValueError.

    Earlier versions took seeds of every size, and what they stored is still to be made again.
    """
    plain = _plain(value)
    if not isinstance(plain, int) or isinstance(plain, bool) or plain < 0:
        raise ValueError(f"seed is {shown(value)}; allowed: an integer >= 0")
    return plain


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`, or raise ValueError."""
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shown(value)}; allowed: {', '.join(allowed)}")
    return value


def instance(name: str, value: T, kind: type) -> T:
    """Return `value` if it is of a class of ours, or raise ValueError."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"{name} is {shown(value)}; allowed: {article} {kind.__name__}")
    return value


def flag(name: str, value: bool) -> bool:
    """Return `value` as a bool if it is one, or raise ValueError."""
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise ValueError(f"{name} is {shown(value)}; allowed: True, False")
    return plain


def path(name: str, value: Any) -> Any:
    """Return the path of a file as it is, or raise ValueError: of a file that is open, or one that no file has."""
    if not (isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)):
        raise ValueError(f"{name} is a {type(value).__name__}; allowed: the path of a file")
    try:
        Path(value).stat()
    except ValueError:
        said = "with characters that no path has"
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            # It may be missing, as what is to be written is.
            return value
        said = os.strerror(error.errno).lower()
    else:
        return value
    raise ValueError(f"{name} is {shown(os.fspath(value))}, {said}; allowed: the path of a file")


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


def real(name: str, value: Any, *, here: bool = True) -> None:
    """Raise ValueError unless an array, tensor or SciPy sparse matrix is of real numbers, all of them there.

    Tensors without content, those of PyTorch's device meta, may pass where numbers need not be `here`.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array; allowed: an array without a mask, which would be lost")
    if getattr(value, "is_nested", False):
        raise ValueError(f"{name} is a nested tensor; allowed: dense tensors, of rows of as many numbers each")
    if not hasattr(value, "layout"):
        fine = getattr(value.dtype, "kind", "") in tuple("biuf")
    elif str(value.layout) != "torch.strided" or (here and value.device.type == "meta"):
        raise ValueError(f"{name} is a tensor of layout {value.layout} on {value.device}; allowed: dense tensors, "
                         "as to_dense makes them, with content")  # fmt: skip
    else:
        fine = not (value.is_complex() or value.is_quantized)
    if not fine:
        raise ValueError(f"{name} has dtype {value.dtype}; allowed: real numbers")


def rows(name: str, value: Any, width: int) -> None:
    """Raise ValueError unless `value` is an array, tensor or sparse matrix (rows, width) of real numbers."""
    if not (hasattr(value, "ndim") and hasattr(value, "dtype")):
        raise ValueError(f"{name} is a {type(value).__name__}; allowed: an array or matrix (rows, {width})")
    real(name, value)
    if value.ndim != 2 or value.shape[1] != width:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; allowed: (rows, {width})")
