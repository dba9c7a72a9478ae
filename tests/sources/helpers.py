"""Sources that tests of several files take, and rows of them."""

import numpy as np
import torch

import persianrug as pr
from tests.conftest import EVERY_SOURCE

# Normal amplitudes from nearly exponential ones to those that hardly vary.
EVERY_NORMAL = {
    "truncated-at-10": lambda p: pr.SparseTruncatedNormal(p, 2.0, -20.0),
    "truncated-at-2": lambda p: pr.SparseTruncatedNormal(p, 1.0, -2.0),
    "truncated+0.7": lambda p: pr.SparseTruncatedNormal(p, 1.0, 0.7),
    "truncated+5": lambda p: pr.SparseTruncatedNormal(p, 0.5, 2.5),
    "truncated+20": lambda p: pr.SparseTruncatedNormal(p, 1.0, 20.0),
    "gaussian-3": lambda p: pr.SparseGaussian(p, 1.0, -3.0),
    "gaussian+8": lambda p: pr.SparseGaussian(p, 0.5, 4.0),
}
# From amplitudes that hardly vary to those of which one in a thousand is two thousand times the median.
EVERY_LOGNORMAL = {
    "lognormal 0.05": lambda p: pr.SparseLogNormal(p, 1.0, 0.05),
    "lognormal 1": lambda p: pr.SparseLogNormal(p, 2.0, 1.0),
    "lognormal 2.5": lambda p: pr.SparseLogNormal(p, 1.0, 2.5),
}
ALL_SOURCES = EVERY_SOURCE | EVERY_NORMAL | EVERY_LOGNORMAL

SIGMAS = [1e-9, 1e-4, 0.03, 0.049999, 0.050001, 0.2, 1.0, 30.0, 1e3]


# Of these every parameter may differ between features.
P, SCALE, LOC, SHAPE = (
    np.array([0.02, 0.1, 0.3, 0.7, 1.0]),
    np.array([0.5, 1.0, 2.0, 1.0, 3.0]),
    np.array([-2, 0, 1, 5, 0.3]),
    np.array([0.2, 0.5, 1.0, 0.02, 0.8]),
)
EVERY_ARRAY = {
    "uniform, p": lambda: pr.SparseUniform(P),
    "uniform": lambda: pr.SparseUniform(P, SCALE),
    "exponential, scale": lambda: pr.SparseExponential(0.2, SCALE),
    "exponential": lambda: pr.SparseExponential(P, SCALE),
    "half-normal": lambda: pr.SparseHalfNormal(P, SCALE),
    "truncated-normal, loc": lambda: pr.SparseTruncatedNormal(0.3, 1.0, LOC),
    "truncated-normal": lambda: pr.SparseTruncatedNormal(P, SCALE, LOC),
    "gaussian": lambda: pr.SparseGaussian(P, SCALE, LOC),
    "lognormal": lambda: pr.SparseLogNormal(P, SCALE, SHAPE),
    "lognormal, shape": lambda: pr.SparseLogNormal(0.3, 1.0, SHAPE),
    "constant": lambda: pr.SparseConstant(P, SCALE),
    "constant, p": lambda: pr.SparseConstant(P, 2.0),
}


def rows_of(source, rows, n_sparse, seed=0, dtype=torch.float64):
    return source.sample(rows, n_sparse, seed=seed, dtype=dtype).numpy()
