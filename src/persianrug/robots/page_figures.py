"""The figures of a page about a run: its story, the forces on feet and hands, and the pull, over time."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from persianrug.figures.skin import skin
from persianrug.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, blank
from persianrug.robots.log import Log

Floats = NDArray[np.float64]

# Lines over the whole run have points as far apart as this, in seconds: of the ticks between they show the mean,
# and of the pull, whose peaks count, the largest.
_BIN = 0.04
# Around the moment of letting go, in seconds.
_BEFORE, _AFTER = 1.5, 0.7
# The part of a story that ends when a robot lets go of what it holds.
LET_GO = "let go"
# What is wide enough for a bar in a timeline to be seen, as a share of the whole.
_LEAST = 0.004
# What presses more than this, in newtons, is held; a finger that rests is less.
_HELD = 1.0


class _Taxels(NamedTuple):
    """Some taxels of a layout."""

    position: NDArray[np.float32]
    normal: NDArray[np.float32]
    area: NDArray[np.float32]
    patch: NDArray[np.int32]
    patches: tuple[str, ...]


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file; the same figure is the same file."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "persianrug"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def let_go_at(log: Log) -> float | None:
    """When the robot let go of what it held, in seconds; None if it did not."""
    return next((part.at for part in log.parts if part.name == LET_GO and part.done), None)


def gripped(log: Log) -> bool:
    """Whether anything pressed on the gripper in the run, or was let go."""
    hands = [log.worn.patches.index(name) for name in dict.fromkeys(log.worn.hands)]
    return let_go_at(log) is not None or bool((log["pressing_true"][:, hands] > _HELD).any())


def doubted(log: Log) -> bool:
    """Whether the robot did not believe what a foot feels, at any time."""
    feet = [log.worn.patches.index(name) for name in dict.fromkeys(log.worn.feet)]
    return not log["valid"][:, feet].all()


def timeline(log: Log) -> Figure:
    """The parts of the story, each from where the one before ended."""
    names = [part.name for part in log.parts]
    figure = blank(0.7 + 0.32 * max(1, len(names)))
    axes = figure.subplots()
    end = float(log["time"][-1])
    begun = float(log["time"][0])
    for row, part in enumerate(log.parts):
        if part.at is None:
            axes.text(begun, row, " not come to", va="center", color=GREY, fontsize=9)
            continue
        width = max(part.at - begun, _LEAST * end)
        axes.barh(row, width, left=part.at - width, height=0.62, color=GREEN if part.done else VERMILLION)
        told = f" {part.at:.1f} s" if part.done else f" {part.at:.1f} s, not done"
        axes.text(part.at, row, told, va="center", fontsize=9)
        begun = max(begun, part.at)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="simulated time (s)", xlim=(0, 1.12 * end))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


def foot_forces(log: Log) -> Figure:
    """What presses on each foot, true and felt."""
    names = tuple(dict.fromkeys(log.worn.feet))
    figure = blank(0.7 + 1.15 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        _draw_patch(axes, log, name)
    # Once all is drawn: the axes are shared, and a limit that is set holds for what comes later.
    panels[0].set_ylim(bottom=0)
    panels[0].legend(loc="upper right", fontsize=8, ncols=3)
    panels[-1].set_xlabel("simulated time (s)")
    return figure


def hand_forces(log: Log) -> Figure:
    """What presses on each side of the gripper, and the pull, over the whole run."""
    hands = tuple(dict.fromkeys(log.worn.hands))
    figure = blank(1.35 * (len(hands) + 1) + 0.6)
    panels = figure.subplots(len(hands) + 1, 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, hands, strict=False):
        _draw_patch(axes, log, name)
        axes.set_ylim(bottom=0)
    _draw_pull(panels[-1], log, slice(None))
    _let_go(panels, log)
    panels[0].legend(loc="upper left", fontsize=8, ncols=3)
    panels[-1].legend(loc="upper left", fontsize=8, ncols=3)
    panels[-1].set_xlabel("simulated time (s)")
    return figure


def letting_go(log: Log) -> Figure | None:
    """The pull and the forces on the gripper around the moment of letting go; None if there is none."""
    at = let_go_at(log)
    if at is None:
        return None
    shown = slice(log.when(at - _BEFORE), log.when(at + _AFTER) + 1)
    figure = blank(3.0)
    left, right = figure.subplots(1, 2)
    _draw_pull(left, log, shown)
    time = log["time"][shown]
    for name, colour in zip(dict.fromkeys(log.worn.hands), (BLUE, ORANGE, GREEN), strict=False):
        k = log.worn.patches.index(name)
        right.plot(
            time, log["pressing_true"][shown, k], color=colour, linewidth=2.4, alpha=0.35, label=f"{name}, true"
        )
        right.plot(time, log["pressing_felt"][shown, k], color=colour, linewidth=1.0, label=f"{name}, felt")
    _let_go((left, right), log)
    left.set_xlabel("simulated time (s)")
    right.set(xlabel="simulated time (s)", ylabel="pressed (N)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left")
    return figure


def touched_skin(log: Log, time: float, *, hands: bool = True) -> tuple[Figure, float] | None:
    """The taxels of the hands, or of the feet, at a time, true beside decoded, and the time of that frame.

    None without a skin.
    """
    frames, layout = log.frames, log.layout
    if frames is None or layout is None or not len(frames):
        return None
    place = frames.nearest(time)
    patches = [name for name in dict.fromkeys(log.worn.hands) if hands and name in layout.patches]
    shown = patches or [name for name in log.worn.feet if name in layout.patches] or list(layout.patches)
    # What is said of them is of these taxels alone.
    taxels = np.concatenate([layout.of(name) for name in shown])
    those = _Taxels(
        layout.position[taxels], layout.normal[taxels], layout.area[taxels], layout.patch[taxels], layout.patches
    )
    figure = skin(those, frames.true(place)[taxels], frames.decoded(place)[taxels], patches=shown)
    return figure, frames.time[place]


def _draw_patch(axes: Axes, log: Log, name: str) -> None:
    """What presses on a patch over the whole run; where what is felt is not believed the background is red."""
    k = log.worn.patches.index(name)
    time, true = _means(log, log["pressing_true"][:, k])
    _, felt = _means(log, log["pressing_felt"][:, k])
    axes.fill_between(time, true, color=GREY, alpha=0.45, linewidth=0, label="true")
    axes.plot(time, felt, color=BLUE, linewidth=0.9, label="felt")
    if spans := _doubts(log, log["valid"][:, k]):
        axes.broken_barh(spans, (0, 1), color=VERMILLION, alpha=0.2, linewidth=0,
                         transform=axes.get_xaxis_transform(), label="not believed")  # fmt: skip
    axes.set_ylabel(f"{name} (N)", fontsize=9)
    axes.grid(alpha=0.3)
    axes.set_xlim(0, float(log["time"][-1]))
    axes.tick_params(labelsize=8)


def _draw_pull(axes: Axes, log: Log, shown: slice) -> None:
    """The pull along the gripper, and from where it counts."""
    time, pull = (log[name][shown].astype(np.float64) for name in ("time", "pull"))
    if shown == slice(None):
        time, pull = _means(log, log["pull"], np.maximum)
    axes.plot(time, pull, color=BLUE, linewidth=1.1, label="pull, felt")
    threshold = log.meta.get("pull_threshold")
    if isinstance(threshold, int | float):
        axes.axhline(
            threshold, color=ORANGE, linestyle="--", linewidth=1.2, label=f"lets go above {threshold:g} N"
        )
    axes.set_ylabel("pull (N)", fontsize=9)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)


def _let_go(panels: Any, log: Log) -> None:
    """The moment of letting go, in all panels."""
    at = let_go_at(log)
    if at is not None:
        for axes in panels:
            axes.axvline(at, color=VERMILLION, linewidth=1.2, label=f"lets go, {at:.2f} s")


def _means(log: Log, values: Any, of: np.ufunc = np.add) -> tuple[Floats, Floats]:
    """The middles of short times, and means over these, or what else: lines need fewer points than ticks."""
    time = log["time"]
    bins = ((time - time[0]) / _BIN).astype(np.int64)
    _, starts, counts = np.unique(bins, return_index=True, return_counts=True)
    middles = np.add.reduceat(time, starts) / counts
    found = of.reduceat(np.asarray(values).astype(np.float64), starts)
    return middles, found / counts if of is np.add else found


def _doubts(log: Log, valid: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """When something is not valid, as beginnings and lengths, none too short to be seen."""
    time = log["time"]
    edges = np.flatnonzero(np.diff(np.concatenate([[True], valid, [True]])))
    spans = []
    for start, end in edges.reshape(-1, 2):
        begun = float(time[start])
        spans.append((begun, max(float(time[min(end, len(time) - 1)]) - begun, _BIN)))
    return spans
