"""`examples/cells.py` as a process: its table, and what it says of sums."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

# The steps of docs/sketches.md do the same to fewer sizes and decoders, and are run by test_tutorial.
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "cells.py"


@pytest.fixture(scope="module")
def said():
    result = subprocess.run(
        [sys.executable, SCRIPT], timeout=300, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    return result.stdout


def test_losses_are_expected(said):
    rows = [line.split() for line in said.splitlines() if re.match(r"\s+0\.\d+\s+(relu|bayes|oamp)", line)]
    assert len(rows) == 9
    for _, decoder, law, expected, measured, stderr, pca in rows:
        law, expected, measured, stderr, pca = map(float, (law, expected, measured, stderr, pca))
        if decoder == "oamp":
            # What is lost is lost by the few cells that are not recovered.
            assert abs(measured - expected) < 0.1 * expected + 4 * stderr
        else:
            assert measured == pytest.approx(expected, rel=0.05)
            assert measured == pytest.approx(law, rel=0.05)
        assert 0 < pca < 0.6


def test_sums_of_codes_tell_of_groups(said):
    loss, variance, one_by_one = map(
        float, re.search(r"loss (\S+) of a variance of (\S+);.*: (\S+)", said).groups()
    )
    assert loss < 0.7 * variance
    # Each code opened tells more, as it must.
    assert one_by_one < loss
    shared = float(re.search(r"(\S+) are among the 20 strongest", said)[1])
    assert 10 < shared <= 20
