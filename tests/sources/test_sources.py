"""Sources against high-precision integrals, Monte Carlo and each other."""

import dataclasses
import math
import warnings

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.sources import SOURCES, from_recipe
from persianrug.sources.base import _bernoulli_places
from tests.conftest import EVERY_SOURCE

# Normal amplitudes from nearly exponential ones to those that hardly vary.
EVERY_NORMAL = {
    "truncated-at-10": lambda p: pr.SparseTruncatedNormal(p, 2.0, -20.0),
    "truncated-at-2": lambda p: pr.SparseTruncatedNormal(p, 1.0, -2.0),
    "truncated+0.7": lambda p: pr.SparseTruncatedNormal(p, 1.0, 0.7),
    "truncated+5": lambda p: pr.SparseTruncatedNormal(p, 0.5, 2.5),
    "truncated+20": lambda p: pr.SparseTruncatedNormal(p, 1.0, 20.0),
    "gaussian-3": lambda p: pr.SparseGaussian(p, 1.0, -3.0),
    "gaussian+8": lambda p: pr.SparseGaussian(p, 0.5, 4.0),
}
ALL_SOURCES = EVERY_SOURCE | EVERY_NORMAL


@pytest.fixture(params=EVERY_NORMAL)
def make_normal(request):
    return EVERY_NORMAL[request.param]


@pytest.fixture(params=ALL_SOURCES)
def make_any(request):
    return ALL_SOURCES[request.param]


SIGMAS = [1e-9, 1e-4, 0.03, 0.049999, 0.050001, 0.2, 1.0, 30.0, 1e3]


def exact_normal_moments(source, y, sigma):
    """The same of a normal amplitude, whole or cut, in closed form; 80 digits bear its cancellation."""
    with mp.workdps(80):
        scale, loc = mp.mpf(source.scale), mp.mpf(source.loc)
        variance = 1 / (1 / scale**2 + 1 / sigma**2)
        mean = variance * (loc / scale**2 + y / sigma**2)
        ratio = mp.sqrt(variance) / scale * mp.exp((mean**2 / variance - (loc / scale) ** 2) / 2)
        mass, density = mp.mpf(1), mp.mpf(0)
        if isinstance(source, pr.SparseTruncatedNormal):
            t = mean / mp.sqrt(variance)
            mass, density, ratio = mp.ncdf(t), mp.sqrt(variance) * mp.npdf(t), ratio / mp.ncdf(loc / scale)
        return [
            ratio * mass,
            ratio * (mean * mass + density),
            ratio * ((mean**2 + variance) * mass + mean * density),
        ]


def exact_moments(source, y, sigma):
    """E_u u^k exp((u y - u^2 / 2) / sigma^2) for k = 0, 1, 2 by integrals of 30 digits."""
    mp.mp.dps = 30
    y, sigma = mp.mpf(y), mp.mpf(sigma)

    def weight(u):
        return mp.exp((u * y - u * u / 2) / sigma**2)

    scale = mp.mpf(getattr(source, "scale", 1.0))
    if getattr(source, "loc", 0.0):
        return exact_normal_moments(source, y, sigma)
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


@pytest.mark.parametrize("name", list(ALL_SOURCES))
@pytest.mark.parametrize("sigma", SIGMAS)
def test_posterior_is_exact(name, sigma):
    source = ALL_SOURCES[name](0.5)
    scale = getattr(source, "scale", 1.0)
    # Off, in the transition between off and on, far on, at an edge, beyond it.
    places = [-3 * sigma, 0.0, 2.5 * sigma, 5 * sigma, 7.5 * sigma, 0.4 * scale, scale, scale + 2 * sigma]
    places += [source.loc - sigma, source.loc + scale] if getattr(source, "loc", 0.0) else []
    exact = [exact_moments(source, y, sigma) for y in places]
    for p in (1e-6, 0.05, 0.99, 1.0):
        mean, variance = ALL_SOURCES[name](p).posterior(np.array(places), sigma)
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


