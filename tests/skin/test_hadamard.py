import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.skin import SignedHadamard, hadamard
from persianrug.skin.paley import BASES, paley, size_for, sylvester

SIZES = [1, 2, 3, 7, 12, 13, 24, 33, 40, 100, 192, 300, 1000]


@pytest.fixture(params=["compiled", "products"])
def way(request, monkeypatch):
    """With Numba, and without."""
    if request.param == "products":
        monkeypatch.setattr(hadamard, "_kernels", lambda: None)
    return request.param


def matrix(n):
    size, base = size_for(n)
    return np.kron(paley(base), sylvester(size // base)).astype(np.int64)


@pytest.mark.parametrize("base", BASES)
def test_paleys_matrices_are_hadamard_and_skew(base):
    h = paley(base).astype(int)
    assert set(np.unique(h)) <= {-1, 1}
    assert (h @ h.T == base * np.eye(base)).all()
    if base > 1:
        assert (h + h.T == 2 * np.eye(base)).all()


def test_sylvesters_matrix_is_the_parity_of_common_bits():
    i = np.arange(32)
    parity = np.array([[bin(a & b).count("1") % 2 for b in i] for a in i])
    assert (sylvester(32) == 1 - 2 * parity).all()


def test_sizes():
    found = [size_for(n) for n in (1, 3, 4096, 4097, 5000, 5121, 6145, 12288, 12289, 20480, 65536)]
    assert found == [(1, 1), (4, 1), (4096, 1), (5120, 20), (5120, 20), (6144, 12), (8192, 1), (12288, 12),
                     (16384, 1), (20480, 20), (65536, 1)]  # fmt: skip
    # Never more than a third is padded from nine numbers on.
    assert all(size_for(n)[0] <= 4 * n / 3 for n in range(9, 3000))


@pytest.mark.parametrize("n", SIZES)
def test_integers_are_the_matrix_times_the_signed_numbers(n, way):
    transform = SignedHadamard(n, seed=5)
    x = np.random.default_rng(n).integers(-(10**5), 10**5, n).astype(np.int32)
    padded = np.zeros(transform.size, dtype=np.int64)
    padded[transform.columns] = x * transform.signs.astype(np.int64)
    z = transform.integers(x)
    assert z.dtype == np.int32
    assert (z == matrix(n) @ padded).all()


@pytest.mark.parametrize("n", [4096, 12288, 5000])
def test_large_transforms_are_orthogonal(n, way):
    # H H' = N I, by what it does to integers: exact in 64 bits.
    size, base = size_for(n)
    x = np.random.default_rng(1).integers(-40, 40, size).astype(np.int32)
    z = x.copy()
    hadamard.transform_(z, base)
    hadamard.transform_(z, base, transposed=True)
    assert (z == size * x).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [*SIZES, 4096, 12288, 5000])
def test_adjoint_is_the_transpose(n, dtype, way):
    draw = np.random.default_rng(n)
    transform = SignedHadamard(n, seed=3)
    rows = transform.rows(draw.permutation(transform.size)[: n // 3 + 1])
    x, z = draw.normal(size=n).astype(dtype), draw.normal(size=n // 3 + 1).astype(dtype)
    y, back = rows.forward(x), rows.adjoint(z)
    assert (y.dtype, back.dtype, back.shape) == (dtype, dtype, (n,))
    close = 20 * np.finfo(dtype).eps * np.linalg.norm(x) * np.linalg.norm(z)
    assert abs(y.astype(float) @ z - back.astype(float) @ x) < close
    if n <= 1000:
        a = matrix(n)[np.ix_(rows.places, transform.columns)] * transform.signs / transform.size**0.5
        np.testing.assert_allclose(y, a @ x, atol=1e2 * np.finfo(dtype).eps)
        np.testing.assert_allclose(back, a.T @ z, atol=1e2 * np.finfo(dtype).eps)


def test_all_rows_undo_themselves():
    transform = SignedHadamard(3000, seed=1)
    x = np.random.default_rng(0).normal(size=3000)
    np.testing.assert_allclose(
        transform.adjoint(transform.forward(x, transform.size), transform.size), x, atol=1e-12
    )


def test_the_same_seed_makes_the_same_transform_for_ever():
    transform = SignedHadamard(4096, seed=7)
    assert transform.signs[:16].tolist() == PINNED_SIGNS
    assert transform.order[:8].tolist() == PINNED_ORDER
    assert sorted(transform.order) == sorted(transform.columns) == list(range(4096))
    assert transform.columns[:8].tolist() == PINNED_COLUMNS
    assert SignedHadamard(12288, seed=7).order[:8].tolist() == PINNED_LONG
    assert abs(transform.signs.mean()) < 0.05
    assert (SignedHadamard(4096, seed=8).signs != transform.signs).any()


def test_rows_are_nested():
    transform = SignedHadamard(500, seed=2)
    x = np.random.default_rng(0).normal(size=500)
    short, long = transform.forward(x, 50), transform.forward(x, 400)
    assert (long[:50] == short).all()
    assert (transform.forward(x, np.arange(40, 60))[:10] == short[40:]).all()


@given(st.lists(st.integers(-3, 70), min_size=1, max_size=10))
def test_entries_are_checked(entries):
    transform = SignedHadamard(64)
    if len(set(entries)) == len(entries) and 0 <= min(entries) <= max(entries) < 64:
        assert (transform.rows(np.array(entries)).places == transform.order[entries]).all()
    else:
        with pytest.raises(ValueError, match=r"entries are .*; allowed: "):
            transform.rows(np.array(entries))


def test_bad_arguments_are_named():
    transform = SignedHadamard(64)
    for call, message in {
        lambda: SignedHadamard(0): "n is 0; allowed: an integer from 1 to 65536",
        lambda: SignedHadamard(65537): "n is 65537; allowed: ",
        lambda: SignedHadamard(4, -1): "seed is -1; allowed: ",
        lambda: transform.rows(65): "entries is 65; allowed: an integer from 1 to 64",
        lambda: transform.rows(np.array([0.5])): "entries is .* of float64; allowed: integers",
        lambda: transform.forward(
            np.zeros(63), 4
        ): r"x is an array of shape \(63,\) of float64; allowed: .*\(64,\)",
        lambda: transform.forward(np.zeros(64, int), 4): "x is .* of int64; allowed: .* float32 or float64",
        lambda: transform.adjoint([0.0] * 4, 4): "z is .*; allowed: an array",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_equality_and_words():
    assert SignedHadamard(5, 1) == SignedHadamard(5, 1) != SignedHadamard(5, 2)
    assert len({SignedHadamard(5, 1), SignedHadamard(5, 1)}) == 1
    assert repr(SignedHadamard(5, 1)) == "SignedHadamard(n=5, seed=1)"
    assert repr(SignedHadamard(5, 1).rows(2)) == "Rows of SignedHadamard(n=5, seed=1), k=2"


def test_without_numba_all_works():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from persianrug.skin import SkinEncoder\nimport numpy as np\n"
        "print(SkinEncoder(100, 8).encode(np.arange(100))[0].values.tolist())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    from persianrug.skin import SkinEncoder

    assert ran.stdout.strip() == str(SkinEncoder(100, 8).encode(np.arange(100))[0].values.tolist())


PINNED_SIGNS = [-1, -1, 1, -1, 1, 1, 1, -1, 1, -1, 1, -1, 1, 1, -1, 1]
PINNED_COLUMNS = [4095, 2150, 1189, 74, 1756, 714, 3021, 1443]
PINNED_ORDER = [1143, 3333, 3178, 3048, 2480, 3346, 2578, 1521]
PINNED_LONG = [8353, 8063, 11943, 9584, 1015, 12142, 3205, 6118]
