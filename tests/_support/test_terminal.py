"""How far something is off, as commands say it."""

import pytest

from persianrug._support.terminal import off_by


@pytest.mark.parametrize(
    ("found", "predicted", "said"),
    [(1.5, 1.0, "+50.0%"), (0.5, 1.0, "-50.0%"), (0.0, 2.0, "-100.0%"), (100.0, 1.0, "+9900.0%"),
     (100.1, 1.0, ">100x"), (1e300, 1e-300, ">100x"), (0.1, 0.0, None), (0.0, 0.0, None)],
)  # fmt: skip
def test_how_far_it_is_off(found, predicted, said):
    assert off_by(found, predicted) == said


def test_with_more_digits():
    assert off_by(1.00123, 1.0, 2) == "+0.12%"
