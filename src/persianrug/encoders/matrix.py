"""Encoders that store their matrices: random columns, and given weights."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import as_tensor
from persianrug.channel import Channel
from persianrug.encoders.base import BLOCK, MOST_SPARSE, Encoder
from persianrug.sources import Each


class Matrix(Encoder):
    """An encoder that stores its matrices."""

    _encoder: Tensor
    _decoder: Tensor

    def _as(self, matrix: Tensor, like: Tensor) -> Tensor:
        return matrix.to(dtype=like.dtype, device=like.device)

    def _forward(self, x: Tensor) -> Tensor:
        return x @ self._as(self._encoder, x).T

    def _adjoint(self, z: Tensor) -> Tensor:
        return z @ self._as(self._encoder, z)

    def _readout(self, z: Tensor) -> Tensor:
        return z @ self._as(self._decoder, z).T

    def _W_transposed(self, rows: Tensor) -> Tensor:
        return (rows @ self._as(self._decoder, rows)) @ self._as(self._encoder, rows)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Matrix):
            return False
        pairs = (self._encoder, other._encoder), (self._decoder, other._decoder)
        return all(one.shape == same.shape and torch.equal(one.cpu(), same.cpu()) for one, same in pairs)

    def __hash__(self) -> int:
        return hash((type(self), self.n_sparse, self.n_dense))

    @cached_property
    def interference(self) -> NDArray[np.float64]:
        # sum_j W_ij^2 = w_i^T (W_in W_in^T) w_i, without the n_sparse x n_sparse matrix.
        encoder, decoder = self._encoder.double(), self._decoder.double()
        gram = encoder @ encoder.T
        return np.maximum(((decoder @ gram) * decoder).sum(dim=1).cpu().numpy() - 1, 0.0)

    @cached_property
    def code_power(self) -> float:
        return float(self._encoder.double().square().sum() / self.n_dense)

    @cached_property
    def frame_bound(self) -> float:
        gram = self._encoder.double() @ self._encoder.double().T
        bound = float(gram.diagonal().mean())
        gram.diagonal().sub_(bound)
        if float(gram.abs().max()) > 1e-4 * bound:
            raise ValueError(
                f"encoder {self} is no tight frame; allowed with oamp: W_in with orthogonal rows of one norm"
            )
        return bound

    def interference_of(self, variance: Each, channel: Channel) -> NDArray[np.float64]:
        self._refuse_erasures(channel)
        if np.ndim(variance) == 0:
            return variance * self.interference
        powers = torch.tensor(variance, dtype=torch.float64)
        out = []
        for start in range(0, self.n_sparse, BLOCK):
            rows = self.W_rows(start, min(start + BLOCK, self.n_sparse)).square()
            rows[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = 0.0
            out.append(rows @ powers)
        return torch.cat(out).numpy()

    def noise_gain(self, channel: Channel) -> NDArray[np.float64]:
        self._refuse_erasures(channel)
        return self._decoder.double().square().sum(dim=1).cpu().numpy()

    def participation_of(self, channel: Channel) -> float:
        self._refuse_erasures(channel)
        return self.inverse_participation

    def _refuse_erasures(self, channel: Channel) -> None:
        if channel.erasures:
            raise ValueError(
                f"erasures is {channel.erasures}; allowed with encoder {self}: 0, only a rug bears them"
            )


class Gaussian(Matrix):
    """Random columns, independent and normal, of unit length: the usual code of compressed sensing.

    W_out is the transpose of W_in. Interference is about 1 / ratio where the rug's is (1 - ratio) / ratio.
    The same arguments make the same matrix, up to rounding, on every machine.

    Parameters
    ----------
    n_sparse : int >= 2
    n_dense : int, 1 to n_sparse
    seed : int >= 0

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    name = "gaussian"

    def __init__(self, n_sparse: int, n_dense: int, seed: int = 0) -> None:
        self.n_sparse = checks.integer("n_sparse", n_sparse, 2, MOST_SPARSE)
        self.n_dense = checks.integer("n_dense", n_dense, 1, self.n_sparse)
        self.seed = checks.seed(seed)

    @classmethod
    def stored(cls, n_sparse: int, n_dense: int, seed: int = 0) -> Gaussian:
        """The encoder of a recipe, whose seed may be of any size."""
        encoder = cls(n_sparse, n_dense)
        encoder.seed = checks.stored_seed(seed)
        return encoder

    def __repr__(self) -> str:
        return f"Gaussian(n_sparse={self.n_sparse}, n_dense={self.n_dense}, seed={self.seed})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gaussian) and self.recipe() == other.recipe()

    def __hash__(self) -> int:
        return hash((self.n_sparse, self.n_dense, self.seed))

    def recipe(self) -> dict[str, Any]:
        return {"name": self.name, "n_sparse": self.n_sparse, "n_dense": self.n_dense, "seed": self.seed}

    @cached_property
    def _encoder(self) -> Tensor:  # type: ignore[override]
        raw = np.random.PCG64([self.seed, 2]).random_raw(self.n_sparse * self.n_dense)
        normal = ndtri(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
        matrix = torch.from_numpy(normal).view(self.n_dense, self.n_sparse)
        return matrix / matrix.norm(dim=0)

    @property
    def _decoder(self) -> Tensor:  # type: ignore[override]
        return self._encoder.T


class Dense(Matrix):
    """Given weights, trained or made elsewhere.

    Parameters
    ----------
    W_in : float tensor or array (n_dense, n_sparse), n_dense <= n_sparse
    W_out : float tensor or array (n_sparse, n_dense), optional
        By default the transpose of W_in. Its rows are scaled so that W_out W_in has a diagonal of ones.

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is not finite, or a diagonal entry of W_out W_in is 0, so that the code
        says nothing of that feature.
    """

    name = "dense"

    def __init__(self, W_in: Tensor | NDArray[Any], W_out: Tensor | NDArray[Any] | None = None) -> None:
        self._take(W_in, W_out, narrow=True)

    @classmethod
    def stored(cls, W_in: Tensor, W_out: Tensor) -> Dense:
        """The encoder of stored tensors. Earlier versions took n_dense above n_sparse too."""
        encoder = cls.__new__(cls)
        encoder._take(W_in, W_out, narrow=False)
        return encoder

    def _take(self, W_in: Tensor | NDArray[Any], W_out: Tensor | NDArray[Any] | None, *, narrow: bool) -> None:
        encoder = as_tensor("W_in", W_in).detach().clone()
        if encoder.ndim != 2 or encoder.shape[1] < 2 or not encoder.shape[0] >= 1:
            raise ValueError(
                f"W_in has shape {tuple(encoder.shape)}; allowed: (n_dense, n_sparse) with n_sparse >= 2"
            )
        if narrow:
            checks.bottleneck(encoder.shape)
        decoder = encoder.T if W_out is None else as_tensor("W_out", W_out).detach()
        if decoder.shape != encoder.T.shape:
            raise ValueError(f"W_out has shape {tuple(decoder.shape)}; allowed: {tuple(encoder.T.shape)}, as W_in")
        for name, matrix in (("W_in", encoder), ("W_out", decoder)):
            if not bool(matrix.isfinite().all()):
                raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")
        # In double precision, where products of float32 numbers neither overflow nor vanish.
        diagonal = (decoder.double() * encoder.double().T).sum(dim=1, keepdim=True)
        if not bool(diagonal.all()):
            feature = int((diagonal[:, 0] == 0).nonzero()[0, 0])
            raise ValueError(f"W_out W_in has 0 on its diagonal at feature {feature}; allowed: other numbers")
        self.n_dense, self.n_sparse = encoder.shape
        self._encoder = encoder
        # Those that were saved are scaled already, up to rounding, and are kept to the bit.
        scaled = bool(((diagonal - 1).abs() < 1e-6).all())
        self._decoder = decoder.clone() if scaled else (decoder.double() / diagonal).to(decoder.dtype)

    def __repr__(self) -> str:
        return f"Dense(n_sparse={self.n_sparse}, n_dense={self.n_dense})"

    def recipe(self) -> dict[str, Any]:
        return {"name": self.name}

    def tensors(self) -> dict[str, Tensor]:
        return {"W_in": self._encoder.contiguous(), "W_out": self._decoder.contiguous()}
