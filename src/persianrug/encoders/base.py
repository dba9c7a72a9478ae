"""Linear encoders: n_sparse features into n_dense numbers.

An encoder is a matrix W_in (n_dense x n_sparse) and a readout W_out (n_sparse x n_dense) scaled so that
W = W_out W_in has a diagonal of ones. The code z = W_in x is then read as an unbiased estimate of every feature,

    y = m + W_out (z - W_in m) = x + sum of interference,     m the source's mean,

whose interference has mean 0 and, over the source, the variance v sum_{j != i} W_ij^2. Every decoder acts on y.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import Array, as_tensor, bounded, like, map_rows
from persianrug._support.devices import known_dtype
from persianrug.channel import Channel
from persianrug.sources import Each

# The largest transform that the fast kernel takes.
MOST_SPARSE = 1 << 30
# Rows of W that are computed at a time.
BLOCK = 256


class Encoder(ABC):
    """A linear encoder of `n_sparse` features into `n_dense` numbers, with its unbiased readout."""

    name: ClassVar[str]
    n_sparse: int
    n_dense: int

    @property
    def ratio(self) -> float:
        """n_dense / n_sparse."""
        return self.n_dense / self.n_sparse

    @property
    @abstractmethod
    def interference(self) -> NDArray[np.float64]:
        """sum_{j != i} W_ij^2, the variance of the interference on feature i per variance of a feature.

        Shape (n_sparse,), or () where it is the same for every feature.
        """

    @cached_property
    def inverse_participation(self) -> float:
        """sum_{j != i} W_ij^4 / (sum_{j != i} W_ij^2)^2, averaged over features i.

        From 1 / (n_sparse - 1), for entries of one size, to 1, for a single one.
        """
        total = 0.0
        for start in range(0, self.n_sparse, BLOCK):
            stop = min(start + BLOCK, self.n_sparse)
            rows = self.W_rows(start, stop)
            rows[torch.arange(stop - start), torch.arange(start, stop)] = 0.0
            total += (stop - start) * participation(rows)
        return total / self.n_sparse

    @property
    @abstractmethod
    def code_power(self) -> float:
        """sum_ij W_in_ij^2 / n_dense: the variance of an entry of the code per variance of a feature."""

    @cached_property
    def largest_code(self) -> float:
        """The largest size of an entry of a code that is read: what features of the size 1e30 make."""
        return checks.LARGEST * math.sqrt(self.n_sparse * max(self.code_power, 1.0))

    @property
    @abstractmethod
    def frame_bound(self) -> float:
        """The number c of a tight frame, W_in W_in^T = c I.

        Raises
        ------
        ValueError
            If the encoder is no tight frame.
        """

    @abstractmethod
    def interference_of(self, variance: Each, channel: Channel) -> NDArray[np.float64]:
        """Variance sum_{j != i} W_ij^2 v_j of the interference on every feature, of what comes through.

        Parameters
        ----------
        variance : float or array (n_sparse,)
            Variances v_j of the features.
        channel : Channel
            Its erasures count, its noise does not.

        Returns
        -------
        array (n_sparse,), or () where it is the same for every feature
        """

    @abstractmethod
    def noise_gain(self, channel: Channel) -> NDArray[np.float64]:
        """sum_k W_out_ik^2, the variance on feature i per variance of the noise on the code; shapes as above."""

    @abstractmethod
    def participation_of(self, channel: Channel) -> float:
        """The inverse participation of what the channel lets through."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What the encoder is made from, as a JSON object; matrices that are not made from it are `tensors`."""

    def tensors(self) -> dict[str, Tensor]:
        """Matrices that the recipe does not make."""
        return {}

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """(rows, n_sparse) to (rows, n_dense)."""

    @abstractmethod
    def _adjoint(self, z: Tensor) -> Tensor:
        """(rows, n_dense) to (rows, n_sparse), by the transpose of W_in."""

    @abstractmethod
    def _readout(self, z: Tensor) -> Tensor:
        """(rows, n_dense) to (rows, n_sparse), by W_out."""

    def encode(self, x: Float[Array, "*batch n_sparse"], *, check: bool = True) -> Float[Array, "*batch n_dense"]:
        """The code W_in x.

        Parameters
        ----------
        x : float32 or float64 tensor or array (..., n_sparse)
        check : bool
            Whether numbers are looked at. Where they are not, NaN or infinity in a vector makes its code NaN or
            infinity. They are only on the CPU: other devices would have to be waited for.

        Raises
        ------
        ValueError
            If x is not a float32 or float64 tensor or array whose last axis is n_sparse long, or holds NaN,
            infinity or sizes beyond 1e30 that its code shows.
        """
        rows = as_tensor("x", x, self.n_sparse)
        forward = self._forward_checked if check and rows.device.type == "cpu" else self._forward
        return like(x, map_rows(forward, rows, self.n_dense))

    def _forward_checked(self, x: Tensor) -> Tensor:
        # What is not finite gets into the code, which is shorter and in cache.
        z = self._forward(x)
        try:
            bounded("z", z, self.largest_code)
        except ValueError:
            bounded("x", x, checks.LARGEST)
        return z

    def adjoint(self, z: Float[Array, "*batch n_dense"]) -> Float[Array, "*batch n_sparse"]:
        """W_in^T z; errors as in `encode`."""
        return like(z, self._read(self._adjoint, as_tensor("z", z, self.n_dense)))

    def readout(self, z: Float[Array, "*batch n_dense"]) -> Float[Array, "*batch n_sparse"]:
        """W_out z; errors as in `encode`."""
        return like(z, self._read(self._readout, as_tensor("z", z, self.n_dense)))

    def estimate(self, z: Float[Array, "*batch n_dense"], mean: Each = 0.0) -> Float[Array, "*batch n_sparse"]:
        """Unbiased estimate y = mean + W_out (z - W_in mean) of the features from their code.

        Parameters
        ----------
        z : tensor or array (..., n_dense)
        mean : float or array (n_sparse,)
            What every feature is on average; with it the interference has mean 0.

        Raises
        ------
        ValueError
            As in `encode`.
        """
        mean = checks.each("mean", mean, checks.finite)
        if np.ndim(mean) and len(mean) != self.n_sparse:
            raise ValueError(f"mean has {len(mean)} numbers; allowed: one, or {self.n_sparse}")
        tensor = as_tensor("z", z, self.n_dense)
        return like(z, self._read(self.estimator(mean, tensor), tensor))

    def _read(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """What a function, which maps (rows, n_dense) to (rows, n_sparse), makes of codes that are checked."""
        return map_rows(function, z, self.n_sparse, partial(bounded, "z", most=self.largest_code))

    def estimator(self, mean: Each, like: Tensor, *, erasures: bool = False) -> Any:
        """The function of `estimate` on tensors (rows, n_dense) of the dtype and device of `like`.

        With erasures, an entry that is NaN is missing: the others then stand for it, n_dense / kept times.
        """
        centre, mean = self.centre(mean, like)

        def estimate(rows: Tensor) -> Tensor:
            rows = rows if centre is None else rows - centre
            if erasures:
                rows = rows.nan_to_num(nan=0.0) * (self.n_dense / kept_entries(rows))
            out: Tensor = self._readout(rows)
            return out if centre is None else out.add_(mean)

        return estimate

    def centre(self, mean: Each, like: Tensor) -> tuple[Tensor | None, Any]:
        """The code (1, n_dense) of the mean, None where that is 0, and the mean itself, as `like`."""
        if np.ndim(mean) == 0 and mean == 0:
            return None, 0.0
        if np.ndim(mean) == 0:
            return self._code_of_ones(like) * mean, mean
        wide = like.new_tensor(mean).expand(1, self.n_sparse)
        return self._forward(wide), wide

    @cached_property
    def _codes_of_ones(self) -> dict[tuple[torch.dtype, torch.device], Tensor]:
        return {}

    def _code_of_ones(self, like: Tensor) -> Tensor:
        """The code (1, n_dense) of a vector of ones, kept: a single vector takes no longer to decode."""
        key = (like.dtype, like.device)
        if key not in self._codes_of_ones:
            with torch.inference_mode(False), torch.no_grad():
                ones = torch.ones(1, self.n_sparse, dtype=like.dtype, device=like.device)
                self._codes_of_ones[key] = self._forward(ones)
        return self._codes_of_ones[key]

    def W_in(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n_dense n_sparse"]:
        """The encoder's matrix; it takes n_dense n_sparse numbers of memory."""
        return self._forward(torch.eye(self.n_sparse, dtype=known_dtype(dtype))).T.contiguous()

    def W_out(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n_sparse n_dense"]:
        """The readout's matrix; it takes n_dense n_sparse numbers of memory."""
        return self._readout(torch.eye(self.n_dense, dtype=known_dtype(dtype))).T.contiguous()

    def W(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n_sparse n_sparse"]:
        """The product W_out W_in, whose diagonal is 1; it takes n_sparse^2 numbers of memory."""
        return self.W_rows(0, self.n_sparse, dtype)

    def W_rows(self, start: int, stop: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "rows n_sparse"]:
        """Rows start to stop of W; ValueError unless 0 <= start <= stop <= n_sparse."""
        start = checks.integer("start", start, 0, self.n_sparse)
        stop = checks.integer("stop", stop, start, self.n_sparse)
        unit = torch.zeros(stop - start, self.n_sparse, dtype=known_dtype(dtype))
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1
        return self._W_transposed(unit)

    def _W_transposed(self, rows: Tensor) -> Tensor:
        """W^T applied to each row; W is symmetric but where W_out was given."""
        return self._readout(self._forward(rows))


def kept_entries(rows: Tensor) -> Tensor:
    """Number of entries of each code (rows, n_dense) that are not missing, (rows, 1).

    Raises
    ------
    ValueError
        If a code has none.
    """
    kept = rows.shape[-1] - rows.isnan().sum(-1, keepdim=True)
    if not bool(kept.all()):
        raise ValueError("z has a code whose entries are all missing; allowed: at least one number in every code")
    return kept


def participation(entries: Tensor) -> float:
    """sum w^4 / (sum w^2)^2 of each row of entries (rows, k), averaged over the rows that are not 0."""
    squares = entries.double().square()
    totals = squares.sum(dim=1)
    # Entries that are rounding errors of 0 say nothing: without interference all is one.
    real = totals > 1e-24
    if not bool(real.any()):
        return 1 / entries.shape[1]
    return float((squares.square().sum(dim=1)[real] / totals[real].square()).mean())
