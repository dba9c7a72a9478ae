"""Laws learned in one pass: whatever the blocks, what is held out, what components lose, and files of them."""

import json
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

import persianrug as pr
from persianrug.sketches import profile
from persianrug.sketches.codes import digest

N = 12


def data(rows=100, n_sparse=N, seed=0, share=0.3, signed=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 0.5, (rows, n_sparse)) * (rng.random((rows, n_sparse)) < share)
    return x if signed else np.abs(x)


def fitted(x, cuts=(), seed=0, kind=np.asarray, names=None):
    """Laws of rows in blocks that end at the cuts."""
    fitter = pr.ProfileFitter(x.shape[1], seed)
    edges = [0, *sorted(cuts), len(x)]
    for start, stop in pairwise(edges):
        fitter.add(kind(x[start:stop]))
    assert fitter.rows == len(x)
    return fitter.profile(names)


def places_of(rows, x):
    """Which rows of x these are."""
    known = {row.tobytes(): place for place, row in enumerate(np.ascontiguousarray(x))}
    return [known[row.tobytes()] for row in rows.toarray()]


@pytest.fixture
def small(monkeypatch):
    """Bounds that few rows reach."""
    monkeypatch.setattr(profile, "_HELD_OUT", 8)
    monkeypatch.setattr(profile, "_COMPONENTS_FROM", 10)


def same(one, other, held=True):
    assert (one.rows, one.unseen, one.names) == (other.rows, other.unseen, other.names)
    for name, value in one.source.recipe().items():
        if name != "name":
            assert value == pytest.approx(other.source.recipe()[name], rel=1e-12, abs=1e-12)
    assert type(one.source) is type(other.source)
    assert (one.held_out is None) == (other.held_out is None)
    if one.held_out is not None:
        assert np.array_equal(one.held_out.toarray(), other.held_out.toarray())
        # In any order.
        ours, theirs = (np.array(sorted(learned.sample.toarray().tolist())) for learned in (one, other))
        assert np.array_equal(ours, theirs)
    assert one.pca == pytest.approx(other.pca, rel=1e-9, abs=1e-12)


