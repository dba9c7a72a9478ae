"""Sketches on the command line: interrupted, killed, and where files may not be read or written."""

import os
import signal
import subprocess
import sys
import time

import pytest
import scipy.sparse

from tests.cli.helpers import FITTED, ROWS, N, files, of_json, ran
from tests.conftest import refused, without_privileges


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
        deadline = time.monotonic() + 60
        while not list(here.glob(".t.rug.*.tmp")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        # Not while the archive is being opened, on which Python itself has something to say.
        time.sleep(0.3)
        assert process.poll() is None
        return process, target, request.param

    def test_interrupted(self, writing, here):
        process, target, old = writing
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "persianrug: interrupted\n")
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
