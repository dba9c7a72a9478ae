"""The Hadamard transform of codes, compiled: in place, for int32, float32 and float64.

The matrix is H = H_h (x) H_(2^k), with Paley's matrix of h = 1, 12 or 20 and Sylvester's. Every pass over the
power of two takes a quarter of the vector from each of four places that lie far apart and puts what it makes of
them side by side, so that all passes are alike, read and write without gaps, and leave everything in its place in
the end (Pease, J. ACM 15, 1968). LLVM makes vector instructions of that, for short strides and long ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support.compiled import compiled

# So many columns are worked on at a time: they stay in the fastest memory.
_TILE = 64


@compiled
def hadamard(x: NDArray[Any], first: NDArray[Any], transposed: bool, room: NDArray[Any]) -> None:
    """Replace x (N,) by H x, or by H' x; first (h, h) and room (N,) are of its dtype."""
    h = len(first)
    if h > 1:
        for i in range(x.size):
            room[i] = x[i]
        if h == 12:
            _mix_12(x)
        else:
            _mix(x, first)
        if transposed:
            # H_h' = 2 I - H_h.
            for i in range(x.size):
                x[i] = 2 * room[i] - x[i]
    width = x.size // h
    for a in range(h):
        _sylvester(x[a * width : (a + 1) * width], room[a * width : (a + 1) * width])


@compiled
def forward(
    x: NDArray[Any],
    signs: NDArray[Any],
    columns: NDArray[Any],
    places: NDArray[Any],
    scale: Any,
    first: NDArray[Any],
    z: NDArray[Any],
    room: NDArray[Any],
) -> None:
    """Set z (k,) to rows `places` of scale H times the signed numbers x (n,) at `columns`; room is (2, N)."""
    y = room[0]
    y[:] = 0
    for i in range(len(x)):
        y[columns[i]] = x[i] * signs[i]
    hadamard(y, first, False, room[1])
    for i in range(len(z)):
        z[i] = y[places[i]] * scale


@compiled
def adjoint(
    z: NDArray[Any],
    signs: NDArray[Any],
    columns: NDArray[Any],
    places: NDArray[Any],
    scale: Any,
    first: NDArray[Any],
    x: NDArray[Any],
    room: NDArray[Any],
) -> None:
    """Set x (n,) to the transpose of `forward` times z (k,)."""
    y = room[0]
    y[:] = 0
    for i in range(len(z)):
        y[places[i]] = z[i] * scale
    hadamard(y, first, True, room[1])
    for i in range(len(x)):
        x[i] = y[columns[i]] * signs[i]


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
        for i in range(x.size):
            x[i] = y[i]


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
    """Transform the columns of x, read as rows (12, N / 12), by Paley's matrix, written out to be fast."""
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
def _mix(x: NDArray[Any], first: NDArray[Any]) -> None:
    """Transform the columns of x, read as rows (h, N / h), by the matrix first (h, h), h a multiple of 4."""
    h = len(first)
    width = x.size // h
    tile = np.empty((h, _TILE), dtype=x.dtype)
    for start in range(0, width, _TILE):
        count = min(_TILE, width - start)
        for c in range(h):
            for i in range(count):
                tile[c, i] = x[c * width + start + i]
        for a in range(h):
            out = x[a * width + start : a * width + start + count]
            for i in range(count):
                out[i] = 0
            # Four at a time: fewer ways to memory.
            for c in range(0, h, 4):
                p, q, r, s = first[a, c], first[a, c + 1], first[a, c + 2], first[a, c + 3]
                t, u, v, w = tile[c], tile[c + 1], tile[c + 2], tile[c + 3]
                for i in range(count):
                    out[i] += (p * t[i] + q * u[i]) + (r * v[i] + s * w[i])
