"""What is trained, on what and how, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug._support.arrays import Parts
from persianrug.encoders import Rug
from persianrug.networks.closure import LAWS
from persianrug.networks.network import ACTIVATIONS, Network
from persianrug.sources import Source

# Adam's rate by default, and the number of features from which on it falls.
_RATE, _RATE_FEATURES = 5e-3, 512


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
            high = {"n_dense": self.n_sparse, "seed": checks.MOST_SEED}.get(name)
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), low, high))
        checks.instance("source", self.source, Source)
        if self.source.n_sparse is not None:
            raise ValueError(f"source {self.source.name} has features that differ; allowed here: alike ones")
        for name in ("tied", "bias", "residual"):
            object.__setattr__(self, name, checks.flag(name, getattr(self, name)))
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _RATE * min(1.0, _RATE_FEATURES / self.n_sparse))
        for name in ("learning_rate", "epsilon"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        object.__setattr__(self, "importance", checks.not_negative("importance", self.importance))
        checks.one_of("method", self.method, ("sampled", "closure"))
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.one_of("schedule", self.schedule, ("cosine", "constant"))
        if self.residual and not self.hidden:
            raise ValueError("residual is True; allowed without hidden layers: False")
        if self.patience and self.schedule != "constant":
            raise ValueError(f"patience is {self.patience}; allowed with schedule {self.schedule}: 0")
        if self.method == "closure":
            if self.hidden:
                raise ValueError(f"hidden is {self.hidden}; allowed with method closure: 0")
            if self.activation not in LAWS:
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
        rate = 3e-3 / math.sqrt(checks.integer("n_sparse", n_sparse, 2))
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


@dataclass(frozen=True, eq=False)
class Trained(Parts):
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

    training: Training = field(repr=False)
    network: Network
    loss: float
    stderr: float
    steps: int
    seconds: float
    trace: NDArray[np.float64] = field(repr=False, compare=False)


def stream(seeds: list[int]) -> int:
    """The seed of a stream of random numbers that no other list of seeds has."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))
