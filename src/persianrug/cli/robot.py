"""The commands of simulated robots: robot spot, and others by their names, bench and list."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from persianrug._support.extras import installing
from persianrug._support.terminal import console as make_console
from persianrug._support.terminal import progress_bar
from persianrug.cli import options
from persianrug.cli.skin_files import percent, seconds

if TYPE_CHECKING:
    from persianrug.robots.robot import Robot

_PACKAGES = ("mujoco", "daqp", "av", "numba", "mcap")
_OTHERS = ("bench", "list")
# Trials of a bench whose seeds are said where they failed.
_MOST_SEEDS = 12


class _Robots(TyperGroup):
    """A group whose commands are robots: an unknown one is told which there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise ValueError(
                f"robot is {args[0]!r}; allowed: {', '.join(options.ROBOTS)}; or {' or '.join(_OTHERS)}"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Robots,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Simulated robots that feel through a skin: run one, watch it, measure many runs.",
)

_Seed = Annotated[int, typer.Option(help="Of everything that is drawn at random.")]
_Scenario = Annotated[
    str | None, typer.Option(help="What it does, as `robot list` has it.", show_default="its whole story")
]
_Skin = Annotated[
    str,
    typer.Option(
        help="What it feels with: a stiff or a soft skin, or the truth.",
        autocompletion=options.completing(options.SKINS),
    ),
]
_Ratio = Annotated[float, typer.Option(help="Numbers that are sent for one that the skin feels, from 1/256 to 1.")]
_Loss = Annotated[float, typer.Option(help="Share of packets that are lost, in [0, 1).")]
_Bar = Annotated[
    float | None, typer.Option(help="Height of the bar on its way, in metres.", show_default="drawn from the seed")
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Another option of the scenario, as NAME=VALUE.", show_default="none"),
]


def _robot(name: str) -> Robot:
    """The robot of a name; ValueError with what installs what it takes."""
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ValueError(f"robots take the package {missing[0]}; allowed: after {installing('robots')}")
    from persianrug.robots.gl import undrawn

    # Nothing is drawn before the run is over.
    with undrawn():
        from persianrug.robots import ROBOTS

    if name not in ROBOTS:
        raise ValueError(f"robot is {name!r}; allowed: {', '.join(ROBOTS)}")
    return ROBOTS[name]


def _asked(
    robot: Robot, scenario: str | None, bar: float | None, given: list[str] | None
) -> tuple[str, dict[str, Any]]:
    """The scenario's name, and its options."""
    from persianrug._support import checks

    name = next(iter(robot.trials)) if scenario is None else scenario
    checks.one_of("scenario", name, robot.trials)
    known = robot.trials[name].options
    asked: dict[str, Any] = {}
    if bar is not None:
        key = next((one for one in ("bar", "height") if one in known), None)
        if key is None:
            raise ValueError(f"--bar is {bar:g}; allowed with --scenario {name}: no --bar, there is none")
        asked[key] = checks.finite("--bar", bar)
    for text in given or []:
        key, equals, value = text.partition("=")
        said = checks.shown(text)
        if not equals or key not in known:
            allowed = ", ".join(f"{one}=VALUE" for one in known) or "none"
            raise ValueError(f"--set is {said}; allowed with --scenario {name}: {allowed}")
        if key in asked:
            raise ValueError(f"--set is {said}, beside another {key}; allowed: {key}=VALUE once")
        asked[key] = _value(value, f"--set is {said}")
    return name, asked


