"""The package as a whole: its names, how soon it is there, and how it is built."""

import ast
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import persianrug as pr

SOURCE = Path(pr.__file__).parent
MODULES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))

# What could be imported from the package before it had folders.
NAMES = [
    "OAMP", "Autoencoder", "Bayes", "Channel", "Codes", "Decoder", "Dense", "Empirical", "Encoder",
    "FeatureLaws", "Gated", "Gaussian", "JumpReLU", "Knot", "KnottedRug", "LawFitter", "Linear", "Measurement",
    "Mixture", "Plan", "ProLU", "ReLU", "Rug", "RugReader", "RugWriter", "Sketch", "Sketcher", "SoftThreshold",
    "Source", "SparseConstant", "SparseExponential", "SparseGaussian", "SparseHalfNormal",
    "SparseTruncatedNormal", "SparseUniform", "Symmetry", "TopK", "encoder_gains", "load", "make_plan",
    "measure_symmetry", "noise_level", "read_rows", "recovery_threshold", "relu_bounds", "zipf_rates",
]  # fmt: skip

FOLDERS = [
    "decoders", "encoders", "figures", "integrations", "knots", "networks", "paper", "sketches", "skin",
    "sources", "sweeps",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_public_names_stay(name):
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        found = getattr(pr, name)
    assert callable(found)
    assert name in dir(pr) or name in ("FeatureLaws", "LawFitter")


def test_names_that_have_changed_say_so():
    with pytest.warns(DeprecationWarning, match=r"persianrug\.FeatureLaws is now persianrug\.Profile") as caught:
        assert pr.FeatureLaws is pr.Profile
    # Of the line that uses the name, not of ours.
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"persianrug\.LawFitter is now persianrug\.ProfileFitter"):
        assert pr.LawFitter is pr.ProfileFitter


def test_unknown_names_are_no_attributes():
    with pytest.raises(AttributeError, match="weave_rug"):
        _ = pr.weave_rug


@pytest.mark.parametrize("name", [*FOLDERS, "autoencoder", "channel", "saving", "transforms"])
def test_submodules_are_attributes(name):
    # As for who has imported nothing else: a module that was imported is an attribute of its package anyway.
    assert pr.__getattr__(name).__name__.startswith("persianrug.")
    assert name in pr.__all__


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_name_of_a_folder_can_be_imported(folder):
    module = importlib.import_module(f"persianrug.{folder}")
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_nothing_heavy_is_imported_with_the_package():
    code = "import sys, persianrug; print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def imports(path):
    """Modules that a file imports anywhere, and the names taken from each."""
    for node in ast.walk(ast.parse((SOURCE / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("persianrug"):
            yield node.module.split("."), [alias.name for alias in node.names]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_private_names_are_not_imported_across_folders(path):
    folder = ["persianrug", *path.parts[:-1]]
    for module, names in imports(path):
        if module[: len(folder)] != folder or len(module) - len(folder) > 1:
            assert not [part for part in module if part.startswith("_") and part != "_support"]
            assert not [name for name in names if name.startswith("_") and not name.startswith("__")]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_files_are_short(path):
    assert len((SOURCE / path).read_text().splitlines()) <= 500
