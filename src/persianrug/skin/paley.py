"""Hadamard matrices of a few sizes, of which larger ones are made: entries +-1, and H H' = N I.

Sylvester's are those of powers of two, (-1)^popcount(i & j). Paley's are of q + 1 rows for a prime q = 3 mod 4 (J.
Math. Phys. 12, 1933): H = I + S with the skew S = [[0, 1'], [-1, Q]], where Q_ij = chi(i - j) is 1 where i - j is
a square modulo q, -1 where it is none, and 0 on the diagonal. So H' = 2 I - H.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# First factors of transforms: with them no vector of nine numbers or more is padded by more than a third.
BASES = (1, 12, 20)


def size_for(n: int) -> tuple[int, int]:
    """The smallest h 2^k >= n with h of `BASES`, and its h."""
    sizes = []
    for base in BASES:
        size = base
        while size < n:
            size *= 2
        sizes.append((size, base))
    return min(sizes)


@cache
def paley(order: int) -> NDArray[np.int8]:
    """Paley's matrix (order, order), where order - 1 is a prime that is 3 mod 4; (1, 1) for order 1."""
    matrix = np.eye(order, dtype=np.int8)
    if order > 1:
        q = order - 1
        steps = np.arange(q)
        squares = np.isin(steps, steps[1:] ** 2 % q)
        chi = np.where(steps == 0, 0, np.where(squares, 1, -1))
        matrix[0, 1:], matrix[1:, 0] = 1, -1
        matrix[1:, 1:] += chi[(steps[:, None] - steps) % q].astype(np.int8)
    matrix.flags.writeable = False
    return matrix


@cache
def sylvester(order: int) -> NDArray[np.int8]:
    """Sylvester's matrix (order, order), of a power of two."""
    matrix = np.ones((1, 1), dtype=np.int8)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix.flags.writeable = False
    return matrix
