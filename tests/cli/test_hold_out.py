"""Which rows are held out, on the command line, of rows that follow each other."""

import re
import shutil

import numpy as np
import pytest

from tests.cli.helpers import of_json, ran
from tests.conftest import refused
from tests.sketches.test_recordings import DATA


@pytest.fixture
def walk(tmp_path):
    """A folder with two halves of a walk."""
    for name in ("insoles_0.npz", "insoles_1.npz"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path


def inspected(command):
    return ran(command("inspect", "c.rug"))


def test_blocks_are_held_out_and_another_half_is_read(walk, command):
    text = ran(command("fit", "insoles_0.npz", "--out", "p.json"))
    assert "profile of 1910 features from 76 rows, 27 held out in 4 blocks" in text
    assert re.search(r"^rows follow each other: the next is 0\.069 times as far as any", text, re.M)
    text = ran(command("plan", "p.json", "--ratio", 0.25, "--bits", 8))
    assert re.search(r"read by cvamp with \d+ factors$", text, re.M)
    assert re.search(r"on 27 rows held out in 4 blocks$", text, re.M)
    assert "of the features were never active" in text
    ran(
        command("compress", "insoles_1.npz", "--profile", "p.json", "--ratio", 0.25, "--bits", 8, "--out", "c.rug")
    )
    report = of_json(command("verify", "c.rug", "--data", "insoles_1.npz", "--json"))
    assert report["measured"] < 4.5
    assert re.search(
        r"^read by cvamp with \d+ factors, \d+ kB of the file, expected loss", inspected(command), re.M
    )
    ran(command("decompress", "c.rug", "--out", "back.npy"))
    x = np.load(walk / "insoles_1.npz")["frames"]
    assert np.square(np.load(walk / "back.npy") - x).mean() == pytest.approx(report["measured"], rel=0.01)


def test_at_random_it_is_said_that_they_are_near_copies(walk, command):
    text = ran(command("fit", "insoles_0.npz", "--hold-out", "random", "--out", "p.json"))
    assert re.search(r"^\d+% of the rows held out are near copies of rows that were fitted", text, re.M)
    assert "near copies" in ran(command("plan", "p.json", "--ratio", 0.25, "--decoder", "linear"))


def test_rows_of_another_file(walk, command):
    text = ran(command("fit", "insoles_0.npz", "--hold-out", "insoles_1.npz", "--out", "p.json"))
    assert "from 103 rows, 102 held out in 4 blocks" in text
    report = of_json(command("plan", "p.json", "--ratio", 0.25, "--decoder", "lmmse", "--json"))
    # The one that plan prints is that of the rows held out.
    assert report["variance"] == pytest.approx(1265, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hold-out", "often"), "--hold-out is 'often'; allowed: auto, random or blocks, or a file of rows"),
        (("--hold-out", "other.npy"), "--hold-out is other.npy, of other features; allowed: the features of"),
        (("--hold-out", "few.npy"), "few.npy"),
    ],
)
def test_refusals(walk, command, options, message):
    np.save(walk / "other.npy", np.ones((40, 5)))
    (walk / "few.npy").write_bytes(b"none")
    result = command("fit", "insoles_0.npz", *options, "--out", "p.json")
    assert message in refused(result)
    assert not (walk / "p.json").exists()


def test_blocks_of_few_rows_are_refused(walk, command):
    np.save(walk / "few.npy", np.eye(5))
    result = command("fit", "few.npy", "--hold-out", "blocks", "--out", "p.json")
    assert "hold_out is 'blocks' of 5 rows; allowed with blocks: 32 rows or more" in refused(result)


def test_with_a_profile_there_is_nothing_to_hold_out(walk, command):
    ran(command("fit", "insoles_0.npz", "--out", "p.json"))
    options = ("--profile", "p.json", "--ratio", 0.5, "--hold-out", "blocks", "--out", "c.rug")
    assert "--hold-out is blocks; allowed with --profile: no --hold-out" in refused(
        command("compress", "insoles_1.npz", *options)
    )


def test_a_variance_that_is_not_that_of_the_data_is_said(walk, command):
    """Amplitudes that are log-normal, which no normal ones are like."""
    x = np.exp(1.5 * np.random.default_rng(0).standard_normal((2000, 4)))
    np.save(walk / "wide.npy", x)
    text = ran(command("fit", "wide.npy", "--out", "p.json"))
    said = re.search(r"^the data have a variance of (\S+): what was fitted", text, re.M)
    assert float(said[1]) == pytest.approx(x.var(axis=0).mean(), rel=0.3)
    np.save(walk / "even.npy", np.random.default_rng(0).random((2000, 4)))
    assert "the data have a variance" not in ran(command("fit", "even.npy", "--out", "p.json"))


def test_what_is_no_number_is_named(walk, command):
    x = np.ones((600, 5))
    x[321, 3] = np.nan
    np.save(walk / "holed.npy", x)
    result = command("fit", "holed.npy", "--out", "p.json")
    assert "row 321 holds nan in column 3; allowed: finite numbers" in refused(result)
