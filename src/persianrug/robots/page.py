"""One page about a run, which needs no other file: film, story, forces, the skin, and how well it was decoded."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2

from persianrug._support import files
from persianrug.robots import page_figures
from persianrug.robots.log import Log

# A larger film is not put into the page, which shows the file beside it instead.
_MOST_FILM = 20 << 20
_LIBRARIES = ("persianrug", "mujoco", "numpy")

# What statistics of a skin are called, and how they are said.
_TOLD: tuple[tuple[str, str, str], ...] = (
    ("ratio", "numbers sent for one that is felt", "ratio"),
    ("bytes_per_second", "sent", "bytes"),
    ("frames", "frames", "count"),
    ("packets_lost", "packets lost on the bus", "share"),
    ("explained", "frames explained by what was decoded", "share"),
    ("force_error_predicted", "error of net forces, predicted", "N"),
    ("force_error_measured", "error of net forces, measured", "N"),
    ("force_error_of_truth", "the same against what presses: with gains, dead cells", "N"),
)


def write_page(
    log: Log,
    path: str | os.PathLike[str],
    *,
    film: str | os.PathLike[str] | None = None,
    missing: str = "",
) -> int:
    """Write a page about a run, as HTML.

    Parameters
    ----------
    log : Log
        Its `meta` may hold `title`, `scenario`, `seed`, `options`, `pull_threshold`, and an `outcome` of
        `succeeded`, `reason`, `skin`, `timing` and `drawn`.
    path : str or path
    film : path, optional
        Of an .mp4 file.
    missing : str
        Why there is no film.

    Returns
    -------
    size : int
        Of the page, in bytes.

    Raises
    ------
    ValueError
        If the log is empty, or the file cannot be written.
    OSError
        If the film cannot be read, or the disk is full.
    """
    if not len(log):
        raise ValueError("the log is empty; allowed: one tick or more")
    content = page(log, film, missing)
    files.write_whole(path, content)
    return len(content)


def page(log: Log, film: str | os.PathLike[str] | None = None, missing: str = "") -> bytes:
    """The page that `write_page` writes."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(resources("persianrug.robots").joinpath("page.html").read_text("utf-8"))
    outcome = log.meta.get("outcome") or {}
    end = float(log["time"][-1])
    at = page_figures.let_go_at(log)
    gripped = bool(log.worn.hands) and page_figures.gripped(log)
    # Of a gripper that held nothing there is nothing to see.
    touched = page_figures.touched_skin(log, end if at is None else at, hands=gripped or not log.worn.feet)
    going = page_figures.letting_go(log)
    text = template.render(
        title=str(log.meta.get("title") or log.meta.get("robot") or "A robot"),
        scenario=str(log.meta.get("scenario", "")),
        seed=log.meta.get("seed"),
        options={name: _plain(value) for name, value in _asked(log.meta.get("options") or {}).items()},
        succeeded=outcome.get("succeeded"),
        reason=str(outcome.get("reason") or ""),
        seconds=end,
        film=_film(film),
        missing=missing,
        parts=log.parts,
        events=log.events,
        doubted=page_figures.doubted(log),
        shown=_shown(log, gripped),
        let_go=at,
        n_taxels=None if log.layout is None else log.layout.n_taxels,
        timeline=_picture(page_figures.timeline(log)) if log.parts else None,
        foot_forces=_picture(page_figures.foot_forces(log)) if log.worn.feet else None,
        hand_forces=_picture(page_figures.hand_forces(log)) if gripped else None,
        letting_go=None if going is None else _picture(going),
        skin=None if touched is None else _encoded("image/png", page_figures.png(touched[0])),
        skin_time=None if touched is None else touched[1],
        statistics=_statistics(outcome.get("skin") or {}),
        timing=_timing(outcome.get("timing") or {}),
        drawn={name: _plain(value) for name, value in (outcome.get("drawn") or {}).items()},
        versions={name: version(name) for name in _LIBRARIES},
    )
    return text.encode()


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """Options but those of a code, where there is none."""
    of_code = ("ratio", "packet_loss") if options.get("skin") == "truth" else ()
    return {name: value for name, value in options.items() if name not in of_code}


def _shown(log: Log, gripped: bool) -> str:
    """Whose taxels are shown."""
    if log.worn.hands and (gripped or not log.worn.feet):
        return "of its gripper"
    return "of its feet" if log.worn.feet else "of its skin"


def _film(film: str | os.PathLike[str] | None) -> str | None:
    """What a page plays: the film itself, or, if it is too large, the file of that name beside the page."""
    if film is None:
        return None
    path = Path(film)
    return path.name if path.stat().st_size > _MOST_FILM else _encoded("video/mp4", path.read_bytes())


def _encoded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _picture(figure: Any) -> str:
    return _encoded("image/svg+xml", page_figures.svg(figure))


def _statistics(skin: dict[str, Any]) -> list[tuple[str, str]]:
    """How well the skin was decoded, in words."""
    known = {name for name, _, _ in _TOLD}
    told = [(words, _said(skin[name], kind)) for name, words, kind in _TOLD if skin.get(name) is not None]
    return told + [(name.replace("_", " "), _plain(value)) for name, value in skin.items() if name not in known]


def _timing(timing: dict[str, Any]) -> list[tuple[str, str]]:
    said: dict[str, tuple[str, Callable[[float], str]]] = {
        "wall": ("computed in", lambda value: f"{value:.1f} s"),
        "real_time": ("simulated seconds in one of computing", lambda value: f"{value:.2f}"),
        "control_p99": ("control of a tick, 99% of them within", lambda value: f"{1e3 * value:.2f} ms"),
        "steps_per_second": ("steps of the physics alone in a second", lambda value: f"{value:.0f}"),
    }
    return [(words, say(timing[name])) for name, (words, say) in said.items() if timing.get(name) is not None]


def _said(value: Any, kind: str) -> str:
    if not isinstance(value, int | float):
        return _plain(value)
    if kind == "ratio":
        return f"{value:.4g}, 1 for {1 / value:.3g}" if value else "0"
    if kind == "N":
        return f"{value:.3g} N"
    if kind == "share":
        return f"{100 * value:.3g}%"
    if kind == "bytes":
        return f"{value / 1e3:.4g} kB a second"
    return f"{value:d}" if isinstance(value, int) else f"{value:.0f}"


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not given"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{str(name).replace('_', ' ')} {_plain(one)}" for name, one in value.items())
    return value if isinstance(value, str) else json.dumps(value, default=str)