def _value(text: str, said: str) -> Any:
    """What a text means, as JSON has it, or the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    try:
        # Reports and benches are JSON, which has no such numbers.
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError(f"{said}; allowed: finite numbers, texts, true, false") from None
    return value


def _command(name: str) -> Callable[..., None]:
    """The command that runs a robot."""

    def run(
        out: Annotated[Path, typer.Option(help="A folder for all that the run leaves behind.")],
        seed: _Seed = 0,
        scenario: _Scenario = None,
        skin: _Skin = "stiff",
        ratio: _Ratio = 0.0625,
        packet_loss: _Loss = 0.05,
        bar: _Bar = None,
        given: _Set = None,
        film: Annotated[bool, typer.Option("--film/--no-film", help="Whether to draw a film.")] = True,
        as_json: options.Json = False,
    ) -> None:
        _run(name, out, seed, scenario, skin, ratio, packet_loss, bar, given, film, as_json)

    run.__doc__ = f"""Run {name}'s story: log, recording, film and a page about it are written into a folder.

    It ends with exit code 0 if the story succeeded, and with 1 if it did not.

    Example: persianrug robot {name} --out run/ --seed 1 --packet-loss 0.2
    """
    return run


for _name in options.ROBOTS:
    app.command(_name)(_command(_name))


def _run(
    name: str, out: Path, seed: int, scenario: str | None, skin: str, ratio: float, packet_loss: float,
    bar: float | None, given: list[str] | None, film: bool, as_json: bool,
) -> None:  # fmt: skip
    robot = _robot(name)
    which, asked = _asked(robot, scenario, bar, given)

    from persianrug._support import checks
    from persianrug.robots.gl import asked_for
    from persianrug.robots.runs import RunFolder, run_into
    from persianrug.robots.touching import Touch

    touch = Touch(skin=skin, ratio=ratio, packet_loss=packet_loss)
    made = robot.trials[which].make(checks.seed(seed), touch, **asked)
    if film:
        # A slip is said now, and not when the run is over.
        asked_for()
    folder = RunFolder(out)
    console = make_console()

    def say(line: str) -> None:
        if not as_json:
            console.print(escape(line))

    say(f"{robot.spec.title}: {robot.trials[which].what}, seed {seed}")
    told = {"skin": skin, "ratio": ratio, "packet_loss": packet_loss, **asked}
    with progress_bar(1, "drawing") as bar_of_film:
        report = run_into(
            folder, made, told, film=film, say=lambda name: bar_of_film.reach(0, 1, f"writing {name}"),
            progress=bar_of_film.reach,
            on_part=lambda part: say(f"{part.at:8.2f} s  {part.name}{'' if part.done else ': not done'}"),
            on_event=lambda at, text: say(f"{at:8.2f} s    {text}"),
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _tell(report, out)
    if not report["succeeded"]:
        raise typer.Exit(1)


def _tell(report: dict[str, Any], out: Path) -> None:
    """The report of a run, in tables."""
    console = make_console()
    table = Table(box=SIMPLE_HEAD)
    for heading in ("part", "done", "time"):
        table.add_column(heading, justify="right" if heading == "time" else "left", no_wrap=True)
    for name, part in report["parts"].items():
        at = "" if part["at"] is None else f"{part['at']:.2f} s"
        table.add_row(escape(name), "yes" if part["done"] else "no", at)
    console.print(table)
    if rows := _touch_rows(report["skin"]):
        table = Table("touch", "", box=SIMPLE_HEAD)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    timing = report.get("timing") or {}
    if timing:
        console.print(
            f"{timing['real_time']:.2f} simulated seconds in one of computing; control of a tick within "
            f"{seconds(timing['control_p99'])} (99%); the physics alone makes {timing['steps_per_second']:.0f} "
            "steps a second"
        )
    for name, why in report["missing"].items():
        console.print(f"{escape(name)} is missing: {escape(why)}")
    reason = f": {report['reason']}" if report.get("reason") else ""
    ended = "succeeded" if report["succeeded"] else f"failed{reason}"
    console.print(f"{escape(str(out))}: {', '.join(report['files'])}")
    console.print(escape(f"{report['robot']}, {report['scenario']}: {ended}, after {report['seconds']:.1f} s"))


def _touch_rows(skin: dict[str, Any]) -> list[tuple[str, str]]:
    """What is said of a skin; nothing where contacts are the truth."""
    said: dict[str, tuple[str, Callable[[float], str]]] = {
        "ratio": ("numbers sent for one that is felt", lambda value: f"{value:.4g} (1 for {1 / value:.3g})"),
        "bytes_per_second": ("sent", lambda value: f"{value / 1e3:.4g} kB a second"),
        "frames": ("frames", lambda value: f"{value:.0f}"),
        "packets_lost": ("packets lost", percent),
        "explained": ("frames explained", percent),
        "force_error_predicted": ("error of forces, predicted", lambda value: f"{value:.2f} N"),
        "force_error_measured": ("error of forces, measured", lambda value: f"{value:.2f} N"),
    }
    return [(words, say(skin[name])) for name, (words, say) in said.items() if skin.get(name) is not None]


@app.command("bench")
def bench(
    robot: Annotated[str, typer.Argument(help="Its name.", autocompletion=options.completing(options.ROBOTS))],
    trials: Annotated[int, typer.Option(help="How many, of seeds that follow each other.")] = 30,
    scenario: _Scenario = None,
    seed: Annotated[int, typer.Option(help="Of the first trial.")] = 1000,
    skin: _Skin = "stiff",
    ratio: _Ratio = 0.0625,
    packet_loss: _Loss = 0.05,
    bar: _Bar = None,
    given: _Set = None,
    jobs: Annotated[int, typer.Option(help="Processes side by side.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Where trials are kept, a line each.", show_default="ROBOT-trials.jsonl here"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run many trials with everything drawn at random, or go on where they were stopped, and count successes.

    Example: persianrug robot bench spot --trials 20 --scenario pull --set force=5 --jobs 2
    """
    from persianrug._support import checks

    found = _robot(robot)
    which, asked = _asked(found, scenario, bar, given)
    count = checks.integer("trials", trials, 1, 1_000_000)
    first = checks.seed(seed)
    checks.seed(first + count - 1)
    checks.integer("jobs", jobs, 1)

    from persianrug.robots.bench import Asked, Trials, default_path, summary
    from persianrug.robots.bench import bench as run
    from persianrug.robots.touching import Touch

    touch = {"skin": skin, "ratio": ratio, "packet_loss": packet_loss}
    # What is wrong with these is said before anything runs.
    found.trials[which].make(first, Touch(**touch), **asked)  # type: ignore[arg-type]
    kept = Trials(out or default_path(robot))
    wanted = [Asked(robot, which, first + k, touch, asked) for k in range(count)]
    with progress_bar(count, f"{robot}, {which}") as shown:
        done = run(wanted, kept, jobs=jobs, progress=_Pace(shown, jobs))
    report = {"robot": robot, "scenario": which, "seed": first, "touch": touch, "options": asked, **summary(done)}
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _tell_trials(report, kept.path)


