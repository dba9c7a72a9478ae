"""Rates by Zipf's law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr


@given(n=st.integers(2, 2000), p=st.floats(1e-5, 1), exponent=st.floats(0, 10))
def test_zipf_rates_are_what_they_should_be(n, p, exponent):
    rates = pr.zipf_rates(n, p, exponent)
    assert rates.shape == (n,)
    assert rates.mean() == pytest.approx(p, rel=1e-9)
    assert (np.diff(rates) <= 0).all()
    assert 0 < rates.min() <= rates.max() <= 1
    law = np.arange(1, n + 1.0) ** -exponent
    free = (rates < 1) & (rates > 1e-29)
    if free.any():
        factor = (rates / law)[free]
        assert np.allclose(factor, factor[0], rtol=1e-9)
        # Those that are always active would be more than that.
        assert (factor[0] * law[rates == 1] >= 1 - 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((1, 0.1), "n_sparse"), ((2.5, 0.1), "n_sparse"), ((8, 0.0), "p"), ((8, 1.1), "p"), ((8, np.nan), "p"),
     ((8, 0.1, -1), "exponent"), ((8, 0.1, 11), "exponent"), ((8, 0.1, np.nan), "exponent")],
)  # fmt: skip
def test_bad_zipf_laws_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        pr.zipf_rates(*arguments)
