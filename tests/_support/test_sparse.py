"""Sparse matrices whose entries are stored in parts: their sums, wherever rows go in."""

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr
from persianrug.sources import FeatureMoments

N = 8


@pytest.mark.parametrize(("dtype", "value"), [("u1", 200), ("i1", 100), ("?", 1)])
@pytest.mark.parametrize("kind", ["csr", "coo"])
def test_parts_are_added_as_floats(kind, dtype, value):
    # Each row has one entry, in two parts.
    rows = np.repeat(np.arange(12), 2)
    entries = np.full(24, value, dtype)
    if kind == "coo":
        x = scipy.sparse.coo_array((entries, (rows, rows % N)), shape=(12, N))
    else:
        x = scipy.sparse.csr_array((entries, rows % N, np.arange(0, 25, 2)), shape=(12, N))
    dense = np.zeros((12, N))
    dense[np.arange(12), np.arange(12) % N] = 2.0 * value
    means = FeatureMoments.of(x).means
    assert means.tolist() == [2.0 * value] * N
    fitter = pr.ProfileFitter(N)
    fitter.add(x)
    assert fitter.profile().source == pr.Sketcher(n_dense=4).fit(dense).profile_.source
    assert pr.Sketcher(n_dense=4).fit(x).profile_.source == fitter.profile().source
    sketcher = pr.Sketcher(n_dense=4).fit(dense)
    assert np.allclose(np.asarray(sketcher.sketch_.encode(x)), np.asarray(sketcher.sketch_.encode(dense)))
    assert np.allclose(np.asarray(sketcher.encode(x)), np.asarray(sketcher.encode(dense)))
    model = sketcher.sketch_.model
    assert model.measure(x).loss == pytest.approx(model.measure(dense).loss)
