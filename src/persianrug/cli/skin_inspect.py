"""skin inspect: what a file of a skin holds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import progress_bar
from persianrug.cli import options
from persianrug.cli.skin_files import error_words, layout_of, need_numba, percent, seconds, skin_words, split_name

if TYPE_CHECKING:
    from persianrug.skin.contacts import Contact
    from persianrug.skin.layout import Layout
    from persianrug.skin.recording import Record

# Forces below this part of the largest are not called touch in an estimate.
_LEAST = 1e-3


def inspect(
    file: Annotated[
        str,
        typer.Argument(help="A profile, frames or a layout (.npz), frames (.npy), or a recording (.mcap)."),
    ],
    frame: Annotated[
        int | None,
        typer.Option(help="Which frame of frames or a recording, from 0.", show_default="that of most force"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A picture of the frame on the taxels, a .png file.")] = None,
    layout: Annotated[Path | None, typer.Option(help="The taxels of frames, or a profile that has them.")] = None,
    as_json: options.Json = False,
) -> None:
    """Say what a file of a skin holds, and draw one of its frames, the true one beside the decoded.

    Example: persianrug skin inspect touch.mcap --frame 100 --out touch.png
    """
    from persianrug._support.files import check_writable, write_whole

    if out is not None:
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out is {out}; allowed: a file that ends in .png")
        check_writable(out)
    seen = _look(file, frame, layout)
    if out is not None:
        if seen.frame is None or seen.layout is None:
            raise ValueError(f"--out is {out}; allowed with frames or a recording, whose taxels are known: {file} "
                             f"is {seen.what}")  # fmt: skip
        write_whole(out, _picture(seen.layout, *seen.frame, seen.decoded))
        seen.report["out"] = str(out)
        seen.lines.append(f"{out}: frame {seen.report['shown']['frame']} on its taxels")
    if as_json:
        typer.echo(json.dumps(seen.report, indent=2, allow_nan=False))
    else:
        console = make_console()
        for line in seen.lines:
            console.print(escape(line))
    if seen.problem is not None:
        raise ValueError(seen.problem)


class _Seen:
    """What was found in a file: its report, the same in lines, and a frame to draw."""

    def __init__(self, what: str, **report: Any) -> None:
        self.what = what
        self.report: dict[str, Any] = report
        self.lines: list[str] = []
        self.layout: Layout | None = None
        # The name of a frame, and it; and what was decoded of it.
        self.frame: tuple[str, Any] | None = None
        self.decoded: Any = None
        self.problem: str | None = None


def _look(file: str, frame: int | None, layout: Path | None) -> _Seen:
    """What a file is, by its ending and by what it holds."""
    path, skin = split_name(file)
    if path.suffix.lower() == ".mcap":
        return _recording(path, frame)
    if path.suffix.lower() == ".npz" and skin is None:
        from persianrug._support import files, npy

        with files.untrusted("skin", path, {".npz": "a profile, frames or a layout"}) as target:
            names = set(npy.names(target))
        if "profile" in names:
            return _profile(path)
        if "pos" in names and not {"frames", "data"} & names:
            return _layout(path)
    return _frames(file, frame, layout)


def _profile(path: Path) -> _Seen:
    need_numba()

    from persianrug.skin.profile import SkinProfile

    profile = SkinProfile.load(path)
    dead = int(profile.dead.sum())  # type: ignore[union-attr]
    codes = len(profile.blocks())
    seen = _Seen(
        "a profile",
        kind="profile",
        **_layout_report(profile.layout),
        frames=profile.frames,
        rate=profile.rate,
        noise=profile.noise,
        touch_frames=1 / profile.leave,
        taxels_dead=dead,
        codes=codes,
        digest=profile.layout.digest,
    )
    rate = "" if profile.rate is None else f" at {profile.rate:.4g} a second"
    seen.lines += [
        f"{path}: profile of {skin_words(profile.layout)}, from {profile.frames} frames{rate}",
        f"touches last {1 / profile.leave:.3g} frames on average; noise {profile.noise:.3g} N; {dead} taxels dead",
        "all patches share one code" if codes == 1 else f"{codes} codes",
    ]
    return seen


def _layout(path: Path) -> _Seen:
    from persianrug.skin.layout import Layout

    layout = Layout.read(path)
    seen = _Seen("a layout", kind="layout", **_layout_report(layout), digest=layout.digest)
    seen.lines.append(f"{path}: {skin_words(layout)}, {float(layout.area.sum()):.3g} m2")
    seen.lines += [f"  {name} on {body}: {len(layout.of(name))} taxels"
                   for name, body in zip(layout.patches, layout.bodies, strict=True)]  # fmt: skip
    return seen


def _frames(file: str, frame: int | None, layout: Path | None) -> _Seen:
    from persianrug.skin.contacts import ContactTracker
    from persianrug.skin.estimate import Estimate
    from persianrug.skin.frames import Frames

    frames = Frames.read(file)
    seen = _Seen("frames", kind="frames", frames=len(frames), n_sparse=frames.n_sparse, rate=frames.rate,
                 labels=list(frames.label_names))  # fmt: skip
    rate = "" if frames.rate is None else f" at {frames.rate:.4g} a second, {seconds(len(frames) / frames.rate)}"
    seen.lines.append(f"{file}: {len(frames)} frames of {frames.n_sparse} numbers{rate}")
    try:
        seen.layout = layout_of(file, layout, None, frames.n_sparse)
    except ValueError:
        if layout is not None:
            raise
        seen.what = "frames without taxels, which --layout TAXELS.npz says"
    else:
        frames.check(seen.layout)
        seen.report |= _layout_report(seen.layout)
        seen.lines.append(skin_words(seen.layout))
    if not len(frames):
        _refuse_frame(frame, 0)
        return seen
    place = _refuse_frame(frame, len(frames)) if frame is not None else _strongest(frames)
    x = frames[place]
    seen.frame = "true", x
    if seen.layout is not None:
        x = x.reshape(seen.layout.n_taxels, seen.layout.axes)
        contacts = ContactTracker(seen.layout).update(Estimate.certain(place, x), 0.0)
        _show(seen, place, int((x != 0).any(axis=1).sum()), contacts)
    else:
        seen.report["shown"] = {"frame": place, "numbers_touched": int((x != 0).sum())}
        seen.lines.append(f"frame {place}: {seen.report['shown']['numbers_touched']} numbers are not 0")
    return seen


def _recording(path: Path, frame: int | None) -> _Seen:
    import numpy as np

    from persianrug.skin.recording import RecordingReader

    reader = RecordingReader(path)
    seen = _Seen("a recording", kind="recording", **_layout_report(reader.layout), digest=reader.layout.digest)
    seen.layout = reader.layout
    count, explained, truths, first, last = 0, 0, 0, 0.0, 0.0
    shown: tuple[int, Record] | None = None
    most = -1.0
    with progress_bar(1, "reading"):
        try:
            for record in reader:
                first, last = (record.time if not count else first), record.time
                explained += bool(record.explained.all())
                truths += record.truth is not None
                energy = float(np.square(record.x).sum())
                if count == frame or (frame is None and energy > most):
                    shown, most = (count, record), energy
                count += 1
        except ValueError as error:
            seen.problem = str(error)
    if seen.problem is None or frame is not None:
        _refuse_frame(frame, count)
    seen.report |= {
        "frames": count,
        "seconds": last - first,
        "explained": explained / count if count else None,
        "true_frames": truths,
        "complete": reader.complete,
        "problem": seen.problem,
    }
    seen.lines += [
        f"{path}: recording of {count} frames in {seconds(last - first)}, {skin_words(reader.layout)}",
        f"{percent(seen.report['explained'])} explained, {truths} beside the true frame",
        "complete" if reader.complete else "it ends early, as the writer did",
    ]
    if shown is not None:
        place, record = shown
        force = np.linalg.norm(record.x, axis=1)
        touched = int((force > _LEAST * force.max()).sum()) if force.any() else 0
        _show(seen, place, touched, record.contacts, record)
        x = np.where(force[:, None] > _LEAST * force.max(), record.x, 0.0)
        if record.truth is None:
            seen.frame = "decoded", x
        else:
            seen.frame, seen.decoded = ("true", record.truth), x
    return seen


def _show(seen: _Seen, place: int, touched: int, contacts: list[Contact], record: Record | None = None) -> None:
    """Say what a frame holds."""
    touching = [one for one in contacts if one.touching]
    shown: dict[str, Any] = {
        "frame": place,
        "taxels_touched": touched,
        "contacts": {one.patch: {"pressing": one.pressing, "force": one.force.tolist(), "valid": one.valid}
                     for one in touching},
    }  # fmt: skip
    error = ""
    if record is not None:
        shown |= {"number": record.frame, "expected_error": record.expected_error, "time": record.time}
        error = f", expected error {error_words(record.expected_error)}"
    seen.report["shown"] = shown
    felt = ", ".join(f"{one.patch} {one.pressing:.3g} N" for one in touching) or "none"
    seen.lines.append(f"frame {place}: {touched} taxels touched{error}; contacts: {felt}")


def _strongest(frames: Any) -> int:
    """The frame of most force."""
    import numpy as np

    return int(np.argmax([float(np.square(frame).sum()) for frame in frames]))


def _refuse_frame(frame: int | None, count: int) -> int:
    if frame is not None and not 0 <= frame < count:
        said = f"0 to {count - 1}" if count else "none, there are no frames"
        raise ValueError(f"--frame is {frame}; allowed: {said}")
    return frame or 0


def _layout_report(layout: Layout) -> dict[str, Any]:
    return {"n_taxels": layout.n_taxels, "axes": layout.axes, "patches": list(layout.patches)}


def _picture(layout: Layout, name: str, first: Any, decoded: Any) -> bytes:
    from persianrug.figures.skin import skin

    content = io.BytesIO()
    skin(layout, first, decoded, name=name).savefig(content, format="png", dpi=130)
    return content.getvalue()
