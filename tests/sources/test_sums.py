"""Sums of vectors of a source, as a source: moments and rates against samples."""

import math

import numpy as np
import pytest

import persianrug as pr
from persianrug.sources import sum_of
from tests.conftest import EVERY_SOURCE
from tests.sources.helpers import rows_of


class TestSums:
    @pytest.mark.parametrize("name", EVERY_SOURCE)
    @pytest.mark.parametrize("p", [0.05, 0.6, 1.0])
    @pytest.mark.parametrize(
        "factors", [(1.0, 1.0), (1.0, 1.0, 1.0), (2.0, 0.5), (1.0, -1.0), (-3.0,), (1.0, -2.0)]
    )
    def test_moments_and_rate_are_those_of_samples(self, name, p, factors):
        source = EVERY_SOURCE[name](p)
        total = sum_of(
            source,
            len(factors), sum(factors), sum(c**2 for c in factors), signed=min(factors) < 0
        )  # fmt: skip
        # Exactly.
        assert total.p == pytest.approx(1 - (1 - p) ** len(factors), rel=1e-12)
        size = abs(sum(factors)) * source.second_moment**0.5 + source.variance**0.5
        assert total.mean == pytest.approx(sum(factors) * source.mean, rel=1e-6, abs=1e-6 * size)
        expected = sum(c**2 for c in factors) * source.variance
        amplitude = total.mean / total.p
        spread = math.sqrt(max(expected / total.p - (1 - total.p) * amplitude**2, 0))
        if not total.signed and spread > 0.99 * amplitude:
            # A normal law that is cut at 0 is no wider than an exponential.
            assert 0.7 * expected < total.variance < expected
            return
        assert total.variance == pytest.approx(expected, rel=1e-4, abs=1e-7 * total.second_moment + 1e-12)
        rows = sum(c * rows_of(source, 4000, 16, seed) for seed, c in enumerate(factors))
        count = rows.size
        assert rows.mean() == pytest.approx(total.mean, abs=4.5 * rows.std() / math.sqrt(count) + 1e-9)
        gaps = np.square(rows - total.mean)
        assert gaps.mean() == pytest.approx(
            total.variance, abs=4.5 * gaps.std() / math.sqrt(count) + 1e-6 * size**2 + 1e-30
        )
        if name not in ("constant", "empirical"):
            # Others may cancel.
            active = (rows != 0).mean()
            assert active == pytest.approx(total.p, abs=4.5 * math.sqrt(total.p * (1 - total.p) / count) + 1e-12)
        assert total.signed == (source.signed or min(factors) < 0)
        if not total.signed:
            assert (rows_of(total, 100, 16) >= 0).all()

    def test_features_that_differ(self):
        n = 64
        source = pr.SparseTruncatedNormal(pr.zipf_rates(n, 0.3), np.linspace(0.2, 1, n), np.linspace(1, 3, n))
        total = sum_of(source, 3, 2.0, 1.5, signed=False)
        assert total.n_sparse == n
        assert total.p == pytest.approx(1 - (1 - source.p) ** 3, rel=1e-12)
        assert total.mean == pytest.approx(2 * source.mean, rel=1e-6)
        assert total.variance == pytest.approx(1.5 * source.variance, rel=1e-4)
        for feature in (0, 5, 63):
            one = sum_of(source.at(feature), 3, 2.0, 1.5, signed=False)
            assert (one.mean, one.variance) == pytest.approx(
                (total.mean[feature], total.variance[feature]), rel=1e-9
            )

    def test_rare_features_keep_their_digits(self):
        source = pr.SparseGaussian(1e-20, 1.0, 2.0)
        total = sum_of(source, 2, 2.0, 2.0, signed=False)
        assert total.p == pytest.approx(2e-20, rel=1e-12)
        assert total.mean == pytest.approx(4e-20, rel=1e-9)
        assert total.variance == pytest.approx(2 * source.variance, rel=1e-9)
