"""Transforms against dense matrices, and the properties that the rug needs of them."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from torch.autograd import forward_ad

from persianrug.encoders import transforms

LENGTHS = [2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 31, 64, 100, 128, 243, 765, 999, 1022, 1024]
DTYPES = {torch.float32: 3e-6, torch.float64: 1e-13}


def matrix(n):
    """The matrix of `forward`, written down entry by entry."""
    if transforms.is_power_of_two(n):
        return scipy.linalg.hadamard(n) / np.sqrt(n)
    j, rows = np.arange(n), [np.full(n, np.sqrt(1 / n))]
    for k in range(1, (n + 1) // 2):
        angle = 2 * np.pi * k * j / n
        rows += [np.sqrt(2 / n) * np.cos(angle), -np.sqrt(2 / n) * np.sin(angle)]
    if n % 2 == 0:
        rows.append((-1.0) ** j / np.sqrt(n))
    return np.array(rows)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_inverse_are_the_matrix_and_its_transpose(n, dtype):
    dense = torch.from_numpy(matrix(n)).to(dtype)
    eye = torch.eye(n, dtype=dtype)
    assert torch.allclose(dense @ dense.T, eye, atol=10 * DTYPES[dtype])
    assert torch.allclose(transforms.forward(eye), dense.T, atol=DTYPES[dtype])
    assert torch.allclose(transforms.inverse(eye), dense, atol=DTYPES[dtype])


@pytest.mark.parametrize("n", [2, 3, 8, 999, 5000, 8191, 8192, 65536])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dot_test_norm_and_round_trip(n, dtype):
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(2, 3, n, generator=generator, dtype=dtype)
    tolerance = DTYPES[dtype] * 10
    forward = (transforms.forward(x) * y).sum(-1)
    assert torch.allclose(forward, (x * transforms.inverse(y)).sum(-1), atol=tolerance * n**0.5)
    assert torch.allclose(transforms.forward(x).norm(dim=-1), x.norm(dim=-1), rtol=tolerance)
    assert torch.allclose(transforms.inverse(transforms.forward(x)), x, atol=tolerance)


@pytest.mark.parametrize("n", [2, 64, 2048, 8192])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_matrix_products_equal_the_fast_kernel(n, dtype):
    pytest.importorskip("fht_cpu", reason="fht-cpu has no wheel for this platform")
    x = torch.randn(5, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        transforms.hadamard(x), transforms._hadamard_products(x), atol=DTYPES[dtype] * 3 * n**0.5
    )


def test_threads_change_nothing():
    x = torch.randn(300, 4096, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(transforms.forward(x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("n", [2, 5, 6, 16, 999])
def test_without_the_fast_kernel_results_are_the_same(n, monkeypatch):
    x = torch.randn(4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = transforms.forward(x)
    monkeypatch.setattr(transforms, "fht_cpu", None)
    assert torch.allclose(transforms.forward(x), expected, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3, 6, 8])
@pytest.mark.parametrize("function", [transforms.forward, transforms.inverse])
@pytest.mark.parametrize("kernel", [True, False])
def test_gradients_of_first_and_second_order(n, function, kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr(transforms, "fht_cpu", None)
    x = torch.randn(2, n, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(lambda x: function(x).square(), x)


# PyTorch itself calls what it deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("n", [64, 300, 765, 1022, 2047])
@pytest.mark.parametrize("function", [transforms.forward, transforms.inverse])
def test_derivatives_of_every_kind(n, function):
    """Forward, by functional transforms and recorded: where those are asked for other kernels work."""
    x, tangent = torch.randn(2, 3, n, dtype=torch.float64)
    plain, along = function(x), function(tangent)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(function(forward_ad.make_dual(x, tangent)))
    for found, slope in (dual, torch.func.jvp(function, (x,), (tangent,))):
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(slope, along)
    other = transforms.inverse if function is transforms.forward else transforms.forward
    for gradient in (
        torch.func.grad(lambda rows: (function(rows) * tangent).sum())(x),
        torch.autograd.grad((function(x.requires_grad_()) * tangent).sum(), x)[0],
    ):
        torch.testing.assert_close(gradient, other(tangent))


@pytest.mark.parametrize("n", [64, 300, 765, 1022, 2047])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_alone_has_the_same_bits(n, dtype):
    x = torch.randn(7, n, dtype=dtype)
    for function in (transforms.forward, transforms.inverse):
        assert torch.equal(function(x), torch.stack([function(row) for row in x]))


@given(
    shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    n=st.integers(2, 40),
    step=st.sampled_from([1, 2, -1]),
    double=st.booleans(),
)
def test_any_batch_shape_and_stride_input_unchanged(shape, n, step, double):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(*shape, 2 * n)).astype(np.float64 if double else np.float32)
    x = base[..., : step * n : step] if step > 0 else base[..., :n][..., ::-1]
    before = base.copy()
    result = transforms.forward(x)
    assert isinstance(result, np.ndarray)
    assert result.shape == x.shape
    assert result.dtype == x.dtype
    assert np.array_equal(base, before)
    assert np.allclose(result, x @ matrix(n).T, atol=1e-5)


def test_tensors_of_any_stride_and_offset():
    base = torch.randn(9, 33, dtype=torch.float32, generator=torch.Generator().manual_seed(3))
    for x in (base[1:, 1:], base.T[:32].T, base[:, :1].expand(9, 16), base[::2, 1:17]):
        before = x.clone()
        expected = x.double() @ torch.from_numpy(matrix(x.shape[-1])).T
        assert torch.allclose(transforms.forward(x).double(), expected, atol=1e-5)
        assert torch.equal(x, before)


def test_arrays_of_every_layout_are_taken():
    still = np.ones((2, 8))
    still.flags.writeable = False
    packed = np.ones(2, dtype=[("tag", "i1"), ("x", "f8", (8,))])["x"]
    for x in (still, packed, np.ones((2, 8), dtype=">f8"), np.asfortranarray(np.ones((2, 8)))):
        assert np.allclose(transforms.forward(x)[:, 0], np.sqrt(8))


@pytest.mark.parametrize("n", LENGTHS)
def test_flat_groups_cover_and_are_flat(n):
    dense = matrix(n)
    singles, pairs = transforms.flat_groups(n)
    for group in [[row] for row in singles.tolist()] + pairs.tolist():
        energy = (dense[group] ** 2).sum(0)
        assert np.allclose(energy, len(group) / n, atol=1e-13)
    assert set(singles.tolist()) | set(pairs.flatten().tolist()) == set(range(n))


def test_rows_of_a_cosine_transform_are_not_flat():
    # Why the Fourier transform: the cosine transform's columns differ in norm on any subset of rows.
    n, n_dense = 999, 250
    rows = np.random.default_rng(0).permutation(n)[:n_dense]
    norms = (scipy.fft.dct(np.eye(n), norm="ortho", axis=0)[rows] ** 2).sum(0)
    assert norms.std() / norms.mean() > 0.02


@pytest.mark.parametrize(
    "x",
    [np.zeros((3, 1)), np.float64(1.0), np.zeros((2, 4), dtype=int), [1.0, 2.0],
     torch.zeros(4, dtype=torch.float16), torch.tensor(1.0), np.zeros((3, 0))],
)  # fmt: skip
def test_bad_input_is_refused(x):
    for function in (transforms.forward, transforms.inverse):
        with pytest.raises(ValueError, match=r"x (has|is) .*; allowed"):
            function(x)
