"""Networks trained by gradient descent, on samples or on the loss that the Gaussian closure predicts for them.

source = pr.SparseUniform(p=0.045)
result = train(Training.of_ratio(512, 0.25, source))
result.loss, result.stderr           # measured on fresh samples
result.network.autoencoder(source).law(source)  # what the closure predicts for these very weights

Networks of one shape can be trained side by side in one tensor program; a single one is a batch of one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persianrug._support import checks
from persianrug._support.devices import known_device
from persianrug._support.files import check_writable
from persianrug._support.tensors import read_tensors, write_tensors
from persianrug._support.threads import one_thread
from persianrug.networks.network import Network
from persianrug.networks.objectives import Closure, Objective, Sampled
from persianrug.networks.training import Trained, Training, stream

_FORMAT = "persianrug.checkpoint"
_VERSION = 1

# Length of the first columns of W_in.
_LENGTH = 0.3
# Adam's memory, in its usual form.
_BETA1, _BETA2 = 0.9, 0.999
# Points of a trace, and the most steps from one to the next: a loss that is not finite is noticed there.
_POINTS, _MOST_STEPS = 400, 50
# A plateau is where the loss falls by less than this part within `patience` steps.
_LEAST_GAIN = 1e-3
# A step on no more features than this, of all vectors of all networks, is faster on one thread.
_SMALL = 1 << 17
# Seconds between calls of `progress`.
_PAUSE = 0.1

# What the networks of a batch need not have in common.
_OWN = ("source", "seed", "importance", "learning_rate")

Progress = Callable[[int, int, float], object]


def _quiet(_step: int, _steps: int, _loss: float) -> None:
    """Progress that nobody watches."""


def train(
    training: Training,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    progress: Progress = _quiet,
) -> Trained:
    """Train a network, or go on with its training where a checkpoint was left.

    Parameters
    ----------
    training : Training
    device : torch.device or str
    dtype : torch.float32 or torch.float64
    checkpoint : path, optional
        A file that is written every `checkpoint_every` steps and at the end, whole or not at all. If it exists,
        training goes on from there to the same bits that it would have reached without the interruption, given
        the same device, number of threads and versions of libraries.
    checkpoint_every : int >= 1
    progress : function
        Called about every 0.1 s, and at the end, with the steps done, their planned number, and the loss.

    Raises
    ------
    ValueError
        If an argument is out of its range; if the checkpoint is damaged or of another training; or if the loss
        is not finite, which is noticed within 50 steps. The checkpoint then is the last one that was good.
    """
    return train_many(
        [training], device=device, dtype=dtype, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
        progress=progress,
    )[0]  # fmt: skip


def train_many(
    trainings: Sequence[Training],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    progress: Progress = _quiet,
) -> list[Trained]:
    """Train independent networks side by side, as `train` does one.

    Of small networks many take hardly more time than one. Every network has its own samples, though drawn from
    one stream of random numbers, so that a network alone becomes another one, as good on average.

    Parameters
    ----------
    trainings : sequence of Training
        They may differ in source, seed, importance and learning rate.
    device, dtype, checkpoint, checkpoint_every, progress
        As in `train`; one checkpoint holds all, and the loss of the progress is their mean. An early stop comes
        when all have reached their plateau.

    Raises
    ------
    ValueError
        As in `train`, or if trainings differ in anything else.
    """
    run = Descent(trainings, known_device(device), dtype)
    checks.integer("checkpoint_every", checkpoint_every, 1)
    steps = trainings[0].steps
    if checkpoint is not None and check_writable(checkpoint).exists():
        run.restore(checkpoint)
    shown = time.perf_counter()
    while run.step < steps and not run.settled():
        run.advance()
        if run.step % run.stride == 0 or run.step == steps:
            run.note()
        if checkpoint is not None and run.step % checkpoint_every == 0:
            run.save(checkpoint)
        if time.perf_counter() - shown >= _PAUSE:
            progress(run.step, steps, float(run.losses().mean()))
            shown = time.perf_counter()
    if checkpoint is not None and run.saved != run.step:
        run.save(checkpoint)
    progress(run.step, steps, float(run.losses().mean()))
    return run.results()


class Descent:
    """The state of a batch of trainings, from which everything that follows is determined."""

    def __init__(self, trainings: Sequence[Training], device: torch.device, dtype: torch.dtype) -> None:
        if not trainings:
            raise ValueError("trainings is empty; allowed: at least one")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype is {dtype}; allowed: torch.float32, torch.float64")
        common = trainings[0]
        for part in fields(common):
            values = {getattr(training, part.name) for training in trainings}
            if part.name not in _OWN and len(values) > 1:
                raise ValueError(
                    f"{part.name} is {' and '.join(map(str, sorted(values)))}; allowed: one for all of a batch"
                )
        self.trainings, self.common, self.device, self.dtype = trainings, common, device, dtype
        self.step = 0
        self.saved: int | None = None
        self.stride = max(1, min(_MOST_STEPS, common.steps // _POINTS))
        models = len(trainings)
        # One buffer for all weights, so that a step of Adam is a few operations whatever there is to train.
        self.shapes = _shapes(common, models)
        size = sum(math.prod(shape) for shape in self.shapes.values())
        self.parameters, self.gradient, self.first, self.second, self.scratch = torch.zeros(
            (5, size), dtype=dtype, device=device
        ).unbind()
        self.weights, self.gradients = (self._views(flat) for flat in (self.parameters, self.gradient))
        for index, training in enumerate(trainings):
            _initialise({name: tensor[index] for name, tensor in self.weights.items()}, training)
        # Learning rates relative to the first, for every weight, where they differ.
        rates = torch.tensor([training.learning_rate / common.learning_rate for training in trainings])
        self.rates: Tensor | None = None
        if bool((rates != 1).any()):
            self.rates = torch.cat(
                [rates.repeat_interleave(math.prod(shape[1:])) for shape in self.shapes.values()]
            ).to(self.parameters)
        self.window = torch.zeros(models, dtype=torch.float64, device=device)
        self.points: list[Tensor] = []
        self.objective: Objective = {"sampled": Sampled, "closure": Closure}[common.method](
            trainings, self.parameters
        )
        entries = models * common.batch * common.n_sparse
        self.small = device.type == "cpu" and entries <= _SMALL
        self.began = time.perf_counter()

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors that are parts of a buffer, those that are not trained included."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), flat.split(sizes), strict=True)
        views = {name: part.view(shape) for (name, shape), part in parts}
        if self.common.tied:
            views["W_out"] = views["W_in"].mT
        if not self.common.bias:
            views["bias"] = flat.new_zeros(len(self.trainings), self.common.n_sparse)
        return views

    @torch.no_grad()
    def advance(self) -> None:
        """One step of Adam."""
        with one_thread() if self.small else nullcontext():
            self._advance()

    def _advance(self) -> None:
        self.step += 1
        self.window += self.objective.gradient(self.weights, self.gradients)
        self.first.lerp_(self.gradient, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(self.gradient, self.gradient, value=1 - _BETA2)
        root = math.sqrt(1 - _BETA2**self.step)
        torch.sqrt(self.second, out=self.scratch).add_(self.common.epsilon * root)
        torch.div(self.first, self.scratch, out=self.scratch)
        if self.rates is not None:
            self.scratch *= self.rates
        self.parameters.sub_(self.scratch, alpha=self.common.rate(self.step) * root / (1 - _BETA1**self.step))

    @property
    def pending(self) -> int:
        """Steps since the last point of the trace."""
        return max(self.step - len(self.points) * self.stride, 0)

    def losses(self) -> Tensor:
        """Training losses (models,) since the last point of the trace, or there."""
        return self.window / self.pending if self.pending else self.points[-1]

    def note(self) -> None:
        """Add a point to the trace; ValueError unless losses and weights are finite."""
        self._check_finite()
        self.points.append((self.window / self.pending).cpu())
        self.window.zero_()

    def _check_finite(self) -> None:
        losses = self.losses()
        if bool(losses.isfinite().all()) and bool(self.parameters.isfinite().all()):
            return
        bad = losses[~losses.isfinite()]
        found = f"loss is {float(bad[0])}" if len(bad) else "a weight is infinite or nan"
        kept = "there is no checkpoint" if self.saved is None else f"the last checkpoint is of step {self.saved}"
        raise ValueError(f"{found} at step {self.step}; allowed: finite, as with a lower learning_rate; {kept}")

    def settled(self) -> bool:
        """Whether every network has reached its plateau, which the trace alone decides."""
        points = -(-self.common.patience // self.stride)
        if not points or len(self.points) < 2 * points or self.pending:
            return False
        before, after = torch.stack(self.points[-2 * points :]).view(2, points, -1).mean(dim=1)
        return bool((after > (1 - _LEAST_GAIN) * before).all())

    def results(self) -> list[Trained]:
        """What there is when training ends."""
        seconds = time.perf_counter() - self.began
        points = torch.stack(self.points).double().numpy()
        steps = np.minimum(np.arange(1, len(points) + 1) * self.stride, self.step)
        results = []
        for index, training in enumerate(self.trainings):
            weights = {name: tensor[index].clone().contiguous() for name, tensor in self.weights.items()}
            hidden = [(weights[f"hidden.{k}.weight"], weights[f"hidden.{k}.bias"]) for k in range(training.hidden)]
            network = Network(
                weights["W_in"], weights["W_out"], weights["bias"], tuple(hidden),
                training.activation, training.residual, training.recipe(),
            )  # fmt: skip
            # Another stream than that of the training.
            seed = stream([training.seed, 1])
            loss, stderr = network.measure(training.source, seed=seed, importance=training.weights)
            trace = np.stack([steps, points[:, index]], axis=1)
            results.append(Trained(training, network, loss, stderr, self.step, seconds, trace))
        return results

    def _config(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the training that goes on from it."""
        recipes = [training.recipe() for training in self.trainings]
        return {"trainings": recipes, "dtype": str(self.dtype), "device": self.device.type}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint; ValueError, and the file as it was, unless losses and weights are finite."""
        self._check_finite()
        tensors = {
            "parameters": self.parameters, "first": self.first, "second": self.second, "window": self.window,
            "trace": torch.stack(self.points) if self.points else torch.zeros(0, len(self.trainings)),
            **self.objective.state(),
        }  # fmt: skip
        seconds = time.perf_counter() - self.began
        config = {**self._config(), "step": self.step, "seconds": seconds}
        write_tensors(path, _FORMAT, _VERSION, config, tensors)
        self.saved = self.step

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Take up the state of a checkpoint.

        Raises
        ------
        ValueError
            If it is damaged or of another training.
        """
        config, tensors = read_tensors(path, "checkpoint", _FORMAT, _VERSION)
        found, wanted = _flat(config), _flat(self._config())
        different = [name for name in wanted if name in found and found[name] != wanted[name]]
        if different:
            has = ", ".join(f"{name} {found[name]}" for name in different)
            allowed = ", ".join(f"{name} {wanted[name]}" for name in different)
            raise ValueError(f"checkpoint {path} has {has}; allowed with this training: {allowed}")
        try:
            self.step = self.saved = config["step"]
            self.began = time.perf_counter() - config["seconds"]
            for name in ("parameters", "first", "second", "window"):
                getattr(self, name).copy_(tensors[name])
            self.points = list(tensors["trace"])
            self.objective.restore(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"checkpoint {path} holds no state of this version: {error}; allowed: a file as written"
            ) from None


