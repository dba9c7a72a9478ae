"""The transform of a skin's codes: signs, a Hadamard matrix of integers, random orders of its rows and columns.

A block of n numbers x is padded with zeros to N = h 2^k, the smallest with h = 1, 12 or 20, and its code's entry j
is row order[j] of H times the numbers, each with a random sign at a random column, with H_h (x) Sylvester's matrix
H of entries +-1, H H' = N I. Without random columns neighbours would meet neighbours in the same few ways, as an
entry of H' H over some rows depends on i xor j alone: touches are patches of neighbours, and where two of these
meet badly all of both are lost. As rows are in random order, too, codes of any length are the first of the same N
entries, and more can be sent later; a microcontroller makes them of integers by additions. Divided by sqrt(N)
they are the orthonormal transform that decoders work with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.skin.paley import paley, size_for, sylvester

# Entries of a code have numbers of 16 bits in packets and in the microcontroller's tables.
MOST_NUMBERS = 1 << 16

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class SignedHadamard:
    """Signs and an order of rows for the Hadamard transform of n numbers.

    The same arguments make the same transform on every machine and with every version.

    Parameters
    ----------
    n : int, 1 to 65,536
    seed : int >= 0

    Attributes
    ----------
    size : int
        N, the number of rows.
    base : int
        h, the order of the first factor: 1, 12 or 20.
    signs : int8 array (n,)
        +1 or -1.
    columns : int64 array (n,)
        The column of H that each number goes to.
    order : int64 array (N,)
        The row of H that is entry j of the code.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n = checks.integer("n", n, 1, MOST_NUMBERS)
        self.seed = checks.seed(seed)
        self.size, self.base = size_for(self.n)
        # Of raw bits, which no version of NumPy makes otherwise.
        bits = np.random.PCG64(self.seed)
        flips = np.asarray(bits.random_raw(-(-self.n // 64)))[:, None] >> np.arange(64, dtype=np.uint64)
        self.signs = (1 - 2 * (flips.ravel()[: self.n] & np.uint64(1)).astype(np.int8)).astype(np.int8)
        self.order = np.asarray(bits.random_raw(self.size)).argsort(kind="stable").astype(np.int64)
        self.columns = np.asarray(bits.random_raw(self.size)).argsort(kind="stable")[: self.n].astype(np.int64)
        self.signs.flags.writeable = self.order.flags.writeable = self.columns.flags.writeable = False

    def __repr__(self) -> str:
        return f"SignedHadamard(n={self.n}, seed={self.seed})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedHadamard) and (self.n, self.seed) == (other.n, other.seed)

    def __hash__(self) -> int:
        return hash((self.n, self.seed))

    def integers(self, counts: NDArray[np.int32]) -> NDArray[np.int32]:
        """All N rows of H in their own order, times the signed numbers at their columns, exactly.

        Parameters
        ----------
        counts : int32 array (n,)
            With a sum of magnitudes below 2^31, which the caller has seen to.
        """
        z = np.zeros(self.size, dtype=np.int32)
        z[self.columns] = counts * self.signs
        transform_(z, self.base)
        return z

    def rows(self, entries: Any) -> Rows:
        """Some entries of the code, to be read and decoded from many times.

        Parameters
        ----------
        entries : int, or int array (k,)
            The first so many, or their numbers, each at most once.

        Raises
        ------
        ValueError
            If entries are not from 0 to N - 1, or some are doubled.
        """
        if not isinstance(entries, np.ndarray) or entries.ndim == 0:
            return Rows(self, np.arange(checks.integer("entries", entries, 1, self.size)))
        if entries.ndim != 1 or entries.dtype.kind not in "iu":
            raise ValueError(f"entries is {checks.shown(entries)} of {entries.dtype}; allowed: integers (k,)")
        entries = entries.astype(np.int64)
        taken = np.zeros(self.size, dtype=bool)
        if entries.size and not 0 <= entries.min() <= entries.max() < self.size:
            raise ValueError(f"entries are from {entries.min()} to {entries.max()}; allowed: 0 to {self.size - 1}")
        taken[entries] = True
        if np.count_nonzero(taken) != entries.size:
            raise ValueError("entries are doubled; allowed: each entry once")
        return Rows(self, entries)

    def forward(self, x: NDArray[Any], entries: Any) -> NDArray[Any]:
        """Entries (k,) of the orthonormal transform of x (n,); see `Rows.forward` and `rows`."""
        return self.rows(entries).forward(x)

    def adjoint(self, z: NDArray[Any], entries: Any) -> NDArray[Any]:
        """The transpose, (n,), of `forward` applied to z (k,); see `Rows.adjoint` and `rows`."""
        return self.rows(entries).adjoint(z)


class Rows:
    """Entries of the orthonormal transform of a `SignedHadamard`: A (k, n).

    Its rows are orthonormal where nothing is padded, and parts of orthonormal rows elsewhere.

    Attributes
    ----------
    transform : SignedHadamard
    entries : int64 array (k,)
    places : int64 array (k,)
        Their rows of H.
    """

    def __init__(self, transform: SignedHadamard, entries: NDArray[np.int64]) -> None:
        self.transform, self.entries = transform, entries
        self.places = transform.order[entries]
        self._signs = {dtype: transform.signs.astype(dtype) for dtype in _FLOATS}

    def __repr__(self) -> str:
        return f"Rows of {self.transform}, k={len(self.entries)}"

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """A x.

        Parameters
        ----------
        x : float32 or float64 array (n,)

        Raises
        ------
        ValueError
            If x has another dtype or shape.
        """
        _check("x", x, self.transform.n)
        if (kernels := _kernels()) is not None:
            return self._compiled(kernels.forward, x, len(self.places))
        y = np.zeros(self.transform.size, dtype=x.dtype)
        y[self.transform.columns] = x * self._signs[x.dtype]
        transform_(y, self.transform.base)
        z = y.take(self.places)
        z *= z.dtype.type(y.size**-0.5)
        return z

    def adjoint(self, z: NDArray[Any]) -> NDArray[Any]:
        """A' z.

        Parameters
        ----------
        z : float32 or float64 array (k,)

        Raises
        ------
        ValueError
            If z has another dtype or shape.
        """
        _check("z", z, len(self.places))
        if (kernels := _kernels()) is not None:
            return self._compiled(kernels.adjoint, z, self.transform.n)
        y = np.zeros(self.transform.size, dtype=z.dtype)
        y[self.places] = z * z.dtype.type(y.size**-0.5)
        transform_(y, self.transform.base, transposed=True)
        x = y.take(self.transform.columns)
        x *= self._signs[z.dtype]
        return x

    def _compiled(self, loop: Callable[..., None], given: NDArray[Any], length: int) -> NDArray[Any]:
        """What a compiled loop makes of numbers."""
        transform, dtype = self.transform, given.dtype
        made = np.empty(length, dtype=dtype)
        room = np.empty((2, transform.size), dtype=dtype)
        loop(
            given, self._signs[dtype], transform.columns, self.places, dtype.type(transform.size**-0.5),
            _of_dtype(transform.base, dtype), made, room,
        )  # fmt: skip
        return made


def transform_(x: NDArray[Any], base: int, transposed: bool = False) -> None:
    """Replace x (N,), contiguous, of int32, float32 or float64, by H x, or by H' x, without any scale.

    Where the extra `skin` is not installed, products with small Hadamard matrices stand in for compiled loops;
    they take three to ten times as long. In float64 they are exact for all integers that int32 has.
    """
    if (kernels := _kernels()) is not None:
        kernels.hadamard(x, _of_dtype(base, x.dtype), transposed, np.empty_like(x))
        return
    dtype = np.dtype(np.float64) if x.dtype == np.int32 else x.dtype
    log = (x.size // base).bit_length() - 1
    left, right = (sylvester(1 << part).astype(dtype) for part in (log // 2, log - log // 2))
    first = _of_dtype(base, dtype)
    y = left @ x.reshape(base, len(left), len(right)).astype(dtype, copy=False) @ right
    x[:] = ((first.T if transposed else first) @ y.reshape(base, -1)).ravel()


@cache
def _kernels() -> ModuleType | None:
    """The compiled loops, where Numba is installed; it takes half a second to import."""
    try:
        from persianrug.skin import kernels
    except ImportError:
        return None
    return kernels


@cache
def _of_dtype(base: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    return paley(base).astype(dtype)


def _check(name: str, value: NDArray[Any], length: int) -> None:
    if not isinstance(value, np.ndarray) or value.dtype not in _FLOATS or value.shape != (length,):
        found = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
        raise ValueError(
            f"{name} is {checks.shown(value)}{found}; allowed: an array ({length},) of float32 or float64"
        )
