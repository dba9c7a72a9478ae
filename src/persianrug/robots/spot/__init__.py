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
            "crosses a bar, picks up a can and hands it over", trials.fetch, {"bar": None, "manner": "takes"},
            "the person has the can; or it stands where it stood, if nobody comes",
        ),
        "pick": Trial("picks up a can", trials.pick, {"error": 0.01}, "the can is 5 cm higher than it stood"),
        "pull": Trial(
            "hands a can to a person who pulls", trials.pull, {"force": 10.0, "manner": "takes"},
            "it lets go within 0.3 s of the pull; below 8 N, and if nobody comes, it holds on",
        ),
        "bar": Trial("crosses a bar", trials.bar, {"height": 0.10, "known": True}, "it is 0.8 m behind the bar"),
        "speed": Trial("trots fast", trials.speed, {"speed": 1.2}, "the mean of 4 s is within 10% of the speed"),
        "push": Trial("trots and is pushed", trials.push, {"impulse": 40.0}, "it still trots 4 s later"),
    },
)  # fmt: skip
