"""Linear encoders: n_sparse features into n_dense numbers.

An encoder is a matrix W_in (n_dense x n_sparse) and a readout W_out (n_sparse x n_dense) scaled so that
W = W_out W_in has a diagonal of ones. The code z = W_in x is then read as an unbiased estimate of every feature,

    y = m + W_out (z - W_in m) = x + sum of interference,     m the source's mean,

whose interference has mean 0 and, over the source, the variance v sum_{j != i} W_ij^2. Every decoder acts on y.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from persianrug import _checks, transforms
from persianrug._arrays import Array, as_tensor, like, map_rows
from persianrug.channel import Channel
from persianrug.sources import Each

if TYPE_CHECKING:
    from persianrug.knots import Knot

# The largest transform that the fast kernel takes.
_MOST_FEATURES = 1 << 30
# Rows of W that are computed at a time.
_BLOCK = 256


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
        for start in range(0, self.n_sparse, _BLOCK):
            stop = min(start + _BLOCK, self.n_sparse)
            rows = self.W_rows(start, stop)
            rows[torch.arange(stop - start), torch.arange(start, stop)] = 0.0
            total += (stop - start) * _participation(rows)
        return total / self.n_sparse

    @property
    @abstractmethod
    def code_power(self) -> float:
        """sum_ij W_in_ij^2 / n_dense: the variance of an entry of the code per variance of a feature."""

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

    def encode(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_dense"]:
        """The code W_in x.

        Raises
        ------
        ValueError
            If x is not a float32 or float64 tensor or array whose last axis is n_sparse long.
        """
        return like(x, map_rows(self._forward, as_tensor("x", x, self.n_sparse), self.n_dense))

    def adjoint(self, z: Float[Array, "*batch n_dense"]) -> Float[Array, "*batch n_sparse"]:
        """W_in^T z; errors as in `encode`."""
        return like(z, map_rows(self._adjoint, as_tensor("z", z, self.n_dense), self.n_sparse))

    def readout(self, z: Float[Array, "*batch n_dense"]) -> Float[Array, "*batch n_sparse"]:
        """W_out z; errors as in `encode`."""
        return like(z, map_rows(self._readout, as_tensor("z", z, self.n_dense), self.n_sparse))

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
        tensor = as_tensor("z", z, self.n_dense)
        return like(z, map_rows(self.estimator(mean, tensor), tensor, self.n_sparse))

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
        wide = like.new_tensor(mean).expand(1, self.n_sparse)
        return self._forward(wide), mean if np.ndim(mean) == 0 else wide

    def W_in(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n_dense n_sparse"]:
        """The encoder's matrix; it takes n_dense n_sparse numbers of memory."""
        return self._forward(torch.eye(self.n_sparse, dtype=dtype)).T.contiguous()

    def W_out(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n_sparse n_dense"]:
        """The readout's matrix; it takes n_dense n_sparse numbers of memory."""
        return self._readout(torch.eye(self.n_dense, dtype=dtype)).T.contiguous()

    def W(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n_sparse n_sparse"]:
        """The product W_out W_in, whose diagonal is 1; it takes n_sparse^2 numbers of memory."""
        return self.W_rows(0, self.n_sparse, dtype)

    def W_rows(self, start: int, stop: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "rows n_sparse"]:
        """Rows start to stop of W."""
        unit = torch.zeros(stop - start, self.n_sparse, dtype=dtype)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1
        return self._W_transposed(unit)

    def _W_transposed(self, rows: Tensor) -> Tensor:
        """W^T applied to each row; W is symmetric but where W_out was given."""
        return self._readout(self._forward(rows))


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

    knot : Knot, optional
        Repeat this knot over the features, and mix its channels: the rug is then a `KnottedRug`.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    name = "rug"

    def __new__(
        cls, n_sparse: int = 0, n_dense: int = 0, seed: int = 0, signs: bool = True, knot: Knot | None = None
    ) -> Self:
        if knot is None:
            return super().__new__(cls)

        from persianrug.weaves import KnottedRug

        return cast(Self, KnottedRug.of(knot, n_sparse, n_dense, seed, signs))

    def __init__(
        self, n_sparse: int, n_dense: int, seed: int = 0, signs: bool = True, knot: Knot | None = None
    ) -> None:
        del knot  # Of one there is none, or this is no plain rug.
        self.n_sparse = _checks.integer("n_sparse", n_sparse, 2, _MOST_FEATURES)
        self.n_dense = _checks.integer("n_dense", n_dense, 1, self.n_sparse)
        self.seed = _checks.integer("seed", seed, 0)
        if not isinstance(signs, bool):
            raise ValueError(f"signs is {signs!r}; allowed: True, False")
        self.signs = signs
        self._placed: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @classmethod
    def of_ratio(
        cls, n_sparse: int, ratio: float, seed: int = 0, signs: bool = True, knot: Knot | None = None
    ) -> Rug:
        """The rug whose n_dense is nearest to ratio * n_sparse.

        Raises
        ------
        ValueError
            If ratio is outside (0, 1], or so small that no number is left for the code.
        """
        ratio = _checks.probability("ratio", ratio)
        n_sparse = _checks.integer("n_sparse", n_sparse, 2, _MOST_FEATURES)
        n_dense = round(ratio * n_sparse)
        if n_dense == 0:
            raise ValueError(
                f"ratio is {ratio}, which makes n_dense 0 at n_sparse {n_sparse}; "
                f"allowed: more than {0.5 / n_sparse:.3g}"
            )
        return cls(n_sparse, n_dense, seed, signs, knot)

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
        return _participation(self.W_rows(0, 1)[:, 1:])

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

    def _parts(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rows, and signs times the transform's norm, on the device and signs of the dtype of `like`."""
        key = (like.dtype, like.device)
        if key not in self._placed:
            # Kept for later calls, which may want gradients; tensors of inference mode have none.
            with torch.inference_mode(False):
                rows = torch.from_numpy(self.rows).to(like.device)
                scaled = transforms.norm(self.n_sparse) * (self._signs if self.signs else np.ones(1))
                self._placed[key] = rows, torch.from_numpy(scaled).to(dtype=like.dtype, device=like.device)
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
        rows, signs = self._parts(z)
        x = transforms.synthesise(z, rows, self.n_sparse)
        return x.mul_(signs if scale == 1 else scale * signs)


def _choose(bits: np.random.PCG64, items: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` of the items at random: those with the least of random 64-bit keys."""
    keys = bits.random_raw(len(items))
    return items[np.argsort(keys, kind="stable")[:count]]


class _Matrix(Encoder):
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
        for start in range(0, self.n_sparse, _BLOCK):
            rows = self.W_rows(start, min(start + _BLOCK, self.n_sparse)).square()
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


class Gaussian(_Matrix):
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
        self.n_sparse = _checks.integer("n_sparse", n_sparse, 2, _MOST_FEATURES)
        self.n_dense = _checks.integer("n_dense", n_dense, 1, self.n_sparse)
        self.seed = _checks.integer("seed", seed, 0)

    def __repr__(self) -> str:
        return f"Gaussian(n_sparse={self.n_sparse}, n_dense={self.n_dense}, seed={self.seed})"

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


class Dense(_Matrix):
    """Given weights, trained or made elsewhere.

    Parameters
    ----------
    W_in : float tensor or array (n_dense, n_sparse)
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
        encoder = as_tensor("W_in", W_in).detach().clone()
        if encoder.ndim != 2 or encoder.shape[1] < 2 or not encoder.shape[0] >= 1:
            raise ValueError(
                f"W_in has shape {tuple(encoder.shape)}; allowed: (n_dense, n_sparse) with n_sparse >= 2"
            )
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


def _participation(entries: Tensor) -> float:
    """sum w^4 / (sum w^2)^2 of each row of entries (rows, k), averaged over the rows that are not 0."""
    squares = entries.double().square()
    totals = squares.sum(dim=1)
    # Entries that are rounding errors of 0 say nothing: without interference all is one.
    real = totals > 1e-24
    if not bool(real.any()):
        return 1 / entries.shape[1]
    return float((squares.square().sum(dim=1)[real] / totals[real].square()).mean())


def from_recipe(recipe: dict[str, Any], tensors: dict[str, Tensor]) -> Encoder:
    """The encoder of a recipe and its tensors.

    Raises
    ------
    ValueError
        If the recipe names no encoder known here, or its arguments or tensors are not what that one takes.
    """
    from persianrug.weaves import KnottedRug

    makers: dict[str, Any] = {maker.name: maker for maker in (Rug, Gaussian, Dense)}
    makers[KnottedRug.name] = KnottedRug.stored
    name = _checks.one_of("encoder", recipe.get("name", ""), makers)
    arguments = {key: value for key, value in recipe.items() if key != "name"}
    try:
        encoder: Encoder = makers[name](**arguments, **tensors)
    except (TypeError, KeyError):
        given = sorted({*arguments, *tensors})
        raise ValueError(f"recipe of encoder {name} has {given}; allowed: its own arguments") from None
    return encoder


def noise_level(variance: float, ratio: float) -> float:
    """Standard deviation sigma of a rug's interference, sigma^2 = v (1 - ratio) / ratio.

    Section 3 of arXiv 2410.12101: no symmetric W of the same rank has less.

    Parameters
    ----------
    variance : float
        Variance v of a feature.
    ratio : float in (0, 1]

    Raises
    ------
    ValueError
        If ratio is outside (0, 1].
    """
    ratio = _checks.probability("ratio", ratio)
    return math.sqrt(variance * (1 - ratio) / ratio)