# Of these every parameter may differ between features.
P, SCALE, LOC = (
    np.array([0.02, 0.1, 0.3, 0.7, 1.0]),
    np.array([0.5, 1.0, 2.0, 1.0, 3.0]),
    np.array([-2, 0, 1, 5, 0.3]),
)
EVERY_ARRAY = {
    "uniform, p": lambda: pr.SparseUniform(P),
    "uniform": lambda: pr.SparseUniform(P, SCALE),
    "exponential, scale": lambda: pr.SparseExponential(0.2, SCALE),
    "exponential": lambda: pr.SparseExponential(P, SCALE),
    "half-normal": lambda: pr.SparseHalfNormal(P, SCALE),
    "truncated-normal, loc": lambda: pr.SparseTruncatedNormal(0.3, 1.0, LOC),
    "truncated-normal": lambda: pr.SparseTruncatedNormal(P, SCALE, LOC),
    "gaussian": lambda: pr.SparseGaussian(P, SCALE, LOC),
    "constant": lambda: pr.SparseConstant(P, SCALE),
    "constant, p": lambda: pr.SparseConstant(P, 2.0),
}


@pytest.fixture(params=EVERY_ARRAY)
def differing(request):
    return EVERY_ARRAY[request.param]()


def around(source, sigma, most=7.0, count=60):
    """Places up to some sigma from where x can be."""
    u, _ = dataclasses.replace(source, p=1.0).amplitude_nodes(np.zeros(1), np.array(0.0))
    ends = min(u.min(), 0) - most * sigma, u.max() + most * sigma
    near = [place + sigma * np.linspace(-most, most, count) for place in (0.0, u.min(), np.median(u))]
    return torch.from_numpy(np.concatenate([np.linspace(*ends, count), *near]))


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


# Beyond 10 deviations of the product of prior and likelihood below 0, its tail is cut.


@pytest.mark.parametrize(
    "name",
    list(ALL_SOURCES),
)
def test_denoise_is_the_posterior(name):
    for sigma in (1e-6, 1e-3, 0.04, 0.07, 0.4, 1.3, 1.9, 2.1, 3.9, 5.0, 30.0):
        y = around(ALL_SOURCES[name](0.5), sigma)
        for p in (1e-6, 0.05, 0.99, 1.0):
            source = ALL_SOURCES[name](p)
            exact, fast = source.posterior(y, sigma), source.denoise(y, torch.tensor(sigma, dtype=y.dtype))
            # Rounding of y moves the log odds, as in the test of the posterior.
            rounding = 1e-15 * y.square().max() / sigma**2
            # Likelihood ratios below 1e-20 are taken to be that.
            least = 1.1e-20 * p / (1 - p) * source.amplitude_moment(2) if p < 1 else 0.0
            for k in range(2):
                scale = exact[k].abs()
                assert ((fast[k] - exact[k]).abs() <= 1e-9 * sigma ** (k + 1) + rounding * scale + least).all()


def test_denoise_in_single_precision(make_any):
    for sigma in (0.05, 0.3, 2.5, 30.0):
        source = make_any(0.05)
        y = around(source, sigma, most=6.0).float()
        narrow = source.denoise(y, torch.tensor(sigma))
        wide = source.denoise(y.double(), torch.tensor(sigma).double())
        # Of log odds, which are as large as squares of y / sigma and of the amplitudes in units of their scale.
        u = source.amplitude_moment(2)
        rounding = 1e-6 * float(
            1 + y.abs().max() ** 2 / sigma**2 + u / sigma**2 + u / getattr(source, "scale", 1) ** 2
        )
        for k in range(2):
            assert narrow[k].dtype == torch.float32
            limit = rounding * (sigma ** (k + 1) + wide[k].abs()) + 1e-5 * u ** ((k + 1) / 2)
            assert ((narrow[k] - wide[k]).abs() <= limit).all(), sigma


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 1e10), (torch.float64, 1e30)])
def test_denoise_is_finite_everywhere(make_any, dtype, largest):
    y = torch.tensor([-largest, -1e4, -30.0, 0.0, 30.0, 1e4, largest], dtype=dtype)
    for sigma in (1e-6, 1e-2, 0.3, 3.0, 30.0):
        for p in (1e-6, 0.5, 1.0):
            mean, variance = make_any(p).denoise(y, torch.tensor(sigma, dtype=dtype))
            assert mean.isfinite().all(), sigma
            assert variance.isfinite().all(), sigma
            assert (variance >= -1e-5 * (sigma**2 + mean**2)).all()


