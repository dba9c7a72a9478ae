"""A broken row among many: it is left out of those held out and named, and moves nothing."""

import numpy as np
import pytest

import persianrug as pr
from persianrug.sketches.row_sample import outlying
from tests.cli.helpers import of_json, ran

N, ROWS = 60, 400


def rows():
    return pr.SparseUniform(0.2).sample(ROWS, N, seed=0).numpy().astype(float)


def planned(x, decoder="linear"):
    fitter = pr.ProfileFitter(N)
    fitter.add(x)
    profile = fitter.profile()
    return profile, pr.make_plan(profile, ratio=0.5, bits=8, decoder=decoder)[0]


def places_held_out(x):
    """Of rows that are known again by their first feature."""
    x = x.copy()
    x[:, 0] = 0.5 + np.arange(ROWS) / ROWS
    return np.rint((planned(x)[0].held_out.toarray()[:, 0] - 0.5) * ROWS).astype(int)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
@pytest.mark.parametrize("cells", [1, N])
def test_one_that_is_held_out_moves_nothing(size, cells):
    x = rows()
    place = places_held_out(x)[3]
    clean, before = planned(np.delete(x, place, axis=0))
    x[place, :cells] = size
    profile, plan = planned(x)
    assert (profile.broken, profile.suspect, profile.held_out.shape[0]) == (1, 0, 99)
    assert plan.loss == pytest.approx(before.loss, abs=3 * before.stderr)
    assert plan.stderr < 2 * before.stderr
    assert plan.law == pytest.approx(before.law, rel=0.1)
    assert (clean.broken, clean.suspect) == (0, 0)


def test_one_that_was_fitted_is_named(tmp_path, run):
    x = rows()
    place = next(place for place in range(ROWS) if place not in places_held_out(x))
    x[place] = 1e4
    np.save(tmp_path / "x.npy", x)
    said = ran(run("fit", "x.npy", "--out", "p.json"))
    assert "a row with over 100 times the energy of any other among those that were fitted: broken?" in said
    assert of_json(run("plan", "p.json", "--ratio", 0.5, "--decoder", "linear", "--json"))["suspect"] == 1


def test_it_is_said_and_kept(tmp_path, run):
    x = rows()
    x[places_held_out(x)[0]] = 1e4
    np.save(tmp_path / "x.npy", x)
    said = ran(run("fit", "x.npy", "--out", "p.json"))
    assert "a row with over 100 times the energy of any other left out of those held out: broken?" in said
    profile = pr.Profile.load(tmp_path / "p.json")
    assert profile.broken == 1
    assert (profile + profile).broken == 2


def test_heavy_tails_are_data():
    rng = np.random.default_rng(0)
    for energies in (
        np.exp(3 * rng.standard_normal(1000)),
        rng.pareto(1.0, 1000),
        np.where(rng.random(1000) < 0.05, 1e6, 1.0),
        np.zeros(10),
        np.ones(2),
        np.array([1e9]),
    ):
        assert not outlying(energies).any()
    assert outlying(np.array([1.0, 2.0, 3.0, 1e5])).tolist() == [False, False, False, True]
