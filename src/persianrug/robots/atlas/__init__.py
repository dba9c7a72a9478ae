"""A robot of Atlas's class: a humanoid with flat soles."""

from persianrug.robots.atlas.facts import FACTS
from persianrug.robots.atlas.spec import SPEC
from persianrug.robots.robot import Robot, Trial
from persianrug.robots.steps import Steps
from persianrug.robots.walking import BEHIND, STANDS, WALKED, Walker

STEPS = Steps(
    time=0.45,
    double=0.08,
    width=0.20,
    height=SPEC.height,
    sole=((-0.09, 0.09), (-0.035, 0.035)),
    reach=((-0.45, 0.5), (0.13, 0.55)),
    lift=0.07,
)
WALKER = Walker(SPEC, STEPS, foot=0.125)

ROBOT = Robot(
    spec=SPEC,
    facts=FACTS,
    trials={
        "walk": Trial.of(
            WALKER.walk,
            "walks",
            WALKED,
            speed=0.4,
            turn=0.0,
            seconds=60.0,
        ),
        "push": Trial.of(WALKER.push, "is pushed, walking or standing", STANDS, impulse=40.0, speed=0.4),
        "obstacle": Trial.of(
            WALKER.obstacle,
            "crosses a bar or a platform that it sees",
            BEHIND,
            height=0.08,
            depth=0.05,
            speed=0.4,
        ),
        "slabs": Trial.of(
            WALKER.slabs,
            "walks over slabs that it does not see",
            BEHIND,
            height=0.05,
            speed=0.4,
            clock=False,
        ),
        "squat": Trial.of(WALKER.squat, "squats", "it was as low as asked, and stands", height=0.70),
    },
)
