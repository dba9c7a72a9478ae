"""Loops compiled by Numba, kept on disk where that can be written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function, compiled when it is first called with arrays of a dtype, and kept for the next process.

    What is kept lies in the folder `__pycache__` beside the source, or, where that cannot be written, in the
    user's folder for such things. Where neither can, or the disk is full, every process compiles anew, which takes
    seconds.
    """
    try:
        made = numba.njit(function, cache=True, error_model="numpy")
    except RuntimeError:
        return numba.njit(function, error_model="numpy")
    # Numba finds that a file can be made, but not that there is room for what is to be in it.
    save = made._cache.save_overload

    def save_if_possible(*args: Any) -> None:
        with suppress(OSError):
            save(*args)

    made._cache.save_overload = save_if_possible
    return made
