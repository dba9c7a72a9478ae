"""A robot of Handle's class: wheels on legs."""

from persianrug.robots.driving import Roller
from persianrug.robots.handle.facts import FACTS
from persianrug.robots.handle.spec import SPEC
from persianrug.robots.robot import Robot, Trial

ROLLER = Roller(SPEC, height=1.05)

_BEHIND = "it is behind what was in its way"

ROBOT = Robot(
    spec=SPEC,
    facts=FACTS,
    trials={
        "drive": Trial.of(
            ROLLER.drive,
            "drives fast, or round",
            "its mean speed and turning are within 10% of what was asked",
            speed=4.0,
            turn=0.0,
            seconds=10.0,
        ),
        "push": Trial.of(ROLLER.push, "is pushed", "it has not fallen 4 s later", impulse=60.0, speed=0.0),
        "bump": Trial.of(ROLLER.bump, "drives over a bump that it does not see", _BEHIND, height=0.05, speed=1.5),
        "ramp": Trial.of(ROLLER.ramp, "drives up a ramp and down again", _BEHIND, degrees=15.0, speed=1.0),
        "jump": Trial.of(
            ROLLER.jump,
            "jumps and lands",
            "its wheels were as high as asked, and it stands 2.5 s later",
            height=0.35,
            push_off=10.0,
        ),
    },
)
