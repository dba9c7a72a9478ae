"""Channels: noise, rounding and missing entries against Monte Carlo."""

import math

import pytest
import torch

import persianrug as pr
from persianrug.rounding import normal_quantiser


def normal(rows, columns=256, seed=0, dtype=torch.float64):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def near(values, expected, errors=4.5, least=0.0):
    """Whether the mean of independent values is the expected one, within standard errors."""
    return abs(float(values.mean()) - expected) < errors * float(values.std()) / math.sqrt(values.numel()) + least


def test_one_bit_is_the_sign():
    one = normal_quantiser(1)
    assert one.variance == pytest.approx(math.pi / 2 - 1, rel=1e-12)
    # Whatever the step is: two levels, which read E|g| / alpha = 1 of a normal variable.
    assert 0.5 * one.step * math.sqrt(2 / math.pi) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_rounding_makes_an_uncorrelated_error_of_the_said_variance(bits):
    g = normal(2000, seed=bits)
    channel = pr.Channel(bits=bits)
    rounded = channel.transmit(g)
    error = rounded - g
    assert len(rounded.unique()) <= 2**bits
    assert near(error, 0)
    assert near(error * g, 0)
    assert near(error.square(), normal_quantiser(bits).variance)
    assert channel.variance == normal_quantiser(bits).variance


@pytest.mark.parametrize(
    ("bits", "least", "most"), [(1, 3.5, 5.5), (2, 3.0, 4.2), (4, 3.0, 4.0), (8, 3.3, 4.0), (15, 3.5, 4.0)]
)
def test_every_bit_divides_the_error_by_about_four(bits, least, most):
    assert least < normal_quantiser(bits).variance / normal_quantiser(bits + 1).variance < most


@pytest.mark.parametrize(("bits", "error"), [(2, 0.1188), (3, 0.03744), (4, 0.01154)])
def test_the_levels_are_the_best_uniform_ones(bits, error):
    # Max (1960): distortion D of the best uniform quantiser of 2^bits levels, whose gain is 1 - D.
    assert normal_quantiser(bits).variance == pytest.approx(error / (1 - error), rel=2e-3)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("bits", [None, 1, 2, 5])
@pytest.mark.parametrize("scale", [1.0, 0.02, 40.0])
def test_the_variance_is_that_of_what_is_added(noise, bits, scale):
    channel = pr.Channel(noise * scale, bits, scale=scale)
    z = scale * normal(400, seed=1)
    error = channel.transmit(z, seed=2) - z
    if noise or bits:
        assert near(error.square() / scale**2, channel.variance / scale**2)
    else:
        assert channel.variance == 0
        assert torch.equal(error, torch.zeros_like(error))
    assert near(error * z / scale**2, 0, least=1e-300)


def test_noise_and_rounding_add_up():
    channel = pr.Channel(0.6, 3, scale=0.8)
    # What is rounded has variance 0.36 + 0.64.
    assert channel.variance == pytest.approx(0.36 + normal_quantiser(3).variance, rel=1e-12)
    assert pr.Channel(0.6).variance == pytest.approx(0.36)
    assert pr.Channel(erasures=0.5).variance == 0


def test_the_levels_are_about_the_centre():
    channel = pr.Channel(bits=2, scale=0.5)
    z, centre = 0.5 * normal(64), torch.linspace(-3, 7, 256, dtype=torch.float64)[None]
    assert torch.allclose(channel.transmit(z + centre, centre), channel.transmit(z) + centre, atol=1e-12)
    assert not torch.allclose(channel.transmit(z + centre), channel.transmit(z) + centre, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "channel",
    [pr.Channel(), pr.Channel(0.1), pr.Channel(bits=3), pr.Channel(erasures=0.3), pr.Channel(0.1, 3, 0.3, 2.0)],
    ids=["clear", "noise", "bits", "erasures", "all"],
)
def test_codes_that_went_in_are_left_and_those_that_come_out_reproducible(channel, dtype):
    z = normal(16, 40, dtype=dtype)
    before = z.clone()
    out = channel.transmit(z, seed=7)
    assert out.data_ptr() != z.data_ptr()
    assert torch.equal(z, before)
    assert (out.dtype, out.shape) == (dtype, z.shape)
    assert torch.equal(out.nan_to_num(nan=99.0), channel.transmit(z, seed=7).nan_to_num(nan=99.0))
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(out.nan_to_num(nan=99.0), channel.transmit(z, seed=generator).nan_to_num(nan=99.0))
    if channel.noise or channel.erasures:
        assert not torch.equal(out.nan_to_num(nan=99.0), channel.transmit(z, seed=8).nan_to_num(nan=99.0))
        assert not torch.equal(out.nan_to_num(nan=99.0), channel.transmit(z, seed=generator).nan_to_num(nan=99.0))
    assert channel.clear == torch.equal(out, z)


@pytest.mark.parametrize(("erasures", "kept"), [(0.0, 40), (0.1, 36), (0.33, 27), (0.974, 1)])
def test_as_many_entries_as_said_go_missing_at_random(erasures, kept):
    channel = pr.Channel(erasures=erasures)
    assert channel.kept(40) == kept
    z = normal(4000, 40)
    out = channel.transmit(z, seed=3)
    missing = out.isnan()
    assert (missing.sum(1) == 40 - kept).all()
    assert torch.equal(out[~missing], z[~missing])
    share = 1 - kept / 40
    # At every place alike, and at pairs of places as often as without replacement.
    spread = 5 * math.sqrt(share * (1 - share) / 4000) + 1e-12
    assert (missing.double().mean(0) - share).abs().max() < spread
    both = (missing[:, :-1] & missing[:, 1:]).double().mean().item()
    assert both == pytest.approx(share * (share * 40 - 1) / 39, abs=5 * math.sqrt(share / (4000 * 39)) + 1e-12)


def test_erasing_everything_is_refused():
    for transmit in (lambda c: c.kept(4), lambda c: c.transmit(torch.ones(2, 4))):
        with pytest.raises(
            ValueError, match=r"erasures is 0\.9, which leaves none of n_dense 4 .*; allowed: less"
        ):
            transmit(pr.Channel(erasures=0.9))
    assert pr.Channel(erasures=0.8).kept(4) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("noise", bad) for bad in (-0.1, math.nan, math.inf, "x", None)],
        *[("bits", bad) for bad in (0, 17, -1, 2.5, "3")],
        *[("erasures", bad) for bad in (1, -0.1, math.nan, 1.5, None)],
        *[("scale", bad) for bad in (0, -1.0, math.nan, math.inf)],
    ],
)
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        pr.Channel(**{name: value})


def test_recipe_and_spread():
    channel = pr.Channel(0.1, 3, 0.2, 2.0)
    assert pr.Channel(**channel.recipe()) == channel
    spread = channel.spread_for(9.0)
    assert (spread.noise, spread.bits, spread.erasures, spread.scale) == (0.1, 3, 0.2, 3.0)
    assert pr.Channel(**spread.recipe()) == spread
    assert channel.spread_for(0.0) == channel
    # Without rounding there are no levels.
    assert pr.Channel(0.1, None, 0.2, 2.0).spread_for(9.0) == pr.Channel(0.1, None, 0.2, 3.0)
