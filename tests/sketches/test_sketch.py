"""Sketches: rounding, decoding, rows of every kind, recipes, and what is refused."""

import json
import math
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr
from persianrug.rounding import best_quantiser, normal_quantiser
from tests.conftest import EVERY_SOURCE
from tests.sketches.helpers.sketches import KINDS, SOURCES
from tests.sources.helpers import rows_of


class TestRounding:
    @pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 12])
    @pytest.mark.parametrize(("kind", "p"), [("one-sided", 0.01), ("one-sided", 0.1), ("signed", 0.01)])
    def test_the_error_has_the_variance_it_is_said_to_have(self, kind, p, bits):
        # Of these few active features the energy of a row varies by much.
        n = 512
        source = SOURCES[kind](n, p)
        rug = pr.Rug(n, 128)
        sketch = pr.Sketch(source, rug, bits)
        x = rows_of(source, 2000, n)
        z, rounded = rug.encode(x), np.asarray(sketch.encode(x))
        error = rounded - z
        per_row = np.square(error).mean(axis=1)
        stderr = per_row.std(ddof=1) / math.sqrt(len(per_row))
        # Sums of few features reach less far than normal entries, of which more are cut.
        variance = sketch.quantiser.variance
        assert (0.8 if p < 0.1 else 0.9) * variance - 4 * stderr < per_row.mean() < 1.02 * variance + 4 * stderr
        centred = z - sketch.mean_code
        correlation = (error * centred).mean() / np.square(centred).mean()
        assert abs(correlation) < 0.05
        assert sketch.encode(x).mixture == pr.Mixture(noise=sketch.quantiser.variance)

    @pytest.mark.parametrize("bits", [1, 4, 8])
    def test_of_rows_of_which_many_are_empty(self, bits):
        # Of a mean of 0: the code of an empty row is 0, and so is its deviation.
        source = pr.SparseGaussian(np.full(512, 0.001))
        sketch = pr.Sketch(source, pr.Rug(512, 128), bits)
        quantiser = sketch.quantiser
        assert 0 < quantiser.variance < math.inf
        assert 0 < quantiser.cell < math.inf
        empty = np.asarray(sketch.encode(np.zeros((2, 512))))
        assert (empty[0] == empty[1]).all()
        assert np.abs(empty).max() <= quantiser.step / 2 * (1 + 1e-9)
        # At 1 bit, without dither, by just that.
        assert bits > 1 or np.abs(empty).min() == pytest.approx(quantiser.step / 2)

    def test_levels(self):
        source = SOURCES["one-sided"](256, 0.05)
        for bits in (1, 3, 8):
            sketch = pr.Sketch(source, pr.Rug(256, 64), bits)
            places = (np.asarray(sketch.encode(rows_of(source, 200, 256))) - sketch.middle) / sketch.quantiser.step
            assert places - 0.5 == pytest.approx(np.rint(places - 0.5), abs=1e-9)
            assert np.abs(places).max() <= 2 ** (bits - 1) - 0.5 + 1e-9
            assert len(np.unique(np.rint(places - 0.5))) <= 2**bits

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_of_normal_entries_it_is_the_normal_one(self, bits):
        one, other = best_quantiser(bits, np.ones(2), np.array([0.25, 0.75])), normal_quantiser(bits)
        assert (one.variance, one.step) == pytest.approx((other.variance, other.step), rel=1e-6)
        # Of two levels the border is all that matters.
        assert bits == 1 or one.cell == pytest.approx(other.cell, rel=1e-6)

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_of_a_mixture(self, bits):
        sigma, weights = np.array([0.5, 1.0, 2.0]), np.array([0.4, 0.5, 0.1])
        sigma = sigma / math.sqrt(weights @ sigma**2)
        best = best_quantiser(bits, sigma, weights)
        rng = np.random.default_rng(0)
        x = torch.from_numpy(rng.choice(sigma, 400_000, p=weights) * rng.normal(size=400_000))

        def error(quantiser):
            return (quantiser.round(x, 0.0) - x).numpy()

        found = error(best)
        assert np.square(found).mean() == pytest.approx(
            best.variance, abs=4.5 * np.square(found).std() / 632 + 1e-9
        )
        assert (found * x.numpy()).mean() == pytest.approx(0, abs=4.5 * (found * x.numpy()).std() / 632)
        # Better than the one for normal entries, whose gain for this mixture is not 1.
        rounded = normal_quantiser(bits).round(x, 0.0)
        gain = float((rounded * x).mean() / x.square().mean())
        assert best.variance <= float((rounded / gain - x).square().mean()) * 1.01

    def test_scaled(self):
        one = best_quantiser(4, np.array([1.0]), np.array([1.0]))
        large = one.scaled(10.0)
        x = torch.linspace(-3, 3, 100, dtype=torch.float64)
        assert torch.allclose(large.round(10 * x + 5, 5.0), 10 * one.round(x, 0.0) + 5)
        assert large.variance == pytest.approx(100 * one.variance)


