"""Bounds of the ReLU law against the law itself."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

import persianrug as pr
from persianrug.decoders import relu_bounds, relu_scaling

RATIOS = [0.01, 0.1, 0.25, 0.5, 0.9, 0.99]


def law(source, sigma):
    return float(pr.ReLU().tune(source, sigma).risk(source, sigma))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("p", [1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9])
def test_law_lies_between_its_bounds(p, ratio):
    source = pr.SparseUniform(p)
    sigma = pr.noise_level(source.variance, ratio)
    lower, upper = relu_bounds(source, sigma)
    least = law(source, sigma)
    # The slack is for what rounding, and what the search leaves above the least risk, which is up to 1e-6.
    assert 0 <= lower <= least * (1 + 1e-9)
    assert least <= upper * (1 + 1e-6)


def test_no_gain_and_bias_are_below_the_lower_bound():
    rng = np.random.default_rng(0)
    source = pr.SparseUniform(1e-2)
    sigma = pr.noise_level(source.variance, 0.25)
    lower, _ = relu_bounds(source, sigma)
    gains, biases = rng.normal(1.0, 1.0, 300), rng.normal(0.0, 0.4, 300)
    risks = [float(pr.ReLU(gain, bias).risk(source, sigma)) for gain, bias in zip(gains, biases, strict=True)]
    assert min(risks) >= lower


@pytest.mark.parametrize(
    ("p", "ratio", "gap"),
    [
        (1e-4, 0.1, 0.145),
        (1e-6, 0.1, 0.0183),
        (1e-8, 0.1, 2.23e-3),
        (1e-4, 0.25, 0.0808),
        (1e-6, 0.25, 0.01053),
        (1e-8, 0.25, 1.284e-3),
    ],
)
def test_bounds_tighten(p, ratio, gap):
    source = pr.SparseUniform(p)
    sigma = pr.noise_level(source.variance, ratio)
    lower, upper = relu_bounds(source, sigma)
    assert upper / lower == pytest.approx(1 + gap, abs=0.01 * gap)
    # The lower bound is the law but for exponentially little.
    assert lower == pytest.approx(law(source, sigma), rel=2e-6)


@pytest.mark.parametrize("ratio", RATIOS)
def test_gap_is_of_first_order_in_the_threshold(ratio):
    p = 1e-14
    sigma = pr.noise_level(pr.SparseUniform(p).variance, ratio)
    lower, upper = relu_bounds(pr.SparseUniform(p), sigma)

    def f(c):
        return c * c / 4 + (1 - p) / p * ((1 + c * c) * ndtr(-c) - c * np.exp(-c * c / 2) / math.sqrt(2 * math.pi))

    least = minimize_scalar(f, bounds=(1, 12), method="bounded", options={"xatol": 1e-8})
    c, scaled = least.x, 1 + least.fun
    assert lower / (p * sigma**2) == pytest.approx(scaled, rel=10 * c * sigma)
    assert (upper / lower - 1) / sigma == pytest.approx(2 * (c**3 + 3 * c) / 3 / scaled, rel=1e-3)


def test_bounds_scale_with_the_source():
    one = relu_bounds(pr.SparseUniform(1e-3), 0.03)
    assert relu_bounds(pr.SparseUniform(1e-3, scale=20.0), 0.6) == pytest.approx([400 * bound for bound in one])


def test_upper_bound_of_features_always_active_is_the_linear_law():
    source = pr.SparseUniform(1.0)
    v, sigma = source.variance, 0.2
    assert relu_bounds(source, sigma)[1] == pytest.approx(v * sigma**2 / (v + sigma**2), rel=1e-12)


@pytest.mark.parametrize("sigma", [1e-30, 1e-12, 1e12, 1e30])
def test_bounds_at_extreme_noise(sigma):
    source = pr.SparseUniform(0.01)
    lower, upper = relu_bounds(source, sigma)
    assert 0 <= lower <= upper <= source.variance * (1 + 1e-12)
    if sigma < 1:
        assert upper == pytest.approx(lower, rel=1e-10)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.9])
def test_scaling_is_the_law_of_rare_features(ratio):
    def deviation(p):
        source = pr.SparseUniform(p)
        return abs(law(source, pr.noise_level(source.variance, ratio)) / relu_scaling(p, ratio) - 1)

    assert deviation(1e-8) < 5e-4
    assert deviation(1e-6) < 5e-3
    assert deviation(1e-4) < 0.05
    assert deviation(1e-3) > 5e-3


def test_scaling_is_a_quarter_of_the_squared_threshold():
    # c^2 = 2 log(1 / p) less logarithms of it, here of the second order.
    p, ratio = 1e-30, 0.5
    loss = relu_scaling(p, ratio) / (p * pr.SparseUniform(p).variance)
    c2 = 2 * math.log(1 / p)
    c2 -= 3 * math.log(c2) + math.log(2 * math.pi / 16)
    assert loss == pytest.approx(1 + c2 / 4 + 1 / 2, rel=3e-3)


def test_nothing_is_lost_at_ratio_one():
    assert relu_scaling(0.1, 1.0) == 0


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 1e31, "1"])
def test_bounds_refuse_bad_noise(sigma):
    with pytest.raises(ValueError, match="sigma is"):
        relu_bounds(pr.SparseUniform(0.1), sigma)


@pytest.mark.parametrize("source", [pr.SparseExponential(0.1), pr.SparseUniform(np.array([0.1, 0.2])), None])
def test_bounds_refuse_other_sources(source):
    with pytest.raises(ValueError, match="allowed: SparseUniform"):
        relu_bounds(source, 0.1)


@pytest.mark.parametrize(
    ("p", "ratio"), [(0.0, 0.5), (1.5, 0.5), (math.nan, 0.5), (0.1, 0.0), (0.1, 1.1), (1e-31, 0.5)]
)
def test_scaling_refuses_bad_arguments(p, ratio):
    with pytest.raises(ValueError, match="allowed: a number"):
        relu_scaling(p, ratio)
