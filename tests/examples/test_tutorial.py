"""docs/sketches.md and docs/skin.md: their commands, run one after the other, print what they say they print."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import invoke

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- run -->\n```(python)?\n(.*?)```(?:\n```\n(.*?)```)?", re.DOTALL)
STEPS = {
    page: [match.groups() for match in BLOCK.finditer((ROOT / "docs" / f"{page}.md").read_text())]
    for page in ("sketches", "skin")
}
NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copy(ROOT / "examples" / "data" / "pbmc68k_reduced.npz", folder / "cells.npz")
    for name in ("insoles_0", "insoles_1", "mattress_0", "mattress_1", "pull", "taxels"):
        shutil.copy(ROOT / "examples" / "data" / f"{name}.npz", folder)
    return folder


def alike(said, printed):
    """Whether words are the same and numbers nearly: processors round differently, and a cell more may be lost."""
    if NUMBER.sub("#", said).split() != NUMBER.sub("#", printed).split():
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True)
    return all(float(one) == pytest.approx(float(other), rel=0.1, abs=0.05) for one, other in pairs)


def test_the_tutorials_have_their_steps():
    assert {page: len(steps) for page, steps in STEPS.items()} == {"sketches": 16, "skin": 3}
    assert [step[0] for steps in STEPS.values() for step in steps].count("python") == 3


# In order, since each needs what those before have written.
@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("page", STEPS)
def test_every_step_prints_what_it_says(folder, command_environment, page):
    for language, text, after in STEPS[page]:
        if language == "python":
            said = after or ""
            result = subprocess.run(
                [sys.executable, "-W", "error::DeprecationWarning", "-c", text], cwd=folder,
                env=command_environment, timeout=300, capture_output=True, text=True, check=False,
            )  # fmt: skip
        else:
            line, _, said = text.partition("\n")
            assert line.startswith("$ persianrug ")
            result = invoke(folder, *line.removeprefix("$ persianrug ").split())
        assert result.returncode == 0, result.stderr
        assert alike(said, result.stdout), f"{text}\nsaid:\n{said}\nprinted:\n{result.stdout}"


def test_alike_tells_them_apart():
    assert alike("a 0.0193 b", "a 0.0195 b")
    assert not alike("a 0.5 b", "a 0.7 b")
    assert not alike("a 1 b", "a 1 c")
