"""What a robot can feel with."""

import pytest

from persianrug.robots.touching import Touch


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"skin": "fur"}, r"skin is 'fur'; allowed: .*stiff.*soft.*truth"),
        ({"ratio": 0}, r"ratio is 0; allowed: a number from 0.00390625 to 1"),
        ({"ratio": 2}, r"ratio is 2; allowed"),
        ({"packet_loss": 1}, r"packet_loss is 1; allowed: a number in \[0, 1\)"),
        ({"packet_loss": -0.1}, r"packet_loss is -0.1; allowed: a number in \[0, 1\)"),
        ({"delay": -1}, "delay is -1; allowed"),
        ({"delay": 5}, "delay is 5; allowed: seconds, up to 1"),
        ({"rate": 0}, "rate is 0; allowed"),
        ({"rate": float("nan")}, "rate is nan; allowed"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        Touch(**given)
