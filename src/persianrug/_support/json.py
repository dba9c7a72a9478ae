"""Arrays in JSON, exactly."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

_KEYS = {"dtype", "shape", "base64"}
_TYPES = ("<f4", "<f8", "<i4", "<i8", "<u8")


def pack(value: Any) -> Any:
    """A value for JSON: arrays as {"dtype", "shape", "base64"} of little-endian bytes, others as they are."""
    if not isinstance(value, np.ndarray):
        return value
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    return {
        "dtype": little.dtype.str,
        "shape": list(value.shape),
        "base64": base64.b64encode(little.tobytes()).decode(),
    }


def packed(recipe: Any) -> Any:
    """A recipe, the arrays in it packed wherever they are."""
    return {key: packed(part) for key, part in recipe.items()} if isinstance(recipe, dict) else pack(recipe)


def unpacked(value: Any) -> Any:
    """The recipe that `packed` was given; ValueError if it is damaged."""
    if isinstance(value, dict) and value.keys() != _KEYS:
        return {key: unpacked(part) for key, part in value.items()}
    return unpack(value)


def unpack(value: Any) -> Any:
    """The value that `pack` was given; ValueError if it is damaged."""
    if not (isinstance(value, dict) and value.keys() == _KEYS):
        return value
    if value["dtype"] not in _TYPES:
        raise ValueError(f"an array has type {value['dtype']!r}")
    dtype = np.dtype(value["dtype"])
    content = base64.b64decode(value["base64"], validate=True)
    return np.frombuffer(content, dtype=dtype).reshape(value["shape"]).astype(dtype.newbyteorder("="))
