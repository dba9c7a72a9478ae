"""Weights of a network, from files of other programs and of ours."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import as_tensor, bounded
from persianrug._support.files import untrusted
from persianrug._support.npy import check_numeric, check_unpacked, header
from persianrug.autoencoder import FORMAT, Autoencoder
from persianrug.decoders import Linear, ReLU

# Of a matrix in a file: 1 GiB in float64.
_MOST_ENTRIES = 1 << 27

Matrix = Tensor | NDArray[Any]


def read_weights(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Read the weights of a network x_hat = act(W_out W_in x + bias) from a file.

    The file is a `.npz` or `.safetensors` file with matrices named W_in and W_out and, optionally, a vector named
    bias or b, or it is what `Autoencoder.save` wrote. Of such a model, whose decoder is ReLU or Linear,

        x_hat = act(gain (m + W (c x - m)) + b) / c,      with the encoder's W, the gains c and m = c mean,

    the factors are folded into W_out and W_in, and the centre into the bias. Pickles are not read, and sizes are
    checked before memory is allocated.

    Returns
    -------
    W_out : float64 tensor (n_sparse, n_dense)
    W_in : float64 tensor (n_dense, n_sparse)
    bias : float64 tensor (n_sparse,)
        Zeros where the file has none.

    Raises
    ------
    ValueError
        If the file cannot be read, is of another kind, truncated or damaged, has names missing, a matrix of more
        than 2^27 entries, or one that `measure_symmetry` would not take, or is a model with another decoder.
    """
    holds = "arrays W_in, W_out and bias"
    with untrusted("weights", path, {".npz": holds, ".safetensors": holds}) as target:
        parts = _read_npz(target) if target.suffix.lower() == ".npz" else _read_safetensors(target)
        weights_out, weights_in, offsets = checked_weights(parts["W_out"], parts["W_in"], parts.get("bias"))
    return weights_out, weights_in, torch.from_numpy(offsets)


def checked_weights(
    W_out: Matrix, W_in: Matrix, bias: Matrix | None
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """The weights in float64, or ValueError."""
    weights_in = as_tensor("W_in", W_in)
    if weights_in.ndim != 2 or weights_in.shape[0] < 1 or weights_in.shape[1] < 2:
        raise ValueError(
            f"W_in has shape {tuple(weights_in.shape)}; allowed: (n_dense, n_sparse) with n_sparse >= 2"
        )
    checks.bottleneck(weights_in.shape)
    n_dense, n_sparse = weights_in.shape
    parts: list[tuple[str, Tensor, tuple[int, ...]]]
    parts = [("W_in", weights_in, (n_dense, n_sparse)), ("W_out", as_tensor("W_out", W_out), (n_sparse, n_dense))]
    if bias is not None:
        parts.append(("bias", as_tensor("bias", bias), (n_sparse,)))
    wide = {}
    for name, tensor, shape in parts:
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; allowed: {shape}, as W_in")
        bounded(name, tensor, checks.LARGEST)
        wide[name] = tensor.detach().to(device="cpu", dtype=torch.float64)
    offsets = wide["bias"].numpy() if bias is not None else np.zeros(n_sparse)
    return wide["W_out"], wide["W_in"], offsets


def _read_npz(path: Path) -> dict[str, Tensor]:
    parts = {}
    with zipfile.ZipFile(path) as archive:
        for name, key in _names(part.removesuffix(".npy") for part in archive.namelist()).items():
            entry = archive.getinfo(f"{key}.npy")
            # An archive may claim any size; at 8 bytes an entry, and with a header.
            if entry.file_size > 8 * _MOST_ENTRIES + 65536:
                raise ValueError(f"its {key} has {entry.file_size} bytes; allowed: 2^27 entries")
            check_unpacked(entry.file_size, path.stat().st_size)
            check_numeric(header(archive, entry))
            with archive.open(entry) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            _check_size(key, array.shape)
            parts[name] = torch.from_numpy(np.asarray(array, dtype=np.float64, order="C"))
    return parts


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safetensors.safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("format") == FORMAT:
            return _of_model(Autoencoder.load(path))
        parts = {}
        for name, key in _names(file.keys()).items():
            _check_size(key, tuple(file.get_slice(key).get_shape()))
            tensor = file.get_tensor(key)
            if tensor.is_complex():
                raise ValueError(f"its {key} is of type {tensor.dtype}")
            parts[name] = tensor.double()
    return parts


def _names(found: Iterable[str]) -> dict[str, str]:
    """Names of the weights, and how the file calls them."""
    keys = [key for key in found if key in ("W_in", "W_out", "bias", "b")]
    if missing := sorted({"W_in", "W_out"} - set(keys)):
        raise ValueError(f"it has no {' and no '.join(missing)}; allowed: W_in, W_out and bias or b")
    if {"bias", "b"} <= set(keys):
        raise ValueError("it has both bias and b; allowed: one of them")
    return {"bias" if key == "b" else key: key for key in keys}


def _check_size(name: str, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > _MOST_ENTRIES:
        raise ValueError(f"{name} has shape {shape}; allowed: at most 2^27 entries")


def _of_model(model: Autoencoder) -> dict[str, Tensor]:
    """The weights of a model."""
    decoder, encoder = model.decoder, model.encoder
    if not isinstance(decoder, Linear | ReLU):
        raise ValueError(f"its decoder is {decoder.name}; allowed: linear, relu")
    _check_size("its W_in", (encoder.n_dense, encoder.n_sparse))
    n = encoder.n_sparse
    gain, bias, gains, mean = (
        torch.tensor(np.broadcast_to(part, n), dtype=torch.float64)
        for part in (decoder.gain, decoder.bias, model.gains, model.mean)
    )
    # Rows of W_in are columns of its transpose; the identity takes n_dense^2 numbers, not n_sparse^2.
    weights_in = encoder.adjoint(torch.eye(encoder.n_dense, dtype=torch.float64))
    weights_out = encoder.W_out()
    centre = mean * gains
    estimate = centre - weights_out @ (weights_in @ centre)
    return {
        "W_in": weights_in * gains,
        "W_out": weights_out * (gain / gains)[:, None],
        "bias": (gain * estimate + bias) / gains,
    }
