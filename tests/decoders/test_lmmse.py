"""The decoder that knows a covariance: against the formula, its law against measurement, erasures, any batch."""

import numpy as np
import pytest
import torch

import persianrug as pr
from tests.sources.test_covariance import made, matrix

N = 60


def encoders():
    generator = torch.Generator().manual_seed(0)
    return [
        pr.Rug(64, 20, seed=1),
        pr.Rug(N, 20, seed=1),
        pr.Dense(torch.randn(20, N, generator=generator, dtype=torch.float64)),
        pr.Gaussian(N, 20, seed=1),
    ]


def by_formula(covariance, encoder, z, noise=0.0, kept=slice(None)):
    a = encoder.W_in().numpy()[kept]
    c = matrix(covariance)
    gain = c @ a.T @ np.linalg.inv(a @ c @ a.T + noise * np.eye(len(a)))
    x_hat = covariance.mean + (z[:, kept] - covariance.mean @ a.T) @ gain.T
    return x_hat, np.diag(c - gain @ a @ c)


@pytest.mark.parametrize("encoder", encoders(), ids=str)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.3])
class TestFormula:
    def test_estimate_and_law(self, encoder, flat, noise):
        covariance = made(encoder.n_sparse, 4, flat=flat)
        channel = pr.Channel(noise=noise)
        decoder = pr.LMMSE(covariance)
        z = torch.from_numpy(covariance.sample(7, seed=1)) @ encoder.W_in().T
        expected, losses = by_formula(covariance, encoder, z.numpy(), noise**2)
        found = decoder.decode(z, encoder, channel=channel).numpy()
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)
        assert decoder.law_of(covariance, encoder, channel) == pytest.approx(losses, rel=1e-6, abs=1e-9)

    def test_law_of_other_features(self, encoder, flat, noise):
        """Features that the decoder does not expect, and are not Gaussian: the law still is exact."""
        covariance, source = made(encoder.n_sparse, 3, flat=flat), pr.SparseUniform(0.4)
        model = pr.Autoencoder(encoder, pr.LMMSE(covariance), channel=pr.Channel(noise=noise))
        result = model.measure(source, samples=8000, seed=3, dtype=torch.float64)
        assert model.law(source) == pytest.approx(result.loss, abs=4 * result.stderr)

    def test_a_row_alone_and_others(self, encoder, flat, noise):
        decoder, channel = pr.LMMSE(made(encoder.n_sparse, 3, flat=flat)), pr.Channel(noise=noise)
        z = torch.randn(5, 3, encoder.n_dense, dtype=torch.float64)
        found = decoder.decode(z, encoder, channel=channel)
        for place in np.ndindex(5, 3):
            alone = decoder.decode(z[place][None], encoder, channel=channel)[0]
            torch.testing.assert_close(found[place], alone, rtol=1e-9, atol=1e-9)
        single = decoder.decode(z.float(), encoder, channel=channel)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flat", [False, True])
class TestErasures:
    def test_entries_that_are_missing_are_left_out(self, flat):
        encoder, covariance = pr.Rug(64, 24, seed=0), made(64, 4, flat=flat)
        decoder, channel = pr.LMMSE(covariance), pr.Channel(noise=0.1, erasures=0.25)
        z = covariance.sample(6, seed=1) @ encoder.W_in().numpy().T
        gone = np.random.default_rng(0).random(z.shape) < 0.3
        # One row has all, and one has none.
        gone[0], gone[1] = False, True
        holed = torch.from_numpy(np.where(gone, np.nan, z))
        found = decoder.decode(holed, encoder, channel=channel).numpy()
        assert found[1] == pytest.approx(covariance.mean)
        for row in (0, 2, 3, 4, 5):
            expected, _ = by_formula(covariance, encoder, z[row : row + 1], 0.01, ~gone[row])
            assert found[row] == pytest.approx(expected[0], rel=1e-8, abs=1e-8)

    def test_law(self, flat):
        encoder, covariance = pr.Rug(256, 64, seed=0), made(256, 4, flat=flat)
        model = pr.Autoencoder(encoder, pr.LMMSE(covariance), channel=pr.Channel(erasures=0.25))
        result = model.measure(covariance.sample(1500, seed=4), dtype=torch.float64)
        law = model.decoder.law_of(covariance, encoder, model.channel).mean()
        # Patterns differ, too.
        assert law == pytest.approx(result.loss, rel=0.01, abs=4 * result.stderr)


def test_of_independent_features_it_is_the_linear_decoder():
    source, encoder = pr.SparseUniform(0.1), pr.Rug(128, 40, seed=2)
    ours, linear = (pr.Autoencoder(encoder, kind).tune(source) for kind in (pr.LMMSE(), pr.Linear()))
    assert ours.law(source) == pytest.approx(linear.law(source), rel=1e-9)
    x = source.sample(20, 128, seed=0, dtype=torch.float64)
    torch.testing.assert_close(ours(x), linear(x))


def test_positive_estimates_lose_no_more_than_the_law():
    rng = np.random.default_rng(1)
    x = np.exp(rng.standard_normal((4000, 3)) @ rng.standard_normal((3, N)) * 0.5)
    from persianrug.sources import SecondMoments

    covariance = SecondMoments.of(x).covariance(5)
    encoder = pr.Rug(N, 15, seed=0)
    plain, positive = (
        pr.Autoencoder(encoder, pr.LMMSE(covariance, positive=kind)).measure(x, dtype=torch.float64)
        for kind in (False, True)
    )
    assert positive.loss < 0.99 * plain.loss
    # The rows' second moments, but for what the random matrix leaves out of them.
    law = pr.LMMSE(covariance, positive=True).law_of(covariance, encoder).mean()
    assert positive.loss < law


def test_gradients():
    encoder, decoder = pr.Rug(16, 6, seed=0), pr.LMMSE(made(16, 2))
    z = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: decoder.decode(z, encoder), z)


def test_it_is_saved(tmp_path):
    model = pr.Autoencoder(pr.Rug(64, 16, seed=3), pr.LMMSE(made(64, 3, flat=True), positive=True))
    model.save(tmp_path / "model.safetensors")
    again = pr.load(tmp_path / "model.safetensors")
    z = torch.randn(4, 16, dtype=torch.float64)
    torch.testing.assert_close(again.decode(z), model.decode(z), rtol=1e-4, atol=1e-4)
    assert again.decoder.positive
    assert again.decoder.covariance.flat


def test_misuse_is_refused():
    with pytest.raises(ValueError, match=r"^covariance is 3; allowed: a Covariance$"):
        pr.LMMSE(3)
    with pytest.raises(ValueError, match=r"^positive is 'yes'; allowed"):
        pr.LMMSE(made(4, 1), positive="yes")
    with pytest.raises(ValueError, match=r"^covariance is None; allowed to decode"):
        pr.LMMSE().decode(torch.zeros(1, 6), pr.Rug(16, 6))
    for use in (
        lambda: pr.Autoencoder(pr.Rug(16, 6), pr.LMMSE(made(4, 1))).tune(pr.SparseUniform(0.1)),
        lambda: pr.LMMSE(made(4, 1)).decode(torch.zeros(1, 6), pr.Rug(16, 6)),
        lambda: pr.LMMSE(made(16, 1)).law_of(made(4, 1), pr.Rug(16, 6)),
        lambda: pr.Sketch(pr.SparseUniform(0.1), pr.Rug(16, 6), decoder="lmmse", covariance=made(4, 1)),
    ):
        with pytest.raises(ValueError, match=r"^covariance is of 4 features; allowed with .*: 16$"):
            use()
