"""What a stream of recorded frames is measured to lose, and what is planned."""

import numpy as np
import pytest

from persianrug.skin import Frames, Layout, SkinProfile, bench, make_plan
from persianrug.skin.benchmark import _stderr
from tests.cli.skins import SIDE, blobs


@pytest.fixture(scope="module")
def profile():
    return SkinProfile.fit(Frames(blobs(200), 0.01 * np.arange(200)), Layout.plane(SIDE, SIDE, 0.01))


def test_what_is_measured_is_what_each_frame_gives(profile):
    seen = []
    found = bench(
        profile,
        Frames(blobs(60)),
        ratio=4,
        noise=0.02,
        packet_loss=0.5,
        packets=2,
        each=lambda *one: seen.append(one),
    )
    assert [place for place, *_ in seen] == list(range(60))
    lost, energy, right, touched = 0.0, 0.0, 0, 0
    last = np.zeros((SIDE**2, 1))
    for place, true, estimate in seen:
        assert np.array_equal(true.ravel(), blobs(60)[place])
        last = last if estimate is None else estimate.x
        error = np.square(last - true.astype(float)).sum()
        lost, energy = lost + error, energy + np.square(true.astype(float)).sum()
        if true.any():
            touched += 1
            right += estimate is not None and error <= 0.05**2 * np.square(true.astype(float)).sum()
    assert found.lost == sum(estimate is None for *_, estimate in seen) > 5
    assert found.measured_error == pytest.approx((lost / energy) ** 0.5, rel=1e-5)
    assert (found.touched, found.share_within_5_percent) == (touched, pytest.approx(right / touched))


def test_noise_is_added_and_told(profile):
    errors = [bench(profile, Frames(blobs(60)), ratio=2, noise=noise).measured_error for noise in (0, 0.03, 0.1)]
    assert errors[0] < errors[1] < errors[2] < 0.2
    # Told of it, the decoder does not take it for touch.
    empty = bench(profile, Frames(np.zeros((20, SIDE**2))), ratio=2, noise=0.1)
    assert empty.empty_right >= 0.85
    assert empty.explained == 1.0


def test_what_is_planned_is_what_is_sent(profile):
    for ratio, bits, packets in ((4, 12, 8), (3, 5, 1), (200, 16, 4)):
        plan = make_plan(profile, ratio=ratio, bits=bits, packets=packets)
        found = bench(profile, Frames(blobs(3)), ratio=ratio, bits=bits, packets=packets)
        assert (plan.bytes_per_frame, plan.packets_per_frame) == (found.bytes_per_frame, found.packets_per_frame)
        assert plan.bytes_per_second == pytest.approx(100 * plan.bytes_per_frame)


def test_a_plan_is_of_a_ratio_or_of_an_error(profile):
    for options in ({}, {"ratio": 4.0, "target_error": 0.1}):
        with pytest.raises(ValueError, match="allowed: one of them"):
            make_plan(profile, **options)


def test_standard_errors_are_those_of_independent_runs():
    rng = np.random.default_rng(0)
    found, values = [], []
    for _ in range(300):
        # Runs of 10 frames that are all alike.
        top = np.repeat(rng.exponential(size=20), 10)
        found.append(_stderr(top, np.ones(200), np.sqrt))
        values.append(np.sqrt(top.mean()))
    assert np.mean(found) == pytest.approx(np.std(values), rel=0.1)
    assert _stderr(np.ones(1), np.ones(1)) is None
    assert _stderr(np.zeros(40), np.zeros(40)) is None
