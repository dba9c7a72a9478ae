"""A robot of Handle's class: wheels on legs."""

from persianrug.robots.driving import Roller
from persianrug.robots.handle.facts import FACTS
from persianrug.robots.handle.spec import SPEC
from persianrug.robots.robot import Robot

ROLLER = Roller(SPEC, height=1.05)

ROBOT = Robot(
    spec=SPEC,
    facts=FACTS,
    trials={
        "drive": ROLLER.trial(ROLLER.drive, "drives fast, or round", speed=4.0, turn=0.0, seconds=10.0),
        "push": ROLLER.trial(ROLLER.push, "is pushed", impulse=60.0, speed=0.0),
        "bump": ROLLER.trial(ROLLER.bump, "drives over a bump that it does not see", height=0.05, speed=1.5),
        "ramp": ROLLER.trial(ROLLER.ramp, "drives up a ramp and down again", degrees=15.0, speed=1.0),
        "jump": ROLLER.trial(ROLLER.jump, "jumps and lands", height=0.35, push_off=10.0),
    },
)
