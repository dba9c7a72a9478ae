"""Message passing that knows covariance and sparsity: where it must be exact, where it must be best, any batch."""

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.decoders import from_recipe
from persianrug.sources import SecondMoments
from tests.sources.test_covariance import made

N = 256
SMALL = pr.Rug(8, 4)


def flattened(covariance, flat):
    return covariance.flattened() if flat else covariance


def smooth(rows, seed):
    """Rows of 4 factors, cut at 0 where these are negative, as a pressure is."""
    shapes = np.random.default_rng(0).standard_normal((4, N)) / 2
    rng = np.random.default_rng(seed)
    return np.maximum(rng.standard_normal((rows, 4)) @ shapes + 0.2 * rng.standard_normal((rows, N)), 0.0)


@pytest.fixture(scope="module")
def fitted():
    rows = smooth(3000, seed=1)
    return SecondMoments.of(rows).covariance(24), pr.SparseTruncatedNormal.fit(rows)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("encoder", [pr.Rug(64, 20, seed=1), pr.Rug(60, 20, seed=1), pr.Gaussian(64, 20)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_features_that_are_never_0_are_read_as_by_lmmse(encoder, flat, noise):
    covariance, channel = made(encoder.n_sparse, 4, flat=flat), pr.Channel(noise=noise)
    source = pr.SparseGaussian(np.ones(encoder.n_sparse))
    z = torch.from_numpy(covariance.sample(7, seed=1)) @ encoder.W_in().T
    found, expected = (
        pr.Autoencoder(encoder, kind(covariance), channel=channel).tune(source).decode(z)
        for kind in (pr.CVAMP, pr.LMMSE)
    )
    # Relative to noise, rows are smaller or larger than the covariance says: only without it both are the same.
    tolerance = 1e-6 if noise == 0 else 0.05 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("source", [pr.SparseGaussian(0.05), pr.SparseTruncatedNormal(0.1)], ids=str)
def test_sparse_features_are_recovered(source):
    model = pr.Autoencoder(pr.Rug(512, 256, seed=0), pr.CVAMP()).tune(source)
    result = model.measure(source, samples=64, dtype=torch.float64)
    # Of a few the last iteration is not quite there.
    assert result.loss < 1e-5
    assert model.law(source) < 1e-5


@pytest.mark.parametrize(("ratio", "share"), [(0.25, 0.9), (0.5, 0.5)])
@pytest.mark.parametrize("flat", [False, True])
def test_it_loses_less_than_either_alone(fitted, ratio, share, flat):
    covariance, source = fitted
    covariance, rug = flattened(covariance, flat), pr.Rug.of_ratio(N, ratio, seed=3)
    rows = smooth(200, seed=2)
    lost = {
        kind.name: pr.Autoencoder(rug, kind(*known)).tune(source).measure(rows, dtype=torch.float64).loss
        for kind, known in ((pr.CVAMP, (covariance,)), (pr.LMMSE, (covariance, True)), (pr.OAMP, ()))
    }
    assert lost["cvamp"] < share * min(lost["lmmse"], lost["oamp"])


def test_rows_of_other_sizes_are_read_as_well(fitted):
    """A press ten times as hard: every row's code tells its size."""
    covariance, source = fitted
    model = pr.Autoencoder(pr.Rug(N, N // 2, seed=3), pr.CVAMP(covariance.flattened())).tune(source)
    rows = torch.from_numpy(smooth(100, seed=2))
    lost, larger = ((model(size * rows) / size - rows).square().mean() for size in (1, 10))
    assert larger < 3 * lost


@pytest.mark.parametrize("flat", [False, True])
class TestBatches:
    def model(self, fitted, flat, channel=pr.decoders.base.CLEAR):
        covariance, source = fitted
        return pr.Autoencoder(pr.Rug(N, 64, seed=0), pr.CVAMP(flattened(covariance, flat)), channel=channel).tune(
            source
        )

    def test_a_row_alone_and_others(self, fitted, flat):
        model = self.model(fitted, flat)
        z = model.encode(torch.from_numpy(smooth(300, seed=4))).reshape(3, 100, 64)
        found = model.decode(z)
        for place in ((0, 0), (1, 57), (2, 99)):
            torch.testing.assert_close(found[place], model.decode(z[place]), rtol=1e-7, atol=1e-7)
        single = model.decode(z.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), found, rtol=1e-2, atol=1e-3)

    def test_entries_that_are_missing_are_left_out(self, fitted, flat):
        model = self.model(fitted, flat, pr.Channel(erasures=0.25))
        x = torch.from_numpy(smooth(6, seed=5))
        z = model.encode(x)
        gone = torch.rand(z.shape, generator=torch.Generator().manual_seed(0)) < 0.25
        gone[0], gone[1] = False, True
        found = model.decode(z.masked_fill(gone, torch.nan))
        torch.testing.assert_close(found[1], torch.from_numpy(model.decoder.covariance.mean))
        for row in (0, 2, 5):
            kept = ~gone[row]
            dense = pr.Dense(model.encoder.W_in(torch.float64)[kept])
            alone = pr.Autoencoder(dense, pr.CVAMP(model.decoder.covariance)).tune(fitted[1])
            torch.testing.assert_close(found[row], alone.decode(z[row, kept]), rtol=1e-5, atol=1e-5)

    def test_gradients(self, fitted, flat):
        covariance = made(16, 2, flat=flat)
        model = pr.Autoencoder(pr.Rug(16, 6, seed=0), pr.CVAMP(covariance, iterations=4))
        model = model.tune(pr.SparseGaussian(np.full(16, 0.4)))
        z = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
        assert torch.autograd.gradcheck(model.decode, z)


def law_and_measured(channel, samples):
    source = pr.SparseUniform(0.2)
    model = pr.Autoencoder(pr.Rug(N, 128, seed=0), pr.CVAMP(), channel=channel).tune(source)
    return model.law(source), model.measure(source, samples=samples, seed=7, dtype=torch.float64)


@pytest.mark.parametrize(
    "channel",
    [pr.Channel(), pr.Channel(noise=0.05), pytest.param(pr.Channel(erasures=0.2), marks=pytest.mark.slow)],
    ids=str,
)
def test_the_law_of_drawn_rows(channel):
    law, result = law_and_measured(channel, 1000)
    assert law == pytest.approx(result.loss, rel=0.1, abs=4 * result.stderr)


def test_the_law_where_entries_are_missing(monkeypatch):
    """Of fewer rows than above, each of which takes a factorisation of its own."""
    monkeypatch.setattr("persianrug.decoders.cvamp._LAW_NUMBERS", 1 << 15)
    law, result = law_and_measured(pr.Channel(erasures=0.2), 128)
    assert law == pytest.approx(result.loss, rel=0.3, abs=4 * result.stderr)
    assert law > 10 * law_and_measured(pr.Channel(), 16)[0]


@pytest.mark.parametrize("n_sparse", [64, 96, 97])
def test_without_any_factors(n_sparse):
    """Where nothing is known of how features go together, whatever transform the rug takes."""
    source = pr.SparseUniform(0.1)
    model = pr.Autoencoder(pr.Rug(n_sparse, n_sparse // 2), pr.CVAMP()).tune(source)
    assert model.measure(source, samples=32).loss < 0.5 * source.variance


def test_features_without_any_variance_of_their_own():
    covariance = made(32, 3)
    diagonal = covariance.diagonal.copy()
    diagonal[::2] = 0.0
    covariance = pr.Covariance(covariance.mean, covariance.factors, diagonal)
    model = pr.Autoencoder(pr.Rug(32, 20), pr.CVAMP(covariance)).tune(pr.SparseGaussian(np.full(32, 0.9)))
    assert model(torch.from_numpy(covariance.sample(5))).isfinite().all()


def test_features_that_hardly_vary_are_no_zeros():
    """A constant is taken for one that is never 0, however sure its variance makes the other side of the scale."""
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.standard_normal((60, 20)) - 0.5, 0)
    rows[:, ::2] = 2.0
    fitted = SecondMoments.of(rows).covariance(8)
    source, rug = pr.SparseTruncatedNormal.fit(rows), pr.Rug(20, 10)
    lost = {
        kind.name: pr.Autoencoder(rug, kind(fitted)).tune(source).measure(rows, dtype=torch.float64).loss
        for kind in (pr.CVAMP, pr.LMMSE)
    }
    assert lost["cvamp"] < 1.05 * lost["lmmse"]
    constant = np.ones((50, 8))
    source, known = pr.SparseTruncatedNormal.fit(constant), SecondMoments.of(constant).covariance(8)
    model = pr.Autoencoder(pr.Rug(8, 4), pr.CVAMP(known)).tune(source)
    assert model.measure(constant, dtype=torch.float64).loss < 1e-9


def test_sums_of_codes_are_read(fitted):
    covariance, source = fitted
    sketch = pr.Sketch(source, pr.Rug(N, 128, seed=0), decoder="cvamp", covariance=covariance)
    rows = smooth(20, seed=6)
    codes = sketch.encode(rows)
    total = sketch.decode(codes[:10] + codes[10:])
    assert np.square(total - rows[:10] - rows[10:]).mean() < 0.3 * (rows[:10] + rows[10:]).var()
    difference = sketch.decode(codes[:10] - codes[10:])
    assert (difference < 0).any()


def test_it_is_stored(fitted):
    covariance, source = fitted
    decoder = pr.Autoencoder(pr.Rug(N, 64), pr.CVAMP(covariance, iterations=7, damping=0.5)).tune(source).decoder
    again = from_recipe(decoder.recipe())
    assert (again.iterations, again.damping, again.positive) == (7, 0.5, True)
    z = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        again.decode(z, pr.Rug(N, 64)), decoder.decode(z, pr.Rug(N, 64)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pr.CVAMP(source=3), "source is 3; allowed: a Source"),
        (lambda: pr.CVAMP(iterations=0), "iterations is 0; allowed: an integer >= 1"),
        (lambda: pr.CVAMP(damping=0.0), "damping is 0.0; allowed"),
        (lambda: pr.CVAMP(covariance=1), "covariance is 1; allowed: a Covariance"),
        (lambda: pr.CVAMP(made(8, 2)).decode(torch.zeros(1, 4), SMALL), "source is None; allowed to decode"),
        (lambda: pr.CVAMP().decode(torch.zeros(1, 4), SMALL), "covariance is None; allowed to decode"),
        (
            lambda: pr.CVAMP().adapt(pr.SparseUniform(0.1), pr.KnottedRug.weave(pr.knots.pair(), 16, 8)),
            "encoder is .*; allowed with decoder cvamp: encoders without knots",
        ),
    ],
)  # fmt: skip
def test_bad_input(make, said):
    with pytest.raises(ValueError, match=said):
        make()
