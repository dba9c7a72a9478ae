"""Which kind of amplitudes a profile says that data have."""

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr
from persianrug.sketches.kinds import fitted_source
from persianrug.sources import FeatureMoments
from tests.cli.helpers import of_json, ran

N = 256
HEAVY = pr.SparseLogNormal(pr.zipf_rates(N, 0.3), 1.0, 0.8)


def profile_of(x, seed=0):
    fitter = pr.ProfileFitter(x.shape[1], seed)
    fitter.add(x)
    return fitter.profile()


@pytest.fixture(scope="module")
def heavy():
    return HEAVY.sample(400, N, seed=0, dtype=torch.float64).numpy()


def test_log_normal_amplitudes_are_found_where_they_lose_less(heavy, tmp_path):
    learned = profile_of(heavy)
    assert isinstance(learned.source, pr.SparseLogNormal)
    # Moments of 300 rows know shapes to a tenth or so.
    often = HEAVY.p > 0.5
    assert learned.source.shape[often].mean() == pytest.approx(0.8, rel=0.1)
    path = tmp_path / "profile.json"
    learned.save(path)
    again = pr.Profile.load(path)
    assert again.source == learned.source
    # Two of them are one of the rows of both.
    both = profile_of(heavy[:200], 1) + profile_of(heavy[200:], 2)
    assert both.source == pr.SparseLogNormal.of_moments(both.kept.moments)
    sketch = pr.make_plan(again, ratio=0.25, bits=8, decoder="bayes")[1]
    assert np.isfinite(sketch.decode(sketch.encode(heavy[:3]))).all()


def test_their_loss_is_the_less_and_their_law_holds(heavy):
    new = HEAVY.sample(400, N, seed=1, dtype=torch.float64).numpy()
    losses = {}
    for kind in (pr.SparseLogNormal, pr.SparseTruncatedNormal):
        sketch = pr.Sketch(kind.fit(heavy), pr.Rug.of_ratio(N, 0.25), 8, "bayes")
        errors = np.square(sketch.decode(sketch.encode(new)) - new).mean(axis=1)
        losses[kind] = errors
        laws = sketch.laws_on(new)
        gaps = errors - laws
        assert abs(gaps.mean()) < 4 * gaps.std() / len(gaps) ** 0.5 + 0.03 * errors.mean()
    gained = losses[pr.SparseTruncatedNormal] - losses[pr.SparseLogNormal]
    assert gained.mean() > 2 * gained.std() / len(gained) ** 0.5


@pytest.mark.parametrize(
    "source",
    [
        pr.SparseTruncatedNormal(pr.zipf_rates(N, 0.3), 1.0, 2.0),
        pr.SparseHalfNormal(pr.zipf_rates(N, 0.1)),
        pr.SparseExponential(pr.zipf_rates(N, 0.2)),
    ],
)
def test_others_are_left_to_the_normal_one(source):
    x = source.sample(300, N, seed=0, dtype=torch.float64).numpy()
    assert isinstance(profile_of(x).source, pr.SparseTruncatedNormal)


def test_what_cannot_be_compared_is_normal(heavy):
    moments = FeatureMoments.of(heavy)
    few = scipy.sparse.csr_array(heavy[:8])
    assert isinstance(fitted_source(moments, None, None, 0.0), pr.SparseTruncatedNormal)
    assert isinstance(fitted_source(moments, few, None, 0.0), pr.SparseTruncatedNormal)
    for size in (1e-25, 1e25):
        rows = scipy.sparse.csr_array(size * heavy)
        found = fitted_source(FeatureMoments.of(rows), rows, None, 0.0)
        assert isinstance(found, pr.SparseTruncatedNormal)
    assert isinstance(fitted_source(moments, few, None, -1.0), pr.SparseGaussian)


def test_the_command_says_which(heavy, run, tmp_path):
    np.save(tmp_path / "x.npy", heavy)
    assert "lognormal amplitudes" in ran(run("fit", "x.npy", "--out", "profile.json"))
    report = of_json(run("fit", "x.npy", "--out", "again.json", "--json"))
    assert report["source"] == "lognormal"