class TestDecoding:
    @pytest.mark.parametrize("decoder", ["linear", "bayes", "oamp"])
    def test_of_nothing_comes_the_mean(self, decoder):
        source = SOURCES["one-sided"](128, 0.1)
        sketch = pr.Sketch(source, pr.Rug(128, 32), decoder=decoder)
        codes = sketch.encode(rows_of(source, 6, 128))
        mask = np.zeros((6, 32), dtype=bool)
        mask[[1, 4]] = True
        x_hat = sketch.decode(codes.erase(mask))
        assert x_hat[[1, 4]] == pytest.approx(np.tile(source.mean, (2, 1)), rel=1e-12)
        assert np.array_equal(x_hat[[0, 2, 3, 5]], sketch.decode(codes[[0, 2, 3, 5]]))
        twice = sketch.decode((codes + codes).erase(1.0))
        assert twice == pytest.approx(np.tile(2 * source.mean, (6, 1)), rel=1e-12)
        # Of a source of one number too.
        alike = pr.Sketch(pr.SparseUniform(0.2), pr.Rug(128, 32), decoder=decoder)
        lost = alike.encode(rows_of(pr.SparseUniform(0.2), 2, 128)).erase(1.0)
        assert alike.decode(lost) == pytest.approx(np.full((2, 128), 0.1))

    def test_every_number_of_missing_entries(self):
        source = SOURCES["one-sided"](64, 0.1)
        sketch = pr.Sketch(source, pr.Rug(64, 16))
        x = np.repeat(rows_of(source, 40, 64), 17, axis=0)
        mask = np.arange(16) < np.tile(np.arange(17), 40)[:, None]
        order = np.random.default_rng(0).permuted(mask, axis=1)
        losses = np.square(sketch.decode(sketch.encode(x).erase(order)) - x).mean(1).reshape(40, 17).mean(0)
        assert np.isfinite(losses).all()
        assert losses[0] < 0.8 * losses[8] < losses[16]

    def test_missing_entries_beat_zeros_in_their_place(self):
        source = SOURCES["one-sided"](512, 0.03)
        sketch = pr.Sketch(source, pr.Rug(512, 128))
        x = rows_of(source, 100, 512)
        lost = sketch.encode(x).erase(0.3)
        known = np.square(sketch.decode(lost) - x).mean()
        filled = np.square(sketch.decode(sketch.codes(np.nan_to_num(np.asarray(lost)))) - x).mean()
        assert known < 0.95 * filled

    def test_rows_are_decoded_one_by_one_as_together(self):
        source = SOURCES["one-sided"](128, 0.05)
        sketch = pr.Sketch(source, pr.Rug(128, 64), 6)
        codes = sketch.encode(rows_of(source, 8, 128)).erase(0.2)
        x_hat = sketch.decode(codes)
        before = np.array(codes)
        for row in range(8):
            assert sketch.decode(codes[row]) == pytest.approx(x_hat[row : row + 1], abs=1e-9)
        assert np.array_equal(np.asarray(codes), before, equal_nan=True)
        assert sketch.decode(codes[:0]).shape == (0, 128)

    def test_kinds_of_arrays(self):
        source = SOURCES["one-sided"](128, 0.05)
        sketch = pr.Sketch(source, pr.Rug(128, 64), 6)
        x = source.sample(5, 128, seed=0, dtype=torch.float32)
        for rows, kind in ((x, torch.Tensor), (x.numpy(), np.ndarray)):
            codes = sketch.encode(rows)
            assert type(codes.values) is kind
            for one in (codes, codes.erase(0.3), codes.erase(1.0)):
                assert type(sketch.decode(one)) is kind
                assert "float32" in str(sketch.decode(one).dtype)


