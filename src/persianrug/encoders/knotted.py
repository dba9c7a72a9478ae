"""Rugs woven of knots: groups of features share channels, and a plain rug mixes the channels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug.channel import Channel
from persianrug.encoders.base import MOST_SPARSE, Encoder, participation
from persianrug.encoders.rug import Rug
from persianrug.knots import MOST_FEATURES, Knot, View, library, line, pair, polygon, single
from persianrug.sources import Each, Source

# Channels of which the participation is averaged.
_SOME = 16


class KnottedRug(Encoder):
    """A rug woven of knots: W_in = A T, with T the knots side by side and A a plain rug of their channels.

    `KnottedRug.weave(knot, n_sparse, n_dense)` makes one. With N channels and the ratio r' = n_dense / N of the
    plain rug, a channel is read with noise of variance (1 - r') / r' times that of the channels, much as a feature
    of a plain rug is. At r' = 1 there is no noise: a pure tiling. Features of a knot interfere with each other by
    C = R M.

    Parameters
    ----------
    knots : list of (Knot, count)
        So many of each, one after another.
    n_dense : int, 1 to the number of channels
    seed, signs
        Of the plain rug.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    name = "knotted-rug"

    def __init__(self, knots: list[tuple[Knot, int]], n_dense: int, seed: int = 0, signs: bool = True) -> None:
        self.knots = [(knot, checks.integer("count", count, 1, MOST_SPARSE)) for knot, count in knots]
        self.n_sparse = checks.integer(
            "n_sparse", sum(knot.features * count for knot, count in self.knots), 2, MOST_SPARSE
        )
        channels = sum(knot.channels * count for knot, count in self.knots)
        self.n_dense = checks.integer("n_dense", n_dense, 1, channels)
        # A single channel has nothing to be mixed with.
        self.rug = Rug(channels, n_dense, seed, signs) if channels > 1 else None
        self.channels, self.seed, self.signs = channels, checks.seed(seed), checks.flag("signs", signs)

    @classmethod
    def weave(cls, knot: Knot, n_sparse: int, n_dense: int, seed: int = 0, signs: bool = True) -> KnottedRug:
        """As many of a knot as there can be; the features left over make do with the channels left over.

        A tight knot, of as many features to a channel as the ratio asks, is tiled without noise for any n_sparse.
        What is left over may get a knot from the package's table, so that the same arguments may make another rug
        in another version; a saved model keeps its knots.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        checks.instance("knot", knot, Knot)
        n_sparse = checks.integer("n_sparse", n_sparse, 2, MOST_SPARSE)
        n_dense = checks.integer("n_dense", n_dense, 1, n_sparse)
        k, d = knot.features, knot.channels
        count = n_sparse // k
        if k > d:
            count = min(count, (n_sparse - n_dense) // (k - d))
        # Of knots that fill the dimensions so many are undone that something is left for the others.
        while count and 0 <= n_dense - count * d < min(n_sparse - count * k, 2):
            count -= 1
        left, channels = n_sparse - count * k, n_dense - count * d
        rest = _filling(left, channels if channels > 0 else (left + 1) // 2)
        return cls([part for part in [(knot, count), *rest] if part[1]], n_dense, seed, signs)

    def __repr__(self) -> str:
        names = " + ".join(f"{count} x {knot.name}" for knot, count in self.knots)
        return f"KnottedRug({names}, n_sparse={self.n_sparse}, n_dense={self.n_dense}, seed={self.seed})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KnottedRug) and self.knots == other.knots and self.rug == other.rug

    def __hash__(self) -> int:
        return hash((self.n_sparse, self.n_dense, self.seed, self.signs))

    def recipe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "knots": [{"name": knot.name, "count": count} for knot, count in self.knots],
            "n_dense": self.n_dense,
            "seed": self.seed,
            "signs": self.signs,
        }

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{part}.{index}": torch.from_numpy(getattr(knot, part).copy())
            for index, (knot, _) in enumerate(self.knots)
            for part in ("matrix", "readout")
        }

    @classmethod
    def stored(
        cls, knots: list[dict[str, Any]], n_dense: int, seed: int, signs: bool, **tensors: Tensor
    ) -> KnottedRug:
        """The rug of a recipe, whose seed may be of any size, and its tensors."""
        parts = []
        for index, knot in enumerate(knots):
            matrices = (tensors.pop(f"{part}.{index}").double().numpy() for part in ("matrix", "readout"))
            parts.append((Knot(str(knot["name"]), *matrices), knot["count"]))
        rug = cls(parts, n_dense, 0, signs)
        rug.seed = checks.stored_seed(seed)
        if rug.rug is not None:
            rug.rug = Rug.stored(rug.channels, rug.n_dense, rug.seed, rug.signs)
        return rug

    # What the laws ask for.

    def channel_noise(self, source: Source, channel: Channel, energy: float = 1.0) -> float:
        """Standard deviation of the noise on a channel, at an energy of the vector relative to its mean."""
        checks.instance("source", source, Source)
        checks.instance("channel", channel, Channel)
        if self.rug is None:
            channel.kept(self.n_dense)
            return channel.variance**0.5
        variance = energy * self.code_power * float(np.mean(source.variance))
        noise = self.rug.interference_of(variance, channel) + channel.variance * self.rug.noise_gain(channel)
        return float(noise) ** 0.5

    def views(
        self, source: Source, channel: Channel, energy: float = 1.0
    ) -> Iterator[tuple[slice, Knot, int, list[View]]]:
        """Of every kind of knot its features (count k), itself, count, and what each of k features looks like."""
        sigma, start = self.channel_noise(source, channel, energy), 0
        for knot, count in self.knots:
            stop = start + count * knot.features
            yield slice(start, stop), knot, count, knot.views(source, sigma)
            start = stop

    @cached_property
    def interference(self) -> NDArray[np.float64]:
        return self.interference_of(1.0, Channel())

    def interference_of(self, variance: Each, channel: Channel) -> NDArray[np.float64]:
        if np.ndim(variance):
            raise ValueError(f"source has features that differ; allowed with {self}: alike ones")
        noise = 0.0 if self.rug is None else float(self.rug.interference_of(self.code_power, channel))
        own = [np.sum(knot.product**2, axis=1) - 1 + noise * self._gains(knot) for knot, _ in self.knots]
        return variance * np.maximum(self._repeated(own), 0.0)

    def noise_gain(self, channel: Channel) -> NDArray[np.float64]:
        gain = 1.0 if self.rug is None else float(self.rug.noise_gain(channel))
        return gain * self._repeated([self._gains(knot) for knot, _ in self.knots])

    @staticmethod
    def _gains(knot: Knot) -> NDArray[np.float64]:
        return np.asarray(np.sum(knot.readout**2, axis=1))

    def _repeated(self, parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Numbers (k,) for every knot as an array (n_sparse,)."""
        return np.concatenate([np.tile(part, count) for part, (_, count) in zip(parts, self.knots, strict=True)])

    @property
    def frame_bound(self) -> float:
        raise ValueError(f"encoder {self} is no tight frame; allowed with oamp: a rug without knots")

    @cached_property
    def code_power(self) -> float:
        total = sum(float(np.sum(knot.matrix**2)) * count for knot, count in self.knots)
        return total / self.channels

    @cached_property
    def _channel_participation(self) -> float:
        """The inverse participation of features in the noise on a channel."""
        if self.rug is None:
            return 1 / self.n_sparse
        some = min(_SOME, self.channels)
        rows = self.rug.W_rows(0, some)
        rows[torch.arange(some), torch.arange(some)] = 0.0
        return participation(self._apart(rows, "matrix"))

    def participation_of(self, channel: Channel) -> float:
        if self.rug is None:
            return self._channel_participation
        return self._channel_participation * self.rug.participation_of(channel) / self.rug.inverse_participation

    # The matrices.

    def _together(self, x: Tensor, part: str) -> Tensor:
        """Features (rows, n_sparse) to channels, by the matrices or by the transposed readouts of the knots."""
        out, start = [], 0
        for knot, count in self.knots:
            stop = start + count * knot.features
            matrix = self._part(knot, part, x)
            out.append((x[:, start:stop].reshape(-1, knot.features) @ matrix.mT).reshape(len(x), -1))
            start = stop
        return torch.cat(out, dim=1)

    def _apart(self, y: Tensor, part: str) -> Tensor:
        """Channels (rows, N) to features, by the transposed matrices or by the readouts of the knots."""
        out, start = [], 0
        for knot, count in self.knots:
            stop = start + count * knot.channels
            matrix = self._part(knot, part, y)
            out.append((y[:, start:stop].reshape(-1, knot.channels) @ matrix).reshape(len(y), -1))
            start = stop
        return torch.cat(out, dim=1)

    @staticmethod
    def _part(knot: Knot, part: str, like: Tensor) -> Tensor:
        """The matrix, or the transposed readout, (d, k), as `like`."""
        matrix = knot.matrix if part == "matrix" else knot.readout.T
        return torch.tensor(matrix, dtype=like.dtype, device=like.device)

    def _forward(self, x: Tensor) -> Tensor:
        channels = self._together(x, "matrix")
        return channels if self.rug is None else self.rug._forward(channels)

    def _adjoint(self, z: Tensor) -> Tensor:
        return self._apart(z if self.rug is None else self.rug._adjoint(z), "matrix")

    def _readout(self, z: Tensor) -> Tensor:
        return self._apart(z if self.rug is None else self.rug._readout(z), "readout")

    def _W_transposed(self, rows: Tensor) -> Tensor:
        channels = self._together(rows, "readout")
        return self._apart(channels if self.rug is None else self.rug._W_transposed(channels), "matrix")


def _filling(features: int, channels: int) -> list[tuple[Knot, int]]:
    """Knots of so many features on just so many channels: single ones and pairs, found ones, or polygons."""
    if features <= 2 * channels:
        pairs = features - channels if features > channels else 0
        return [(pair(), pairs), (single(), features - 2 * pairs)]
    dense = [
        one for one in library() if one.knot.features * channels == one.knot.channels * features
        and features % one.knot.features == 0
    ]  # fmt: skip
    if dense:
        knot = min(dense, key=lambda one: one.loss / one.rug).knot
        return [(knot, features // knot.features)]
    if channels == 1 and features <= MOST_FEATURES:
        return [(line(features), 1)]
    rest = [(pair(), 1)] if channels % 2 else []
    planes, features = channels // 2, features - 2 * (channels % 2)
    if features > planes * MOST_FEATURES:
        raise ValueError(
            f"n_dense leaves {channels} channels to {features} features; allowed: more, or another knot"
        )
    few, more = features // planes, features % planes
    return [(polygon(few), planes - more), (polygon(few + 1), more), *rest]
