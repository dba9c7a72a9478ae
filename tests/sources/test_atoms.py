"""Sources of few values: fitted to rows of every kind, and what is refused."""

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr


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
