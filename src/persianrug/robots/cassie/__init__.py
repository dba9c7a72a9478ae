"""A robot of Cassie's class: a biped with line feet and leaf springs."""

from persianrug.robots.cassie.facts import FACTS
from persianrug.robots.cassie.spec import SPEC
from persianrug.robots.robot import Robot, Trial
from persianrug.robots.steps import Steps
from persianrug.robots.walking import BEHIND, STANDS, WALKED, Walker

STEPS = Steps(
    time=0.36,
    double=0.04,
    width=0.26,
    height=SPEC.height,
    sole=((-0.05, 0.05), (0.0, 0.0)),
    reach=((-0.5, 0.55), (0.12, 0.6)),
    lift=0.10,
    loading=0.015,
    landing=0.01,
    stands=False,
)
WALKER = Walker(SPEC, STEPS, foot=0.107)

ROBOT = Robot(
    spec=SPEC,
    facts=FACTS,
    trials={
        "walk": Trial.of(
            WALKER.walk,
            "walks",
            WALKED,
            speed=0.5,
            turn=0.0,
            seconds=60.0,
        ),
        "push": Trial.of(WALKER.push, "walks and is pushed", STANDS, impulse=10.0, speed=0.5),
        "slabs": Trial.of(
            WALKER.slabs,
            "walks over slabs that it does not see",
            BEHIND,
            height=0.08,
            speed=0.5,
            clock=False,
        ),
    },
)
