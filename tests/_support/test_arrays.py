"""One line of every object, however many numbers it holds; and devices that are not waited for."""

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.decoders import DECODERS
from persianrug.encoders.energy import energy
from persianrug.networks import Training, train
from persianrug.sketches.rows import open_rows
from persianrug.sources import FeatureMoments

N = 765
P = pr.zipf_rates(N, 0.05)
SOURCE = pr.SparseUniform(P)
RUG = pr.Rug(N, 100)
X = SOURCE.sample(100, N, seed=0, dtype=torch.float64).numpy()


def profile():
    fitter = pr.ProfileFitter(N)
    fitter.add(X)
    return fitter.profile([f"gene {place}" for place in range(N)])


def rows(folder):
    np.save(folder / "a.npy", X)
    return open_rows(folder / "a.npy")


OBJECTS = {
    "fitted": lambda _: pr.SparseTruncatedNormal.fit(X),
    "half-normal": lambda _: pr.SparseHalfNormal(P),
    "moments": lambda _: FeatureMoments.of(X),
    "profile": lambda _: profile(),
    "sketch": lambda _: pr.Sketch(pr.SparseTruncatedNormal.fit(X), RUG),
    "plan": lambda _: pr.make_plan(profile(), ratio=0.25, decoder="linear")[0],
    **{
        name: lambda _, kind=kind: pr.Autoencoder(RUG, kind()).tune(SOURCE)
        for name, kind in DECODERS.items()
        if name != "topk"
    },
    "gains": lambda _: pr.Autoencoder(RUG, pr.ReLU(), P, gains=1 + P),
    "energy": lambda _: energy(SOURCE, 0.01),
    "view": lambda _: pr.knots.pair().views(pr.SparseUniform(0.1), 0.1)[0],
    "step": lambda _: next(pr.OAMP(pr.SparseUniform(0.1)).steps(torch.ones(4, 16), pr.Rug(64, 16))),
    "trained": lambda _: train(Training(8, 2, pr.SparseUniform(0.05), steps=5, batch=16)),
    "rows": rows,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_one_line(name, tmp_path):
    text = repr(OBJECTS[name](tmp_path))
    assert "\n" not in text
    assert len(text) < 360
    assert "array(" not in text
    assert text.count("(") == text.count(")")


def test_what_is_in_the_line():
    assert repr(pr.SparseUniform(p=0.045)) == "SparseUniform(p=0.045, scale=1.0)"
    assert repr(pr.SparseUniform(p=[0.001, 0.3, 0.2])) == "SparseUniform(p=[0.001 to 0.3], scale=1.0, 3 features)"
    assert repr(pr.ReLU(1.5, -0.25)) == "ReLU(gain=1.5, bias=-0.25)"
    assert repr(pr.ReLU(np.ones(5), -0.25)) == "ReLU(gain=[1 to 1], bias=-0.25, 5 features)"
    assert repr(pr.Empirical(0.1, [1.0, 2.0])) == "Empirical(p=0.1)"
    assert repr(pr.Autoencoder(pr.Rug(4, 2), pr.Linear(), [0.0, 0.5, 0.0, 0.25])) == (
        "Autoencoder(encoder=Rug(n_sparse=4, n_dense=2, seed=0), decoder=Linear(gain=1.0, bias=0.0), "
        "mean=[0 to 0.5], channel=Channel(noise=0.0, bits=None, erasures=0.0, scale=1.0), gains=1.0)"
    )


def test_formulas_fit_in_a_line():
    for kind in (pr.Bayes, pr.OAMP):
        formula = pr.Autoencoder(RUG, kind()).tune(SOURCE).decoder.formula()
        assert "\n" not in formula
        assert len(formula) < 120
        assert f"SparseUniform(p=[{P.min():.4g} to 1], scale=1.0, 765 features)" in formula


def test_other_devices_are_not_waited_for():
    # This one has no numbers at all: looking at one raises.
    model = pr.Autoencoder(pr.Rug(64, 16), pr.ReLU())
    x = torch.zeros(3, 64, device="meta")
    z = model.encode(x)
    assert model.decode(z).shape == model.encoder.estimate(z).shape == x.shape
