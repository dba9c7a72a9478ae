"""Networks trained by gradient descent, on samples or on the loss that the Gaussian closure predicts for them.

source = pr.SparseUniform(p=0.045)
result = train(Training.of_ratio(512, 0.25, source))
result.loss, result.stderr           # measured on fresh samples
result.network.autoencoder(source).law(source)  # what the closure predicts for these very weights

Networks of one shape can be trained side by side in one tensor program; a single one is a batch of one.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianrug import _checks
from persianrug._networks import ACTIVATIONS, Network, propagate
from persianrug._tensors import read_tensors, write_tensors
from persianrug.decoders import ReLU
from persianrug.encoders import Rug, noise_level
from persianrug.files import check_writable
from persianrug.sources import Source

__all__ = ["Network", "Trained", "Training", "train", "train_many"]

_FORMAT = "persianrug.checkpoint"
_VERSION = 1

# Length of the first columns of W_in.
_LENGTH = 0.3
# Adam's rate by default, and the number of features from which on it falls.
_RATE, _RATE_FEATURES = 5e-3, 512
# Adam's memory, in its usual form.
_BETA1, _BETA2 = 0.9, 0.999
# Points of a trace, and the most steps from one to the next: a loss that is not finite is noticed there.
_POINTS, _MOST_STEPS = 400, 50
# A plateau is where the loss falls by less than this part within `patience` steps.
_LEAST_GAIN = 1e-3
# Features of networks side by side that are worked on at once: 1 MiB in float32 stays in cache.
_MOST_ENTRIES = 1 << 18
# Seconds between calls of `progress`.
_PAUSE = 0.1

# What the networks of a batch need not have in common.
_OWN = ("source", "seed", "importance", "learning_rate")

Progress = Callable[[int, int, float], object]


def _quiet(_step: int, _steps: int, _loss: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and how.

    The network is x_hat = act(h + bias) with h = W_out W_in x, which each hidden layer turns into
    [h +] act(L h + c). It starts from short columns of W_in in random directions, W_out = W_in^T and no bias,
    which reaches a lower loss, and sooner, than independent matrices do, or than columns of unit length; hidden
    layers start as `torch.nn.Linear` makes them. The optimiser is Adam.

    Parameters
    ----------
    n_sparse : int >= 2
        Number of features.
    n_dense : int, 1 to n_sparse
        Length of the code.
    source : Source
        Of features that are alike, of a scale about 1: the steps of the bias are not relative to it.
    seed : int >= 0
        Of the first weights and of the samples.
    method : str
        `sampled` minimises the squared error on a fresh batch in every step. `closure` sees no data: it
        minimises the loss that is exact if the interference on every feature is Gaussian, for the activations
        relu and identity without hidden layers. Its best weights are a rug's.
    activation : str
        identity, relu, leaky_relu (slope 0.01 below 0), gelu or tanh.
    tied : bool
        Whether W_out is the transpose of W_in all the time.
    bias : bool
        Whether the last activation has a bias. Hidden layers always have theirs.
    hidden : int >= 0
        Number of hidden layers, all n_sparse wide.
    residual : bool
        Whether h is added in hidden layers.
    importance : float >= 0
        Exponent a of the loss mean_i i^-a (x_i - x_hat_i)^2, features i counted from 1. The error itself is thus
        weighted by i^(-a / 2), as in arXiv 2410.12101.
    steps : int >= 1
    batch : int >= 1
        Vectors in a step of `sampled`.
    learning_rate : float > 0, optional
        By default 5e-3, and from 512 features on 2.56 / n_sparse: larger networks diverge at the same rate.
    schedule : str
        `cosine` lowers the rate along half a cosine to 0 at the last step, `constant` does not.
    epsilon : float > 0
        Adam's, added to the root mean square of a gradient. The gradients of a mean over features are small,
        so that the usual 1e-8 slows training down at some thousand of them.
    patience : int >= 0
        With the constant schedule: stop once the training loss, averaged over so many steps, is lower by less
        than one part in 1000 than it was over as many steps before. 0 never stops.

    Raises
    ------
    ValueError
        If an argument is out of its range, or does not go with the others.
    """

    n_sparse: int
    n_dense: int
    source: Source
    seed: int = 0
    method: str = "sampled"
    activation: str = "relu"
    tied: bool = False
    bias: bool = True
    hidden: int = 0
    residual: bool = False
    importance: float = 0.0
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = cast(Any, None)
    schedule: str = "cosine"
    epsilon: float = 1e-12
    patience: int = 0

    def __post_init__(self) -> None:
        least = {"n_sparse": 2, "n_dense": 1, "seed": 0, "hidden": 0, "steps": 1, "batch": 1, "patience": 0}
        for name, low in least.items():
            high = {"n_dense": self.n_sparse, "seed": 2**63 - 1}.get(name)
            object.__setattr__(self, name, _checks.integer(name, getattr(self, name), low, high))
        if not isinstance(self.source, Source):
            raise ValueError(f"source is a {type(self.source).__name__}; allowed: a Source")
        if self.source.n_sparse is not None:
            raise ValueError(f"source {self.source.name} has features that differ; allowed here: alike ones")
        for name in ("tied", "bias", "residual"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: True, False")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _RATE * min(1.0, _RATE_FEATURES / self.n_sparse))
        for name in ("learning_rate", "epsilon"):
            object.__setattr__(self, name, _checks.positive(name, getattr(self, name)))
        object.__setattr__(self, "importance", _checks.not_negative("importance", self.importance))
        _checks.one_of("method", self.method, ("sampled", "closure"))
        _checks.one_of("activation", self.activation, ACTIVATIONS)
        _checks.one_of("schedule", self.schedule, ("cosine", "constant"))
        if self.residual and not self.hidden:
            raise ValueError("residual is True; allowed without hidden layers: False")
        if self.patience and self.schedule != "constant":
            raise ValueError(f"patience is {self.patience}; allowed with schedule {self.schedule}: 0")
        if self.method == "closure":
            if self.hidden:
                raise ValueError(f"hidden is {self.hidden}; allowed with method closure: 0")
            if self.activation not in _LAWS:
                raise ValueError(f"activation is {self.activation!r}; allowed with method closure: relu, identity")
            if self.activation == "relu" and self.source.signed:
                raise ValueError(
                    f"source {self.source.name} is signed; allowed with method closure and relu: features >= 0"
                )

    @classmethod
    def of_ratio(cls, n_sparse: int, ratio: float, source: Source, **rest: Any) -> Training:
        """The training whose n_dense is nearest to ratio * n_sparse; the rest as in the class.

        Raises
        ------
        ValueError
            As in the class, or if ratio is outside (0, 1] or leaves no number for the code.
        """
        return cls(n_sparse, Rug.of_ratio(n_sparse, ratio).n_dense, source, **rest)

    @classmethod
    def paper(cls, n_sparse: int, n_dense: int, source: Source, seed: int = 0) -> Training:
        """The training of arXiv 2410.12101: 1500 epochs of 30 batches at a constant rate of 3e-3 / sqrt(n_sparse).

        The weights that the paper starts from are not known here; they are those of the class.

        Raises
        ------
        ValueError
            As in the class.
        """
        rate = 3e-3 / math.sqrt(_checks.integer("n_sparse", n_sparse, 2))
        return cls(
            n_sparse, n_dense, source, seed,
            steps=45000, batch=1024, learning_rate=rate, schedule="constant", epsilon=1e-7,
        )  # fmt: skip

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights i^-a (n_sparse,) of the features' squared errors in the loss."""
        return np.arange(1, self.n_sparse + 1, dtype=np.float64) ** -self.importance

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 1."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - 0.5) / self.steps))

    def recipe(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        source = {name: np.asarray(value).tolist() for name, value in self.source.recipe().items()}
        return {**parts, "source": source}


@dataclass(frozen=True)
class Trained:
    """A trained network and what became of its loss.

    Attributes
    ----------
    training : Training
    network : Network
    loss : float
        Measured on fresh samples: mean squared error per feature, times its weight where the training has an
        importance.
    stderr : float
        Its standard error.
    steps : int
        Steps made, fewer than planned after an early stop.
    seconds : float
        Spent in these steps, by the whole batch, without the measurement.
    trace : array (points, 2)
        Steps, and the training loss averaged over the steps since the point before.
    """

    training: Training
    network: Network
    loss: float
    stderr: float
    steps: int
    seconds: float
    trace: NDArray[np.float64] = field(repr=False, compare=False)


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
    run = _Run(trainings, torch.device(device), dtype)
    _checks.integer("checkpoint_every", checkpoint_every, 1)
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


class _Run:
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
        self.objective: _Objective = {"sampled": _Sampled, "closure": _Closure}[common.method](
            trainings, self.parameters
        )
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
            seed = _stream([training.seed, 1])
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


def _stream(seeds: list[int]) -> int:
    """The seed of a stream of random numbers that no other list of seeds has."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a configuration, each under the name that tells it from others."""
    out: dict[str, Any] = {name: config.get(name) for name in ("dtype", "device")}
    trainings = config.get("trainings", [])
    out["number of trainings"] = len(trainings)
    for index, recipe in enumerate(trainings):
        where = f" of training {index}" if len(trainings) > 1 else ""
        out |= {f"{name}{where}": value for name, value in recipe.items()}
    return out


class _Objective(ABC):
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


class _Sampled(_Objective):
    """The squared error on a fresh batch in every step.

    The gradient is written out rather than left to autograd, which takes a fifth longer at n_sparse 512 and more
    where networks are small.
    """

    def __init__(self, trainings: Sequence[Training], like: Tensor) -> None:
        self.common = trainings[0]
        self.generator = torch.Generator(like.device).manual_seed(
            _stream([*(training.seed for training in trainings), 0])
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


class _Closure(_Objective):
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
        errors, by_m, by_s = _LAWS[self.common.activation](self.u, m, s)

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


def _relu_law(u: Tensor, m: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E_z (u - max(m + s z, 0))^2, as in `decoders.relu`, and its derivatives by m and s."""
    t = m / s
    on = 0.5 * torch.erfc(t * -math.sqrt(0.5))
    density = torch.exp(-0.5 * t * t) * (1 / math.sqrt(2 * math.pi))
    gap = u - m
    errors = u * u * (1 - on) + (gap * gap + s * s) * on - s * (u + gap) * density
    return errors, 2 * (s * density - gap * on), 2 * (s * on - u * density)


def _identity_law(u: Tensor, m: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E_z (u - m - s z)^2 and its derivatives by m and s."""
    gap = u - m
    return gap * gap + s * s, -2 * gap, 2 * s


_LAWS = {"relu": _relu_law, "identity": _identity_law}


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