class TestRowsOfOtherKinds:
    @pytest.fixture
    def sketch(self):
        return pr.Sketch(SOURCES["one-sided"](100, 0.1), pr.Rug(100, 25), 8)

    @pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "coo_array", "lil_array"])
    def test_sparse_ones(self, sketch, kind, monkeypatch):
        x = rows_of(sketch.source, 23, 100)
        expected = np.asarray(sketch.encode(x))
        rows = getattr(scipy.sparse, kind)(x)
        assert np.array_equal(np.asarray(sketch.encode(rows)), expected)
        # Block by block.
        monkeypatch.setattr("persianrug.sketches.sketch.BLOCK", 700)
        assert np.array_equal(np.asarray(sketch.encode(rows)), expected)
        assert sketch.encode(rows[:0]).shape == (0, 25)
        half = sketch.encode(rows.astype(np.float32))
        assert half.dtype == np.float32

    @pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, bool, np.float16])
    def test_of_other_numbers(self, sketch, dtype):
        rows = np.rint(rows_of(sketch.source, 9, 100)).astype(dtype)
        codes = sketch.encode(rows)
        assert codes.dtype == np.float64
        assert np.array_equal(np.asarray(codes), np.asarray(sketch.encode(rows.astype(np.float64))))

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float16])
    def test_tensors_of_other_numbers(self, sketch, dtype):
        rows = torch.from_numpy(rows_of(sketch.source, 9, 100)).round().to(dtype)
        codes = sketch.encode(rows)
        assert codes.dtype == torch.float64
        assert torch.equal(codes.values, sketch.encode(rows.double()).values)

    def test_inputs_are_left_as_they_were(self, sketch):
        x = rows_of(sketch.source, 9, 100)
        rows = scipy.sparse.csr_array(x)
        before = x.copy()
        sketch.encode(x)
        sketch.encode(rows)
        assert np.array_equal(x, before)
        assert np.array_equal(rows.toarray(), before)

    def test_strides(self, sketch):
        x = rows_of(sketch.source, 9, 100)
        expected = np.asarray(sketch.encode(x))
        for rows in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x[::-1].copy()[::-1], x.astype(">f8")):
            assert np.array_equal(np.asarray(sketch.encode(rows)), expected)


class TestRefusals:
    def test_negative_numbers_where_there_were_none(self):
        sketch = pr.Sketch(SOURCES["one-sided"](16, 0.2), pr.Rug(16, 4))
        x = np.zeros((3, 16))
        x[1, 5] = -0.5
        for rows in (x, scipy.sparse.csr_array(x), torch.from_numpy(x)):
            with pytest.raises(ValueError, match=r"rows holds -0.5; allowed: numbers >= 0"):
                sketch.encode(rows)
        assert pr.Sketch(SOURCES["signed"](16, 0.2), pr.Rug(16, 4)).encode(x).shape == (3, 4)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, bad):
        x = np.zeros((3, 16))
        x[1, 5] = bad
        for kind in SOURCES:
            sketch = pr.Sketch(SOURCES[kind](16, 0.2), pr.Rug(16, 4))
            for rows in (x, scipy.sparse.csr_array(x), torch.from_numpy(x), x.astype(np.float32)):
                with pytest.raises(ValueError, match="rows holds NaN or infinity"):
                    sketch.encode(rows)

    @pytest.mark.parametrize("kind", SOURCES)
    @pytest.mark.parametrize(
        ("bad", "word"), [(np.inf, "infinity"), (-np.inf, "infinity"), (1e38, r"sizes up to")]
    )
    def test_codes_of_nothing(self, kind, bad, word):
        sketch = pr.Sketch(SOURCES[kind](16, 0.2), pr.Rug(16, 4))
        for dtype in (np.float32, np.float64):
            z = np.ones((3, 4), dtype=dtype)
            z[1, 2], z[0, 0] = bad, np.nan
            for given in (z, torch.from_numpy(z)):
                with pytest.raises(ValueError, match=f"codes holds {word}.*; allowed: "):
                    sketch.decode(sketch.codes(given))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
    def test_laws_on_what_is_no_row(self, bad):
        x = np.ones((3, 16))
        x[1, 5] = bad
        with pytest.raises(ValueError, match="rows holds "):
            pr.Sketch(SOURCES["one-sided"](16, 0.2), pr.Rug(16, 4)).laws_on(x)

    @pytest.mark.parametrize("rows", [np.zeros((3, 15)), np.zeros(16), np.zeros((2, 3, 16)),
                                      torch.zeros(3, 17), scipy.sparse.csr_array((3, 15))])  # fmt: skip
    def test_shapes(self, rows):
        with pytest.raises(ValueError, match=r"rows has shape .*; allowed: \(rows, 16\)"):
            pr.Sketch(SOURCES["signed"](16, 0.2), pr.Rug(16, 4)).encode(rows)

    @pytest.mark.parametrize("rows", ["rows", None, [[0.0] * 16]])
    def test_no_arrays(self, rows):
        with pytest.raises(ValueError, match="rows is"):
            pr.Sketch(SOURCES["signed"](16, 0.2), pr.Rug(16, 4)).encode(rows)

    @pytest.mark.parametrize("rug", [pr.Rug(16, 4, 1), pr.Rug(16, 5), pr.Rug(16, 4, signs=False)])
    def test_codes_of_another_rug(self, rug):
        sketch = pr.Sketch(SOURCES["signed"](16, 0.2), pr.Rug(16, 4))
        with pytest.raises(ValueError, match=r"codes are of Rug\(.*; allowed: of Rug\("):
            sketch.decode(pr.Codes(np.zeros((2, rug.n_dense)), rug))

    @pytest.mark.parametrize(
        ("kind", "arguments", "message"),
        [
            ("one-sided", {"decoder": "wavelet"}, "decoder is 'wavelet'; allowed: "),
            ("one-sided", {"decoder": "topk"}, "decoder is 'topk'; allowed where features differ: .*bayes"),
            ("signed", {"decoder": "relu"}, "decoder is 'relu'; allowed with negative numbers: linear, .*bayes"),
            ("signed", {"decoder": "jumprelu"}, "decoder is 'jumprelu'; allowed with negative"),
            ("one-sided", {"bits": 0}, "bits is 0"),
            ("one-sided", {"bits": 17}, "bits is 17"),
            ("one-sided", {"bits": "8"}, "bits is '8'"),
            ("one-sided", {"bits": 2.5}, "bits is 2.5"),
        ],
    )
    def test_parameters(self, kind, arguments, message):
        with pytest.raises(ValueError, match=message):
            pr.Sketch(SOURCES[kind](16, 0.2), pr.Rug(16, 4), **arguments)

    def test_a_source_of_other_length(self):
        with pytest.raises(ValueError, match=r"source has 12 features; allowed with .*: 16"):
            pr.Sketch(SOURCES["signed"](12, 0.2), pr.Rug(16, 4))


