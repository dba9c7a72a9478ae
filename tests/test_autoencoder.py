"""The whole: predicted against measured."""

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr
from persianrug.decoders import DECODERS
from tests.conftest import EVERY_SOURCE, kinds_for
from tests.helpers import differing, model_of


def off(model, source, result):
    """Relative deviation of the measurement from the law, and the same in standard errors."""
    law = model.law(source)
    return abs(result.loss - law) / law, abs(result.loss - law) / result.stderr


@pytest.mark.parametrize("p", [0.01, 0.045, 0.3])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_the_law_at_8192(p, ratio):
    source = pr.SparseUniform(p)
    for kind in (pr.Linear, pr.ReLU):
        model = model_of(source, 8192, ratio, kind)
        relative, errors = off(model, source, model.measure(source, samples=4096))
        assert relative < 0.01 or errors < 3


@pytest.mark.parametrize("n", [512, 999, 5000, 6144])
@pytest.mark.parametrize("p", [0.01, 0.045, 0.3])
def test_the_law_at_other_sizes(n, p):
    source = pr.SparseUniform(p)
    for ratio in (0.1, 0.25, 0.5):
        for seed in (1, 2):
            model = model_of(source, n, ratio, seed=seed)
            relative, errors = off(model, source, model.measure(source, samples=4096, seed=seed))
            assert relative < 0.03 or errors < 3


def test_the_law_is_that_of_the_very_rug():
    # With five features active, rugs of one size differ; the law knows how.
    source = pr.SparseUniform(0.01)
    models = [model_of(source, 512, 0.1, seed=seed) for seed in range(6)]
    laws = np.array([model.law(source) for model in models])
    results = [model.measure(source, samples=65536, seed=seed) for seed, model in enumerate(models)]
    losses = np.array([result.loss for result in results])
    assert np.ptp(laws) / laws.mean() > 0.03
    assert np.abs(losses / laws - 1).max() < 0.02
    assert np.corrcoef(losses, laws)[0, 1] > 0.8


@pytest.mark.parametrize("name", EVERY_SOURCE)
@pytest.mark.parametrize(
    ("p", "ratio"), [(0.002, 0.02), (0.002, 0.25), (0.05, 0.99), (0.5, 0.02), (0.99, 0.5), (0.3, 0.3)]
)
def test_the_law_of_every_source_at_the_edges_of_the_plane(name, p, ratio):
    source = EVERY_SOURCE[name](p)
    for kind in kinds_for(source):
        model = model_of(source, 4096, ratio, kind)
        law, result = model.law(source), model.measure(source, samples=1024)
        # A loss made of rare errors, as a jump's on a binary source, shows none or a few of them.
        rare = 10 * source.second_moment / p / (1024 * 4096)
        assert abs(result.loss - law) < max(0.01 * law, 3.5 * result.stderr, rare)


@pytest.mark.parametrize("n", [1024, 999])
def test_without_signs_small_rugs_miss_the_law_by_more(n):
    # All rows of W then have one skewness, which does not average out over features as it does with signs.
    source = pr.SparseUniform(0.045)
    model = model_of(source, n, 0.25, signs=False)
    assert off(model, source, model.measure(source, samples=8192))[0] < 0.03
    large = model_of(source, 8192, 0.25, signs=False)
    assert off(large, source, large.measure(source, samples=4096))[0] < 0.01


def test_the_linear_law_is_exact_at_every_size():
    for n in (2, 3, 5, 8, 17):
        source = pr.SparseExponential(0.3)
        model = model_of(source, n, 0.5, pr.Linear)
        result = model.measure(source, samples=200_000, dtype=torch.float64)
        assert off(model, source, result)[1] < 3.5
        assert model.law(source) == pytest.approx(source.variance * (1 - model.encoder.ratio))


def test_where_the_relu_law_ends():
    # Its interference is taken to be Gaussian. At n = 64 the law is still within 10%; at n = 2 the one other
    # feature is the interference, and the law is off by more than half.
    source = pr.SparseUniform(0.045)
    measured = [model_of(source, 64, 0.25, seed=s).measure(source, samples=16384).loss for s in range(16)]
    assert np.mean(measured) == pytest.approx(model_of(source, 64, 0.25).law(source), rel=0.1)
    pair = model_of(source, 2, 0.5)
    result = pair.measure(source, samples=200_000)
    assert abs(result.loss / pair.law(source) - 1) > 0.5


