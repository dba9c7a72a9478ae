"""Rounding: the levels, their offsets, and that laws of rounded codes are what is measured."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

import persianrug as pr
from persianrug.rounding import Quantiser, best_quantiser, code_quantiser, dither

ONE = np.ones(1)
SIGMA, SHARES = np.array([0.2, 0.9, 2.5]), np.array([0.5, 0.4, 0.1])


def mixture(rows, columns, seed):
    """Normal entries whose deviation is that of their row, of variance 1 on average."""
    random = np.random.default_rng(seed)
    deviations = random.choice(SIGMA, size=(rows, 1), p=SHARES) / math.sqrt(SHARES @ SIGMA**2)
    return torch.from_numpy(deviations * random.standard_normal((rows, columns)))


def quantiser(bits):
    return code_quantiser(bits, SIGMA / math.sqrt(SHARES @ SIGMA**2), SHARES)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8, 12])
def test_the_error_of_a_mixture_has_the_said_variance_and_is_uncorrelated(bits):
    z = mixture(4000, 1024, seed=bits)
    one = quantiser(bits)
    error = one.round(z, 0.0) - z
    # Entries of a row share its deviation: rows are independent.
    for values, expected in ((error.square(), one.variance), (error * z, 0.0)):
        means = values.mean(1)
        # Rows that are small beside a cell all have the error of these 1024 offsets.
        least = 0.03 * one.variance if bits >= 3 else 0.0
        assert abs(float(means.mean()) - expected) < 4.5 * float(means.std()) / math.sqrt(len(means)) + least
    assert len(one.round(z, 0.0)[:, 0].unique()) <= 2**bits


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_within_the_range_the_error_is_uniform_whatever_the_code(bits):
    one = code_quantiser(bits, ONE, ONE)
    # Two sizes only, as of a code of one active feature.
    signs = torch.from_numpy(np.random.default_rng(1).choice([-1.0, 1.0], size=4096))
    z = 0.37 * signs
    # The levels' stretch, which is for codes that are cut, is taken out.
    error = (one.round(z, 0.0) * (one.cell / one.step) - z) / one.cell
    assert error.abs().max() <= 0.5 + 1e-9
    assert kstest(error.numpy() + 0.5, "uniform").pvalue > 1e-3
    assert float((error * signs).mean()) == pytest.approx(0, abs=4 / math.sqrt(12 * 4096))


def test_cut_codes_are_cut_to_the_range():
    one = code_quantiser(3, ONE, ONE)
    reach = 7 * one.cell / 2
    far = one.round(torch.full((1, 512), 100.0, dtype=torch.float64), 0.0) * (one.cell / one.step)
    assert float(far.mean()) == pytest.approx(reach, abs=0.03 * one.cell)
    assert float((far - reach).abs().max()) <= one.cell / 2 + 1e-9


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_vectors_alike_in_energy_pay_little_for_dither(bits):
    least = best_quantiser(bits, ONE, ONE).variance
    assert least * 0.98 < code_quantiser(bits, ONE, ONE).variance < least * 1.05


@pytest.mark.parametrize("n_dense", [1, 2, 7, 64, 230, 2048])
def test_offsets_fill_a_cell_with_the_power_of_random_ones(n_dense):
    offsets = dither(n_dense)
    assert offsets.shape == (n_dense,)
    assert np.abs(offsets).max() <= 0.5
    if n_dense > 32:
        for order in range(1, 9):
            total = np.cos(2 * np.pi * order * offsets).sum()
            assert total**2 == pytest.approx(n_dense / 2, rel=0.1)
    # Shuffled: neighbours have nothing to do with each other.
    if n_dense > 1000:
        assert abs(np.corrcoef(offsets[1:], offsets[:-1])[0, 1]) < 4 / math.sqrt(n_dense)


def test_offsets_stay_as_they_are():
    # What was written is read again by every version and machine.
    assert dither(5) == pytest.approx(
        [0.2917996562756, 0.4827980726103, 0, -0.2917996562756, -0.4827980726103], abs=1e-12
    )


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_levels_lie_symmetrically_about_their_middle(bits):
    one = quantiser(bits).scaled(3.0)
    centre = np.linspace(-2.0, 5.0, 33)
    middle = one.middle(centre)
    # About the mean, to half a cell, however the levels are stretched.
    assert np.abs(middle - centre).max() <= one.step / 2 + 1e-9
    values = one.round(mixture(200, 33, 3) * 3 + torch.from_numpy(centre), torch.from_numpy(centre)).numpy()
    places = (values - middle) / one.step
    assert np.abs(places - np.floor(places) - 0.5).max() < 1e-9
    assert np.abs(places).max() <= 2 ** (bits - 1) - 0.5 + 1e-9


@pytest.mark.parametrize("field", ["cell", "step", "variance"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "x", None])
def test_bad_levels_are_refused(field, value):
    recipe = {"bits": 3, "cell": 1.0, "step": 1.0, "variance": 0.1, field: value}
    with pytest.raises(ValueError, match=f"^{field} is .*; allowed: "):
        pr.Channel(bits=3, levels=recipe)


@pytest.mark.parametrize("levels", [{"bits": 3}, {"other": 1}, Quantiser(4, 1.0, 1.0, 0.1), 7])
def test_levels_of_another_kind_are_refused(levels):
    with pytest.raises(ValueError, match=r"^levels .*; allowed"):
        pr.Channel(bits=3, levels=levels)


def off(model, source, samples, seed=0):
    """How far the measured loss is from the law, relative, and in standard errors."""
    law, result = model.law(source), model.measure(source, samples=samples, dtype=torch.float64, seed=seed)
    return result.loss / law - 1, (result.loss - law) / result.stderr


FEW = pr.SparseUniform(0.01), 256, 0.9
POINTS = [
    (pr.SparseUniform(0.045), 512, 0.25),
    (pr.SparseUniform(0.1), 512, 0.5),
    (pr.SparseExponential(0.02), 765, 0.4),
    FEW,
]


@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.Bayes, pr.OAMP], ids=lambda kind: kind.name)
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(("source", "n", "ratio"), POINTS, ids=lambda value: str(value))
def test_laws_of_rounded_codes(source, n, ratio, bits, kind):
    model = pr.Autoencoder(pr.Rug.of_ratio(n, ratio), kind(), channel=pr.Channel(bits=bits)).tune(source)
    relative, errors = off(model, source, samples=8192 if n == 256 else 2048)
    assert abs(relative) < 0.05 or abs(errors) < 3.5


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(
    "source", [pr.SparseUniform(0.01), pr.SparseUniform(0.045), pr.SparseExponential(0.1)], ids=str
)
def test_laws_of_rounded_codes_where_nothing_else_is_in_the_way(source, bits):
    model = pr.Autoencoder(pr.Rug(512, 512), pr.Bayes(), channel=pr.Channel(bits=bits)).tune(source)
    relative, errors = off(model, source, samples=8192)
    assert abs(relative) < 0.05 or abs(errors) < 3


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 8, 12])
def test_oamp_reads_rounded_codes_of_few_features_as_its_law_says(bits):
    source = pr.SparseUniform(0.001)
    model = pr.Autoencoder(pr.Rug.of_ratio(512, 0.5), pr.OAMP(), channel=pr.Channel(bits=bits)).tune(source)
    relative, errors = off(model, source, samples=16384)
    assert abs(relative) < 0.1 or abs(errors) < 3.5


def test_oamp_recovers_rare_gaussian_features_from_8_bits():
    source = pr.SparseGaussian(0.001)
    model = pr.Autoencoder(pr.Rug.of_ratio(8192, 0.5), pr.OAMP(), channel=pr.Channel(bits=8)).tune(source)
    relative, errors = off(model, source, samples=256)
    assert abs(relative) < 0.05 or abs(errors) < 3


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_sketches_round_as_channels_do(bits):
    source = pr.SparseUniform(0.05)
    rug = pr.Rug(256, 100)
    sketch = pr.Sketch(source, rug, bits)
    model = pr.Autoencoder(rug, pr.Bayes(), channel=pr.Channel(bits=bits)).tune(source)
    x = source.sample(50, 256, dtype=torch.float64)
    assert torch.equal(torch.as_tensor(sketch.encode(x).values), model.transmit(model.encode(x)))


def test_what_was_stored_before_there_was_dither_rounds_as_it_did():
    channel = pr.Channel(noise=0.0, bits=4, erasures=0.0, scale=0.3)
    one = best_quantiser(4, ONE, ONE).scaled(0.3)
    z = 0.3 * mixture(100, 32, seed=5)
    assert torch.equal(channel.transmit(z), one.round(z, 0.0))
    sketch = pr.Sketch(pr.SparseUniform(0.05), pr.Rug(256, 100), 8)
    recipe = sketch.recipe()
    del recipe["dithered"]
    old = pr.Sketch.from_recipe(recipe)
    assert not old.dithered
    assert not old.quantiser.dithered
    assert old.middle == pytest.approx(old.mean_code)
    assert pr.Sketch.from_recipe(sketch.recipe()).dithered
