"""Sketches of recorded pressure: smooth rows that follow each other, of sessions that were not fitted."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import persianrug as pr
from persianrug.sketches.hold_out import HoldOut
from persianrug.sketches.plan import losses
from persianrug.sketches.rows import open_rows

DATA = Path(__file__).parents[2] / "examples" / "data"


@cache
def frames(*names):
    return np.vstack([np.vstack(list(open_rows(DATA / f"{name}.npz").blocks())) for name in names]).astype(float)


@cache
def profile(*names):
    x = frames(*names)
    held, fitter = HoldOut("auto", len(x)), pr.ProfileFitter(x.shape[1])
    fitter.add(x, held.groups(0, x))
    assert held.kind == "blocks"
    return fitter.profile()


MATTRESS, INSOLES = (("mattress_0", "mattress_1"), "mattress_2"), (("insoles_0",), "insoles_1")


@pytest.mark.parametrize(
    ("session", "ratio", "decoder", "most"),
    [
        pytest.param(MATTRESS, 0.5, "cvamp", 3.8, marks=pytest.mark.slow),
        pytest.param(MATTRESS, 0.25, "cvamp", 11.0, marks=pytest.mark.slow),
        pytest.param(MATTRESS, 0.125, "lmmse", 19.5, marks=pytest.mark.slow),
        pytest.param(INSOLES, 0.5, "cvamp", 0.2, marks=pytest.mark.slow),
        (INSOLES, 0.25, "cvamp", 4.5),
        pytest.param(INSOLES, 0.125, "cvamp", 15.0, marks=pytest.mark.slow),
    ],
)
def test_a_session_that_was_not_fitted(session, ratio, decoder, most):
    fitted, other = session
    plan, sketch = pr.make_plan(profile(*fitted), ratio=ratio, bits=8)
    assert plan.decoder == decoder
    found = losses(sketch, frames(other)).mean()
    assert found < most
    assert abs(found - plan.loss) < 3 * plan.stderr


def test_a_session_read_by_covariance_alone():
    """What the mattress is read by at an eighth of the numbers, once `auto` has tried the slow ones, too."""
    fitted, other = MATTRESS
    plan, sketch = pr.make_plan(profile(*fitted), ratio=0.125, bits=8, decoder="lmmse")
    assert losses(sketch, frames(other)).mean() < min(19.5, plan.loss + 3 * plan.stderr)


def test_components_that_lose_less_are_said_to():
    """By the difference of both on the same blocks, each of which loses now more and now less."""
    plan, _ = pr.make_plan(profile("mattress_0"), ratio=0.125, bits=8, decoder="lmmse")
    assert plan.pca_is_better
    assert plan.pca_stderr < 0.4 * plan.stderr
    assert plan.pca_gain < 2 * plan.stderr


def test_the_law_is_exact_on_halves_of_a_session():
    """What rounding adds is all that the law does not know to the last digit.

    Of fewer bits than 6 the rows of most energy go beyond the levels, and lose more.
    """
    x = frames("mattress_0")
    x = x[np.random.default_rng(0).permutation(len(x))]
    fitter = pr.ProfileFitter(x.shape[1])
    fitter.add(x[:140], np.full(140, -1))
    covariance = fitter.profile().covariance(32)
    for bits in (None, 10, 8, 6):
        sketch = pr.Sketch(fitter.profile().source, pr.Rug(x.shape[1], 432), bits, "lmmse", covariance=covariance)
        law, measured = sketch.laws_on(x[140:]).mean(), losses(sketch, x[140:]).mean()
        assert measured == pytest.approx(law, rel=1e-9 if bits is None else 0.05)


@pytest.fixture(scope="module")
def sketch():
    return pr.make_plan(profile("insoles_0"), ratio=0.125, bits=8, decoder="lmmse")[1]


class TestStored:
    def test_a_file_has_the_covariance(self, sketch, tmp_path):
        codes = sketch.encode(frames("insoles_1"))
        with pr.RugWriter(tmp_path / "a.rug", sketch) as writer:
            writer.write(codes)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            again = reader.sketch
            found = again.decode(reader[:])
        assert again.covariance.rank == sketch.covariance.rank
        assert np.array_equal(again.covariance.factors, sketch.covariance.factors)
        # Codes are stored in single precision.
        assert found == pytest.approx(sketch.decode(codes), rel=1e-4, abs=1e-2)

    def test_other_decoders_read_the_same_codes(self, sketch):
        from dataclasses import replace

        # Codes that are not rounded do not know how they will be read.
        sketch = replace(sketch, bits=None)
        other = replace(sketch, decoder="oamp", covariance=None)
        x = frames("insoles_1")[:5]
        assert np.array_equal(other.encode(x).values, sketch.encode(x).values)
        assert np.array_equal(
            replace(sketch, decoder="oamp").decode(sketch.encode(x)), other.decode(sketch.encode(x))
        )

    def test_sums_and_missing_entries(self, sketch):
        x = frames("insoles_1")
        one, two = sketch.encode(x[:40]), sketch.encode(x[40:80])
        both = sketch.decode(one + two)
        assert np.square(both - x[:40] - x[40:80]).mean() < 3 * losses(sketch, x[:80]).mean()
        holed = sketch.decode(one.erase(0.2, seed=1))
        whole = np.square(sketch.decode(one) - x[:40]).mean()
        assert whole < np.square(holed - x[:40]).mean() < 4 * whole
        assert sketch.decode(one.erase(1.0))[0] == pytest.approx(
            np.broadcast_to(sketch.source.mean, x.shape[1]), rel=1e-9
        )


def test_a_profile_of_before_knows_no_covariance():
    from dataclasses import replace

    learned = profile("insoles_0")
    old = replace(learned, kept=replace(learned.kept, second=None))
    assert old.most_factors == 0
    assert pr.make_plan(old, ratio=0.25)[0].decoder != "lmmse"
    with pytest.raises(ValueError, match=r"^the profile was written before profiles knew"):
        pr.make_plan(old, ratio=0.25, decoder="lmmse")
    assert (learned + old).most_factors == 0


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_of_few_rows(rows):
    """Fewer than factors; of one nothing goes together."""
    fitter = pr.ProfileFitter(1910)
    fitter.add(frames("insoles_0")[40 : 40 + rows])
    plan, sketch = pr.make_plan(fitter.profile(), ratio=0.25, decoder="lmmse")
    assert plan.rank == max(min(rows - 1, 1), 0)
    assert np.isfinite(sketch.decode(sketch.encode(frames("insoles_1")))).all()


def test_sketcher_holds_out_blocks():
    sketcher = pr.Sketcher(ratio=0.25).fit(frames("insoles_0"))
    assert len(np.unique(sketcher.profile_.groups)) == 4
    with pytest.raises(ValueError, match=r"^hold_out is 'last'"):
        pr.Sketcher(ratio=0.25, hold_out="last").fit(frames("insoles_0"))
