"""The commands of skins on recorded frames: skin fit, plan, bench and inspect."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import progress_bar
from persianrug.cli import options
from persianrug.cli.pipes import size_of
from persianrug.cli.skin_files import (
    RATE,
    Bits,
    FramesFile,
    LayoutFile,
    Mat,
    PacketLoss,
    Packets,
    Ratio,
    check_recording,
    error_words,
    need_numba,
    percent,
    read,
    seconds,
    skin_words,
)
from persianrug.cli.skin_inspect import inspect
from persianrug.cli.skin_stream import receive, send

if TYPE_CHECKING:
    from persianrug.skin.estimate import Estimate
    from persianrug.skin.frames import Frames
    from persianrug.skin.layout import Layout
    from persianrug.skin.profile import SkinProfile

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Touch of a robot's skin in codes of a fixed size: learn what is usual, plan, stream, record, measure.",
)

# The error whose ratio is said after a fit.
_TARGET = 0.05

ProfileFile = Annotated[Path, typer.Argument(help="A profile that skin fit wrote.")]


@app.command()
def fit(
    frames: FramesFile,
    out: Annotated[Path, typer.Option(help="The profile, a .npz file.")],
    layout: LayoutFile = None,
    mat: Mat = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Standard deviation of what taxels will read, in newtons.", show_default="as measured"),
    ] = None,
    codes: Annotated[
        str | None,
        typer.Option(
            help="Patches that get codes of their own: jaw+finger,fl_foot is two; all others share one more.",
            show_default="all patches share one",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Learn from frames, in their order, what is usual: how often, how hard and how long each taxel is touched.

    Example: persianrug skin fit pull.npz --layout taxels.npz --out profile.npz
    """
    from persianrug._support.files import check_writable

    if out.suffix.lower() != ".npz":
        raise ValueError(f"--out is {out}; allowed: a file that ends in .npz")
    check_writable(out)
    need_numba()

    from persianrug.skin.plan import make_plan
    from persianrug.skin.profile import SkinProfile

    felt, skin = read(frames, layout, mat)
    parts = [] if codes is None else [tuple(code.split("+")) for code in codes.split(",")]
    with progress_bar(1, "fitting") as bar:
        profile = SkinProfile.fit(felt, skin, noise=noise, codes=parts, progress=bar)
    profile.save(out)
    touched = _touched(felt, skin, profile)
    try:
        plan = make_plan(profile, target_error=_TARGET)
    except ValueError:
        # Noise alone is more.
        plan = None
    report = {
        "frames": len(felt),
        "rate": profile.rate,
        "n_taxels": skin.n_taxels,
        "axes": skin.axes,
        "patches": len(skin.patches),
        "codes": len(profile.blocks()),
        "share_touched": float(touched.mean()),
        "taxels_touched": int((touched > 0).sum()),
        "taxels_never_touched": int((touched == 0).sum() - profile.dead.sum()),  # type: ignore[union-attr]
        "taxels_dead": int(profile.dead.sum()),  # type: ignore[union-attr]
        "noise": profile.noise,
        "touch_frames": 1 / profile.leave,
        "touch_seconds": None if profile.rate is None else 1 / profile.leave / profile.rate,
        "ratio_of_5_percent": None if plan is None else plan.ratio,
        "out": str(out),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    rate = "" if profile.rate is None else f" at {profile.rate:.4g} a second"
    many = "" if report["codes"] == 1 else f", in {report['codes']} codes"
    console.print(f"{escape(str(out))}: profile of {skin_words(skin)}{many}, from {len(felt)} frames{rate}")
    long = 1 / profile.leave
    lasts = f"{long:.3g} frames" if profile.rate is None else seconds(long / profile.rate)
    console.print(
        f"{report['share_touched']:.2%} of taxels touched in a frame, for {lasts} on average; noise "
        f"{profile.noise:.3g} N"
    )
    console.print(
        f"{report['taxels_touched']} taxels were touched, {report['taxels_never_touched']} never were, and may "
        f"be, {report['taxels_dead']} are dead"
    )
    if plan is None:
        console.print("predicted: no code brings the error to 5%, so large is the noise")
    else:
        console.print(
            f"predicted: an error of 5% or less down to {plan.ratio:.3g}:1, {plan.bytes_per_frame} bytes a frame; "
            "shorter codes fail at once"
        )


@app.command()
def plan(
    profile: ProfileFile,
    ratio: Annotated[float | None, typer.Option(help="Numbers of a frame for one of its code, 1 or more.")] = None,
    target_error: Annotated[
        float | None,
        typer.Option(help="Find the largest ratio whose relative error is predicted to be no more, instead."),
    ] = None,
    packet_loss: PacketLoss = 0.0,
    bits: Bits = 12,
    packets: Packets = 8,
    as_json: options.Json = False,
) -> None:
    """Say what a stream will lose and take, or how small its codes can be for an error.

    Example: persianrug skin plan profile.npz --target-error 0.01 --packet-loss 0.05
    """
    need_numba()

    from persianrug.skin.plan import make_plan
    from persianrug.skin.profile import SkinProfile

    if (ratio is None) == (target_error is None):
        both = "are both given" if ratio is not None else "are both missing"
        raise ValueError(f"--ratio and --target-error {both}; allowed: one of them")
    learned = SkinProfile.load(profile)
    found = make_plan(learned, ratio=ratio, target_error=target_error, bits=bits, packet_loss=packet_loss,
                      packets=packets)  # fmt: skip
    told = {key: value for key, value in asdict(found).items() if key != "predicted"}
    predicted = found.predicted
    report = {
        "predicted_error": predicted.error,
        "share_within_1_percent": predicted.within_1_percent,
        "share_within_5_percent": predicted.within_5_percent,
        "explained": predicted.explained,
        **told,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    console.print(f"{escape(str(profile))}: {skin_words(learned.layout)}, {learned.frames} frames fitted")
    speed = "" if found.bytes_per_second is None else f", {size_of(found.bytes_per_second)} a second"
    lost = f", {percent(packet_loss)} of them lost" if packet_loss else ""
    console.print(
        f"{found.ratio:.4g}:1 in {bits} bits: {found.bytes_per_frame} bytes a frame in {found.packets_per_frame} "
        f"packets{lost}{speed}"
    )
    console.print(
        f"predicted: an error of {error_words(predicted.error)}, {percent(predicted.within_1_percent)} of frames "
        f"within 1%, {percent(predicted.within_5_percent)} within 5%"
    )


@app.command()
def bench(
    frames: FramesFile,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A profile that skin fit wrote.",
            show_default="of the first half of the frames; the rest is streamed",
        ),
    ] = None,
    layout: LayoutFile = None,
    mat: Mat = None,
    ratio: Ratio = 16.0,
    bits: Bits = 12,
    noise: Annotated[float, typer.Option(help="Add Gaussian noise of so many newtons to every number.")] = 0.0,
    packet_loss: PacketLoss = 0.0,
    packets: Packets = 8,
    seed: Annotated[int, typer.Option(help="Of the transform, the noise and the losses.")] = 0,
    limit: Annotated[
        int | None, typer.Option(help="Stream only so many frames.", show_default="all there are")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Record what arrives, beside what was felt, in a .mcap file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Stream frames one by one, through packets and a bus, and compare what arrives with what was felt.

    Example: persianrug skin bench pull.npz --layout taxels.npz --noise 0.03 --packet-loss 0.05
    """
    need_numba()
    if out is not None:
        check_recording(out)

    from persianrug.skin.benchmark import bench as run
    from persianrug.skin.frames import Frames
    from persianrug.skin.profile import SkinProfile

    if profile is not None:
        options.refuse({"--layout": layout, "--mat": mat}, "--profile", "which knows the taxels")
        learned, streamed = SkinProfile.load(profile), Frames.read(frames)
        fitted = None
    else:
        felt, skin = read(frames, layout, mat)
        fitted = len(felt) // 2
        if fitted < 2:
            raise ValueError(f"frames file {frames} has {len(felt)} frames; allowed: 4 or more, or --profile")
        with progress_bar(1, "fitting") as bar:
            learned = SkinProfile.fit(felt[:fitted], skin, progress=bar)
        streamed = felt[fitted:]
    with progress_bar(1, "streaming") as bar, ExitStack() as stack:
        each = None if out is None else _recorder(out, learned, streamed, stack)
        found = run(learned, streamed, ratio=ratio, bits=bits, noise=noise, packet_loss=packet_loss,
                    packets=packets, seed=seed, limit=limit, each=each, progress=bar)  # fmt: skip
    if as_json:
        report = {**asdict(found), "fitted_frames": learned.frames, "fitted_here": fitted is not None}
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    console = make_console()
    told = f"{profile}" if fitted is None else f"the first {fitted}, which the profile was fitted to"
    console.print(f"{escape(frames)}: {found.frames} frames, after {escape(told)}")
    loss = f", {percent(packet_loss)} of packets lost" if packet_loss else ""
    loss += f", noise {noise:g} N" if noise else ""
    console.print(
        f"{ratio:.4g}:1 in {bits} bits: {found.bytes_per_frame:.0f} bytes a frame in "
        f"{found.packets_per_frame:.0f} packets{loss}"
    )
    if found.touched:
        console.print(
            f"{percent(found.share_within_1_percent)} of {found.touched} frames with touch within 1%, "
            f"{percent(found.share_within_5_percent)} within 5%"
        )
    if found.empty_right is not None:
        console.print(f"{percent(found.empty_right)} of {found.frames - found.touched} empty frames read as empty")
    console.print(
        f"error: {error_words(found.predicted_error)} predicted, "
        f"{error_words(found.measured_error, found.measured_error_stderr)} measured, "
        f"{error_words(found.expected_error)} by the decoder itself; {percent(found.explained)} explained"
    )
    if found.lost:
        console.print(f"{found.lost} frames were lost with all their packets")
    if found.frames_per_second is not None:
        console.print(
            f"{found.frames_per_second:.0f} frames a second decoded on one thread, 99% of them within "
            f"{found.p99_ms:.2g} ms; encoded in {found.encode_us:.0f} us each"
        )
    if out is not None:
        console.print(f"{escape(str(out))}: {found.frames - found.lost} frames recorded, beside the true ones")


for _command in (send, receive, inspect):
    app.command()(_command)


def _recorder(out: Path, profile: SkinProfile, frames: Frames, stack: ExitStack) -> Callable[..., None]:
    """What records every frame that arrives, with its contacts and beside the true one."""
    from persianrug.skin.contacts import ContactTracker
    from persianrug.skin.recording import RecordingWriter

    tracker = ContactTracker(profile.layout, blocks=profile.block_of_patch())
    rate = frames.rate or profile.rate or RATE
    writers: list[RecordingWriter] = []

    def record(place: int, true: Any, estimate: Estimate | None) -> None:
        if not writers:
            writers.append(stack.enter_context(RecordingWriter(out, profile.layout)))
        now = place / rate if frames.time is None else float(frames.time[place] - frames.time[0])
        contacts = tracker.update(estimate, now)
        if estimate is not None:
            writers[0].write(now, estimate, contacts, truth=true)

    return record


def _touched(frames: Frames, layout: Layout, profile: SkinProfile) -> Any:
    """The share of frames in which each taxel is touched beyond the noise; 0 of dead ones."""
    import numpy as np

    # As far as it is beyond noise that comes once in 100,000 looks.
    least = profile.noise**2 * (18.5 + 2.5 * layout.axes)
    count = np.zeros(layout.n_taxels)
    for frame in frames:
        count += np.square(frame.reshape(layout.n_taxels, -1)).sum(axis=1) > least
    return np.where(profile.dead, 0.0, count / len(frames))  # type: ignore[arg-type]
