"""OAMP against state evolution: to its threshold, through noisy codes, for other frames and other features."""

import math

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.decoders import OAMP
from tests.conftest import EVERY_SOURCE


def model_of(source, n_sparse=8192, ratio=0.25, decoder=None, **channel):
    rug = pr.Rug.of_ratio(n_sparse, ratio)
    return pr.Autoencoder(rug, decoder or pr.OAMP(), channel=pr.Channel(**channel)).tune(source)


def evolution(model, source):
    return model.decoder.state_evolution(source, model.encoder, model.channel)


def losses_of(model, source, samples, seed=0, dtype=torch.float64):
    x = source.sample(samples, model.encoder.n_sparse, seed=seed, dtype=dtype)
    z = model.transmit(model.encode(x), seed + 1)
    return (model.decode(z) - x).square().mean(1, dtype=torch.float64)


UNIFORM = pr.SparseUniform(0.045)


class TestThePromise:
    def test_every_iteration_is_predicted_and_all_is_recovered(self):
        model = model_of(UNIFORM)
        predicted = evolution(model, UNIFORM)
        # Values of an independent solution.
        assert predicted.trace[:4] == pytest.approx([4.4803e-3, 1.3264e-3, 3.2264e-4, 6.5262e-5], rel=1e-4)
        assert predicted.recovers
        measured = model.trace(UNIFORM, samples=64).mean(axis=1)
        until = np.flatnonzero(predicted.trace < 1e-6)[0]
        assert measured[:until] == pytest.approx(predicted.trace[:until], rel=0.1)
        assert np.flatnonzero(measured < 1e-10)[0] + 1 <= 20

    def test_float32_reaches_its_floor(self):
        assert losses_of(model_of(UNIFORM), UNIFORM, 32, dtype=torch.float32).max() < 1e-9

    def test_a_small_code_recovers_too(self):
        assert (losses_of(model_of(UNIFORM, 512), UNIFORM, 1024) < 1e-6).double().mean() >= 0.98

    @pytest.mark.parametrize("p", [0.01, 0.045, 0.1, 0.3])
    def test_recovery_starts_at_the_threshold(self, p):
        source = pr.SparseUniform(p)
        threshold = pr.recovery_threshold(source)
        assert threshold == pytest.approx({0.01: 0.031, 0.045: 0.104, 0.1: 0.188, 0.3: 0.401}[p], abs=1e-3)
        assert threshold > p
        # Of 80 active features, as at p = 0.01, the number and the sizes vary by as much as the margin: there it
        # takes more features for the limit to be seen.
        n, samples, least = (65536, 12, 1.0) if p == 0.01 else (8192, 64, 0.98)
        recovered = losses_of(model_of(source, n, 1.15 * threshold), source, samples) < 1e-6
        assert recovered.double().mean() >= least
        assert (losses_of(model_of(source, n, 0.85 * threshold), source, 8) > 1e-6).all()
        # State evolution says so, on both sides and close to it.
        for ratio, recovers in [(1.02 * threshold, True), (0.98 * threshold, False)]:
            model = model_of(source, 1 << 20, ratio, pr.OAMP(iterations=2000))
            assert evolution(model, source).recovers == recovers

    @pytest.mark.parametrize("p", [0.01, 0.045, 0.3])
    def test_below_the_threshold_it_keeps_its_best_and_the_law_says_which(self, p):
        source = pr.SparseUniform(p)
        ratio = 0.7 * pr.recovery_threshold(source)
        model = model_of(source, ratio=ratio)
        result = model.measure(source, samples=128, dtype=torch.float64)
        assert not evolution(model, source).recovers
        assert result.recovered == 0
        assert result.loss == pytest.approx(model.law(source), abs=3 * result.stderr + 0.02 * result.loss)
        # Never worse than the posterior mean of the first look.
        bayes = pr.Autoencoder(model.encoder, pr.Bayes()).tune(source)
        assert result.loss < 1.001 * bayes.measure(source, samples=128, dtype=torch.float64).loss
        trace = model.trace(source, samples=16)
        assert (np.diff(trace.mean(axis=1)) < 0.01 * trace.mean(axis=1)[1:]).all()