def test_denoise_has_the_right_gradient(make_any):
    source = make_any(0.1)
    for sigma in (0.04, 0.3, 3.0):
        noise = torch.tensor(sigma, dtype=torch.float64)
        y = torch.tensor([-3.0, -0.4, 0.7, 2.3, 3.1, 6.0], dtype=torch.float64) * sigma
        y.requires_grad_()
        assert torch.autograd.gradcheck(lambda y, s=noise: source.denoise(y, s)[0], y)
        mean, variance = source.denoise(y, noise)
        (slope,) = torch.autograd.grad(mean.sum(), y)
        assert torch.allclose(slope, variance / sigma**2, rtol=1e-8, atol=1e-9)


class TestArrays:
    """Features that differ are each as a source of its own."""

    def test_numbers(self, differing):
        assert differing.n_sparse == 5
        singles = [differing.at(i) for i in range(5)]
        assert all(single.n_sparse is None for single in singles)
        for ask in (
            lambda s: s.mean, lambda s: s.second_moment, lambda s: s.variance, lambda s: s.mmse(0.2),
            lambda s: s.mmse(3.0), lambda s: s.amplitude_moment(1),
        ):  # fmt: skip
            found = np.broadcast_to(ask(differing), 5)
            assert found == pytest.approx([ask(single) for single in singles], rel=1e-9)
        assert differing.signed == any(single.signed for single in singles)
        assert np.ptp(differing.variance) > 0

    @pytest.mark.parametrize("sigma", [0.02, 0.5, 8.0])
    def test_posteriors(self, differing, sigma):
        y = torch.linspace(-2 * sigma, 4 + 4 * sigma, 40, dtype=torch.float64).view(8, 5)
        noise = torch.full((8, 1), sigma, dtype=torch.float64)
        for ask in (
            lambda s, y: s.posterior(y, sigma), lambda s, y: s.posterior(y, noise[:, :1].expand(y.shape)),
            lambda s, y: s.denoise(y, noise[0, 0]), lambda s, y: s.denoise(y, noise),
        ):  # fmt: skip
            found = ask(differing, y)
            for i in range(5):
                single = ask(differing.at(i), y[:, i : i + 1])
                for k in range(2):
                    assert torch.allclose(found[k][:, i : i + 1], single[k], rtol=1e-7, atol=1e-12)

    def test_samples(self, differing):
        assert differing.sample(3, 5, seed=0).dtype == torch.float32
        x = differing.sample(40_000, 5, seed=3, dtype=torch.float64)
        for part, expected in ((x, differing.mean), (x.square(), differing.second_moment)):
            errors = (part.mean(0).numpy() - expected) * 200 / part.std(0).clamp(min=1e-12).numpy()
            assert np.abs(errors).max() < 4.5
        p = np.broadcast_to(differing.p, 5)
        assert np.allclose((x != 0).double().mean(0).numpy(), p, atol=4.5 / 400)
        # Features are independent.
        centred = (x - x.mean(0)) / x.std(0).clamp(min=1e-12)
        assert ((centred.T @ centred / 40_000 - torch.eye(5)).fill_diagonal_(0).abs() < 5 / 200).all()

    def test_mismatch(self, differing):
        sigma, assumed = np.array([0.1, 0.2, 0.5, 1.0, 2.0]), np.array([0.2, 0.2, 0.4, 1.5, 1.0])
        found = differing.mismatch(sigma, assumed)
        assert found.shape == (4, 5)
        for i in range(5):
            single = differing.at(i).mismatch(sigma[i], assumed[i])
            assert found[:, i] == pytest.approx(single, rel=1e-6, abs=1e-12)

    def test_observations(self, differing):
        y, on, off = np.broadcast_arrays(*differing.observations(np.full(5, 0.3)))
        assert y.shape[0] == 5
        assert on.sum(-1) == pytest.approx(np.ones(5), rel=1e-9)
        assert off.sum(-1) == pytest.approx(np.ones(5), rel=1e-9)
        assert (on * y).sum(-1) == pytest.approx(np.broadcast_to(differing.amplitude_moment(1), 5), rel=1e-9)

    def test_they_equal_those_of_the_same_numbers(self, differing):
        again = dataclasses.replace(differing)
        assert again == differing
        assert hash(again) == hash(differing)
        assert len({again, differing, differing.at(0)}) == 2
        assert differing != differing.at(0)
        name = next(name for name in ("p", "scale", "loc") if np.ndim(getattr(differing, name, 0.0)))
        other = dataclasses.replace(differing, **{name: getattr(differing, name)[::-1]})
        assert other != differing
        assert hash(other) != hash(differing)

    def test_their_numbers_are_copies_that_stay(self):
        p = P.copy()
        source = pr.SparseUniform(p)
        p[0] = 0.9
        assert source.p[0] == 0.02
        with pytest.raises(ValueError, match="read-only"):
            source.p[0] = 0.9

    @pytest.mark.parametrize("name", list(EVERY_ARRAY))
    def test_no_warning_is_given(self, name):
        differing = EVERY_ARRAY[name]()
        torch.set_warn_always(True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                y = differing.sample(2, 5, seed=0, dtype=torch.float64)
                differing.posterior(y, 0.1)
                differing.denoise(y, torch.tensor(0.1, dtype=torch.float64))
                differing.mmse(0.1)
        finally:
            torch.set_warn_always(False)

    @pytest.mark.parametrize(
        ("kind", "name", "value", "word"),
        [
            *[(pr.SparseUniform, "p", bad, "p is .*; allowed: a number in")
              for bad in ([0.1, 0.0], [0.1, 1.5], [-0.1, 0.5], [0.1, np.nan], [np.inf, 0.1])],
            *[(pr.SparseExponential, "scale", bad, "scale is .*; allowed: a")
              for bad in ([1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, 1e31], [1e-31, 1.0])],
            *[(pr.SparseTruncatedNormal, "loc", bad, "loc is .*; allowed: ")
              for bad in ([0.0, -11.0], [0.0, 2e4], [0.0, np.nan], [0.0, np.inf], -11.0)],
            *[(pr.SparseGaussian, "loc", bad, "loc is .*; allowed: ")
              for bad in ([0.0, -2e4], [0.0, 2e4], [0.0, np.nan], 2e4)],
            *[(kind, name, bad, f"{name} has shape .*; allowed: a number, or an array")
              for kind, name in [(pr.SparseUniform, "p"), (pr.SparseConstant, "scale"), (pr.SparseGaussian, "loc")]
              for bad in (np.full((2, 2), 0.1), np.full(1, 0.1), [], ["x", 0.1])],
            (pr.SparseUniform, "scale", np.ones(4), "has 5 of p, 4 of scale; allowed"),
            (pr.SparseConstant, "scale", np.ones(4), "has 5 of p, 4 of scale; allowed"),
        ],
    )  # fmt: skip
    def test_bad_arrays_are_refused(self, kind, name, value, word):
        with pytest.raises(ValueError, match=word):
            kind(**({"p": P if "of p" in word else 0.1} | {name: value}))

    def test_another_number_of_features_is_refused(self, differing):
        with pytest.raises(ValueError, match=r"n_sparse is 6; allowed with this source: 5"):
            differing.sample(2, 6)


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 4.0])
def test_observations_integrate_what_is_smooth(make_any, sigma):
    source = make_any(0.3)
    y, on, off = source.observations(np.array([sigma, 2 * sigma]))
    for k, s in enumerate((sigma, 2 * sigma)):
        u = [source.amplitude_moment(order) for order in range(5)]
        noisy = [1, u[1], u[2] + s**2, u[3] + 3 * u[1] * s**2, u[4] + 6 * u[2] * s**2 + 3 * s**4]
        noise = [1, 0, s**2, 0, 3 * s**4]
        for order in range(5):
            size = (u[2] + s**2) ** (order / 2)
            assert (on[k] * y[k] ** order).sum() == pytest.approx(noisy[order], rel=1e-8, abs=1e-9 * size)
            assert (off[k] * y[k] ** order).sum() == pytest.approx(noise[order], rel=1e-8, abs=1e-12 * s**order)


