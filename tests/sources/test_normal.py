"""Normal amplitudes, whole and cut: moments, losses, and laws that are fitted to rows."""

import math

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr
from tests.sources.helpers import EVERY_NORMAL, SIGMAS


@pytest.fixture(params=EVERY_NORMAL)
def make_normal(request):
    return EVERY_NORMAL[request.param]


def test_mmse_of_a_gaussian_is_the_closed_form():
    source = pr.SparseGaussian(1.0, scale=2.0)
    for sigma in SIGMAS:
        assert source.mmse(sigma) == pytest.approx(4 * sigma**2 / (4 + sigma**2), rel=1e-10)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("name", EVERY_NORMAL)
def test_mmse_of_normal_amplitudes_is_what_the_posterior_mean_loses(name, sigma):
    source = EVERY_NORMAL[name](0.2)
    generator = torch.Generator().manual_seed(1)
    x = source.sample(1, 100_000, seed=generator, dtype=torch.float64)
    y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    mean, variance = source.posterior(y, sigma)
    for loss in ((x - mean).square(), variance):
        assert loss.mean().item() == pytest.approx(source.mmse(sigma), abs=4.5 * loss.std().item() / 100_000**0.5)


@pytest.mark.parametrize("p", [0.02, 0.6])
@pytest.mark.parametrize("name", EVERY_NORMAL)
def test_samples_of_normal_amplitudes_have_the_moments(name, p):
    source = EVERY_NORMAL[name](p)
    x = source.sample(500, 500, seed=7, dtype=torch.float64).flatten()
    assert (x != 0).double().mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p)) / 500)
    assert source.signed or x.min() >= 0
    assert x.mean().item() == pytest.approx(source.mean, abs=5 * x.std().item() / 500)
    assert x.square().mean().item() == pytest.approx(source.second_moment, abs=5 * x.square().std().item() / 500)
    u = x[x != 0]
    gaps = (u - source.amplitude_moment(1)).square()
    assert gaps.mean().item() == pytest.approx(
        source.amplitude_variance, abs=5 * gaps.std().item() / len(u) ** 0.5
    )


def test_amplitude_moments_of_normal_amplitudes(make_normal):
    source = make_normal(0.5)
    scale, loc = mp.mpf(source.scale), mp.mpf(source.loc)
    low = -mp.inf if source.signed else 0
    cuts = [low, *[c for c in (loc + k * scale for k in (-12, -6, -3, -1, 0, 1, 3, 6, 12)) if c > low], mp.inf]
    cuts = sorted({*cuts, *(k * scale / 10 for k in (0, 1, 3, 10, 40))}) if loc < 0 else cuts

    def integral(g):
        return mp.quad(lambda u: g(u) * mp.exp(-(((u - loc) / scale) ** 2) / 2 + edge), cuts)

    edge = (loc / scale) ** 2 / 2 if loc < 0 and not source.signed else mp.mpf(0)
    mass = integral(lambda u: 1)
    for k in range(7):
        expected = integral(lambda u, k=k: u**k) / mass
        assert source.amplitude_moment(k) == pytest.approx(float(expected), rel=1e-9)
        u, w = source.amplitude_nodes(np.array([[0.0], [0.5]]), np.array([0.0, 1e-3]))
        assert (w * u**k).sum(-1) == pytest.approx(source.amplitude_moment(k), rel=1e-9)
    mean = integral(lambda u: u) / mass
    spread = integral(lambda u: (u - mean) ** 2) / mass
    assert source.amplitude_variance == pytest.approx(float(spread), rel=1e-9)
    assert source.variance == pytest.approx(source.second_moment - source.mean**2, rel=1e-9)


