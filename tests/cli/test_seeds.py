"""--seed has one range in all commands, and one message beyond it."""

import pytest

from persianrug.cli import options
from tests.cli.test_help import COMMANDS
from tests.conftest import refused

# What each takes beside a seed; files are those of the fixture `here`.
ARGUMENTS = {
    ("solve",): ("--p", 0.1, "--ratio", 0.5, "--n-sparse", 16),
    ("weave",): ("--out", "t.png", "--n-sparse", 16),
    ("knots",): ("--p", 0.1, "--ratio", 0.5, "--budget", "0.01s"),
    ("train",): ("--out", "t.safetensors", "--n-sparse", 16, "--steps", 1, "--batch", 4),
    ("symmetry",): ("model.safetensors",),
    ("fit",): ("x.npy", "--out", "t.json"),
    ("plan",): ("profile.json", "--ratio", 0.5, "--decoder", "linear"),
    ("compress",): ("y.npy", "--ratio", 0.5, "--decoder", "linear", "--out", "t.rug"),
    ("sweep", "run"): ("--p", 0.1, "--ratio", 0.5, "--n-sparse", 16, "--samples", 2, "--store", "t.sqlite"),
}
# Those of skins need more files; tests/cli/test_skin.py has them.
SKINS = {("skin", "bench"), ("skin", "send"), ("skin", "receive")}
# Those of robots run for long; tests/cli/test_robot.py has a toy for them.
ROBOTS = {("robot", name) for name in (*options.ROBOTS, "bench")}


def test_all_commands_that_take_one_are_here():
    taking = {path for path, command in COMMANDS.items() if any("--seed" in one.opts for one in command.params)}
    assert taking == {*ARGUMENTS, *SKINS, *ROBOTS}


@pytest.mark.parametrize("path", ARGUMENTS, ids=" ".join)
def test_its_range(path, here, command):
    if path == ("symmetry",):
        command("solve", "--p", 0.1, "--ratio", 0.5, "--n-sparse", 16, "--save", "model.safetensors")
    before = sorted(here.iterdir())
    for seed in (-1, 2**63, 10**40):
        message = refused(command(*path, *ARGUMENTS[path], "--seed", seed))
        assert message == f"persianrug: seed is {seed}; allowed: an integer from 0 to {2**63 - 1}\n"
    assert sorted(here.iterdir()) == before
    result = command(*path, *ARGUMENTS[path], "--seed", 2**63 - 1)
    assert (result.returncode, result.stderr) == (0, "")