@pytest.mark.parametrize("name", EVERY_SOURCE)
@pytest.mark.parametrize(("p", "ratio"), [(0.05, 0.1), (0.05, 0.4), (0.3, 0.25), (0.95, 0.9)])
def test_the_law_of_every_source(name, p, ratio):
    source = EVERY_SOURCE[name](p)
    model = model_of(source, 4096, ratio)
    result = model.measure(source, samples=32, dtype=torch.float64)
    # What falls below the tolerance is recovered, and its size is that of the last step.
    slack = 2e-12 * source.second_moment
    assert abs(result.loss - model.law(source)) < 4 * result.stderr + 0.02 * result.loss + slack


class TestChannels:
    @pytest.mark.parametrize(("noise", "expected"), [(0.003, 2.15e-6), (0.01, 2.86e-5), (0.03, 3.55e-4)])
    def test_noise(self, noise, expected):
        model = model_of(UNIFORM, noise=noise)
        assert model.limit(UNIFORM) == pytest.approx(expected, rel=0.01)
        result = model.measure(UNIFORM, samples=128, dtype=torch.float64)
        assert result.loss == pytest.approx(model.law(UNIFORM), rel=0.04)

    @pytest.mark.parametrize("channel", [{"bits": 8}, {"bits": 2}, {"bits": 4, "noise": 0.02, "erasures": 0.3}])
    @pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.TopK, pr.Bayes, pr.OAMP])
    def test_rounding_and_erasures(self, kind, channel):
        model = model_of(UNIFORM, 4096, 0.25, kind(), **channel)
        result = model.measure(UNIFORM, samples=128, dtype=torch.float64)
        slack = (0.1 if kind is pr.OAMP else 0.02) * result.loss
        assert abs(result.loss - model.law(UNIFORM)) < slack + (0 if kind is pr.OAMP else result.stderr)
        # Tuned to the channel it is better than tuned to none.
        careless = pr.Autoencoder(model.encoder, kind()).tune(UNIFORM).decoder
        deaf = pr.Autoencoder(model.encoder, careless, model.mean, model.channel)
        assert kind is pr.OAMP or deaf.law(UNIFORM) >= model.law(UNIFORM) * (1 - 1e-6)

    def test_erasures_lower_the_ratio_and_nothing_else(self):
        model = model_of(UNIFORM, erasures=0.2)
        assert evolution(model, UNIFORM).trace == pytest.approx(
            evolution(model_of(UNIFORM, ratio=0.2), UNIFORM).trace, rel=1e-2
        )
        result = model.measure(UNIFORM, samples=64, dtype=torch.float64)
        assert result.recovered == 1
        first = model.trace(UNIFORM, samples=64).mean(axis=1)
        assert first[:5] == pytest.approx(evolution(model, UNIFORM).trace[:5], rel=0.1)

    def test_patterns_of_erasure_may_differ_between_codes(self):
        model = model_of(UNIFORM, 1024, 0.4, erasures=0.1)
        x = UNIFORM.sample(3, 1024, seed=0, dtype=torch.float64)
        z = model.encode(x)
        z[0, :100], z[1, ::3] = math.nan, math.nan
        assert (model.decode(z) - x).abs().max() < 1e-5
        with pytest.raises(ValueError, match="entries are all missing"):
            model.decode(torch.full_like(z, math.nan))
        with pytest.raises(ValueError, match=r"erasures is 0\.999, which leaves none"):
            model_of(UNIFORM, 64, 0.25, erasures=0.999)


