"""What holds for every source: samples, noise and losses of alike features and of those that differ."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.sources import SOURCES
from persianrug.sources.places import bernoulli_places
from tests.sources.helpers import EVERY_ARRAY, P


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
    places = bernoulli_places(count, p, torch.Generator().manual_seed(seed), torch.device("cpu"))
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


def test_amplitude_nodes_integrate_polynomials_and_kinks(make_source):
    source = make_source(0.5)
    u, w = source.amplitude_nodes(np.array([[0.0], [0.5]]), np.array([0.0, 1e-3]))
    for k in range(7):
        assert (w * u**k).sum(-1) == pytest.approx(source.amplitude_moment(k), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("p", [0, -0.1, 1.0001, 1e-300, 9e-31, math.nan, math.inf, "x", "0.1", None, 10**400])
def test_p_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match=r"p is .*; allowed: a number from 1e-30 to 1"):
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
        name = next(name for name in ("p", "scale", "loc", "shape") if np.ndim(getattr(differing, name, 0.0)))
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
            *[(pr.SparseUniform, "p", bad, "p is .*; allowed: a number from")
              for bad in ([0.1, 0.0], [0.1, 1.5], [-0.1, 0.5], [0.1, np.nan], [np.inf, 0.1])],
            *[(pr.SparseExponential, "scale", bad, "scale is .*; allowed: a")
              for bad in ([1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, 1e31], [1e-31, 1.0])],
            *[(pr.SparseTruncatedNormal, "loc", bad, "loc is .*; allowed: ")
              for bad in ([0.0, -11.0], [0.0, 2e4], [0.0, np.nan], [0.0, np.inf], -11.0)],
            *[(pr.SparseGaussian, "loc", bad, "loc is .*; allowed: ")
              for bad in ([0.0, -2e4], [0.0, 2e4], [0.0, np.nan], 2e4)],
            *[(pr.SparseLogNormal, "shape", bad, "shape is .*; allowed: a")
              for bad in ([1.0, 0.0], [1.0, 0.009], [1.0, 3.1], [1.0, np.nan], [1.0, np.inf], 0.0, 3.1, "x")],
            *[(kind, name, bad, f"{name} (has shape|is) .*; allowed: a number, or an array")
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
    (pr.SparseLogNormal(0.1, 0.5, 1.2), None),
    (pr.SparseLogNormal(0.1, 0.5, 1.2), pr.SparseExponential(0.2, 0.4)),
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
    @pytest.fixture(params=["uniform", "half-normal", "truncated-normal", "gaussian", "lognormal"])
    def source(self, request):
        rng = np.random.default_rng(0)
        p, scale = 0.001 * 900 ** rng.random(500), 0.5 + rng.random(500)
        arguments = (rng.normal(size=500),) if request.param in ("truncated-normal", "gaussian") else ()
        arguments = (0.3 * 4 ** rng.random(500),) if request.param == "lognormal" else arguments
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
        if source.name == "lognormal":
            shape = np.array([one.shape for one in sources])
            assert np.abs(np.log(shape[cell] / source.shape)).max() < 0.15
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


def test_features_that_are_hardly_ever_active_are_hardly_ever_drawn():
    rare = pr.SparseConstant(np.where(np.arange(4096) % 2 == 0, 1e-12, 0.01))
    x = rare.sample(1 << 14, 4096, seed=0)
    assert int(x[:, ::2].sum()) == 0
    assert float(x[:, 1::2].mean()) == pytest.approx(0.01, rel=5e-3)
