"""Sources against high-precision integrals, Monte Carlo and each other."""

import math

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.sources import SOURCES, _bernoulli_places

from .conftest import EVERY_SOURCE

SIGMAS = [1e-9, 1e-4, 0.03, 0.049999, 0.050001, 0.2, 1.0, 30.0, 1e3]


def exact_moments(source, y, sigma):
    """E_u u^k exp((u y - u^2 / 2) / sigma^2) for k = 0, 1, 2 by integrals of 30 digits."""
    mp.mp.dps = 30
    y, sigma = mp.mpf(y), mp.mpf(sigma)

    def weight(u):
        return mp.exp((u * y - u * u / 2) / sigma**2)

    scale = mp.mpf(getattr(source, "scale", 1.0))
    if isinstance(source, pr.SparseConstant | pr.Empirical):
        values, weights = source._atoms
        parts = [
            [mp.mpf(w) * mp.mpf(u) ** k * weight(mp.mpf(u)) for u, w in zip(values, weights, strict=True)]
            for k in range(3)
        ]
        return [mp.fsum(part) for part in parts]
    density, low, high = {
        pr.SparseUniform: (lambda u: 1 / scale, 0, scale),
        pr.SparseExponential: (lambda u: mp.exp(-u / scale) / scale, 0, mp.inf),
        pr.SparseHalfNormal: (
            lambda u: mp.sqrt(2 / mp.pi) / scale * mp.exp(-((u / scale) ** 2) / 2), 0, mp.inf,
        ),
        pr.SparseGaussian: (
            lambda u: mp.exp(-((u / scale) ** 2) / 2) / mp.sqrt(2 * mp.pi) / scale, -mp.inf, mp.inf,
        ),
    }[type(source)]  # fmt: skip
    # The integrand lives within a few sigma of its peak, or decays from an edge of the support, or is
    # confined by the density.
    peak = min(max(y, mp.mpf(low) if low != -mp.inf else y), mp.mpf(high) if high != mp.inf else y)
    slope = abs(y - peak) / sigma**2
    width = min(sigma, 1 / slope) if slope else sigma
    around = [peak + width * k for k in (-40, -12, -8, -5, -3, -2, -1, 0, 1, 2, 3, 5, 8, 12, 40)]
    cuts = sorted({min(max(c, low), high) for c in around + [scale * k for k in (-12, -4, -1, 0, 1, 4, 12, 40)]})
    cuts = [c for c in cuts if abs(c - peak) <= 40 * sigma + scale]
    # In units of the width, since the quadrature's tolerance is absolute.
    top, cuts = weight(peak), [c / width for c in cuts]

    def moment(k):
        def integrand(t):
            return t**k * density(t * width) * weight(t * width) / top

        return top * width ** (k + 1) * mp.quad(integrand, cuts, method="gauss-legendre", maxdegree=4)

    return [moment(k) for k in range(3)]


@pytest.mark.parametrize("name", EVERY_SOURCE)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_posterior_is_exact(name, sigma):
    source = EVERY_SOURCE[name](0.5)
    scale = getattr(source, "scale", 1.0)
    # Off, in the transition between off and on, far on, at an edge, beyond it.
    places = [-3 * sigma, 0.0, 2.5 * sigma, 5 * sigma, 7.5 * sigma, 0.4 * scale, scale, scale + 2 * sigma]
    exact = [exact_moments(source, y, sigma) for y in places]
    for p in (1e-6, 0.05, 0.99, 1.0):
        mean, variance = EVERY_SOURCE[name](p).posterior(np.array(places), sigma)
        for y, got_mean, got_variance, moments in zip(places, mean, variance, exact, strict=True):
            total = 1 - p + p * moments[0]
            want_mean = p * moments[1] / total
            want_variance = p * moments[2] / total - want_mean**2
            # Rounding of y alone moves the log odds by y^2 / sigma^2 * 1e-16.
            tolerance = 1e-9 + 1e-15 * (y / sigma) ** 2
            assert abs(got_mean - want_mean) <= tolerance * abs(want_mean) + 1e-14 * min(scale, sigma)
            assert (
                abs(got_variance - want_variance) <= tolerance * abs(want_variance) + 1e-14 * got_mean**2 + 1e-300
            )


@pytest.mark.parametrize("sigma", [1e-9, 1e-3, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.5, 0.99, 1.0])
def test_mmse_lies_between_its_bounds(make_source, p, sigma):
    source = make_source(p)
    mmse = source.mmse(sigma)
    linear = source.variance * sigma**2 / (source.variance + sigma**2)
    assert 0 <= mmse <= linear * (1 + 1e-9)


