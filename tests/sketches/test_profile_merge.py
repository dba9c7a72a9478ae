"""Profiles of parts of data, added up: as one pass over all of it, and what cannot be added."""

import json
import operator
from functools import reduce

import numpy as np
import pytest

import persianrug as pr
from persianrug.sketches import profile
from persianrug.sketches.codes import digest
from tests.sketches.test_profile import N, data, fitted, places_of, same


def parts_of_one_stream(x, cuts, seed=0):
    """Profiles of parts, whose rows have the keys that they have in one pass over all."""
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        fitter = pr.ProfileFitter(x.shape[1], seed)
        fitter._keys.advance(start)
        fitter.add(x[start:stop])
        found.append(fitter.profile())
    return found


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(profile, "_HELD_OUT", 8)
    monkeypatch.setattr(profile, "_COMPONENTS_FROM", 10)


class TestSum:
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("cuts", [[100], [40], [150], [60, 120]])
    def test_it_is_that_of_one_pass(self, cuts, signed, small):
        # Where as many rows are held out as there may be, they and the sample are the very same.
        x = data(200, signed=signed)
        whole, merged = fitted(x), reduce(operator.add, parts_of_one_stream(x, cuts))
        same(merged, whole)
        assert merged.energy == pytest.approx(whole.energy, rel=1e-12)
        assert np.array_equal(merged.kept.held_keys, whole.kept.held_keys)
        assert np.array_equal(merged.kept.moments.counts, whole.kept.moments.counts)

    @pytest.mark.parametrize("rows", [(100, 100), (40, 160), (3, 197), (3, 3), (7, 9), (500, 20)])
    def test_of_seeds_of_their_own(self, rows):
        x = data(sum(rows), share=0.6)
        one, other = fitted(x[: rows[0]], seed=1), fitted(x[rows[0] :], seed=2)
        merged = one + other
        held = 0 if merged.held_out is None else merged.held_out.shape[0]
        assert merged.rows + held == len(x)
        assert held <= len(x) // 4
        places = places_of(merged.held_out, x) if held else []
        before = sum(0 if part.held_out is None else part.held_out.shape[0] for part in (one, other))
        assert held == len(set(places)) == min(before, len(x) // 4)
        # Whoever is not held out is fitted, and once.
        direct = pr.SparseTruncatedNormal.fit(np.delete(x, places, axis=0))
        for name, value in direct.recipe().items():
            if name != "name":
                assert merged.source.recipe()[name] == pytest.approx(value, rel=1e-12)
        assert not set(places) & set(places_of(merged.sample, x))
        energy = np.square(x - merged.source.mean).mean()
        assert merged.energy == pytest.approx(energy, rel=1e-9)
        assert merged.unseen == np.sum((np.delete(x, places, axis=0) != 0).sum(axis=0) == 0)

    def test_the_order_is_of_no_effect(self, small):
        x = data(200)
        one, two, three = (fitted(part, seed=seed) for seed, part in enumerate(np.array_split(x, 3)))
        same((one + two) + three, three + (one + two))
        assert ((one + two) + three).source.mean == pytest.approx((one + (two + three)).source.mean, rel=1e-3)

    def test_rows_of_both_are_held_out_as_often(self, small):
        x = data(120)
        counts = np.zeros(2)
        for seed in range(60):
            merged = fitted(x[:30], seed=2 * seed) + fitted(x[30:], seed=2 * seed + 1)
            counts += np.bincount(np.array(places_of(merged.held_out, x)) >= 30, minlength=2)
        # A quarter of them is of the first 30 rows, with a standard error of 9.
        assert counts.sum() == 8 * 60
        assert 90 < counts[0] < 150

    def test_a_plan_of_it(self):
        x = data(600, n_sparse=64)
        merged, whole = fitted(x[:300], seed=1) + fitted(x[300:], seed=2), fitted(x)
        plans = [pr.make_plan(learned, ratio=0.5)[0] for learned in (merged, whole)]
        assert plans[0].loss == pytest.approx(plans[1].loss, rel=0.15)
        assert plans[0].held_out is not None
        assert merged.pca[0] == pytest.approx(whole.pca[0], rel=0.1)


class TestFiles:
    def test_they_add_up_as_before(self, small, tmp_path):
        x = data(200)
        one, other = fitted(x[:90], seed=1), fitted(x[90:], seed=2)
        one.save(tmp_path / "one.json")
        other.save(tmp_path / "other.json")
        merged = pr.Profile.load(tmp_path / "one.json") + pr.Profile.load(tmp_path / "other.json")
        same(merged, one + other)
        merged.save(tmp_path / "all.json")
        same(pr.Profile.load(tmp_path / "all.json") + one, merged + one)

    def forged(self, path, **changes):
        fitted(data(40)).save(path)
        content = json.loads(path.read_bytes())
        content.pop("digest")
        content["kept"].update(changes)
        if changes.get("kept", 0) is None:
            content.pop("kept")
        content["digest"] = digest(content)
        path.write_text(json.dumps(content))
        return path

    def test_old_ones_load_and_say_that_they_are_too_old(self, tmp_path):
        old = pr.Profile.load(self.forged(tmp_path / "old.json", kept=None))
        new = fitted(data(40))
        same(old, new)
        for one, other, which in ((old, new, "first"), (new, old, "second")):
            with pytest.raises(
                ValueError, match=f"the {which} profile was written before .*; allowed: those that fit"
            ):
                one + other
        old.save(tmp_path / "again.json")
        assert pr.Profile.load(tmp_path / "again.json").kept is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"counts": [-1] * N}, {"counts": [41] * N}, {"counts": 5}, {"means": None}, {"scatters": []},
            {"least": [0.0, 1.0]}, {"held_keys": []}, {"sample_keys": "none"},
            {"counts": {"dtype": "<i8", "shape": [1 << 50], "base64": "AAAA"}},
            {"counts": {"dtype": "<f8", "shape": [0], "base64": ""}},
        ],
    )  # fmt: skip
    def test_claims_that_cannot_be(self, changes, tmp_path):
        with pytest.raises(ValueError, match=r"profile file .*; allowed"):
            pr.Profile.load(self.forged(tmp_path / "p.json", **changes))


class TestRefused:
    def test_other_features(self):
        one = fitted(data(40), names=[f"g{place}" for place in range(N)])
        other = fitted(data(40), names=[f"h{place}" for place in range(N)])
        with pytest.raises(
            ValueError, match=r"the other profile has 12 features other than those that were fitted.*; allowed"
        ):
            one + other
        with pytest.raises(ValueError, match="in another order; allowed"):
            one + fitted(data(40), names=[f"g{place}" for place in reversed(range(N))])
        with pytest.raises(ValueError, match="the other profile has 5 features; allowed: 12"):
            one + fitted(data(40, n_sparse=5))
        # Where one has no names, those of the other stay.
        assert (fitted(data(40)) + one).names == (one + fitted(data(40))).names == one.names

    def test_something_else(self):
        with pytest.raises(TypeError):
            fitted(data(40)) + 1
