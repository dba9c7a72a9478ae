"""Networks with one linear bottleneck: what they compute, and how they are stored.

x_hat = act(h + bias),   h = W_out W_in x, which each hidden layer turns into [h +] act(L h + c).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import Array, Parts, as_tensor, bounded, like, map_rows
from persianrug._support.tensors import read_tensors, write_tensors
from persianrug.autoencoder import Autoencoder
from persianrug.decoders import Linear, ReLU
from persianrug.encoders import Dense
from persianrug.sources import Source

FORMAT = "persianrug.network"
_VERSION = 1

# Vectors that a measurement draws by default, and the entries that they have at most.
_SAMPLES, _ENTRIES = 1 << 14, 1 << 23
# Of these at a time.
_BATCH_ENTRIES = 1 << 20


class Activation(NamedTuple):
    """An elementwise function and its derivative.

    Attributes
    ----------
    apply : function
        May overwrite its argument.
    back : function of gradient, argument and result
        The gradient with respect to the argument, which may overwrite the one given: fresh memory takes longer
        than the arithmetic. Where `apply` overwrites its argument, the result alone is needed.
    """

    apply: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor, Tensor], Tensor]


_aten = torch.ops.aten

ACTIVATIONS = {
    "identity": Activation(lambda pre: pre, lambda grad, _pre, _out: grad),
    "relu": Activation(
        torch.relu_, lambda grad, _pre, out: _aten.threshold_backward(grad, out, 0, grad_input=grad)
    ),
    "leaky_relu": Activation(
        torch.nn.functional.leaky_relu_,
        # The result has the sign of the argument.
        lambda grad, _pre, out: _aten.leaky_relu_backward(grad, out, 0.01, False, grad_input=grad),
    ),
    "gelu": Activation(
        torch.nn.functional.gelu, lambda grad, pre, _out: _aten.gelu_backward(grad, pre, grad_input=grad)
    ),
    "tanh": Activation(torch.tanh_, lambda grad, _pre, out: _aten.tanh_backward(grad, out, grad_input=grad)),
}
"""Activations by name; leaky_relu has the slope 0.01 below 0."""


class Layer(NamedTuple):
    """What one activation was given and gave: h before the layer, the activation's argument and result."""

    h: Tensor
    pre: Tensor
    out: Tensor


def propagate(
    weights: dict[str, Tensor], x: Float[Tensor, "models batch n_sparse"], activation: str, residual: bool
) -> tuple[Float[Tensor, "models batch n_dense"], list[Layer]]:
    """Codes and layers, the last of which gives the estimates, of networks side by side.

    Parameters
    ----------
    weights : dict
        W_in (models, n_dense, n_sparse), W_out (models, n_sparse, n_dense), bias (models, n_sparse), and for
        each k hidden.k.weight (models, n_sparse, n_sparse) and hidden.k.bias (models, n_sparse).
    x : tensor (models, batch, n_sparse)
    activation : str
    residual : bool
    """
    act = ACTIVATIONS[activation].apply
    z = torch.bmm(x, weights["W_in"].mT)
    bias = weights["bias"][:, None]
    hidden = sum(name.endswith("weight") for name in weights)
    if not hidden:
        # The sum with the bias is part of the product, and h is nowhere needed.
        pre = torch.baddbmm(bias, z, weights["W_out"].mT)
        return z, [Layer(pre, pre, act(pre))]
    h = torch.bmm(z, weights["W_out"].mT)
    layers = []
    for k in range(hidden):
        pre = torch.baddbmm(weights[f"hidden.{k}.bias"][:, None], h, weights[f"hidden.{k}.weight"].mT)
        layers.append(Layer(h, pre, act(pre)))
        h = h + layers[-1].out if residual else layers[-1].out
    pre = h + bias
    return z, [*layers, Layer(h, pre, act(pre))]


def _check(x: Tensor) -> None:
    bounded("x", x, checks.LARGEST)


