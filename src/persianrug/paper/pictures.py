"""The figures of the page: what each is called, shows, and is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from persianrug.paper.data import Data
from persianrug.paper.plan import BUDGETS, CUT_RATIO, RUG, SHOWN_P, SHOWN_RATIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class Figure:
    """A figure of the page: what it is called, what it shows, and what it is drawn from."""

    title: str
    caption: str
    sweeps: tuple[str, ...]
    draw: Callable[[Data], Picture]


def _rug(_data: Data) -> Picture:
    from persianrug.encoders import Rug
    from persianrug.paper.figures.rug import rug

    return rug(Rug.of_ratio(512, SHOWN_RATIO, signs=False))


def _weights(data: Data) -> Picture:
    from persianrug.autoencoder import Autoencoder
    from persianrug.decoders import ReLU
    from persianrug.encoders import Rug
    from persianrug.figures.weights import weights
    from persianrug.sources import SparseUniform

    network = data.network()
    source = SparseUniform(SHOWN_P)
    rug = Rug.of_ratio(data.plan.shown_n, SHOWN_RATIO, signs=False)
    relu: Any = Autoencoder(rug, ReLU()).tune(source).decoder
    W = rug.W_rows(0, rug.n_sparse).double().numpy()
    mean = float(source.mean)
    # Of the network that the rug's decoder is; see `read_weights`.
    bias = relu.gain * (mean - W.sum(axis=1) * mean) + relu.bias
    trained = (network.W_out.double() @ network.W_in.double()).numpy()
    return weights([
        (f"trained, n = {data.plan.shown_n}", trained, network.bias.double().numpy()),
        (f"rug, n = {data.plan.shown_n}", relu.gain * W, bias),
    ])  # fmt: skip


_CURVES = ("trained", "rug", "knot")


def _against(along: Literal["ratio", "p"]) -> Callable[[Data], Picture]:
    def draw(data: Data) -> Picture:
        from persianrug.figures.losses import losses

        return losses([row for kind in _CURVES for row in data[f"{along}-{kind}"]], along)

    return draw


def _planes(key: str, label: str, rugs: bool = False) -> Callable[[Data], Picture]:
    def draw(data: Data) -> Picture:
        from persianrug.paper.figures.heatmaps import heatmap

        planes = [
            (f"trained, n = {n}", [row for row in data["plane"] if row["n_sparse"] == n]) for n in data.plan.sizes
        ]
        if rugs:
            found = data["plane-rug"]
            planes.append((f"rug, n = {RUG}", found))
            planes.append(("rug, law", [{**row, key: row["limit"]} for row in found]))
        return heatmap(planes, key, label)

    return draw


def _scaling(data: Data) -> Picture:
    from persianrug.paper.figures.scaling import scaling

    return scaling(data["rare"], CUT_RATIO)


def _ladder(data: Data) -> Picture:
    from persianrug.paper.figures.ladder import ladder

    return ladder(data["ladder"], CUT_RATIO)


def _recovery(data: Data) -> Picture:
    from persianrug.paper.figures.recovery import recovery

    return recovery(data["recovery"])


def _budget(data: Data) -> Picture:
    from persianrug.paper.figures.budget import budget

    return budget([row for name in BUDGETS for row in data[name]])


def _statistic(key: str, label: str, title: str, caption: str) -> Figure:
    return Figure(title, caption, ("plane",), _planes(key, label))


FIGURES = {
    "rug": Figure(
        "The Persian rug",
        "W = W_out W_in of 512 features on 128 dimensions, made of rows of a Hadamard matrix. Nothing was "
        "trained. (Paper: figure 1.)",
        (), _rug,
    ),
    "weights": Figure(
        "Weights of a trained network and of a rug",
        "The first 30 features, and all entries. Diagonals are equal in both. Off the diagonal the rug's entries "
        "are symmetric about 0; the trained network has a tail of large negative ones, which a ReLU forgives. "
        "(Paper: figure 2a.)",
        ("shown",), _weights,
    ),
    "loss-ratio": Figure(
        "Loss against ratio",
        "Lines are laws, made before anything is measured; points are measurements with their standard errors. "
        "Where p is small, few features of a training's samples are ever active, and short trainings of small "
        "networks do not reach the rug. (Paper: figure 2b and the loss curves.)",
        tuple(f"ratio-{kind}" for kind in _CURVES), _against("ratio"),
    ),
    "loss-p": Figure(
        "Loss against p", "As above, at five ratios.", tuple(f"p-{kind}" for kind in _CURVES), _against("p"),
    ),
    "budget": Figure(
        "Where the law describes training, and where training beats it",
        "Loss of trained networks relative to the law of the rug, by size and by training steps. Above 1 training "
        "is not at its end, or could not reach the rug; below 1 it has found something better than a rug. "
        "(Not in the paper.)",
        BUDGETS, _budget,
    ),
    "heatmap-loss": Figure(
        "Loss over the plane",
        "Trained networks, the rug as measured, and its law. (Paper: the loss of its figures 4 to 6.)",
        ("plane", "plane-rug"), _planes("measured", "loss per feature", rugs=True),
    ),
    "heatmap-diagonal": _statistic(
        "diagonal_variance", "variance of W_ii over features", "Do diagonals differ?",
        "The paper takes a network to be symmetric where this falls as n_sparse grows.",
    ),
    "heatmap-bias": _statistic(
        "bias_variance", "variance of the bias over features", "Do biases differ?", "As above.",
    ),
    "heatmap-interference": _statistic(
        "interference_variance_mean", "mean over features of Var nu_i", "How much interference is there?",
        "The variance over data of nu_i, what other features add to the argument of the ReLU; mean over features.",
    ),
    "heatmap-interference-spread": _statistic(
        "interference_variance_variance", "variance over features of Var nu_i", "Does interference differ?",
        "The variance over features of what the figure above shows the mean of.",
    ),
    "heatmap-offset": _statistic(
        "interference_mean_variance", "variance over features of E nu_i", "Do means of interference differ?",
        "A bias can make up for such a mean, so that it does not break the symmetry by itself.",
    ),
    "heatmap-lyapunov-max": _statistic(
        "lyapunov_max", "largest Lyapunov ratio of a row", "Lyapunov's condition, worst row",
        "sum_j |W_ij|^3 / (sum_j W_ij^2)^(3/2), j ≠ i: interference is Gaussian where it vanishes; it is 1 where "
        "a single entry is all there is.",
    ),
    "heatmap-lyapunov-mean": _statistic(
        "lyapunov_mean", "mean Lyapunov ratio of the rows", "Lyapunov's condition, mean over rows", "As above.",
    ),
    "heatmap-ks": _statistic(
        "ks_p_value", "KS test, p-value", "Is interference Gaussian?",
        "Median over features of the p-value of nu_i against a Gaussian, on 1024 samples: about 0.5 where it is "
        "one, 0 where it is not.",
    ),
    "heatmap-skewness": _statistic(
        "skewness", "|skewness| of the entries of a row", "Are entries off the diagonal symmetric noise?",
        "Mean over rows, without its sign, which is negative where it is large. 0 for a rug. (Not in the paper.)",
    ),
    "scaling": Figure(
        "Rare features",
        "The ReLU law between its two proven bounds, and measurements on a rug of 2^20 features. Relative to "
        "p sigma², which the best elementwise decoder tends to as p → 0, the law grows like log(1 / p).",
        ("rare",), _scaling,
    ),
    "ladder": Figure(
        "How much another elementwise decoder could gain",
        "Losses of elementwise decoders on the rug's code relative to the posterior mean. The paper says that "
        "nothing elementwise gains more than a constant factor.",
        ("ladder",), _ladder,
    ),
    "recovery": Figure(
        "Beyond elementwise: exact recovery from the same code",
        "OAMP reads the same code again and again. Above a threshold it recovers everything. (Not in the paper.)",
        ("recovery",), _recovery,
    ),
}  # fmt: skip
"""The figures of the page, in its order."""
