import contextlib
import ctypes
import functools
import io
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import psycopg
import pytest
from hypothesis import settings

import persianrug as pr
from persianrug import cli

settings.register_profile("default", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Tests on a server are told by what they ask for."""
    for item in items:
        kinds = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "postgresql" in (*item.fixturenames, *(kind for kind in kinds if isinstance(kind, str))):
            item.add_marker("server")


# A signed, a discrete and a fitted one among them; scales other than 1 too.
EVERY_SOURCE = {
    "uniform": lambda p: pr.SparseUniform(p),
    "uniform-scaled": lambda p: pr.SparseUniform(p, scale=3.0),
    "exponential": lambda p: pr.SparseExponential(p, scale=0.5),
    "half-normal": lambda p: pr.SparseHalfNormal(p),
    "lognormal": lambda p: pr.SparseLogNormal(p, scale=0.7, shape=0.8),
    "gaussian": lambda p: pr.SparseGaussian(p, scale=2.0),
    "constant": lambda p: pr.SparseConstant(p, scale=1.5),
    "empirical": lambda p: pr.Empirical(p, [0.3, 1.1, 2.0, -0.4], [1.0, 3.0, 2.0, 1.0]),
}


@pytest.fixture(params=EVERY_SOURCE)
def make_source(request):
    return EVERY_SOURCE[request.param]


def environment():
    """An environment for a command: no terminal, no colour."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def command_environment():
    return environment()


# How a command ends that is ended from outside, and what it says.
ENDED = {
    signal.SIGINT: (130, "persianrug: interrupted\n"),
    signal.SIGTERM: (143, "persianrug: terminated\n"),
    signal.SIGHUP: (129, "persianrug: terminated\n"),
}

COMMAND = [sys.executable, "-m", "persianrug"]


def invoke(folder, *arguments, stdin=b""):
    """Run the command line in a folder, in this process, which has imported everything: that takes no seconds."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        contextlib.chdir(folder), mock.patch.dict(os.environ, environment(), clear=True),
        mock.patch.object(sys, "argv", ["persianrug", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended,
    ):  # fmt: skip
        cli.main()
    texts = [stream.buffer.getvalue().decode(errors="replace") for stream in (out, err)]
    return subprocess.CompletedProcess(arguments, ended.value.code, *texts)


@pytest.fixture
def run(tmp_path):
    """Run the command line in this process, in a folder of the test's own."""
    return functools.partial(invoke, tmp_path)


@pytest.fixture
def run_apart(command_environment, tmp_path):
    """Run the command line as a process, in a folder of the test's own."""

    def run_apart(*arguments, timeout=100, **options):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], env=command_environment, cwd=tmp_path, timeout=timeout,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options,
        )  # fmt: skip

    return run_apart


@pytest.fixture
def start(command_environment, tmp_path):
    """Start the command line as a process that leads a group of its own."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], env=command_environment, cwd=tmp_path, start_new_session=True,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Where the tests run in the background, SIGINT may be ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def refused(result):
    """One line on stderr, nothing on stdout, exit code 2."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("persianrug: ")
    return result.stderr


def saved(array, **arguments):
    """The bytes of a .npy file."""
    content = io.BytesIO()
    np.save(content, array, **arguments)
    return content.getvalue()


def forged_header(shape):
    """A .npy file whose header claims a shape, and some bytes."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return content.getvalue() + bytes(64)


# Those of a few numbers, which a general optimiser can check.
PARAMETRIC = [pr.Linear, pr.ReLU, pr.JumpReLU, pr.Gated, pr.ProLU, pr.SoftThreshold]


def kinds_for(source, kinds=PARAMETRIC):
    """The decoders that take a source."""
    return [kind for kind in kinds if not (kind.one_sided and source.signed)]


# Of Linux's prctl.
_DEATH_SIGNAL, _DROP = 1, 24
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def end_with_parent():
    """In a child: a signal that lets PostgreSQL stop at once, when the tests end however they end."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, int(signal.SIGQUIT), 0, 0, 0)


def without_privileges():
    """In a child: permissions of files bind even root."""
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_DROP, capability, 0, 0, 0)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def server_programs():
    """The folder of the newest PostgreSQL server here, or None."""
    # Debian keeps them away from PATH.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name))
    found = [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]
    if not found and shutil.which("initdb"):
        found = [Path(shutil.which("initdb")).resolve().parent]
    return found[-1] if found else None


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL server of these tests alone, to which the name of a database is added."""
    programs = server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed; on Debian: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="persianrug-postgresql-"))
    options = {"cwd": folder, "stdin": subprocess.DEVNULL}
    if os.geteuid() == 0:
        # It refuses to run as root.
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = names.get("postgres") or names["nobody"]
        os.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, port = folder / "data", free_port()
    making = [programs / "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-sync",
              "--encoding", "UTF8", "--locale", "C"]  # fmt: skip
    serving = [programs / "postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", f"port={port}",
               "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "full_page_writes=off"]  # fmt: skip
    process = None
    try:
        subprocess.run(making, check=True, capture_output=True, **options)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(serving, stdout=log, stderr=log, preexec_fn=end_with_parent, **options)
        url = f"postgresql://postgres@127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(f"{url}/postgres").close()
                break
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "log").read_text()) from None
                time.sleep(0.02)
        yield url
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture
def database(postgresql):
    """The URL of a new PostgreSQL database."""
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{postgresql}/{name}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """A new store of each kind."""
    return str(tmp_path / "runs.sqlite") if request.param == "sqlite" else request.getfixturevalue("database")
