"""A quadruped of SpotMini's class."""

from persianrug.robots.robot import Robot, Trial
from persianrug.robots.spot import trials
from persianrug.robots.spot.facts import FACTS
from persianrug.robots.spot.spec import SPEC

ROBOT = Robot(
    spec=SPEC,
    facts=FACTS,
    trials={
        "fetch": Trial(
            "crosses a bar, picks up a can and hands it over", trials.fetch, {"bar": None, "manner": "takes"}
        ),
        "pick": Trial("picks up a can", trials.pick, {"error": 0.01}),
        "pull": Trial("hands a can to a person who pulls", trials.pull, {"force": 10.0, "manner": "takes"}),
        "bar": Trial("crosses a bar", trials.bar, {"height": 0.10, "known": True}),
        "speed": Trial("trots fast", trials.speed, {"speed": 1.2}),
        "push": Trial("trots and is pushed", trials.push, {"impulse": 40.0}),
    },
)