def test_everything_kept_loses_nothing():
    for n in (2, 3, 512, 999):
        for kind in (pr.Linear, pr.ReLU):
            source = pr.SparseUniform(0.1)
            model = model_of(source, n, 1.0, kind)
            assert model.law(source) == pytest.approx(0, abs=1e-20)
            assert model.measure(source, samples=64, dtype=torch.float64).loss < 1e-24


def test_the_law_of_gaussian_and_given_weights():
    source = pr.SparseUniform(0.05)
    rng = np.random.default_rng(0)
    n, m = 2000, 500
    # Rows of unequal strength, so that features differ in their interference.
    weights = rng.normal(size=(m, n)) * np.geomspace(0.5, 2, n)
    for encoder in (pr.Gaussian(n, m), pr.Dense(weights), pr.Dense(weights, rng.normal(size=(n, m)) + weights.T)):
        for kind in (pr.Linear, pr.ReLU):
            model = pr.Autoencoder(encoder, kind()).tune(source)
            relative, errors = off(model, source, model.measure(source, samples=4096))
            assert relative < 0.02 or errors < 3
    # Of all of these the rug has least interference.
    rug = model_of(source, n, m / n)
    assert rug.law(source) < pr.Autoencoder(pr.Gaussian(n, m), pr.ReLU()).tune(source).law(source)


def test_measure_on_rows_of_every_kind_agrees():
    rows = pr.SparseUniform(0.2).sample(50, 40, seed=0, dtype=torch.float64)
    model = model_of(pr.SparseUniform(0.2), 40, 0.5)
    expected = (model(rows) - rows).square().mean(1)
    for data in (rows, rows.numpy(), scipy.sparse.csr_array(rows.numpy())):
        result = model.measure(data, dtype=torch.float64)
        assert result.loss == pytest.approx(expected.mean().item(), rel=1e-12)
        assert result.stderr == pytest.approx(expected.std().item() / 50**0.5, rel=1e-9)
        assert result.samples == 50
        assert result.microseconds_per_vector > 0


def test_measure_is_reproducible_reports_progress_and_leaves_rows(monkeypatch):
    source = pr.SparseUniform(0.1)
    model = model_of(source, 64, 0.5)
    whole = model.measure(source, samples=100, seed=3)
    assert whole.loss == model.measure(source, samples=100, seed=3).loss
    assert whole.loss != model.measure(source, samples=100, seed=4).loss
    monkeypatch.setattr("persianrug.autoencoder._MOST_ENTRIES", 64 * 32)
    counts = []
    model.measure(source, samples=100, progress=lambda *done: counts.append(done))
    assert counts == [(32, 100), (32, 100), (32, 100), (4, 100)]
    rows = source.sample(10, 64, seed=0)
    before = rows.clone()
    model.measure(rows)
    assert torch.equal(rows, before)


def test_decode_of_numpy_and_torch_and_its_gradient():
    model = model_of(pr.SparseUniform(0.1), 12, 0.5)
    z = np.random.default_rng(0).normal(size=(2, 3, 6))
    x_hat = model.decode(z)
    assert isinstance(x_hat, np.ndarray)
    assert x_hat.shape == (2, 3, 12)
    assert np.allclose(x_hat, model.decoder(torch.from_numpy(model.encoder.estimate(z, model.mean))))
    code = torch.from_numpy(z).requires_grad_()
    assert torch.autograd.gradcheck(model.decode, code)


def test_a_million_features():
    source = pr.SparseUniform(0.01)
    model = model_of(source, 2**20, 0.25)
    result = model.measure(source, samples=8)
    assert result.loss == pytest.approx(model.law(source), rel=0.03)


@pytest.mark.parametrize(("n", "samples"), [(2, 65536), (512, 65536), (8192, 4096), (10000, 3355), (2**20, 64)])
def test_by_default_all_sizes_draw_as_many_entries(n, samples, monkeypatch):
    monkeypatch.setattr(pr.Autoencoder, "__call__", lambda self, x: torch.zeros_like(x))
    monkeypatch.setattr(pr.SparseUniform, "sample", lambda self, count, n, **_: torch.zeros(1, 1).expand(count, n))
    assert model_of(pr.SparseUniform(0.01), n, 0.5).measure(pr.SparseUniform(0.01)).samples == samples


