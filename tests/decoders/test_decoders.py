"""Decoders: the law against known values and Monte Carlo, the optimum against a general optimiser."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import persianrug as pr
from persianrug.decoders import from_recipe
from persianrug.encoders.energy import energy
from tests.conftest import PARAMETRIC, kinds_for

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
        monkeypatch.setattr("persianrug.encoders.energy._MOST_COUNTS", 10**6)
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


class TestTopK:
    @pytest.mark.parametrize(("p", "ratio"), [(0.01, 0.1), (0.045, 0.25), (0.3, 0.5)])
    def test_in_the_limit_it_is_a_jumprelu(self, p, ratio):
        source = pr.SparseUniform(p)
        rug = pr.Rug.of_ratio(1 << 30, ratio)
        topk, jump = pr.TopK().adapt(source, rug), pr.JumpReLU().adapt(source, rug)
        assert float(topk.limit(source, rug)) == pytest.approx(float(jump.limit(source, rug)), rel=1e-6)
        assert (topk.gain, topk.bias) == pytest.approx((jump.gain, jump.bias), rel=1e-3)

    @pytest.mark.parametrize(("n", "p", "ratio"), [(8192, 0.045, 0.25), (1000, 0.01, 0.25), (512, 0.3, 0.5)])
    @pytest.mark.parametrize("make", [pr.SparseUniform, pr.SparseConstant, pr.SparseExponential])
    def test_the_law_knows_that_k_is_fixed_and_the_active_features_are_not(self, n, p, ratio, make):
        source = make(p)
        model = pr.Autoencoder(pr.Rug.of_ratio(n, ratio), pr.TopK()).tune(source)
        result = model.measure(source, samples=(1 << 22) // n)
        law = model.law(source)
        assert abs(result.loss - law) < 4 * result.stderr + 0.02 * law + 1e-9
        if n == 8192:
            # A threshold, which lets the number vary, does better; of few features it cannot follow their energy.
            assert law > pr.Autoencoder(model.encoder, pr.JumpReLU()).tune(source).law(source)

    @pytest.mark.parametrize("k", [1, 7, 200, 512])
    def test_k_can_be_given(self, k):
        source = pr.SparseUniform(0.1)
        model = pr.Autoencoder(pr.Rug(512, 128), pr.TopK(k)).tune(source)
        x = source.sample(64, 512, seed=0)
        y = model.encoder.estimate(model.encode(x), source.mean)
        x_hat = model(x)
        kept = x_hat != 0
        assert (kept.sum(1) == k).all()
        largest = y.topk(k).values.min(1, keepdim=True).values
        assert torch.equal(kept, y >= largest)
        assert torch.allclose(x_hat[kept], model.decoder.gain * y[kept] + model.decoder.bias)
        result = model.measure(source, samples=4096)
        assert result.loss == pytest.approx(model.law(source), rel=0.03)
        if k == 512:
            # All of them: an affine decoder.
            assert model.law(source) == pytest.approx(
                pr.Autoencoder(model.encoder, pr.Linear()).tune(source).law(source)
            )

    def test_bad_arguments(self):
        for k in (0, -1, 2.5, "3"):
            with pytest.raises(ValueError, match="k is"):
                pr.TopK(k)
        rug = pr.Rug(16, 8)
        with pytest.raises(ValueError, match="k is 17; allowed: an integer from 1 to 16"):
            pr.TopK(17).adapt(pr.SparseUniform(0.1), rug)
        with pytest.raises(ValueError, match="is signed; allowed with decoder topk"):
            pr.TopK().adapt(pr.SparseGaussian(0.1), rug)
        with pytest.raises(ValueError, match="features that differ; allowed with decoder topk: alike"):
            pr.TopK().adapt(pr.SparseUniform(np.linspace(0.1, 0.2, 16)), rug)

    def test_it_differentiates(self):
        model = pr.Autoencoder(pr.Rug(12, 6), pr.TopK(4)).tune(pr.SparseUniform(0.3))
        z = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        assert torch.autograd.gradcheck(model.decode, z)


class TestBayes:
    @pytest.mark.parametrize("p", [1e-3, 0.1, 0.9])
    @pytest.mark.parametrize("ratio", [0.1, 0.5])
    def test_its_risk_is_the_mmse_and_no_other_decoder_goes_below(self, make_source, p, ratio):
        source = make_source(p)
        sigma = level(source, ratio)
        bayes = pr.Bayes().tune(source, sigma)
        assert float(bayes.risk(source, sigma)) == pytest.approx(source.mmse(sigma), rel=1e-9)
        for kind in kinds_for(source):
            floor = float(kind().tune(source, sigma).risk(source, sigma))
            assert float(bayes.risk(source, sigma)) <= floor * (1 + 1e-6) + 1e-30

    @pytest.mark.parametrize("sigma", [0.05, 0.3])
    def test_risk_at_other_noise_and_another_source(self, make_source, sigma):
        source = make_source(0.1)
        bayes = pr.Bayes(pr.SparseUniform(0.2, scale=2.0), 0.15)
        generator = torch.Generator().manual_seed(0)
        x = source.sample(1, 300_000, seed=generator, dtype=torch.float64)
        y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        errors = (bayes(y) - x).square()
        stderr = errors.std().item() / math.sqrt(x.numel())
        assert float(bayes.risk(source, sigma)) == pytest.approx(errors.mean().item(), abs=4 * stderr + 1e-12)

    def test_without_noise_it_is_exact_and_it_differentiates(self):
        for source in (pr.SparseUniform(0.2), pr.SparseGaussian(0.3), pr.SparseConstant(0.1)):
            bayes = pr.Bayes().tune(source, 0.0)
            assert float(bayes.risk(source, 0.0)) < 1e-20
            x = source.sample(2, 10, seed=0, dtype=torch.float64)
            before = x.clone()
            assert torch.allclose(bayes(x), x, atol=1e-9)
            assert torch.equal(x, before)
        y = torch.linspace(-0.53, 1.52, 21, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(pr.Bayes(pr.SparseUniform(0.2), 0.2), y)
        assert torch.autograd.gradcheck(pr.Bayes(pr.SparseUniform(0.2), 0.02), y)

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="sigma is"):
            pr.Bayes(pr.SparseUniform(0.1), -1.0)
        with pytest.raises(ValueError, match="source is 3; allowed: a Source"):
            pr.Bayes(3)


class TestFeaturesThatDiffer:
    @pytest.fixture
    def source(self):
        n = 2000
        return pr.SparseHalfNormal(pr.zipf_rates(n, 0.05), np.geomspace(0.5, 2, n))

    @pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.JumpReLU, pr.Gated, pr.ProLU, pr.Bayes])
    def test_each_has_its_own_parameters_and_law(self, kind, source):
        n = source.n_sparse
        model = pr.Autoencoder(pr.Rug(n, 600), kind()).tune(source)
        result = model.measure(source, samples=5000)
        laws = model.laws(source)
        assert model.law(source) == pytest.approx(laws.mean())
        assert result.loss == pytest.approx(model.law(source), abs=3 * result.stderr + 0.02 * result.loss)
        for group in np.array_split(np.arange(n), 10):
            assert result.losses[group].mean() == pytest.approx(laws[group].mean(), rel=0.1)
        # A decoder tuned to a single one of them does no better there.
        sigma = np.broadcast_to(model.encoder.interference_of(source.variance, pr.Channel()) ** 0.5, n)
        for feature in (0, 100, n - 1):
            own = kind().tune(source.at(feature), float(sigma[feature]))
            best = float(own.risk(source.at(feature), float(sigma[feature])))
            assert best * (1 - 1e-9) <= model.decoder.limit(source, model.encoder)[feature] <= best * 1.05

    def test_alike_features_are_a_special_case(self):
        alike, arrays = pr.SparseUniform(0.1), pr.SparseUniform(np.full(64, 0.1))
        rug = pr.Rug(64, 32)
        for kind in (pr.Linear, pr.ReLU, pr.Bayes, pr.OAMP):
            one, other = (pr.Autoencoder(rug, kind()).tune(source) for source in (alike, arrays))
            assert other.limit(arrays) == pytest.approx(one.limit(alike), rel=1e-3, abs=1e-13)

    def test_formulas_give_ranges(self, source):
        model = pr.Autoencoder(pr.Rug(2000, 600), pr.ReLU()).tune(source)
        assert " to " in model.decoder.formula()


def test_the_bounds_hold_the_ladder(make_source):
    # ratio >= p, the linear floor, the elementwise floor, and OAMP below all of them.
    source = make_source(0.08)
    rug = pr.Rug.of_ratio(1 << 20, 0.2)
    losses = {
        kind.name: pr.Autoencoder(rug, kind()).tune(source).limit(source)
        for kind in (*kinds_for(source), pr.Bayes, pr.OAMP)
    }
    assert losses["linear"] == pytest.approx(source.variance * (1 - rug.ratio))
    for name, loss in losses.items():
        assert losses["oamp"] <= losses["bayes"] <= loss * (1 + 1e-6) or name == "oamp"
        assert loss <= losses["linear"] * (1 + 1e-9) or name in ("prolu", "soft")
    if not isinstance(source, pr.SparseConstant | pr.Empirical):
        assert pr.recovery_threshold(source) > source.p
