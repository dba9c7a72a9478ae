"""Autoencoders on rugs, and features that differ."""

import numpy as np

import persianrug as pr


def model_of(source, n, ratio, kind=pr.ReLU, **arguments):
    return pr.Autoencoder(pr.Rug.of_ratio(n, ratio, **arguments), kind()).tune(source)


def differing(kind=pr.SparseUniform, n=64, p=0.1):
    return kind(pr.zipf_rates(n, p, 0.7), np.linspace(0.5, 2, n))
