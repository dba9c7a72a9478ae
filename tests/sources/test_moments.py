"""Moments of every feature, added up block by block, against those of all rows at once."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.sources.moments import FeatureMoments, nonzeros


def data(rows=60, n_sparse=9, share=0.3, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, n_sparse)) + offset) * (rng.random((rows, n_sparse)) < share)
    # One that is never active, one that always is, one that is once.
    x[:, 2], x[:, 4], x[:, 5] = 0.0, rng.normal(size=rows) + offset, 0.0
    x[rows // 2, 5] = offset - 1.5
    return x


def direct(x):
    """Counts, means and scatters, feature by feature, in two passes and extended precision."""
    found = []
    for column in np.asarray(x, dtype=np.longdouble).T:
        active = column[column != 0]
        mean = active.mean() if len(active) else np.longdouble(0)
        found.append((len(active), mean, ((active - mean) ** 2).sum()))
    return [np.array(part, dtype=np.float64) for part in zip(*found, strict=True)]


def same(one, other, rel=1e-12):
    assert one.rows == other.rows
    assert np.array_equal(one.counts, other.counts)
    assert one.means == pytest.approx(other.means, rel=rel, abs=1e-300)
    assert one.scatters == pytest.approx(other.scatters, rel=rel, abs=1e-13)
    assert one.least == other.least


def with_duplicates(x):
    """As a CSR matrix whose entries are each stored in two parts, some of which cancel."""
    whole = scipy.sparse.csr_array(x)
    rows, columns = whole.nonzero()
    parts = np.concatenate([0.25 * whole.data, 0.75 * whole.data, [5.0, -5.0]])
    place = np.concatenate([rows, rows, [0, 0]]), np.concatenate([columns, columns, [2, 2]])
    order = np.argsort(place[0], kind="stable")
    indptr = np.searchsorted(place[0][order], np.arange(x.shape[0] + 1))
    return scipy.sparse.csr_array((parts[order], place[1][order], indptr), shape=x.shape)


KINDS = {
    "dense": np.asarray,
    "float32": lambda x: x.astype(np.float32),
    "float16": lambda x: x.astype(np.float16),
    "longdouble": lambda x: x.astype(np.longdouble),
    "int64": lambda x: np.rint(3 * x).astype(np.int64),
    "int8": lambda x: np.rint(50 * x).astype(np.int8),
    "uint8": lambda x: np.rint(50 * np.abs(x)).astype(np.uint8),
    "bool": lambda x: x != 0,
    "Fortran": np.asfortranarray,
    "every other": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "big-endian": lambda x: x.astype(">f8"),
    "list": lambda x: x.tolist(),
    "tensor": torch.from_numpy,
    "float32 tensor": lambda x: torch.from_numpy(x).float(),
    "tensor that wants a gradient": lambda x: torch.from_numpy(x).requires_grad_(),
    "csr": scipy.sparse.csr_array,
    "csr matrix": scipy.sparse.csr_matrix,
    "csr float32": lambda x: scipy.sparse.csr_array(x.astype(np.float32)),
    "csr bool": lambda x: scipy.sparse.csr_array(x != 0),
    "csr int": lambda x: scipy.sparse.csr_array(np.rint(3 * x).astype(np.int32)),
    "csc": scipy.sparse.csc_array,
    "coo": scipy.sparse.coo_array,
    "lil": scipy.sparse.lil_array,
    "duplicates": with_duplicates,
}


def as_dense(rows):
    if isinstance(rows, torch.Tensor):
        return rows.detach().numpy()
    return rows.toarray() if scipy.sparse.issparse(rows) else np.asarray(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_kind_of_matrix(kind):
    x = data()
    rows = KINDS[kind](x)
    dense = as_dense(rows)
    before = dense.copy()
    stored = rows.copy() if scipy.sparse.issparse(rows) else None
    found = FeatureMoments.of(rows)
    counts, means, scatters = direct(dense)
    assert np.array_equal(found.counts, counts)
    assert found.means == pytest.approx(means, rel=1e-13)
    assert found.scatters == pytest.approx(scatters, rel=1e-12, abs=1e-13)
    assert found.least == dense[dense != 0].min()
    assert (found.rows, found.active) == (60, np.count_nonzero(dense))
    assert (found.counts.dtype, found.means.dtype, found.scatters.dtype) == (np.int64, np.float64, np.float64)
    # What was given is left as it was.
    assert np.array_equal(as_dense(rows), before)
    if stored is not None and stored.format == "csr":
        assert np.array_equal(rows.data, stored.data)
        assert np.array_equal(rows.indices, stored.indices)


def test_zeros_that_are_stored_are_zeros():
    matrix = scipy.sparse.csr_array(data())
    matrix.data[::3] = 0.0
    same(FeatureMoments.of(matrix), FeatureMoments.of(matrix.toarray()))


@given(st.integers(0, 1000), st.lists(st.integers(0, 40), max_size=8), st.sampled_from(["dense", "csr"]))
def test_any_split_of_the_rows(seed, cuts, kind):
    x = data(rows=40, seed=seed)
    rows = KINDS[kind](x)
    whole = FeatureMoments.of(x)
    edges = [0, *sorted(cuts), 40]
    parts = [FeatureMoments.of(rows[a:b]) for a, b in pairwise(edges) if b > a]
    forwards = parts[0]
    for part in parts[1:]:
        forwards = forwards + part
    backwards = parts[-1]
    for part in parts[-2::-1]:
        backwards = part + backwards
    same(forwards, whole)
    same(backwards, whole)


def test_in_any_order_and_grouping():
    a, b, c = (FeatureMoments.of(data(seed=seed, offset=10.0)) for seed in range(3))
    same((a + b) + c, a + (b + c))
    same(a + b, b + a)


def test_a_block_of_zeros_changes_the_number_of_rows_only():
    one, nothing = FeatureMoments.of(data()), FeatureMoments.of(np.zeros((7, 9)))
    assert (nothing.active, nothing.least, nothing.rows) == (0, np.inf, 7)
    for both in (one + nothing, nothing + one):
        assert both.rows == 67
        for part in ("counts", "means", "scatters"):
            assert np.array_equal(getattr(both, part), getattr(one, part))
        assert both.least == one.least
    assert (nothing + nothing).active == 0
    assert FeatureMoments.of(scipy.sparse.csr_array((7, 9))).active == 0


@pytest.mark.parametrize("offset", [1e9, -1e9, 1e12])
def test_a_large_offset_keeps_the_variance(offset):
    rng = np.random.default_rng(0)
    x = offset + rng.normal(size=(2000, 3))
    counts, _, scatters = direct(x)
    ulp = np.spacing(abs(offset))
    for rows in (1, 7, 500, 2000):
        total = FeatureMoments.of(x[:rows])
        for start in range(rows, 2000, rows):
            total = total + FeatureMoments.of(x[start : start + rows])
        # The mean is known to its last digits, which is all that is lost.
        assert np.sqrt(total.scatters / counts) == pytest.approx(np.sqrt(scatters / counts), rel=1e-6, abs=ulp)


def test_sizes_at_both_ends():
    x = np.array([[1e30, 1e-30, -1e30], [2e29, 3e-30, 1e30]])
    found = FeatureMoments.of(x[:1]) + FeatureMoments.of(x[1:])
    assert found.means == pytest.approx([6e29, 2e-30, 0.0])
    assert found.scatters == pytest.approx([3.2e59, 2e-60, 2e60], rel=1e-12)


class TestRefusals:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", ["dense", "float32", "tensor", "csr", "csc", "duplicates"])
    def test_not_finite(self, bad, kind):
        x = data()
        x[3, 4] = bad
        with pytest.raises(ValueError, match="rows holds NaN or infinity; allowed: finite numbers"):
            FeatureMoments.of(KINDS[kind](x))

    @pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (0,)])
    def test_empty(self, shape):
        with pytest.raises(ValueError, match="rows is empty; allowed: at least one row and one feature"):
            FeatureMoments.of(np.zeros(shape))
        if len(shape) == 2:
            with pytest.raises(ValueError, match="rows is empty"):
                FeatureMoments.of(scipy.sparse.csr_array(shape))

    @pytest.mark.parametrize("size", [1.1e30, -2e30, 1e100, -1e200, 1e308])
    @pytest.mark.parametrize("other", [0.0, 1.0])
    def test_too_large(self, size, other):
        for rows in ([[size, 1.0]], [[size, 1.0], [other, 1.0]], [[size, 1.0], [size, 2.0]]):
            for kind in ("dense", "csr"):
                with pytest.raises(ValueError, match=r"rows holds sizes up to .*; allowed: up to 1e\+30"):
                    FeatureMoments.of(KINDS[kind](np.array(rows)))


def test_nonzeros():
    for rows in (np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]), scipy.sparse.csc_array([[0, 2, 0], [3, 0, 4]])):
        size, values, columns, n_sparse = nonzeros(rows)
        assert (size, n_sparse) == (6, 3)
        assert sorted(zip(columns.tolist(), values.tolist(), strict=True)) == [(0, 3.0), (1, 2.0), (2, 4.0)]


@pytest.mark.parametrize("kind", [pr.SparseTruncatedNormal, pr.SparseGaussian])
def test_a_source_of_moments_is_the_source_of_the_rows(kind):
    x = np.abs(data(rows=200, offset=1.0))
    parts = FeatureMoments.of(x[:31]) + FeatureMoments.of(x[31:])
    one, other = kind.of_moments(parts).recipe(), kind.fit(x).recipe()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == other[name] if isinstance(value, str) else value == pytest.approx(other[name], rel=1e-12)


class TestOfMoments:
    def test_two_features_at_least(self):
        with pytest.raises(ValueError, match="rows has 1 features; allowed: at least 2"):
            pr.SparseGaussian.of_moments(FeatureMoments.of([[1.0], [2.0]]))

    def test_not_only_zeros(self):
        with pytest.raises(ValueError, match="rows holds nothing but zeros"):
            pr.SparseGaussian.of_moments(FeatureMoments.of(np.zeros((3, 3))))

    def test_one_sided_laws_take_no_negative_numbers(self):
        with pytest.raises(ValueError, match="rows holds"):
            pr.SparseTruncatedNormal.of_moments(FeatureMoments.of([[1.0, -1.0], [2.0, 1.0]]))