MISMATCHES = [
    (pr.SparseUniform(0.1), None),
    (pr.SparseUniform(0.1), pr.SparseExponential(0.2, 0.4)),
    (pr.SparseTruncatedNormal(0.2, 0.5, 1.0), None),
    (pr.SparseTruncatedNormal(0.2, 0.5, 1.0), pr.SparseUniform(0.05, 2.0)),
    (pr.SparseGaussian(0.3, 1.0, 0.5), pr.SparseGaussian(0.1, 2.0)),
    (pr.SparseConstant(0.1), pr.SparseHalfNormal(0.2)),
    (pr.Empirical(0.1, [0.3, 1.1, -2.0]), pr.Empirical(0.3, [0.5, 1.0])),
]


@pytest.mark.parametrize(("source", "prior"), MISMATCHES)
@pytest.mark.parametrize(("sigma", "assumed"), [(0.2, 0.2), (0.4, 0.25), (0.3, 0.6)])
def test_mismatch_is_what_the_wrong_posterior_loses(source, prior, sigma, assumed):
    found = source.mismatch(np.array(sigma), np.array(assumed), prior)
    assert found.shape == (4,)
    generator = torch.Generator().manual_seed(0)
    x = dataclasses.replace(source, p=1.0).sample(1, 100_000, seed=generator, dtype=torch.float64)[0]
    noise = sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    for k, there in enumerate((x, torch.zeros_like(x))):
        guess, doubt = (prior or source).posterior(there + noise, assumed)
        for row, part in ((k, (there - guess).square()), (k + 2, doubt)):
            assert part.mean().item() == pytest.approx(found[row], abs=4.5 * part.std().item() / 100_000**0.5)
    if prior is None and sigma == assumed:
        # Then what it believes to lose is what it loses.
        p = source.p
        assert p * found[0] + (1 - p) * found[1] == pytest.approx(p * found[2] + (1 - p) * found[3], rel=1e-9)
        assert p * found[0] + (1 - p) * found[1] == pytest.approx(source.mmse(sigma), rel=1e-12)


