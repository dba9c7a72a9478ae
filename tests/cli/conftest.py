"""Data, a profile and codes that the tests of sketches start from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.cli.helpers import FITTED, ROWS, SOURCE, N, ran
from tests.cli.skins import SIDE, blobs
from tests.conftest import invoke


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with data, other data of the same source, a profile of the first and codes of the second."""
    folder = tmp_path_factory.mktemp("sketches")
    x, y = (SOURCE.sample(ROWS, N, seed=seed, dtype=torch.float32).numpy() for seed in (0, 1))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    np.save(folder / "signed.npy", y - 0.5)
    np.save(folder / "zeros.npy", np.zeros((8, N)))
    np.save(folder / "nan.npy", np.where(np.arange(N) == 3, np.nan, y))
    np.save(folder / "narrow.npy", y[:, :64])

    def run(*arguments):
        return ran(invoke(folder, *arguments))

    said = {
        "fit": run("fit", "x.npy", "--out", "profile.json"),
        "compress": run("compress", "y.npy", *FITTED, "--ratio", 0.25, "--bits", 8,
                        "--decoder", "bayes", "--out", "y.rug"),
    }  # fmt: skip
    return SimpleNamespace(folder=folder, x=x, y=y, said=said)


@pytest.fixture(scope="session")
def mat(tmp_path_factory):
    """A folder with frames of a small skin, touch.npz and other.npz, and a profile of the first."""
    folder = tmp_path_factory.mktemp("skins")
    for name, count, start in (("touch", 200, 0.0), ("other", 100, 0.3)):
        np.savez(folder / f"{name}.npz", frames=blobs(count, start), time=0.01 * np.arange(count))
    options = ("--mat", f"{SIDE}x{SIDE}:0.01", "--out", "profile.npz")
    return SimpleNamespace(folder=folder, said=ran(invoke(folder, "skin", "fit", "touch.npz", *options)))


@pytest.fixture
def here(request, tmp_path, monkeypatch):
    """A folder of a test's own, with links to all that was made, which no test may overwrite.

    Where a test, or its module, takes `mat`, that is of its skin.
    """
    made = request.getfixturevalue("mat" if "mat" in request.fixturenames else "made")
    for path in made.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(here, run):
    """The command line, in that folder."""
    return run