class TestBlocks:
    @example(20, [3, 11], 0, True, False)
    @example(31, [9, 10, 30], 1, True, True)
    @given(
        st.integers(4, 120),
        st.lists(st.integers(0, 120), max_size=10),
        st.integers(0, 5),
        st.booleans(),
        st.booleans(),
    )
    def test_however_the_stream_is_cut(self, rows, cuts, seed, bounded, signed):
        x = data(rows, seed=seed, signed=signed)
        cuts = [min(cut, rows) for cut in cuts]
        with pytest.MonkeyPatch.context() as patch:
            if bounded:
                patch.setattr(profile, "_HELD_OUT", 8)
                patch.setattr(profile, "_COMPONENTS_FROM", 10)
            whole = fitted(x, seed=seed)
            same(fitted(x, cuts, seed), whole)
            same(fitted(x, range(1, rows, 1 + rows // 8), seed), whole)
            same(fitted(x, cuts, seed, kind=scipy.sparse.csr_array), whole)

    @pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "coo_array"])
    def test_of_sparse_rows(self, kind, small):
        x = data()
        same(fitted(x, [40], kind=getattr(scipy.sparse, kind)), fitted(x))

    @pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
    def test_of_other_numbers(self, dtype, small):
        x = np.rint(data()).astype(dtype)
        same(fitted(x, [40]), fitted(x.astype(np.float64)))

    def test_a_profile_may_be_asked_for_on_the_way(self, small):
        x = data()
        fitter = pr.ProfileFitter(N)
        fitter.add(x[:30])
        same(fitter.profile(), fitted(x[:30]))
        fitter.add(x[30:])
        same(fitter.profile(), fitted(x))
        same(fitter.profile(), fitted(x))

    def test_what_was_given_is_left_as_it_was_and_not_kept(self, small):
        x = data()
        buffer = x.copy()
        fitter = pr.ProfileFitter(N)
        fitter.add(buffer)
        assert np.array_equal(buffer, x)
        buffer[:] = 77.0
        same(fitter.profile(), fitted(x))


class TestHeldOut:
    @pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 9, 12, 33, 100])
    @pytest.mark.parametrize("bounded", [False, True])
    def test_at_most_a_quarter_and_the_others_are_fitted(self, rows, bounded, request):
        if bounded:
            request.getfixturevalue("small")
        x = data(rows, share=0.6)
        learned = fitted(x, [rows // 2])
        held = 0 if learned.held_out is None else learned.held_out.shape[0]
        assert learned.rows + held == rows
        assert held <= rows / 4
        expected = min(8 if bounded else 1024, rows // 4)
        assert held == (expected if expected > 1 else 0)
        assert (len(learned.pca) > 0) == (held > 0)
        if held:
            places = places_of(learned.held_out, x)
            assert len(set(places)) == held
            rest = np.delete(x, places, axis=0)
            # Components and energies are those of rows that were fitted.
            kept = places_of(learned.sample, x)
            assert len(set(kept)) == len(kept) == min(len(rest), 10 if bounded else 2048)
            assert not set(kept) & set(places)
            direct = pr.SparseTruncatedNormal.fit(rest)
            for name, value in direct.recipe().items():
                if name != "name":
                    assert learned.source.recipe()[name] == pytest.approx(value, rel=1e-12)

    def test_at_random(self, small):
        x = data(40)
        counts = np.zeros(40)
        for seed in range(60):
            counts[places_of(fitted(x, seed=seed).held_out, x)] += 1
        # 12 times each on average, and none of them never.
        assert counts.sum() == 8 * 60
        assert 2 <= counts.min() <= 12 <= counts.max() <= 26
        assert places_of(fitted(x, seed=1).held_out, x) == places_of(fitted(x, seed=1).held_out, x)

    def test_their_number_is_bounded_by_entries_too(self, monkeypatch):
        monkeypatch.setattr(profile, "_MOST_ENTRIES", 5 * N)
        learned = fitted(data(100), range(0, 100, 7))
        assert learned.held_out.shape == (5, N)
        assert len(learned.pca) <= 6
        monkeypatch.setattr(profile, "_MOST_ENTRIES", 1)
        assert fitted(data(100)).held_out.shape == (2, N)

    def test_memory_does_not_grow_with_the_stream(self, small):
        fitter = pr.ProfileFitter(N)
        for seed in range(50):
            fitter.add(data(30, seed=seed))
            assert fitter._held.rows.shape[0] <= 8
            assert fitter._others.rows.shape[0] <= 10
        assert fitter.profile().rows == 1492


class TestComponents:
    @pytest.mark.parametrize("rows", [9, 24, 100])
    @pytest.mark.parametrize("signed", [False, True])
    def test_they_are_those_of_scikit_learn(self, rows, signed):
        # Low-rank data and noise, so that components matter.
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, N)) + 0.1 * rng.normal(size=(rows, N))
        x = x if signed else np.abs(x)
        learned = fitted(x)
        held = learned.held_out.toarray()
        others = np.delete(x, places_of(learned.held_out, x), axis=0) - learned.source.mean
        # About the mean of the law: that of a set of rows and their opposites.
        most = min(len(others), N)
        pca = PCA(most, svd_solver="full").fit(np.concatenate([others, -others]))
        seen = (held - learned.source.mean) @ pca.components_.T
        power = np.square(held - learned.source.mean).sum()
        expected = (power - np.cumsum([0, *np.square(seen).sum(0)])) / held.size
        assert len(learned.pca) == most + 1
        assert learned.pca == pytest.approx(np.maximum(expected, 0), rel=1e-8, abs=1e-8 * learned.pca[0])
        assert (np.diff(learned.pca) <= 1e-12).all()
        assert (learned.pca >= 0).all()

    def test_about_the_mean_of_the_rows_they_would_lose_as_much(self):
        rng = np.random.default_rng(0)
        x = np.abs(rng.normal(size=(400, 3)) @ rng.normal(size=(3, N)) + 0.1 * rng.normal(size=(400, N)))
        learned = fitted(x)
        held = learned.held_out.toarray()
        others = np.delete(x, places_of(learned.held_out, x), axis=0)
        for components in (1, 3, 6, 10):
            pca = PCA(components).fit(others)
            loss = np.square(pca.inverse_transform(pca.transform(held)) - held).mean()
            assert learned.pca_loss(components)[0] == pytest.approx(loss, rel=0.05)

    def test_as_many_as_there_are(self):
        # Of 7 rows that were fitted there are 7 at most.
        learned = fitted(data(9, n_sparse=40, share=0.5))
        assert learned.rows == 7
        loss, components = learned.pca_loss(30)
        assert (loss, components) == (learned.pca[-1], len(learned.pca) - 1)
        assert components <= 7
        assert learned.pca_loss(2) == (learned.pca[2], 2)
        assert learned.pca_loss(0) == (learned.pca[0], 0)
        assert fitted(data(3)).pca_loss(5) is None

    def test_rows_that_are_all_the_same(self):
        learned = fitted(np.tile(np.arange(1.0, N + 1), (20, 1)))
        assert np.isfinite(learned.pca).all()
        assert learned.held_out.shape[0] == 5


class TestWhatIsLearned:
    def test_features_that_were_never_active_are_counted(self):
        x = data(60, share=0.9)
        x[:, [2, 7]] = 0
        learned = fitted(x, [10, 20])
        assert learned.unseen == 2
        # They may be seen yet.
        assert (learned.source.p[[2, 7]] > 0).all()
        assert learned.n_sparse == N

    def test_negative_numbers_make_a_signed_law_wherever_they_are(self):
        assert isinstance(fitted(data()).source, pr.SparseTruncatedNormal)
        for row in range(0, 40, 3):
            x = data(40)
            x[row, 3] = -1.0
            assert isinstance(fitted(x, [15]).source, pr.SparseGaussian)

    def test_it_finds_the_source_that_it_was_drawn_from(self):
        source = pr.SparseTruncatedNormal(pr.zipf_rates(N, 0.4), 0.5, np.linspace(1, 3, N))
        learned = fitted(source.sample(20_000, N, seed=0).numpy(), range(0, 20_000, 999))
        assert learned.source.p == pytest.approx(source.p, abs=0.015)
        assert learned.source.mean == pytest.approx(source.mean, rel=0.05)
        assert learned.source.variance == pytest.approx(source.variance, rel=0.07)
        assert learned.held_out.shape[0] == 1024


class TestRefusals:
    def test_no_rows(self):
        fitter = pr.ProfileFitter(N)
        with pytest.raises(ValueError, match="rows is empty"):
            fitter.profile()
        fitter.add(np.zeros((0, N)))
        with pytest.raises(ValueError, match="rows is empty"):
            fitter.profile()

    @pytest.mark.parametrize("rows", [1, 3, 40])
    def test_nothing_but_zeros(self, rows):
        fitter = pr.ProfileFitter(N)
        fitter.add(np.zeros((rows, N)))
        with pytest.raises(ValueError, match="rows holds nothing but zeros"):
            fitter.profile()

    @pytest.mark.parametrize("rows", [np.zeros((3, N + 1)), np.zeros(N), np.zeros((2, 3, N)),
                                      scipy.sparse.csr_array((3, N - 1))])  # fmt: skip
    def test_shapes(self, rows):
        with pytest.raises(ValueError, match=rf"rows has shape .*; allowed: \(rows, {N}\)"):
            pr.ProfileFitter(N).add(rows)

    @pytest.mark.parametrize("rows", [None, "rows", [[1.0] * N]])
    def test_no_arrays(self, rows):
        with pytest.raises(ValueError, match="rows is"):
            pr.ProfileFitter(N).add(rows)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e31, -1e200])
    @pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
    @pytest.mark.parametrize("bounded", [False, True])
    def test_not_finite_or_too_large(self, bad, kind, bounded, request):
        if bounded:
            request.getfixturevalue("small")
        x = data(40)
        for row in (0, 11, 39):
            wrong = x.copy()
            wrong[row, 5] = bad
            fitter = pr.ProfileFitter(N)
            fitter.add(kind(x[:20]))
            with pytest.raises(ValueError, match="rows holds"):
                fitter.add(kind(wrong))
            # What is refused is not learned, and what was learned is kept.
            assert fitter.rows == 20
            learned = fitter.profile()
            assert np.isfinite(learned.held_out.toarray()).all()
            assert learned.rows + learned.held_out.shape[0] == 20

    @pytest.mark.parametrize("arguments", [(1,), (0,), (2.5,), ("4",), (4, -1), (4, 0.5)])
    def test_arguments(self, arguments):
        with pytest.raises(ValueError, match=r"n_sparse is|seed is"):
            pr.ProfileFitter(*arguments)


