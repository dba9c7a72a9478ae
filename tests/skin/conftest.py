"""The short recording of examples/data, and its skin."""

from pathlib import Path

import numpy as np
import pytest

from persianrug.skin import Frames, Layout

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.fixture(scope="session")
def layout():
    return Layout.read(DATA / "taxels.npz")


@pytest.fixture(scope="session")
def frames():
    return Frames.read(DATA / "pull.npz")


@pytest.fixture(scope="session")
def truth():
    """The other arrays of the recording."""
    with np.load(DATA / "pull.npz") as parts:
        return {name: parts[name] for name in parts.files}


@pytest.fixture
def rng():
    return np.random.default_rng(0)