@dataclass(frozen=True, eq=False)
class Network(Parts):
    """A network x_hat = act(W_out W_in x + bias), with hidden layers before the last activation or none.

    Parameters
    ----------
    W_in : float tensor (n_dense, n_sparse), n_dense <= n_sparse
    W_out : float tensor (n_sparse, n_dense)
    bias : float tensor (n_sparse,)
    hidden : tuple of pairs of float tensors (n_sparse, n_sparse) and (n_sparse,)
        Weight L and bias c of each hidden layer, h = [h +] act(L h + c).
    activation : str
        identity, relu, leaky_relu (slope 0.01 below 0), gelu or tanh.
    residual : bool
        Whether h is added in hidden layers.
    recipe : dict
        How it was trained, as a JSON object; it is stored with the weights.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, an entry is not finite, or the activation is none of these.
    """

    W_in: Tensor = field(repr=False)
    W_out: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    hidden: tuple[tuple[Tensor, Tensor], ...] = field(default=(), repr=False)
    activation: str = "relu"
    residual: bool = False
    recipe: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._check(narrow=True)

    def _check(self, *, narrow: bool) -> None:
        """ValueError as in the class; n_dense is at most n_sparse where it has to be `narrow`."""
        checks.one_of("activation", self.activation, ACTIVATIONS)
        for name, tensor in self.tensors().items():
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{name} is a {type(tensor).__name__}; allowed: a torch.Tensor")
        if as_tensor("W_in", self.W_in).ndim != 2 or not self.W_in.numel():
            raise ValueError(f"W_in has shape {tuple(self.W_in.shape)}; allowed: (n_dense, n_sparse)")
        if narrow:
            checks.bottleneck(self.W_in.shape)
        n_dense, n = self.W_in.shape
        shapes = {"W_in": (n_dense, n), "W_out": (n, n_dense)}
        for name, tensor in self.tensors().items():
            shape = shapes.get(name, (n, n) if name.endswith("weight") else (n,))
            if as_tensor(name, tensor).shape != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; allowed: {shape}, as W_in")
            if tensor.dtype != self.W_in.dtype:
                raise ValueError(f"{name} has dtype {tensor.dtype}; allowed: {self.W_in.dtype}, as W_in")
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")

    @property
    def n_sparse(self) -> int:
        """Number of features."""
        return self.W_in.shape[1]

    @property
    def n_dense(self) -> int:
        """Length of the code."""
        return self.W_in.shape[0]

    def __repr__(self) -> str:
        hidden = f", hidden={len(self.hidden)}, residual={self.residual}" if self.hidden else ""
        return f"Network(n_sparse={self.n_sparse}, n_dense={self.n_dense}, activation={self.activation!r}{hidden})"

    def tensors(self) -> dict[str, Tensor]:
        """The weights by the names that they have in a file."""
        weights = {"W_in": self.W_in, "W_out": self.W_out, "bias": self.bias}
        for k, (weight, bias) in enumerate(self.hidden):
            weights |= {f"hidden.{k}.weight": weight, f"hidden.{k}.bias": bias}
        return weights

    def encode(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_dense"]:
        """The code W_in x of a float32 or float64 tensor or array; ValueError for anything else.

        So it is for NaN, infinity and sizes beyond 1e30 on the CPU; other devices would have to be waited for.
        """
        rows = as_tensor("x", x, self.n_sparse)
        return like(x, map_rows(lambda part: part @ self.W_in.to(part).T, rows, self.n_dense, _check))

    def __call__(self, x: Float[Array, "*batch n_sparse"]) -> Float[Array, "*batch n_sparse"]:
        """The estimate of x; arguments and errors as in `encode`."""
        rows = as_tensor("x", x, self.n_sparse)
        weights = {name: tensor.to(rows)[None] for name, tensor in self.tensors().items()}

        def estimate(part: Tensor) -> Tensor:
            return propagate(weights, part[None], self.activation, self.residual)[1][-1].out[0]

        return like(x, map_rows(estimate, rows, self.n_sparse, _check))

    @torch.no_grad()
    def measure(
        self, source: Source, *, samples: int | None = None, seed: int = 0, importance: ArrayLike = 1.0
    ) -> tuple[float, float]:
        """Measure the loss on fresh samples.

        Parameters
        ----------
        source : Source
        samples : int >= 2
            Number of vectors, by default 16384, or 2^23 / n_sparse where that is less.
        seed : int >= 0
        importance : float or array (n_sparse,), >= 0
            What the squared error of every feature is multiplied by.

        Returns
        -------
        loss, stderr : float
            Mean over vectors and features of the weighted squared error, and its standard error.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        checks.instance("source", source, Source)
        if samples is None:
            samples = max(min(_SAMPLES, _ENTRIES // self.n_sparse), 2)
        samples = checks.integer("samples", samples, 2, checks.MOST_SAMPLES)
        generator = torch.Generator(self.W_in.device).manual_seed(checks.seed(seed))
        factors = checks.levels("importance", importance)
        if factors.shape not in ((), (self.n_sparse,)):
            raise ValueError(f"importance has shape {factors.shape}; allowed: a number, or ({self.n_sparse},)")
        weights = torch.from_numpy(factors).to(dtype=self.W_in.dtype, device=self.W_in.device)
        losses = []
        step = max(1, _BATCH_ENTRIES // self.n_sparse)
        for start in range(0, samples, step):
            count = min(step, samples - start)
            x = source.sample(count, self.n_sparse, seed=generator, dtype=self.W_in.dtype)
            losses.append((self(x).sub_(x).square_() * weights).mean(dim=1, dtype=torch.float64))
        every = torch.cat(losses)
        return float(every.mean()), float(every.std() / samples**0.5)

    def autoencoder(self, source: Source) -> Autoencoder:
        """The same function as an `Autoencoder`, which has laws.

        W_out is scaled to a diagonal of W = W_out W_in of ones, its scale becomes the gain, and the bias takes
        up that an autoencoder's estimate is centred on the source's mean m:

            bias'_i = bias_i + sum_{j != i} W_ij m_j.

        Parameters
        ----------
        source : Source
            The one that the network is for; its mean is the autoencoder's.

        Raises
        ------
        ValueError
            If the network has hidden layers, an activation other than relu and identity, or a number on the
            diagonal of W that is not positive.
        """
        checks.instance("source", source, Source)
        if self.hidden:
            raise ValueError(f"network has {len(self.hidden)} hidden layers; allowed in an autoencoder: none")
        decoders: dict[str, type[ReLU] | type[Linear]] = {"relu": ReLU, "identity": Linear}
        decoder = decoders[checks.one_of("activation", self.activation, decoders)]
        W_in, W_out = self.W_in.double().cpu(), self.W_out.double().cpu()
        gain = (W_out * W_in.T).sum(dim=1)
        if not bool((gain > 0).all()):
            feature = int(gain.argmin())
            raise ValueError(
                f"W_out W_in has {float(gain[feature]):g} on its diagonal at feature {feature}; "
                "allowed in an autoencoder: numbers > 0"
            )
        mean = torch.from_numpy(np.array(np.broadcast_to(source.mean, self.n_sparse)))
        bias = self.bias.double().cpu() + W_out @ (W_in @ mean) - gain * mean
        # What was loaded may have n_dense above n_sparse.
        encoder = Dense.stored(self.W_in.cpu(), (W_out / gain[:, None]).to(self.W_in.dtype))
        return Autoencoder(encoder, decoder(gain.numpy(), bias.numpy()), source.mean)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a safetensors file, whose metadata holds activation, residual and recipe.

        Raises
        ------
        ValueError
            If the path's folder is missing or not writable.
        """
        config = {"activation": self.activation, "residual": self.residual, "recipe": self.recipe}
        write_tensors(path, FORMAT, _VERSION, config, self.tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Load what `save` wrote.

        Raises
        ------
        ValueError
            If the file cannot be read, is damaged, or is of another format or version.
        """
        config, tensors = read_tensors(path, "network", FORMAT, _VERSION)
        try:
            layers = range(sum(name.endswith("weight") for name in tensors))
            hidden = tuple((tensors[f"hidden.{k}.weight"], tensors[f"hidden.{k}.bias"]) for k in layers)
            parts = {name: tensors[name] for name in ("W_in", "W_out", "bias")}
            parts |= {name: config[name] for name in ("activation", "residual", "recipe")}
            if unknown := sorted(config.keys() - parts.keys()):
                raise ValueError(f"its config has {', '.join(unknown)}")
            network = object.__new__(cls)
            for name, part in {**parts, "hidden": hidden}.items():
                object.__setattr__(network, name, part)
            # Earlier versions took n_dense above n_sparse too.
            network._check(narrow=False)
            return network
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"network file {path} holds no network of this version: {error}; allowed: a file written by save"
            ) from None
