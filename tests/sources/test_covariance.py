"""Covariances of factors and a diagonal, and what one pass learns of them."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.sources import SecondMoments
from persianrug.sources.second_moments import random_matrix, width

SIGNS = "-+-++-+-+-+++++-+-----+--++-++++"


def made(n_sparse, rank, seed=0, flat=False):
    rng = np.random.default_rng(seed)
    diagonal = np.full(n_sparse, 0.05) if flat else rng.uniform(0.01, 0.1, n_sparse)
    return pr.Covariance(rng.normal(1.0, 1.0, n_sparse), rng.standard_normal((rank, n_sparse)), diagonal)


def matrix(covariance):
    return covariance.factors.T @ covariance.factors + np.diag(covariance.diagonal)


def test_samples_have_the_moments():
    covariance = made(6, 2)
    x = covariance.sample(200_000, seed=1)
    stderr = np.sqrt(covariance.variance.max() / len(x))
    assert x.mean(axis=0) == pytest.approx(covariance.mean, abs=5 * stderr)
    assert np.cov(x.T) == pytest.approx(matrix(covariance), abs=8 * stderr * covariance.variance.max() ** 0.5)
    assert np.diag(matrix(covariance)) == pytest.approx(covariance.variance)


def test_sums_add_up():
    covariance = made(5, 2)
    three = covariance.of_sums(3.0, 3.0)
    assert three.mean == pytest.approx(3 * covariance.mean)
    assert matrix(three) == pytest.approx(3 * matrix(covariance))


def test_independent_features():
    source = pr.SparseUniform(0.2)
    covariance = pr.Covariance.of(source, 7)
    assert covariance.rank == 0
    assert matrix(covariance) == pytest.approx(np.eye(7) * source.variance)


@pytest.mark.parametrize("flat", [False, True])
def test_recipes_round_trip(flat):
    covariance = made(9, 3, flat=flat)
    recipe = covariance.recipe()
    again = pr.Covariance.from_recipe(recipe)
    assert matrix(again) == pytest.approx(matrix(covariance), rel=1e-6)
    assert again.flat == flat
    assert covariance.bytes == 48 + 144 + (0 if flat else 48)
    # What is stored once stays as it is.
    assert np.array_equal(matrix(pr.Covariance.from_recipe(again.recipe())), matrix(again))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0.0, 0.0], [[1.0, 1.0]], [1.0, -1.0]), r"^diagonal holds -1 for 2 features; allowed: numbers >= 0$"),
        (([0.0, 0.0], [[1.0]], [1.0, 1.0]), r"^factors is of 1 features; allowed: 2, as mean$"),
        (([0.0, 0.0], [1.0, 1.0], [1.0, 1.0]), r"^factors has shape \(2,\); allowed: \(k, n_sparse\)$"),
        (([0.0, np.nan], [[1.0, 1.0]], [1.0, 1.0]), r"^mean holds NaN or infinity; allowed: finite numbers"),
        (([], np.zeros((0, 0)), []), r"^diagonal holds 0 for 0 features"),
    ],
)
def test_bad_parts_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        pr.Covariance(*parts)


@pytest.mark.parametrize("recipe", [{}, {"mean": [0.0]}, {"mean": [0.0], "factors": [[1.0]], "diagonal": -1.0}])
def test_recipes_of_none_are_refused(recipe):
    with pytest.raises(ValueError, match="allowed"):
        pr.Covariance.from_recipe(recipe)


class TestLearning:
    """Second moments from products with a random matrix."""

    @pytest.mark.parametrize(("n_sparse", "rank"), [(40, 3), (300, 5)])
    def test_factors_are_found(self, n_sparse, rank):
        """Of rows of a covariance, as by eigenvectors of all second moments."""
        true = made(n_sparse, rank)
        x = true.sample(2000, seed=1)
        found = SecondMoments.of(x).covariance(rank)
        values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
        best = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
        ours = found.factors.T @ found.factors
        assert np.linalg.norm(ours - best) < 0.02 * np.linalg.norm(best)
        assert found.variance == pytest.approx(x.var(axis=0), rel=1e-5)
        assert found.mean == pytest.approx(x.mean(axis=0), rel=1e-5)

    def test_more_factors_explain_no_less(self):
        second = SecondMoments.of(made(60, 8).sample(500, seed=2))
        left = [second.covariance(rank).diagonal.sum() for rank in range(12)]
        assert left == sorted(left, reverse=True)

    @given(st.integers(1, 30), st.integers(0, 30), st.booleans())
    def test_parts_add_up(self, rows, cut, sparse):
        rng = np.random.default_rng(rows)
        x = rng.standard_normal((rows, 9)) * (rng.random((rows, 9)) < 0.5)
        kind = scipy.sparse.csr_array if sparse else np.asarray
        parts = [kind(part) for part in (x[:cut], x[cut:])]
        both = SecondMoments.of(parts[0]) + SecondMoments.of(parts[1])
        for name in ("rows", "sums", "squares", "products"):
            assert getattr(both, name) == pytest.approx(getattr(SecondMoments.of(x), name), abs=1e-12)

    def test_the_random_matrix_is_always_the_same(self):
        assert np.array_equal(random_matrix(7), np.eye(7))
        assert random_matrix(200).shape == (200, 128)
        # As stored profiles have it.
        signs = "".join("+-"[int(entry < 0)] for entry in random_matrix(200)[0, :32])
        assert signs == SIGNS
        assert width(1 << 24) == 1

    @pytest.mark.parametrize("x", [np.zeros((5, 4)), np.ones((5, 4)), np.ones((1, 4))])
    def test_rows_that_do_not_vary_have_no_factors(self, x):
        found = SecondMoments.of(x).covariance(3)
        assert np.abs(found.factors).max(initial=0.0) < 1e-6
        assert found.mean == pytest.approx(x[0])
        assert (found.diagonal > 0).all()

    def test_duplicate_columns(self):
        rng = np.random.default_rng(0)
        one = rng.standard_normal((50, 3))
        found = SecondMoments.of(np.hstack([one, one])).covariance(3)
        assert matrix(found)[:3, 3:] == pytest.approx(np.cov(one.T, bias=True), rel=1e-2, abs=1e-2)

    def test_no_rows_and_negative_ranks_are_refused(self):
        with pytest.raises(ValueError, match=r"^rows is empty"):
            SecondMoments.none(4).covariance(1)
        with pytest.raises(ValueError, match=r"^rank is -1"):
            SecondMoments.of(np.eye(4)).covariance(-1)