@pytest.mark.parametrize("samples", [1, 0, 2.5])
def test_too_few_samples_are_refused(samples):
    with pytest.raises(ValueError, match="samples is"):
        model_of(pr.SparseUniform(0.1), 8, 0.5).measure(pr.SparseUniform(0.1), samples=samples)


@pytest.mark.parametrize("shape", [(1, 8), (4, 7), (8,), (2, 2, 8)])
def test_rows_that_do_not_fit_are_refused(shape):
    model = model_of(pr.SparseUniform(0.1), 8, 0.5)
    with pytest.raises(ValueError, match=r"data has shape .*; allowed"):
        model.measure(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"data is a list; allowed"):
        model.measure([[0.0] * 8] * 3)
    with pytest.raises(ValueError, match=r"not finite as torch\.float32"):
        model.measure(np.full((3, 8), 1e300))
    reversed_rows = np.ones((3, 8))[::-1, ::-1].astype(">f8")
    assert model.measure(reversed_rows).loss == model.measure(np.ones((3, 8))).loss


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    for n in (999, 1024):
        model = model_of(pr.SparseUniform(0.05), n, 0.25)
        x = pr.SparseUniform(0.05).sample(64, n, seed=0, dtype=torch.float64)
        assert torch.allclose(model(x.cuda()).cpu(), model(x), atol=1e-12)
        source = pr.SparseUniform(0.05)
        result = model.measure(source, device="cuda")
        assert abs(result.loss - model.law(source)) < 4 * result.stderr


@pytest.mark.parametrize(
    ("kind", "alike"),
    [(kind, alike) for kind in (pr.Linear, pr.ReLU, pr.Bayes, pr.OAMP) for alike in (True, False)]
    + [(pr.TopK, True)],
)
def test_laws_by_feature_and_by_importance_agree(kind, alike):
    source = pr.SparseUniform(0.1) if alike else differing(n=16)
    model = pr.Autoencoder(pr.Rug(16, 8), kind(), channel=pr.Channel(0.05)).tune(source)
    laws = model.laws(source)
    assert laws.shape == (16,)
    assert (np.ptp(laws) > 0) == (not alike)
    assert model.law(source) == pytest.approx(laws.mean(), rel=1e-12)
    weights = np.random.default_rng(0).random(16)
    for ask, exact in ((model.law, laws), (model.limit, None)):
        assert ask(source, np.ones(16)) == pytest.approx(ask(source), rel=1e-12)
        whole, (first, last) = (
            ask(source, weights),
            [ask(source, weights * part) for part in np.eye(2).repeat(8, 1)],
        )
        assert np.average([first, last], weights=weights.reshape(2, 8).sum(1)) == pytest.approx(whole, rel=1e-9)
        assert whole == pytest.approx(ask(source, 1e6 * weights), rel=1e-12)
        if exact is not None:
            assert whole == pytest.approx(np.average(exact, weights=weights), rel=1e-12)
            assert ask(source, np.eye(16)[5]) == pytest.approx(exact[5], rel=1e-12)


def test_measured_losses_by_feature_and_by_importance_agree():
    source = differing()
    model = pr.Autoencoder(pr.Rug(64, 32), pr.Linear()).tune(source)
    options = {"samples": 2000, "seed": 3, "dtype": torch.float64}
    plain = model.measure(source, **options)
    assert plain.losses.shape == (64,)
    assert plain.losses.mean() == pytest.approx(plain.loss, rel=1e-12)
    even = model.measure(source, importance=np.full(64, 7.0), **options)
    assert (even.loss, even.stderr) == pytest.approx((plain.loss, plain.stderr), rel=1e-9)
    for i in (0, 40):
        single = model.measure(source, importance=np.eye(64)[i], **options)
        assert single.loss == pytest.approx(plain.losses[i], rel=1e-9)
        assert abs(single.loss - model.laws(source)[i]) < 4.5 * single.stderr
    weights = np.random.default_rng(0).random(64)
    weighted = model.measure(source, importance=weights, **options)
    assert weighted.loss == pytest.approx(np.average(plain.losses, weights=weights), rel=1e-9)
    assert np.array_equal(weighted.losses, plain.losses)
    rows = source.sample(50, 64, seed=1, dtype=torch.float64)
    exact = (model(rows) - rows).square().numpy()
    result = model.measure(rows, dtype=torch.float64, importance=weights)
    assert result.losses == pytest.approx(exact.mean(0), rel=1e-12)
    per_vector = np.average(exact, axis=1, weights=weights)
    assert (result.loss, result.stderr) == pytest.approx(
        (per_vector.mean(), per_vector.std(ddof=1) / 50**0.5), rel=1e-9
    )


