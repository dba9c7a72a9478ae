"""Codes of features in groups: laws against measurements, of decoders that know the groups and that do not."""

import dataclasses
import time

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.encoders.energy import energy

UNIFORM = pr.SparseUniform(0.045)


def within(result, law, part):
    return abs(result.loss - law) <= 4 * result.stderr + part * law


@pytest.mark.parametrize(("size", "limit"), [(2, 0.003077), (4, 0.001859), (8, 0.001305)])
def test_the_group_posterior_loses_what_its_law_says(size, limit):
    source = pr.Groups(UNIFORM, size)
    model = pr.Autoencoder(pr.Rug.of_ratio(8192, 0.25), pr.Bayes()).tune(source)
    assert model.limit(source) == pytest.approx(limit, rel=1e-3)
    started = time.process_time()
    law = model.law(source)
    assert time.process_time() - started < 20
    assert within(model.measure(source, samples=256), law, 0.01)
    # What is known of single features alone loses as much as without groups.
    alone = pr.Autoencoder(model.encoder, pr.Bayes()).tune(UNIFORM)
    assert alone.limit(source) == pytest.approx(alone.limit(UNIFORM), rel=1e-9)
    assert within(alone.measure(source, samples=256), alone.law(source), 0.01)


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("kind", [pr.Linear, pr.ReLU, pr.JumpReLU, pr.TopK])
def test_decoders_of_single_features(kind, size):
    source = pr.Groups(UNIFORM, size)
    for n, samples, part in ((8192, 256, 0.01), (1024, 4096, 0.03)):
        model = pr.Autoencoder(pr.Rug.of_ratio(n, 0.25), kind()).tune(source)
        assert model.decoder == pr.Autoencoder(model.encoder, kind()).tune(UNIFORM).decoder
        assert within(model.measure(source, samples=samples), model.law(source), 0 if kind is pr.Linear else part)
        assert model.limit(source) == model.limit(UNIFORM)


@pytest.mark.parametrize(("n", "ratio", "p"), [(512, 0.25, 0.045), (1024, 0.25, 0.045), (512, 0.1, 0.01)])
def test_small_codes_of_groups_have_energies_that_differ_more(n, ratio, p):
    single = pr.SparseUniform(p)
    source = pr.Groups(single, 8)
    model = pr.Autoencoder(pr.Rug.of_ratio(n, ratio), pr.ReLU()).tune(source)
    result = model.measure(source, samples=8192)
    assert within(result, model.law(source), 0.03)
    assert model.law(source) - model.limit(source) > 2 * (model.law(single) - model.limit(single))


def test_energies_of_groups():
    source, n = pr.Groups(UNIFORM, 8), 4096
    # Of an encoder of Gaussian entries.
    spread = energy(source, 3 / n)
    energies = (source.sample(4096, n, seed=0, dtype=torch.float64) - source.mean).square().mean(1).numpy()
    mean = float(spread.weights @ spread.nodes)
    deviation = float(spread.weights @ (spread.nodes - mean) ** 2) ** 0.5
    assert mean == pytest.approx(source.variance, rel=1e-9)
    assert deviation == pytest.approx(energies.std(), rel=0.05)
    third = float(spread.weights @ (spread.nodes - mean) ** 3) / deviation**3
    assert third == pytest.approx(
        float(((energies - energies.mean()) ** 3).mean()) / energies.std() ** 3, abs=0.15
    )


def test_features_that_differ():
    source = pr.Groups(pr.SparseUniform(pr.zipf_rates(256, 0.045).repeat(8)), 8)
    for kind in (pr.ReLU, pr.Bayes):
        model = pr.Autoencoder(pr.Rug.of_ratio(2048, 0.25), kind()).tune(source)
        started = time.process_time()
        law = model.law(source)
        assert time.process_time() - started < 20
        assert within(model.measure(source, samples=1000), law, 0.02)
    model = pr.Autoencoder(model.encoder, pr.OAMP()).tune(source)
    assert model.law(source) < 1e-12
    assert model.measure(source, samples=32, dtype=torch.float64).recovered == 1


class TestOAMP:
    @pytest.mark.parametrize(("size", "expected"), [(2, 0.0742), (4, 0.0478), (8, 0.0450)])
    def test_groups_lower_the_threshold(self, size, expected):
        assert pr.recovery_threshold(pr.Groups(UNIFORM, size)) == pytest.approx(expected, abs=1e-4)

    def test_a_code_that_only_groups_make_readable(self):
        source = pr.Groups(UNIFORM, 4)
        # In a Hadamard rug groups meet in so few numbers that a tenth of the vectors are lost.
        rug = pr.Rug.of_ratio(8000, 0.085)
        x = source.sample(24, 8000, seed=0, dtype=torch.float64)
        shares = []
        for known in (UNIFORM, source):
            model = pr.Autoencoder(rug, pr.OAMP()).tune(known)
            lost = (model.decode(model.encode(x)) - x).square().mean(1)
            shares.append(float((lost < 1e-6 * source.second_moment).double().mean()))
            evolution = model.decoder.state_evolution(source, rug)
            assert evolution.recovers == (known is source)
        assert shares == [0, 1]

    def test_every_iteration_is_predicted(self):
        source = pr.Groups(UNIFORM, 4)
        model = pr.Autoencoder(pr.Rug.of_ratio(8192, 0.15), pr.OAMP()).tune(source)
        predicted = model.decoder.state_evolution(source, model.encoder).trace
        measured = model.trace(source, samples=96).mean(axis=1)
        until = np.flatnonzero(predicted < 2e-4)[0]
        assert measured[:until] == pytest.approx(predicted[:until], rel=0.1)

    def test_a_row_is_as_it_is_alone(self):
        source = pr.Groups(pr.SparseGaussian(0.1), 4)
        for dtype, close in ((torch.float64, 1e-11), (torch.float32, 1e-3)):
            model = pr.Autoencoder(pr.Rug.of_ratio(256, 0.3), pr.OAMP(), channel=pr.Channel(noise=0.01)).tune(
                source
            )
            z = model.transmit(model.encode(source.sample(20, 256, seed=0, dtype=dtype)), 1)
            alone = torch.cat([model.decode(one[None]) for one in z])
            assert float((alone - model.decode(z)).abs().max()) < close

    def test_it_differentiates(self):
        source = pr.Groups(pr.SparseGaussian(0.3), 3)
        model = pr.Autoencoder(pr.Rug(12, 6), pr.OAMP(iterations=3, tolerance=1e-300)).tune(source)
        z = model.encode(source.sample(2, 12, seed=0, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(model.decode, z)


def test_a_prior_that_is_another_has_its_law():
    source, told = pr.Groups(UNIFORM, 4), pr.Groups(pr.SparseExponential(0.1, 0.4), 4)
    rug = pr.Rug.of_ratio(8192, 0.25)
    decoder = pr.Bayes().adapt(told, rug)
    model = dataclasses.replace(pr.Autoencoder(rug, decoder), mean=source.mean)
    assert within(model.measure(source, samples=256), model.law(source), 0.015)
    with pytest.raises(ValueError, match="prior has groups of 4; allowed"):
        model.law(UNIFORM)
    with pytest.raises(ValueError, match="prior has groups of 4; allowed with this source: of 2"):
        model.law(pr.Groups(UNIFORM, 2))