class TestNames:
    def test_of_the_data(self):
        names = [f"gene {i}" for i in range(N)]
        learned = fitted(data(), names=names)
        assert learned.names == tuple(names)
        learned.check_names(names, N, "cells.h5ad")
        learned.check_names(None, N, "cells.npz")
        fitted(data()).check_names(names, N, "cells.h5ad")
        with pytest.raises(
            ValueError, match=r"a has a feature other than those that were fitted, the first is .more.; allowed"
        ):
            learned.check_names([*names, "more"], N + 1, "a")
        with pytest.raises(
            ValueError, match=r"a has 2 features other than those that were fitted, the first is 'new'; allowed"
        ):
            learned.check_names([*names[:-2], "new", "other"], N, "a")
        with pytest.raises(ValueError, match=r"a has its features in another order; allowed"):
            learned.check_names([names[1], names[0], *names[2:]], N, "a")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    learned = fitted(data(30), names=[f"f{i} ä\n" for i in range(N)])
    learned.save(path)
    return path, learned


class TestFiles:
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("rows", [3, 40])
    @pytest.mark.parametrize("names", [None, [f'f{i} ä\n"' for i in range(N)]])
    def test_round_trip(self, signed, rows, names, tmp_path):
        learned = fitted(data(rows, signed=signed, share=0.6), names=names)
        learned.save(tmp_path / "profile.json")
        again = pr.Profile.load(tmp_path / "profile.json")
        assert again.source == learned.source
        assert type(again.source) is type(learned.source)
        assert (again.rows, again.unseen, again.names) == (learned.rows, learned.unseen, learned.names)
        assert np.array_equal(again.pca, learned.pca)
        assert (again.held_out is None) == (learned.held_out is None)
        if learned.held_out is not None:
            assert np.array_equal(again.held_out.toarray(), learned.held_out.toarray())
        assert np.array_equal(again.sample.toarray(), learned.sample.toarray())
        again.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "profile.json").read_bytes()
        # It is replaced, whole.
        learned.save(tmp_path / "profile.json")
        plan, sketch = pr.make_plan(again, ratio=0.5)
        assert plan == pr.make_plan(learned, ratio=0.5)[0]
        assert sketch.recipe()["decoder"] == plan.decoder

    def test_truncated(self, saved, tmp_path):
        content = saved[0].read_bytes()
        # The line's end is no part of it.
        for cut in [*range(60), *range(60, len(content) - 1, 97), len(content) - 2]:
            (tmp_path / "profile.json").write_bytes(content[:cut])
            with pytest.raises(ValueError, match=r"profile file .*; allowed"):
                pr.Profile.load(tmp_path / "profile.json")

    def test_a_character_changed_anywhere(self, saved, tmp_path):
        path, learned = saved
        content = path.read_bytes()
        rng = np.random.default_rng(0)
        refused = 0
        for place in rng.choice(len(content), 1500, replace=False):
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            (tmp_path / "profile.json").write_bytes(damaged)
            try:
                again = pr.Profile.load(tmp_path / "profile.json")
            except ValueError:
                refused += 1
            else:
                # White space between tokens.
                assert again.source == learned.source
                assert np.array_equal(again.held_out.toarray(), learned.held_out.toarray())
                assert (again.names, again.rows, again.unseen) == (learned.names, learned.rows, learned.unseen)
        assert refused > 1400

    def forged(self, path, saved, **changes):
        """A file of other content, whose digest fits."""
        content = json.loads(saved[0].read_bytes())
        content.pop("digest")
        content.update(changes)
        content["digest"] = digest(content)
        path.write_text(json.dumps(content))
        return path

    def test_a_forged_one_that_is_right(self, saved, tmp_path):
        again = pr.Profile.load(self.forged(tmp_path / "profile.json", saved))
        assert again.source == saved[1].source

    @pytest.mark.parametrize("version", [2, 0, "1", None])
    def test_other_versions(self, saved, tmp_path, version):
        path = self.forged(tmp_path / "profile.json", saved, version=version)
        with pytest.raises(ValueError, match=r"has format persianrug profile, version .*; allowed: .*version 1"):
            pr.Profile.load(path)
        with pytest.raises(ValueError, match="has format others"):
            pr.Profile.load(self.forged(path, saved, format="others"))

    @pytest.mark.parametrize(
        "changes",
        [
            {"rows": "many"}, {"rows": None}, {"rows": float("inf")}, {"rows": float("nan")}, {"unseen": []},
            {"unseen": float("inf")}, {"names": 5}, {"names": ["a"]},
            {"pca": {"dtype": "<f8", "shape": [1 << 50], "base64": "AAAA"}},
            {"pca": {"dtype": "<f8", "shape": [-1, -1], "base64": "AAAA"}},
            {"pca": {"dtype": "O", "shape": [1], "base64": "AAAA"}},
            {"pca": {"dtype": "(((", "shape": [1], "base64": "AAAA"}},
            {"pca": {"dtype": "<f8", "shape": [0], "base64": "not base 64"}},
            {"pca": "none"}, {"pca": 5},
            {"source": {}}, {"source": []}, {"source": None}, {"source": {"name": "uniform", "p": 0.1}},
            {"source": {"name": "nobody"}}, {"source": {"name": "uniform", "p": [0.1, 7.0]}},
            {"source": {"name": "uniform", "p": {"dtype": "<f8", "shape": [1 << 60], "base64": ""}}},
            {"sample": {}}, {"sample": 5},
            {"sample": {"rows": 1, "data": [1.0], "indices": [N], "indptr": [0, 1]}},
            {"held_out": {}}, {"held_out": 5}, {"held_out": []},
            {"held_out": {"rows": 1 << 62, "data": [], "indices": [], "indptr": [0]}},
            {"held_out": {"rows": 1 << 40, "data": [], "indices": [], "indptr": [0]}},
            {"held_out": {"rows": -1, "data": [], "indices": [], "indptr": [0]}},
            {"held_out": {"rows": 1, "data": [1.0], "indices": [N], "indptr": [0, 1]}},
            {"held_out": {"rows": 1, "data": [1.0], "indices": [-1], "indptr": [0, 1]}},
            {"held_out": {"rows": 2, "data": [1.0], "indices": [1], "indptr": [0, 5, 1]}},
            {"held_out": {"rows": 1, "data": ["a"], "indices": [1], "indptr": [0, 1]}},
        ],
    )  # fmt: skip
    def test_claims_that_cannot_be(self, saved, tmp_path, changes):
        path = self.forged(tmp_path / "profile.json", saved, **changes)
        with pytest.raises(ValueError, match=r"profile file .*; allowed"):
            pr.Profile.load(path)

    def test_parts_that_are_missing(self, saved, tmp_path):
        for part in ("rows", "unseen", "source", "pca", "names", "held_out", "sample", "digest", "format"):
            content = json.loads(saved[0].read_bytes())
            content.pop(part)
            if part != "digest":
                content.pop("digest")
                content["digest"] = digest(content)
            (tmp_path / "profile.json").write_text(json.dumps(content))
            with pytest.raises(ValueError, match=r"profile file .*; allowed"):
                pr.Profile.load(tmp_path / "profile.json")

    @pytest.mark.parametrize(
        "content", [b"", b"null", b"[]", b"5", b'"a"', b"{}", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"PK\x03\x04",
                    b"\x89RUG\r\n\x1a\n", b"1" * 10_000],
        ids=range(12),
    )  # fmt: skip
    def test_other_content(self, tmp_path, content):
        (tmp_path / "profile.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"profile file .*; allowed"):
            pr.Profile.load(tmp_path / "profile.json")

    def test_missing(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.json"):
            with pytest.raises(ValueError, match=r"profile file .* is missing; allowed: a file that fit wrote"):
                pr.Profile.load(path)
        with pytest.raises(ValueError, match="folder"):
            fitted(data()).save(tmp_path / "none" / "profile.json")

    def test_too_large(self, saved, tmp_path, monkeypatch):
        monkeypatch.setattr(profile, "_MOST_BYTES", 100)
        with pytest.raises(ValueError, match="has more than 100 bytes"):
            pr.Profile.load(saved[0])