@pytest.mark.parametrize(
    "importance", [np.ones(63), np.ones((64, 1)), 1.0, np.zeros(64), -np.ones(64), np.full(64, np.nan),
                   np.r_[np.inf, np.ones(63)]],
)  # fmt: skip
def test_bad_importance_is_refused(importance):
    source = pr.SparseUniform(0.1)
    model = model_of(source, 64, 0.5)
    for ask in (model.law, model.limit, model.measure):
        with pytest.raises(ValueError, match=r"^importance (has shape|holds) .*; allowed"):
            ask(source, importance=importance)


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.Bayes])
@pytest.mark.parametrize(
    "channel",
    [pr.Channel(0.05), pr.Channel(bits=1), pr.Channel(bits=3), pr.Channel(erasures=0.3), pr.Channel(0.05, 4, 0.2)],
    ids=["noise", "1 bit", "3 bits", "erasures", "all"],
)
def test_the_law_with_a_channel(kind, channel):
    source = pr.SparseUniform(0.1)
    model = pr.Autoencoder(pr.Rug.of_ratio(1024, 0.4), kind(), channel=channel).tune(source)
    relative, errors = off(model, source, model.measure(source, samples=2048))
    assert relative < 0.02 or errors < 3
    clear = pr.Autoencoder(model.encoder, kind()).tune(source)
    assert model.law(source) > 1.02 * clear.law(source)


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.Bayes])
def test_the_law_of_features_that_differ(kind):
    n = 256
    source = pr.SparseUniform(np.repeat(pr.zipf_rates(8, 0.1, 0.7), 32), np.repeat(np.linspace(0.5, 2, 8), 32))
    model = pr.Autoencoder(pr.Rug(n, 100), kind(), channel=pr.Channel(0.03, 4, 0.1)).tune(source)
    result, laws = model.measure(source, samples=4096), model.laws(source)
    assert result.loss == pytest.approx(laws.mean(), rel=0.03)
    for part in np.array_split(np.arange(n), 4):
        assert result.losses[part].mean() == pytest.approx(laws[part].mean(), rel=0.07)


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.Bayes])
def test_the_law_on_alike_features_of_a_decoder_for_others(kind):
    alike = pr.SparseUniform(0.1)
    model = pr.Autoencoder(pr.Rug(16, 8), kind()).tune(differing(n=16))
    result = model.measure(alike, samples=8192)
    relative, errors = off(model, alike, result)
    assert relative < 0.1 or errors < 4
    # Sixteen features interfere with each other in ways of their own, but the laws tell good from bad.
    assert np.corrcoef(model.laws(alike), result.losses)[0, 1] > 0.5


@pytest.mark.parametrize("samples", [1, 0, -3, 2.5])
def test_too_few_samples_of_given_rows_are_refused(samples):
    with pytest.raises(ValueError, match="samples is"):
        model_of(pr.SparseUniform(0.1), 8, 0.5).measure(torch.ones(4, 8), samples=samples)


