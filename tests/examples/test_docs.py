"""Every command and every Python block of the pages runs, page by page, in a folder of the page's own."""

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

from persianrug.sweeps.sweep import Sweep
from tests.conftest import invoke

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?(persianrug .*)$", re.MULTILINE)

# What cannot be run here, by a line of it, and why not.
LEFT_OUT = {
    "persianrug reproduce --quick --out reproduction": "takes minutes; tests/paper runs a smaller plan whole",
    "persianrug reproduce --full --out paper": "takes days",
    "persianrug reproduce --figure budget": "trains for minutes",
    "insoles": "takes a minute; test_tutorial runs them and compares what they print",
    "more.rug": "is written with the insoles",
    "mattress_01": "as the insoles",
    "mattress.json": "as the insoles",
    "persianrug skin receive ": "waits for a sender; tests/cli/test_skin_stream.py starts both",
    "persianrug skin send ": "takes seconds, and shows little alone",
    "persianrug robot spot --out run/ --seed 1": "takes a minute; tests/cli/test_robot.py runs a toy",
    "persianrug robot bench spot --trials 30 --jobs 2": "takes many minutes",
    "model = DistributedDataParallel(network)": "is one of several processes; tests/integrations starts them",
}
# What is run with less to do, so that what follows has what it needs.
SHORTENED = {
    "persianrug knots --p 0.045 --ratio 0.25 --budget 30s --out knot.json": ("30s", "2s"),
    "--n-sparse 128,256 --method relu,sampled --jobs 2": (
        "--p 0.002:0.8:20 --ratio 0.1,0.25 --n-sparse 128,256 --method relu,sampled",
        "--p 0.1 --ratio 0.25 --n-sparse 128",
    ),
    "sweep = pr.sweeps.Sweep(p=(0.01, 0.045), ratio=(0.1, 0.25))": (
        "ratio=(0.1, 0.25))", "ratio=(0.1, 0.25), n_sparse=(512,))",
    ),
}  # fmt: skip


def steps(page):
    """The commands of a page, without `$` and comments, and its Python blocks, by language."""
    for language, text in BLOCK.findall((ROOT / page).read_text()):
        if language == "python":
            yield language, text
        elif not language:
            for line in COMMAND.findall(text):
                yield "persianrug", shlex.join(shlex.split(line, comments=True))


def told(step, lines):
    """The line of a list that a step has, or None."""
    return next((line for line in lines if line in step), None)


def repeated(page, step):
    """Whether a page before has the same command, which writes nothing that others need."""
    before = PAGES[: PAGES.index(page)]
    reads = step.startswith(tuple(f"persianrug {command} " for command in ("solve", "plan", "inspect", "verify")))
    return reads and any((one, "persianrug", step) in STEPS for one in before)


STEPS = [(page, *step) for page in PAGES for step in steps(page)]


def test_the_pages_have_their_steps():
    commands = [step for _, language, step in STEPS if language == "persianrug"]
    assert len(commands) >= 30
    assert len(STEPS) - len(commands) >= 15
    # Nothing is listed that is not there any more.
    for line in (*LEFT_OUT, *SHORTENED):
        assert any(line in step for _, _, step in STEPS), line


@pytest.mark.slow
@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("page", [page for page in PAGES if any(page == one for one, *_ in STEPS)])
def test_a_page_runs(page, tmp_path):
    # As in a clone of the repository, with the copy that docs/sketches.md starts with.
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "examples" / "data")
    shutil.copy(ROOT / "examples" / "data" / "pbmc68k_reduced.npz", tmp_path / "cells.npz")
    for name in ("pull.npz", "taxels.npz"):
        shutil.copy(ROOT / "examples" / "data" / name, tmp_path)
    names = {"__name__": page}
    for language, step in steps(page):
        if told(step, LEFT_OUT) or repeated(page, step):
            continue
        line = told(step, SHORTENED)
        shorter = step.replace(*SHORTENED[line]) if line else step
        assert (shorter != step) == (line is not None)
        if language == "python":
            with contextlib.chdir(tmp_path):
                exec(compile(shorter, page, "exec"), names)
        else:
            result = invoke(tmp_path, *shlex.split(shorter)[1:])
            assert (result.returncode, result.stderr) == (0, ""), step
            assert result.stdout.strip(), step


def test_grids_are_read(tmp_path):
    grids = [
        text for page in PAGES for language, text in BLOCK.findall((ROOT / page).read_text()) if language == "toml"
    ]
    assert grids
    for text in grids:
        (tmp_path / "plane.toml").write_text(text)
        assert len(Sweep.read(tmp_path / "plane.toml")) > 1
