import numpy as np
import pytest
import torch

import persianrug as pr

N = 256


def shuffled(kinds):
    """An array of eight kinds of features, so many of each."""
    return np.random.default_rng(1).permutation(np.repeat(kinds, N // len(kinds)))


ZIPF = pr.SparseUniform(shuffled(pr.zipf_rates(8, 0.05, 1.0)))
HARMONIC = 1 / shuffled(np.arange(1.0, 9.0))


def pair(source, ratio, kind, importance=None, channel=pr.Channel()):  # noqa: B008
    """The model without gains, and the one with the best."""
    rug = pr.Rug.of_ratio(N, ratio)
    gains = pr.encoder_gains(source, rug, kind(), importance, channel)
    return [pr.Autoencoder(rug, kind(), channel=channel, gains=g).tune(source) for g in (1.0, gains)]


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.Bayes])
@pytest.mark.parametrize(
    ("source", "importance", "channel"),
    [
        (ZIPF, None, pr.Channel()),
        (pr.SparseUniform(0.05), HARMONIC, pr.Channel()),
        (pr.SparseTruncatedNormal(0.05, shuffled(np.geomspace(0.1, 2, 8)), 0.5), 1 / HARMONIC, pr.Channel()),
        (ZIPF, HARMONIC, pr.Channel(0.01, 6, 0.2)),
    ],
    ids=["rates", "importance", "scales", "channel"],
)
def test_gains_lower_the_law_and_the_law_holds(kind, source, importance, channel):
    plain, better = pair(source, 0.3, kind, importance, channel)
    assert better.limit(source, importance) < 0.997 * plain.limit(source, importance)
    assert better.law(source, importance) < plain.law(source, importance)
    result = better.measure(source, samples=4096, importance=importance)
    law = better.law(source, importance)
    assert abs(result.loss - law) < max(0.03 * law, 3 * result.stderr)
    seen = source.scaled(better.gains)
    assert np.sum(np.broadcast_to(seen.variance, N)) == pytest.approx(
        np.sum(np.broadcast_to(source.variance, N)), rel=1e-12
    )


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.Bayes])
def test_no_gains_nearby_are_better(kind):
    _, best = pair(ZIPF, 0.3, kind, HARMONIC)
    rng = np.random.default_rng(0)
    for size in (0.02, 0.1, 0.5):
        for _ in range(2):
            change = rng.normal(size=8)[np.round(1 / HARMONIC).astype(int) - 1]
            gains = best.gains * np.exp(size * change)
            other = pr.Autoencoder(best.encoder, kind(), gains=gains).tune(ZIPF)
            assert other.limit(ZIPF, HARMONIC) > best.limit(ZIPF, HARMONIC) * (1 - 4e-3)


def test_linear_gains_are_those_of_water_filling():
    # With powers P_i = v c_i^2 of the code, w_i v s^2 / (P_i + s^2) is least where P_i + s^2 goes with sqrt(w_i).
    source, ratio = pr.SparseUniform(0.1), 0.4
    importance = np.linspace(1, 2, N)
    _, model = pair(source, ratio, pr.Linear, importance)
    noise = source.variance * (1 - ratio) / ratio
    level = np.sqrt(importance) * (source.variance + noise) / np.sqrt(importance).mean()
    powers = level - noise
    assert powers.min() > 0
    assert source.variance * model.gains**2 == pytest.approx(powers, rel=0.03)
    weights = importance / importance.mean()
    exact = np.mean(weights * source.variance * noise / (powers + noise))
    assert model.limit(source, importance) == pytest.approx(exact, rel=5e-3)


def test_features_that_are_alike_are_equally_loud_or_silent():
    _, even = pair(pr.SparseUniform(0.05), 0.25, pr.ReLU)
    assert even.gains == pytest.approx(1.0, rel=0.02)
    # Where the code is too narrow for all of them, it is better to give some up.
    source = pr.SparseUniform(0.05)
    plain, uneven = pair(source, 0.03, pr.ReLU)
    silent = uneven.gains < 0.1
    assert 0.2 * N < silent.sum() < 0.95 * N
    assert uneven.gains[~silent] == pytest.approx(uneven.gains[0], rel=0.02)
    assert uneven.law(source) < 0.99 * plain.law(source)
    result = uneven.measure(source, samples=8192)
    assert abs(result.loss - uneven.law(source)) < max(0.01 * result.loss, 4 * result.stderr)


