"""What networks side by side minimise: the squared error on samples, or the law of the Gaussian closure."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianrug.decoders import ReLU
from persianrug.encoders import noise_level
from persianrug.networks.closure import LAWS
from persianrug.networks.network import ACTIVATIONS, propagate
from persianrug.networks.training import Training, stream
from persianrug.sources import Source

# Features of networks side by side that are worked on at once: 1 MiB in float32 stays in cache.
_MOST_ENTRIES = 1 << 18


class Objective(ABC):
    """A loss that networks side by side are to minimise."""

    @abstractmethod
    def __init__(self, trainings: Sequence[Training], like: Tensor) -> None:
        """Prepare for weights of the dtype and on the device of `like`."""

    @abstractmethod
    def gradient(self, weights: dict[str, Tensor], out: dict[str, Tensor]) -> Tensor:
        """Write the gradients of the losses to `out`, and return the losses (models,)."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of it."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:  # noqa: B027
        """Take up what `state` said."""


class Sampled(Objective):
    """The squared error on a fresh batch in every step.

    The gradient is written out rather than left to autograd, which takes a fifth longer at n_sparse 512 and more
    where networks are small.
    """

    def __init__(self, trainings: Sequence[Training], like: Tensor) -> None:
        self.common = trainings[0]
        self.generator = torch.Generator(like.device).manual_seed(
            stream([*(training.seed for training in trainings), 0])
        )
        # Neighbours with one source go together, on the CPU as many as stay in cache.
        entries = self.common.batch * self.common.n_sparse
        most = max(1, _MOST_ENTRIES // entries) if like.device.type == "cpu" else len(trainings)
        self.groups: list[tuple[Source, slice]] = []
        start = 0
        for source, members in itertools.groupby(training.source for training in trainings):
            stop = start + len(list(members))
            self.groups += [(source, slice(k, min(k + most, stop))) for k in range(start, stop, most)]
            start = stop
        self.root = _weights(trainings, like, power=0.5)
        self.like = like

    def gradient(self, weights: dict[str, Tensor], out: dict[str, Tensor]) -> Tensor:
        losses = []
        for source, models in self.groups:
            count = models.stop - models.start
            x = source.sample(
                count * self.common.batch, self.common.n_sparse, seed=self.generator, dtype=self.like.dtype
            ).view(count, self.common.batch, self.common.n_sparse)
            part, gradients = ({name: tensor[models] for name, tensor in all_.items()} for all_ in (weights, out))
            losses.append(self._gradient(x, part, gradients, None if self.root is None else self.root[models]))
        return torch.cat(losses)

    def _gradient(
        self, x: Tensor, weights: dict[str, Tensor], out: dict[str, Tensor], root: Tensor | None
    ) -> Tensor:
        """As `gradient`, on a batch (models, batch, n_sparse); root is that of the weights of features."""
        common = self.common
        z, layers = propagate(weights, x, common.activation, common.residual)
        error = layers[-1].out - x
        if root is not None:
            error *= root
        entries = common.batch * common.n_sparse
        losses = torch.linalg.vector_norm(error, dim=(1, 2)).square() / entries
        if root is not None:
            error *= root
        back = ACTIVATIONS[common.activation].back
        gradient = back(error.mul_(2 / entries), *layers[-1][1:])
        if common.bias:
            torch.sum(gradient, 1, out=out["bias"])
        for k, layer in reversed(list(enumerate(layers[:-1]))):
            inner = back(gradient.clone() if common.residual else gradient, *layer[1:])
            torch.sum(inner, 1, out=out[f"hidden.{k}.bias"])
            torch.bmm(inner.mT, layer.h, out=out[f"hidden.{k}.weight"])
            inner = torch.bmm(inner, weights[f"hidden.{k}.weight"])
            gradient = gradient + inner if common.residual else inner
        inner = torch.bmm(gradient, weights["W_out"])
        torch.bmm(inner.mT, x, out=out["W_in"])
        if common.tied:
            out["W_in"] += torch.bmm(z.mT, gradient)
        else:
            torch.bmm(gradient.mT, z, out=out["W_out"])
        return losses

    def state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["generator"])


