"""The estimator: scikit-learn's own checks, what it predicts against what is measured, and files of profiles."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import persianrug as pr
from persianrug.sketches.plan import CodeSize, losses

N = 64
SOURCE = pr.SparseTruncatedNormal(0.06, 0.3, 1.0)


@parametrize_with_checks([pr.Sketcher(), pr.Sketcher(0.5, bits=6, decoder="linear")])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def rows_of(rows=200, seed=0, dtype=torch.float64):
    return SOURCE.sample(rows, N, seed=seed, dtype=dtype).numpy()


@pytest.fixture(scope="module")
def x():
    return rows_of()


class TestFitting:
    def test_attributes(self, x):
        sketcher = pr.Sketcher(0.5, bits=8, decoder="bayes", seed=3).fit(x)
        assert sketcher.n_features_in_ == N
        assert not hasattr(sketcher, "feature_names_in_")
        plan = sketcher.plan_
        assert (plan.n_dense, plan.bits, plan.decoder, plan.seed) == (32, 8, "bayes", 3)
        assert sketcher.sketch_.rug == pr.Rug(N, 32, 3)
        assert sketcher.profile_.rows == 150
        assert sketcher.loss() == plan.loss
        assert sketcher.losses().shape == (N,)
        assert sketcher.losses().mean() == pytest.approx(sketcher.sketch_.law(), rel=1e-6)
        assert sketcher.losses().mean() == pytest.approx(plan.law, rel=0.2)

    def test_it_is_planned_when_a_plan_is_needed(self, x, monkeypatch):
        seen = []
        plan = CodeSize.plan
        monkeypatch.setattr(CodeSize, "plan", lambda size, profile: seen.append(size) or plan(size, profile))
        # How codes are rounded depends on the decoder, so that it is known before.
        sketcher = pr.Sketcher(n_dense=16, bits=8, decoder="bayes").fit(x)
        codes = sketcher.transform(x)
        assert sketcher.get_feature_names_out().shape == (16,)
        pr.Sketcher(n_dense=16).fit(x).transform(x)
        assert seen == []
        back = sketcher.inverse_transform(codes)
        assert (len(seen), sketcher.plan_.n_dense) == (1, 16)
        # With a plan codes are the same.
        assert np.array_equal(sketcher.transform(x), codes)
        assert np.array_equal(sketcher.inverse_transform(codes), back)
        assert len(seen) == 1
        # The length of a code that meets a loss is known by its plan alone.
        assert pr.Sketcher(target_loss=0.02, decoder="linear").fit(x).transform(x).shape[1] > 1
        assert len(seen) == 2

    def test_what_cannot_be_planned_leaves_the_code_as_it_was(self, x):
        sketcher = pr.Sketcher(n_dense=16, decoder="linear").fit(x)
        before = sketcher.plan_
        for size in ({"target_loss": 1e-30, "bits": 1}, {"ratio": 2.0}):
            with pytest.raises(ValueError, match="allowed"):
                sketcher.plan(**size)
            assert sketcher.plan_ is before

    def test_where_nothing_is_given_it_is_a_quarter(self, x):
        assert pr.Sketcher(decoder="linear").fit(x).plan_.n_dense == 16
        assert (
            pr.Sketcher(decoder="linear").fit(np.abs(np.random.default_rng(0).normal(size=(20, 2)))).plan_.n_dense
            == 1
        )

    def test_by_every_size(self, x):
        assert pr.Sketcher(n_dense=11, decoder="linear").fit(x).plan_.n_dense == 11
        plan = pr.Sketcher(target_loss=0.02, bits=6).fit(x).plan_
        assert plan.loss <= 0.02
        with pytest.raises(ValueError, match="ratio and n_dense are given"):
            pr.Sketcher(0.5, n_dense=3).fit(x)

    @pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "coo_array"])
    def test_sparse_rows(self, x, kind):
        dense = pr.Sketcher(0.5).fit(x)
        rows = getattr(scipy.sparse, kind)(x)
        sketcher = pr.Sketcher(0.5).fit(rows)
        assert sketcher.plan_ == dense.plan_
        assert sketcher.profile_.source == dense.profile_.source
        assert np.array_equal(sketcher.transform(rows), dense.transform(x))

    def test_float32(self, x):
        sketcher = pr.Sketcher(0.5, decoder="bayes").fit(x.astype(np.float32))
        codes = sketcher.transform(x.astype(np.float32))
        assert codes.dtype == np.float32
        assert sketcher.inverse_transform(codes).dtype == np.float32
        assert sketcher.transform(x).dtype == np.float64

    def test_integers(self, x):
        counts = np.rint(3 * x).astype(int)
        sketcher = pr.Sketcher(0.5, decoder="bayes").fit(counts)
        assert sketcher.transform(counts) == pytest.approx(sketcher.transform(counts.astype(float)))
        # Codes of integers too, and of lists.
        back = sketcher.inverse_transform(np.ones((2, 32), dtype=int))
        assert np.array_equal(back, sketcher.inverse_transform(np.ones((2, 32)).tolist()))

    def test_in_blocks_it_is_the_same(self, x, monkeypatch):
        whole = pr.Sketcher(0.5).fit(x)
        blocks = pr.Sketcher(0.5)
        for start in range(0, len(x), 33):
            assert blocks.partial_fit(x[start : start + 33]) is blocks
        assert blocks.plan_.n_dense == whole.plan_.n_dense
        assert blocks.profile_.rows == whole.profile_.rows
        assert blocks.profile_.source.p == pytest.approx(whole.profile_.source.p, rel=1e-12)
        assert np.array_equal(blocks.profile_.held_out.toarray(), whole.profile_.held_out.toarray())
        assert blocks.plan_.loss == pytest.approx(whole.plan_.loss, rel=1e-6, abs=1e-12)
        # A large matrix goes through in blocks of itself.
        monkeypatch.setattr("persianrug.sketches.estimator.BLOCK", 10 * N)
        again = pr.Sketcher(0.5).fit(x)
        assert again.plan_.loss == pytest.approx(whole.plan_.loss, rel=1e-6, abs=1e-12)

    def test_fit_begins_again(self, x):
        sketcher = pr.Sketcher(0.5, decoder="bayes").fit(rows_of(50, 1))
        assert sketcher.fit(x).profile_.rows == 150
        sketcher.partial_fit(rows_of(200, 2))
        assert sketcher.profile_.rows == 300
        assert sketcher.fit(x).profile_.rows == 150
        assert sketcher.fit(np.tile(x, 2)).n_features_in_ == 2 * N

    def test_what_was_given_is_left_as_it_was(self, x):
        before = x.copy()
        sketcher = pr.Sketcher(0.5, bits=4, decoder="bayes").fit(x)
        codes = sketcher.transform(x)
        kept = codes.copy()
        sketcher.inverse_transform(codes)
        assert np.array_equal(x, before)
        assert np.array_equal(codes, kept)


class TestCoding:
    def test_transform_is_encode_and_back(self, x):
        sketcher = pr.Sketcher(0.5, bits=6, decoder="bayes").fit(x)
        codes = sketcher.encode(x)
        assert isinstance(codes, pr.Codes)
        assert np.array_equal(sketcher.transform(x), np.asarray(codes))
        assert np.array_equal(sketcher.fit_transform(x), np.asarray(codes))
        assert np.array_equal(sketcher.inverse_transform(sketcher.transform(x)), sketcher.decode(codes))
        assert np.square(sketcher.decode(codes) - x).mean() < 0.5 * x.var()

    def test_a_row_does_not_depend_on_its_neighbours(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = rng.random((120, 40)) * (rng.random((120, 40)) < 0.2)
        sketcher = pr.Sketcher(ratio=0.5, decoder="oamp").fit(rows)
        codes = sketcher.encode(rows)
        together = sketcher.decode(codes)
        alone = np.concatenate([sketcher.decode(codes[k : k + 1]) for k in range(120)])
        assert np.abs(alone - together).max() < 1e-12
        # Some are not recovered, so that there is something to depend on.
        assert 60 < (np.abs(together - rows).max(axis=1) < 1e-5).sum() < 120
        with pr.RugWriter(tmp_path / "t.rug", sketcher.sketch_, dtype="float64", chunk_rows=50) as writer:
            writer.write(codes)
        with pr.RugReader(tmp_path / "t.rug") as reader:
            read = np.concatenate([np.asarray(reader.sketch.decode(reader[k : k + 1])) for k in range(120)])
            chunks = np.concatenate([np.asarray(reader.sketch.decode(chunk)) for chunk in reader.chunks()])
        assert np.abs(read - together).max() < 1e-12
        assert np.abs(chunks - together).max() < 1e-12

    def test_sums_and_missing_entries(self, x):
        sketcher = pr.Sketcher(0.7, decoder="bayes").fit(x)
        codes = sketcher.encode(x)
        both = x[:100] + x[100:]
        loss = np.square(sketcher.decode(codes[:100] + codes[100:]) - both).mean()
        assert loss < 0.3 * both.var()
        lost = np.asarray(codes.erase(0.2))
        assert np.array_equal(sketcher.inverse_transform(lost), sketcher.decode(codes.erase(0.2)))

    def test_plans_change_the_code(self, x):
        sketcher = pr.Sketcher(0.5, decoder="bayes").fit(x)
        plan = sketcher.plan(n_dense=20, bits=4)
        assert plan == sketcher.plan_
        assert sketcher.transform(x).shape == (200, 20)
        assert (plan.bits, plan.decoder) == (4, "bayes")
        assert sketcher.plan(ratio=0.25, decoder="linear").decoder == "linear"
        assert len(sketcher.get_feature_names_out()) == 16
        before = sketcher.plan_
        with pytest.raises(ValueError, match="no size is given"):
            sketcher.plan()
        with pytest.raises(ValueError, match="target_loss is"):
            sketcher.plan(target_loss=1e-9, bits=1)
        assert sketcher.plan_ is before

    def test_in_a_pipeline(self, x):
        counts = x * np.linspace(0.1, 50, N)
        pipeline = make_pipeline(MaxAbsScaler(), pr.Sketcher(0.6, decoder="auto"))
        codes = pipeline.fit_transform(counts)
        assert codes.shape == (200, 38)
        back = pipeline.inverse_transform(codes)
        scale = np.abs(counts).max(axis=0)
        assert np.square((back - counts) / np.where(scale > 0, scale, 1)).mean() < 0.2 * (counts / scale).var()
        sparse = make_pipeline(MaxAbsScaler(), pr.Sketcher(0.6)).fit(scipy.sparse.csr_matrix(counts))
        assert sparse.transform(scipy.sparse.csr_matrix(counts)) == pytest.approx(codes, abs=1e-9)

    def test_parameters(self):
        sketcher = pr.Sketcher(0.3, bits=5, decoder="relu", seed=4)
        expected = {"ratio": 0.3, "n_dense": None, "target_loss": None, "bits": 5, "decoder": "relu",
                    "hold_out": "auto", "seed": 4}  # fmt: skip
        assert sketcher.get_params() == expected
        assert clone(sketcher).get_params() == expected
        assert sketcher.set_params(ratio=None, n_dense=7).get_params()["n_dense"] == 7
        with pytest.raises(ValueError, match="Invalid parameter"):
            sketcher.set_params(wavelet=1)
        assert repr(sketcher) == "Sketcher(bits=5, decoder='relu', n_dense=7, seed=4)"

    def test_names_of_columns(self, x):
        frame = pd.DataFrame(x, columns=[f"gene {i}" for i in range(N)])
        sketcher = pr.Sketcher(0.25, decoder="bayes").fit(frame)
        assert list(sketcher.feature_names_in_) == list(frame.columns)
        assert sketcher.profile_.names == tuple(frame.columns)
        assert np.array_equal(sketcher.transform(frame), sketcher.transform(frame.copy()))
        for wrong in (frame[frame.columns[::-1]], frame.rename(columns={"gene 3": "other"})):
            with pytest.raises(ValueError, match="feature names"):
                sketcher.transform(wrong)
        assert list(sketcher.get_feature_names_out())[:2] == ["sketcher0", "sketcher1"]
        out = sketcher.set_output(transform="pandas").transform(frame)
        assert list(out.columns) == list(sketcher.get_feature_names_out())
        assert list(out.index) == list(frame.index)
        back = sketcher.inverse_transform(out)
        assert back == pytest.approx(sketcher.decode(sketcher.encode(frame)))

    def test_pickles(self, x):
        sketcher = pr.Sketcher(0.5, bits=4).fit(x)
        again = pickle.loads(pickle.dumps(sketcher))
        codes = sketcher.encode(x)
        assert np.array_equal(again.transform(x), np.asarray(codes))
        assert np.array_equal(again.decode(codes), sketcher.decode(codes))
        # It goes on learning where it was.
        for one in (sketcher, again):
            one.partial_fit(rows_of(50, 1))
        assert again.plan_ == sketcher.plan_


class TestFromLaws:
    def test_of_a_profile_and_of_a_file(self, x, tmp_path):
        sketcher = pr.Sketcher(0.5, bits=8, decoder="bayes").fit(x)
        sketcher.profile_.save(tmp_path / "profile.json")
        for profile in (sketcher.profile_, tmp_path / "profile.json", str(tmp_path / "profile.json")):
            again = pr.Sketcher.from_profile(profile, ratio=0.5, bits=8, decoder="bayes")
            assert again.plan_ == sketcher.plan_
            assert np.array_equal(again.transform(x), sketcher.transform(x))
            assert again.get_params() == sketcher.get_params()
            assert again.n_features_in_ == N
        assert pr.Sketcher.from_profile(sketcher.profile_).plan_.n_dense == 16

    def test_names_come_with_them(self, x, tmp_path):
        frame = pd.DataFrame(x, columns=[f"gene {i}" for i in range(N)])
        pr.Sketcher(0.5, decoder="bayes").fit(frame).profile_.save(tmp_path / "profile.json")
        again = pr.Sketcher.from_profile(tmp_path / "profile.json", ratio=0.5, decoder="bayes")
        assert list(again.feature_names_in_) == list(frame.columns)
        assert again.transform(frame).shape == (200, 32)
        with pytest.raises(ValueError, match="feature names"):
            again.transform(frame[frame.columns[::-1]])

    def test_errors(self, x, tmp_path):
        with pytest.raises(ValueError, match="is missing"):
            pr.Sketcher.from_profile(tmp_path / "none.json")
        profile = pr.Sketcher(decoder="linear").fit(x).profile_
        with pytest.raises(ValueError, match="bits is 99"):
            pr.Sketcher.from_profile(profile, bits=99)
        with pytest.raises(TypeError):
            pr.Sketcher.from_profile(profile, wavelet=1)


class TestErrors:
    def test_not_fitted(self, x):
        sketcher = pr.Sketcher()
        for method in (
            lambda: sketcher.transform(x),
            lambda: sketcher.encode(x),
            lambda: sketcher.inverse_transform(x),
            lambda: sketcher.decode(None),
            lambda: sketcher.plan(ratio=0.5),
            lambda: sketcher.loss(),
            lambda: sketcher.losses(),
        ):
            with pytest.raises(NotFittedError):
                method()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, x, bad):
        wrong = x.copy()
        wrong[3, 4] = bad
        fitted = pr.Sketcher(0.5, decoder="linear").fit(x)
        for rows in (wrong, scipy.sparse.csr_array(wrong)):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                pr.Sketcher().fit(rows)
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                fitted.transform(rows)
        codes = fitted.transform(x)
        codes[2, 3] = np.inf
        with pytest.raises(ValueError, match="codes holds infinity; allowed: finite numbers, and NaN"):
            fitted.inverse_transform(codes)

    def test_rows(self, x):
        fitted = pr.Sketcher(0.5, decoder="linear").fit(x)
        with pytest.raises(ValueError, match="features"):
            fitted.transform(x[:, :5])
        with pytest.raises(ValueError, match="rows holds -1"):
            fitted.transform(x - 1)
        with pytest.raises(ValueError, match="features"):
            fitted.partial_fit(x[:, :5])
        with pytest.raises(ValueError, match=r"X has shape|X is"):
            fitted.inverse_transform(np.zeros((3, 5)))
        with pytest.raises(ValueError, match="nothing but zeros"):
            pr.Sketcher().fit(np.zeros((5, N)))
        with pytest.raises(ValueError, match="minimum of 2"):
            pr.Sketcher().fit(x[:, :1])
        with pytest.raises(ValueError, match="codes are of"):
            fitted.decode(pr.Codes(np.zeros((2, 32)), pr.Rug(N, 32, 7)))

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"ratio": 2.0}, "ratio is 2.0"),
            ({"n_dense": 0}, "n_dense is 0"),
            ({"target_loss": -1.0}, "target_loss is"),
            ({"bits": 17}, "bits is 17"),
            ({"bits": "auto"}, "bits is 'auto'"),
            ({"decoder": "wavelet"}, "decoder is 'wavelet'"),
            ({"seed": -1}, "seed is -1"),
        ],
    )
    def test_parameters(self, x, parameters, message):
        with pytest.raises(ValueError, match=message):
            pr.Sketcher(**parameters).fit(x)


class TestPredictions:
    @pytest.mark.parametrize(
        ("decoder", "ratio"), [("linear", 0.25), ("relu", 0.25), ("bayes", 0.25), ("bayes", 0.5)]
    )
    def test_of_rates_by_zipf(self, decoder, ratio):
        n = 1024
        source = pr.SparseTruncatedNormal(pr.zipf_rates(n, 0.03), 0.5, 1.0)
        fitted = pr.Sketcher(ratio, decoder=decoder).fit(source.sample(3000, n, seed=0).numpy())
        found = losses(fitted.sketch_, source.sample(600, n, seed=1).numpy())
        stderr = found.std(ddof=1) / np.sqrt(len(found))
        error = 3 * np.hypot(stderr, fitted.plan_.stderr) + 0.03 * found.mean()
        assert fitted.loss() == pytest.approx(found.mean(), abs=error)
        assert fitted.plan_.law == pytest.approx(found.mean(), abs=3 * stderr + 0.03 * found.mean())
        assert fitted.losses().mean() == pytest.approx(fitted.plan_.law, rel=0.06)

    @pytest.mark.parametrize("decoder", ["linear", "relu", "bayes"])
    @pytest.mark.parametrize("ratio", [0.25, 0.5])
    def test_of_the_cells(self, decoder, ratio):
        cells = pr.read_rows("examples/data/pbmc68k_reduced.npz")
        order = np.random.default_rng(0).permutation(cells.shape[0])
        half = cells.shape[0] // 2
        fitted = pr.Sketcher(ratio, decoder=decoder).fit(cells[order[:half]])
        found = losses(fitted.sketch_, cells[order[half:]])
        stderr = found.std(ddof=1) / np.sqrt(len(found))
        error = 3 * np.hypot(stderr, fitted.plan_.stderr) + 0.1 * found.mean()
        assert fitted.loss() == pytest.approx(found.mean(), abs=error)
