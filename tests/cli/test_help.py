"""Help pages: every command has an example, every default is shown, and names are those that there are."""

import os
import re
import shlex
import subprocess

import pytest
import typer.main

from persianrug.cli import options
from persianrug.cli.app import app
from persianrug.decoders import DECODERS
from persianrug.networks.network import ACTIVATIONS
from persianrug.paper import FIGURES
from persianrug.sketches.row_writer import WRITTEN
from persianrug.sketches.sketch import decoders_for
from persianrug.sources import SOURCES, SparseGaussian, SparseUniform
from persianrug.sweeps.sweep import TRAINED
from tests.conftest import COMMAND


def found(command, path=()):
    """Every command that does something, by its words."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from found(inner, (*path, name))
    else:
        yield path, command


COMMANDS = dict(found(typer.main.get_command(app)))
names = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def page(run, path, flag="--help"):
    """A help page as words, without its frame."""
    result = run(*path, flag)
    assert (result.returncode, result.stderr) == (0, "")
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.stdout).split())


def test_all_commands_are_here():
    words = {" ".join(path) for path in COMMANDS}
    assert words == {
        "solve", "phase", "weave", "knots", "train", "symmetry", "fit", "plan", "compress", "decompress",
        "inspect", "verify", "reproduce", "sweep run", "sweep status", "sweep export",
        "robot spot", "robot cassie", "robot atlas", "robot handle", "robot bench", "robot list",
        "skin fit", "skin plan", "skin bench", "skin send", "skin receive", "skin inspect",
    }  # fmt: skip


@names
def test_every_option_with_a_default_shows_it(run, path):
    shown = page(run, path)
    for parameter in COMMANDS[path].params:
        default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
        # Flags are off but where their opposite has a name, and what has no default and says so is left out.
        if parameter.hidden or default is None or (default is False and not parameter.secondary_opts):
            continue
        said = str(default)
        if isinstance(parameter.show_default, str):
            said = f"({said})"
        elif parameter.secondary_opts:
            said = (parameter.opts if default else parameter.secondary_opts)[0].removeprefix("--")
        option = parameter.opts[0]
        assert f"[default: {said}]" in shown[shown.index(f" {option} ") :], option


@names
def test_no_text_is_lost_as_markup(run, path):
    shown = page(run, path)
    for parameter in COMMANDS[path].params:
        if not parameter.hidden and parameter.help:
            assert " ".join(parameter.help.split()) in shown


@names
def test_has_an_example_that_can_be_typed(run, path):
    shown = page(run, path, "-h")
    example = re.search(r"Example: (persianrug .*?) (?:Arguments|Options) ", shown)[1]
    name, *words = shlex.split(example)
    assert words[: len(path)] == list(path)
    command = COMMANDS[path]
    # Parsed, not run.
    context = command.make_context(name, words[len(path) :], resilient_parsing=False)
    assert context.params


def test_h_is_help_everywhere(run):
    for path in [(), ("robot",), ("sweep",), ("skin",), *COMMANDS]:
        assert page(run, path, "-h") == page(run, path)


@pytest.mark.parametrize(
    "path", [(), ("robot",), ("sweep",), ("skin",)], ids=["persianrug", "robot", "sweep", "skin"]
)
def test_without_a_command_there_is_help(run, path):
    result = run(*path)
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.strip() == run(*path, "--help").stdout.strip()


@pytest.mark.parametrize("path", [(), ("sweep",)], ids=["persianrug", "sweep"])
def test_without_a_command_there_is_help_without_rich(run_apart, path, command_environment):
    command_environment["TYPER_USE_RICH"] = "0"
    result = run_apart(*path)
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout == run_apart(*path, "--help").stdout


def test_names_are_those_that_there_are():
    assert tuple(SOURCES) == options.SOURCES
    assert {*options.DECODERS} == {*DECODERS, options.KNOT}
    both = {*decoders_for(SparseUniform(p=[0.1, 0.2])), *decoders_for(SparseGaussian(p=[0.1, 0.2]))}
    assert {*options.SKETCH_DECODERS} == {"auto", *both}
    assert options.WRITTEN == WRITTEN
    assert options.METHODS == TRAINED
    assert tuple(ACTIVATIONS) == options.ACTIVATIONS
    assert tuple(FIGURES) == options.FIGURES


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        (("solve",), (*options.SOURCES, *options.DECODERS)),
        (("train",), (*options.SOURCES, *options.ACTIVATIONS)),
        (("sweep", "run"), (*options.SOURCES, *options.DECODERS, *options.METHODS)),
        (("plan",), options.SKETCH_DECODERS),
        (("reproduce",), options.FIGURES),
    ],
)
def test_names_are_listed(run, path, listed):
    shown = page(run, path)
    assert [name for name in listed if name not in shown] == []


class TestCompletion:
    def complete(self, environment, line):
        """What a shell is offered at the end of a line."""
        words = line.split(" ")
        environment |= {
            "_PERSIANRUG_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)
        }  # fmt: skip
        code = "import sys; sys.argv[0] = 'persianrug'; from persianrug.cli import main; main()"
        result = subprocess.run(
            [COMMAND[0], "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert result.stderr == ""
        return result.stdout.split()

    def test_of_commands_and_options(self, command_environment):
        assert self.complete(command_environment, "persianrug comp") == ["compress"]
        assert "--measure" in self.complete(command_environment, "persianrug solve --me")

    def test_of_names(self, command_environment):
        line = "persianrug solve --source half"
        assert self.complete(command_environment, line) == ["half-normal"]
        line = "persianrug solve --decoders linear,pro"
        assert self.complete(command_environment, line) == ["linear,prolu"]
        line = "persianrug reproduce --figure heatmap-lyap"
        assert self.complete(command_environment, line) == ["heatmap-lyapunov-max", "heatmap-lyapunov-mean"]

    @pytest.mark.skipif(os.name != "posix", reason="shells of other systems are not detected by this")
    def test_is_shown_for_a_shell(self, command_environment, tmp_path):
        line = f"{COMMAND[0]} -m persianrug --show-completion"
        result = subprocess.run(
            ["bash", "-c", f"{line}; true"], env=command_environment, capture_output=True, text=True, check=False
        )
        assert "complete" in result.stdout
        assert "persianrug" in result.stdout.lower()
