import io
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import settings

import persianrug as pr

settings.register_profile("default", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("default")

# A signed, a discrete and a fitted one among them; scales other than 1 too.
EVERY_SOURCE = {
    "uniform": lambda p: pr.SparseUniform(p),
    "uniform-scaled": lambda p: pr.SparseUniform(p, scale=3.0),
    "exponential": lambda p: pr.SparseExponential(p, scale=0.5),
    "half-normal": lambda p: pr.SparseHalfNormal(p),
    "gaussian": lambda p: pr.SparseGaussian(p, scale=2.0),
    "constant": lambda p: pr.SparseConstant(p, scale=1.5),
    "empirical": lambda p: pr.Empirical(p, [0.3, 1.1, 2.0, -0.4], [1.0, 3.0, 2.0, 1.0]),
}


@pytest.fixture(params=EVERY_SOURCE)
def make_source(request):
    return EVERY_SOURCE[request.param]


@pytest.fixture
def command_environment():
    """An environment for a process: no terminal, no colour."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "120"}


COMMAND = [sys.executable, "-m", "persianrug"]


@pytest.fixture
def run(command_environment, tmp_path):
    """Run the command line as a process in a folder of its own."""

    def run(*arguments, timeout=100, **options):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], env=command_environment, cwd=tmp_path, timeout=timeout,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options,
        )  # fmt: skip

    return run


def refused(result):
    """One line on stderr, nothing on stdout, exit code 2."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("persianrug: ")
    return result.stderr


def saved(array, **arguments):
    """The bytes of a .npy file."""
    content = io.BytesIO()
    np.save(content, array, **arguments)
    return content.getvalue()


def forged_header(shape):
    """A .npy file whose header claims a shape, and some bytes."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return content.getvalue() + bytes(64)


# Those of a few numbers, which a general optimiser can check.
PARAMETRIC = [pr.Linear, pr.ReLU, pr.JumpReLU, pr.Gated, pr.ProLU, pr.SoftThreshold]


def kinds_for(source, kinds=PARAMETRIC):
    """The decoders that take a source."""
    return [kind for kind in kinds if not (kind.one_sided and source.signed)]
