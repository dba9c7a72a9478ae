"""Films and strips of pictures of a run, drawn from its log alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from persianrug._support import checks, files
from persianrug._support.extras import installing
from persianrug.figures.style import SKY
from persianrug.robots.log import Log
from persianrug.robots.stage import Stage, picture

# Pictures a second of simulated time.
RATE = 25
SIZE = (960, 540)
# Of H.264: smaller is better and larger.
_QUALITY = "26"
# Seconds for which it is written what a robot says.
_SAID = 2.5
# Of the panel of forces, in pixels of a picture that is 960 wide.
_BAR, _ROW, _NAME = 150, 17, 66
# The ends of its bars, in newtons: of hands, and of feet at least; heavier robots have longer ones.
_FOOT, _HAND = 300.0, 80.0
_INK, _PAPER, _TRUE, _FELT = (29, 29, 31), (255, 255, 255), (120, 120, 126), SKY

Progress = Callable[[float, float], object]


def _unseen(_done: float, _whole: float) -> None:
    """Progress that nobody watches."""


def write_film(
    log: Log,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] = SIZE,
    rate: int = RATE,
    progress: Progress = _unseen,
) -> int:
    """Draw a film of a run, H.264 in an .mp4 file, as long as the run.

    In its corner are the forces on feet and hands: bars are what is felt, ticks what is true.

    Parameters
    ----------
    log : Log
    path : str or path
    size : tuple of int
        Width and height in pixels, both even.
    rate : int
        Pictures a second.
    progress : function
        Called with the pictures that are drawn, and all.

    Returns
    -------
    count : int
        Of pictures.

    Raises
    ------
    NoPictures
        If there is no OpenGL here.
    ValueError
        If PyAV is missing, the log is empty, an argument is out of range, or the file cannot be written.
    """
    try:
        import av
    except ImportError:
        raise ValueError(f"films take the package av; allowed: after {installing('robots')}") from None
    width, height = (checks.integer("size", side, 64, 4096) for side in size)
    if width % 2 or height % 2:
        raise ValueError(f"size is {size}; allowed: even numbers, as H.264 takes them")
    if not os.fspath(checks.path("path", path)).lower().endswith(".mp4"):
        raise ValueError(f"path is {checks.shown(os.fspath(path))}; allowed: a name that ends in .mp4")
    checks.integer("rate", rate, 1, 240)
    ticks = _ticks(log, rate)
    with Stage(log, width, height) as stage, files.whole_file(path) as file:
        caption = _Caption(log, width)
        with av.open(file, "w", format="mp4") as film:
            stream: Any = film.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": _QUALITY, "preset": "veryfast"}
            for place, tick in enumerate(ticks):
                drawn = picture(stage.draw(tick))
                caption.draw(drawn, tick)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(drawn), format="rgb24")))
                progress(place + 1, len(ticks))
            film.mux(stream.encode())
    return len(ticks)


def picture_strip(
    log: Log, times: Sequence[float], path: str | os.PathLike[str], *, size: tuple[int, int] = (480, 320)
) -> None:
    """Draw pictures of a run at some times side by side, in a .png file.

    Parameters
    ----------
    log : Log
    times : sequence of float
        In seconds of simulated time.
    path : str or path
    size : tuple of int
        Of each picture, in pixels.

    Raises
    ------
    NoPictures
        If there is no OpenGL here.
    ValueError
        If there are no times, the log is empty, or the file cannot be written.
    """
    if not len(times):
        raise ValueError("times is empty; allowed: one time or more")
    if Path(checks.path("path", path)).suffix.lower() != ".png":
        raise ValueError(f"path is {checks.shown(os.fspath(path))}; allowed: a name that ends in .png")
    width, height = size
    strip = Image.new("RGB", (len(times) * width + (len(times) - 1) * _GAP, height), _PAPER)
    # Drawn larger and made smaller: edges are smooth.
    with Stage(log, 2 * width, 2 * height) as stage:
        font = _font(max(11, height // 18))
        for place, time in enumerate(times):
            one = picture(stage.draw(log.when(time))).resize(size, Image.Resampling.LANCZOS)
            _label(ImageDraw.Draw(one), (8, 6), f"{part_at(log, time)}, {time:.1f} s", font)
            strip.paste(one, (place * (width + _GAP), 0))
    with files.whole_file(path) as file:
        strip.save(file, format="png", optimize=True)


# Between the pictures of a strip, in pixels.
_GAP = 6


def part_at(log: Log, time: float) -> str:
    """The part of the story that the robot is at, at a time in seconds: the first that is not over by then."""
    for part in log.parts:
        if part.at is None or part.at > time:
            return part.name
    return log.parts[-1].name if log.parts else ""


def _ticks(log: Log, rate: float) -> list[int]:
    """The ticks that a film shows."""
    if not len(log):
        raise ValueError("the log is empty; allowed: one tick or more")
    time = log["time"]
    times = np.arange(time[0], time[-1] + 1e-9, 1 / rate)
    return [log.when(one) for one in times]


class _Caption:
    """What is written into a film: the part of the story, what the robot says, and the forces that it feels."""

    def __init__(self, log: Log, width: int) -> None:
        self.log, self.scale = log, width / SIZE[0]
        self.large, self.small = _font(round(22 * self.scale)), _font(round(12.5 * self.scale))
        names = (*log.worn.feet, *log.worn.hands)
        self.rows = [(name, log.worn.patches.index(name)) for name in names]
        feet = [place for name, place in self.rows if name in log.worn.feet]
        # Jolts of a tick are not what bars are for.
        carried = float(np.quantile(log["pressing_true"][:, feet], 0.98)) if feet else 0.0
        self.most = [max(_FOOT, carried) if name in log.worn.feet else _HAND for name in names]

    def draw(self, drawn: Any, tick: int) -> None:
        """Draw on a picture what belongs to a tick."""
        pen = ImageDraw.Draw(drawn, "RGBA")
        log, scale = self.log, self.scale
        time = float(log["time"][tick])
        title = part_at(log, time)
        _label(
            pen, (14 * scale, 10 * scale), f"{title}   {time:5.1f} s" if title else f"{time:5.1f} s", self.large
        )
        said = [text for at, text in log.events if at <= time < at + _SAID]
        for line, text in enumerate(said[-3:]):
            _label(pen, (14 * scale, (44 + 20 * line) * scale), text, self.small)
        self._bars(pen, drawn.size, tick)

    def _bars(self, pen: Any, size: tuple[int, int], tick: int) -> None:
        """Forces on feet and hands, in the lower right corner."""
        if not self.rows:
            return
        log, scale = self.log, self.scale
        felt, true = log["pressing_felt"][tick], log["pressing_true"][tick]
        valid = log["valid"][tick]
        wide, high = (_NAME + _BAR + 66) * scale, ((len(self.rows) + 1) * _ROW + 10) * scale
        left, top = size[0] - wide - 12 * scale, size[1] - high - 12 * scale
        pen.rounded_rectangle((left, top, left + wide, top + high), 6 * scale, (*_PAPER, 215))
        pen.text((left + 8 * scale, top + 4 * scale), "pressed: felt, | true", fill=_INK, font=self.small)
        for line, ((name, patch), most) in enumerate(zip(self.rows, self.most, strict=True)):
            y = top + (5 + (line + 1) * _ROW) * scale
            start = left + _NAME * scale
            pen.text((left + 8 * scale, y), name, fill=_INK, font=self.small)
            length = _BAR * scale * min(max(float(felt[patch]), 0.0) / most, 1.0)
            pen.rectangle((start, y + 2 * scale, start + _BAR * scale, y + 12 * scale), fill=(*_TRUE, 40))
            if length >= 1:
                pen.rectangle(
                    (start, y + 2 * scale, start + length, y + 12 * scale), fill=_FELT if valid[patch] else _TRUE
                )
            mark = start + _BAR * scale * min(max(float(true[patch]), 0.0) / most, 1.0)
            pen.line((mark, y, mark, y + 14 * scale), fill=_INK, width=max(2, round(2 * scale)))
            told = f"{round(float(felt[patch]))} N" if valid[patch] else "unsure"
            pen.text((start + (_BAR + 8) * scale, y), told, fill=_INK, font=self.small)


def _label(pen: Any, place: tuple[float, float], text: str, font: Any) -> None:
    """A text with light behind it."""
    left, top, right, bottom = pen.textbbox(place, text, font=font)
    pen.rounded_rectangle(
        (left - 6, top - 4, right + 6, bottom + 4), 5, (*_PAPER, 215) if pen.mode == "RGBA" else _PAPER
    )
    pen.text(place, text, fill=_INK, font=font)


def _font(size: int) -> NDArray[Any] | Any:
    """The font that Matplotlib brings along, of so many pixels."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", max(8, size))