class Closure(Objective):
    """The loss of networks if the interference on every feature is Gaussian, without data.

    The argument of the last activation is then a_i x_i + c_i + s_i z with standard normal z, and

        a_i = W_ii,   c_i = bias_i + mean sum_{j != i} W_ij,   s_i^2 = v sum_{j != i} W_ij^2

    follow from W_in and W_out without the n_sparse x n_sparse matrix W. The loss of a feature is the law of
    arXiv 2410.12101, a sum over nodes of its amplitude.
    """

    def __init__(self, trainings: Sequence[Training], like: Tensor) -> None:
        self.common = trainings[0]
        nodes = [_nodes(training) for training in trainings]
        # As many nodes for all; those that are added have no weight.
        self.u, self.w = (
            torch.nn.utils.rnn.pad_sequence([torch.from_numpy(pair[k]) for pair in nodes], batch_first=True).to(
                like
            )[:, None]
            for k in (0, 1)
        )
        self.mean, self.variance = (
            like.new_tensor([getattr(training.source, name) for training in trainings])[:, None]
            for name in ("mean", "variance")
        )
        self.weights = _weights(trainings, like, power=1.0)

    def gradient(self, weights: dict[str, Tensor], out: dict[str, Tensor]) -> Tensor:
        W_in, W_out = weights["W_in"], weights["W_out"]
        gain = (W_out * W_in.mT).sum(dim=-1)
        columns = W_in.sum(dim=-1)
        rows = torch.bmm(W_out, columns[..., None])[..., 0]
        mixed = torch.bmm(W_out, torch.bmm(W_in, W_in.mT))
        # Sums of W_ij^2 over j != i; the root of none would have no derivative.
        power = ((mixed * W_out).sum(dim=-1) - gain.square()).clamp(min=1e-12)
        shift = weights["bias"] + self.mean * (rows - gain)
        s = (self.variance * power).sqrt()[..., None]
        m = gain[..., None] * self.u + shift[..., None]
        errors, by_m, by_s = LAWS[self.common.activation](self.u, m, s)

        share = self.w / self.common.n_sparse
        if self.weights is not None:
            share = share * self.weights.mT
        by_m = by_m * share
        by_shift = by_m.sum(dim=-1)
        by_power = (by_s * share).sum(dim=-1) * self.variance / (2 * s[..., 0])
        by_rows = (self.mean * by_shift)[..., None]
        by_gain = ((by_m * self.u).sum(dim=-1) - self.mean * by_shift - 2 * by_power * gain)[..., None]
        by_W_out = by_gain * W_in.mT + by_rows * columns[:, None] + 2 * by_power[..., None] * mixed
        gram = torch.bmm(W_out.mT, 2 * by_power[..., None] * W_out)
        torch.baddbmm((by_gain * W_out).mT + (by_rows * W_out).sum(dim=1)[..., None], gram, W_in, out=out["W_in"])
        out["bias"].copy_(by_shift)
        if self.common.tied:
            out["W_in"] += by_W_out.mT
        else:
            out["W_out"].copy_(by_W_out)
        return (errors * share).sum(dim=(1, 2))


def _weights(trainings: Sequence[Training], like: Tensor, power: float) -> Tensor | None:
    """Powers of the weights of the squared errors (models, 1, n_sparse), None where all are 1."""
    if not any(training.importance for training in trainings):
        return None
    return torch.from_numpy(np.stack([training.weights for training in trainings]) ** power).to(like)[:, None]


def _nodes(training: Training) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (k,) of a feature and their probabilities: the nodes of its amplitude, and 0 where it is off."""
    source, centre, width = training.source, 0.0, 0.0
    if training.activation == "relu":
        # Dense where the best rug's output sets in, which is where that of networks does that are nearly as good.
        width = noise_level(float(source.variance), training.n_dense / training.n_sparse)
        relu = ReLU().tune(source, width)
        centre = -relu.bias / relu.gain if relu.gain > 0 else 0.0
    u, w = source.amplitude_nodes(np.array([centre]), np.array(width))
    return np.append(u[w > 0], 0.0), np.append(source.p * w[w > 0], 1 - source.p)
