"""Names of rows and features from files of AnnData and pandas through codes and back, and layers."""

import warnings

import numpy as np
import pytest
import scipy.sparse

from tests.cli.helpers import of_json, ran
from tests.conftest import refused

with warnings.catch_warnings(action="ignore"):
    import anndata
    import pandas

ROWS, N = 60, 40
GENES = [f"gene {place}" for place in range(N)]
CELLS = [f"cell {place}, größer" for place in range(ROWS)]


@pytest.fixture
def x(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.integers(1, 200, (ROWS, N)) * (rng.random((ROWS, N)) < 0.2)).astype("f4")
    frame = pandas.DataFrame(x, index=CELLS, columns=GENES)
    frame.to_parquet(tmp_path / "x.parquet")
    data = anndata.AnnData(frame, layers={"raw": scipy.sparse.csr_matrix(x[::-1]), "none": np.zeros_like(x)})
    data.write_h5ad(tmp_path / "x.h5ad")
    return x


@pytest.mark.parametrize("kind", ["h5ad", "parquet"])
def test_they_come_back(kind, x, tmp_path, run):
    ran(run("compress", f"x.{kind}", "--ratio", 1, "--out", "x.rug"))
    assert of_json(run("inspect", "x.rug", "--json"))["row_names"] is True
    for out in ("y.h5ad", "y.parquet", "y.npy", "y.npz"):
        ran(run("decompress", "x.rug", "--out", out))
    for found in (anndata.read_h5ad(tmp_path / "y.h5ad").to_df(), pandas.read_parquet(tmp_path / "y.parquet")):
        assert (list(found.index), list(found.columns)) == (CELLS, GENES)
        assert np.allclose(found.to_numpy(), x, atol=2)
    # Again from what was written.
    ran(run("compress", "y.parquet", "--ratio", 1, "--out", "z.rug"))
    ran(run("decompress", "z.rug", "--out", "z.h5ad"))
    assert list(anndata.read_h5ad(tmp_path / "z.h5ad").obs_names) == CELLS


def test_rows_without_names(x, tmp_path, run):
    np.save(tmp_path / "x.npy", x)
    ran(run("compress", "x.npy", "--ratio", 1, "--out", "x.rug"))
    assert of_json(run("inspect", "x.rug", "--json"))["row_names"] is False
    ran(run("decompress", "x.rug", "--out", "y.parquet"))
    found = pandas.read_parquet(tmp_path / "y.parquet")
    assert list(found.columns) == [str(place) for place in range(N)]
    assert np.allclose(found.to_numpy(), x, atol=2)


def test_a_layer(x, tmp_path, run):
    ran(run("fit", "x.h5ad", "--layer", "raw", "--out", "raw.json"))
    ran(run("compress", "x.h5ad", "--layer", "raw", "--profile", "raw.json", "--ratio", 1, "--out", "x.rug"))
    ran(run("decompress", "x.rug", "--out", "y.npy"))
    assert np.allclose(np.load(tmp_path / "y.npy"), x[::-1], atol=2)
    own, other = (
        of_json(run("verify", "x.rug", "--data", "x.h5ad", *layer, "--json"))["measured"]
        for layer in (("--layer", "raw"), ())
    )
    assert own < 0.01 * other


@pytest.mark.parametrize("command", ["fit", "compress"])
def test_a_layer_that_is_not_there(command, x, tmp_path, run):
    out = ("--out", "p.json") if command == "fit" else ("--ratio", 1, "--out", "x.rug")
    message = refused(run(command, "x.h5ad", "--layer", "counts", *out))
    assert "it has no layer 'counts'; allowed: none, raw" in message
    message = refused(run(command, "x.parquet", "--layer", "counts", *out))
    assert "layer is 'counts'; allowed with a .h5ad file alone" in message
    anndata.AnnData(x).write_h5ad(tmp_path / "x.h5ad")
    message = refused(run(command, "x.h5ad", "--layer", "counts", *out))
    assert "it has no layer 'counts'; allowed: none, since it has no layers" in message
    assert "--layer is 'counts'; allowed with --data" in refused(run("verify", "x.rug", "--layer", "counts"))
