"""Laws where features are hardly ever active, from less than one in a vector to one in 1e30."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

import persianrug as pr
from persianrug.decoders import DECODERS, recovery_threshold, relu_bounds
from persianrug.encoders.energy import energy, few_nodes, mean_energy
from persianrug.sources import SOURCES

N = 512
RUG = pr.Rug.of_ratio(N, 0.25)
SIDED = [
    (source, decoder) for source, decoder in itertools.product(SOURCES, DECODERS)
    # The law of cvamp is simulated, and sees nothing of what never happens.
    if decoder != "cvamp" and (source != "gaussian" or not DECODERS[decoder].one_sided)
]  # fmt: skip
# OAMP recovers what there is, and its law is then that of rounding errors.
LOSING = [(source, decoder) for source, decoder in SIDED if decoder != "oamp"]
# Errors of a few in a million vectors, in tails that are not Gaussian.
TAILS = {("constant", "jumprelu"), ("constant", "gated"), ("constant", "bayes")}


def tuned(source, decoder, encoder=RUG):
    return pr.Autoencoder(encoder, DECODERS[decoder]()).tune(source)


def measured(model, source, count=4000):
    """Loss, and its standard error, from vectors of no, one and two active features."""
    generator = torch.Generator().manual_seed(0)
    total, variance = 0.0, 0.0
    for active in range(3):
        x = torch.zeros(count if active else 1, N, dtype=torch.float64)
        if active:
            places = torch.rand(x.shape, generator=generator).topk(active).indices
            x.scatter_(1, places, source._draw(places.shape, generator, x))
        errors = (model(x) - x).square().mean(dim=1)
        chance = float(binom.pmf(active, N, source.p))
        total += chance * float(errors.mean())
        variance += (chance * float(errors.std()) if active else 0.0) ** 2 / count
    return total, math.sqrt(variance)


@pytest.mark.parametrize("p", [1e-6, 1e-20])
@pytest.mark.parametrize(("source", "decoder"), [pair for pair in LOSING if pair not in TAILS])
def test_the_law_is_that_of_vectors_with_one_active_feature(source, decoder, p):
    if decoder == "topk":
        pytest.skip("see below")
    features = SOURCES[source](p)
    model = tuned(features, decoder)
    # Of heavy tails few vectors say little, and their standard error too little; each posterior mean takes longer.
    many = 8000 if decoder == "bayes" else 32_000
    loss, stderr = measured(model, features, many if source == "lognormal" else 4000)
    # Where fewer than one feature is active the law is an approximation.
    assert model.law(features) == pytest.approx(loss, rel=0.03, abs=3 * stderr)


@pytest.mark.parametrize("source", ["uniform", "exponential"])
def test_topk_loses_less_than_its_law_as_a_lone_feature_stands_out(source):
    features = SOURCES[source](1e-12)
    model = tuned(features, "topk")
    loss, _ = measured(model, features)
    assert 0.5 < loss / model.law(features) < 0.8


@pytest.mark.parametrize(("source", "decoder"), LOSING)
def test_the_law_is_proportional_to_p(source, decoder):
    losses = []
    for p in np.logspace(-10, -30, 11):
        features = SOURCES[source](p)
        losses.append(tuned(features, decoder).law(features) / p)
    # A constant feature's least losses hang on where in the gap the threshold is.
    rel = 0.02 if (source, decoder) not in TAILS else 0.2
    assert losses[1:] == pytest.approx(losses[-1] * np.ones(10), rel=rel)
    assert losses[-1] > 0


@pytest.mark.parametrize("ratio", [0.25, 0.6])
@pytest.mark.parametrize("source", SOURCES)
def test_no_decoder_of_one_feature_is_better_than_one_that_can_do_more(source, ratio):
    rug = pr.Rug.of_ratio(N, ratio)
    kinds = [kind for name, kind in LOSING if name == source]
    for p in [1e-2, 1e-5, 1e-9, 1e-14, 1e-19, 1e-24, 1e-30]:
        features = SOURCES[source](p)
        limits = {kind: tuned(features, kind, rug).limit(features) for kind in kinds}
        for better, worse in [
            ("bayes", "jumprelu"), ("jumprelu", "relu"), ("jumprelu", "prolu"), ("relu", "linear"),
            ("bayes", "soft"), ("soft", "linear"),
        ]:  # fmt: skip
            if better in limits and worse in limits:
                # What is lost in one of 1e18 cases is left out.
                assert limits[better] <= limits[worse] * (1 + 1e-4) + 1e-18 * p


@pytest.mark.parametrize("source", ["uniform", "exponential", "half-normal", "gaussian"])
def test_the_posterior_mean_loses_the_variance_of_the_noise_on_active_features(source):
    for p in np.logspace(-12, -30, 7):
        features = SOURCES[source](p)
        loss = tuned(features, "bayes").limit(features)
        assert loss / (p * 3 * features.variance) == pytest.approx(1, rel=2e-3)


def test_the_relu_law_stays_within_its_bounds():
    for p in np.logspace(-10, -30, 6):
        source = pr.SparseUniform(p)
        sigma = math.sqrt(3 * source.variance)
        lower, upper = relu_bounds(source, sigma)
        # To the rounding of amplitudes, of 1e-15 of which the noise is in the end.
        assert lower * (1 - 2e-3) < pr.ReLU().tune(source, sigma).risk(source, sigma) < upper * (1 + 2e-3)


@pytest.mark.parametrize("source", SOURCES)
def test_the_recovery_threshold_grows_like_the_logarithm(source):
    shares = [recovery_threshold(SOURCES[source](p)) / p for p in (1e-10, 1e-16, 1e-22, 1e-28)]
    steps = np.diff(shares)
    # For one amplitude it is not quite straight.
    assert steps == pytest.approx(steps.mean() * np.ones(3), rel=0.05 if source == "constant" else 0.01)


class TestEnergy:
    @pytest.mark.parametrize("p", [1e-3, 1e-9, 1e-15, 1e-17, 1e-30])
    def test_the_chance_of_an_active_feature_keeps_its_digits(self, p):
        spread = mean_energy(pr.SparseUniform(p), N)
        some = spread.weights[spread.active > 0].sum()
        assert some / -math.expm1(N * math.log1p(-p)) == pytest.approx(1, rel=1e-12)
        assert spread.weights @ spread.nodes / pr.SparseUniform(p).variance == pytest.approx(1, rel=1e-12)

    @pytest.mark.parametrize("p", [1e-6, 1e-18, 1e-30])
    def test_a_rule_of_few_nodes_keeps_the_rare_ones(self, p):
        spread = energy(pr.SparseUniform(p), 3 / N)
        few = few_nodes(spread)
        assert len(few.nodes) <= 6
        for power in range(4):
            moment = few.weights @ few.nodes**power / (spread.weights @ spread.nodes**power)
            assert moment == pytest.approx(1, rel=1e-9)

    def test_features_that_differ_have_the_law_of_those_that_are_alike(self):
        for p in (1e-6, 1e-18, 1e-30):
            alike, each = pr.SparseUniform(p), pr.SparseUniform(np.full(N, p))
            ratio = tuned(each, "relu").law(each) / tuned(alike, "relu").law(alike)
            assert ratio == pytest.approx(1, rel=0.02)


def test_constant_features_get_a_threshold_in_the_middle():
    model = pr.JumpReLU().tune(pr.SparseConstant(1e-8), 1e-4)
    assert 0.3 < model.threshold < 0.7


def test_bayes_reads_rare_features_of_every_size_in_both_precisions():
    # In 32 bits the tail of the noise is cut at 11 deviations, which features as rare as these still notice.
    for dtype, close in ((torch.float32, 1e-3), (torch.float64, 1e-5)):
        for scale in (1e-30, 1.0, 1e30):
            source = pr.SparseUniform(1e-30, scale)
            read = pr.Bayes().tune(source, math.sqrt(3 * source.variance))
            y = scale * torch.tensor([0.0, 0.25, 0.75], dtype=dtype)
            assert torch.allclose(read(y) / scale, y / scale, atol=close)


def test_in_64_bits_the_fast_posterior_knows_how_rare_features_are():
    source, y = pr.SparseUniform(1e-25), torch.linspace(0.3, 0.9, 61, dtype=torch.float64)
    sigma = torch.tensor(0.05, dtype=torch.float64)
    fast, exact = source.denoise(y, sigma)[0], source.posterior(y, sigma)[0]
    assert torch.allclose(fast, exact, rtol=0, atol=1e-9)
    assert exact[0] < 1e-9
    assert exact[-1] > 0.8