class TestFit:
    @pytest.mark.parametrize(
        ("kind", "locs"), [(pr.SparseTruncatedNormal, [-0.5, 0.5, 3.0]), (pr.SparseGaussian, [-1.0, 0.0, 2.0])]
    )
    def test_it_recovers_what_made_the_data(self, kind, locs):
        # Ten features of each of three kinds, whose spread says how well one of them can be known.
        p, scale, loc = (np.repeat(part, 10) for part in ([0.1, 0.5, 0.3], [1.0, 0.5, 2.0], locs))
        rows = kind(p, scale, loc).sample(20_000, 30, seed=0, dtype=torch.float64).numpy()
        fit = kind.fit(rows)
        assert fit.n_sparse == 30
        assert (np.abs(fit.p - p) < 4.5 * np.sqrt(p * (1 - p) / 20_000) + 1e-4).all()
        for found, true in ((fit.loc, loc), (fit.scale, scale)):
            groups = found.reshape(3, 10)
            spread = groups.std(axis=1, ddof=1)
            # A tenth of it, by which estimates of few numbers are biased.
            assert (np.abs(groups.mean(1) - true[::10]) < 5 * spread / 10**0.5 + 0.1 * spread).all()
            assert (spread < 0.25 * scale[::10]).all()
        # Means and variances are those of the data, but for two values an average feature has.
        assert fit.mean == pytest.approx(rows.mean(0), rel=0.02, abs=1e-3)
        assert fit.variance == pytest.approx(rows.var(0), rel=0.03)

    @pytest.mark.parametrize("kind", [pr.SparseTruncatedNormal, pr.SparseGaussian])
    def test_features_never_or_once_active_have_a_law(self, kind):
        rows = kind(0.4, 0.5, 2.0).sample(999, 6, seed=1, dtype=torch.float64).numpy()
        rows[:, 0] = 0.0
        rows[:, 1] = 0.0
        rows[7, 1] = 5.0
        rows[:, 2] = np.abs(rows[:, 2]) + 1
        rows[:, 3] = np.where(rows[:, 3] != 0, 2.0, 0.0)
        fit = kind.fit(rows)
        assert fit.p[:3] == pytest.approx([0.5 / 1000, 1.5 / 1000, 999.5 / 1000], rel=1e-12)
        typical = rows[rows != 0].mean()
        mean, spread = fit.amplitude_moment(1), np.sqrt(fit.amplitude_variance)
        # As an average feature, and between that and the one value.
        assert mean[:2] == pytest.approx([typical, (5.0 + 2 * typical) / 3], rel=1e-6)
        assert (spread > 0).all()
        assert spread[3] < 0.1
        assert np.isfinite(fit.mmse(0.1)).all()

    @pytest.mark.parametrize("kind", [pr.SparseTruncatedNormal, pr.SparseGaussian])
    def test_dense_sparse_and_tensor_agree(self, kind):
        rows = kind(0.2, 0.5, 2.0).sample(300, 7, seed=1, dtype=torch.float64)
        fits = {
            kind.fit(make(rows.numpy()))
            for make in (
                np.array,
                torch.tensor,
                scipy.sparse.csr_array,
                scipy.sparse.csc_array,
                scipy.sparse.coo_array,
            )
        }
        first = fits.pop()
        for fit in fits:
            for name in ("p", "scale", "loc"):
                assert np.allclose(getattr(fit, name), getattr(first, name), rtol=1e-12)

    def test_negative_numbers_are_refused_where_they_cannot_be(self):
        rows = np.array([[-1.0, 2.0], [-3.0, 1.0], [-2.0, 0.0], [-4.0, 1.0]])
        with pytest.raises(ValueError, match=r"rows holds negative numbers; allowed"):
            pr.SparseTruncatedNormal.fit(rows)
        assert pr.SparseGaussian.fit(rows).loc[0] < 0

    def test_single_negative_numbers_are_refused(self):
        rows = pr.SparseTruncatedNormal(0.5, 0.5, 2.0).sample(50, 4, seed=0).numpy()
        rows[3, 2] = -1.0
        with pytest.raises(ValueError, match=r"rows holds negative numbers; allowed"):
            pr.SparseTruncatedNormal.fit(rows)

    @pytest.mark.parametrize(
        ("rows", "word"),
        [(np.zeros((3, 3)), "zeros"), (np.empty((0, 3)), "empty"), (np.array([[1.0, np.nan]]), "NaN"),
         (np.ones((5, 1)), "rows has 1 features; allowed: at least 2")],
    )  # fmt: skip
    def test_what_holds_no_source_is_refused(self, rows, word):
        for kind in (pr.SparseTruncatedNormal, pr.SparseGaussian):
            with pytest.raises(ValueError, match=word):
                kind.fit(rows)


class TestFeaturesOfBothShapes:
    """Normal laws that are cut near their centre, and such that are cut far above it, in one source."""

    def test_each_is_read_as_alone(self):
        loc = np.array([1.0, -4.0, 0.5, -4.0, 2.0, -6.0])
        rng = np.random.default_rng(0)
        y = torch.from_numpy(rng.normal(size=(50, 6)) + 0.5)
        for far in ([1], [1, 3], [1, 3, 5], [0, 1, 2, 3, 4, 5], []):
            chosen = np.array([value if i in far or value > 0 else 1.0 for i, value in enumerate(loc)])
            source = pr.SparseTruncatedNormal(np.linspace(0.1, 0.6, 6), np.linspace(0.5, 1.5, 6), chosen)
            for sigma in (0.05, 0.7):
                mean, variance = source.posterior(y, sigma)
                for feature in range(6):
                    one = source.at(feature).posterior(y[:, feature : feature + 1], sigma)
                    assert torch.allclose(mean[:, feature], one[0][:, 0], rtol=1e-9, atol=1e-12)
                    assert torch.allclose(variance[:, feature], one[1][:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [pr.SparseTruncatedNormal, pr.SparseGaussian])
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 0.3])
def test_amplitudes_that_hardly_vary_in_single_precision(kind, scale):
    """As of rows of zeros and ones, to which `fit` gives a spread of 1e-4."""
    source = kind(0.03, scale, 1.0)
    y = torch.linspace(-2.0, 3.0, 501, dtype=torch.float64)
    for sigma in (0.01, 0.1, 0.5):
        level = torch.full((1,), sigma, dtype=torch.float64)
        single, double = (source.denoise(y.to(t), level.to(t)) for t in (torch.float32, torch.float64))
        for one, other in zip(single, double, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=0, atol=3e-4)


def test_half_normal_is_fitted():
    x = pr.SparseHalfNormal(0.3, 2.0).sample(4000, 6, seed=0).double().numpy()
    found = pr.SparseHalfNormal.fit(x)
    assert found.scale == pytest.approx(np.full(6, 2.0), rel=0.1)
    assert found.p == pytest.approx(np.full(6, 0.3), rel=0.1)
