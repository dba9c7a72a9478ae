"""PyTorch tensors or NumPy arrays in, the same kind out; and work done in chunks that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch

from persianrug._support import checks
from persianrug._support.threads import one_thread, share

Array = TypeVar("Array", torch.Tensor, np.ndarray)

# A chunk of rows this large stays in a core's second-level cache between the passes over it. At 1024 x 8192
# float32 this halves the time of encode + decode; smaller ones feel what operations cost.
_CHUNK_BYTES = 1 << 20
# Fewer chunks to a thread are done before it is there: those that go through a function, and those looked at.
_LEAST_CHUNKS, _LEAST_LOOKS = 4, 16


def as_tensor(name: str, array: torch.Tensor | np.ndarray, last: int | None = None) -> torch.Tensor:
    """View `array` as a float32 or float64 tensor, whose last axis has length `last` if one is given.

    Raises
    ------
    ValueError
        If it is neither a dense tensor nor an array without a mask, has another dtype, or another length.
    """
    if isinstance(array, np.ndarray | torch.Tensor):
        checks.real(name, array, here=False)
    if isinstance(array, np.ndarray):
        native = array.dtype.newbyteorder("=")
        if native not in (np.float32, np.float64):
            raise ValueError(f"{name} has dtype {array.dtype}; allowed: float32, float64")
        # from_numpy takes neither foreign byte order, nor strides that are negative or no whole number of
        # entries, nor (without a warning) arrays that must not be written to; such arrays are copied.
        strides = all(s >= 0 and s % array.itemsize == 0 for s in array.strides)
        plain = array.flags.writeable and array.dtype.isnative and strides
        tensor = torch.from_numpy(array if plain else np.array(array, dtype=native))
    elif isinstance(array, torch.Tensor):
        if array.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} has dtype {array.dtype}; allowed: torch.float32, torch.float64")
        tensor = array
    else:
        raise ValueError(f"{name} is a {type(array).__name__}; allowed: a torch.Tensor or a numpy.ndarray")
    if last is not None and (tensor.ndim == 0 or tensor.shape[-1] != last):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; allowed: (..., {last})")
    return tensor


def plain(array: Any) -> Any:
    """A tensor as a NumPy array, in float32 where NumPy has not its type; everything else as it is."""
    if not isinstance(array, torch.Tensor):
        return array
    tensor = array.detach().cpu().resolve_neg()
    narrow = tensor.is_floating_point() and tensor.dtype != torch.float64
    return (tensor.float() if narrow else tensor).numpy()


def listed(name: str, value: Any) -> Any:
    """Rows in lists as an array, arrays of every kind as they are; ValueError unless rows are of one length."""
    try:
        rows = np.asanyarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        rows = None
    if rows is None or rows.ndim == 0:
        raise ValueError(f"{name} is {checks.shown(value)}; allowed: rows of as many numbers each")
    return rows


def like(original: Array, tensor: torch.Tensor) -> Array:
    """Return `tensor` as the kind of array that `original` is."""
    return tensor.detach().numpy() if isinstance(original, np.ndarray) else tensor


def bounded(name: str, tensor: torch.Tensor, most: float, *, missing: bool = False) -> tuple[float, float]:
    """The least and the largest number of a tensor, whose sizes are at most `most`.

    Raises
    ------
    ValueError
        If a number is larger, infinite or NaN; NaN is an entry that is missing, where there may be such.
    """
    if not tensor.numel():
        return 0.0, 0.0
    seen = tensor.detach()
    if missing:
        seen = seen.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    low, high = _extremes(seen)
    if not (math.isfinite(low) and math.isfinite(high)):
        if missing:
            raise ValueError(f"{name} holds infinity; allowed: finite numbers, and NaN where one is missing")
        raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")
    # With room for how 32 bits round it.
    if max(-low, high) > most * (1 + 1e-6):
        raise ValueError(f"{name} holds sizes up to {max(-low, high):g}; allowed: up to {most:g}")
    return low, high


def _extremes(numbers: torch.Tensor) -> tuple[float, float]:
    """The least and the largest number, both NaN where any is.

    A mask of what is finite would take 70 times as long, and as much memory.
    """
    size = numbers.numel() * numbers.element_size()
    if numbers.device.type == "cpu" and size > _CHUNK_BYTES and numbers.is_contiguous():
        parts = numbers.view(-1).tensor_split(-(-size // _CHUNK_BYTES))
        ends = numbers.new_empty(len(parts), 2)

        def chunk(k: int) -> None:
            ends[k, 0], ends[k, 1] = parts[k].aminmax()

        share(chunk, len(parts), _LEAST_LOOKS)
        numbers = ends
    low, high = numbers.aminmax()
    return float(low), float(high)


def map_rows(
    function: Callable[[torch.Tensor], torch.Tensor],
    rows: torch.Tensor,
    width: int,
    check: Callable[[torch.Tensor], object] = lambda _: None,
) -> torch.Tensor:
    """Apply `function`, which maps (rows, k) to (rows, width), to the last axis of `rows`.

    On the CPU the rows go through in chunks that stay in cache, each on one thread. Where a gradient is wanted, or
    on another device, they go through at once. What goes through is checked on the CPU, in a chunk that then is in
    cache; other devices would have to be waited for.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    size = len(flat) * max(width, rows.shape[-1]) * rows.element_size()
    if not len(flat):
        # Some kernels refuse to do nothing.
        out = flat.new_zeros(0, width)
    elif rows.device.type != "cpu":
        out = function(flat)
    elif size <= _CHUNK_BYTES:
        with one_thread():
            check(flat)
            out = function(flat)
    elif len(flat) == 1 or (rows.requires_grad and torch.is_grad_enabled()):
        check(flat)
        out = function(flat)
    else:
        out = new_rows(flat, width)
        step = -(-len(flat) // -(-size // _CHUNK_BYTES))

        def chunk(k: int) -> None:
            part = flat[k * step : (k + 1) * step]
            check(part)
            out[k * step : (k + 1) * step] = function(part)

        share(chunk, -(-len(flat) // step), _LEAST_CHUNKS)
    return out.reshape(*rows.shape[:-1], width)


def new_rows(like: torch.Tensor, width: int) -> torch.Tensor:
    """Memory for as many rows, on the CPU, of the dtype of `like`.

    NumPy asks for large pages: the first touch of small ones would take a third of the time of encode + decode.
    """
    dtype = np.float32 if like.dtype == torch.float32 else np.float64
    return torch.from_numpy(np.empty((len(like), width), dtype))


def span(numbers: Any) -> str:
    """An array or tensor for people: the range of its numbers."""
    return f"[{float(numbers.min()):.4g} to {float(numbers.max()):.4g}]" if math.prod(numbers.shape) else "[]"


class OneLine:
    """The repr of dataclasses whose fields may be arrays, of which it shows the range."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Here, where the decorator of every subclass leaves it alone.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = _one_line  # type: ignore[method-assign]


def _one_line(self: Any) -> str:
    shown = [(part.name, getattr(self, part.name)) for part in fields(self) if part.repr]
    arrays = [value for _, value in shown if isinstance(value, np.ndarray | torch.Tensor)]
    parts = [
        f"{name}={span(value) if isinstance(value, np.ndarray | torch.Tensor) else repr(value)}"
        for name, value in shown
    ]
    if arrays and getattr(self, "of_features", False):
        parts.append(f"{len(arrays[0])} features")
    return f"{type(self).__qualname__}({', '.join(parts)})"


class Parts(OneLine):
    """Equality and hash by content, of dataclasses (eq=False) whose fields may be arrays, tensors or matrices."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            _same(getattr(self, name), getattr(other, name)) for name in _compared(self)
        )

    def __hash__(self) -> int:
        return hash((type(self), *(_key(getattr(self, name)) for name in _compared(self))))


def _compared(whole: Any) -> list[str]:
    return [part.name for part in fields(whole) if part.compare]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        return both and one.shape == other.shape and torch.equal(one.cpu().double(), other.cpu().double())
    if hasattr(one, "tocsr") or hasattr(other, "tocsr"):
        both = hasattr(one, "tocsr") and hasattr(other, "tocsr")
        return both and one.shape == other.shape and (one != other).nnz == 0
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(part, other[name]) for name, part in one.items())
    if isinstance(one, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def _key(part: Any) -> Any:
    """What is hashed of a part: the same for all that are the same."""
    if isinstance(part, torch.Tensor):
        part = part.detach().cpu().numpy()
    if isinstance(part, np.ndarray):
        # One zero has the bytes of the other only where something is added to it.
        return part.shape, (part.astype(np.float64) + 0.0).tobytes()
    if hasattr(part, "tocsr"):
        return part.shape
    if isinstance(part, dict):
        return tuple(sorted(part))
    return tuple(map(_key, part)) if isinstance(part, tuple | list) else part


def place(value: Any, like: torch.Tensor) -> torch.Tensor:
    """A number as a tensor (), an array (n_sparse,) as a tensor, of the dtype and on the device of `like`."""
    if isinstance(value, float) or np.ndim(value) == 0:
        return constant(float(value), like.dtype, like.device)
    return torch.tensor(value, dtype=like.dtype, device=like.device)


@lru_cache(maxsize=1024)
def constant(value: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A number as a tensor (), which nobody must write to.

    Every operation makes such a tensor of a number, and converts it, in more time than it takes for a vector.
    """
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)
