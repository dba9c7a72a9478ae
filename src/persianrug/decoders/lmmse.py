"""The linear decoder that knows how features go together: least mean squared error from mean and covariance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import map_rows
from persianrug._support.threads import one_thread
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Decoder, check_parts, variances
from persianrug.encoders.base import Encoder
from persianrug.sources import Covariance, Each, Source

# Unit vectors that go through encoder and decoder at a time.
_BLOCK = 256
# Noise is taken to be at least this part of a code's variance, so that equations can be solved where a code says
# twice the same.
_LEAST_NOISE = 1e-12
# Equations of so many encoders and channels are kept.
_KEPT = 4
# Patterns of erasures that the law is averaged over, fewer where a code has many entries and all are much alike.
_MOST_PATTERNS, _PATTERN_ENTRIES = 32, 2048


@dataclass(frozen=True, eq=False)
class LMMSE(Decoder):
    """x_hat = mu + C A^T (A C A^T + w^2 I)^-1 (z - A mu): the linear estimate of least mean squared error.

    A is the encoder, w^2 the variance of the channel's noise, mu and C = F^T F + diag(d) are mean and covariance
    of the features as they are encoded. Its loss depends on the features' second moments alone, so that `law` is
    exact for every encoder, Gaussian features or not.

    With a flat diagonal and a tight frame, A A^T = c I, a row takes O(n_sparse log n_sparse + n_sparse k), and
    else O(n_dense^2), after one factorisation. Of erased entries the rows of A are left out: every pattern of them
    takes a factorisation of its own.

    Parameters
    ----------
    covariance : Covariance, optional
        By default that of independent features, by the source that `adapt` is given.
    positive : bool
        Whether estimates below 0 become 0. Of features >= 0 that makes no error larger, so that `law` is an upper
        bound.
    """

    covariance: Covariance | None = None
    positive: bool = False
    _solvers: dict[Any, tuple[Encoder, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    name = "lmmse"
    bears_knots = True

    def __post_init__(self) -> None:
        if self.covariance is not None:
            checks.instance("covariance", self.covariance, Covariance)
        object.__setattr__(self, "positive", checks.flag("positive", self.positive))

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> LMMSE:
        variances(source, encoder, channel)
        covariance = Covariance.of(source, encoder.n_sparse) if self.covariance is None else self.covariance
        check_size(covariance, encoder)
        return self if covariance is self.covariance else LMMSE(covariance, self.positive)

    def decode(
        self,
        z: Float[Tensor, "rows n_dense"],
        encoder: Encoder,
        mean: Each = 0.0,  # noqa: ARG002
        channel: Channel = CLEAR,
    ) -> Float[Tensor, "rows n_sparse"]:
        """The estimate; the mean is that of the covariance."""
        solver = self._solver(encoder, channel)

        def decode(rows: Tensor) -> Tensor:
            out = solver.decode(rows) if channel.erasures == 0 else _of_patterns(solver, rows)
            return out.clamp_(min=0.0) if self.positive else out

        return map_rows(decode, z, encoder.n_sparse)

    def limit(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """As `law`, which takes no limit."""
        return self.law(source, encoder, channel)

    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """As `law_of`, of independent features."""
        check_parts(source, encoder, channel)
        return self.law_of(Covariance.of(source, encoder.n_sparse), encoder, channel)

    @one_thread()
    def law_of(self, features: Covariance, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        """Loss of every feature, (n_sparse,), of features of this mean and covariance, whatever else they are.

        Of erasures it is the mean over some patterns of them, drawn at random. With `positive` it is what is lost
        without, an upper bound where features are >= 0.

        Raises
        ------
        ValueError
            If the covariance is of another number of features than the encoder, or the decoder has none.
        """
        checks.instance("features", features, Covariance)
        checks.instance("encoder", encoder, Encoder)
        checks.instance("channel", channel, Channel)
        check_size(features, encoder)
        solver, kept = self._solver(encoder, channel), channel.kept(encoder.n_dense)
        if kept == encoder.n_dense:
            return _losses(solver, features, channel.variance)
        generator = torch.Generator().manual_seed(0)
        orders = [
            torch.randperm(encoder.n_dense, generator=generator)
            for _ in range(max(2, min(_MOST_PATTERNS, _PATTERN_ENTRIES // encoder.n_dense)))
        ]
        parts = [_losses(solver.of(order[:kept].sort().values), features, channel.variance) for order in orders]
        return np.asarray(np.mean(parts, axis=0))

    def formula(self) -> str:
        rank = "" if self.covariance is None else f" of {self.covariance.rank} factors"
        estimate = f"mu + C A^T (A C A^T + w^2 I)^-1 (z - A mu), C{rank}"
        return f"max(0, {estimate})" if self.positive else estimate

    def recipe(self) -> dict[str, Any]:
        covariance = None if self.covariance is None else self.covariance.recipe()
        return {"name": self.name, "covariance": covariance, "positive": self.positive}

    def _equations(self, encoder: Encoder, noise: float) -> Any:
        return _Solver(cast(Covariance, self.covariance), encoder, noise)

    def _solver(self, encoder: Encoder, channel: Channel) -> Any:
        if self.covariance is None:
            raise ValueError("covariance is None; allowed to decode: one of features, or a decoder that was tuned")
        check_size(self.covariance, encoder)
        key = (id(encoder), channel.variance)
        found = self._solvers.get(key)
        if found is None:
            while len(self._solvers) >= _KEPT:
                self._solvers.pop(next(iter(self._solvers)))
            # With the encoder, that no other gets its id.
            found = self._solvers[key] = encoder, self._equations(encoder, channel.variance)
        return found[1]


class _Solver:
    """The equations of one encoder, one noise, and the entries of a code that come through: all, or some.

    In double precision: large factors and small features of a code are told apart in its last digits.
    """

    def __init__(
        self,
        covariance: Covariance,
        encoder: Encoder,
        noise: float,
        whole: _Solver | None = None,
        kept: Any = None,
    ) -> None:
        self._covariance, self._encoder, self._noise, self._kept = covariance, encoder, noise, kept
        self.mean, self._factors, self._diagonal = (
            torch.from_numpy(part) for part in (covariance.mean, covariance.factors, covariance.diagonal)
        )
        if whole is None:
            with torch.inference_mode(False), torch.no_grad():
                self._centre = encoder._forward(self.mean[None])
                self._codes = encoder._forward(self._factors) if covariance.rank else self._centre[:0]
        else:
            self._centre, self._codes = whole._centre[:, kept], whole._codes[:, kept]
        self.n_kept = self._centre.shape[1]
        self._solve = self._flat() if covariance.flat and tight(encoder) else self._general(whole)

    def of(self, kept: Tensor) -> _Solver:
        """The equations of some entries alone, by their places."""
        return _Solver(self._covariance, self._encoder, self._noise, self, kept)

    def decode(self, rows: Tensor) -> Tensor:
        z = rows if self._kept is None else rows[:, self._kept.to(rows.device)]
        return (self.slopes(z.double() - self._on(self._centre, z)) + self._on(self.mean, z)).to(rows.dtype)

    def slopes(self, z: Tensor) -> Tensor:
        """What is made of codes (rows, n_kept) less that of the mean, but for the mean."""
        v, factors = self._solve(z)
        if self._kept is not None:
            full = v.new_zeros(len(v), self._encoder.n_dense)
            full[:, self._kept.to(v.device)] = v
            v = full
        return torch.addmm(
            self._encoder._adjoint(v) * self._on(self._diagonal, z), factors, self._on(self._factors, z)
        )

    def errors(self, x: Tensor) -> Tensor:
        """What the estimate makes wrong of vectors (rows, n_sparse) less the mean, without noise."""
        z = self._encoder._forward(x)
        return self.slopes(z if self._kept is None else z[:, self._kept]) - x

    def _on(self, part: Tensor, like: Tensor) -> Tensor:
        return part.to(like.device)

    def _flat(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Of s I + B^T B, s = c d + w^2, B = F A^T: k equations instead of n_dense."""
        codes = self._codes
        own = float(self._diagonal[0]) * self._encoder.frame_bound
        scale = self._floored(own)
        small = scale * torch.eye(len(codes), dtype=codes.dtype) + codes @ codes.T
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(small)) if len(codes) else small

        def solve(z: Tensor) -> tuple[Tensor, Tensor]:
            factors = (z @ self._on(codes, z).T) @ self._on(inverse, z)
            return (z - factors @ self._on(codes, z)) / scale, factors

        return solve

    def _general(self, whole: _Solver | None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        codes = self._codes
        if whole is None:
            matrix = codes.T @ codes
            for places, unit in _units(self._encoder.n_dense):
                matrix[places] += self._encoder._forward(self._encoder._adjoint(unit) * self._diagonal)
            matrix = (matrix + matrix.T) / 2
            self._matrix = matrix
        else:
            matrix = whole._matrix[self._kept][:, self._kept]
        matrix = matrix + self._floored(0.0, float(matrix.diagonal().mean())) * torch.eye(
            len(matrix), dtype=matrix.dtype
        )
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))

        def solve(z: Tensor) -> tuple[Tensor, Tensor]:
            v = z @ self._on(inverse, z)
            return v, v @ self._on(codes, z).T

        return solve

    def _floored(self, own: float, power: float | None = None) -> float:
        """The noise, with what is a feature's own, but no less than what can be told from nothing."""
        if power is None:
            power = own + float(self._codes.square().sum()) / max(self.n_kept, 1)
        return max(own + self._noise, _LEAST_NOISE * power, float(np.finfo(np.float32).tiny))


