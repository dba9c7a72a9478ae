"""The rug: random rows of an orthonormal fast transform, stored as a recipe."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug.channel import Channel
from persianrug.encoders import transforms
from persianrug.encoders.base import MOST_SPARSE, Encoder, participation
from persianrug.sources import Each


class Rug(Encoder):
    """The rug of arXiv 2410.12101: random rows of an orthonormal fast transform, stored as a recipe.

    W_in has orthonormal rows and columns of one norm, so that W = P / ratio with P an orthogonal projector of
    constant diagonal; no W of its rank and diagonal has less interference. For n_sparse a power of two the
    rows are those of the Hadamard matrix. For every other n_sparse they are those of the real Fourier matrix,
    drawn in pairs of equal frequency, which keeps the columns' norms exactly equal.

    The same arguments make the same rug on every machine, device and version.

    Parameters
    ----------
    n_sparse : int, 2 to 2^30
        Number of features.
    n_dense : int, 1 to n_sparse
        Length of the code.
    seed : int >= 0
        Which rows, and which signs.
    signs : bool
        Flip the sign of every feature at random before the transform, as data with structure of its own needs.
        The paper's rug does not.
    knot : None
        Rugs of knots are made by `KnottedRug.weave`.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    name = "rug"

    def __init__(
        self, n_sparse: int, n_dense: int, seed: int = 0, signs: bool = True, knot: object = None
    ) -> None:
        if knot is not None:
            raise ValueError(
                f"knot is {checks.shown(knot)}; allowed: KnottedRug.weave(knot, n_sparse, n_dense, ...)"
            )
        self.n_sparse = checks.integer("n_sparse", n_sparse, 2, MOST_SPARSE)
        self.n_dense = checks.integer("n_dense", n_dense, 1, self.n_sparse)
        self.seed = checks.seed(seed)
        self.signs = checks.flag("signs", signs)
        self._placed: dict[tuple[torch.dtype, torch.device, float], tuple[transforms.Chosen, Tensor]] = {}

    @classmethod
    def of_ratio(cls, n_sparse: int, ratio: float, seed: int = 0, signs: bool = True, knot: object = None) -> Rug:
        """The rug whose n_dense is nearest to ratio * n_sparse.

        Raises
        ------
        ValueError
            If ratio is outside (0, 1], or so small that no number is left for the code.
        """
        ratio = checks.probability("ratio", ratio)
        n_sparse = checks.integer("n_sparse", n_sparse, 2, MOST_SPARSE)
        n_dense = round(ratio * n_sparse)
        if n_dense == 0:
            raise ValueError(
                f"ratio is {ratio}, which makes n_dense 0 at n_sparse {n_sparse}; "
                f"allowed: more than {0.5 / n_sparse:.3g}"
            )
        return cls(n_sparse, n_dense, seed, signs, knot)

    @classmethod
    def stored(cls, n_sparse: int, n_dense: int, seed: int = 0, signs: bool = True) -> Rug:
        """The rug of a recipe, whose seed may be of any size."""
        rug = cls(n_sparse, n_dense, 0, signs)
        rug.seed = checks.stored_seed(seed)
        return rug

    def __repr__(self) -> str:
        flips = "" if self.signs else ", signs=False"
        return f"Rug(n_sparse={self.n_sparse}, n_dense={self.n_dense}, seed={self.seed}{flips})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rug) and self.recipe() == other.recipe()

    def __hash__(self) -> int:
        return hash((self.n_sparse, self.n_dense, self.seed, self.signs))

    def recipe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "n_sparse": self.n_sparse,
            "n_dense": self.n_dense,
            "seed": self.seed,
            "signs": self.signs,
        }

    @property
    def interference(self) -> NDArray[np.float64]:
        return np.array((self.n_sparse - self.n_dense) / self.n_dense)

    @cached_property
    def inverse_participation(self) -> float:
        # All rows of W hold the same numbers up to their order and signs: W_ij depends on i ^ j for the Hadamard
        # transform, on i - j for the Fourier transform.
        return participation(self.W_rows(0, 1)[:, 1:])

    code_power = 1.0
    frame_bound = 1.0

    def interference_of(self, variance: Each, channel: Channel) -> NDArray[np.float64]:
        kept = channel.kept(self.n_dense)
        if np.ndim(variance) == 0:
            return np.array(variance * (self.n_sparse - kept) / kept)
        # W_ij^2 depends on i ^ j or i - j alone: a convolution with its first row.
        squares = self._squares
        lost = self._lost(kept)
        transform = [transforms.forward(part) for part in (squares, np.asarray(variance))]
        if transforms.is_power_of_two(self.n_sparse):
            own = transforms.inverse(transform[0] * transform[1]) * self.n_sparse**0.5
        else:
            own = np.fft.irfft(np.fft.rfft(squares) * np.fft.rfft(variance), self.n_sparse)
        return np.maximum(own, 0.0) + lost * (np.sum(variance) - variance)

    def noise_gain(self, channel: Channel) -> NDArray[np.float64]:
        return np.array(self.n_sparse / channel.kept(self.n_dense))

    def participation_of(self, channel: Channel) -> float:
        # An entry of W, from a random part of its rows, is as before but for a nearly normal deviation of the
        # variance `lost`: E (w + d)^4 = w^4 + 6 w^2 lost + 3 lost^2.
        kept = channel.kept(self.n_dense)
        if kept == self.n_dense:
            return self.inverse_participation
        g, lost = float(self.interference), self._lost(kept)
        fourth = self.inverse_participation * g**2 + 6 * g * lost + 3 * (self.n_sparse - 1) * lost**2
        return fourth / ((self.n_sparse - kept) / kept) ** 2

    def _lost(self, kept: int) -> float:
        """What the mean square of an off-diagonal entry of W grows by when only `kept` rows are left."""
        return (self.n_sparse / kept - self.n_sparse / self.n_dense) / (self.n_sparse - 1)

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        """Squares of the first row of W, 0 on the diagonal."""
        squares = self.W_rows(0, 1)[0].square().numpy()
        squares[0] = 0.0
        return squares

    # Of NumPy's random numbers only the raw bits are promised to stay the same for ever, so rows and signs are
    # made from those.

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the transform that make the code, ascending."""
        bits = np.random.PCG64(self.seed)
        singles, pairs = (group.numpy() for group in transforms.flat_groups(self.n_sparse))
        if not len(pairs):
            return np.sort(_choose(bits, singles, self.n_dense))
        if self.n_dense % 2:
            rows, pairs = singles[:1], pairs[(pairs != singles[0]).all(axis=1)]
        else:
            rows = singles[:0]
        return np.sort(np.concatenate([rows, _choose(bits, pairs, self.n_dense // 2).ravel()]))

    @cached_property
    def _signs(self) -> NDArray[np.float64]:
        bits = np.random.PCG64([self.seed, 1])
        words = bits.random_raw(-(-self.n_sparse // 64)).astype("<u8")
        flips = np.unpackbits(words.view(np.uint8), bitorder="little", count=self.n_sparse)
        return 1.0 - 2.0 * flips.astype(np.float64)

    def _parts(self, like: Tensor, scale: float = 1.0) -> tuple[transforms.Chosen, Tensor]:
        """Rows, and signs times the transform's norm and a scale, as `like`."""
        key = (like.dtype, like.device, scale)
        if key not in self._placed:
            # Kept for later calls, which may want gradients; tensors of inference mode have none.
            with torch.inference_mode(False):
                rows = torch.from_numpy(self.rows).to(like.device)
                scaled = scale * transforms.norm(self.n_sparse) * (self._signs if self.signs else np.ones(1))
                self._placed[key] = (
                    transforms.choose(rows, self.n_sparse, torch.empty(0, dtype=like.dtype, device=like.device)),
                    torch.from_numpy(scaled).to(dtype=like.dtype, device=like.device),
                )
        return self._placed[key]

    def _forward(self, x: Tensor) -> Tensor:
        rows, signs = self._parts(x)
        return transforms.analyse(x * signs, rows, fresh=True)

    def _adjoint(self, z: Tensor) -> Tensor:
        return self._spread(z, 1.0)

    def _readout(self, z: Tensor) -> Tensor:
        return self._spread(z, self.n_sparse / self.n_dense)

    def _spread(self, z: Tensor, scale: float) -> Tensor:
        """Scale times the transpose of W_in."""
        rows, signs = self._parts(z, scale)
        return transforms.synthesise(z, rows).mul_(signs)


def _choose(bits: np.random.PCG64, items: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` of the items at random: those with the least of random 64-bit keys."""
    keys = bits.random_raw(len(items))
    return items[np.argsort(keys, kind="stable")[:count]]


def noise_level(variance: float, ratio: float) -> float:
    """Standard deviation sigma of a rug's interference, sigma^2 = v (1 - ratio) / ratio.

    Section 3 of arXiv 2410.12101: no symmetric W of the same rank has less.

    Parameters
    ----------
    variance : float >= 0
        Variance v of a feature.
    ratio : float in (0, 1]

    Raises
    ------
    ValueError
        If ratio is outside (0, 1], or the variance negative.
    """
    variance, ratio = checks.not_negative("variance", variance), checks.probability("ratio", ratio)
    return math.sqrt(variance * (1 - ratio) / ratio)