class TestRecipes:
    @pytest.mark.parametrize(("kind", "decoder"), KINDS)
    def test_of_one_comes_the_same(self, kind, decoder):
        source = SOURCES[kind](64, 0.1)
        sketch = pr.Sketch(source, pr.Rug(64, 24, 5), 6, decoder)
        again = pr.Sketch.from_recipe(sketch.recipe())
        codes = sketch.encode(rows_of(source, 9, 64))
        assert np.array_equal(np.asarray(again.encode(rows_of(source, 9, 64))), np.asarray(codes))
        for some in (codes, codes + codes, codes.erase(0.2)):
            assert np.array_equal(again.decode(some), sketch.decode(some))
        assert (again.bits, again.decoder, again.rug) == (6, decoder, sketch.rug)

    @pytest.mark.parametrize("name", EVERY_SOURCE)
    def test_of_every_source(self, name):
        sketch = pr.Sketch(EVERY_SOURCE[name](0.1), pr.Rug(64, 24))
        again = pr.Sketch.from_recipe(sketch.recipe())
        codes = sketch.encode(rows_of(sketch.source, 5, 64))
        assert np.array_equal(again.decode(codes), sketch.decode(codes))

    def test_it_is_not_changed_by_reading(self):
        recipe = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(64, 24)).recipe()
        before = json.dumps(recipe)
        pr.Sketch.from_recipe(recipe)
        assert json.dumps(recipe) == before

    def test_others_are_refused(self):
        recipe = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(64, 24)).recipe()
        for changes in (
            {"encoder": {"name": "gaussian", "n_sparse": 64, "n_dense": 24}},
            {"encoder": {**recipe["encoder"], "more": 1}},
            {"encoder": None},
            {"encoder": {}},
            {"source": {"name": "none"}},
            {"source": {"name": "uniform"}},
            {"source": None},
            {"decoder": 5},
            {"bits": 99},
        ):
            with pytest.raises(ValueError, match="allowed"):
                pr.Sketch.from_recipe({**recipe, **changes})
        # Those that were stored before there was dither do not say so.
        for name in recipe.keys() - {"dithered"}:
            with pytest.raises(ValueError, match="recipe is none of a sketch"):
                pr.Sketch.from_recipe({key: value for key, value in recipe.items() if key != name})
        for none in (None, [], "recipe", 5):
            with pytest.raises(ValueError, match="recipe is none of a sketch"):
                pr.Sketch.from_recipe(none)

    def test_they_are_pickled(self):
        source = SOURCES["one-sided"](64, 0.1)
        sketch = pr.Sketch(source, pr.Rug(64, 24), 6)
        codes = sketch.encode(rows_of(source, 4, 64))
        expected = sketch.decode(codes)
        assert np.array_equal(pickle.loads(pickle.dumps(sketch)).decode(codes), expected)