def _losses(solver: _Solver, features: Covariance, noise: float) -> NDArray[np.float64]:
    """Loss of every feature, (n_sparse,), from what the estimate makes wrong of each part of the features."""
    offset = torch.from_numpy(features.mean) - solver.mean
    lost = solver.errors(torch.cat([offset[None], torch.from_numpy(features.factors)])).square().sum(dim=0)
    for places, unit in _units(features.n_sparse):
        own = torch.from_numpy(features.diagonal[places]).sqrt()
        lost += solver.errors(own[:, None] * unit).square().sum(dim=0)
    if noise:
        for _, unit in _units(solver.n_kept):
            lost += noise * solver.slopes(unit).square().sum(dim=0)
    return np.asarray(lost)


def tight(encoder: Encoder) -> bool:
    """Whether A A^T is a multiple of the identity."""
    try:
        return encoder.frame_bound > 0
    except ValueError:
        return False


def check_size(covariance: Covariance, encoder: Encoder) -> None:
    """Raise ValueError unless they are of as many features."""
    if covariance.n_sparse != encoder.n_sparse:
        raise ValueError(
            f"covariance is of {covariance.n_sparse} features; allowed with {encoder}: {encoder.n_sparse}"
        )


def _units(n: int) -> Iterator[tuple[slice, Tensor]]:
    """The rows of the identity in blocks, and where these are."""
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        unit = torch.zeros(stop - start, n, dtype=torch.float64)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        yield slice(start, stop), unit


def _of_patterns(solver: Any, rows: Tensor) -> Tensor:
    """Estimates of codes of which entries are missing, NaN: those with the same ones together."""
    present = ~rows.isnan()
    patterns, members = torch.unique(present, dim=0, return_inverse=True)
    out = solver.mean.to(device=rows.device, dtype=rows.dtype).repeat(len(rows), 1)
    for number, pattern in enumerate(patterns):
        if not bool(pattern.any()):
            # Nothing came through: the mean is all that is known.
            continue
        chosen = (members == number).nonzero().ravel()
        one = solver if bool(pattern.all()) else solver.of(pattern.nonzero().ravel().cpu())
        out[chosen] = one.decode(rows[chosen])
    return out
