"""Features in groups: posteriors against sums over all that a group can be, and losses against samples."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.sources import from_recipe
from tests.sources.helpers import EVERY_ARRAY

MEMBERS = {
    "uniform": lambda p: pr.SparseUniform(p),
    "gaussian": lambda p: pr.SparseGaussian(p, 0.8, 0.3),
    "half-normal": lambda p: pr.SparseHalfNormal(p, 0.7),
    "constant": lambda p: pr.SparseConstant(p, 1.2),
}


@pytest.fixture(params=MEMBERS)
def make_members(request):
    return MEMBERS[request.param]


def values_of(members, count):
    """Amplitudes and their probabilities, by a rule of so many nodes that has nothing of the library."""
    x, w = np.polynomial.legendre.leggauss(count)
    scale = members.scale
    if isinstance(members, pr.SparseConstant):
        return np.array([scale]), np.ones(1)
    if isinstance(members, pr.SparseUniform):
        return scale * (x + 1) / 2, w / 2
    low = 0.0 if isinstance(members, pr.SparseHalfNormal) else -7.5
    v = low + (7.5 - low) * (x + 1) / 2
    density = np.exp(-(v**2) / 2)
    return members.loc + scale * v, w * density / (w @ density)


def enumerated(members, y, sigma):
    """Mean and variance of the members of one group, from a sum over all values that they can have together."""
    one, size = members(0.5), len(y)
    u, w = values_of(one, 240 if size == 2 else 120)
    axes = np.meshgrid(*[u] * size, indexing="ij")
    weights = np.prod(np.meshgrid(*[w] * size, indexing="ij"), axis=0)
    likelihood = weights * np.exp(-sum((a - b) ** 2 for a, b in zip(axes, y, strict=True)) / (2 * sigma**2))
    none = np.exp(-np.sum(y**2) / (2 * sigma**2))
    on = likelihood.sum()

    def moments(p):
        total = p * on + (1 - p) * none
        mean = np.array([p * (likelihood * a).sum() / total for a in axes])
        return mean, np.array([p * (likelihood * a**2).sum() / total for a in axes]) - mean**2

    return moments


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("sigma", [0.2, 0.6, 3.0])
def test_the_posterior_sums_over_all_that_a_group_can_be(make_members, size, sigma):
    places = np.array([[-2 * sigma, 0.1, 1.4], [0.1, 0.5, 0.5], [1.4, 1.0, 0.0], [0.0, -sigma, 0.2]])
    for group in places[:, :size]:
        moments = enumerated(make_members, group, sigma)
        for p in (1e-3, 0.3, 0.99, 1.0):
            mean, variance = moments(p)
            # Beside another group, which says nothing of this one.
            y = np.concatenate([group, np.full(size, 1.0)])
            found = pr.Groups(make_members(p), size).posterior(y, sigma)
            assert found[0][:size] == pytest.approx(mean, rel=1e-8, abs=1e-10)
            assert found[1][:size] == pytest.approx(variance, rel=1e-7, abs=1e-9)


def seen(source, rows, n, sigma, seed=0):
    x = source.sample(rows, n, seed=seed, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return x, x + sigma * noise


@pytest.mark.parametrize("size", [2, 4, 8])
def test_denoise_is_the_posterior(make_members, size):
    for p, sigma in itertools.product((1e-6, 0.045, 0.9, 1.0), (1e-4, 0.03, 0.2, 1.0, 30.0)):
        source = pr.Groups(make_members(p), size)
        _, y = seen(pr.Groups(make_members(0.5), size), 64, 8 * size, sigma)
        exact = source.posterior(y, sigma)
        for dtype, close in ((torch.float64, 1e-8), (torch.float32, 2e-3)):
            fast = source.denoise(y.to(dtype), torch.tensor(sigma, dtype=dtype))
            # Rounding of y moves the log odds by parts of y^2 / sigma^2.
            tolerance = close * sigma + 0.02 * torch.finfo(dtype).eps * float(y.abs().max() / sigma) ** 2 * size
            for k in range(2):
                assert fast[k].dtype == dtype
                assert fast[k].shape == y.shape
                assert float((fast[k].double() - exact[k]).abs().max()) <= tolerance * (1 if k == 0 else 3), (
                    p,
                    sigma,
                )


def test_a_row_is_as_it_is_alone(make_members):
    source = pr.Groups(make_members(0.1), 4)
    for dtype in (torch.float64, torch.float32):
        y = seen(source, 33, 40, 0.3)[1].to(dtype)
        sigma = torch.linspace(0.1, 1.0, 33, dtype=dtype)[:, None]
        close = {
            "rtol": 1e-9 if dtype == torch.float64 else 1e-3,
            "atol": 1e-12 if dtype == torch.float64 else 1e-5,
        }
        for ask in (source.denoise, source.posterior):
            together = ask(y, sigma)
            for row in (0, 7, 32):
                alone = ask(y[row : row + 1], sigma[row])
                for whole, part in zip(together, alone, strict=True):
                    assert torch.allclose(whole[row], part[0], **close)
            # Groups do not know of each other, and members of one are not told by their order.
            order = torch.tensor([2, 0, 3, 1, *range(8, 40), *range(4, 8)])
            for whole, part in zip(together, ask(y[:, order], sigma), strict=True):
                assert torch.allclose(whole[:, order], part, **close)
    assert source.posterior(y[:0], 0.1)[0].shape == (0, 40)


def test_gradients(make_members):
    source = pr.Groups(make_members(0.1), 3)
    y = torch.tensor([-0.4, 0.1, 0.7, 0.2, 0.3, 1.9], dtype=torch.float64, requires_grad=True)
    for sigma in (0.1, 0.4, 2.0):
        noise = torch.tensor(sigma, dtype=torch.float64)
        for ask in (lambda y, s=sigma: source.posterior(y, s), lambda y, s=noise: source.denoise(y, s)):
            assert torch.autograd.gradcheck(lambda y, a=ask: a(y)[0], y)
            # Tweedie, for the members of a group as for one feature.
            variance = ask(y)[1]
            slopes = torch.autograd.functional.jacobian(lambda y, a=ask: a(y)[0], y)
            assert torch.allclose(slopes.diagonal(), variance / sigma**2, rtol=1e-7, atol=1e-9)
            assert torch.allclose(slopes, slopes.T, atol=1e-9)
            assert slopes[:3, 3:].abs().max() == 0


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 1e10), (torch.float64, 1e30)])
def test_numbers_and_gradients_are_finite_everywhere(make_members, dtype, largest):
    places = torch.tensor([-largest, -30.0, 0.0, 0.7, 30.0, largest], dtype=dtype)
    y = torch.cartesian_prod(places, places)
    for p, sigma in itertools.product((1e-6, 0.5, 1.0), (1e-6, 1e-2, 0.3, 30.0)):
        y = y.detach().requires_grad_()
        mean, variance = pr.Groups(make_members(p), 2).denoise(y, torch.tensor(sigma, dtype=dtype))
        assert mean.isfinite().all()
        assert variance.isfinite().all()
        (slope,) = torch.autograd.grad(mean[2:-2].sum(), y)
        assert slope[:, 1:-1].isfinite().all() if dtype == torch.float64 else True


class TestSamples:
    @pytest.mark.parametrize("size", [2, 5])
    @pytest.mark.parametrize("p", [1e-3, 0.1, 0.9, 1.0])
    def test_members_are_on_together(self, make_members, size, p):
        source = pr.Groups(make_members(p), size)
        x = source.sample(20_000, 8 * size, seed=0, dtype=torch.float64)
        groups = (x != 0).view(-1, size)
        assert torch.equal(groups.any(1), groups.all(1))
        rate = groups[:, 0].double()
        assert rate.mean().item() == pytest.approx(p, abs=4.5 * (p * (1 - p) / len(rate)) ** 0.5)
        for part, expected in ((x, source.mean), (x**2, source.second_moment)):
            # Groups are independent, their members not.
            means = part.view(-1, size).mean(1)
            assert means.mean().item() == pytest.approx(
                expected, abs=4.5 * means.std().item() / len(means) ** 0.5 + 1e-9
            )
        assert x.var().item() == pytest.approx(source.variance, rel=0.2 if p < 0.01 else 0.03, abs=1e-12)

    def test_amplitudes_and_other_groups_are_independent(self):
        x = pr.Groups(pr.SparseUniform(0.3), 2).sample(50_000, 4, seed=0, dtype=torch.float64)
        active = x[x[:, 0] != 0]
        assert abs(torch.corrcoef(active[:, :2].T)[0, 1]) < 4.5 / len(active) ** 0.5
        assert abs(torch.corrcoef(x[:, 1:3].T)[0, 1]) < 4.5 / len(x) ** 0.5

    def test_features_that_differ(self):
        p, scale = np.repeat([0.05, 0.8, 1.0], 2), np.arange(1.0, 7.0)
        x = pr.Groups(pr.SparseHalfNormal(p, scale), 2).sample(40_000, 6, seed=1, dtype=torch.float64)
        assert np.allclose((x != 0).double().mean(0), p, atol=0.01)
        assert torch.equal(x[:, ::2] != 0, x[:, 1::2] != 0)
        assert np.allclose(x.square().mean(0), p * scale**2, rtol=0.1)

    def test_seeds_and_dtypes(self):
        source = pr.Groups(pr.SparseUniform(0.1), 4)
        assert torch.equal(source.sample(3, 8, seed=5), source.sample(3, 8, seed=5))
        assert not torch.equal(source.sample(30, 8, seed=5), source.sample(30, 8, seed=6))
        assert source.sample(3, 8, seed=5).dtype == torch.float32
        rare = pr.Groups(pr.SparseConstant(1e-12), 2).sample(1 << 12, 1024, seed=0)
        assert int(rare.sum()) == 0


def close(found, source, prior, sigma, assumed, groups=30_000):
    """Whether losses are those of samples, within 4 standard errors and 1e-3 for the grid."""
    x = source.always().sample(groups, source.size, seed=0, dtype=torch.float64)
    there = torch.cat([x, torch.zeros_like(x)])
    noise = torch.randn(there.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = there + sigma * noise
    guess, doubt = (prior or source).posterior(y, assumed)
    off = torch.sigmoid(-source._active_posterior(y, torch.tensor(sigma, dtype=y.dtype).expand(y.shape))[0])
    # Groups that are off are taken for active so rarely that samples of active ones, weighed, tell more of them.
    parts = (guess - x.repeat(2, 1)).square()[:groups], 2 * off * guess**2, doubt[:groups], 2 * off * doubt
    parts = [part.mean(1) for part in parts]
    means, errors = (np.array([float(ask(part)) for part in parts]) for ask in (torch.mean, torch.std))
    errors = errors / np.sqrt([len(part) for part in parts])
    # Of what happens to a handful of the samples they say nothing, nor of what is nothing beside the rest.
    size, odds = source.second_moment / source.p, source.p / max(1 - source.p, 1e-9)
    handful = 8 / groups * (size if source.members.amplitude_variance == 0 else min(size, 25 * sigma**2))
    nothing = (handful + 1e-3 * means[0]) * np.array([1, odds] * 2) + 1e-15 * size
    return (np.abs(found - means) <= 4 * errors + 1e-3 * means + nothing).all(), found, means, errors


@pytest.mark.parametrize("size", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("p", [1e-3, 0.045, 0.5, 0.9, 1.0])
def test_losses_are_those_of_samples(make_members, size, p):
    source = pr.Groups(make_members(p), size)
    for sigma in (1e-3, 0.03, 0.3, 1.0, 3.0):
        found = source.mismatch(np.array(sigma), np.array(sigma))
        told = close(found, source, None, sigma, sigma, 8_000 if sigma < 0.1 else 20_000)
        assert told[0], (sigma, told)
        # What it believes to lose is what it loses, but for the grid.
        lost, believed = (p * found[k] + (1 - p) * found[k + 1] for k in (0, 2))
        assert lost == pytest.approx(believed, rel=2e-4, abs=1e-15)
        # Knowing the group helps.
        assert lost <= source.members.mmse(sigma) * (1 + 1e-4) + 1e-15
    assert source.mmse(sigma) == pytest.approx(lost, rel=1e-12)


@pytest.mark.parametrize(("sigma", "assumed"), [(0.3, 0.3), (0.4, 0.25), (0.3, 0.6), (1e-3, 2e-3)])
@pytest.mark.parametrize(
    "prior", [pr.SparseUniform(0.3), pr.SparseExponential(0.02, 0.6), pr.SparseConstant(1.0, 0.5)]
)
def test_losses_with_another_prior(make_members, sigma, assumed, prior):
    source, prior = pr.Groups(make_members(0.1), 3), pr.Groups(prior, 3)
    found = source.mismatch(np.array(sigma), np.array(assumed), prior)
    assert close(found, source, prior, sigma, assumed)[0]


def test_losses_of_features_one_by_one_are_those_of_the_members(make_members):
    source, prior = pr.Groups(make_members(0.1), 4), pr.SparseExponential(0.2, 0.4)
    sigma, assumed = np.array([0.1, 0.4, 2.0]), np.array([0.2, 0.4, 0.5])
    found = source.mismatch(sigma, assumed, prior)
    assert np.array_equal(found, source.members.mismatch(sigma, assumed, prior))
    assert np.array_equal(
        source.mismatch(sigma, sigma, source.members), source.members.mismatch(sigma, sigma, source.members)
    )


@pytest.mark.parametrize("p", [1e-30, 1e-20, 1e-12, 1e-6])
def test_losses_of_groups_that_are_hardly_ever_active(p):
    # Amplitudes of which each is seen: what is lost is what is lost of one that is known to be active, or all.
    source = pr.Groups(pr.SparseConstant(p), 2)
    assert 0 <= source.mmse(0.05) < 1e-15 * p
    assert source.mmse(30.0) == pytest.approx(p, rel=1e-3)
    for sigma in (0.1, 0.2):
        found = source.mismatch(np.array(sigma), np.array(sigma))
        lost, believed = (p * found[k] + (1 - p) * found[k + 1] for k in (0, 2))
        assert lost == pytest.approx(believed, rel=1e-3)
        # Two looks are one, of less noise.
        alone = pr.SparseConstant(p).mmse(sigma / 2**0.5)
        assert lost == pytest.approx(alone, rel=1e-3)


def test_many_looks_at_one_value_are_one_of_less_noise():
    for size, p, sigma in itertools.product((2, 3, 7, 8, 32), (1e-3, 0.2, 0.9), (0.5, 1.0, 3.0)):
        found = pr.Groups(pr.SparseConstant(p), size).mismatch(np.array(sigma), np.array(sigma))
        one = pr.SparseConstant(p).mismatch(*2 * [np.array(sigma / size**0.5)])
        assert found == pytest.approx(one, rel=2e-3, abs=1e-12)


def test_many_levels_lie_between_few(make_members):
    source = pr.Groups(make_members(0.045), 3)
    sigma = np.geomspace(0.05, 0.6, 60).reshape(6, 10)
    found = source.mismatch(sigma, sigma)
    assert found.shape == (4, 6, 10)
    single = [source.mismatch(*2 * [sigma[k, k]]) for k in range(6)]
    assert np.stack([found[:, k, k] for k in range(6)]) == pytest.approx(np.stack(single), rel=1e-3, abs=1e-12)
    one = source.mismatch(sigma, np.array(0.2))
    assert one[:, 3, 3] == pytest.approx(source.mismatch(sigma[3, 3], np.array(0.2)), rel=1e-3, abs=1e-12)
    # Pairs of their own are made one by one.
    pairs = source.mismatch(sigma, sigma[::-1])
    assert pairs[:, 1, 2] == pytest.approx(source.mismatch(sigma[1, 2], sigma[-2, 2]), rel=1e-9)


class TestFeaturesThatDiffer:
    P, SCALE = np.repeat([0.02, 0.3, 1.0], 2), np.array([0.5, 1.0, 2.0, 0.7, 1.0, 3.0])

    def source(self):
        return pr.Groups(pr.SparseUniform(self.P, self.SCALE), 2)

    def test_posteriors_are_those_of_each_group(self):
        y, sigma = seen(self.source(), 20, 6, 0.3)[1], 0.3
        found = self.source().posterior(y, sigma), self.source().denoise(y, torch.tensor(sigma).double())
        for k in (0, 2, 4):
            one = pr.Groups(pr.SparseUniform(self.P[k : k + 2], self.SCALE[k : k + 2]), 2)
            for whole in found:
                for part, other in zip(whole, one.posterior(y[:, k : k + 2], sigma), strict=True):
                    assert torch.allclose(part[:, k : k + 2], other, rtol=1e-6, atol=1e-8)

    def test_numbers(self):
        source = self.source()
        assert source.n_sparse == 6
        assert source.together == 2
        for ask in (
            lambda s: s.mean,
            lambda s: s.variance,
            lambda s: s.second_moment,
            lambda s: s.amplitude_moment(3),
        ):
            assert np.array_equal(ask(source), ask(source.members))
        assert source.at(3) == pr.SparseUniform(0.3, 0.7)
        assert not source.signed

    def test_losses_are_those_of_samples(self):
        # As many of each kind as make the looks tell something.
        many = pr.Groups(pr.SparseUniform(np.tile(self.P, 500), np.tile(self.SCALE, 500)), 2)
        sigma = 0.3
        found = many.mismatch(np.full(3000, sigma), np.full(3000, sigma)).reshape(4, 500, 6)
        found, errors = found.mean(1), found.std(1) / 500**0.5
        generator = torch.Generator().manual_seed(0)
        x = torch.from_numpy(self.SCALE) * torch.rand(100_000, 6, generator=generator, dtype=torch.float64)
        z = sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for k, there in enumerate((x, torch.zeros_like(x))):
            guess, doubt = self.source().posterior(there + z, sigma)
            for row, part in ((k, (guess - there).square()), (k + 2, doubt)):
                error = np.hypot(errors[row], part.std(0).numpy() / 100_000**0.5)
                assert (np.abs(part.mean(0).numpy() - found[row]) <= 4.5 * error + 1e-12).all()
        lost, believed = (self.P * found[k] + (1 - self.P) * found[k + 1] for k in (0, 2))
        assert lost == pytest.approx(believed, rel=1e-9)

    def test_alike_ones_lose_what_they_do_alike(self, make_members):
        for p, sigma in ((1e-3, 0.2), (0.045, 0.3), (0.9, 1.0)):
            alike = pr.Groups(make_members(p), 4)
            losses = alike.repeated(4096).mmse(sigma)
            assert losses.mean() == pytest.approx(alike.mmse(sigma), rel=0.06, abs=1e-9)
        prior = pr.Groups(pr.SparseExponential(0.1, 0.4), 4)
        found = alike.mismatch(*2 * [np.full(4096, 0.3)], prior.repeated(4096)).mean(1)
        assert found == pytest.approx(alike.mismatch(*2 * [np.array(0.3)], prior), rel=0.03)

    def test_levels_of_every_row(self):
        source = pr.Groups(pr.SparseUniform(0.1), 2).repeated(64)
        found = source.mismatch(np.array([[0.1], [0.5], [0.1]]), np.full((3, 64), 0.2))
        assert found.shape == (4, 3, 64)
        assert np.array_equal(found[:, 0], found[:, 2])
        assert np.array_equal(found[:, 1], source.mismatch(np.full(64, 0.5), np.full(64, 0.2)))
        merged, counts = source.merged()
        assert merged is source
        assert counts.tolist() == [1] * 64


def test_recipes_copies_and_scales(make_members):
    for source in (pr.Groups(make_members(0.1), 3), pr.Groups(make_members(0.1), 3).repeated(6)):
        again = from_recipe(source.recipe())
        assert again == source == pickle.loads(pickle.dumps(source))
        assert hash(again) == hash(source)
        assert source != dataclasses.replace(source, size=6 if source.n_sparse else 2)
        assert source not in (source.members, dataclasses.replace(source, members=source.members.scaled(2.0)))
        assert "size=3" in repr(source)
        assert source.scaled(2.0) == pr.Groups(source.members.scaled(2.0), 3)
        assert np.allclose(source.scaled(2.0).variance, 4 * source.variance)
        assert source.at(1) == source.members.at(1)
    six = pr.Groups(make_members(0.1), 3).repeated(6)
    assert six.n_sparse == 6
    assert six.repeated(6) == six
    assert six.scaled(np.arange(1.0, 7.0)).n_sparse == 6
    assert pr.Groups(make_members(0.1), 3).repeated(6).members == make_members(0.1).repeated(6)


def test_a_model_is_loaded_as_it_was_saved(tmp_path, make_members):
    for members in (make_members(0.1), make_members(0.1).repeated(16)):
        source = pr.Groups(members, 4)
        for decoder in (pr.Bayes(), pr.OAMP()):
            model = pr.Autoencoder(pr.Rug(16, 8), decoder).tune(source)
            model.save(tmp_path / "model.safetensors")
            again = pr.load(tmp_path / "model.safetensors")
            assert again == model
            z = model.encode(source.sample(3, 16, seed=0))
            assert torch.equal(again.decode(z), model.decode(z))


SOURCE = pr.Groups(pr.SparseUniform(0.1), 4)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        *[(lambda size=size: pr.Groups(pr.SparseUniform(0.1), size), "size is .*; allowed")
          for size in (1, 0, 2.5, "2")],
        (lambda: pr.Groups(0.1, 2), "members is"),
        (lambda: pr.Groups(SOURCE, 2), "members is a source of groups; allowed"),
        (lambda: pr.Groups(EVERY_ARRAY["uniform, p"](), 2), "n_sparse is 5; allowed in groups of 2"),
        (lambda: pr.Groups(pr.SparseUniform([0.1, 0.1, 0.2, 0.3]), 2), "from 2 on is 0.2, 0.3; allowed: "),
        (lambda: SOURCE.repeated(6), "n_sparse is 6; allowed in groups of 4"),
        (lambda: SOURCE.sample(2, 6), "n_sparse is 6; allowed in groups of 4"),
        (lambda: SOURCE.posterior(np.zeros(6), 0.1), "n_sparse is 6; allowed in groups of 4"),
        (lambda: SOURCE.posterior(torch.tensor(0.1), 0.1), "y is one number; allowed"),
        (lambda: SOURCE.mmse(0.0), "sigma is"),
        (lambda: SOURCE.at(-1), "feature is"),
        (lambda: SOURCE.mismatch(np.ones(1), np.ones(1), pr.Groups(pr.SparseUniform(0.1), 2)),
         "prior has groups of 2; allowed with this source: of 4"),
        (lambda: SOURCE.members.mismatch(np.ones(1), np.ones(1), SOURCE), "prior has groups of 4; allowed"),
        (lambda: from_recipe({"name": "groups", "members": {"name": "uniform", "p": 0.1}}), "recipe of source"),
        (lambda: from_recipe({"name": "groups", "members": "uniform", "size": 2}), "members is"),
        (lambda: from_recipe({"name": "groups", "members": {"name": "nope"}, "size": 2}), "source is"),
        (lambda: pr.encoder_gains(SOURCE, pr.Rug(8, 4), pr.ReLU()), "source groups has groups; allowed"),
        *[(lambda kind=kind: pr.Autoencoder(pr.Rug(6, 3), kind()).tune(SOURCE), "n_sparse is 6; allowed in groups")
          for kind in (pr.Linear, pr.ReLU, pr.Bayes, pr.OAMP)],
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
