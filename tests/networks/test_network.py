"""Networks as they are made: what goes in, and what is refused."""

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