def test_a_trace_is_of_the_iterations_and_of_no_other_decoder():
    source = pr.SparseUniform(0.05)
    model = pr.Autoencoder(pr.Rug(256, 128), pr.OAMP(), channel=pr.Channel(0.01)).tune(source)
    trace = model.trace(source, samples=16, seed=2)
    assert trace.ndim == 2
    assert trace.shape[1] == 16
    assert len(trace) <= model.decoder.iterations
    assert trace[-1].mean() < 0.5 * trace[0].mean()
    # The last is what decoding the same codes loses.
    x = source.sample(16, 256, seed=torch.Generator().manual_seed(2), dtype=torch.float64)
    codes = model.transmit(model.encode(x), seed=3)
    assert trace[-1] == pytest.approx((model.decode(codes) - x).square().mean(1).numpy(), rel=1e-9)
    for kind in (pr.Linear, pr.ReLU, pr.Bayes, pr.TopK):
        with pytest.raises(ValueError, match=f"decoder is {kind.name}; allowed: oamp"):
            model_of(source, 256, 0.5, kind).trace(source)


@pytest.mark.parametrize("mean", [np.zeros(7), np.full(8, np.nan), np.zeros((2, 4)), np.inf])
def test_bad_means_are_refused(mean):
    with pytest.raises(ValueError, match=r"^mean (has|is) .*; allowed"):
        pr.Autoencoder(pr.Rug(8, 4), pr.ReLU(), mean)


def test_another_number_of_features_is_refused():
    for kind in (pr.Linear, pr.ReLU, pr.Bayes, pr.OAMP):
        with pytest.raises(ValueError, match=r"source uniform has 64 features; allowed with .*: 32"):
            pr.Autoencoder(pr.Rug(32, 16), kind()).tune(differing())


@pytest.mark.parametrize("kind", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_of_nothing_are_refused(kind, dtype):
    model = pr.Autoencoder(pr.Rug(64, 16), kind()).tune(pr.SparseUniform(0.1))
    z = model.encode(pr.SparseUniform(0.1).sample(3, 64, seed=0, dtype=dtype))
    for bad, word in (
        *((bad, "z holds NaN or infinity; allowed: finite numbers") for bad in (np.nan, np.inf, -np.inf)),
        (1e38, r"z holds sizes up to 1e\+38; allowed: up to 8e\+30"),
    ):
        wrong = z.index_fill(1, torch.tensor([3]), bad)
        for given in (wrong, wrong.numpy()):
            with pytest.raises(ValueError, match=word):
                model.decode(given)
    # The largest that there are have an estimate, though their squares leave the range of 32 bits.
    x_hat = model.decode(z * (1e30 / float(z.abs().max())))
    assert x_hat.dtype == dtype
    assert bool(x_hat.isfinite().all())


@pytest.mark.parametrize("gains", [1.0, 2.0, np.linspace(0.5, 2.0, 64)], ids=["1", "2", "each"])
def test_features_of_nothing_are_refused(gains):
    model = pr.Autoencoder(pr.Rug(64, 16), pr.ReLU(), gains=gains)
    for bad, word in ((np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (1e300, r"sizes up to 1e\+300")):
        x = np.ones((3, 64))
        x[1, 5] = bad
        for call in (model.encode, model):
            with pytest.raises(ValueError, match=f"x holds {word}; allowed"):
                call(x)


def test_missing_entries_are_no_numbers_of_nothing():
    model = pr.Autoencoder(pr.Rug(64, 16), pr.ReLU(), channel=pr.Channel(erasures=0.25))
    z = model.transmit(model.encode(pr.SparseUniform(0.1).sample(3, 64, seed=0)))
    assert bool(z.isnan().any())
    assert bool(model.decode(z).isfinite().all())
    z[1, 5] = np.inf
    with pytest.raises(
        ValueError, match="z holds infinity; allowed: finite numbers, and NaN where one is missing"
    ):
        model.decode(z)


def test_gradients_go_through_what_is_checked():
    model = pr.Autoencoder(pr.Rug(64, 16), pr.Linear(2.0, 0.0))
    x = torch.ones(3, 64, requires_grad=True)
    model(x).sum().backward()
    assert torch.allclose(x.grad, 2 * (model.encoder.W(torch.float32).sum(0)).expand(3, 64), atol=1e-4)
    # Numbers that are decoded in 64 bits, too.
    z = torch.full((3, 16), 1e20, requires_grad=True)
    model.decode(z).sum().backward()
    assert torch.allclose(z.grad, 2 * model.encoder.W_out(torch.float32).sum(0).expand(3, 16), atol=1e-4)
