"""The Hadamard transform of codes, compiled: in place, for int32, float32 and float64.

The matrix is H = H_h (x) H_(2^k), with Paley's matrix of h = 1, 12 or 20 and Sylvester's. Every pass over the power of
two takes a quarter of the vector from each of four places that lie far apart and puts what it makes of them side by
side, so that all passes are alike, read and write without gaps, and leave everything in its place in the end (Pease,
J. ACM 15, 1968). LLVM makes vector instructions of that, for short strides and long ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support.compiled import compiled
from persianrug.skin.paley import paley

# Numba compiles it in.
_PALEY_20 = paley(20)
# So many columns are worked on at a time: they stay in the fastest memory.
_TILE = 64


@compiled
def hadamard(x: NDArray[Any], h: int, transposed: bool, room: NDArray[Any]) -> None:
    """Replace x (N,), N = h 2^k, by H x, or by H' x; room is of the shape and dtype of x."""
    if h > 1:
        if transposed:
            room[:] = x
        if h == 12:
            _mix_12(x)
        else:
            _mix_20(x)
        if transposed:
            # H_h' = 2 I - H_h.
            for i in range(x.size):
                x[i] = 2 * room[i] - x[i]
    width = x.size // h
    for a in range(h):
        _sylvester(x[a * width : (a + 1) * width], room[a * width : (a + 1) * width])


@compiled
def forward(
    x: NDArray[Any], signs: NDArray[Any], places: NDArray[Any], h: int, room: NDArray[Any], out: NDArray[Any]
) -> None:
    """Write rows `places` (k,) of the orthonormal transform of signs * x, both (n,), to out (k,); room is (2, N)."""
    n, size = x.size, room.shape[1]
    for i in range(n):
        room[0, i] = x[i] * signs[i]
    room[0, n:] = 0
    hadamard(room[0], h, False, room[1])
    scale = x.dtype.type(1 / np.sqrt(size))
    for j in range(places.size):
        out[j] = room[0, places[j]] * scale


@compiled
def adjoint(
    z: NDArray[Any], signs: NDArray[Any], places: NDArray[Any], h: int, room: NDArray[Any], out: NDArray[Any]
) -> None:
    """Write what the transpose of `forward` makes of z (k,) to out (n,); places are distinct."""
    n, size = out.size, room.shape[1]
    room[0, :] = 0
    scale = z.dtype.type(1 / np.sqrt(size))
    for j in range(places.size):
        room[0, places[j]] = z[j] * scale
    hadamard(room[0], h, True, room[1])
    for i in range(n):
        out[i] = room[0, i] * signs[i]


@compiled
def _sylvester(x: NDArray[Any], y: NDArray[Any]) -> None:
    """Transform x, of a power of two, by Sylvester's matrix; y is room of the same size."""
    left, here = x.size, True
    while left > 1:
        source, target = (x, y) if here else (y, x)
        if left == 2:
            _pass_of_2(source, target)
            left = 1
        else:
            _pass_of_4(source, target)
            left //= 4
        here = not here
    if not here:
        x[:] = y


@compiled
def _pass_of_4(x: NDArray[Any], y: NDArray[Any]) -> None:
    m = x.size // 4
    for i in range(m):
        a, b, c, d = x[i], x[i + m], x[i + 2 * m], x[i + 3 * m]
        p, q, r, s = a + b, a - b, c + d, c - d
        y[4 * i] = p + r
        y[4 * i + 1] = q + s
        y[4 * i + 2] = p - r
        y[4 * i + 3] = q - s


@compiled
def _pass_of_2(x: NDArray[Any], y: NDArray[Any]) -> None:
    m = x.size // 2
    for i in range(m):
        a, b = x[i], x[i + m]
        y[2 * i] = a + b
        y[2 * i + 1] = a - b


@compiled
def _mix_12(x: NDArray[Any]) -> None:
    """Transform the columns of x, read as rows (12, N / 12), by Paley's matrix, written out: seven times as fast."""
    w = x.size // 12
    r0, r1, r2, r3 = x[:w], x[w : 2 * w], x[2 * w : 3 * w], x[3 * w : 4 * w]
    r4, r5, r6, r7 = x[4 * w : 5 * w], x[5 * w : 6 * w], x[6 * w : 7 * w], x[7 * w : 8 * w]
    r8, r9, r10, r11 = x[8 * w : 9 * w], x[9 * w : 10 * w], x[10 * w : 11 * w], x[11 * w :]
    for i in range(w):
        a, b, c, d, e, f = r0[i], r1[i], r2[i], r3[i], r4[i], r5[i]
        g, h, o, p, q, s = r6[i], r7[i], r8[i], r9[i], r10[i], r11[i]
        r0[i] = a + b + c + d + e + f + g + h + o + p + q + s
        r1[i] = -a + b - c + d - e - f - g + h + o + p - q + s
        r2[i] = -a + b + c - d + e - f - g - h + o + p + q - s
        r3[i] = -a - b + c + d - e + f - g - h - o + p + q + s
        r4[i] = -a + b - c + d + e - f + g - h - o - p + q + s
        r5[i] = -a + b + c - d + e + f - g + h - o - p - q + s
        r6[i] = -a + b + c + d - e + f + g - h + o - p - q - s
        r7[i] = -a - b + c + d + e - f + g + h - o + p - q - s
        r8[i] = -a - b - c + d + e + f - g + h + o - p + q - s
        r9[i] = -a - b - c - d + e + f + g - h + o + p - q + s
        r10[i] = -a + b - c - d - e + f + g + h - o + p + q - s
        r11[i] = -a - b + c - d - e - f + g + h + o - p + q + s


@compiled
def _mix_20(x: NDArray[Any]) -> None:
    """Transform the columns of x, read as rows (20, N / 20), by Paley's matrix."""
    h = len(_PALEY_20)
    width = x.size // h
    tile = np.empty((h, _TILE), dtype=x.dtype)
    for start in range(0, width, _TILE):
        count = min(_TILE, width - start)
        for c in range(h):
            for i in range(count):
                tile[c, i] = x[c * width + start + i]
        for a in range(h):
            out = x[a * width + start : a * width + start + count]
            out[:] = 0
            for c in range(h):
                row = tile[c]
                if _PALEY_20[a, c] > 0:
                    for i in range(count):
                        out[i] += row[i]
                else:
                    for i in range(count):
                        out[i] -= row[i]
