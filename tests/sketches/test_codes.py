"""Codes as objects: arithmetic that is that of what was encoded, and what is refused."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from persianrug.sketches.codes import digest

N, K = 96, 24
SOURCE = pr.SparseGaussian(0.2)
RUG = pr.Rug(N, K)
SKETCH = pr.Sketch(SOURCE, RUG)
# Of files that were written: it must stay as it is.
DIGEST = "86e399dfebdf5beb695119c868e87ac8a5e7d8f88e2133f9ad4eb684d5db759d"


def x_of(rows, seed=0, dtype=torch.float64):
    return SOURCE.sample(rows, N, seed=seed, dtype=dtype)


@pytest.fixture(params=["array", "tensor"])
def of(request):
    """Rows as one kind or the other."""
    return (lambda x: x.numpy()) if request.param == "array" else (lambda x: x)


def values(codes):
    return np.asarray(codes)


def near(codes, other, rel=1e-12):
    assert values(codes) == pytest.approx(values(other), rel=rel, abs=1e-12)


class TestTheyAddUp:
    def test_as_rows_do(self, of):
        x, y = x_of(5, 0), x_of(5, 1)
        a, b = SKETCH.encode(of(x)), SKETCH.encode(of(y))
        for made, row in [
            (a + b, x + y),
            (a - b, x - y),
            (-a, -x),
            (2.5 * a, 2.5 * x),
            (a * -0.5, -0.5 * x),
            (a / 4, x / 4),
            (a + b - 3 * a, y - 2 * x),
            (a.sum(), x.sum(0, keepdim=True)),
            ((a - b).sum(), (x - y).sum(0, keepdim=True)),
        ]:
            near(made, RUG.encode(row))
            assert isinstance(made, pr.Codes)
            assert type(made.values) is type(a.values)
            assert made.digest == a.digest
            assert made.dtype == a.dtype

    @given(st.lists(st.floats(-5, 5).filter(lambda c: abs(c) > 1e-3), min_size=2, max_size=6))
    def test_any_sum_of_multiples(self, factors):
        rows = [x_of(3, seed) for seed in range(len(factors))]
        parts = [factor * SKETCH.encode(row) for factor, row in zip(factors, rows, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        near(total, RUG.encode(sum(factor * row for factor, row in zip(factors, rows, strict=True))), rel=1e-9)
        mixture = total.mixture
        assert mixture.terms == len(factors)
        assert mixture.weight == pytest.approx(sum(factors), abs=1e-12)
        assert mixture.power == pytest.approx(sum(factor**2 for factor in factors))
        assert mixture.signed == (min(factors) < 0)

    def test_float32_stays(self, of):
        a = SKETCH.encode(of(x_of(4, dtype=torch.float32)))
        for made in (a + a, a - a, 0.3 * a, a / 3, a.sum(), a.erase(0.5), a[1:], pr.Codes.concatenate([a, a])):
            assert made.dtype == a.dtype
            assert "float32" in str(made.dtype)

    def test_inputs_are_left_as_they_were(self, of):
        a, b = SKETCH.encode(of(x_of(5, 0))), SKETCH.encode(of(x_of(5, 1)))
        before = values(a).copy(), values(b).copy(), a.mixture, b.mixture
        lost = a.erase(0.5)
        _ = a + b, a - b, -a, 3 * a, a / 3, a.sum(), a[2], a[1:3], lost.merge(a), pr.Codes.concatenate([a, b])
        lost_before = values(lost).copy()
        lost.merge(a)
        a.erase(np.ones(K, dtype=bool))
        assert np.array_equal(values(a), before[0])
        assert np.array_equal(values(b), before[1])
        assert np.array_equal(values(lost), lost_before, equal_nan=True)
        assert (a.mixture, b.mixture) == before[2:]

    def test_numbers_of_numpy_multiply_too(self):
        a = SKETCH.encode(x_of(3).numpy())
        for factor in (np.float64(2.0), np.float32(2.0), np.int64(2)):
            for made in (a * factor, factor * a):
                assert isinstance(made, pr.Codes)
                near(made, 2.0 * values(a))
                assert made.mixture == (2 * a).mixture

    def test_codes_and_arrays_are_not_added(self):
        only = r"^other is .*; allowed: a Codes$"
        a = SKETCH.encode(x_of(3).numpy())
        for other in (values(a), values(a)[0], 1.0, None, [1.0], np.ma.masked_array(values(a))):
            with pytest.raises(ValueError, match=only):
                a + other
            with pytest.raises(ValueError, match=only):
                other + a
            with pytest.raises(ValueError, match=only):
                a - other
            with pytest.raises(ValueError, match=only):
                other - a
        with pytest.raises(ValueError, match="factor is an array"):
            a * a
        with pytest.raises(ValueError, match="other is 0; allowed: a Codes"):
            sum([a, a])
        with pytest.raises(ValueError, match="factor is an array"):
            values(a) * a
        with pytest.raises(ValueError, match="factor is an array"):
            a * values(a)

    @pytest.mark.parametrize("factor", [0, 0.0, -0.0, math.nan, math.inf, "2", None, 1j])
    def test_other_factors(self, factor):
        a = SKETCH.encode(x_of(3).numpy())
        for made in (lambda: a * factor, lambda: factor * a, lambda: a / factor):
            with pytest.raises(ValueError, match=r"factor is .*; allowed: a finite number other than 0"):
                made()

    def test_the_sum_of_no_rows(self):
        with pytest.raises(ValueError, match="codes have no rows"):
            SKETCH.encode(np.zeros((0, N))).sum()


class TestOthersAreRefused:
    @pytest.mark.parametrize(
        "rug", [pr.Rug(N, K, 1), pr.Rug(N, K - 2), pr.Rug(N + 32, K), pr.Rug(N, K, signs=False)]
    )
    def test_of_other_rugs(self, rug):
        a, b = SKETCH.encode(x_of(3).numpy()), pr.Codes(np.zeros((3, rug.n_dense)), rug)
        assert a.digest != b.digest
        for made in (
            lambda: a + b,
            lambda: b - a,
            lambda: a.merge(b),
            lambda: pr.Codes.concatenate([a, b]),
            lambda: SKETCH.decode(b),
        ):
            with pytest.raises(ValueError, match=r"allowed: .*[Rr]ug"):
                made()

    def test_of_other_numbers_of_rows(self):
        a = SKETCH.encode(x_of(3).numpy())
        for made in (lambda: a + a[:2], lambda: a[:1] - a, lambda: a.merge(a[:2])):
            with pytest.raises(ValueError, match=r"other codes have . rows; allowed: ."):
                made()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (np.zeros(K), "values has shape"),
            (np.zeros((2, 3, K)), "values has shape"),
            (np.zeros((2, K + 1)), "values has shape"),
            (np.zeros((2, K), dtype=int), "values has dtype"),
            (np.zeros((2, K), dtype=np.float16), "values has dtype"),
            (torch.zeros(2, K, dtype=torch.float16), "values has dtype"),
            ([[0.0] * K], "values is a list"),
        ],
    )
    def test_other_values(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            pr.Codes(wrong, RUG)


class TestRows:
    @pytest.mark.parametrize("row", [0, 3, -1, -5, np.int64(2), np.uint8(4)])
    def test_one_stays_a_row_of_codes(self, of, row):
        a = SKETCH.encode(of(x_of(5)))
        assert a[row].shape == (1, K)
        assert np.array_equal(values(a[row])[0], values(a)[row])
        assert a[row].mixture == a.mixture

    @pytest.mark.parametrize(
        "rows",
        [slice(1, 4), slice(None, None, 2), slice(7, 9), [0, 0, 3], np.array([4, -1]), np.arange(5) % 2 == 0, []],
    )
    def test_many(self, of, rows):
        a = 2 * SKETCH.encode(of(x_of(5)))
        assert np.array_equal(values(a[rows]), values(a)[rows])
        assert a[rows].mixture == a.mixture
        assert len(a[rows]) == len(values(a)[rows])

    @pytest.mark.parametrize("row", [5, -6])
    def test_those_that_are_not_there(self, of, row):
        with pytest.raises(IndexError):
            SKETCH.encode(of(x_of(5)))[row]

    def test_no_part_of_the_entries(self, of):
        with pytest.raises((ValueError, IndexError, TypeError)):
            SKETCH.encode(of(x_of(5)))[:, :3]

    def test_every_one_in_a_loop(self, of):
        a = SKETCH.encode(of(x_of(5)))
        assert np.array_equal(np.concatenate([values(row) for row in a]), values(a))

    def test_concatenate_takes_them_apart_and_together(self, of):
        a = SKETCH.encode(of(x_of(7)))
        again = pr.Codes.concatenate([a[:2], a[2:2], a[2], a[3:]])
        assert np.array_equal(values(again), values(a))
        assert type(again.values) is type(a.values)
        assert (again.mixture, again.bits) == (a.mixture, a.bits)

    def test_concatenate_refuses_what_differs(self):
        a = SKETCH.encode(x_of(3).numpy())
        rounded = pr.Sketch(SOURCE, RUG, 4).encode(x_of(3).numpy())
        with pytest.raises(ValueError, match="parts is empty"):
            pr.Codes.concatenate([])
        for other in (2 * a, a + a, rounded):
            with pytest.raises(ValueError, match="allowed: codes of the same rug and sums"):
                pr.Codes.concatenate([a, other])


class TestMissing:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0, 0, 1])
    def test_a_share(self, of, share):
        a = SKETCH.encode(of(x_of(50)))
        lost = a.erase(share, seed=3)
        assert (lost.missing == round(share * K)).all()
        kept = ~np.isnan(values(lost))
        assert np.array_equal(values(lost)[kept], values(a)[kept])
        assert (lost.mixture, lost.bits) == (a.mixture, a.bits)
        assert np.array_equal(values(lost), values(a.erase(share, seed=3)), equal_nan=True)
        if share == 0.5:
            # At random, row by row.
            assert len({row.tobytes() for row in kept}) == 50
            assert not np.array_equal(kept, ~np.isnan(values(a.erase(share, seed=4))))
            assert kept.mean(0) == pytest.approx(np.full(K, 0.5), abs=0.35)

    def test_a_mask(self, of):
        a = SKETCH.encode(of(x_of(4)))
        one = np.arange(K) % 3 == 0
        assert np.array_equal(np.isnan(values(a.erase(one))), np.broadcast_to(one, (4, K)))
        many = np.random.default_rng(0).random((4, K)) < 0.3
        assert np.array_equal(np.isnan(values(a.erase(many))), many)
        assert np.array_equal(a.erase(many).missing, many.sum(1))
        assert np.array_equal(np.isnan(values(a.erase(many).erase(one))), many | one)

    @pytest.mark.parametrize(
        "entries",
        [
            -0.1,
            1.1,
            math.nan,
            "a",
            None,
            np.zeros(K),
            np.zeros(K - 1, dtype=bool),
            np.zeros((2, K), dtype=bool),
            [1],
        ],
    )
    def test_other_entries(self, entries):
        with pytest.raises(ValueError, match=r"entries (is|has)"):
            SKETCH.encode(x_of(4).numpy()).erase(entries)

    def test_nan_goes_through_sums(self, of):
        a, b = SKETCH.encode(of(x_of(4))), SKETCH.encode(of(x_of(4, 1)))
        one, other = np.arange(K) < 3, np.arange(K) > 20
        total = a.erase(one) + b.erase(other)
        assert np.array_equal(np.isnan(values(total)), np.broadcast_to(one | other, (4, K)))
        assert (total.missing == 6).all()

    def test_parts_give_back_the_whole(self, of):
        a = SKETCH.encode(of(x_of(6)))
        rng = np.random.default_rng(0)
        which = rng.integers(0, 3, a.shape)
        parts = [a.erase(which != k) for k in range(3)]
        whole = parts[0].merge(*parts[1:])
        assert np.array_equal(values(whole), values(a))
        assert type(whole.values) is type(a.values)
        assert np.array_equal(np.isnan(values(parts[0].merge(parts[1]))), which == 2)
        # Where they overlap, and where they are the same.
        assert np.array_equal(values(a.erase(0.4, seed=1).merge(a.erase(0.4, seed=2), a)), values(a))
        assert np.array_equal(values(a.merge()), values(a))

    def test_parts_that_conflict(self, of):
        a, b = SKETCH.encode(of(x_of(6))), SKETCH.encode(of(x_of(6, 1)))
        first, second = np.arange(K) < 10, np.arange(K) < 11
        with pytest.raises(ValueError, match="part has other values where both codes have one"):
            a.erase(first).merge(b.erase(~second))
        assert not np.isnan(values(a.erase(first).merge(b.erase(~first)))).any()
        for other in (2 * a, a + a, pr.Sketch(SOURCE, RUG, 4).encode(of(x_of(6)))):
            with pytest.raises(ValueError, match="allowed: parts of the same codes"):
                a.erase(first).merge(other)
        with pytest.raises(ValueError, match="other is a"):
            a.merge(values(a))


class TestMixture:
    def test_one_vector(self):
        one = pr.Mixture()
        assert one.single
        assert SKETCH.encode(x_of(2).numpy()).mixture == one
        assert (one.scaled(2).single, (one + one).single, one.scaled(-1).single) == (False, False, False)

    def test_sums_and_multiples(self):
        one = pr.Mixture(noise=0.01)
        for mixture, expected in (
            (one + one.scaled(3), (2, 4.0, 10.0, False, 0.1)),
            (one + one.scaled(-2), (2, -1.0, 5.0, True, 0.05)),
            ((one + one).scaled(0.5), (2, 1.0, 0.5, False, 0.005)),
        ):
            assert tuple(mixture.recipe().values()) == pytest.approx(expected)
        assert not (one + one).scaled(0.5).single
        assert pr.Mixture(**one.recipe()) == one

    def test_of_sums_of_rows(self):
        a = pr.Sketch(SOURCE, RUG, 4).encode(x_of(5).numpy())
        noise = a.mixture.noise
        assert noise > 0
        assert a.bits == 4
        total = (a - 2 * a).sum()
        assert tuple(total.mixture.recipe().values()) == pytest.approx((10, -5.0, 25.0, True, 25 * noise))
        # Sums are on no levels.
        assert total.bits is None
        assert (a[1:].bits, a.erase(0.5).bits, (2 * a).bits) == (4, 4, None)

    def test_it_is_hashable_and_equal_by_value(self):
        assert len({pr.Mixture(), pr.Mixture(1, 1.0), pr.Mixture(2)}) == 2


class TestDigest:
    def test_it_is_the_same_for_ever(self):
        assert pr.Codes(np.zeros((1, 24)), pr.Rug(96, 24)).digest == DIGEST

    def test_it_tells_recipes_apart_whatever_the_order(self):
        assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1})
        assert digest({"a": 1}) != digest({"a": 2})


def test_as_arrays(of):
    a = SKETCH.encode(of(x_of(3)))
    assert np.asarray(a).shape == a.shape == (3, K)
    assert np.asarray(a, dtype=np.float32).dtype == np.float32
    copy = np.array(a)
    copy[:] = 0
    assert values(a).any()


def test_what_they_look_like():
    a = pr.Sketch(SOURCE, RUG, 4).encode(x_of(3).numpy())
    assert repr(a) == "Codes(3 rows of Rug(n_sparse=96, n_dense=24, seed=0), 4 bits)"
    rows = "Codes(3 rows of Rug(n_sparse=96, n_dense=24, seed=0), "
    for codes, words in (
        (a + a, "sums of 2"),
        (0.5 * a, "times 0.5"),
        (-a, "times -1"),
        (2 * a[:3] / 2 + a, "sums of 2"),
        ((a + a) / 4, "sums of 2 times 0.25"),
        (a - a, "weighted sums of 2"),
        (a + 3 * a, "weighted sums of 2"),
    ):
        assert repr(codes) == f"{rows}{words})"
    assert repr(a.sum() / 3) == "Codes(1 rows of Rug(n_sparse=96, n_dense=24, seed=0), sums of 3 times 0.333333)"


def test_they_are_pickled(of):
    a = SKETCH.encode(of(x_of(3))).erase(0.2)
    again = pickle.loads(pickle.dumps(a))
    assert np.array_equal(values(again), values(a), equal_nan=True)
    assert (again.digest, again.mixture, again.bits) == (a.digest, a.mixture, a.bits)
