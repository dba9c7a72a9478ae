"""A pull is felt, and what is none is not."""

import numpy as np
import pytest

from persianrug.robots.pull import PullDetector

AXIS = np.array([1.0, 0.0, 0.0])
DT = 0.004


def felt_after(force_of_time, seconds=6.0, noise=0.3):
    """When a pull is felt, in seconds after the third, or None."""
    random = np.random.default_rng(0)
    detector = PullDetector()
    for tick in range(int(seconds / DT)):
        time = tick * DT - 3
        if detector.update(np.array(force_of_time(time)) + noise * random.normal(size=3), AXIS, DT):
            return time
    return None


@pytest.mark.parametrize("force", [3.0, 5.0])
def test_a_weak_pull_is_held(force):
    assert felt_after(lambda t: (force * (t > 0), 0, -3.6)) is None


@pytest.mark.parametrize("force", [10.0, 15.0, 25.0])
def test_a_pull_is_felt_soon(force):
    after = felt_after(lambda t: (force * min(max(t / 0.1, 0), 1), 0, -3.6))
    assert after is not None
    assert 0 < after < 0.3


@pytest.mark.parametrize(
    "change", [(-20.0, 0, 0), (0, 0, 15.0), (0, 0, -15.0), (0, 12.0, 0)], ids=["push", "lift", "press", "side"]
)
def test_what_is_no_pull(change):
    assert felt_after(lambda t: np.array([0, 0, -3.6]) + np.array(change) * (t > 0)) is None


def test_what_changes_slowly_is_no_pull():
    assert felt_after(lambda t: (0.5 * max(t, 0), 0, 0), seconds=9.0) is None


def test_a_jolt_is_no_pull():
    assert felt_after(lambda t: (20.0 * (0 < t < 0.012), 0, 0)) is None


def test_it_begins_anew():
    detector = PullDetector()
    for _ in range(500):
        detector.update(np.array([9.0, 0, 0]), AXIS, DT)
    assert abs(detector.pull) < 0.1
    detector.reset()
    assert not detector.update(np.array([30.0, 0, 0]), AXIS, DT)
