"""Networks as they are made: what goes in, and what is refused."""

import math

import pytest
import torch

from persianrug.networks.network import Network


def network_of(n_sparse, n_dense, seed=0):
    generator = torch.Generator().manual_seed(seed)
    W_in = torch.randn(n_dense, n_sparse, generator=generator)
    return Network(W_in, W_in.T.clone(), torch.zeros(n_sparse))


def test_weights_the_wrong_way_round_are_refused():
    assert network_of(4, 4).n_dense == 4
    with pytest.raises(
        ValueError, match=r"W_in has shape \(5, 4\); allowed: .* n_dense <= n_sparse; are W_in and"
    ):
        network_of(4, 5)


@pytest.mark.parametrize("call", ["encode", "__call__"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e38])
def test_vectors_of_nothing_are_refused(call, bad):
    network = network_of(8, 4)
    x = torch.ones(5, 8)
    x[3, 2] = bad
    for given in (x, x.numpy(), x.double().requires_grad_()):
        with pytest.raises(ValueError, match=r"x holds (NaN or infinity|sizes up to 1e\+38); allowed: "):
            getattr(network, call)(given)
    x[3, 2] = 1e30
    assert bool(getattr(network, call)(x).isfinite().all())
