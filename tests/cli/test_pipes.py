"""compress and decompress between other programs, on standard streams."""

import os
import shlex
import subprocess

import numpy as np
import pytest

from tests.cli.helpers import FITTED, N, files, ran
from tests.conftest import COMMAND, forged_header, refused, saved


def shell(line, command_environment, folder, **options):
    line = line.replace("persianrug", shlex.join(COMMAND), line.count("persianrug "))
    return subprocess.run(["bash", "-c", line], cwd=folder, env=command_environment, capture_output=True,
                          text=True, timeout=100, check=False, **options)  # fmt: skip


class TestPipes:
    def test_codes_go_through_pipes(self, made, here, command_environment, command):
        options = "--profile profile.json --ratio .25 --bits 8 --decoder bayes --out -"
        result = shell(
            f"set -o pipefail; cat y.npy | persianrug compress - {options} | tee z.rug "
            "| persianrug decompress - --out back.npz",
            command_environment, here,
        )  # fmt: skip
        assert "back.npz: 400 rows of 512 features by bayes" in ran(result)
        assert (here / "z.rug").read_bytes() == (here / "y.rug").read_bytes()
        ran(command("decompress", "y.rug", "--out", "file.npz"))
        assert (here / "back.npz").read_bytes() == (here / "file.npz").read_bytes()

    def test_a_writer_that_dies_in_the_middle(self, made, here, command_environment):
        content = (here / "y.rug").read_bytes()
        (here / "y.half").write_bytes(content[: len(content) // 2])
        (here / "x.half").write_bytes((here / "x.npy").read_bytes()[: 4 * N * 200])
        options = "--profile profile.json --ratio .25 --decoder bayes"
        before = files(here)
        for line, word in [
            ("cat y.half | persianrug decompress - --out back.npz", "rug file -"),
            (f"cat x.half | persianrug compress - {options} --out t.rug", "it ends before its last row"),
        ]:
            assert word in refused(shell(line, command_environment, here))
            assert files(here) == before

    def test_what_follows_notices_that_compress_failed(self, here, command_environment):
        (here / "x.half").write_bytes((here / "x.npy").read_bytes()[: 4 * N * 200])
        before = files(here)
        result = shell(
            "cat x.half | persianrug compress - --profile profile.json --ratio .25 --decoder bayes --out - "
            "| persianrug decompress - --out back.npz; echo ${PIPESTATUS[1]} ${PIPESTATUS[2]}",
            command_environment, here,
        )  # fmt: skip
        assert result.stdout == "2 2\n"
        assert sorted(line.split(" ")[0] for line in result.stderr.splitlines()) == ["persianrug:"] * 2
        assert files(here) == before

    def test_a_reader_that_dies(self, made, here, command_environment):
        # More than a pipe holds.
        options = "--profile profile.json --ratio .9 --decoder bayes --out -"
        line = f"persianrug compress y.npy {options} | head -c 100 > /dev/null; echo ${{PIPESTATUS[0]}}"
        result = shell(line, command_environment, here)
        assert result.stdout == "1\n"
        assert result.stderr == ""

    def test_no_room_for_codes(self, here, command_environment):
        options = "--profile profile.json --ratio .25 --decoder bayes --out -"
        message = refused(shell(f"persianrug compress y.npy {options} > /dev/full", command_environment, here))
        assert "No space left" in message

    def test_streams_that_are_closed(self, here, command_environment):
        options = "--profile profile.json --ratio .25 --decoder bayes"
        for line in (
            "persianrug decompress - --out back.npy <&-",
            f"persianrug compress - {options} --out t.rug <&-",
            f"persianrug compress y.npy {options} --out - >&-",
        ):
            result = shell(line, command_environment, here)
            assert result.returncode == 2, result
            assert result.stderr.count("\n") == 1, result.stderr
            assert result.stderr.startswith("persianrug: ")

    def test_a_terminal_gets_no_codes(self, here, command_environment):
        leader, follower = os.openpty()
        arguments = [*COMMAND, "compress", "y.npy", *FITTED, "--ratio", "0.25", "--out", "-"]
        result = subprocess.run(arguments, cwd=here, env=command_environment, stdout=follower,
                                stderr=subprocess.PIPE, timeout=100, check=False)  # fmt: skip
        os.close(follower)
        os.close(leader)
        assert result.returncode == 2
        assert b"standard output is a terminal; allowed: a pipe or a file" in result.stderr

    @pytest.mark.parametrize(
        ("stdin", "word"),
        [
            (b"", "allowed: a .npy array"),
            (b"hello", "allowed: a .npy array"),
            (saved(np.asfortranarray(np.ones((3, N)))), "stored by columns; allowed: by rows"),
            (saved(np.ones((3, N)))[:-1], "ends before its last row"),
            (saved(np.ones((3, N - 1))), "has 511 features; allowed: 512"),
            (saved(np.full((3, N), np.nan)), "row 0 holds nan in column 0"),
            (saved(-np.ones((3, N))), "rows holds -1; allowed: numbers >= 0"),
            (forged_header((10**12, N)), "ends before its last row"),
        ],
    )
    def test_bad_standard_input(self, stdin, word, here, command):
        before = files(here)
        options = (*FITTED, "--ratio", 0.25, "--decoder", "bayes", "--out", "t.rug")
        assert word in refused(command("compress", "-", *options, stdin=stdin))
        assert files(here) == before