class _Pace:
    """Says how long a bench will take, once the first trial has shown it."""

    def __init__(self, bar: progress_bar, jobs: int) -> None:
        self.bar, self.jobs, self.told = bar, jobs, False

    def __call__(self, done: int, whole: int, left: float | None) -> None:
        if left is None and done:
            self.bar.say(f"{done} of {whole} trials were done before")
        if left is not None and not self.told and done < whole:
            self.told = True
            more = whole - done
            self.bar.say(f"{more} more trial{'s' * (more > 1)}, about {_long(left)} on {self.jobs} "
                         f"process{'es' * (self.jobs > 1)}")  # fmt: skip
        self.bar.reach(done, whole)


def _long(time: float) -> str:
    return f"{time:.0f} s" if time < 100 else f"{time / 60:.0f} min" if time < 6000 else f"{time / 3600:.1f} h"


def _tell_trials(report: dict[str, Any], path: Path) -> None:
    """What a bench found, in tables."""
    console = make_console()
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "succeeded", "share", "95% interval", "mean time"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)

    def add(name: str, row: dict[str, Any], at: float | None) -> None:
        interval = f"{percent(row['low'])} to {percent(row['high'])}"
        when = "" if at is None else f"{at:.1f} s"
        table.add_row(
            escape(name), f"{row['succeeded']} of {row['trials']}", percent(row["share"]), interval, when
        )

    add(report["scenario"], report, None)
    for name, part in report["parts"].items():
        add(f"  {name}", part, part["at"])
    console.print(table)
    for reason, seeds in report["failed"].items():
        more = f" and {len(seeds) - _MOST_SEEDS} more" if len(seeds) > _MOST_SEEDS else ""
        listed = ", ".join(map(str, sorted(seeds)[:_MOST_SEEDS]))
        console.print(f"failed, seed {listed}{more}: {escape(reason)}")
    if rows := _touch_rows(report["skin"]):
        console.print("; ".join(f"{words}: {value}" for words, value in rows))
    timing = report["timing"]
    if timing["real_time"] is not None:
        console.print(
            f"{timing['real_time']:.2f} simulated seconds in one of computing; the physics alone makes "
            f"{timing['steps_per_second']:.0f} steps a second"
        )
    console.print(f"trials are kept in {escape(str(path))}")


@app.command("list")
def list_robots(
    facts: Annotated[
        bool, typer.Option("--facts", help="What is known of each, and whose its numbers are.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say which robots there are, and what they can be made to do.

    Example: persianrug robot list --facts
    """
    found = [_listed(name) for name in options.ROBOTS]
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = make_console()
    table = Table("robot", "class", "mass", "motors", "taxels", box=SIMPLE_HEAD)
    for told in found:
        sizes = (f"{told['mass']:.1f} kg", str(told["motors"]), str(told["taxels"]))
        table.add_row(told["robot"], escape(told["title"]), *sizes)
    console.print(table)
    table = Table("robot", "scenario", "what it does", "options", "has succeeded if", box=SIMPLE_HEAD)
    for told in found:
        for key, one in told["scenarios"].items():
            given = ", ".join(f"{option}={_default(value)}" for option, value in one["options"].items())
            table.add_row(told["robot"], key, escape(one["what"]), escape(given), escape(one["counts"]))
    console.print(table)
    if facts:
        table = Table("robot", "what", "value", "whose number", box=SIMPLE_HEAD)
        for told in found:
            for fact in told["facts"]:
                value = f"{fact['value']:g} {fact['unit']}".strip()
                table.add_row(told["robot"], escape(fact["what"]), value, escape(fact["source"]))
        console.print(table)


def _listed(name: str) -> dict[str, Any]:
    """A robot, its facts and its scenarios."""
    robot = _robot(name)

    from persianrug.robots.scene import robot_model

    model = robot_model(robot.spec)
    trials = {
        key: {"what": one.what, "options": dict(one.options), "counts": one.counts}
        for key, one in robot.trials.items()
    }
    facts = [{"what": one.what, "value": one.value, "unit": one.unit, "source": one.source} for one in robot.facts]
    return {
        "robot": name,
        "title": robot.spec.title,
        "mass": float(model.body_subtreemass[0]),
        "motors": int(model.nu),
        "taxels": sum(patch.taxels for patch in robot.spec.patches),
        "scenarios": trials,
        "facts": facts,
    }


def _default(value: Any) -> str:
    return "drawn" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
