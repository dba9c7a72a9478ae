"""Equality and hash by content, of everything that holds arrays."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr
from persianrug.decoders.oamp import OAMP
from persianrug.encoders.energy import mean_energy
from persianrug.sources.moments import FeatureMoments

N, U = 8, pr.SparseUniform
ROWS = np.array(
    [[0.0, 1, 2, 0, 3, 0, 1, 0], [1, 0, 0, 2, 0, 3, 0, 1], [0, 0, 1, 1, 0, 2, 0, 0], [2, 0, 0, 0, 1, 0, 1, 1]]
)
W_IN = np.eye(N)[:4] + 0.1


def network(scale=1.0):
    return pr.networks.Network(
        torch.tensor(W_IN), scale * torch.tensor(W_IN).T.contiguous(), torch.zeros(N).double()
    )


def profile(rows=ROWS):
    return pr.Profile(pr.SparseGaussian.fit(rows), 4, scipy.sparse.csr_array(rows), np.array([1.0, 0.5]))


# A way to make each, and one that differs in an array.
PAIRS = {
    "gains": (lambda c: pr.Autoencoder(pr.Rug(N, 4), pr.ReLU(), gains=np.full(N, c)), 1.0, 2.0),
    "mean": (lambda c: pr.Autoencoder(pr.Rug(N, 4), pr.ReLU(), mean=np.full(N, c)), 1.0, 2.0),
    "parameters": (lambda c: pr.Autoencoder(pr.Rug(N, 4), pr.ReLU(np.full(N, c), 0.0)), 1.0, 2.0),
    "dense": (lambda c: pr.Dense(c * W_IN), 1.0, 2.0),
    "readout": (lambda c: pr.Dense(W_IN, W_IN.T + c), 0.0, 1.0),
    "gaussian": (lambda c: pr.Gaussian(N, 4, c), 0, 1),
    "rug": (lambda c: pr.Rug(N, 4, c), 0, 1),
    "knotted": (lambda c: pr.KnottedRug.weave(pr.knots.pair(), N, 4, c), 0, 1),
    "knot": (lambda c: pr.Knot("a", [[c, -1.0]], None), 1.0, 2.0),
    "found": (lambda c: pr.knots.Found(pr.Knot("a", [[c, -1.0]], None), 0.1, 0.5, 1.0, 2.0, "how"), 1.0, 2.0),
    "view": (lambda c: pr.knots.View(np.array([0.0, 1.0]), np.full((3, 2), c)), 1.0, 2.0),
    "channel": (lambda c: pr.Channel(noise=c), 0.1, 0.2),
    "source": (lambda c: pr.SparseUniform(np.full(N, c)), 0.1, 0.2),
    "empirical": (lambda c: pr.Empirical(0.1, [c, 3.0]), 1.0, 2.0),
    "moments": (lambda c: FeatureMoments.of(ROWS * c), 1.0, 2.0),
    "energy": (lambda c: mean_energy(pr.SparseUniform(c), 4), 0.1, 0.2),
    "evolution": (lambda c: OAMP(U(c)).state_evolution(U(c), pr.Rug(N, 4)), 0.1, 0.2),
    "network": (network, 1.0, 2.0),
    "profile": (lambda c: profile(ROWS * c), 1.0, 2.0),
    "sketch": (lambda c: pr.Sketch(pr.SparseUniform(np.full(N, c)), pr.Rug(N, 4)), 0.1, 0.2),
    "training": (lambda c: pr.networks.Training(N, 4, pr.SparseUniform(c)), 0.1, 0.2),
    "symmetry": (lambda c: pr.measure_symmetry(c * W_IN.T, W_IN, None, pr.SparseUniform(0.1)), 1.0, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_what_holds_arrays_is_equal_by_content(name):
    make, one, other = PAIRS[name]
    assert make(one) == make(one)
    assert hash(make(one)) == hash(make(one))
    assert make(one) != make(other)
    assert make(one) != "another kind"
    assert len({make(one), make(one), make(other)}) == 2


def test_measurements_are_equal_by_their_numbers():
    parts = {"loss": 1.0, "stderr": 0.1, "samples": 8, "microseconds_per_vector": 1.0, "recovered": 0.0}
    one, other = (pr.Measurement(**parts, losses=np.full(N, c)) for c in (1.0, 2.0))
    assert one == other
    assert hash(one) == hash(other)
    assert one != dataclasses.replace(one, loss=2.0)


def test_equal_things_have_equal_hashes_whatever_they_are_stored_as():
    zero = pr.Autoencoder(pr.Rug(N, 4), pr.ReLU(), mean=np.zeros(N))
    minus = pr.Autoencoder(pr.Rug(N, 4), pr.ReLU(), mean=-np.zeros(N))
    assert zero == minus
    assert hash(zero) == hash(minus)
    sketch = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(N, 4))
    used = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(N, 4))
    used.law()
    assert sketch == used
    assert hash(sketch) == hash(used)
