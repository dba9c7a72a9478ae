"""Which rows are held out: blocks where rows follow each other, and what that says of others."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr
from persianrug.sketches.hold_out import Halves, HoldOut, succession

N = 40


def recording(rows=400, persistence=0.97, seed=0, n_sparse=N):
    """Features of two factors that drift: every row is nearly the one before."""
    rng = np.random.default_rng(seed)
    factors = np.zeros((rows, 2))
    for row in range(1, rows):
        factors[row] = persistence * factors[row - 1] + rng.standard_normal(2) * (1 - persistence**2) ** 0.5
    return np.maximum(1.0 + factors @ np.random.default_rng(99).standard_normal((2, n_sparse)), 0.0)


def profile_of(x, kind="auto", cut=None, sparse=False):
    held, fitter = HoldOut(kind, len(x)), pr.ProfileFitter(x.shape[1])
    for start, part in ((0, x[:cut]), (cut, x[cut:])) if cut else ((0, x),):
        rows = scipy.sparse.csr_array(part) if sparse else part
        fitter.add(rows, held.groups(start, rows))
    return fitter.profile(), held


def test_succession_is_one_of_independent_rows_and_small_where_rows_follow():
    rng = np.random.default_rng(0)
    independent = rng.standard_normal((2000, 10))
    assert succession(independent) == pytest.approx(1.0, abs=0.05)
    assert succession(np.cumsum(independent, axis=0)) < 0.05
    assert succession(np.ones((50, 3))) == 1.0
    x = recording()
    assert succession(scipy.sparse.csr_array(x)) == pytest.approx(succession(x), rel=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("cut", [None, 137])
def test_blocks_are_the_ends_of_quarters(cut, sparse):
    x = recording()
    profile, held = profile_of(x, cut=cut, sparse=sparse)
    assert (held.kind, held.follows) == ("blocks", True)
    assert (profile.rows, profile.held_out.shape[0]) == (300, 100)
    blocks = [profile.held_out.toarray()[profile.groups == group] for group in range(4)]
    for number, block in enumerate(blocks):
        there = x[100 * number + 75 : 100 * (number + 1)]
        assert sorted(block.tolist()) == sorted(there.tolist())


def test_independent_rows_are_drawn():
    x = np.random.default_rng(0).random((200, N))
    profile, held = profile_of(x)
    assert (held.kind, held.follows, profile.groups) == ("random", False, None)
    plain = pr.ProfileFitter(N)
    plain.add(x)
    assert np.array_equal(plain.profile().held_out.toarray(), profile.held_out.toarray())


def test_halves_are_blocks_where_rows_follow():
    x = recording()
    for rows in (x, scipy.sparse.csr_array(x)):
        halves = Halves.of(rows, seed=0)
        assert halves.kind == "blocks"
        fitted, others = (
            part.toarray() if hasattr(part, "tocsr") else part for part in (halves.fitted, halves.others)
        )
        quarters = x.reshape(4, 2, 50, N)
        assert np.array_equal(fitted, quarters[:, 0].reshape(200, N))
        assert np.array_equal(others, quarters[:, 1].reshape(200, N))


@pytest.mark.parametrize("x", [np.random.default_rng(0).random((201, N)), recording(31)])
def test_and_else_drawn(x):
    """Too few rows do not tell whether they follow."""
    halves = Halves.of(x, seed=3)
    order = np.random.default_rng(3).permutation(len(x))
    assert halves.kind == "random"
    assert np.array_equal(halves.fitted, x[order[: len(x) // 2]])
    assert np.array_equal(halves.others, x[order[len(x) // 2 :]])


def test_near_copies_are_seen():
    x = recording(persistence=0.999)
    assert profile_of(x, "random")[0].near_copies > 0.9
    assert profile_of(np.random.default_rng(0).random((200, N)))[0].near_copies == 0.0
    assert profile_of(np.random.default_rng(0).random((3, N)), "random")[0].near_copies is None


@pytest.mark.parametrize(("kind", "rows"), [("blocks", None), ("blocks", 31)])
def test_blocks_need_rows(kind, rows):
    with pytest.raises(
        ValueError, match=r"^hold_out is 'blocks' of .* rows; allowed with blocks: 32 rows or more$"
    ):
        HoldOut(kind, rows)


def test_kinds_are_checked():
    with pytest.raises(ValueError, match=r"^hold_out is 'alternate'; allowed: auto, random, blocks$"):
        HoldOut("alternate")


@pytest.mark.parametrize("groups", [np.zeros(3, dtype=np.int64), np.zeros(4), "all"])
def test_groups_are_checked(groups):
    with pytest.raises(ValueError, match=r"^groups is .*; allowed: an int64 array"):
        pr.ProfileFitter(3).add(np.ones((4, 3)), groups)


def test_rows_after_blocks_are_fitted():
    """Which rows were held out was asked of a recording, and others come after it."""
    x = recording()
    _, held = profile_of(x)
    fitter = pr.ProfileFitter(N)
    fitter.add(x, held.groups(0, x))
    fitter.add(x[:50])
    profile = fitter.profile()
    assert (profile.rows, profile.held_out.shape[0]) == (350, 100)


def test_groups_after_rows_that_were_drawn_are_refused():
    fitter = pr.ProfileFitter(N)
    fitter.add(recording(50))
    with pytest.raises(
        ValueError, match="groups come after rows without any; allowed: groups from the first rows on"
    ):
        fitter.add(recording(50), np.zeros(50, dtype=np.int64))
    assert fitter.rows == 50


def test_a_sketcher_that_was_fitted_to_a_recording_learns_more():
    x = recording()
    sketcher = pr.Sketcher(ratio=0.5).fit(x).partial_fit(x[:100])
    assert sketcher.profile_.rows == 400


def test_many_rows_of_blocks_are_not_fitted(monkeypatch):
    """Even if there are too many of them to be kept."""
    from persianrug.sketches import profile as module

    monkeypatch.setattr(module, "_HELD_OUT", 10)
    profile, _ = profile_of(recording())
    assert (profile.rows, profile.held_out.shape[0]) == (300, 10)


def test_profiles_of_blocks_are_stored_and_add_up(tmp_path):
    one, two = (profile_of(recording(seed=seed))[0] for seed in (0, 1))
    one.save(tmp_path / "one.json")
    again = pr.Profile.load(tmp_path / "one.json")
    assert np.array_equal(again.groups, one.groups)
    assert again.covariance(2).factors == pytest.approx(one.covariance(2).factors)
    both = again + two
    assert (both.rows, both.held_out.shape[0]) == (600, 200)
    assert len(np.unique(both.groups)) == 8
    # One that was drawn beside one of blocks.
    mixed = one + profile_of(np.random.default_rng(0).random((200, N)))[0]
    assert len(np.unique(mixed.groups)) == 4 + 50


def test_how_rows_were_held_out_is_kept(tmp_path):
    one = replace(profile_of(recording())[0], held_by="blocks")
    one.save(tmp_path / "one.json")
    assert pr.Profile.load(tmp_path / "one.json").held_by == "blocks"
    two = replace(profile_of(recording(seed=1))[0], held_by="blocks")
    assert (one + two).held_by == "blocks"
    assert (one + replace(two, held_by="file")).held_by is None
    replace(one, held_by="else").save(tmp_path / "two.json")
    with pytest.raises(ValueError, match="held_by is 'else'"):
        pr.Profile.load(tmp_path / "two.json")
    sketcher = pr.Sketcher(ratio=0.5)
    assert sketcher.fit(recording()).profile_.held_by == "blocks"
    assert sketcher.partial_fit(recording()[:100]).profile_.held_by == "blocks"
    assert pr.Sketcher(ratio=0.5).partial_fit(recording()).profile_.held_by == "random"


def test_groups_make_the_standard_error_larger():
    """Rows of a block tell the same, again and again."""
    x = recording(rows=2000)
    errors = {}
    for kind in ("random", "blocks"):
        plan, _ = pr.make_plan(profile_of(x, kind)[0], ratio=0.25, decoder="linear")
        errors[kind] = plan.stderr
    assert errors["blocks"] > 3 * errors["random"]


def test_what_is_expected_holds_for_later_rows():
    """Within two standard errors, at about the rate that says; of rows drawn at random it hardly does."""
    hits: dict[str, list[bool]] = {"blocks": [], "random": []}
    for seed in range(12):
        x = recording(rows=1600, seed=seed)
        for kind, found in hits.items():
            profile, _ = profile_of(x[:800], kind)
            plan, sketch = pr.make_plan(profile, ratio=0.25, decoder="linear")
            lost = np.square(sketch.decode(sketch.encode(x[800:])) - x[800:]).mean()
            found.append(abs(lost - plan.loss) < 2 * plan.stderr)
    assert np.mean(hits["blocks"]) > 0.7
    assert np.mean(hits["random"]) < 0.4
