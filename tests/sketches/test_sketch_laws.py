"""Laws of sketches against measurement for rows, sums, differences, rounded and missing entries."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr
from persianrug.sources import sum_of
from tests.sketches.helpers.sketches import DECODERS, KINDS, SOURCES
from tests.sources.helpers import rows_of


def law_of(sketch, mixture, kept=None):
    """The law by which a sketch decodes codes of a mixture."""
    source = sketch.source
    if not mixture.single:
        source = sum_of(source, mixture.terms, mixture.weight, mixture.power, signed=mixture.signed)
    return sketch._model(mixture, kept or sketch.rug.n_dense).law(source)


def agrees(sketch, codes, rows, allowed, kept=None):
    """Whether what rows lose is what the law says, within 4 standard errors and a share for a finite n."""
    losses = np.square(sketch.decode(codes) - rows).mean(axis=1)
    law = law_of(sketch, codes.mixture, kept)
    error = 4 * losses.std(ddof=1) / math.sqrt(len(losses)) + allowed * law
    # What is recovered is recovered.
    scale = np.square(rows).mean()
    if law < 1e-9 * scale:
        # Of so few numbers some rows have more active features than can be.
        assert (losses < 1e-8 * scale).mean() > 0.9
    else:
        assert losses.mean() == pytest.approx(law, abs=error)


class TestLaws:
    @pytest.mark.parametrize("n", [512, 765])
    @pytest.mark.parametrize(("kind", "decoder"), KINDS)
    def test_rows_sums_differences_and_multiples(self, kind, decoder, n):
        source = SOURCES[kind](n, 0.03)
        sketch = pr.Sketch(source, pr.Rug.of_ratio(n, 0.25), decoder=decoder)
        x, y, z = (rows_of(source, 120, n, seed) for seed in range(3))
        a, b, c = map(sketch.encode, (x, y, z))
        # To 1 / n_dense, and the shape of the sums' amplitudes.
        agrees(sketch, a, x, 0.02)
        agrees(sketch, a + b + c, x + y + z, 0.05)
        if n == 512:
            agrees(sketch, a + b, x + y, 0.05)
            agrees(sketch, 3 * a, 3 * x, 0.05)
            agrees(sketch, -0.5 * a, -0.5 * x, 0.05)
        # Of numbers around 1 the difference has two humps, which a normal law knows nothing of: up to 25%.
        agrees(sketch, a - b, x - y, 0.05 if decoder == "linear" or kind == "signed" else 0.25)

    @pytest.mark.parametrize("n", [512, 765])
    @pytest.mark.parametrize(("kind", "decoder"), KINDS)
    def test_missing_entries(self, kind, decoder, n):
        source = SOURCES[kind](n, 0.03)
        sketch = pr.Sketch(source, pr.Rug.of_ratio(n, 0.25), decoder=decoder)
        x, y = (rows_of(source, 120, n, seed) for seed in (0, 1))
        k = sketch.rug.n_dense
        step = round(0.02 * k)
        for share in (0.1, 0.3):
            lost = round(share * k)
            kept = k - round(lost / step) * step
            agrees(sketch, sketch.encode(x).erase(share), x, 0.06, kept)
        agrees(sketch, (sketch.encode(x) + sketch.encode(y)).erase(0.3), x + y, 0.06, kept)

    @pytest.mark.parametrize("bits", [4, 8, 12])
    @pytest.mark.parametrize(("kind", "decoder"), KINDS)
    def test_rounded_entries(self, kind, decoder, bits):
        n = 765 if bits == 8 else 512
        source = SOURCES[kind](n, 0.03)
        sketch = pr.Sketch(source, pr.Rug.of_ratio(n, 0.3), bits, decoder)
        x, y = (rows_of(source, 150, n, seed) for seed in (0, 1))
        a, b = sketch.encode(x), sketch.encode(y)
        # Above the threshold what oamp loses is what rounding left, whose size differs from row to row.
        agrees(sketch, a, x, 0.1 if decoder == "oamp" else 0.03)
        agrees(sketch, a + b, x + y, 0.1 if decoder == "oamp" else 0.05)

    @pytest.mark.parametrize("kind", SOURCES)
    def test_oamp_below_its_threshold(self, kind):
        n = 1024
        source = SOURCES[kind](n, 0.05)
        sketch = pr.Sketch(source, pr.Rug.of_ratio(n, 0.08), decoder="oamp")
        x = rows_of(source, 150, n)
        assert law_of(sketch, pr.Mixture()) > 1e-3
        agrees(sketch, sketch.encode(x), x, 0.1)

    @pytest.mark.parametrize("bits", [None, 4])
    @pytest.mark.parametrize(("kind", "decoder"), KINDS)
    def test_the_law_on_rows(self, kind, decoder, bits):
        # Whatever amplitudes they have: here they are not those of the source, and rows differ in their number.
        n = 512
        source = SOURCES[kind](n, 0.04)
        sketch = pr.Sketch(
            source, pr.Rug.of_ratio(n, 0.12 if decoder == "oamp" and bits is None else 0.3), bits, decoder
        )
        rng = np.random.default_rng(0)
        # Rounding is made for the energies of the source, and what is far beyond them is cut.
        x = rows_of(source, 150, n) ** 2 * rng.choice([0.5, 1.0, 1.5], (150, 1)) if bits is None else (
            rows_of(source, 150, n) * rng.choice([0.6, 0.8, 1.0], (150, 1))
        )  # fmt: skip
        losses = np.square(sketch.decode(sketch.encode(x)) - x).mean(axis=1)
        law = sketch.law_on(x)
        stderr = losses.std(ddof=1) / math.sqrt(len(losses))
        assert law == pytest.approx(losses.mean(), abs=3 * stderr + (0.1 if decoder == "oamp" else 0.04) * law)
        assert law == sketch.law_on(x)
        assert law == pytest.approx(sketch.law_on(scipy.sparse.csr_array(x)), rel=1e-9)
        assert law == pytest.approx(sketch.law_on(x, seed=1), abs=3 * stderr)
        with pytest.raises(ValueError, match="rows has shape"):
            sketch.law_on(x[:, :5])

    def test_the_law_on_rows_of_the_source_is_the_law(self):
        for kind, decoder in KINDS:
            if decoder in ("linear", "bayes"):
                # It knows nothing of how this rug's strongest features meet, which the law does.
                source = SOURCES[kind](1024, 0.05)
                sketch = pr.Sketch(source, pr.Rug(1024, 256), 6, decoder)
                assert sketch.law_on(rows_of(source, 400, 1024)) == pytest.approx(sketch.law(), rel=0.06)

    def test_every_bit_is_of_use_and_12_are_like_floats(self):
        source = SOURCES["one-sided"](256, 0.03)
        laws = [pr.Sketch(source, pr.Rug(256, 64), bits).law() for bits in (1, 2, 4, 8, 12, None)]
        assert (np.diff(laws) < 0).all()
        assert laws[-2] == pytest.approx(laws[-1], rel=1e-5)

    def test_the_law_is_the_mean_of_the_losses(self):
        for kind, decoder in KINDS:
            source = SOURCES[kind](256, 0.05)
            sketch = pr.Sketch(source, pr.Rug(256, 64), 6, decoder)
            losses = sketch.losses()
            assert losses.shape == (256,)
            assert losses.mean() == pytest.approx(sketch.law(), rel=1e-6)
            # Features that are often active lose more.
            assert losses[:16].mean() > losses[-64:].mean()

    @pytest.mark.parametrize("n", [2, 3, 16, 21])
    @pytest.mark.parametrize("kind", SOURCES)
    def test_as_many_numbers_as_features_lose_nothing(self, kind, n):
        source = SOURCES[kind](n, 0.4)
        x, y = (rows_of(source, 20, n, seed) for seed in (0, 1))
        for decoder in DECODERS[kind]:
            sketch = pr.Sketch(source, pr.Rug(n, n), decoder=decoder)
            assert sketch.law() < 1e-12
            a, b = sketch.encode(x), sketch.encode(y)
            assert sketch.decode(a) == pytest.approx(x, abs=1e-6)
            assert sketch.decode(a - 2 * b) == pytest.approx(x - 2 * y, abs=1e-5)

    @pytest.mark.parametrize("decoder", DECODERS["one-sided"])
    @pytest.mark.parametrize("bits", [None, 1, 8])
    def test_the_least_codes(self, decoder, bits):
        # One number for two features, and for many.
        for n in (2, 3, 64):
            source = SOURCES["one-sided"](n, 0.4)
            sketch = pr.Sketch(source, pr.Rug(n, 1), bits, decoder)
            x = rows_of(source, 30, n)
            codes = sketch.encode(x)
            for some in (codes, codes + codes, codes - codes, codes.erase(1.0)):
                x_hat = sketch.decode(some)
                assert x_hat.shape == x.shape
                assert np.isfinite(x_hat).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_of_features_that_go_together_are_rounded_for_their_energies(bits):
    """Of two factors energies differ as those of two features do, and not as those of 256."""
    factors = np.random.default_rng(0).standard_normal((2, 256))
    known = pr.Covariance(np.zeros(256), factors, np.full(256, 0.01))
    source = pr.SparseGaussian(np.full(256, 0.999), scale=np.sqrt(known.variance))
    rows, lost = known.sample(4000, seed=1), {}
    for name, covariance in (("by default", known), ("of one size", replace(known, energies=np.ones(1)))):
        sketch = pr.Sketch(source, pr.Rug(256, 128), bits, "lmmse", covariance=covariance)
        lost[name] = np.square(sketch.decode(sketch.encode(rows)) - rows).mean(), sketch.law()
    assert lost["by default"][0] == pytest.approx(lost["by default"][1], rel=0.1)
    assert lost["by default"][0] < 0.7 * lost["of one size"][0]
