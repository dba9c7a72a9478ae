"""A robot that ships: its data, where they are from, and what it can be made to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from persianrug.robots.facts import Fact
from persianrug.robots.scenario import Scenario
from persianrug.robots.spec import RobotSpec


@dataclass(frozen=True)
class Trial:
    """A kind of scenario.

    Parameters
    ----------
    what : str
        One line for users.
    make : callable
        `make(seed, touch, **options)` is a scenario with everything drawn from the seed.
    options : mapping
        What else it takes, with defaults.
    counts : str
        When it has succeeded, beside that the robot did not fall: of the truth, not of what it felt.
    """

    what: str
    make: Callable[..., Scenario]
    options: Mapping[str, Any]
    counts: str

    @classmethod
    def of(cls, make: Callable[..., Scenario], what: str, counts: str, **options: Any) -> Trial:
        """One whose options have defaults of its own, whatever those of `make` are."""
        return cls(what, lambda seed, touch, **given: make(seed, touch, **(options | given)), options, counts)


@dataclass(frozen=True)
class Robot:
    """A robot that ships.

    Parameters
    ----------
    spec : RobotSpec
    facts : tuple of Fact
    trials : mapping of str to Trial
        By name; the first is what it does where users do not say.
    """

    spec: RobotSpec
    # Their texts are long.
    facts: tuple[Fact, ...] = field(repr=False)
    trials: Mapping[str, Trial] = field(repr=False)