class TestCells:
    @pytest.fixture(params=["uniform", "half-normal", "truncated-normal", "gaussian"])
    def source(self, request):
        rng = np.random.default_rng(0)
        p, scale = 0.001 * 900 ** rng.random(500), 0.5 + rng.random(500)
        arguments = (rng.normal(size=500),) if request.param in ("truncated-normal", "gaussian") else ()
        return SOURCES[request.param](p, scale, *arguments)

    def test_every_feature_is_in_one_cell_of_its_like(self, source):
        sigma = np.full(500, 0.1)
        sources, noise, scale, cell = source.cells(sigma)
        assert len(sources) == len(noise) < 500
        assert cell.shape == (500,)
        assert set(cell.tolist()) == set(range(len(sources)))
        assert np.array_equal(scale, source.scale)
        p = np.array([one.p for one in sources])
        assert all(one.scale == 1 and one.n_sparse is None for one in sources)
        assert np.abs(np.log(p[cell] / source.p)).max() < 0.15
        assert np.abs(np.log(noise[cell] / (sigma / scale))).max() < 0.15
        if source.name in ("truncated-normal", "gaussian"):
            loc = np.array([one.loc for one in sources])
            assert np.abs(np.arcsinh(loc[cell]) - np.arcsinh(source.loc / scale)).max() < 0.15
        for k in (0, len(p) // 2, len(p) - 1):
            assert np.log(p[k]) == pytest.approx(np.log(source.p[cell == k]).mean(), rel=1e-12)
        # One noise for all, and none.
        assert np.allclose(source.cells(np.array(0.3))[1][source.cells(np.array(0.3))[3]] * scale, 0.3, rtol=0.17)
        assert np.isfinite(source.cells(np.zeros(500))[1]).all()

    def test_merged_features_stand_for_all(self, source):
        merged, counts = source.merged()
        assert merged.n_sparse == len(counts) < 500
        assert counts.sum() == 500
        assert counts.min() >= 1
        for ask in (lambda s: s.p, lambda s: s.mean, lambda s: s.second_moment, lambda s: s.mmse(0.2)):
            assert np.average(ask(merged), weights=counts) == pytest.approx(np.mean(ask(source)), rel=0.01)

    def test_alike_features_are_merged_or_left(self):
        assert pr.SparseUniform(0.1).merged() == (pr.SparseUniform(0.1), None)
        source = pr.SparseUniform(np.full(30, 0.1), 2.0)
        merged, counts = source.merged()
        assert np.average(merged.mean, weights=counts) == pytest.approx(0.1)
        assert counts.sum() == 30
        two, counts = pr.SparseUniform(np.repeat([0.1, 0.9], [10, 20])).merged()
        assert two.p == pytest.approx([0.1, 0.9])
        assert counts.tolist() == [10, 20]


@given(n=st.integers(2, 2000), p=st.floats(1e-5, 1), exponent=st.floats(0, 10))
def test_zipf_rates_are_what_they_should_be(n, p, exponent):
    rates = pr.zipf_rates(n, p, exponent)
    assert rates.shape == (n,)
    assert rates.mean() == pytest.approx(p, rel=1e-9)
    assert (np.diff(rates) <= 0).all()
    assert 0 < rates.min() <= rates.max() <= 1
    law = np.arange(1, n + 1.0) ** -exponent
    free = (rates < 1) & (rates > 1e-29)
    if free.any():
        factor = (rates / law)[free]
        assert np.allclose(factor, factor[0], rtol=1e-9)
        # Those that are always active would be more than that.
        assert (factor[0] * law[rates == 1] >= 1 - 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((1, 0.1), "n_sparse"), ((2.5, 0.1), "n_sparse"), ((8, 0.0), "p"), ((8, 1.1), "p"), ((8, np.nan), "p"),
     ((8, 0.1, -1), "exponent"), ((8, 0.1, 11), "exponent"), ((8, 0.1, np.nan), "exponent")],
)  # fmt: skip
def test_bad_zipf_laws_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        pr.zipf_rates(*arguments)


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


def test_recipes_make_the_same_source(make_any):
    source = make_any(0.3)
    again = from_recipe(source.recipe())
    assert again == source
    assert hash(again) == hash(source)
    assert source != make_any(0.31)


def test_recipes_make_the_same_source_of_features_that_differ(differing):
    recipe = differing.recipe()
    assert recipe["name"] == differing.name
    assert from_recipe(recipe) == differing


def test_recipes_make_the_same_empirical_source():
    rng = np.random.default_rng(0)
    for _ in range(50):
        source = pr.Empirical(0.1, rng.normal(size=7), rng.random(7))
        assert from_recipe(source.recipe()) == source


@pytest.mark.parametrize(
    "recipe", [{}, {"name": "nope"}, {"name": "uniform"}, {"name": "uniform", "p": 0.1, "x": 1},
               {"name": "half-normal", "p": 0.1, "loc": 0.0}],
)  # fmt: skip
def test_bad_recipes_are_refused(recipe):
    with pytest.raises(ValueError, match=r"source .*; allowed"):
        from_recipe(recipe)
