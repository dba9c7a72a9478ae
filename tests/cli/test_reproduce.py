"""`persianrug reproduce` as a process, and what its plans promise."""

import json
import os
import resource
import signal
import time

import pytest
from PIL import Image

from persianrug.paper.pictures import FIGURES
from persianrug.paper.plan import PLANS, sweeps
from tests.conftest import ENDED, refused


def test_plans_are_what_is_promised():
    full, quick = PLANS["full"], PLANS["quick"]
    assert (full.sizes, full.side) == ((128, 1024, 8192), 20)
    assert max(quick.sizes + quick.curve_sizes + quick.budget_sizes + (quick.shown_n,)) <= 256
    for plan in (full, quick):
        planned = sweeps(plan)
        assert {name for figure in FIGURES.values() for name in figure.sweeps} == set(planned)
        assert planned["ratio-rug"].n_sparse == planned["plane-rug"].n_sparse == (8192,)
        assert planned["ratio-trained"].p == (0.001, 0.01, 0.05, 0.1, 0.4, 0.6)
        assert planned["p-trained"].ratio == (0.01, 0.1, 0.3, 0.5, 0.8)
        plane = planned["plane"]
        assert (plane.p[0], plane.p[-1], len(plane.p)) == (0.002, 0.8, plan.side)
        assert plane.p == plane.ratio
        assert len({sweep.digest for sweep in planned.values()}) == len(planned)


def test_a_figure(run, tmp_path):
    result = run("reproduce", "--figure", "rug", "--out", "here")
    assert result.returncode == 0
    assert result.stdout == "here/figures/rug.png\nhere/figures/rug.svg\n"
    assert result.stderr == ""
    with Image.open(tmp_path / "here" / "figures" / "rug.png") as picture:
        picture.load()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--figure", "moon"), "figure is 'moon'; allowed: rug, weights, loss-ratio"),
        (("--quick", "--full"), "allowed: one of them"),
        (("--jobs", 0, "--figure", "rug"), "jobs is 0; allowed: an integer >= 1"),
        (("--out", "full", "--figure", "rug"), "which holds something else; allowed: a new folder, or --force"),
        (("--out", "other", "--figure", "rug"), "which holds a full reproduction; allowed: another folder"),
        (("--out", "file", "--figure", "rug"), "which is a file; allowed: a folder"),
        (("--out", "no/where", "--figure", "rug"), "is missing; allowed: an existing folder"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, options, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "reproduction.json").write_text(
        json.dumps({"format": "persianrug.reproduction", "plan": "full"})
    )
    (tmp_path / "file").write_text("")
    assert words in refused(run("reproduce", *options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "other"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_force_writes_beside_what_is_there(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    result = run("reproduce", "--figure", "rug", "--out", "full", "--force")
    assert result.returncode == 0
    assert (tmp_path / "full" / "thesis.tex").read_text() == "mine"
    assert (tmp_path / "full" / "figures" / "rug.png").is_file()


def test_a_store_of_another_program_in_the_folder(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "reproduction.json").write_text(json.dumps({"format": "persianrug.reproduction", "plan": "quick"}))
    (out / "runs.sqlite").write_bytes(b"no database" * 100)
    assert "is no SQLite database" in refused(run("reproduce", "--figure", "recovery", "--out", "out"))


def test_a_full_disk_is_one_line_and_leaves_nothing_half(run, run_apart, tmp_path):
    result = run_apart(
        "reproduce", "--figure", "rug", "--out", "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert "too large" in refused(result)
    assert list((tmp_path / "out" / "figures").iterdir()) == []
    assert run("reproduce", "--figure", "rug", "--out", "out").returncode == 0


def done(run):
    """Runs in the store of a reproduction."""
    result = run("sweep", "status", "--store", "out/runs.sqlite", "--json")
    return sum(sweep["done"] for sweep in json.loads(result.stdout)["sweeps"]) if result.returncode == 0 else 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_it_goes_on(start, run, tmp_path, how):
    arguments = ["reproduce", "--figure", "recovery", "--out", "out", "--jobs", "1"]
    process = start(*arguments)
    deadline = time.monotonic() + 60
    before = 0
    while not before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
        if (tmp_path / "out" / "runs.sqlite").exists():
            before = done(run)
    assert before < 144
    os.killpg(process.pid, how)
    out, err = process.communicate(timeout=60)
    assert out == ""
    code, said = ENDED.get(how, (-how, ""))
    # First it says how long it will take.
    assert (process.returncode, err.splitlines(keepends=True)[1:]) == (code, [said] * bool(said))
    assert not list(tmp_path.glob("out/**/*.tmp"))
    assert before <= done(run) < 144
    result = run(*arguments)
    assert result.returncode == 0
    assert result.stdout.splitlines() == ["out/figures/recovery.png", "out/figures/recovery.svg"]
    report = json.loads(run("sweep", "status", "--store", "out/runs.sqlite", "--json").stdout)
    assert [(sweep["done"], sweep["failed"]) for sweep in report["sweeps"]] == [(144, 0)]
