"""Numbers that users give, where what is given is none: an error of one line, and never an array's content."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr
from persianrug._support import checks
from persianrug.decoders import relu_scaling
from persianrug.integrations.ddp import SketchState
from persianrug.knots import Knot, best, cross_polytope, line, nearest, pair, polygon, simplex
from persianrug.sweeps.sweep import Sweep

SOURCE = pr.SparseUniform(0.1)
ROWS = SOURCE.sample(64, 16, seed=0).numpy()
RUG = pr.Rug(16, 8)
MODEL = pr.Autoencoder(RUG, pr.ReLU()).tune(SOURCE)
OAMP = pr.Autoencoder(RUG, pr.OAMP()).tune(SOURCE)
SKETCH = pr.Sketch(pr.SparseUniform(np.full(16, 0.1)), RUG, decoder="relu")
CODES = SKETCH.encode(ROWS)
NETWORK = pr.networks.train(pr.networks.Training(16, 8, SOURCE, steps=1, batch=4)).network


def profile():
    fitter = pr.ProfileFitter(16)
    fitter.add(ROWS)
    return fitter.profile()


PROFILE = profile()
UNLIKE = pr.SparseUniform(np.full(16, 0.1))
EYE = np.eye(16)

# What takes one number; the last word is what messages call it.
TAKERS = {
    "mmse sigma": lambda x: SOURCE.mmse(x),
    "sample batch": lambda x: SOURCE.sample(x, 16),
    "sample n_sparse": lambda x: SOURCE.sample(2, x),
    "relu_bounds sigma": lambda x: pr.relu_bounds(SOURCE, x),
    "relu_scaling p": lambda x: relu_scaling(x, 0.5),
    "relu_scaling ratio": lambda x: relu_scaling(0.1, x),
    "noise_level ratio": lambda x: pr.noise_level(0.1, x),
    "noise_level variance": lambda x: pr.noise_level(x, 0.5),
    "zipf_rates n_sparse": lambda x: pr.zipf_rates(x, 0.1),
    "zipf_rates p": lambda x: pr.zipf_rates(8, x),
    "zipf_rates exponent": lambda x: pr.zipf_rates(8, 0.1, x),
    "Empirical p": lambda x: pr.Empirical(x, [1.0]),
    "Channel noise": lambda x: pr.Channel(noise=x),
    "Channel bits": lambda x: pr.Channel(bits=x),
    "Channel erasures": lambda x: pr.Channel(erasures=x),
    "Channel scale": lambda x: pr.Channel(scale=x),
    "spread_for variance": lambda x: pr.Channel().spread_for(x),
    "kept n_dense": lambda x: pr.Channel().kept(x),
    "Rug n_sparse": lambda x: pr.Rug(x, 8),
    "Rug n_dense": lambda x: pr.Rug(16, x),
    "Rug seed": lambda x: pr.Rug(16, 8, x),
    "of_ratio n_sparse": lambda x: pr.Rug.of_ratio(x, 0.5),
    "of_ratio ratio": lambda x: pr.Rug.of_ratio(16, x),
    "Gaussian n_sparse": lambda x: pr.Gaussian(x, 8),
    "Gaussian n_dense": lambda x: pr.Gaussian(16, x),
    "Gaussian seed": lambda x: pr.Gaussian(16, 8, x),
    "weave n_sparse": lambda x: pr.KnottedRug.weave(pair(), x, 8),
    "weave n_dense": lambda x: pr.KnottedRug.weave(pair(), 16, x),
    "weave seed": lambda x: pr.KnottedRug.weave(pair(), 16, 8, x),
    "KnottedRug count": lambda x: pr.KnottedRug([(pair(), x)], 8),
    "KnottedRug n_dense": lambda x: pr.KnottedRug([(pair(), 16)], x),
    "OAMP iterations": lambda x: pr.OAMP(iterations=x),
    "OAMP damping": lambda x: pr.OAMP(damping=x),
    "OAMP tolerance": lambda x: pr.OAMP(tolerance=x),
    "TopK k": lambda x: pr.TopK(k=x),
    "TopK gain": lambda x: pr.TopK(gain=x),
    "TopK bias": lambda x: pr.TopK(bias=x),
    "measure samples": lambda x: MODEL.measure(SOURCE, samples=x),
    "measure seed": lambda x: MODEL.measure(SOURCE, samples=2, seed=x),
    "measure rows samples": lambda x: MODEL.measure(ROWS, samples=x),
    "trace samples": lambda x: OAMP.trace(SOURCE, samples=x),
    "trace seed": lambda x: OAMP.trace(SOURCE, samples=2, seed=x),
    "W_rows start": lambda x: RUG.W_rows(x, 4),
    "W_rows stop": lambda x: RUG.W_rows(0, x),
    "line k": lambda x: line(x),
    "polygon k": lambda x: polygon(x),
    "simplex k": lambda x: simplex(x),
    "cross_polytope d": lambda x: cross_polytope(x),
    "knot law sigma": lambda x: pair().law(SOURCE, x),
    "knot views sigma": lambda x: pair().views(SOURCE, x),
    "knot noise ratio": lambda x: pair().noise(SOURCE, x),
    "knot fits ratio": lambda x: pair().fits(x),
    "knots best ratio": lambda x: best(SOURCE, x),
    "Training n_sparse": lambda x: pr.networks.Training(x, 8, SOURCE),
    "Training n_dense": lambda x: pr.networks.Training(16, x, SOURCE),
    "Training seed": lambda x: pr.networks.Training(16, 8, SOURCE, seed=x),
    "Training steps": lambda x: pr.networks.Training(16, 8, SOURCE, steps=x),
    "Training batch": lambda x: pr.networks.Training(16, 8, SOURCE, batch=x),
    "Training hidden": lambda x: pr.networks.Training(16, 8, SOURCE, hidden=x),
    "Training patience": lambda x: pr.networks.Training(16, 8, SOURCE, patience=x),
    "Training importance": lambda x: pr.networks.Training(16, 8, SOURCE, importance=x),
    "Training learning_rate": lambda x: pr.networks.Training(16, 8, SOURCE, learning_rate=x),
    "Training epsilon": lambda x: pr.networks.Training(16, 8, SOURCE, epsilon=x),
    "Training.of_ratio ratio": lambda x: pr.networks.Training.of_ratio(16, x, SOURCE),
    "Training.paper n_sparse": lambda x: pr.networks.Training.paper(x, 8, SOURCE),
    "search p": lambda x: pr.networks.search(x, 0.5, budget=0.01),
    "search ratio": lambda x: pr.networks.search(0.1, x, budget=0.01),
    "search budget": lambda x: pr.networks.search(0.1, 0.5, budget=x),
    "Network.measure samples": lambda x: NETWORK.measure(SOURCE, samples=x),
    "Network.measure seed": lambda x: NETWORK.measure(SOURCE, samples=2, seed=x),
    "measure_symmetry samples": lambda x: pr.measure_symmetry(EYE, EYE, samples=x),
    "measure_symmetry seed": lambda x: pr.measure_symmetry(EYE, EYE, seed=x),
    "ProfileFitter n_sparse": lambda x: pr.ProfileFitter(x),
    "ProfileFitter seed": lambda x: pr.ProfileFitter(16, x),
    "Sketch bits": lambda x: pr.Sketch(SOURCE, RUG, bits=x),
    "laws_on seed": lambda x: SKETCH.laws_on(ROWS, x),
    "make_plan ratio": lambda x: pr.make_plan(PROFILE, ratio=x),
    "make_plan n_dense": lambda x: pr.make_plan(PROFILE, n_dense=x),
    "make_plan target_loss": lambda x: pr.make_plan(PROFILE, target_loss=x),
    "make_plan bits": lambda x: pr.make_plan(PROFILE, ratio=0.5, bits=x),
    "make_plan seed": lambda x: pr.make_plan(PROFILE, ratio=0.5, seed=x),
    "Sketcher ratio": lambda x: pr.Sketcher(x).fit(ROWS),
    "Sketcher n_dense": lambda x: pr.Sketcher(n_dense=x).fit(ROWS),
    "Sketcher bits": lambda x: pr.Sketcher(0.5, bits=x).fit(ROWS),
    "Sketcher seed": lambda x: pr.Sketcher(0.5, seed=x).fit(ROWS),
    "Mixture terms": lambda x: pr.Mixture(terms=x),
    "Mixture weight": lambda x: pr.Mixture(weight=x),
    "Mixture power": lambda x: pr.Mixture(power=x),
    "Mixture noise": lambda x: pr.Mixture(noise=x),
    "Codes factor": lambda x: CODES / x,
    "Codes bits": lambda x: pr.Codes(CODES.values, RUG, bits=x),
    "erase seed": lambda x: CODES.erase(0.5, x),
    "SketchState ratio": lambda x: SketchState(ratio=x),
    "SketchState seed": lambda x: SketchState(seed=x),
    "SketchState start_iter": lambda x: SketchState(start_iter=x),
    "Sweep batch": lambda x: Sweep(p=0.1, ratio=0.5, batch=x),
    "Sweep samples": lambda x: Sweep(p=0.1, ratio=0.5, samples=x),
}

NUMBERS = {
    "array": np.full(3000, 0.5),
    "array of one": np.array([1]),
    "list": [0.5] * 2000,
    "ragged list": [[1], [2, 3]],
    "text": "x" * 500,
    "text array": np.array("0.5"),
    "complex": 1j,
    "bool": True,
    "NumPy's bool": np.bool_(True),
    "tensor": torch.full((2000,), 0.5),
    "tensor of one": torch.tensor([1]),
    "complex tensor": torch.tensor(1j),
    "tensor without content": torch.empty((), device="meta"),
    "dict": {"a": 1},
    "sparse matrix": scipy.sparse.csr_array(np.eye(3)),
    "masked": np.ma.masked,
    "structured": np.zeros((), dtype=[("a", "f8")])[()],
    "object": object(),
    "NaN": math.nan,
}


def message(take, value):
    """What is said of a value: one short line that says what is allowed, as no other library does."""
    with pytest.raises(ValueError, match="; allowed") as caught:
        take(value)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300
    return said


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_number_is_refused_by_name(taker):
    for value in NUMBERS.values():
        assert taker.split()[-1] in message(TAKERS[taker], value)
    # Where integers are due, and where they are not, this is beyond.
    if taker != "measure rows samples":
        assert taker.split()[-1] in message(TAKERS[taker], 10**6000)


# What takes a number or one a feature, and other arrays of numbers.
ARRAY_TAKERS = {
    "p": pr.SparseUniform,
    "scale": lambda x: pr.SparseConstant(0.1, x),
    "loc": lambda x: pr.SparseGaussian(0.1, 1.0, x),
    "loc above -10": lambda x: pr.SparseTruncatedNormal(0.1, 1.0, x),
    "mean": lambda x: pr.Autoencoder(RUG, pr.ReLU(), mean=x),
    "gains": lambda x: pr.Autoencoder(RUG, pr.ReLU(), gains=x),
    "gain": pr.ReLU,
    "threshold": lambda x: pr.ProLU(1.0, x),
    "sigma of Bayes": lambda x: pr.Bayes(SOURCE, x),
    "factor": UNLIKE.scaled,
    "estimate": lambda x: RUG.estimate(np.zeros((2, 8)), x),
    "importance of a law": lambda x: MODEL.law(SOURCE, x),
    "importance of a measurement": lambda x: MODEL.measure(SOURCE, samples=2, importance=x),
    "importance of a network": lambda x: NETWORK.measure(SOURCE, samples=2, importance=x),
    "importance of gains": lambda x: pr.encoder_gains(UNLIKE, RUG, pr.ReLU(), x),
    "values": lambda x: pr.Empirical(0.1, x),
    "weights": lambda x: pr.Empirical(0.1, np.arange(1.0, 17), x),
    "posterior": lambda x: SOURCE.posterior(np.ones(16), x),
    "posterior of y": lambda x: SOURCE.posterior(x, 0.1),
    "tune": lambda x: pr.ReLU().tune(SOURCE, x),
    "risk": lambda x: pr.ReLU().risk(SOURCE, x),
    "risk of Bayes": lambda x: pr.Bayes().risk(SOURCE, x),
    "risk of JumpReLU": lambda x: pr.JumpReLU().risk(SOURCE, x),
    "risk of Linear": lambda x: pr.Linear().risk(SOURCE, x),
    "risk of SoftThreshold": lambda x: pr.SoftThreshold().risk(SOURCE, x),
    "matrix": lambda x: Knot("a", x),
    "readout": lambda x: Knot("a", np.ones((1, 2)), x),
    "entries": CODES.erase,
    "nearest p": lambda x: nearest(x, 0.5),
    "centre": lambda x: pr.Channel(bits=2).transmit(torch.zeros(2, 8), x),
    "Sweep": lambda x: Sweep(p=x, ratio=0.5),
    "dtype": lambda x: MODEL.measure(SOURCE, samples=2, dtype=x),
    "dtype of rows": lambda x: MODEL.measure(ROWS, dtype=x),
    "dtype of a sample": lambda x: SOURCE.sample(2, 2, dtype=x),
    "dtype of W": RUG.W,
    "device": lambda x: MODEL.measure(SOURCE, samples=2, device=x),
    "decoder": lambda x: pr.make_plan(PROFILE, ratio=0.5, decoder=x),
    "activation": lambda x: pr.networks.Training(16, 8, SOURCE, activation=x),
}
ARRAYS = {
    "ragged list": [[1], [2, 3]],
    "texts": ["0.5"] * 16,
    "dict": {"a": 1},
    "complex": np.full(16, 0.5 + 0j),
    "complex tensor": torch.full((16,), 0.5 + 1j),
    "bools": np.full(16, True),
    "masked": np.ma.masked_array(np.full(16, 0.5), np.arange(16) < 3),
    "masked nowhere": np.ma.masked_array(np.full(16, 0.5)),
    "objects": np.array([None] * 16),
    "structured": np.zeros(16, dtype=[("a", "f8")]),
    "sparse matrix": scipy.sparse.csr_array(np.eye(16)),
    "sparse tensor": torch.eye(16).to_sparse(),
    "without content": torch.empty(16, device="meta"),
}


@pytest.mark.parametrize("taker", ARRAY_TAKERS)
def test_what_are_no_numbers_is_refused(taker):
    for name, value in ARRAYS.items():
        if (taker, name) not in {
            ("entries", "bools"),
            ("posterior of y", "without content"),
            ("centre", "without content"),
        }:
            message(ARRAY_TAKERS[taker], value)


def test_numbers_of_any_kind_are_numbers():
    for half in (0.5, Fraction(1, 2), np.float32(0.5), np.array(0.5), torch.tensor(0.5), np.float64(0.5)):
        assert pr.Channel(noise=half) == pr.Channel(noise=0.5)
        assert SOURCE.mmse(half) == SOURCE.mmse(0.5)
        assert pr.ReLU(half) == pr.ReLU(0.5)
    for two in (2, np.int8(2), np.array(2), torch.tensor(2), np.uint64(2)):
        assert pr.Rug(16, 8, two) == pr.Rug(16, 8, 2)
        assert pr.Channel(bits=two) == pr.Channel(bits=2)
    halves = [0.5] * 16
    for given in (halves, tuple(halves), np.float16(halves), torch.tensor(halves, dtype=torch.bfloat16)):
        assert pr.SparseUniform(given) == pr.SparseUniform(np.full(16, 0.5))
        assert pr.Empirical(0.1, [1.0] * 16, given) == pr.Empirical(0.1, [1.0] * 16)


def test_values_in_messages_are_short():
    assert checks.shown(np.zeros((3, 4))) == "an array of shape (3, 4)"
    assert checks.shown(np.float32(0.5)) == "0.5"
    assert checks.shown(torch.tensor(3)) == "3"
    assert checks.shown(2**200) == str(2**200)
    assert checks.shown(10**6000) == "an integer of 19932 bits"
    assert checks.shown("a\nb") == "'a\\nb'"
    assert len(checks.shown("x" * 1000)) == len(checks.shown([[1.5] * 99] * 99)) == 80
    with pytest.raises(ValueError, match=re.escape("loc is -20; allowed: from -10 to 10000 times scale, here 1")):
        pr.SparseTruncatedNormal(np.full(500, 0.1), 1.0, np.full(500, -20.0))
