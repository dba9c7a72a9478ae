import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import persianrug as pr
from persianrug import knots
from persianrug.encoders import KnottedRug
from persianrug.networks.knot_search import search, sizes

SOURCES = {
    "uniform": pr.SparseUniform,
    "exponential": pr.SparseExponential,
    "half-normal": lambda p: pr.SparseHalfNormal(p, 2.0),
    "constant": pr.SparseConstant,
}


def random_knot(k, d, seed=0):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(d, k))
    return pr.Knot("random", matrix, matrix.T + 0.2 * rng.normal(size=(k, d)))


def woven(knot, p, ratio, n=8192, source=pr.SparseUniform, channel=pr.Channel()):  # noqa: B008
    features = source(p)
    rug = pr.KnottedRug.weave(knot, n, round(ratio * n))
    return pr.Autoencoder(rug, pr.ReLU(), channel=channel).tune(features), features


class TestGeometry:
    @pytest.mark.parametrize(
        ("knot", "entries"),
        [
            (knots.pair(), [-1]),
            (knots.line(4), [-1, 1, -1]),
            (knots.polygon(3), [-0.5, -0.5]),
            (knots.polygon(4), [0, -1, 0]),
            (knots.polygon(5), np.cos(2 * np.pi * np.arange(1, 5) / 5)),
            (knots.simplex(4), [-1 / 3] * 3),
            (knots.simplex(7), [-1 / 6] * 6),
            (knots.cross_polytope(3), [-1, 0, 0, 0, 0]),
            (knots.icosahedron(), [-1] + [-(5**-0.5)] * 5 + [5**-0.5] * 5),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_what_features_of_a_knot_do_to_each_other(self, knot, entries):
        assert np.diag(knot.product) == pytest.approx(1, abs=1e-12)
        for i, row in enumerate(knot.product):
            assert sorted(np.delete(row, i)) == pytest.approx(sorted(entries), abs=1e-12)
        assert len(set(knot.kinds)) == 1

    def test_those_by_name(self):
        for name, knot in knots.named().items():
            assert knot.name == name
            assert np.linalg.norm(knot.matrix, axis=0) == pytest.approx(1)
            assert np.array_equal(knot.readout, knot.matrix.T) or np.allclose(knot.readout, knot.matrix.T)

    @pytest.mark.parametrize(
        ("matrix", "readout", "message"),
        [
            (np.ones(3), None, r"matrix has shape \(3,\)"),
            (np.ones((3, 2)), None, r"matrix has shape \(3, 2\); allowed: \(d, k\)"),
            ([[1.0, np.nan]], None, "matrix has shape"),
            (np.ones((1, 2)), np.ones((1, 2)), r"readout has shape \(1, 2\); allowed: \(2, 1\)"),
            (np.ones((1, 2)), [[1.0], [-1.0]], "readout @ matrix has -1 on its diagonal at feature 1"),
            (np.array([[1.0, 0.0]]), None, "readout @ matrix has 0 on its diagonal at feature 1"),
            (
                np.array([[1.0, 1j]]),
                None,
                r"matrix is an array of shape \(1, 2\) of complex128; allowed: a matrix of finite numbers",
            ),
            (1e160 * np.eye(2), None, r"matrix has entries up to 1e\+160; allowed"),
            (1e-160 * np.eye(2), None, "matrix has entries up to 1e-160; allowed"),
        ],
    )
    def test_bad_ones_are_refused(self, matrix, readout, message):
        with pytest.raises(ValueError, match=message):
            pr.Knot("bad", matrix, readout)


class TestLaw:
    @pytest.mark.parametrize(
        ("p", "ratio", "loss"),
        # Solved independently, by quadrature over x_2 and a general optimiser.
        [(0.045, 0.25, 0.0035843), (0.01, 0.25, 0.00021538), (0.3, 0.5, 0.0146555), (0.045, 0.5, 0.00033716)],
    )
    def test_pairs(self, p, ratio, loss):
        source, knot = pr.SparseUniform(p), knots.pair()
        assert knot.law(source, knot.noise(source, ratio)) == pytest.approx(loss, rel=1e-3)
        model, _ = woven(knot, p, ratio)
        assert model.limit(source) == pytest.approx(loss, rel=1e-3)
        result = model.measure(source)
        assert abs(result.loss - model.law(source)) < max(0.02 * result.loss, 3 * result.stderr)

    @pytest.mark.parametrize("p", [1e-3, 0.045, 0.5, 0.99])
    @pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
    @pytest.mark.parametrize("name", SOURCES)
    def test_of_single_features_is_that_of_the_rug(self, name, p, sigma):
        source = SOURCES[name](p)
        (view,) = knots.single().views(source, sigma)
        exact = pr.ReLU().tune(source, sigma)
        loss = float(exact.risk(source, sigma))
        assert view.loss(exact.gain, exact.bias) == pytest.approx(loss, rel=1e-4, abs=1e-8 * source.second_moment)
        assert view.loss(*view.best_relu) == pytest.approx(loss, rel=1e-4, abs=1e-8 * source.second_moment)

    @pytest.mark.parametrize("name", SOURCES)
    @pytest.mark.parametrize(("p", "sigma"), [(0.05, 0.1), (0.4, 0.5), (0.2, 0.0), (1.0, 0.3)])
    def test_agrees_with_samples(self, name, p, sigma):
        source, knot = SOURCES[name](p), random_knot(5, 2)
        x = source.sample(200_000, 5, seed=0, dtype=torch.float64).numpy()
        noise = sigma * np.random.default_rng(1).normal(size=(len(x), 2))
        y = source.mean + ((x - source.mean) @ knot.matrix.T + noise) @ knot.readout.T
        for i, view in enumerate(knot.views(source, sigma)):
            gain, bias = view.best_relu
            for a, b in ((gain, bias), (1.0, -0.1), (0.5, 0.2)):
                errors = (np.maximum(a * y[:, i] + b, 0) - x[:, i]) ** 2
                assert abs(errors.mean() - view.loss(a, b)) < 4.5 * errors.std() / len(x) ** 0.5 + 1e-7

    @pytest.mark.parametrize(("p", "sigma"), [(0.05, 0.1), (0.4, 0.5), (0.05, 0.0)])
    def test_no_gain_and_bias_are_better(self, p, sigma):
        for view in random_knot(4, 2, seed=3).views(pr.SparseUniform(p), sigma):
            gain, bias = view.best_relu
            found = minimize(lambda x, view=view: view.loss(*x), (gain, bias), method="Nelder-Mead").fun
            assert view.loss(gain, bias) <= found * (1 + 1e-4)

    @pytest.mark.parametrize(
        ("knot", "kinds"),
        [
            (pr.Knot("a", [[1.0, -5, 0, 0], [-7, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.eye(4)), [0, 1, 2, 2]),
            (pr.Knot("b", 1e10 * np.diag([1.0, 5.0])), [0, 1]),
            (pr.Knot("c", [[1.0, -2.0]], [[1.0], [-0.5]]), [0, 1]),
        ],
    )
    def test_features_that_see_different_things_are_of_different_kinds(self, knot, kinds):
        assert knot.kinds.tolist() == kinds

    @pytest.mark.parametrize("size", [10, 1e3, 4e3, 5e3, 9e4])
    def test_a_small_feature_beside_a_large_one(self, size):
        # Without noise the small one is lost whenever the large one is active, and never disturbs it.
        law = pr.Knot("uneven", [[1.0, -size]]).law(pr.SparseUniform(0.045), 0.0)
        assert law == pytest.approx(0.045**2 / 6, rel=0.02 if size > 10 else 0.1)

    @pytest.mark.parametrize(
        "source",
        [pr.SparseConstant(0.3), pr.SparseUniform(0.9), pr.SparseExponential(1e-5), pr.SparseConstant(1e-5)],
    )
    def test_noise_that_is_far_below_an_amplitude(self, source):
        sigma = (source.variance * 1e-3) ** 0.5
        exact = float(pr.ReLU().tune(source, sigma).risk(source, sigma))
        assert knots.single().law(source, sigma) == pytest.approx(exact, rel=0.05, abs=1e-6 * source.second_moment)

    def test_features_of_one_kind_share_a_view(self):
        views = knots.icosahedron().views(pr.SparseUniform(0.1), 0.1)
        assert len(views) == 12
        assert all(view is views[0] for view in views)
        assert len({id(view) for view in random_knot(5, 2).views(pr.SparseUniform(0.1), 0.1)}) == 5

    @pytest.mark.parametrize(
        ("ask", "message"),
        [
            (
                lambda knot: knot.noise(pr.SparseUniform(0.1), 0.6),
                "ratio is 0.6; allowed with .*pair.*: up to 0.5",
            ),
            (lambda knot: knot.views(pr.SparseUniform(0.1), -1.0), "sigma is -1.0; allowed"),
            (
                lambda _: pr.Knot("steep", [[1.0, -1e6]]).views(pr.SparseUniform(0.1), 0.0),
                "entries up to 1e.06; allowed in a law: up to 100000",
            ),
            (
                lambda knot: knot.views(pr.SparseUniform([0.1, 0.2]), 1.0),
                "features that differ; allowed with knots",
            ),
        ],
    )
    def test_bad_questions(self, ask, message):
        with pytest.raises(ValueError, match=message):
            ask(knots.pair())


KNOTS = [
    knots.pair(),
    knots.polygon(3),
    knots.polygon(5),
    knots.simplex(4),
    knots.icosahedron(),
    random_knot(7, 3),
]


class TestWeaves:
    @given(st.sampled_from(KNOTS), st.integers(2, 60), st.floats(0.01, 1.0), st.integers(0, 5), st.booleans())
    def test_every_size(self, knot, n, ratio, seed, signs):
        n_dense = max(1, round(ratio * n))
        rug = pr.KnottedRug.weave(knot, n, n_dense, seed, signs)
        assert (rug.n_sparse, rug.n_dense, rug.ratio) == (n, n_dense, n_dense / n)
        assert rug.channels >= n_dense
        W_in, W_out, W = rug.W_in(), rug.W_out(), rug.W()
        assert W_in.shape == (n_dense, n)
        assert torch.allclose(W_out @ W_in, W, atol=1e-9)
        if n_dense == rug.channels:
            assert torch.allclose(W.diagonal(), torch.ones(n, dtype=torch.float64), atol=1e-9)
        x, z = torch.randn(3, n, dtype=torch.float64), torch.randn(3, n_dense, dtype=torch.float64)
        assert torch.allclose(rug.encode(x), x @ W_in.T, atol=1e-9)
        assert torch.allclose(rug.adjoint(z), z @ W_in, atol=1e-9)
        assert torch.allclose(rug.readout(z), z @ W_out.T, atol=1e-9)
        assert float((rug.encode(x) * z).sum()) == pytest.approx(float((x * rug.adjoint(z)).sum()), rel=1e-9)

    @pytest.mark.parametrize(
        ("knot", "n", "n_dense", "parts"),
        [
            (knots.pair(), 8192, 2048, "4096 x pair"),
            (knots.pair(), 999, 250, "499 x pair + 1 x single"),
            (knots.pair(), 100, 60, "40 x pair + 20 x single"),
            (knots.icosahedron(), 8192, 2048, "682 x icosahedron + 1 x found-8-2-p0.02-r0.25"),
            (knots.icosahedron(), 8193, 2048, "682 x icosahedron + 1 x polygon-9"),
            (knots.polygon(5), 7, 1, "1 x polygon-5 + 1 x pair"),
            (knots.icosahedron(), 5, 1, "1 x line-5"),
        ],
    )
    def test_what_is_left_over(self, knot, n, n_dense, parts):
        assert f"({parts}, n_sparse={n}, n_dense={n_dense}" in repr(pr.KnottedRug.weave(knot, n, n_dense))

    def test_interference_is_that_of_the_matrix(self):
        rug = pr.KnottedRug.weave(random_knot(4, 2), 64, 24)
        off = rug.W().fill_diagonal_(0.0)
        # The weave's part is what it is on average.
        assert rug.interference == pytest.approx(off.square().sum(1).numpy(), rel=0.35)
        assert rug.noise_gain(pr.Channel()).mean() == pytest.approx(
            float(rug.W_out().square().sum(1).mean()), rel=0.1
        )

    @pytest.mark.parametrize("name", SOURCES)
    @pytest.mark.parametrize(
        ("knot", "ratio", "n"),
        [(knots.pair(), 0.25, 1024), (knots.polygon(3), 0.4, 999), (knots.simplex(4), 0.6, 1000),
         (knots.cross_polytope(2), 0.5, 64), (knots.icosahedron(), 0.25, 1024)],
        ids=lambda value: getattr(value, "name", str(value)),
    )  # fmt: skip
    @pytest.mark.parametrize("p", [0.03, 0.3])
    def test_the_law(self, name, knot, ratio, n, p):
        model, source = woven(knot, p, ratio, n, SOURCES[name])
        result, law = model.measure(source, samples=min(4096, (1 << 22) // n)), model.law(source)
        assert abs(result.loss - law) < max(0.02 * law, 4 * result.stderr)
        assert model.laws(source).shape == (n,)

    @pytest.mark.parametrize(
        "channel", [pr.Channel(0.03), pr.Channel(bits=3), pr.Channel(erasures=0.2), pr.Channel(0.02, 5, 0.1)]
    )
    def test_the_law_with_a_channel(self, channel):
        for knot in (knots.pair(), random_knot(5, 2)):
            model, source = woven(knot, 0.1, 0.4, 1000, channel=channel)
            result, law = model.measure(source, samples=4096), model.law(source)
            assert abs(result.loss - law) < max(0.03 * law, 4 * result.stderr)

    def test_the_linear_law(self):
        source = pr.SparseUniform(0.1)
        model = pr.Autoencoder(pr.KnottedRug.weave(random_knot(5, 2), 512, 128), pr.Linear()).tune(source)
        result = model.measure(source, samples=8192)
        assert result.loss == pytest.approx(model.law(source), rel=0.02)

    @pytest.mark.parametrize("kind", [pr.Bayes, pr.JumpReLU, pr.Gated, pr.ProLU, pr.TopK, pr.OAMP])
    def test_decoders_without_a_law_on_knots_are_refused(self, kind):
        source, rug = pr.SparseUniform(0.1), pr.KnottedRug.weave(knots.pair(), 64, 32)
        with pytest.raises(ValueError, match=r"encoder (is )?KnottedRug.*; allowed with"):
            pr.Autoencoder(rug, kind()).tune(source)
        if kind is not pr.OAMP:
            with pytest.raises(ValueError, match=r"encoder is KnottedRug.*; allowed with"):
                pr.Autoencoder(rug, kind()).limit(source)

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ValueError, match="n_dense leaves 2 channels to 9000 features; allowed"):
            pr.KnottedRug.weave(knots.line(4096), 9000, 2)
        with pytest.raises(ValueError, match=r"erasures is 0\.9"):
            pr.Autoencoder(
                pr.KnottedRug.weave(knots.pair(), 2, 1), pr.ReLU(), channel=pr.Channel(erasures=0.9)
            ).tune(pr.SparseUniform(0.1))

    def test_sources_that_do_not_go_with_knots_are_refused(self):
        rug = pr.KnottedRug.weave(knots.pair(), 64, 32)
        with pytest.raises(ValueError, match="features that differ; allowed with knots"):
            pr.Autoencoder(rug, pr.ReLU()).tune(pr.SparseUniform(np.full(64, 0.1)))
        with pytest.raises(ValueError, match="is signed; allowed with decoder relu"):
            pr.Autoencoder(rug, pr.ReLU()).tune(pr.SparseGaussian(0.1))
        with pytest.raises(ValueError, match="knot is 3; allowed: a Knot"):
            pr.KnottedRug.weave(3, 64, 32)

    @pytest.mark.parametrize("knot", [knots.pair(), random_knot(5, 2)])
    def test_models_are_stored(self, knot, tmp_path):
        model, source = woven(knot, 0.1, 0.45, 103)
        model.save(tmp_path / "m.safetensors")
        again = pr.load(tmp_path / "m.safetensors")
        assert again.encoder == model.encoder
        assert hash(again.encoder) == hash(model.encoder)
        x = source.sample(4, 103, seed=0)
        assert torch.equal(again(x), model(x))
        assert again.law(source) == model.law(source)
        assert model.encoder != pr.KnottedRug.weave(knots.polygon(3), 103, 46)

    @pytest.mark.parametrize("rug", [pr.Rug(16, 8), pr.KnottedRug.weave(knots.pair(), 16, 8)])
    def test_copies_are_equal(self, rug):
        for other in (copy.copy(rug), copy.deepcopy(rug), pickle.loads(pickle.dumps(rug))):
            assert other == rug
            assert torch.equal(other.W_in(), rug.W_in())
        assert isinstance(pr.KnottedRug.weave(knots.pair(), 16, 8), KnottedRug)

    def test_both_dtypes_any_batch_gradients_and_inputs(self):
        rug = pr.KnottedRug.weave(random_knot(7, 3), 30, 12)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2, 3, 30, dtype=torch.float64, generator=generator).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: rug.readout(rug.encode(x)), x)
        kept = x.detach().clone()
        assert torch.allclose(rug.encode(x.float()).double(), rug.encode(x), atol=1e-5)
        assert torch.equal(rug.encode(x.mT.contiguous().mT), rug.encode(x))
        assert torch.equal(x, kept)


class TestLibrary:
    def test_the_table_is_whole(self):
        points = {(one.p, one.ratio) for one in knots.library()}
        grid = {(p, ratio) for p in (0.005, 0.01, 0.02, 0.045, 0.1, 0.2, 0.3, 0.5)
                for ratio in (0.05, 0.1, 0.25, 0.5, 0.75)}  # fmt: skip
        assert points == grid
        assert len(knots.library()) == len(grid)

    def test_nowhere_above_the_rug(self):
        for one in knots.library():
            sigma = pr.noise_level(pr.SparseUniform(one.p).variance, one.ratio)
            rug = pr.ReLU().tune(pr.SparseUniform(one.p), sigma).risk(pr.SparseUniform(one.p), sigma)
            assert one.rug == pytest.approx(float(rug), rel=1e-4)
            assert one.loss <= one.rug * (1 + 1e-6)
            assert (one.knot.name == "single") == (one.how == "the plain rug")

    @pytest.mark.parametrize(("p", "most"), [(0.045, 0.00228), (0.01, 0.000144), (0.1, 0.0102)])
    def test_found_knots_are_as_good_as_they_say(self, p, most):
        (one,) = [one for one in knots.library() if (one.p, one.ratio) == (p, 0.25)]
        assert one.loss < 0.97 * most
        source = pr.SparseUniform(p)
        assert one.knot.law(source, one.knot.noise(source, 0.25)) == pytest.approx(one.loss, rel=1e-3)
        model, _ = woven(one.knot, p, 0.25)
        assert model.law(source) == pytest.approx(one.loss, rel=0.02)
        result = model.measure(source)
        assert result.loss == pytest.approx(one.loss, rel=0.02)

    def test_the_best_is_at_least_as_good_as_those_by_name(self):
        source = pr.SparseHalfNormal(0.07)
        best = knots.best(source, 0.3)
        law = best.law(source, best.noise(source, 0.3))
        for knot in (knots.single(), knots.pair()):
            assert law <= knot.law(source, knot.noise(source, 0.3)) * (1 + 1e-9)

    @pytest.mark.parametrize("change", [{"matrix": None}, {"loss": None}, {"readout": [[1.0]]}])
    def test_damaged_ones_are_refused(self, change):
        recipe = knots.library()[0].recipe() | change
        recipe = {name: value for name, value in recipe.items() if value is not None}
        with pytest.raises(ValueError, match="allowed"):
            knots.from_recipe(recipe)

    def test_recipes_round_trip(self):
        one = knots.library()[3]
        again = knots.from_recipe(one.recipe())
        assert again == one


class TestSearch:
    def test_finds_better_than_pairs(self):
        shares = []
        found = search(0.1, 0.25, budget=8.0, progress=shares.append)
        source, pair = pr.SparseUniform(0.1), knots.pair()
        assert found.loss < 0.95 * pair.law(source, pair.noise(source, 0.25))
        assert found.loss == pytest.approx(found.knot.law(source, found.knot.noise(source, 0.25)), rel=1e-9)
        assert shares == sorted(shares)
        assert 0 < shares[0] < shares[-1] <= 1

    @pytest.mark.parametrize("ratio", [0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
    def test_sizes_fit(self, ratio):
        assert sizes(ratio)
        for k, d in sizes(ratio):
            assert d < k
            assert d >= ratio * k - 1e-9

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"p": 0.0, "ratio": 0.5}, "p is 0.0; allowed"),
            ({"p": 0.1, "ratio": 1.0}, "ratio is 1.0; allowed"),
            ({"p": 0.1, "ratio": 1.5}, "ratio is 1.5; allowed"),
            ({"p": 0.1, "ratio": 0.5, "budget": 0.0}, "budget is 0.0; allowed"),
            ({"p": 0.1, "ratio": 0.5, "seed": -1}, "seed is -1; allowed"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            search(**arguments)


def test_knots_have_no_law_where_noise_is_narrower_than_its_grid():
    for ask in (lambda source: pr.knots.best(source, 0.5), lambda source: pr.knots.pair().law(source, 0.1)):
        ask(pr.SparseUniform(1e-5))
        with pytest.raises(ValueError, match="p is 1e-06; allowed with knots: from 1e-05 to 1"):
            ask(pr.SparseUniform(1e-6))