def _shapes(training: Training, models: int) -> dict[str, tuple[int, ...]]:
    """What is trained, by name."""
    n, n_dense = training.n_sparse, training.n_dense
    shapes = {"W_in": (models, n_dense, n), "W_out": (models, n, n_dense), "bias": (models, n)}
    if training.tied:
        del shapes["W_out"]
    if not training.bias:
        del shapes["bias"]
    for k in range(training.hidden):
        shapes |= {f"hidden.{k}.weight": (models, n, n), f"hidden.{k}.bias": (models, n)}
    return shapes


def _initialise(weights: dict[str, Tensor], training: Training) -> None:
    """Set the first weights of one network; drawn on the CPU, they are the same on every device."""
    generator = torch.Generator().manual_seed(training.seed)
    n, n_dense = training.n_sparse, training.n_dense
    columns = torch.randn(n_dense, n, generator=generator, dtype=torch.float64)
    columns *= _LENGTH / columns.norm(dim=0)
    weights["W_in"].copy_(columns)
    weights["W_out"].copy_(columns.T)
    for name, tensor in weights.items():
        if name.startswith("hidden"):
            uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_((2 * uniform - 1) / math.sqrt(n))


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a configuration, each under the name that tells it from others."""
    out: dict[str, Any] = {name: config.get(name) for name in ("dtype", "device")}
    trainings = config.get("trainings", [])
    out["number of trainings"] = len(trainings)
    for index, recipe in enumerate(trainings):
        where = f" of training {index}" if len(trainings) > 1 else ""
        out |= {f"{name}{where}": value for name, value in recipe.items()}
    return out
