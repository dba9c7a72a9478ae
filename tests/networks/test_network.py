"""Networks as they are made: what goes in, and what is refused."""

import math

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug._support.tensors import write_tensors
from persianrug.networks.network import FORMAT, Network


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


def test_networks_of_earlier_versions_may_be_wide(tmp_path):
    W_in = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4)))
    tensors = {"W_in": W_in, "W_out": W_in.T.contiguous(), "bias": torch.zeros(4, dtype=torch.float64)}
    config = {"activation": "relu", "residual": False, "recipe": {}}
    write_tensors(tmp_path / "n.safetensors", FORMAT, 1, config, tensors)
    network = pr.load(tmp_path / "n.safetensors")
    assert network.n_dense == 5
    x = torch.ones(3, 4, dtype=torch.float64)
    assert torch.allclose(network(x), torch.relu(x @ W_in.T @ W_in))
    source = pr.SparseUniform(0.1)
    assert torch.allclose(network.autoencoder(source)(x), network(x))
    network.save(tmp_path / "again.safetensors")
    assert pr.load(tmp_path / "again.safetensors") == network


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
