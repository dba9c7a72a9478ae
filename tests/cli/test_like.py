"""Codes of more rows, as in a file that is there and holds the sketch of both."""

import re
import shutil

import numpy as np
import pytest

import persianrug as pr
from tests.cli.helpers import of_json, ran
from tests.conftest import invoke, refused


@pytest.fixture(scope="module")
def one(made, tmp_path_factory):
    """Codes that others are like."""
    path = tmp_path_factory.mktemp("like") / "one.rug"
    options = ("--profile", "profile.json", "--ratio", 0.5, "--bits", 8, "--out", path)
    ran(invoke(made.folder, "compress", "y.npy", *options))
    return path


@pytest.fixture
def folder(here, one):
    shutil.copy(one, here)
    return here


def test_more_rows_as_in_a_file(folder, run, made):
    np.save(folder / "z.npy", made.y[:50])
    said = ran(run("compress", "z.npy", "--like", "one.rug", "--out", "two.rug"))
    assert "two.rug: 50 rows of 512 features in" in said
    assert "; one.rug holds the sketch of both files and must stay beside two.rug" in said
    report = of_json(run("compress", "z.npy", "--like", "two.rug", "--out", "three.rug", "--json"))
    assert (report["like"], report["rows"], report["bits"]) == ("one.rug", 50, 8)
    assert "its sketch is in one.rug, which must stay beside it" in ran(run("inspect", "two.rug"))
    assert of_json(run("inspect", "three.rug", "--json"))["like"] == "one.rug"
    measured = of_json(run("verify", "two.rug", "--data", "z.npy", "--json"))
    assert measured["measured"] < 2 * measured["expected"] + 1e-6
    ran(run("decompress", "two.rug", "--out", "back.npy"))
    with pr.RugReader(folder / "one.rug") as one, pr.RugReader(folder / "two.rug") as two:
        assert np.allclose(np.asarray(one[:50]), np.asarray(two[:]))
    (folder / "one.rug").unlink()
    missing = refused(run("inspect", "two.rug"))
    assert "two.rug needs one.rug beside it" in missing
    assert missing.count("allowed") == 1


def test_whose_factors_they_are(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("x.npy", np.maximum(1 + rng.standard_normal((200, 2)) @ rng.standard_normal((2, 32)), 0))
    ran(run("compress", "x.npy", "--ratio", 0.5, "--decoder", "lmmse", "--out", "one.rug"))
    ran(run("compress", "x.npy", "--like", "one.rug", "--out", "two.rug"))
    assert re.search(r"with \d+ factors, [\d.]+ kB of the file, ", ran(run("inspect", "one.rug")))
    assert re.search(r"with \d+ factors, [\d.]+ kB of one.rug, ", ran(run("inspect", "two.rug")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--like none.rug --out two.rug", "rug file none.rug is missing"),
        ("--like one.rug --out two.rug --ratio 0.5", "--ratio is 0.5; allowed with --like: no --ratio"),
        ("--like one.rug --out two.rug --bits 4", "--bits is 4; allowed with --like"),
        ("--like one.rug --out two.rug --decoder bayes", "--decoder is bayes; allowed with --like"),
        ("--like one.rug --out two.rug --seed 1", "--seed is 1; allowed with --like"),
        ("--like one.rug --out two.rug --profile profile.json", "--profile is profile.json; allowed with --like"),
        ("--like one.rug --out one.rug", "--like is one.rug, which is --out, too; allowed: another file"),
        (
            "--like one.rug --out there/two.rug",
            "--like is one.rug; allowed: a file in the folder of there/two.rug",
        ),
        ("--like one.rug --out -", "--out is -; allowed with --like: a file in the folder of one.rug"),
        ("--like profile.json --out two.rug", "is no rug file"),
    ],
)
def test_what_does_not_go_together(options, said, folder, run):
    (folder / "there").mkdir(exist_ok=True)
    before = (folder / "one.rug").read_bytes()
    assert said in refused(run("compress", "y.npy", *options.split()))
    assert (folder / "one.rug").read_bytes() == before
    assert not (folder / "two.rug").exists()


def test_other_features_are_refused(folder, run):
    np.save(folder / "w.npy", np.ones((5, 12)))
    said = refused(run("compress", "w.npy", "--like", "one.rug", "--out", "two.rug"))
    assert "data in w.npy has 12 features; allowed: 512, as are in one.rug" in said