def test_any_tight_frame_and_no_other():
    source = pr.SparseUniform(0.05)
    rng = np.random.default_rng(0)
    rows, _ = np.linalg.qr(rng.normal(size=(600, 240)))
    frame = pr.Dense(3.0 * rows.T)
    model = pr.Autoencoder(frame, pr.OAMP(), channel=pr.Channel(noise=0.003)).tune(source)
    result = model.measure(source, samples=256, dtype=torch.float64)
    # Columns of a random frame differ in norm, by 1 / sqrt(n_dense).
    assert result.loss == pytest.approx(model.law(source), rel=0.1)
    for other in (pr.Gaussian(64, 16), pr.Dense(rng.normal(size=(16, 64)))):
        with pytest.raises(ValueError, match="is no tight frame; allowed"):
            pr.Autoencoder(other, pr.OAMP()).tune(source)
    for n in (2, 3, 5, 999):
        x = source.sample(7, n, seed=0, dtype=torch.float64)
        whole = pr.Autoencoder(pr.Rug(n, n), pr.OAMP()).tune(source)
        assert (whole(x) - x).abs().max() < 1e-9


class TestFeaturesThatDiffer:
    def test_rates_by_zipf(self):
        n = 4096
        source = pr.SparseUniform(pr.zipf_rates(n, 0.03), np.geomspace(0.5, 2, n))
        low, high = (model_of(source, n, ratio) for ratio in (0.03, 0.25))
        assert evolution(high, source).recovers
        assert high.measure(source, samples=64, dtype=torch.float64).recovered == 1
        result = low.measure(source, samples=256, dtype=torch.float64)
        assert low.law(source) == pytest.approx(result.loss, abs=3 * result.stderr + 0.03 * result.loss)
        laws, measured = low.laws(source), result.losses
        assert laws.mean() == pytest.approx(low.law(source))
        # Per feature, from the one that always fires to the rarest, in groups.
        for group in np.array_split(np.arange(n), 8):
            assert measured[group].mean() == pytest.approx(laws[group].mean(), rel=0.15)

    def test_the_cells(self):
        rows = pr.read_rows("examples/data/pbmc68k_reduced.npz")
        order = np.random.default_rng(0).permutation(rows.shape[0])
        source = pr.SparseTruncatedNormal.fit(rows[order[:350]])
        model = model_of(source, 765, 0.6)
        result = model.measure(rows[order[350:]])
        assert result.samples == 350
        # The law promises recovery, which the cells' correlations deny to a few.
        assert evolution(model, source).recovers
        assert result.loss < 0.009
        assert 0.95 < result.recovered < 1


