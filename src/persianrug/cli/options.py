"""Options that commands share, and checks of what they are given.

Names that can be typed are listed here, since those who define them need PyTorch, and help should come at once; a
test compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import typer

SOURCES = ("uniform", "exponential", "half-normal", "truncated-normal", "lognormal", "gaussian", "constant")
# The row of the ReLU on the best knot known, beside those of the decoders of the plain rug.
KNOT = "knot"
DECODERS = (
    "linear",
    "relu",
    "jumprelu",
    "topk",
    "gated",
    "prolu",
    "soft",
    "bayes",
    KNOT,
    "oamp",
    "lmmse",
    "cvamp",
)
# Those that read sketches, whose features differ.
SKETCH_DECODERS = ("auto", *(name for name in DECODERS if name not in ("topk", KNOT)))
# Endings of files of rows.
WRITTEN = (".npz", ".npy", ".h5ad", ".parquet")
METHODS = ("sampled", "closure")
ACTIVATIONS = ("identity", "relu", "leaky_relu", "gelu", "tanh")
SCHEDULES = ("cosine", "constant")
ROBOTS = ("spot", "cassie", "atlas", "handle")
# What robots feel with.
SKINS = ("stiff", "soft", "truth")
FIGURES = (
    "rug", "weights", "loss-ratio", "loss-p", "budget", "heatmap-loss", "heatmap-diagonal", "heatmap-bias",
    "heatmap-interference", "heatmap-interference-spread", "heatmap-offset", "heatmap-lyapunov-max",
    "heatmap-lyapunov-mean", "heatmap-ks", "heatmap-skewness", "scaling", "ladder", "recovery",
)  # fmt: skip


def either(names: Iterable[str]) -> str:
    """Names in a sentence: a, b or c."""
    *most, last = names
    return f"{', '.join(most)} or {last}"


def completing(names: Iterable[str]) -> Callable[[str], Iterator[str]]:
    """What a shell offers at TAB, also after a comma in a list of names."""

    def complete(incomplete: str) -> Iterator[str]:
        before, comma, begun = incomplete.rpartition(",")
        return (before + comma + name for name in names if name.startswith(begun))

    return complete


_P = typer.Option(help="Probability that a feature is active, from 1e-30 to 1.")
P = Annotated[float, _P]
OptionalP = Annotated[float | None, _P]

_RATIO = typer.Option(help="n_dense / n_sparse, in (0, 1].")
Ratio = Annotated[float, _RATIO]
OptionalRatio = Annotated[float | None, _RATIO]

Source = Annotated[
    str,
    typer.Option(help=f"Distribution of active features: {either(SOURCES)}.", autocompletion=completing(SOURCES)),
]
Device = Annotated[str, typer.Option(help="Where to compute, as PyTorch names it.")]
Layer = Annotated[str | None, typer.Option(help="Of a .h5ad file, take this layer.", show_default="its matrix X")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def refuse(options: dict[str, Any], beside: str, why: str) -> None:
    """Refuse options that were given and have no meaning beside another."""
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option} is {value}; allowed with {beside}: no {option}, {why}")
