"""An encoder and a decoder: encode, decode, predict the loss, measure it, save and load."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug import _checks, decoders, encoders
from persianrug._arrays import Array, as_tensor, like, map_rows
from persianrug.decoders import Decoder
from persianrug.decoders._base import noise_levels
from persianrug.encoders import Encoder
from persianrug.files import write_whole
from persianrug.sources import Source

# A measurement holds about this many features at a time: 64 MiB in float64.
_MOST_ENTRIES = 1 << 23

# Entries that a measurement draws by default. The standard error of a loss is much the same for as many entries.
_ENTRIES = 1 << 25

_FORMAT = "persianrug.autoencoder"
_VERSION = 1

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
    """

    loss: float
    stderr: float
    samples: int
    microseconds_per_vector: float


@dataclass(frozen=True)
class Autoencoder:
    """A linear encoder read by a decoder.

    Parameters
    ----------
    encoder : Encoder
    decoder : Decoder
    mean : float
        What a feature is on average; the estimate that the decoder reads is centred on it.

    Raises
    ------
    ValueError
        If mean is not finite.
    """

    encoder: Encoder
    decoder: Decoder
    mean: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _checks.finite("mean", self.mean))

    def tune(self, source: Source) -> Autoencoder:
        """The same with its decoder tuned to the source, in closed form, for n_sparse -> infinity."""
        tuned = self.decoder.tune(source, noise_levels(source, self.encoder))
        return Autoencoder(self.encoder, tuned, source.mean)

    def encode(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_dense"]:
        """The code of x, a float32 or float64 tensor or array; ValueError for anything else."""
        return self.encoder.encode(x)

    def decode(self, z: Float[Array, "*batch n_dense"]) -> Float[Array, "*batch n_sparse"]:
        """The estimate of the features from their code; arguments and errors as in `encode`."""
        codes = as_tensor("z", z, self.encoder.n_dense)
        estimate = self.encoder.estimator(self.mean, codes)
        return like(z, map_rows(lambda rows: self.decoder.apply_(estimate(rows)), codes, self.encoder.n_sparse))

    def __call__(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_sparse"]:
        """decode(encode(x))."""
        return self.decode(self.encode(x))

    def law(self, source: Source) -> float:
        """Predicted loss per feature on the source, at this n_sparse, with the decoder as it is."""
        return self.decoder.law(source, self.encoder)

    def limit(self, source: Source) -> float:
        """Predicted loss per feature on the source for n_sparse -> infinity, with the decoder as it is."""
        return self.decoder.limit(source, self.encoder)

    def measure(
        self,
        data: Source | Rows,
        *,
        samples: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], object] = lambda _done, _all: None,
    ) -> Measurement:
        """Measure the loss on fresh samples of a source, or on given rows, in batches of bounded memory.

        Parameters
        ----------
        data : Source, tensor, array or csr_array (rows, n_sparse)
        samples : int >= 2
            Number of vectors drawn from a source, by default 4096 at n_sparse = 8192, and elsewhere as many as
            make the same number of entries, from 64 to 65536; of given rows all are used.
        seed : int >= 0
            Of the samples.
        dtype, device
            Where and how precisely to compute.
        progress : function
            Called after every batch with its number of vectors, and that of all batches.

        Raises
        ------
        ValueError
            If an argument is out of its range, or the rows are fewer than 2, of another length or not finite.
        """
        if not isinstance(data, Source):
            if not (isinstance(data, Tensor | np.ndarray) or scipy.sparse.issparse(data)):
                kind = type(data).__name__
                raise ValueError(f"data is a {kind}; allowed: a source, a tensor, an array or a sparse matrix")
            if data.ndim != 2 or data.shape[0] < 2 or data.shape[1] != self.encoder.n_sparse:
                raise ValueError(
                    f"data has shape {tuple(data.shape)}; "
                    f"allowed: at least 2 rows of {self.encoder.n_sparse} features"
                )
            samples = data.shape[0]
        if samples is None:
            samples = min(max(_ENTRIES // self.encoder.n_sparse, 64), 65536)
        samples = _checks.integer("samples", samples, 2, _checks.MOST_SAMPLES)
        batch = max(1, min(samples, _MOST_ENTRIES // self.encoder.n_sparse))
        losses = torch.empty(samples, dtype=torch.float64)
        times: list[float] = []
        start = 0
        for x in _batches(data, self.encoder.n_sparse, samples, batch, seed, dtype, torch.device(device)):
            if start == 0:
                # Not counted: rows and signs are made, and threads and devices wake.
                self(x)
            began = _clock(x.device)
            x_hat = self(x)
            times.append((_clock(x.device) - began) / len(x))
            errors = x_hat.sub_(x).square_().mean(dim=1, dtype=torch.float64)
            losses[start : start + len(x)] = errors.cpu()
            start += len(x)
            progress(len(x), samples)
        return Measurement(
            loss=float(losses.mean()),
            stderr=float(losses.std() / samples**0.5),
            samples=samples,
            microseconds_per_vector=1e6 * statistics.median(times),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a safetensors file: matrices as tensors, everything else as a recipe in its metadata.

        Raises
        ------
        ValueError
            If the path's folder is missing or not writable.
        """
        tensors = {name: tensor.cpu() for name, tensor in self.encoder.tensors().items()}
        recipe = json.dumps(
            {"encoder": self.encoder.recipe(), "decoder": self.decoder.recipe(), "mean": self.mean},
            sort_keys=True,
        )
        metadata = {
            "format": _FORMAT,
            "version": str(_VERSION),
            "recipe": recipe,
            "sha256": _digest(recipe, tensors),
        }
        write_whole(path, safetensors.torch.save(tensors, metadata))


def load(path: str | os.PathLike[str]) -> Autoencoder:
    """Load what `Autoencoder.save` wrote.

    Raises
    ------
    ValueError
        If the file cannot be read, is damaged, or is of another format or version.
    """
    if not Path(path).is_file():
        raise ValueError(f"model file {path} is missing; allowed: a file written by save")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"model file {path} cannot be read: {reason}; allowed: a file written by save") from None
    if metadata.get("format") != _FORMAT or metadata.get("version") != str(_VERSION):
        found = f"format {metadata.get('format')}, version {metadata.get('version')}"
        raise ValueError(f"model file {path} has {found}; allowed: format {_FORMAT}, version {_VERSION}")
    recipe = metadata.get("recipe", "")
    if metadata.get("sha256") != _digest(recipe, tensors):
        raise ValueError(
            f"model file {path} is damaged: its digest does not fit; allowed: a file as written by save"
        )
    try:
        parts = json.loads(recipe)
        encoder = encoders.from_recipe(parts["encoder"], tensors)
        return Autoencoder(encoder, decoders.from_recipe(parts["decoder"]), parts["mean"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"model file {path} holds no recipe of this version: {error}; allowed: a file written by save"
        ) from None


def _digest(recipe: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(recipe.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _batches(
    data: Source | Rows,
    n_sparse: int,
    samples: int,
    batch: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Tensor]:
    generator = torch.Generator(device).manual_seed(_checks.integer("seed", seed, 0, 2**63 - 1))
    for start in range(0, samples, batch):
        count = min(batch, samples - start)
        if isinstance(data, Source):
            yield data.sample(count, n_sparse, seed=generator, dtype=dtype)
        else:
            part = data[start : start + count]
            dense = part.toarray() if scipy.sparse.issparse(part) else part
            if isinstance(dense, np.ndarray):
                dense = torch.from_numpy(np.array(dense, dtype=np.float64))
            x = dense.to(device=device, dtype=dtype)
            if not bool(x.isfinite().all()):
                raise ValueError(f"data holds numbers that are not finite as {dtype}; allowed: finite numbers")
            yield x


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
