"""Log-normal amplitudes: moments, what a fit finds, and posteriors that depend on nothing but their own entry."""

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.sources import sum_of
from tests.sources.helpers import EVERY_LOGNORMAL, SCALE, SHAPE, P


@pytest.mark.parametrize("shape", [0.01, 0.05, 0.5, 1.0, 2.5, 3.0])
def test_moments_are_the_closed_forms(shape):
    source = pr.SparseLogNormal(0.3, 0.7, shape)
    for k in range(7):
        expected = 0.7**k * np.exp((k * shape) ** 2 / 2)
        assert source.amplitude_moment(k) == pytest.approx(expected, rel=1e-12)
        u, w = source.amplitude_nodes(np.zeros(1), np.array(0.0))
        assert (w * u**k).sum() == pytest.approx(expected, rel=1e-9)
    cv = np.sqrt(source.amplitude_variance) / source.amplitude_moment(1)
    assert cv == pytest.approx(np.sqrt(np.expm1(shape**2)), rel=1e-12)
    assert not source.signed


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("name", EVERY_LOGNORMAL)
def test_mmse_is_what_the_posterior_mean_loses(name, sigma):
    source = EVERY_LOGNORMAL[name](0.2)
    generator = torch.Generator().manual_seed(1)
    x = source.sample(1, 40_000, seed=generator, dtype=torch.float64)
    y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    mean, variance = source.denoise(y, torch.full((1, 1), sigma, dtype=torch.float64))
    for loss in ((x - mean).square(), variance):
        assert loss.mean().item() == pytest.approx(source.mmse(sigma), abs=4.5 * loss.std().item() / 200)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ask", ["denoise", "posterior"])
def test_an_entry_depends_on_no_other(ask, dtype):
    source = pr.SparseLogNormal(np.tile(P, 400), np.tile(SCALE, 400), np.tile(SHAPE, 400))
    generator = torch.Generator().manual_seed(0)
    x = source.sample(7, 2000, seed=generator, dtype=dtype)
    sigma = torch.tensor([1e-3, 0.1, 0.3, 1.0, 3.0, 0.2, 50.0], dtype=dtype)[:, None]
    y = x + sigma * torch.randn(x.shape, generator=generator, dtype=dtype)
    every = getattr(source, ask)(y, sigma)
    for row in (0, 3, 6):
        one = getattr(source, ask)(y[row : row + 1], sigma[row : row + 1])
        for k in range(2):
            assert torch.equal(every[k][row], one[k][0])


def test_the_gradient_in_sigma_is_right():
    source = pr.SparseLogNormal(0.2, 0.7, 0.8)
    y = torch.tensor([-0.3, 0.1, 0.6, 2.0], dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.3, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    for k in range(2):
        assert torch.autograd.gradcheck(lambda s, k=k: source.posterior(y, s)[k], sigma)


@pytest.mark.parametrize("shape", [0.0, 0.009, 3.01, -1.0, np.nan, np.inf, "x", None])
def test_shapes_outside_the_range_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape is .*; allowed: a"):
        pr.SparseLogNormal(0.1, 1.0, shape)


class TestFit:
    def test_it_recovers_what_made_the_data(self):
        p, scale, shape = (np.repeat(part, 10) for part in ([0.1, 0.5, 0.3], [1.0, 0.5, 2.0], [0.2, 0.5, 0.8]))
        rows = pr.SparseLogNormal(p, scale, shape).sample(20_000, 30, seed=0, dtype=torch.float64).numpy()
        fit = pr.SparseLogNormal.fit(rows)
        assert (np.abs(fit.p - p) < 4.5 * np.sqrt(p * (1 - p) / 20_000) + 1e-4).all()
        for found, true in ((fit.shape, shape), (fit.scale, scale)):
            groups = found.reshape(3, 10)
            spread = groups.std(axis=1, ddof=1)
            assert (np.abs(groups.mean(1) - true[::10]) < 5 * spread / 10**0.5 + 0.3 * spread).all()
            assert (spread < 0.1 * scale[::10]).all()
        assert fit.mean == pytest.approx(rows.mean(0), rel=0.02)
        assert fit.variance == pytest.approx(rows.var(0), rel=0.03)

    def test_what_is_beyond_its_shapes_has_the_nearest(self):
        rows = np.where(np.arange(40)[:, None] % 2 == 0, 1.0, 0.0) * np.ones(3)
        assert pr.SparseLogNormal.fit(rows).shape == pytest.approx(np.full(3, 0.01))
        # A single feature never varies by more than the square root of the number of its values.
        found = pr.SparseLogNormal.of_amplitudes(0.1, 1.0, 1e4)
        assert found.shape == 3.0
        assert found.amplitude_moment(1) == pytest.approx(1.0, rel=1e-12)

    def test_negative_numbers_are_refused(self):
        with pytest.raises(ValueError, match=r"rows holds negative numbers; allowed"):
            pr.SparseLogNormal.fit(np.array([[-1.0, 2.0], [3.0, 1.0], [2.0, 0.0]]))


def test_sums_are_normal_ones_as_of_every_source():
    total = sum_of(pr.SparseLogNormal(0.1, 1.0, 0.4), 2, 2.0, 2.0, signed=False)
    assert isinstance(total, pr.SparseTruncatedNormal)