class TestNeighbours:
    """What is made of a vector does not depend on which others are with it, where some are lost or late."""

    @pytest.mark.parametrize("n_sparse", [512, 500])
    def test_of_a_vector_there_may_be_any_or_none(self, n_sparse):
        source = pr.SparseUniform(0.1)
        model = model_of(source, n_sparse, 0.23)
        x = source.sample(120, n_sparse, seed=0, dtype=torch.float64)
        z = model.encode(x)
        together = model.decode(z)
        order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
        for part in (
            torch.cat([model.decode(one[None]) for one in z]),
            torch.cat([model.decode(seven) for seven in z.split(7)]),
            model.decode(z[order])[torch.argsort(order)],
        ):
            assert float((part - together).abs().max()) < 1e-12
        lost = int(((together - x).square().mean(1) > 1e-6 * x.square().mean()).sum())
        assert lost <= (11 if n_sparse == 512 else 15)

    def test_erasures_and_float32(self):
        source = pr.SparseGaussian(0.1)
        for dtype, close in ((torch.float64, 1e-11), (torch.float32, 1e-3)):
            model = model_of(source, 256, 0.35, erasures=0.1)
            z = model.transmit(model.encode(source.sample(40, 256, seed=0, dtype=dtype)), 1)
            alone = torch.cat([model.decode(one[None]) for one in z])
            assert float((alone - model.decode(z)).abs().max()) < close

    def test_given_features_are_followed_one_by_one(self):
        source = pr.SparseUniform(0.1)
        decoder, x = pr.OAMP(source), source.sample(60, 512, seed=0, dtype=torch.float64)
        noise = torch.randn(60, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def seen_by(rows):
            def seen(x, error):
                sigma = (error * (0.77 / 0.23)).sqrt()
                return x + sigma * noise[rows], sigma

            return seen

        mean = torch.full((512,), float(source.mean), dtype=torch.float64)
        together = decoder.evolve(x, mean, seen_by(slice(None)))
        alone = torch.cat([decoder.evolve(x[k : k + 1], mean, seen_by(slice(k, k + 1))) for k in range(60)])
        assert float((alone - together).abs().max()) < 1e-12


class TestMechanics:
    def test_batches_dtypes_and_inputs(self):
        model = model_of(UNIFORM, 256, 0.6)
        x = UNIFORM.sample(12, 256, seed=0, dtype=torch.float64)
        z = model.encode(x)
        before = z.clone()
        x_hat = model.decode(z)
        assert torch.equal(z, before)
        assert torch.allclose(model.decode(z.reshape(3, 2, 2, -1)).reshape(12, -1), x_hat, atol=1e-9)
        # Strides of every other entry, and NumPy.
        wide = torch.stack([z, z], dim=-1)[..., 0]
        assert not wide.is_contiguous()
        assert torch.allclose(model.decode(wide), x_hat, atol=1e-9)
        assert isinstance(model.decode(z.numpy()), np.ndarray)
        assert model.decode(z.float()).dtype == torch.float32
        assert model.decode(z[:0]).shape == (0, 256)
        assert torch.allclose(model.decode(z[4]), x_hat[4], atol=1e-9)
        # A tensor to go on with, in spite of the mode that it was made in.
        assert not x_hat.is_inference()

    def test_it_differentiates(self):
        source = pr.SparseExponential(0.3)
        model = model_of(source, 12, 0.5, pr.OAMP(iterations=3, tolerance=1e-300))
        z = model.encode(source.sample(2, 12, seed=0, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(model.decode, z)

    def test_damping_changes_the_way_but_not_the_end(self):
        source = pr.SparseUniform(0.1)
        for ratio in (0.1, 0.3):
            ends = [
                losses_of(model_of(source, 2048, ratio, pr.OAMP(damping=damping)), source, 16).mean().item()
                for damping in (1.0, 0.6)
            ]
            assert ends[1] == pytest.approx(ends[0], rel=0.02, abs=1e-11)

    def test_a_wrong_source_is_survived(self):
        # Amplitudes twice as large and rates half as high as it was told: no divergence, and its law knows.
        source, told = pr.SparseUniform(0.1, scale=2.0), pr.SparseUniform(0.05)
        decoder = OAMP(told)
        rug = pr.Rug(4096, 400)
        x = source.sample(64, 4096, seed=0, dtype=torch.float64)
        loss = (decoder.decode(rug.encode(x), rug, source.mean) - x).square().mean().item()
        assert loss < source.variance
        assert float(decoder.limit(source, rug)) == pytest.approx(loss, rel=0.1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"iterations": 0}, "iterations is 0"),
            ({"damping": 0.0}, "damping is"),
            ({"damping": 1.5}, "damping is"),
            ({"tolerance": 0.0}, "tolerance is"),
            ({"source": "uniform"}, "source is 'uniform'"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            pr.OAMP(**arguments)

    def test_a_source_of_other_length_is_refused(self):
        with pytest.raises(ValueError, match="has 5 features; allowed"):
            model_of(pr.SparseUniform(np.linspace(0.1, 0.5, 5)), 8, 0.5)

    def test_the_trace_is_of_oamp_only(self):
        model = pr.Autoencoder(pr.Rug(8, 4), pr.ReLU()).tune(UNIFORM)
        with pytest.raises(ValueError, match="decoder is relu; allowed: oamp"):
            model.trace(UNIFORM)
