"""What is printed of robots and scenarios says which they are, in a line."""

import pytest

from persianrug.robots.registry import ROBOTS
from persianrug.robots.touching import Touch


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_are_printed_in_a_line(name):
    text = repr(ROBOTS[name])
    assert f"name='{name}'" in text
    assert len(text) < 200


def test_scenarios_are_printed_in_a_line():
    text = repr(ROBOTS["spot"].trials["speed"].make(3, Touch("truth")))
    assert text.startswith("Scenario(name='speed'")
    assert "seed=3" in text
    assert len(text) < 300
