"""Rows that belong together by a column of the file, a session or a patient, are held out together."""

import warnings

import numpy as np
import pytest

import persianrug as pr
from tests.cli.helpers import ran
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
