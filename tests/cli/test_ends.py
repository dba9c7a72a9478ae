"""Sketches on the command line: ended from outside, and where files may not be read or written."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr
from tests.cli.helpers import FITTED, ROWS, N, files, of_json, ran
from tests.conftest import ENDED, refused, without_privileges


def test_a_folder_that_is_not_writable(made, here, run_apart):
    closed = here / "closed"
    closed.mkdir()
    (closed / "t.rug").write_bytes(b"before")
    closed.chmod(0o500)
    try:
        for arguments in (
            ("fit", "x.npy", "--out", "closed/t.json"),
            ("compress", "y.npy", "--ratio", 0.5, "--out", "closed/t.rug"),
            ("decompress", "y.rug", "--out", "closed/t.npz"),
        ):
            message = refused(run_apart(*arguments, preexec_fn=without_privileges))
            assert "is not writable; allowed: a writable folder" in message
        assert files(closed) == {"t.rug": b"before"}
    finally:
        closed.chmod(0o700)


def test_files_that_may_not_be_read(made, here, run_apart):
    for name in ("x.npy", "profile.json", "y.rug"):
        content = (here / name).read_bytes()
        (here / name).unlink()
        (here / name).write_bytes(content)
        (here / name).chmod(0)
    for arguments in (("fit", "x.npy", "--out", "t.json"), ("plan", "profile.json", "--ratio", 0.5),
                      ("verify", "y.rug")):  # fmt: skip
        message = refused(run_apart(*arguments, preexec_fn=without_privileges))
        assert "not readable" in message or "Permission denied" in message


@pytest.fixture(scope="module")
def large(tmp_path_factory, made):
    """Rows that take many seconds, in a small file: most are nothing but zeros."""
    rows = scipy.sparse.csr_array(made.y)
    path = tmp_path_factory.mktemp("large") / "large.npz"
    scipy.sparse.save_npz(path, scipy.sparse.vstack([rows, scipy.sparse.csr_array((600_000, N))], format="csr"))
    return path


def until(come, process):
    """Wait for something that a process does, which must not end before."""
    deadline = time.monotonic() + 60
    while not come():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


class TestInterruption:
    """Of compress, once it writes."""

    @pytest.fixture(params=[None, b"what was there"])
    def writing(self, request, large, here, start):
        """A process in the middle of its file, and what was there before."""
        target = here / "t.rug"
        if request.param is not None:
            target.write_bytes(request.param)
        options = (*FITTED, "--ratio", 0.9, "--bits", 5, "--decoder", "bayes", "--out", "t.rug")
        process = start("compress", large, *options)
        until(lambda: list(here.glob(".t.rug.*.tmp")), process)
        # Not while the archive is being opened, on which Python itself has something to say.
        time.sleep(0.3)
        assert process.poll() is None
        return process, target, request.param

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, writing, here, how):
        process, target, old = writing
        os.killpg(process.pid, how)
        out, err = process.communicate(timeout=60)
        assert out == ""
        assert (process.returncode, err) == ENDED[how]
        assert (target.read_bytes() if target.exists() else None) == old
        assert not list(here.glob(".t.rug.*"))

    def test_killed(self, writing, here, command):
        process, target, old = writing
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert (target.read_bytes() if target.exists() else None) == old
        # Nothing that was left is in the way.
        ran(command("compress", "y.npy", *FITTED, "--ratio", 0.25, "--out", "t.rug"))
        assert of_json(command("verify", "t.rug", "--json"))["rows"] == ROWS


@pytest.fixture(scope="module")
def many(made, tmp_path_factory):
    """Codes of rows that take many seconds."""
    path = tmp_path_factory.mktemp("many") / "many.rug"
    with pr.RugReader(made.folder / "y.rug") as reader:
        codes = reader[:]
        with pr.RugWriter(path, reader.sketch) as writer:
            for _ in range(1500):
                writer.write(codes)
    return path


@pytest.mark.slow
class TestDecompress:
    """Once it writes to its files, which have no names."""

    @pytest.mark.parametrize("how", [*ENDED, signal.SIGKILL])
    def test_ended(self, how, many, here, start, command):
        target = here / "t.npy"
        target.write_bytes(b"what was there")
        before = sorted(path.name for path in here.iterdir())
        process = start("decompress", many, "--out", "t.npy")
        opened = Path(f"/proc/{process.pid}/fd")

        def written():
            for file in opened.iterdir():
                # Not the folder itself, which Python lists when it starts.
                with contextlib.suppress(OSError):
                    if str(file.readlink()).startswith(f"{here}/") and file.stat().st_size:
                        return True
            return False

        until(written, process)
        os.killpg(process.pid, how)
        out, err = process.communicate(timeout=60)
        assert out == ""
        assert (process.returncode, err) == ENDED.get(how, (-how, ""))
        assert target.read_bytes() == b"what was there"
        assert sorted(path.name for path in here.iterdir()) == before
        # Nothing that was left is in the way.
        ran(command("decompress", "y.rug", "--out", "t.npy"))
        assert np.load(target).shape == (ROWS, N)


@pytest.mark.slow
def test_what_is_ignored_stays_so(here, command_environment):
    """As nohup starts a process, and a shell in the background."""
    code = (
        "import signal, sys\n"
        "for number in (signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\n"
        "sys.argv = ['persianrug', 'fit', 'x.npy', '--out', 't.json']\n"
        "from persianrug.sketches import profile\n"
        "add = profile.ProfileFitter.add\n"
        "def ended(*rest):\n"
        "    for number in (signal.SIGHUP, signal.SIGINT, *map(int, NUMBERS)): signal.raise_signal(number)\n"
        "    return add(*rest)\n"
        "profile.ProfileFitter.add = ended\n"
        "from persianrug.cli import main\n"
        "main()\n"
    )
    for numbers, ends in (([], (0, "")), ([int(signal.SIGTERM)], ENDED[signal.SIGTERM])):
        result = subprocess.run(
            [sys.executable, "-c", code.replace("NUMBERS", str(numbers))], cwd=here, env=command_environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == ends
        assert (here / "t.json").exists() == (not numbers)
        (here / "t.json").unlink(missing_ok=True)


def test_help_comes_without_pytorch(run):
    code = (
        "import sys\n"
        "from persianrug.cli.app import app\n"
        "try: app(['compress', '--help'], standalone_mode=False)\n"
        "finally: sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result
    assert "--target-loss" in result.stdout
