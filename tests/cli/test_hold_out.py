"""Rows that belong together by a column of the file, a session or a patient, are held out together."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

import persianrug as pr
from persianrug._support.terminal import console
from persianrug.cli.sketch import _say_plan
from tests.cli.helpers import of_json, ran
from tests.conftest import refused

with warnings.catch_warnings(action="ignore"):
    import anndata
    import pandas

ROWS, N = 240, 12
NAMES = [f"cell {place}" for place in range(N)]
DONORS = np.array([f"donor {place % 5}" for place in range(ROWS)])


@pytest.fixture
def x(tmp_path):
    """The same rows in a file of each kind; row k holds k + 1 in its first feature, so that it is known again."""
    x = pr.SparseUniform(0.4).sample(ROWS, N, seed=0).numpy()
    x[:, 0] = np.arange(1, ROWS + 1)
    values = {"donor": DONORS, "day": np.arange(ROWS) % 2, "site": np.full(ROWS, "one")}
    obs = pandas.DataFrame(values, index=[f"row {place}" for place in range(ROWS)])
    obs["kind"] = pandas.Categorical(np.where(np.arange(ROWS) < 30, "a", "b"))
    anndata.AnnData(x, obs, pandas.DataFrame(index=NAMES)).write_h5ad(tmp_path / "x.h5ad")
    table = pandas.DataFrame(x, columns=NAMES)
    table.assign(donor=DONORS).to_parquet(tmp_path / "x.parquet")
    table.set_index(pandas.Index(DONORS, name="donor")).to_parquet(tmp_path / "index.parquet")
    np.save(tmp_path / "x.npy", x)
    return x


def held(tmp_path, file="profile.json"):
    profile = pr.Profile.load(tmp_path / file)
    return profile, np.sort(profile.held_out.toarray()[:, 0]).astype(int) - 1


@pytest.mark.parametrize("file", ["x.h5ad", "x.parquet", "index.parquet"])
def test_all_rows_of_some_values(file, x, tmp_path, run):
    said = ran(run("fit", file, "--hold-out", "column:donor", "--out", "profile.json"))
    assert "192 rows, 48 held out" in said
    profile, rows = held(tmp_path)
    assert len(set(DONORS[rows])) == 1
    assert (profile.names, profile.rows) == (tuple(NAMES), 192)
    # Another seed, another donor.
    others = set()
    for seed in range(6):
        ran(run("fit", file, "--hold-out", "column:donor", "--seed", seed, "--out", "profile.json"))
        others |= set(DONORS[held(tmp_path)[1]])
    assert len(others) > 1


def test_categories_and_the_value_of_fewest_rows(x, tmp_path, run):
    ran(run("fit", "x.h5ad", "--hold-out", "column:kind", "--out", "profile.json"))
    assert held(tmp_path)[1].tolist() == list(range(30))
    ran(run("fit", "x.h5ad", "--hold-out", "column:day", "--out", "profile.json"))
    assert len(held(tmp_path)[1]) == 120


def test_compress_fits_so(x, tmp_path, run):
    options = ("--hold-out", "column:donor", "--ratio", 0.5, "--decoder", "linear", "--out", "x.rug")
    said = ran(run("compress", "x.parquet", *options))
    assert "240 rows of 12 features" in said
    assert "on 48 rows held out in 1 block" in said


@pytest.mark.parametrize(
    ("file", "column", "said"),
    [
        ("x.h5ad", "patient", "its obs has no column 'patient'; allowed: day, donor, kind, site"),
        ("x.h5ad", "", "its obs has no column ''"),
        ("x.parquet", "patient", "it has no column 'patient'; allowed: one of its 13 columns"),
        ("x.npy", "donor", "column is 'donor'; allowed with .h5ad and .parquet files, and the data is x.npy"),
        ("x.h5ad", "site", "--hold-out is 'column:site', which says the same of all rows; allowed"),
    ],
)
def test_columns_that_do_not_serve(file, column, said, x, tmp_path, run):
    assert said in refused(run("fit", file, "--hold-out", f"column:{column}", "--out", "profile.json"))
    assert not (tmp_path / "profile.json").exists()


class TestARecording:
    """Rows that follow each other: what fit and plan say of how they were held out."""

    ANOTHER = "rows of another session may differ by more; fit --hold-out OTHER measures that"
    PLAN = ("--ratio", 0.5, "--decoder", "lmmse")

    @pytest.fixture
    def walk(self, tmp_path):
        rng = np.random.default_rng(0)
        directions = rng.standard_normal((2, 24))
        directions[:, 0] = 0
        for name in ("one", "two"):
            steps = np.cumsum(rng.standard_normal((160, 2)), axis=0) / 4
            rows = np.maximum(1 + steps @ directions, 0)
            rows[:, 0] = 0
            np.save(tmp_path / f"{name}.npy", rows)

    def test_blocks(self, walk, run):
        said = ran(run("fit", "one.npy", "--out", "profile.json"))
        assert "120 rows, 40 held out in 4 blocks\n" in said
        assert "times as far as a row drawn at random, in squared distance\n" in said
        unseen = "1 of the features were never active: their distributions are guesses, which do no harm if they"
        assert f"{unseen} stay 0\n" in said
        planned = ran(run("plan", "profile.json", *self.PLAN))
        assert "on 40 rows held out in 4 blocks\n" in planned
        assert self.ANOTHER in planned
        assert f"{unseen} stay 0\n" in planned
        assert of_json(run("plan", "profile.json", *self.PLAN, "--json"))["held_by"] == "blocks"

    def test_another_file(self, walk, run):
        said = ran(run("fit", "one.npy", "--hold-out", "two.npy", "--out", "profile.json"))
        assert "160 rows, 160 rows of two.npy held out (error from 4 blocks)\n" in said
        planned = ran(run("plan", "profile.json", *self.PLAN))
        assert "on 160 rows of another file held out (error from 4 blocks)\n" in planned
        assert self.ANOTHER not in planned

    def test_drawn_rows(self, walk, run):
        assert "120 rows, 40 held out\n" in ran(
            run("fit", "one.npy", "--hold-out", "random", "--out", "profile.json")
        )
        planned = ran(run("plan", "profile.json", *self.PLAN))
        assert "on 40 rows held out\n" in planned
        assert self.ANOTHER not in planned


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (0.4, "are better here, by 1 ± 0.4 on the same rows: these features are far from independent"),
        (0.6, "lose less here, by 1 ± 0.6 on the same rows, which is not beyond doubt"),
        (None, None),
    ],
)
def test_components_that_lose_less(stderr, said, capsys):
    x = np.random.default_rng(0).random((60, 8))
    fitter = pr.ProfileFitter(8)
    fitter.add(x)
    profile = fitter.profile()
    plan = replace(pr.make_plan(profile, ratio=0.5)[0], held_out=3.0, pca=2.0, pca_stderr=stderr)
    _say_plan(console(), plan, profile)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("principal components")]
    assert lines == ([] if said is None else [f"principal components, a linear code too, {said}"])
