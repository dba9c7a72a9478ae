"""An encoder and a decoder: encode, decode, predict the loss, measure it, save and load."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from persianrug import decoders, encoders
from persianrug._support import checks
from persianrug._support.arrays import Array, Parts, as_tensor, bounded, like, place
from persianrug._support.devices import known_device, known_dtype
from persianrug._support.sparse import by_rows
from persianrug._support.tensors import read_tensors, write_tensors
from persianrug.channel import Channel
from persianrug.decoders import OAMP
from persianrug.decoders.base import CLEAR, Decoder, spread_levels
from persianrug.encoders.base import Encoder
from persianrug.sources import Each, Source

# A measurement holds about this many features at a time: 64 MiB in float64.
_MOST_ENTRIES = 1 << 23

# Entries that a measurement draws by default. The standard error of a loss is much the same for as many entries.
_ENTRIES = 1 << 25

# Of the mean square of a feature: a vector that has lost less is recovered.
_RECOVERED = 1e-6

FORMAT = "persianrug.autoencoder"
_VERSION = 2

Rows = Tensor | NDArray[Any] | scipy.sparse.csr_array


@dataclass(frozen=True)
class Measurement:
    """A measured loss.

    Attributes
    ----------
    loss : float
        Mean squared error per feature.
    stderr : float
        Its standard error, from the spread of the loss between vectors.
    samples : int
        Number of vectors.
    microseconds_per_vector : float
        Time to encode and decode one vector, the median over batches.
    recovered : float
        Share of the vectors whose mean squared error is below 1e-6 of the mean square of a feature.
    losses : array (n_sparse,)
        Mean squared error of every feature.
    """

    loss: float
    stderr: float
    samples: int
    microseconds_per_vector: float
    recovered: float
    losses: NDArray[np.float64] = field(repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Autoencoder(Parts):
    """A linear encoder read by a decoder.

    Parameters
    ----------
    encoder : Encoder
    decoder : Decoder
    mean : float or array (n_sparse,)
        What a feature is on average; the estimate that the decoder reads is centred on it.
    channel : Channel
        What happens to codes between encoder and decoder.
    gains : float or array (n_sparse,)
        What every feature is multiplied by before it is encoded, and divided by after it is decoded; see
        `encoder_gains`. Encoder, decoder and channel only see the product.

    Raises
    ------
    ValueError
        If mean or gains are not finite, gains not above 0, or an array of another length.
    """

    encoder: Encoder
    decoder: Decoder
    mean: Each = 0.0
    channel: Channel = CLEAR
    gains: Each = 1.0

    def __post_init__(self) -> None:
        for part, kind in (("encoder", Encoder), ("decoder", Decoder), ("channel", Channel)):
            checks.instance(part, getattr(self, part), kind)
        for name, check in (("mean", checks.finite), ("gains", checks.scale)):
            value = checks.each(name, getattr(self, name), check)
            object.__setattr__(self, name, value)
            if np.ndim(value) and len(value) != self.encoder.n_sparse:
                raise ValueError(f"{name} has {len(value)} numbers; allowed: one, or {self.encoder.n_sparse}")

    @property
    def _scales(self) -> bool:
        """Whether features are multiplied before they are encoded."""
        return bool(np.ndim(self.gains)) or self.gains != 1

    def _scaled(self, source: Source) -> Source:
        """The source of what is encoded; ValueError if it is none."""
        return checks.instance("source", source, Source).scaled(self.gains)

    def tune(self, source: Source) -> Autoencoder:
        """The same with its decoder tuned to source and channel, in closed form, for n_sparse -> infinity.

        The channel's levels are spread for the source.
        """
        source, mean = self._scaled(source), source.mean
        channel = spread_levels(self.channel, source, self.encoder)
        decoder = self.decoder.adapt(source, self.encoder, channel)
        return Autoencoder(self.encoder, decoder, mean, channel, self.gains)

    def encode(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_dense"]:
        """The code of x, a float32 or float64 tensor or array; ValueError for anything else.

        So it is for NaN, infinity and sizes beyond 1e30 on the CPU; other devices would have to be waited for.
        """
        if not self._scales:
            return self.encoder.encode(x)
        features = as_tensor("x", x, self.encoder.n_sparse)
        if features.device.type == "cpu":
            bounded("x", features, checks.LARGEST / max(float(np.max(self.gains)), 1.0))
        return like(x, self.encoder.encode(features * place(self.gains, features), check=False))

    def decode(self, z: Float[Array, "*batch n_dense"]) -> Float[Array, "*batch n_sparse"]:
        """The estimate of the features from their code; arguments and errors as in `encode`.

        If the channel has erasures, an entry of the code that is NaN is missing.
        """
        codes = as_tensor("z", z, self.encoder.n_dense)
        rows = codes.reshape(-1, self.encoder.n_dense)
        if codes.device.type == "cpu":
            most = self.encoder.largest_code * min(float(np.max(self.gains)), 1.0)
            low, high = bounded("z", rows, most, missing=self.channel.erasures > 0)
            # Squares of numbers far beyond all amplitudes are beyond those of 32 bits.
            rows = rows.double() if max(-low, high) > checks.SQUARES_FIT else rows
        out = self.decoder.decode(rows, self.encoder, self.mean * self.gains, self.channel)
        if self._scales:
            out = out / place(self.gains, out)
        return like(z, out.to(codes.dtype).reshape(*codes.shape[:-1], self.encoder.n_sparse))

    def transmit(
        self, z: Float[Tensor, "batch n_dense"], seed: int | torch.Generator = 0
    ) -> Float[Tensor, "batch n_dense"]:
        """The codes as they come from the channel; see `Channel.transmit`."""
        if not isinstance(z, Tensor) or as_tensor("z", z, self.encoder.n_dense).ndim != 2:
            raise ValueError(f"z is {checks.shown(z)}; allowed: a tensor (batch, {self.encoder.n_dense})")
        centre, _ = self.encoder.centre(self.mean * self.gains, z)
        return self.channel.transmit(z, 0.0 if centre is None else centre, seed)

    def __call__(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_sparse"]:
        """decode(encode(x)), whose codes come through as they are."""
        return self.decode(self.encode(x))

    def law(self, source: Source, importance: ArrayLike | None = None) -> float:
        """Predicted loss per feature on the source, at this n_sparse, with the decoder as it is.

        Where features differ all see the energy of all. So it is too high where a single one, of a large variance
        or gain, has most of that: a feature does not disturb itself. The limit holds there.

        Parameters
        ----------
        source : Source
        importance : array (n_sparse,), optional
            Weights of the features in the loss, up to a factor; by default all alike.

        Raises
        ------
        ValueError
            If weights are negative, not finite, all 0 or not n_sparse.
        """
        return self._average(self.decoder.law(self._scaled(source), self.encoder, self.channel), importance)

    def limit(self, source: Source, importance: ArrayLike | None = None) -> float:
        """Predicted loss per feature on the source for n_sparse -> infinity, as `law`."""
        return self._average(self.decoder.limit(self._scaled(source), self.encoder, self.channel), importance)

    def laws(self, source: Source) -> NDArray[np.float64]:
        """Predicted loss of every feature, (n_sparse,), whose mean is `law`."""
        law = self.decoder.law(self._scaled(source), self.encoder, self.channel) / self.gains**2
        return np.array(np.broadcast_to(law, self.encoder.n_sparse))

    def _average(self, losses: NDArray[np.float64], importance: ArrayLike | None) -> float:
        """Average of losses of gains x."""
        losses = losses / self.gains**2
        if importance is None:
            return float(losses.mean())
        weights = checks.importance(importance, self.encoder.n_sparse)
        return float(np.broadcast_to(losses, weights.shape) @ weights / len(weights))

    def measure(
        self,
        data: Source | Rows,
        *,
        samples: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        importance: ArrayLike | None = None,
        progress: Callable[[int, int], object] = lambda _done, _all: None,
    ) -> Measurement:
        """Measure the loss on fresh samples of a source, or on given rows, in batches of bounded memory.

        Parameters
        ----------
        data : Source, tensor, array or csr_array (rows, n_sparse)
        samples : int >= 2
            Number of vectors drawn from a source, by default 4096 at n_sparse = 8192, and elsewhere as many as
            make the same number of entries, from 64 to 65536; of given rows all are used, or the first ones.
        seed : int >= 0
            Of the samples.
        dtype, device
            Where and how precisely to compute.
        importance : array (n_sparse,), optional
            Weights of the features in the loss, as in `law`.
        progress : function
            Called after every batch with its number of vectors, and that of all batches.

        Raises
        ------
        ValueError
            If an argument is out of its range, or the rows are fewer than 2, of another length or not finite.
        """
        samples = self._check_data(data, samples)
        where, dtype = known_device(device), known_dtype(dtype)
        batch = max(1, min(samples, _MOST_ENTRIES // self.encoder.n_sparse))
        weights = (
            None if importance is None else torch.from_numpy(checks.importance(importance, self.encoder.n_sparse))
        )
        losses = torch.empty(samples, dtype=torch.float64)
        squares = torch.zeros(self.encoder.n_sparse, dtype=torch.float64)
        noise = torch.Generator(where).manual_seed(checks.seed(seed) + 1)
        times: list[float] = []
        power = 0.0
        start = 0
        for x in _batches(data, self.encoder.n_sparse, samples, batch, seed, dtype, where):
            if start == 0:
                # Not counted: rows and signs are made, and threads and devices wake.
                self(x[:1])
            began = _clock(x.device)
            z = self.encode(x)
            spent = _clock(x.device) - began
            if not self.channel.clear:
                z = self.transmit(z, noise)
            began = _clock(x.device)
            x_hat = self.decode(z)
            times.append((spent + _clock(x.device) - began) / len(x))
            errors = x_hat.sub_(x).square_()
            squares += errors.sum(dim=0, dtype=torch.float64).cpu()
            if weights is None:
                losses[start : start + len(x)] = errors.mean(dim=1, dtype=torch.float64).cpu()
            else:
                losses[start : start + len(x)] = errors.double().cpu() @ weights / len(weights)
            power += float(x.square().mean(dtype=torch.float64)) * len(x)
            start += len(x)
            progress(len(x), samples)
        return Measurement(
            loss=float(losses.mean()),
            stderr=float(losses.std() / samples**0.5),
            samples=samples,
            microseconds_per_vector=1e6 * statistics.median(times),
            recovered=float((losses < _RECOVERED * power / samples).double().mean()),
            losses=(squares / samples).numpy(),
        )

    def trace(
        self,
        data: Source | Rows,
        *,
        samples: int = 64,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> NDArray[np.float64]:
        """Measured losses (iterations, vectors) after every iteration of an `OAMP`; arguments as in `measure`.

        Raises
        ------
        ValueError
            If the decoder is another, or as in `measure`.
        """
        if not isinstance(self.decoder, OAMP):
            raise ValueError(f"decoder is {self.decoder.name}; allowed: oamp, others have no iterations")
        samples = self._check_data(data, samples)
        where, dtype = known_device(device), known_dtype(dtype)
        x = next(_batches(data, self.encoder.n_sparse, samples, samples, seed, dtype, where))
        z = self.transmit(self.encode(x), torch.Generator(where).manual_seed(seed + 1))
        units = place(self.gains, x)
        return self.decoder.trace(x * units, z, self.encoder, self.mean * self.gains, self.channel, units)

    def _check_data(self, data: Source | Rows, samples: int | None) -> int:
        """The number of vectors to measure on."""
        if not isinstance(data, Source):
            if not (isinstance(data, Tensor | np.ndarray) or scipy.sparse.issparse(data)):
                kind = type(data).__name__
                raise ValueError(f"data is a {kind}; allowed: a source, a tensor, an array or a sparse matrix")
            checks.real("data", data)
            if data.ndim != 2 or data.shape[0] < 2 or data.shape[1] != self.encoder.n_sparse:
                raise ValueError(
                    f"data has shape {tuple(data.shape)}; "
                    f"allowed: at least 2 rows of {self.encoder.n_sparse} features"
                )
            samples = (
                data.shape[0] if samples is None else min(checks.integer("samples", samples, 2), data.shape[0])
            )
        if samples is None:
            samples = min(max(_ENTRIES // self.encoder.n_sparse, 64), 65536)
        return checks.integer("samples", samples, 2, checks.MOST_SAMPLES)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a safetensors file: matrices as tensors, everything else as a recipe in its metadata.

        Raises
        ------
        ValueError
            If the path's folder is missing or not writable.
        """
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.tensors().items()}
        parts = {
            "encoder": self.encoder.recipe(),
            "decoder": self.decoder.recipe(),
            "mean": self.mean,
            "channel": self.channel.recipe(),
            "gains": self.gains,
        }
        recipe = _pack(parts, "", tensors)
        write_tensors(path, FORMAT, _VERSION, recipe, tensors, key="recipe")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Autoencoder:
        """Load what `save` wrote.

        Raises
        ------
        ValueError
            If the file cannot be read, is damaged, or is of another format or version.
        """
        allowed = "a file written by save"
        recipe, tensors = read_tensors(path, "model", FORMAT, _VERSION, key="recipe", allowed=allowed)
        try:
            parts = _unpack(recipe, tensors)
            weights = {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
            encoder = encoders.from_recipe(parts["encoder"], weights)
            channel = Channel(**parts["channel"])
            decoder = decoders.from_recipe(parts["decoder"])
            return cls(encoder, decoder, parts["mean"], channel, parts["gains"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"model file {path} holds no recipe of this version: {error}; allowed: {allowed}"
            ) from None


def _pack(part: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """A recipe as a JSON object, whose arrays become tensors named by their place in it."""
    if isinstance(part, np.ndarray):
        tensors[place] = torch.from_numpy(part.copy())
        return {"tensor": place}
    if isinstance(part, Source):
        part = part.recipe()
    if isinstance(part, dict):
        return {name: _pack(value, f"{place}.{name}".lstrip("."), tensors) for name, value in part.items()}
    return part


def _unpack(part: Any, tensors: dict[str, Tensor]) -> Any:
    """The recipe of what `_pack` returned."""
    if isinstance(part, dict) and part.keys() == {"tensor"}:
        return tensors[part["tensor"]].numpy()
    if isinstance(part, dict):
        return {name: _unpack(value, tensors) for name, value in part.items()}
    return part


def _batches(
    data: Source | Rows,
    n_sparse: int,
    samples: int,
    batch: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Tensor]:
    generator = torch.Generator(device).manual_seed(checks.seed(seed))
    if scipy.sparse.issparse(data):
        data = by_rows(data)
    for start in range(0, samples, batch):
        count = min(batch, samples - start)
        if isinstance(data, Source):
            yield data.sample(count, n_sparse, seed=generator, dtype=dtype)
        else:
            part = data[start : start + count]
            dense = part.toarray() if scipy.sparse.issparse(part) else part
            if isinstance(dense, np.ndarray):
                dense = torch.from_numpy(np.array(dense, dtype=np.float64))
            x = dense.detach().to(device=device, dtype=dtype)
            if not bool(x.isfinite().all()):
                raise ValueError(f"data holds numbers that are not finite as {dtype}; allowed: finite numbers")
            yield x


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
