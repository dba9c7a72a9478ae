"""Decoders: the law against known values and Monte Carlo, the optimum against a general optimiser."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import persianrug as pr
from persianrug.decoders import from_recipe
from persianrug.energy import energy

from .conftest import PARAMETRIC, kinds_for

# p, ratio, linear, ReLU, gain, bias: the law of arXiv 2410.12101, from an independent solution.
TABLE = [
    (0.045, 0.25, 0.010870, 0.0048558, 1.28921, -0.44583),
    (0.01, 0.10, 0.0029775, 0.00099630, 1.5249, -0.59761),
    (0.3, 0.5, 0.038750, 0.030268, 0.83929, -0.10530),
]


@pytest.mark.parametrize(("p", "ratio", "linear", "relu", "gain", "bias"), TABLE)
def test_the_laws_are_the_known_values(p, ratio, linear, relu, gain, bias):
    source = pr.SparseUniform(p)
    sigma = pr.noise_level(source.variance, ratio)
    affine, rectified = pr.Linear().tune(source, sigma), pr.ReLU().tune(source, sigma)
    assert affine.risk(source, sigma) == pytest.approx(linear, rel=1e-4)
    assert affine.risk(source, sigma) == pytest.approx(source.variance * (1 - ratio), rel=1e-12)
    assert (affine.gain, affine.bias) == pytest.approx((ratio, (1 - ratio) * p / 2))
    assert rectified.risk(source, sigma) == pytest.approx(relu, rel=1e-4)
    # The optimum is flat: parameters of theory are good to the digits printed.
    assert (rectified.gain, rectified.bias) == pytest.approx((gain, bias), rel=1e-4)


def level(source, ratio):
    return pr.noise_level(source.variance, ratio)


@pytest.mark.parametrize(
    ("p", "ratio"),
    [(p, ratio) for p in (1e-6, 0.01, 0.3, 0.99) for ratio in (0.001, 0.1, 0.999)] + [(0.045, 0.25), (1.0, 0.5)],
)
def test_tuning_finds_the_optimum(make_source, p, ratio):
    source = make_source(p)
    sigma = level(source, ratio)
    if source.variance == 0:
        assert not any(float(kind().tune(source, sigma).risk(source, sigma)) for kind in kinds_for(source))
        return
    linear = float(pr.Linear().tune(source, sigma).risk(source, sigma))
    scale = math.sqrt(source.second_moment / p)
    for kind in kinds_for(source):
        tuned = kind().tune(source, sigma)
        found = float(tuned.risk(source, sigma))
        assert 0 <= found <= source.variance * (1 + 1e-12) or kind in (pr.ProLU, pr.SoftThreshold)
        for gain, threshold in [(tuned.gain, None), (0.8, 0.3 * scale), (1.5, 2 * sigma), (1.0, 0.5 * scale)]:
            start = parameters(tuned) if threshold is None else parameters(at(kind, gain, threshold))

            def loss(values, kind=kind):
                try:
                    return float(kind(*values).risk(source, sigma)) / linear
                except ValueError:
                    return math.inf

            other = minimize(
                loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 300}
            )
            assert found <= other.fun * linear * (1 + 1e-6) + 1e-20 * linear, (kind, threshold, other.x, tuned)


def parameters(decoder):
    return [value for key, value in decoder.recipe().items() if key != "name"]


def at(kind, gain, threshold):
    """The decoder of a kind that opens at a threshold."""
    return {
        pr.Linear: lambda: pr.Linear(gain, -gain * threshold),
        pr.ReLU: lambda: pr.ReLU(gain, -gain * threshold),
        pr.JumpReLU: lambda: pr.JumpReLU(gain, -0.5 * gain * threshold, threshold),
        pr.Gated: lambda: pr.Gated(gain, -0.5 * gain * threshold, threshold),
        pr.ProLU: lambda: pr.ProLU(gain, threshold),
        pr.SoftThreshold: lambda: pr.SoftThreshold(gain, threshold),
    }[kind]()


@pytest.mark.parametrize("p", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.7])
def test_risk_is_the_mean_squared_error(make_source, p, sigma):
    source = make_source(p)
    generator = torch.Generator().manual_seed(1)
    x = source.sample(1, 400_000, seed=generator, dtype=torch.float64)
    y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    # Also far from the optimum, and with a gain of the other sign.
    for decoder in (
        pr.ReLU(1.3, -0.4),
        pr.ReLU(0.7, 0.1),
        pr.ReLU(-0.5, 0.2),
        pr.ReLU(0, 0.3),
        pr.Linear(0.6, 0.1),
    ):
        errors = (decoder(y) - x).square()
        stderr = errors.std().item() / math.sqrt(x.numel())
        assert errors.mean().item() == pytest.approx(float(decoder.risk(source, sigma)), abs=4 * stderr + 1e-12)


def test_risk_takes_arrays_of_noise():
    source, decoder = pr.SparseUniform(0.1), pr.ReLU(1.2, -0.2)
    sigma = np.array([[0.0, 0.1], [0.2, 0.3]])
    for kind in (decoder, pr.Linear(0.3, 0.1)):
        together = kind.risk(source, sigma)
        assert together.shape == (2, 2)
        assert np.allclose(together, [[float(kind.risk(source, s)) for s in row] for row in sigma], rtol=1e-12)


def test_risk_keeps_its_digits_at_tiny_noise():
    # u - (gain u + bias + s z) is then nearly 0, and u^2 - 2 u R1 + R2 would be rounding errors alone.
    source = pr.SparseUniform(0.1)
    for sigma in (1e-5, 1e-8):
        assert float(pr.ReLU(1.0, -8 * sigma).risk(source, sigma)) == pytest.approx(0.1 * 65 * sigma**2, rel=1e-3)


@pytest.mark.parametrize("kind", PARAMETRIC)
def test_without_noise_nothing_is_lost(kind):
    for source in (pr.SparseUniform(0.2), pr.SparseConstant(0.1), pr.SparseExponential(1.0)):
        tuned = kind().tune(source, 0.0)
        assert float(tuned.risk(source, 0.0)) <= 1e-20
        assert tuned.gain == pytest.approx(1, abs=1e-9) or isinstance(source, pr.SparseConstant)


def test_tuning_to_several_levels_is_best_for_their_mean():
    source, levels = pr.SparseUniform(0.05), np.array([0.05, 0.2, 0.4])
    for kind in (pr.Linear, pr.ReLU):
        tuned = kind().tune(source, levels)
        found = tuned.risk(source, levels).mean()
        for one in levels:
            assert found <= kind().tune(source, one).risk(source, levels).mean() * (1 + 1e-9)
        best = minimize(
            lambda ab, kind=kind: kind(*ab).risk(source, levels).mean(), [tuned.gain, tuned.bias],
            method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14},
        )  # fmt: skip
        assert found <= best.fun * (1 + 1e-6)


class TestEnergy:
    @pytest.mark.parametrize("copies", [1, 10, 100, 8192, 2**20])
    @pytest.mark.parametrize("p", [1e-6, 0.01, 0.2])
    def test_the_interference_gets_its_fourth_cumulant(self, make_source, copies, p):
        source = make_source(p)
        u, w = source.amplitude_nodes(np.zeros(1), np.array(0.0))
        moments = [p * (w @ (u - source.mean) ** k) + (1 - p) * source.mean**k for k in (2, 4)]
        fourth = moments[1] - 3 * moments[0] ** 2
        # An inverse participation that makes a whole number of copies.
        participation = 3 * (1 + 2 * moments[0] ** 2 / fourth) / copies
        spread = energy(source, participation)
        assert (spread.nodes >= 0).all()
        assert spread.weights.sum() == pytest.approx(1)
        mean = spread.weights @ spread.nodes
        assert mean == pytest.approx(source.variance, rel=1e-9)
        # 3 g^2 Var S = k4 sum W^4.
        variance = spread.weights @ (spread.nodes - mean) ** 2
        assert 3 * variance == pytest.approx(fourth * participation, rel=1e-6)

    @pytest.mark.parametrize(("copies", "p"), [(1, 0.3), (20, 0.05), (200, 0.01), (1000, 0.02), (200, 0.25)])
    def test_averages_of_curved_functions_are_sampled_ones(self, make_source, copies, p):
        source = make_source(p)
        x = torch.cat([source.sample(20_000, copies, seed=k, dtype=torch.float64) for k in range(2)])
        sampled = (x - source.mean).square_().mean(1).numpy() ** 0.75
        spread = energy(source, self.participation(source, copies))
        expected = spread.weights @ spread.nodes**0.75
        # The root is not smooth at 0, where rules of 12 nodes miss a little of a single feature's energy.
        slack = 0.003 * expected
        assert sampled.mean() == pytest.approx(expected, abs=4 * sampled.std() / math.sqrt(len(sampled)) + slack)

    @staticmethod
    def participation(source, copies):
        u, w = source.amplitude_nodes(np.zeros(1), np.array(0.0))
        p, mean = source.p, source.mean
        fourth = p * (w @ (u - mean) ** 4) + (1 - p) * mean**4 - 3 * source.variance**2
        return 3 * (1 + 2 * source.variance**2 / fourth) / copies

    def test_a_source_of_light_tails_has_no_spread(self):
        source = pr.SparseConstant(0.5)
        assert energy(source, 0.1).nodes.tolist() == [source.variance]
        assert energy(pr.SparseConstant(1.0), 0.1).nodes.tolist() == [0.0]

    def test_the_limit_is_reached(self):
        source = pr.SparseUniform(0.1)
        model = pr.Autoencoder(pr.Rug(2**20, 2**18), pr.ReLU()).tune(source)
        assert model.law(source) == pytest.approx(model.limit(source), rel=1e-4)

    def test_both_ways_to_sum_over_active_features_agree(self, monkeypatch):
        source = pr.SparseUniform(0.2)
        model = pr.Autoencoder(pr.Rug(4096, 1024), pr.ReLU()).tune(source)
        few = model.law(source)
        monkeypatch.setattr("persianrug.energy._MOST_COUNTS", 10**6)
        assert model.law(source) == pytest.approx(few, rel=1e-6)


@pytest.mark.parametrize("kind", PARAMETRIC)
def test_decoders_differentiate_and_leave_their_input(kind):
    y = torch.randn(3, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    before = y.detach().clone()
    decoder = at(kind, 1.2, 0.1)
    assert torch.autograd.gradcheck(decoder, y)
    assert torch.equal(y.detach(), before)
    gain, above = 1.2, before > 0.1
    expected = {
        "linear": gain * before - 0.12,
        "relu": (gain * before - 0.12).clamp(min=0),
        "jumprelu": (gain * before - 0.06) * above,
        "gated": (gain * before - 0.06).clamp(min=0) * above,
        "prolu": gain * before * above,
        "soft": gain * before.sign() * (before.abs() - 0.1).clamp(min=0),
    }[kind.name]
    assert torch.allclose(decoder(before), expected)
    for value in parameters(decoder):
        assert f"{abs(value):.6g}" in decoder.formula()


@pytest.mark.parametrize("p", [1e-3, 0.045, 0.3])
def test_gated_and_jumprelu_coincide_and_prolu_is_one_without_bias(p):
    for make in (pr.SparseUniform, pr.SparseExponential, pr.SparseConstant):
        source = make(p)
        for ratio in (0.1, 0.25, 0.7):
            sigma = level(source, ratio)
            jump, gated, prolu = (kind().tune(source, sigma) for kind in (pr.JumpReLU, pr.Gated, pr.ProLU))
            assert gated.gain * gated.threshold + gated.bias >= -1e-4
            assert gated.risk(source, sigma) == pytest.approx(float(jump.risk(source, sigma)), rel=1e-9)
            y = torch.linspace(-3, 3, 1001, dtype=torch.float64)
            assert torch.allclose(gated(y), jump(y), atol=1e-4)
            without_bias = pr.JumpReLU(prolu.gain, 0.0, prolu.threshold)
            assert torch.equal(prolu(y), without_bias(y))
            assert prolu.risk(source, sigma) == without_bias.risk(source, sigma)


def test_a_jump_gains_nothing_at_moderate_p_and_much_where_features_are_rare():
    # The ladder relative to Bayes: ReLU's part grows as p -> 0 at a fixed ratio, a jump's does not.
    found = {}
    for p, ratio in [(0.045, 0.25), (0.3, 0.5), (1e-3, 0.25), (1e-6, 0.25)]:
        source = pr.SparseUniform(p)
        sigma = level(source, ratio)
        found[p] = [
            float(kind().tune(source, sigma).risk(source, sigma)) / source.mmse(sigma)
            for kind in (pr.ReLU, pr.JumpReLU)
        ]
    assert found[0.045] == pytest.approx([1.0838, 1.0838], abs=1e-4)
    assert found[0.3] == pytest.approx([1.0475, 1.0475], abs=1e-4)
    assert found[1e-3] == pytest.approx([1.973, 1.084], abs=1e-3)
    assert found[1e-6] == pytest.approx([5.829, 1.007], abs=1e-3)


def test_one_sided_decoders_refuse_signed_sources_and_thresholds_below_zero():
    for source in (pr.SparseGaussian(0.1), pr.Empirical(0.1, [1.0, -0.5])):
        for kind in (pr.ReLU, pr.JumpReLU, pr.Gated, pr.ProLU):
            with pytest.raises(
                ValueError, match=f"source {source.name} is signed; allowed with decoder {kind.name}"
            ):
                kind().tune(source, 0.1)
    for kind in (pr.ProLU, pr.SoftThreshold):
        with pytest.raises(ValueError, match="threshold is"):
            kind(1.0, -0.1)
    with pytest.raises(ValueError, match="gain is"):
        pr.Gated(-1.0, 0.0, 0.0).risk(pr.SparseUniform(0.1), 0.1)


@pytest.mark.parametrize("kind", PARAMETRIC)
def test_recipes_and_bad_parameters(kind):
    decoder = at(kind, 1.25, 0.1)
    assert from_recipe(decoder.recipe()) == decoder
    for bad in (math.nan, math.inf, "x"):
        with pytest.raises(ValueError, match="gain is"):
            kind(bad, 0.0)
        with pytest.raises(ValueError, match=r"(bias|threshold) is"):
            kind(0.0, bad)
    for sigma in (-1.0, math.nan, [0.1, math.inf]):
        with pytest.raises(ValueError, match="sigma is"):
            kind().tune(pr.SparseUniform(0.1), sigma)
    for recipe in ({}, {"name": "nope"}, {"name": kind.name, "x": 1}):
        with pytest.raises(ValueError, match="decoder"):
            from_recipe(recipe)
