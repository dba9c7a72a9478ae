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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from torch import Tensor
from torch.autograd import forward_ad

from persianrug._support import checks
from persianrug._support.arrays import Array, as_tensor, like, map_rows

try:
    import fht_cpu
except ImportError:  # No wheel for this platform.
    fht_cpu = None

# Matrix products with Hadamard matrices of up to this size stand in for the butterflies of the fast algorithm:
# larger ones do more arithmetic, smaller ones more passes over the data.
_LOG_RADIX = 5

# So many numbers the kernel transforms on one thread, in 0.2 ms.
_ALONE = 1 << 18

# From this length on SciPy's Fourier transform is up to five times faster than PyTorch's where a length is odd or
# has a prime factor above 11.
_SCIPY = 200


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
    return like(x, _all(_checked(x), analyse))


def inverse(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Transform the last axis of x by the transpose, which is the inverse, of the matrix of `forward`.

    Parameters, result and errors are as in `forward`.
    """
    return like(x, _all(_checked(x), synthesise))


def _all(x: Tensor, fourier: Callable[[Tensor, Chosen], Tensor]) -> Tensor:
    n = x.shape[-1]
    if is_power_of_two(n):
        return map_rows(lambda rows: hadamard(rows * n**-0.5, fresh=True), x, n)
    every = choose(torch.arange(n, device=x.device), n, x)
    return map_rows(lambda rows: fourier(rows, every), x, n)


@dataclass(frozen=True)
class Chosen:
    """Rows of the matrix of `forward`, with what it takes to get them from the transform."""

    n: int
    # Where the transform has them, and for the Fourier transform what it leaves to be multiplied by either way.
    places: Tensor
    scale: Tensor | None = None
    inverse_scale: Tensor | None = None
    # Whether SciPy's Fourier transform is the faster on a CPU.
    scipy: bool = False


def choose(rows: Tensor, n: int, like: Tensor) -> Chosen:
    """Rows (ascending) for vectors of the dtype and on the device of `like`."""
    if is_power_of_two(n):
        return Chosen(n, rows)
    # Real and imaginary parts in turn. That of frequency 0 (and of n/2) has no imaginary part: the slots 1 and
    # n + 1 stay 0, and every row but the first is found one slot further on.
    alone = (rows == 0) | (rows == n - 1) if n % 2 == 0 else rows == 0
    scale, inverse_scale = (
        torch.where(alone, like.new_tensor(1.0), like.new_tensor(other))
        for other in (math.sqrt(2), math.sqrt(0.5))
    )
    return Chosen(
        n, rows + (rows > 0), scale, inverse_scale, n >= _SCIPY and (n % 2 == 1 or next_fast_len(n) != n)
    )


def norm(n: int) -> float:
    """What `analyse` and `synthesise` leave to be multiplied by, in a pass that their caller makes anyway."""
    return n**-0.5 if is_power_of_two(n) else 1.0


def analyse(x: Tensor, rows: Chosen, *, fresh: bool = False) -> Tensor:
    """1 / norm(n) times the coefficients `rows` of x, a tensor (..., n) known to be fit for it.

    One that is `fresh`, a temporary of the caller's, may be overwritten.
    """
    if rows.scale is None:
        return _gather(hadamard(x, fresh=fresh), rows.places)
    if not x.numel():
        # MKL transforms no vectors by an error.
        return x.new_zeros(*x.shape[:-1], len(rows.places))
    plain = _plain(x) if rows.scipy and not _recorded(x) else None
    spectrum = torch.fft.rfft(x, norm="ortho") if plain is None else torch.from_numpy(rfft(plain, norm="ortho"))
    return _gather(torch.view_as_real(spectrum).flatten(-2), rows.places) * rows.scale


def synthesise(z: Tensor, rows: Chosen) -> Tensor:
    """The transpose of `analyse`: 1 / norm(n) times the vectors (..., n) with coefficients z at `rows` alone."""
    n = rows.n
    if rows.inverse_scale is None:
        return hadamard(_scatter(z, rows.places, n), fresh=True)
    if not z.numel():
        return z.new_zeros(*z.shape[:-1], n)
    parts = _scatter(z * rows.inverse_scale, rows.places, 2 * (n // 2 + 1))
    spectrum = torch.view_as_complex(parts.unflatten(-1, (-1, 2)))
    plain = _plain(spectrum) if rows.scipy and not _recorded(spectrum) else None
    if plain is None:
        return torch.fft.irfft(spectrum, n=n, norm="ortho")
    return torch.from_numpy(irfft(plain, n=n, norm="ortho"))


def flat_groups(n: int) -> tuple[Tensor, Tensor]:
    """Groups of rows of the matrix of `forward` whose squares add up to the same number in every column.

    Returns
    -------
    singles : int64 tensor (s,)
        Rows that are flat by themselves.
    pairs : int64 tensor (k, 2)
        Pairs of rows that are flat together. Rows in `singles` may be among them.
    """
    n = checks.integer("n", n, 2)
    if is_power_of_two(n):
        return torch.arange(n), torch.empty(0, 2, dtype=torch.int64)
    pairs = torch.arange(1, n - 1 + n % 2).reshape(-1, 2)
    if n % 2:
        return torch.tensor([0]), pairs
    return torch.tensor([0, n - 1]), torch.cat([pairs, torch.tensor([[0, n - 1]])])


def _gather(x: Tensor, places: Tensor) -> Tensor:
    # Of double precision in a third of the time that `index_select` takes.
    return x.gather(-1, places.expand(*x.shape[:-1], -1))


def _scatter(z: Tensor, places: Tensor, n: int) -> Tensor:
    """Vectors (..., n) with z at these places, 0 elsewhere."""
    # In a third to a half of the time that `index_copy_` takes.
    return z.new_zeros(*z.shape[:-1], n).scatter_(-1, places.expand(z.shape), z)


def _plain(x: Tensor) -> NDArray[Any] | None:
    """A tensor as an array that shares its memory.

    None on other devices, and where PyTorch takes derivatives forward or transforms functions.
    """
    if x.device.type != "cpu" or forward_ad.unpack_dual(x).tangent is not None:
        return None
    try:
        array: NDArray[Any] = x.detach().numpy()
    except RuntimeError:
        return None
    return array


def _recorded(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _checked(x: Tensor | Any) -> Tensor:
    tensor = as_tensor("x", x)
    if tensor.ndim == 0 or tensor.shape[-1] < 2:
        raise ValueError(f"x has shape {tuple(tensor.shape)}; allowed: (..., n) with n >= 2")
    return tensor


class _Hadamard(torch.autograd.Function):
    """The Walsh-Hadamard transform by the fast kernel; symmetric, so that its gradient is itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fresh: bool) -> Tensor:
        if fresh and x.is_contiguous():
            ctx.mark_dirty(x)
            out = x
        else:
            out = x.clone(memory_format=torch.contiguous_format)
        return _hadamard_kernel(out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return hadamard(gradient), None


def hadamard(x: Float[Tensor, "*batch n"], *, fresh: bool = False) -> Float[Tensor, "*batch n"]:
    """The Walsh-Hadamard transform, sqrt(n) times an orthonormal one, along a last axis a power of two long.

    One that is `fresh`, a temporary of the caller's, may be overwritten.
    """
    if fht_cpu is None or not x.numel() or _plain(x) is None:
        return _hadamard_products(x)
    # Small chunks of rows feel what a Function costs, though it has no gradient to record.
    if fresh and x.is_contiguous() and not _recorded(x):
        return _hadamard_kernel(x.detach())
    result: Tensor = _Hadamard.apply(x, fresh)  # type: ignore[no-untyped-call]
    return result


def _hadamard_kernel(x: Tensor) -> Tensor:
    """Transform a contiguous CPU tensor in place."""
    rows = x.view(-1, x.shape[-1])
    # Of few numbers a meeting of threads takes longer than the work.
    threads = min(torch.get_num_threads(), len(rows)) if x.numel() > _ALONE else 1
    fht_cpu.fht(rows.numpy(), num_threads=threads)
    return x


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
    return matrix