@pytest.mark.parametrize("name", ["uniform", "exponential", "half-normal", "gaussian"])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.99])
def test_mmse_at_tiny_noise_is_that_of_known_support(name, p):
    # A source with a density is known up to the noise where it is active.
    assert SOURCES[name](p).mmse(1e-9) == pytest.approx(p * 1e-18, rel=1e-5)


@pytest.mark.parametrize("p", [0.01, 0.3])
@pytest.mark.parametrize("sigma", [0.02, 0.2, 2.0])
def test_mmse_is_what_the_posterior_mean_loses(make_source, p, sigma):
    source = make_source(p)
    generator = torch.Generator().manual_seed(1)
    x = source.sample(1, 250_000, seed=generator, dtype=torch.float64)
    y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    mean, variance = source.posterior(y, sigma)
    mmse = source.mmse(sigma)
    for loss in ((x - mean).square(), variance):
        # Between atoms far apart, errors are too rare to be sampled.
        assert loss.mean().item() == pytest.approx(mmse, abs=4 * loss.std().item() / 500 + 1e-12)


def test_mmse_of_a_gaussian_is_the_closed_form():
    source = pr.SparseGaussian(1.0, scale=2.0)
    for sigma in SIGMAS:
        assert source.mmse(sigma) == pytest.approx(4 * sigma**2 / (4 + sigma**2), rel=1e-10)


def test_mmse_of_the_uniform_source_is_the_known_floor():
    # Bayes elementwise at the three points of the toy model, from an independent solution.
    for p, ratio, floor in [(0.045, 0.25, 0.0044803), (0.01, 0.1, 0.00088579), (0.3, 0.5, 0.028895)]:
        source = pr.SparseUniform(p)
        assert source.mmse(pr.noise_level(source.variance, ratio)) == pytest.approx(floor, rel=1e-4)


@pytest.mark.parametrize("p", [1e-4, 0.01, 0.3, 0.6, 1.0])
def test_samples_have_the_moments(make_source, p):
    source = make_source(p)
    x = source.sample(1000, 1000, seed=7, dtype=torch.float64).flatten()
    active = x != 0
    assert active.double().mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / x.numel()) + 1e-12)
    assert x.mean().item() == pytest.approx(source.mean, abs=5 * x.std().item() / 1e3)
    squares = x.square()
    assert squares.mean().item() == pytest.approx(source.second_moment, abs=5 * squares.std().item() / 1e3)
    assert source.variance == pytest.approx(source.second_moment - source.mean**2, rel=1e-12)


def test_samples_are_independent_between_places():
    # The gaps between active features must not favour places or neighbours.
    x = pr.SparseConstant(0.1).sample(4096, 32, seed=3)
    counts = x.sum(0)
    assert (counts - 409.6).abs().max() < 5 * math.sqrt(4096 * 0.09)
    neighbours = (x[:, 1:] * x[:, :-1]).mean().item()
    assert neighbours == pytest.approx(0.01, abs=5 * math.sqrt(0.0099 / (4096 * 31)))


@given(count=st.integers(1, 3000), p=st.floats(1e-6, 0.5), seed=st.integers(0, 1000))
def test_places_are_in_range_and_ascending(count, p, seed):
    places = _bernoulli_places(count, p, torch.Generator().manual_seed(seed), torch.device("cpu"))
    assert ((places >= 0) & (places < count)).all()
    assert (places.diff() > 0).all()


def test_sampling_is_reproducible_and_takes_its_kind_from_the_arguments():
    source = pr.SparseUniform(0.1)
    assert torch.equal(source.sample(3, 50, seed=5), source.sample(3, 50, seed=5))
    assert not torch.equal(source.sample(3, 50, seed=5), source.sample(3, 50, seed=6))
    assert source.sample(3, 50, seed=5, dtype=torch.float64).dtype == torch.float64
    generator = torch.Generator().manual_seed(5)
    first = source.sample(3, 50, seed=generator)
    assert torch.equal(first, source.sample(3, 50, seed=5))
    assert not torch.equal(first, source.sample(3, 50, seed=generator))


def test_the_posterior_has_the_right_gradient(make_source):
    source = make_source(0.1)
    for sigma in (0.03, 0.3):
        y = torch.tensor([-0.5, -0.01, 0.08, 0.3, 0.8, 1.2], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda y, s=sigma: source.posterior(y, s)[0], y)
        # Tweedie: the derivative of the posterior mean is the posterior variance over sigma^2.
        mean, variance = source.posterior(y, sigma)
        (slope,) = torch.autograd.grad(mean.sum(), y)
        assert torch.allclose(slope, variance / sigma**2, rtol=1e-8, atol=1e-12)


