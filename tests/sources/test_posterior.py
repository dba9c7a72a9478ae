"""Posteriors against high-precision integrals, and their fast form against the exact one."""

import dataclasses

import mpmath as mp
import numpy as np
import pytest
import torch

import persianrug as pr
from tests.sources.helpers import ALL_SOURCES, SIGMAS


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


def exact_lognormal_moments(source, y, sigma):
    """The same of a log-normal amplitude, by an integral over log u from end to end of where it is not tiny."""
    scale, shape = mp.mpf(source.scale), mp.mpf(source.shape)

    def exponent(v):
        u = scale * mp.exp(v)
        return -((v / shape) ** 2) / 2 + (u * y - u * u / 2) / sigma**2

    ends = [float(-60 * shape - 30), float(mp.log(1 + (abs(y) + 60 * sigma) / scale) + 60 * shape)]
    for _ in range(8):
        grid = np.linspace(*ends, 400)
        sizes = [exponent(mp.mpf(v)) for v in grid]
        top = max(sizes)
        inside = [v for v, size in zip(grid, sizes, strict=True) if size > top - 70]
        step = grid[1] - grid[0]
        ends = [inside[0] - step, inside[-1] + step]
    cuts = [mp.mpf(v) for v in np.linspace(*ends, 33)]
    factor = mp.exp(top) / (shape * mp.sqrt(2 * mp.pi))

    def moment(k):
        def integrand(v):
            return (scale * mp.exp(v)) ** k * mp.exp(exponent(v) - top)

        return factor * mp.quad(integrand, cuts, method="gauss-legendre", maxdegree=4)

    return [moment(k) for k in range(3)]


def exact_moments(source, y, sigma):
    """E_u u^k exp((u y - u^2 / 2) / sigma^2) for k = 0, 1, 2 by integrals of 30 digits."""
    mp.mp.dps = 30
    y, sigma = mp.mpf(y), mp.mpf(sigma)

    def weight(u):
        return mp.exp((u * y - u * u / 2) / sigma**2)

    scale = mp.mpf(getattr(source, "scale", 1.0))
    if getattr(source, "loc", 0.0):
        return exact_normal_moments(source, y, sigma)
    if isinstance(source, pr.SparseLogNormal):
        return exact_lognormal_moments(source, y, sigma)
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


def around(source, sigma, most=7.0, count=60):
    """Places up to some sigma from where x can be."""
    u, _ = dataclasses.replace(source, p=1.0).amplitude_nodes(np.zeros(1), np.array(0.0))
    ends = min(u.min(), 0) - most * sigma, u.max() + most * sigma
    near = [place + sigma * np.linspace(-most, most, count) for place in (0.0, u.min(), np.median(u))]
    return torch.from_numpy(np.concatenate([np.linspace(*ends, count), *near]))


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
