"""The uniform source against what is known of it."""

import pytest

import persianrug as pr


def test_mmse_of_the_uniform_source_is_the_known_floor():
    # Bayes elementwise at the three points of the toy model, from an independent solution.
    for p, ratio, floor in [(0.045, 0.25, 0.0044803), (0.01, 0.1, 0.00088579), (0.3, 0.5, 0.028895)]:
        source = pr.SparseUniform(p)
        assert source.mmse(pr.noise_level(source.variance, ratio)) == pytest.approx(floor, rel=1e-4)