def test_features_of_no_importance_are_silent():
    source = pr.SparseUniform(0.05)
    _, model = pair(source, 0.25, pr.ReLU, (np.arange(N) < 100).astype(float))
    assert model.gains[:100].min() > 20 * model.gains[100:].max()


def test_a_wide_code_needs_no_gains():
    source = pr.SparseUniform(0.05)
    assert (pr.encoder_gains(source, pr.Rug(N, N), pr.ReLU(), HARMONIC) == 1).all()


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.JumpReLU, pr.Bayes, pr.OAMP])
def test_models_with_gains_code_and_are_stored(kind, tmp_path):
    gains = np.geomspace(0.3, 3, N)
    source = pr.SparseUniform(0.05)
    model = pr.Autoencoder(pr.Rug(N, N // 2), kind(), gains=gains).tune(source)
    x = source.sample(2, 3 * N, seed=0, dtype=torch.float64).view(2, 3, N)
    kept = x.clone()
    z = model.encode(x)
    assert torch.allclose(z, model.encoder.encode(x * torch.tensor(gains)))
    x_hat = model.decode(z)
    assert x_hat.shape == x.shape
    assert torch.equal(x, kept)
    assert np.array_equal(model(x.numpy()), x_hat.numpy())
    assert torch.allclose(model(x.float()).double(), x_hat, atol=1e-4)
    if kind is pr.OAMP:
        assert torch.allclose(x_hat, x, atol=1e-5)
    model.save(tmp_path / "m.safetensors")
    again = pr.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.gains, gains)
    assert torch.equal(again(x), x_hat)
    assert np.array_equal(again.laws(source), model.laws(source))


def test_a_trace_with_gains_is_of_the_features_themselves():
    n, source = 2048, pr.SparseUniform(0.05)
    gains = np.geomspace(0.3, 3, n)
    model = pr.Autoencoder(pr.Rug(n, n // 2), pr.OAMP(), channel=pr.Channel(0.01), gains=gains).tune(source)
    trace = model.trace(source, samples=16, seed=2)
    x = source.sample(16, n, seed=2, dtype=torch.float64)
    codes = model.transmit(model.encode(x), seed=3)
    assert trace[-1] == pytest.approx((model.decode(codes) - x).square().mean(1).numpy(), rel=1e-9)
    assert trace[-1].mean() == pytest.approx(model.law(source), rel=0.1)


@pytest.mark.parametrize("gains", [np.zeros(8), -1.0, np.full(8, np.nan), np.ones(7), np.ones((2, 4)), 0.0])
def test_bad_gains_are_refused(gains):
    with pytest.raises(ValueError, match=r"^gains (has|is) .*; allowed"):
        pr.Autoencoder(pr.Rug(8, 4), pr.ReLU(), gains=gains)


@pytest.mark.parametrize(
    ("source", "decoder", "importance", "message"),
    [
        (pr.SparseUniform(0.1), pr.OAMP(), None, "decoder is oamp; allowed: those that read every feature"),
        (pr.SparseUniform(0.1), pr.TopK(), None, "decoder is topk; allowed: those that read every feature"),
        (pr.SparseUniform(0.1), 3, None, "decoder is 3; allowed: those that read every feature"),
        (pr.SparseGaussian(0.1), pr.ReLU(), None, "source gaussian is signed; allowed with decoder relu"),
        (pr.Empirical(0.1, [1.0], [1.0]), pr.ReLU(), None, "source empirical has no scale; allowed with gains"),
        (pr.SparseUniform(0.1), pr.ReLU(), np.ones(7), "importance has shape .*; allowed"),
        (pr.SparseUniform(np.full(7, 0.1)), pr.ReLU(), None, "source uniform has 7 features; allowed with"),
    ],
)
def test_what_has_no_best_gains_is_refused(source, decoder, importance, message):
    with pytest.raises(ValueError, match=message):
        pr.encoder_gains(source, pr.Rug(8, 4), decoder, importance)
