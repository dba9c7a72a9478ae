"""Simulated robots: how often they succeed, over which bars, at which pulls, and through how small a code.

    python -m benchmarks.robots [--only TABLES] [--first SEED] [--trials N] [--jobs N] [--kept FILE]

Tables of the quadruped: s the whole story, through the skin and with true contacts; g the gait; h the hand; p
pulls; c smaller codes; l lost packets. Of the others: k a biped with line feet; a a humanoid; w one on wheels.
Trials are kept in FILE, one line each, and a bench that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from persianrug.robots.bench import Asked, Trials, bench, summary

THROUGH_SKIN: dict[str, Any] = {"skin": "stiff", "ratio": 0.0625, "packet_loss": 0.05}
TRUTH = THROUGH_SKIN | {"skin": "truth"}
HEADS = (
    f"\n{'':44}{'done':>9} {'95% interval':>14} {'asked':>6} {'error in N':>14} {'pull':>8} {'rate':>5} {'99%':>7}"
)
# What is run: title, scenario, options, how it feels, how many trials, and how many of them should succeed.
Row = tuple[str, str, dict[str, Any], dict[str, Any], int, int | None]
ROBOTS = {"k": "cassie", "a": "atlas", "w": "handle"}
TABLES: dict[str, list[Row]] = {
    "s": [
        ("story, skin 16:1, 5% lost, 8 ms", "fetch", {}, THROUGH_SKIN, 30, 27),
        ("story, true contacts", "fetch", {}, TRUTH, 30, 29),
    ],
    "g": [
        ("known bar of 10 cm", "bar", {"height": 0.10}, THROUGH_SKIN, 20, 19),
        ("known bar of 15 cm", "bar", {"height": 0.15}, THROUGH_SKIN, 20, 19),
        ("unknown bar of 8 cm", "bar", {"height": 0.08, "known": False}, THROUGH_SKIN, 20, 19),
        ("1.2 m/s", "speed", {"speed": 1.2}, THROUGH_SKIN, 20, None),
        ("push of 40 N s from the side", "push", {"impulse": 40.0}, THROUGH_SKIN, 20, 19),
    ],
    "h": [("pick-up, seen 1 cm wrong", "pick", {"error": 0.01}, THROUGH_SKIN, 20, 19)],
    "p": [
        ("pull of 3 N, held for 4 s", "pull", {"force": 3.0}, THROUGH_SKIN, 20, 19),
        ("pull of 5 N, held for 4 s", "pull", {"force": 5.0}, THROUGH_SKIN, 20, 19),
        ("pull of 10 N, let go within 0.3 s", "pull", {"force": 10.0}, THROUGH_SKIN, 20, 19),
        ("pull of 25 N, let go within 0.3 s", "pull", {"force": 25.0}, THROUGH_SKIN, 20, 19),
        (
            "pushed for 2 s, then pulled with 15 N",
            "pull",
            {"force": 15.0, "manner": "pushes"},
            THROUGH_SKIN,
            20,
            19,
        ),
        (
            "lifted for 2 s, then pulled with 15 N",
            "pull",
            {"force": 15.0, "manner": "lifts"},
            THROUGH_SKIN,
            20,
            19,
        ),
    ],
    "c": [
        (f"{ratio}:1", "pull", {"force": 15.0}, THROUGH_SKIN | {"ratio": 1 / ratio}, 6, None)
        for ratio in (4, 8, 16, 24, 32, 48, 64)
    ],
    "l": [
        (f"{loss:.0%} lost", "pull", {"force": 15.0}, THROUGH_SKIN | {"packet_loss": loss}, 6, None)
        for loss in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
    ],
    "k": [
        ("push of 10 N s", "push", {"impulse": 10.0}, THROUGH_SKIN, 20, 19),
        ("push of 20 N s", "push", {"impulse": 20.0}, THROUGH_SKIN, 20, 17),
        ("slabs up to 8 cm that it does not see", "slabs", {"height": 0.08}, THROUGH_SKIN, 20, 19),
        ("the same by the clock alone", "slabs", {"height": 0.08, "clock": True}, THROUGH_SKIN, 20, None),
        ("0.9 m/s for 10 s", "walk", {"speed": 0.9, "seconds": 10.0}, THROUGH_SKIN, 10, 9),
        ("turning at 0.4 rad/s for 10 s", "walk", {"turn": 0.4, "seconds": 10.0}, THROUGH_SKIN, 10, 9),
        ("0.5 m/s for 60 s", "walk", {"speed": 0.5}, THROUGH_SKIN, 20, 19),
    ],
    "a": [
        ("push of 40 N s while walking", "push", {"impulse": 40.0}, THROUGH_SKIN, 20, 19),
        ("push of 30 N s while standing", "push", {"impulse": 30.0, "speed": 0.0}, THROUGH_SKIN, 10, 9),
        ("platform of 10 cm, up and down", "obstacle", {"height": 0.10, "depth": 1.0}, THROUGH_SKIN, 20, 19),
        ("bar of 8 cm", "obstacle", {"height": 0.08, "depth": 0.05}, THROUGH_SKIN, 20, 19),
        ("slabs up to 5 cm that it does not see", "slabs", {"height": 0.05}, THROUGH_SKIN, 20, 19),
        ("the same, true contacts", "slabs", {"height": 0.05}, TRUTH, 20, None),
        ("squat to 0.70 m and up", "squat", {"height": 0.70}, THROUGH_SKIN, 10, 9),
        ("0.7 m/s for 10 s", "walk", {"speed": 0.7, "seconds": 10.0}, THROUGH_SKIN, 10, 9),
        ("0.4 m/s for 60 s", "walk", {"speed": 0.4}, THROUGH_SKIN, 20, 19),
    ],
    "w": [
        ("4 m/s", "drive", {"speed": 4.0}, THROUGH_SKIN, 20, 19),
        ("1 rad/s at 2 m/s", "drive", {"speed": 2.0, "turn": 1.0}, THROUGH_SKIN, 20, 19),
        ("push of 60 N s", "push", {"impulse": 60.0}, THROUGH_SKIN, 20, 19),
        ("bump of 5 cm", "bump", {"height": 0.05}, THROUGH_SKIN, 20, 19),
        ("bump of 10 cm", "bump", {"height": 0.10}, THROUGH_SKIN, 20, None),
        ("ramp of 15 degrees", "ramp", {"degrees": 15.0}, THROUGH_SKIN, 20, 19),
        ("jump of 0.35 m", "jump", {"height": 0.35}, THROUGH_SKIN, 20, 19),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="".join(TABLES))
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--trials", type=int, help="of each row, if it has more")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kept", type=Path, default=Path("out/robots.jsonl"))
    given = parser.parse_args()
    given.kept.parent.mkdir(parents=True, exist_ok=True)
    trials = Trials(given.kept)
    for name in given.only:
        print(HEADS)
        for title, scenario, options, touch, count, asked in TABLES[name]:
            robot, most = ROBOTS.get(name, "spot"), min(count, given.trials or count)
            wanted = [Asked(robot, scenario, given.first + k, touch, options) for k in range(most)]
            found = bench(wanted, trials, jobs=given.jobs, progress=lambda *_: None)
            _tell(title, summary(found), found, asked)


def _tell(title: str, told: dict[str, Any], found: list[dict[str, Any]], asked: int | None) -> None:
    delays = [one["drawn"]["after"] for one in found if (one.get("drawn") or {}).get("after") is not None]
    delay = f"{sum(delays) / len(delays):.3f} s" if delays else ""
    skin, timing = told["skin"], told["timing"]
    error = ""
    if skin["force_error_measured"] is not None:
        error = f"{skin['force_error_predicted']:.3f} {skin['force_error_measured']:.3f}"
    print(
        f"{title:44}{told['succeeded']:>3} of {told['trials']:<2} {told['low']:>6.0%} to {told['high']:<4.0%} "
        f"{asked or '':>6} {error:>14} {delay:>8} {timing['real_time'] or 0:>5.2f} "
        f"{1e3 * (timing['control_p99'] or 0):>4.1f} ms"
    )
    for reason, seeds in told["failed"].items():
        print(f"    {reason}: {', '.join(map(str, seeds))}")


if __name__ == "__main__":
    main()
