"""Fast orthonormal transforms of the last axis, for any length n >= 2.

`forward` is the Walsh-Hadamard transform where n is a power of two, and the real Fourier transform for every
other n; `inverse` undoes it and is its transpose. Both take O(n log n), are differentiable, and leave their
input as it is.

The Hadamard matrix has entries (-1)^popcount(i & j) / sqrt(n). The real Fourier matrix has the rows

    1/sqrt(n),  sqrt(2/n) cos(2 pi k j / n),  -sqrt(2/n) sin(2 pi k j / n)  for k = 1, 2, ... < n/2,

and for even n, last, (-1)^j / sqrt(n). The cosine and the sine of one frequency have squares that add up to 2/n
at every j. `flat_groups` names such groups of rows: any union of them is a tight frame whose columns all have
the same norm, as any rows of the Hadamard matrix are. Rows of a cosine transform have no such groups.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persianrug import _checks
from persianrug._arrays import Array, as_tensor, like

try:
    import fht_cpu
except ImportError:  # No wheel for this platform.
    fht_cpu = None

# Matrix products with Hadamard matrices of up to this size stand in for the butterflies of the fast algorithm:
# larger ones do more arithmetic, smaller ones more passes over the data.
_LOG_RADIX = 5


def is_power_of_two(n: int) -> bool:
    """Whether n is a power of two."""
    return n & (n - 1) == 0


def forward(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Transform the last axis of x by the orthonormal matrix of its length.

    Parameters
    ----------
    x : float32 or float64 tensor or array (..., n), n >= 2

    Returns
    -------
    Coefficients (..., n), of the kind, dtype and device of x.

    Raises
    ------
    ValueError
        If x has another dtype, or fewer than two entries along its last axis.
    """
    tensor = _checked(x)
    if is_power_of_two(tensor.shape[-1]):
        return like(x, hadamard(tensor))
    return like(x, _fourier(tensor))


def inverse(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Transform the last axis of x by the transpose, which is the inverse, of the matrix of `forward`.

    Parameters, result and errors are as in `forward`.
    """
    tensor = _checked(x)
    if is_power_of_two(tensor.shape[-1]):
        return like(x, hadamard(tensor))
    return like(x, _inverse_fourier(tensor))


def flat_groups(n: int) -> tuple[Tensor, Tensor]:
    """Groups of rows of the matrix of `forward` whose squares add up to the same number in every column.

    Returns
    -------
    singles : int64 tensor (s,)
        Rows that are flat by themselves.
    pairs : int64 tensor (k, 2)
        Pairs of rows that are flat together. Rows in `singles` may be among them.
    """
    n = _checks.integer("n", n, 2)
    if is_power_of_two(n):
        return torch.arange(n), torch.empty(0, 2, dtype=torch.int64)
    pairs = torch.arange(1, n - 1 + n % 2).reshape(-1, 2)
    if n % 2:
        return torch.tensor([0]), pairs
    return torch.tensor([0, n - 1]), torch.cat([pairs, torch.tensor([[0, n - 1]])])


def _checked(x: Tensor | Any) -> Tensor:
    tensor = as_tensor("x", x)
    if tensor.shape[-1] < 2:
        raise ValueError(f"x has shape {tuple(tensor.shape)}; allowed: (..., n) with n >= 2")
    return tensor


class _Hadamard(torch.autograd.Function):
    """The Walsh-Hadamard transform by the fast kernel; symmetric, so that its gradient is itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        out = x.clone(memory_format=torch.contiguous_format)
        rows = out.view(-1, x.shape[-1])
        # A scale first costs nothing more: the rows are being written anyway, and fit the cache.
        rows *= x.shape[-1] ** -0.5
        fht_cpu.fht(rows.numpy(), num_threads=min(torch.get_num_threads(), len(rows)))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return hadamard(gradient)


def hadamard(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """The orthonormal Walsh-Hadamard transform of a tensor whose last axis is a power of two long."""
    if fht_cpu is not None and x.device.type == "cpu" and x.numel():
        result: Tensor = _Hadamard.apply(x)  # type: ignore[no-untyped-call]
        return result
    return _hadamard_products(x)


def _hadamard_products(x: Tensor) -> Tensor:
    """The same by matrix products: the matrix of 2^k is a Kronecker product of smaller ones."""
    n = x.shape[-1]
    log_n = n.bit_length() - 1
    steps = -(-log_n // _LOG_RADIX)
    out = x.reshape(-1, n)
    right = n
    for step in range(steps):
        log_radix = (log_n * (step + 1)) // steps - (log_n * step) // steps
        radix = 1 << log_radix
        right //= radix
        matrix = _hadamard_matrix(log_radix, x)
        out = matrix @ out.reshape(-1, radix, right) if right > 1 else out.reshape(-1, radix) @ matrix
    return out.reshape(x.shape)


def _hadamard_matrix(log_n: int, like: Tensor) -> Tensor:
    two = like.new_tensor([[1.0, 1.0], [1.0, -1.0]])
    matrix = like.new_ones(1, 1)
    for _ in range(log_n):
        matrix = torch.kron(matrix, two)
    return matrix * 2 ** (-log_n / 2)


def _fourier(x: Tensor) -> Tensor:
    n = x.shape[-1]
    # Real and imaginary parts in turn; the imaginary part of frequency 0 (and of n/2) is 0 and is left out.
    spectrum = torch.view_as_real(torch.fft.rfft(x, norm="ortho")).flatten(-2)
    coefficients = torch.cat([spectrum[..., :1], spectrum[..., 2 : n + 1]], dim=-1)
    return coefficients * _fourier_scale(n, math.sqrt(2), x)


def _inverse_fourier(x: Tensor) -> Tensor:
    n = x.shape[-1]
    spectrum = x * _fourier_scale(n, math.sqrt(0.5), x)
    zero = torch.zeros_like(x[..., :1])
    parts = [spectrum[..., :1], zero, spectrum[..., 1:]] + ([zero] if n % 2 == 0 else [])
    complex_spectrum = torch.view_as_complex(torch.cat(parts, dim=-1).unflatten(-1, (-1, 2)))
    return torch.fft.irfft(complex_spectrum, n=n, norm="ortho")


def _fourier_scale(n: int, scale: float, like: Tensor) -> Tensor:
    scales = like.new_full((n,), scale)
    scales[0] = 1.0
    if n % 2 == 0:
        scales[-1] = 1.0
    return scales