def test_sigma_may_differ_by_entry(make_source):
    source = make_source(0.2)
    y = torch.tensor([[0.1, 0.5], [0.9, -0.2]], dtype=torch.float64)
    sigma = torch.tensor([[0.01], [0.4]], dtype=torch.float64)
    mean, variance = source.posterior(y, sigma)
    for row in range(2):
        for_row = source.posterior(y[row], float(sigma[row]))
        assert torch.allclose(mean[row], for_row[0], rtol=1e-12)
        assert torch.allclose(variance[row], for_row[1], rtol=1e-12)


def test_the_posterior_keeps_kind_and_dtype():
    source = pr.SparseUniform(0.1)
    assert source.posterior(torch.tensor(0.5), 0.1)[0].shape == ()
    y = np.array([[0.2, 0.7]], dtype=np.float32)
    mean, variance = source.posterior(y, 0.1)
    assert isinstance(mean, np.ndarray)
    assert mean.dtype == variance.dtype == np.float32
    assert mean.shape == y.shape


def test_amplitude_nodes_integrate_polynomials_and_kinks(make_source):
    source = make_source(0.5)
    u, w = source.amplitude_nodes(np.array([[0.0], [0.5]]), np.array([0.0, 1e-3]))
    for k in range(7):
        assert (w * u**k).sum(-1) == pytest.approx(source.amplitude_moment(k), rel=1e-9, abs=1e-12)


class TestEmpirical:
    def test_fit_keeps_few_values_as_they_are(self):
        source = pr.Empirical.fit(np.array([[0.0, 2.0], [1.0, 2.0]]))
        assert source.p == 0.75
        assert source.values.tolist() == [1.0, 2.0]
        assert source.weights == pytest.approx([1 / 3, 2 / 3])

    def test_fit_of_many_values_keeps_mean_and_nearly_variance(self):
        rng = np.random.default_rng(0)
        rows = rng.exponential(size=(200, 100)) * (rng.random((200, 100)) < 0.3)
        source = pr.Empirical.fit(rows)
        assert len(source.values) <= 64
        assert source.mean == pytest.approx(rows.mean(), rel=1e-12)
        assert source.variance == pytest.approx(rows.var(), rel=5e-3)

    def test_an_offset_leaves_the_variance_its_digits(self):
        assert pr.Empirical(1.0, [1e8, 1e8 + 1]).variance == 0.25
        assert pr.Empirical.fit(1e9 + np.random.default_rng(0).random((20, 8))).variance == pytest.approx(
            1 / 12, rel=0.2
        )

    def test_dense_sparse_and_tensor_agree(self):
        rows = np.array([[0.0, 2.0, 0.0], [1.0, 2.0, -3.0]])
        fits = [pr.Empirical.fit(kind(rows)) for kind in (np.array, scipy.sparse.csr_array, torch.tensor)]
        assert len({(fit.p, *fit.values, *fit.weights) for fit in fits}) == 1

    @pytest.mark.parametrize(
        ("rows", "word"),
        [
            (np.zeros((3, 3)), "zeros"),
            (np.empty((0, 3)), "empty"),
            (np.array([[1.0, np.nan]]), "NaN"),
            (np.array([[1.0, np.inf]]), "NaN or infinity"),
        ],
    )
    def test_fit_refuses_what_holds_no_source(self, rows, word):
        with pytest.raises(ValueError, match=word):
            pr.Empirical.fit(rows)

    @pytest.mark.parametrize(
        ("values", "weights"),
        [
            ([], None),
            ([0.0], None),
            ([1e40], None),
            ([1.0, 1e-40], None),
            ([np.nan], None),
            ([[1.0]], None),
            ([1.0], [0.0]),
            ([1.0], [1.0, 2.0]),
        ],
    )
    def test_bad_values_are_refused(self, values, weights):
        with pytest.raises(ValueError, match="allowed"):
            pr.Empirical(0.5, values, weights)


@pytest.mark.parametrize("p", [0, -0.1, 1.0001, math.nan, math.inf, "x", "0.1", None, 10**400])
def test_p_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match=r"p is .*; allowed: a number in \(0, 1\]"):
        pr.SparseUniform(p)


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf, 1e-31, 1e31])
def test_scale_outside_its_range_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale is .*; allowed: a (finite number|number from)"):
        pr.SparseExponential(0.1, scale)


def test_other_bad_arguments_are_refused():
    source = pr.SparseUniform(0.1)
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma is"):
            source.posterior(torch.zeros(3), sigma)
        with pytest.raises(ValueError, match="sigma is"):
            source.mmse(sigma)
    for arguments in ({"batch": 0}, {"n_sparse": 0}, {"batch": 1.5}, {"dtype": torch.int64}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .*; allowed"):
            source.sample(**({"batch": 2, "n_sparse": 3} | arguments))
    with pytest.raises(ValueError, match="y has dtype"):
        source.posterior(np.zeros(3, dtype=int), 0.1)
