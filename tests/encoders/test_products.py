"""Rugs of few rows, by products with a matrix: what the transform makes, in every respect."""

import pytest
import torch

import persianrug as pr
from persianrug.encoders import transforms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_sparse", "n_dense"), [(64, 16), (100, 25), (243, 60), (765, 191), (8192, 20)])
def test_products_with_the_matrix_equal_the_transform(n_sparse, n_dense, dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    rug = pr.Rug(n_sparse, n_dense, seed=1)
    x = torch.randn(2, 3, n_sparse, dtype=dtype, generator=generator, requires_grad=True)
    z = torch.randn(2, 3, n_dense, dtype=dtype, generator=generator, requires_grad=True)
    assert rug._matrix(x) is not None

    def made(rug):
        out = rug.encode(x), rug.readout(z), rug.adjoint(z)
        gradients = torch.autograd.grad(sum(part.square().sum() for part in out), (x, z))
        return *out, *gradients, rug.encode(x[0, 0]), rug.readout(z[:0])

    products = made(rug)
    monkeypatch.setattr(transforms, "dense_is_faster", lambda *_: False)
    transform = made(pr.Rug(n_sparse, n_dense, seed=1))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for one, same in zip(products, transform, strict=True):
        assert one.dtype == same.dtype == dtype
        size = max([1.0, *same.detach().abs().flatten().tolist()])
        assert torch.allclose(one, same, rtol=0, atol=tolerance * size)


def test_a_matrix_made_without_gradients_bears_them_later():
    rug = pr.Rug(100, 25)
    x = torch.ones(3, 100)
    with torch.inference_mode():
        rug.encode(x)
    x.requires_grad_()
    rug.encode(x).sum().backward()
    assert torch.allclose(x.grad, rug.W_in(torch.float32).sum(0).expand(3, 100), atol=1e-6)


def test_products_of_lower_precision_are_not_made():
    rug = pr.Rug(100, 25)
    x = torch.ones(3, 100)
    with torch.autocast("cpu", torch.bfloat16):
        z = rug.encode(x)
    assert z.dtype == torch.float32
    assert torch.allclose(z, rug.encode(x), atol=1e-5)
