"""The paper's figures and claims: all there, none empty, from runs that are made once; and what is refused."""

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

import persianrug as pr
from persianrug.paper import claims as claims_module
from persianrug.paper import estimate as estimate_module
from persianrug.paper import pictures
from persianrug.paper import plan as plan_module
from persianrug.paper.build import reproduce
from persianrug.paper.claims import claims, table
from persianrug.paper.data import Data
from persianrug.paper.estimate import estimate
from persianrug.paper.pictures import FIGURES
from persianrug.paper.plan import Plan, sweeps
from persianrug.sweeps import running

TINY = Plan(
    "tiny", sizes=(16, 24), curve_sizes=(16,), side=2, curve_points=2, rug_points=3, steps=20, batch=64,
    budget_sizes=(8, 16), budget_steps=(5, 20), budget_seeds=(0, 1), shown_n=40, shown_steps=20,
    recovery_side=3, recovery_n=128, recovery_samples=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    """The same figures of a few points, at sizes that take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_CURVE_P", (0.1, 0.3))
        patch.setattr(plan_module, "_CURVE_RATIOS", (0.5,))
        patch.setattr(plan_module, "_BUDGET_POINTS", ((0.3, 0.5), (0.3, 0.6), (0.3, 0.75)))
        patch.setattr(plan_module, "RUG", 512)
        patch.setattr(pictures, "RUG", 512)
        patch.setattr(plan_module, "_RARE_N", 1 << 14)
        yield


@pytest.fixture(scope="module")
def built(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduction") / "out"
    said = []
    written = reproduce(TINY, folder, jobs=1, say=said.append)
    return folder, written, said


@pytest.mark.slow
def test_everything_is_written(built):
    folder, written, said = built
    assert all(path.is_file() and path.stat().st_size > 0 for path in written)
    kinds = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {str(path.relative_to(folder)) for path in written} == kinds | {"index.html", "claims.csv"}
    # Nothing temporary is left.
    assert {path.name for path in folder.iterdir()} - {"runs.sqlite-wal", "runs.sqlite-shm"} == {
        "claims.csv", "figures", "index.html", "reproduction.json", "runs.sqlite", "weights"
    }  # fmt: skip
    assert len(said) == 1
    assert "on 1 process, and" in said[0]


@pytest.mark.slow
def test_the_page_holds_all_of_it_and_needs_no_other_file(built):
    folder, _, _ = built
    page = (folder / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', page) == ["https://arxiv.org/abs/2410.12101"]
    pictures = re.findall(r'<figure id="([^"]*)">.*?base64,([^"]*)"', page, re.DOTALL)
    assert [name for name, _ in pictures] == list(FIGURES)
    for name, content in pictures:
        assert base64.b64decode(content) == (folder / "figures" / f"{name}.png").read_bytes()
    for word in ("persianrug", "torch", "numpy", "seeds"):
        assert word in page
    rows = list(csv.DictReader(io.StringIO((folder / "claims.csv").read_text())))
    assert len(rows) == len(
        re.findall(r'<tr><td>[^<]*</td><td>[^<]*</td><td>[^<]*</td><td>[^<]*</td><td class="', page)
    )
    assert {row["agrees"] for row in rows} <= {"yes", "no"}
    assert all(all(row.values()) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_no_panel_is_empty(built, name):
    folder, _, _ = built
    figure = FIGURES[name].draw(Data(TINY, folder, FIGURES[name].sweeps))
    assert figure.axes
    for axes in figure.axes:
        drawn = [line for line in axes.lines if np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any()]
        images = [image for image in axes.images if np.ma.count(image.get_array())]
        meshes = [part for part in axes.collections if part.get_array() is None or np.ma.count(part.get_array())]
        assert drawn or images or meshes or axes.patches, axes.get_title()
    assert any(axes.get_title() for axes in figure.axes)
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert all(axes.get_ylabel() for axes in figure.axes if axes.get_label() == "<colorbar>" and name != "ladder")
    with Image.open(folder / "figures" / f"{name}.png") as picture:
        picture.load()
        assert picture.width > 1000
        # More than a white page.
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


@pytest.mark.slow
def test_the_second_time_nothing_is_run_and_all_is_the_same(built, monkeypatch):
    folder, _, _ = built
    before = {path: path.read_bytes() for path in sorted(folder.glob("figures/*"))}
    numbers = (folder / "claims.csv").read_bytes()

    def fail(*_):
        raise AssertionError("it ran again")

    monkeypatch.setattr(running, "perform", fail)
    monkeypatch.setattr(estimate_module, "_seconds_per_work", fail)
    reproduce(TINY, folder, jobs=1, say=fail)
    assert {path: path.read_bytes() for path in before} == before
    assert (folder / "claims.csv").read_bytes() == numbers


def test_only_one_figure_whose_failed_runs_are_said_and_leave_the_rest(small, tmp_path, monkeypatch):
    perform = running.perform

    def sometimes(runs):
        if runs[0].p > 0.5:
            raise ValueError("no")
        return perform(runs)

    monkeypatch.setattr(running, "perform", sometimes)
    said = []
    written = reproduce(TINY, tmp_path / "out", jobs=1, figure="recovery", say=said.append)
    assert [path.name for path in written] == ["recovery.png", "recovery.svg"]
    assert not (tmp_path / "out" / "index.html").exists()
    rows = Data(TINY, tmp_path / "out", ("recovery",)).every
    assert {row["method"] for row in rows} == {"oamp"}
    failed = [line for line in said if line.startswith("a run failed")]
    assert len(failed) == 3
    assert failed[0].startswith("a run failed (oamp, n_sparse 128, p 0.8, ratio 0.006): no")


@pytest.mark.parametrize(
    ("name", "figure"), [("shown", "weights"), ("plane", "heatmap-bias"), ("rare", "scaling")]
)
def test_runs_that_all_fail_are_an_error_and_tried_again(small, tmp_path, monkeypatch, name, figure):
    perform = running.perform
    planned = sweeps(TINY)[name]

    def never(runs):
        if runs[0].n_sparse == planned.n_sparse[-1]:
            raise MemoryError
        return perform(runs)

    monkeypatch.setattr(running, "perform", never)
    with pytest.raises(ValueError, match=f"runs for {name} failed, the first with: MemoryError; allowed: as many"):
        reproduce(TINY, tmp_path / "out", jobs=1, figure=figure)
    monkeypatch.setattr(running, "perform", perform)
    assert len(reproduce(TINY, tmp_path / "out", jobs=1, figure=figure)) == 2


def test_the_estimate_is_of_what_is_left(small, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate_module, "_seconds_per_work", lambda _n, _batch: 1e-6)
    plane = sweeps(TINY)["plane"]
    whole = estimate([plane], tmp_path / "none.sqlite", 1)
    assert whole == pytest.approx(1e-6 * sum(run.work for run in plane.runs()))
    assert estimate([plane], tmp_path / "none.sqlite", 4) == pytest.approx(whole / 4)
    # What is not trained counts in trials on a rug: a run with a knot takes longest.
    monkeypatch.setattr(estimate_module, "_seconds_of_trial", lambda: 2.0)
    for name in ("ratio-rug", "ratio-knot"):
        each = estimate([sweeps(TINY)[name]], tmp_path / "none.sqlite", 1) / len(list(sweeps(TINY)[name].runs()))
        assert each == pytest.approx(18.0 if name == "ratio-knot" else 2.0, rel=0.7)
    running.run_sweep(plane, tmp_path / "runs.sqlite")
    assert estimate([plane], tmp_path / "runs.sqlite", 1) == 0


class Fake:
    """Runs that never were."""

    def __init__(self, data):
        self.plan, self.sweeps = data.plan, data.sweeps
        self.parts = {name: [dict(row) for row in data[name]] for name in data.sweeps}

    def __getitem__(self, name):
        return self.parts[name]


def falling(row, where):
    """Losses of which a tenth is gone at a ratio of `where` p."""
    return 0.9 * float(pr.SparseUniform(row["p"]).variance) - 0.1 * np.log(row["ratio"] / (where * row["p"]))


def found(data, words):
    return next(claim for claim in claims(data) if words in claim.claim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "which", "change", "agrees"),
    [
        ("closed form", "ratio-rug", {"measured": lambda row: row["predicted"]}, None),
        (
            "closed form",
            "ratio-rug",
            {"measured": lambda row: 1.1 * row["predicted"], "stderr": lambda _: 1e-9},
            "no",
        ),
        ("starts to fall", "ratio-rug", {"measured": lambda row: falling(row, 1.0)}, "yes"),
        ("starts to fall", "ratio-rug", {"measured": lambda row: falling(row, 3.0)}, "no"),
        ("trained models: n = 24", "plane", {"measured": lambda row: 1.01 * row["limit"]}, "yes"),
        ("trained models: n = 24", "plane", {"measured": lambda row: 0.7 * row["limit"]}, "no"),
        ("beat the optimal linear", "plane", {"measured": lambda _: 1e-9}, "yes"),
        ("beat the optimal linear", "plane", {"measured": lambda _: 1.0}, "no"),
        ("variance of diagonals", "plane", {"diagonal_variance": lambda row: 1 / row["n_sparse"]}, "yes"),
        ("variance of diagonals", "plane", {"diagonal_variance": lambda row: row["n_sparse"]}, "no"),
        ("is Gaussian", "plane", {"ks_p_value": lambda _: 0.4}, "yes"),
        ("is Gaussian", "plane", {"ks_p_value": lambda _: 0.001}, "no"),
        ("zero-mean noise", "plane", {"skewness": lambda _: 0.01}, "yes"),
        ("zero-mean noise", "plane", {"skewness": lambda _: -5.0}, "no"),
        ("high sparsity", "rare", {"measured": lambda _: 1.0}, "no"),
    ],
)
def test_a_claim_is_what_the_runs_say(built, words, which, change, agrees):
    folder, _, _ = built
    data = Fake(Data(TINY, folder, sweeps(TINY)))
    if agrees is None:
        # All that it looks at.
        rows = [row for name in ("ratio-rug", "p-rug", "plane-rug") for row in data[name]]
        agrees = "yes"
    else:
        rows = data[which]
    for row in rows:
        row.update({key: rule(row) for key, rule in change.items()})
    assert found(data, words).agrees == agrees


@pytest.mark.slow
def test_what_needs_no_training_agrees(built):
    folder, _, _ = built
    data = Data(TINY, folder, sweeps(TINY))
    assert found(data, "Hadamard").agrees == "yes"
    assert found(data, "as p → 0").agrees == "no"
    assert "1.97, 5.83, 8.26" in found(data, "as p → 0").measured
    rows = list(csv.reader(io.StringIO(table(claims(data)).decode())))
    assert rows[0] == ["claim", "section", "predicted", "measured", "agrees", "by_how_much"]


def test_losses_that_cross_a_level_are_interpolated():
    ratios = np.array([0.1, 0.2, 0.4])
    assert claims_module._crossing(ratios, np.array([3.0, 2.0, 1.0]), 1.5) == pytest.approx(0.2 * 2**0.5)
