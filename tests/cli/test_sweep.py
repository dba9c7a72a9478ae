"""sweep run, status and export: what they print, and what is left when they are ended or find no room."""

import csv
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest

import persianrug as pr
from persianrug.sweeps.running import run_sweep
from persianrug.sweeps.store import Store
from persianrug.sweeps.sweep import Sweep
from persianrug.sweeps.tables import rows
from tests.conftest import COMMAND, ENDED, free_port, refused

SMALL = ("--p", "0.05,0.2", "--ratio", "0.25", "--n-sparse", "64", "--samples", "32")
SWEEP = Sweep(p=(0.05, 0.2), ratio=0.25, n_sparse=64, samples=32)


def wait_for(condition, process=None):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def counts(where):
    """How many runs of the first sweep of a store are in each state; nothing while there is none."""
    try:
        store = Store(where, reading=True)
    except (ValueError, OSError):
        return {"pending": 0, "claimed": 0, "done": 0, "failed": 0}
    try:
        return store.counts(1)
    finally:
        store.close()


def workers(process):
    """The processes that a process has started to work."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"LokyProcess" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def ended(pid):
    """Whether a process is gone, or waits for nothing but to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def expire(where):
    """Let time pass for all claims."""
    with sqlite3.connect(where) as connection:
        connection.execute("UPDATE batches SET expires = 0")
    connection.close()


class TestRun:
    def test_flags_make_a_grid(self, run, tmp_path):
        result = run("sweep", "run", "--p", "0.05, 0.2", "--ratio", "0.25:0.5:2", "--n-sparse", "16:64:3:log",
                     "--method", "linear,sampled", "--source", "constant", "--seed", "0:1:2", "--steps", "2,3",
                     "--batch", 8, "--samples", 8, "--name", "a [red]b[/]", "--json")  # fmt: skip
        assert (result.returncode, result.stderr) == (0, "")
        sweep = Sweep(p=(0.05, 0.2), ratio=(0.25, 0.5), n_sparse=(16, 32, 64), method=("linear", "sampled"),
                      source="constant", seed=(0, 1), steps=(2, 3), batch=8, samples=8)  # fmt: skip
        assert json.loads(result.stdout) == {
            "sweep": "a [red]b[/]", "digest": sweep.digest, "done": len(sweep), "failed": 0
        }  # fmt: skip
        assert len(rows(sweep, tmp_path / "runs.sqlite")) == len(sweep) == 24 * 3
        assert [file.name for file in tmp_path.iterdir()] == ["runs.sqlite"]

    def test_a_file_makes_a_grid_and_goes_on(self, run, tmp_path):
        (tmp_path / "grid.toml").write_text(
            "p = {from = 0.05, to = 0.2, points = 2}\nratio = 0.25\nn_sparse = 64\nsamples = 32\n"
        )
        result = run("sweep", "run", "grid.toml", "--store", "s", "--weights", "w")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == "s: sweep grid, 2 runs done\n"
        before = rows(SWEEP, tmp_path / "s")
        for row in before:
            assert pr.load(tmp_path / "w" / row["weights"]).encoder.n_dense == 16
        assert run("sweep", "run", *SMALL, "--store", "s", "--name", "x").stdout == "s: sweep x, 2 runs done\n"
        assert rows(SWEEP, tmp_path / "s") == before
        result = run("sweep", "run", "grid.toml", "--store", "s", "--p", "0.5", "--json")
        assert json.loads(result.stdout)["digest"] == Sweep(p=0.5, ratio=0.25, n_sparse=64, samples=32).digest

    def test_says_what_failed(self, run, tmp_path):
        result = run("sweep", "run", *SMALL, "--source", "uniform,gaussian", "--method", "linear,relu",
                          "--seed", "0,1,2", "--name", "some [bold]")  # fmt: skip
        assert (result.returncode, result.stderr) == (1, "")
        assert result.stdout.splitlines() == [
            "runs.sqlite: sweep some [bold], 18 runs done",
            "6 runs failed: `persianrug sweep status` says why, --retry tries again",
        ]
        table = run("sweep", "status")
        assert (table.returncode, table.stderr) == (0, "")
        lines = [line.split() for line in table.stdout.splitlines()]
        assert ["sweep", "done", "failed", "claimed", "pending"] in lines
        assert ["some", "[bold]", "18", "6", "0", "0"] in lines
        said = "source gaussian is signed; allowed with decoder relu: sources of features >= 0"
        failed = [line for line in table.stdout.splitlines() if line.startswith("failed: ")]
        where = "(method relu, source gaussian, p 0.05, ratio 0.25, n_sparse 64, seed 0)"
        assert failed[0] == f"failed: run 15 {where}: {said}"
        assert len(failed) == 5
        assert "and 1 more; --json has all" in table.stdout
        (found,) = json.loads(run("sweep", "status", "--json").stdout)["sweeps"]
        assert {key: found[key] for key in ("sweep", "pending", "claimed", "done", "failed")} == {
            "sweep": "some [bold]", "pending": 0, "claimed": 0, "done": 18, "failed": 6
        }  # fmt: skip
        assert [error["number"] for error in found["errors"]] == [15, 16, 17, 21, 22, 23]
        assert found["errors"][0] == {
            "number": 15, "source": "gaussian", "p": 0.05, "ratio": 0.25, "n_sparse": 64, "method": "relu",
            "seed": 0, "steps": None, "error": said,
        }  # fmt: skip

    def test_keeps_runs_on_a_server(self, run, database):
        where = database.replace("postgres@", "postgres:s3cret@")
        result = run("sweep", "run", *SMALL, "--store", where, "--jobs", 2)
        assert (result.returncode, result.stderr) == (0, "")
        status = run("sweep", "status", "--store", where, "--json")
        assert json.loads(status.stdout)["sweeps"][0]["done"] == 2
        assert "s3cret" not in result.stdout + status.stdout
        assert "postgres:***@127.0.0.1" in result.stdout
        assert "postgres:***@127.0.0.1" in status.stdout

    def test_shows_progress_on_a_terminal(self, command_environment, tmp_path):
        leader, follower = os.openpty()
        with (tmp_path / "out").open("w") as out:
            process = subprocess.Popen(
                [*COMMAND, "sweep", "run", *SMALL, "--name", "of [/] it"], cwd=tmp_path,
                stdout=out, stderr=follower, env=command_environment | {"TERM": "xterm"},
            )  # fmt: skip
            os.close(follower)
            shown = b""
            while True:
                try:
                    shown += os.read(leader, 4096)
                except OSError:
                    break
            assert process.wait(timeout=60) == 0
        os.close(leader)
        assert b"sweep of [/] it" in shown
        assert (tmp_path / "out").read_text() == "runs.sqlite: sweep of [/] it, 2 runs done\n"


class TestStatusAndExport:
    def test_of_many_sweeps(self, run, tmp_path):
        where = tmp_path / "runs.sqlite"
        run_sweep(SWEEP, where)
        other = Sweep(p=0.05, ratio=0.25, n_sparse=64, method="sampled", steps=2, batch=8, name="other")
        run_sweep(other, where)
        result = run("sweep", "status", "--json")
        assert (result.returncode, result.stderr) == (0, "")
        report = json.loads(result.stdout)
        assert report["store"] == "runs.sqlite"
        assert [(one["sweep"], one["done"], one["errors"]) for one in report["sweeps"]] == [
            ("sweep", 2, []), ("other", 1, [])
        ]  # fmt: skip
        assert [one["digest"] for one in report["sweeps"]] == [SWEEP.digest, other.digest]
        result = run("sweep", "export", "--out", "t.csv")
        assert (result.returncode, result.stdout, result.stderr) == (0, "t.csv: 3 runs\n", "")
        assert run("sweep", "export", "--out", "t.parquet").stdout == "t.parquet: 3 runs\n"
        with (tmp_path / "t.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        table = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
        wanted = [*rows(SWEEP, where), *rows(other, where)]
        assert [float(row["measured"]) for row in read] == [row["measured"] for row in wanted]
        assert [row["measured"] for row in table] == [row["measured"] for row in wanted]
        assert [row["sweep"] for row in read] == ["sweep", "sweep", "other"]
        # Neither leaves anything beside the store.
        assert sorted(file.name for file in tmp_path.iterdir()) == ["runs.sqlite", "t.csv", "t.parquet"]


class TestMistakes:
    def test_come_without_pytorch(self, run, tmp_path):
        code = (
            "import sys, persianrug.cli\n"
            "sys.argv = ['persianrug', 'sweep', 'run', '--p', '0.1,x', '--ratio', '0.5']\n"
            "try: persianrug.cli.app.main()\n"
            "finally: assert 'torch' not in sys.modules\n"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "p is '0.1,x'; allowed: numbers separated by commas, or FROM:TO:POINTS" in refused(result)
        assert "runs.sqlite is missing; allowed: a store that a sweep has written" in refused(
            run("sweep", "status")
        )
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("run", "--p or --ratio is missing; allowed: both, or a TOML file"),
            ("run --ratio 0.5", "--p or --ratio is missing"),
            ("run --p 0.1 --name x", "--p or --ratio is missing"),
            ("run no-p.toml", "no-p.toml has no p; allowed: a list of numbers in (0, 1]"),
            ("run empty.toml", "p is empty, so that the grid has no runs; allowed: at least one"),
            ("run unknown.toml", "a key of unknown.toml is 'P'; allowed: p, ratio, n_sparse"),
            ("run none.toml", "none.toml cannot be read: No such file or directory; allowed: a TOML file"),
            ("run bad.toml", "bad.toml cannot be read: "),
            ("run --ratio 0.5 --p", "--p"),
            ("run --ratio 0.5 --p=", "p is ''; allowed: numbers separated by commas"),
            ("run --ratio 0.5 --p 0.1,", "p is '0.1,'; allowed"),
            ("run --ratio 0.5 --p 0.1,0.1", "p has 0.1 twice; allowed: different ones"),
            ("run --ratio 0.5 --p 0.1:0.2", "p is '0.1:0.2'; allowed"),
            ("run --ratio 0.5 --p 0.1:0.2:x", "p is '0.1:0.2:x'; allowed"),
            ("run --ratio 0.5 --p 0.1:0.2:3:log:5", "p is '0.1:0.2:3:log:5'; allowed"),
            ("run --ratio 0.5 --p 0.1:0.2:3:lin", "p.scale is 'lin'; allowed: linear, log"),
            ("run --ratio 0.5 --p 0:0.2:3:log", "p.from is 0.0; allowed: a finite number > 0"),
            ("run --ratio 0.5 --p 0:0.2:3", "p is 0.0; allowed: a number from 1e-30 to 1"),
            ("run --ratio 0.5 --p 0.1:0.2:0", "p.points is 0; allowed: an integer from 1 to 1000000"),
            ("run --ratio 0.5 --p nan", "p is nan; allowed: a number from 1e-30 to 1"),
            ("run --ratio 0.5 --p 0.1,2", "p is 2.0; allowed: a number from 1e-30 to 1"),
            ("run --p 0.1 --ratio 0", "ratio is 0.0; allowed: a number in (0, 1]"),
            ("run --p 0.1 --ratio 0.5 --n-sparse 8.5", "n_sparse is '8.5'; allowed: whole numbers"),
            ("run --p 0.1 --ratio 0.5 --n-sparse 1", "n_sparse is 1; allowed: an integer from 2"),
            ("run --p 0.1 --ratio 0.5 --method relu,guess", "method is 'guess'; allowed: linear, relu"),
            ("run --p 0.1 --ratio 0.5 --method relu,", "method is ''; allowed: linear, relu"),
            ("run --p 0.1 --ratio 0.5 --source cauchy", "source is 'cauchy'; allowed: uniform"),
            ("run --p 0.1 --ratio 0.5 --seed -1", "seed is -1; allowed"),
            ("run --p 0.1 --ratio 0.5 --steps 0", "steps is 0; allowed"),
            ("run --p 0.1 --ratio 0.5 --batch 0", "batch is 0; allowed"),
            ("run --p 0.1 --ratio 0.5 --samples 1", "samples is 1; allowed"),
            ("run --p 0.1 --ratio 0.5 --name=", "name is ''; allowed: a text of 1 to 200 characters"),
            ("run --p 0.1 --ratio 0.5 --jobs 0", "jobs is 0; allowed: an integer >= 1"),
            ("run --p 0.1 --ratio 0.5 --jobs x", "--jobs"),
            ("run --p 0.1 --ratio 0.5 --weights bad.toml", "weights folder bad.toml cannot be made: File exists"),
            ("run --p 0.1 --ratio 0.5 --weights none/w", "weights folder none/w cannot be made: No such file"),
            ("run --p 0.1 --ratio 0.5 --store none/s", "none is missing; allowed: an existing folder"),
            ("run --p 0.1 --ratio 0.5 --store folder.csv", "folder.csv is not a regular file; allowed"),
            ("run --p 0.1 --ratio 0.5 --store bad.toml", "bad.toml is no SQLite database, or damaged; allowed"),
            ("run --p 0.1 --ratio 0.5 --store other", "other has version 9; allowed: 1, or a new store"),
            ("run --p 0.1 --ratio 0.5 --store foreign", "foreign holds no sweeps; allowed"),
            ("run --p 0.1 --ratio 0.5 --store postgresql://u:s3cret@127.0.0.1:PORT/x", "Connection refused"),
            ("run --p 0.1 --ratio 0.5 --store nosuch://u:s3cret@host/x", "of no known kind; allowed"),
            ("run --p 0.1 --ratio 0.5 --store postgresql://u:s3cret@host:x/x", "store is no URL; allowed"),
            ("status", "runs.sqlite is missing; allowed: a store that a sweep has written"),
            ("status --store folder.csv", "folder.csv is no file; allowed"),
            ("status --store bad.toml", "bad.toml is no SQLite database, or damaged; allowed"),
            ("status --store other", "other has version 9; allowed"),
            ("status --store postgresql://u:s3cret@127.0.0.1:PORT/x", "Connection refused"),
            ("export", "--out"),
            ("export --out t.csv", "runs.sqlite is missing; allowed: a store that a sweep has written"),
            ("export --store store --out t.xlsx", "--out is t.xlsx; allowed: a file that ends in .parquet"),
            ("export --store store --out none/t.csv", "none is missing; allowed: an existing folder"),
            ("export --store store --out folder.csv", "folder.csv is not a regular file; allowed"),
            ("export --store other --out t.csv", "other has version 9; allowed"),
            ("knit", "knit"),
        ],
    )  # fmt: skip
    def test_are_one_line(self, run, tmp_path, arguments, said):
        (tmp_path / "no-p.toml").write_text("ratio = 0.5\n")
        (tmp_path / "empty.toml").write_text("p = []\nratio = 0.5\n")
        (tmp_path / "unknown.toml").write_text("p = 0.1\nP = 0.1\nratio = 0.5\n")
        (tmp_path / "bad.toml").write_text("p = = = " * 100)
        (tmp_path / "folder.csv").mkdir()
        for name, statement in (("other", "UPDATE persianrug SET schema = 9"), ("store", "SELECT 1")):
            Store(tmp_path / name).close()
            with sqlite3.connect(tmp_path / name) as connection:
                connection.execute(statement)
            connection.close()
        with sqlite3.connect(tmp_path / "foreign") as connection:
            connection.execute("CREATE TABLE places (id INTEGER)")
        connection.close()
        before = sorted(tmp_path.rglob("*"))
        message = refused(run("sweep", *arguments.replace("PORT", str(free_port())).split()))
        assert said in message
        assert "s3cret" not in message
        assert sorted(tmp_path.rglob("*")) == before


class TestEnds:
    LONG = ("sweep", "run", "--p", "0.05:0.5:10", "--ratio", "0.25", "--n-sparse", "8192", "--samples", "2000",
            "--store", "s")  # fmt: skip
    ENDLESS = ("sweep", "run", "--p", "0.1", "--ratio", "0.25", "--n-sparse", "64,65,66", "--method", "sampled",
               "--steps", "100000000", "--batch", "32", "--store", "s")  # fmt: skip

    @pytest.mark.slow
    def test_by_interrupts_and_killed_workers_lose_nothing(self, start, run, tmp_path):
        where = tmp_path / "s"
        p = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
        sweep = Sweep(p=p, ratio=0.25, n_sparse=8192, samples=2000)

        def end(jobs, how):
            process = start(*self.LONG, "--jobs", jobs)
            wait_for(lambda: counts(where)["done"] and counts(where)["claimed"] == jobs, process)
            stored = {row["number"]: row for row in rows(sweep, where) if row["state"] == "done"}
            how(process)
            out, err = process.communicate(timeout=60)
            assert out == ""
            assert counts(where)["claimed"] == 0
            assert counts(where)["failed"] == 0
            # With the time they took: they were not made again.
            assert all(rows(sweep, where)[number] == row for number, row in stored.items())
            return process.returncode, err

        for how in (signal.SIGINT, signal.SIGTERM):
            assert end(1, lambda process, how=how: process.send_signal(how)) == ENDED[how]
            # As a terminal or a scheduler does it.
            assert end(2, lambda process, how=how: os.killpg(process.pid, how)) == ENDED[how]
        # As a container does it.
        assert end(2, lambda process: process.send_signal(signal.SIGTERM)) == ENDED[signal.SIGTERM]
        code, err = end(2, lambda process: os.kill(workers(process)[0], signal.SIGKILL))
        assert code == 2
        assert err.startswith(
            "persianrug: a worker was killed, perhaps for want of memory; what was stored is kept"
        )
        assert err.count("\n") == 1
        with sqlite3.connect(where) as connection:
            # What may have killed it is not tried for ever.
            assert connection.execute("SELECT max(attempts) FROM batches WHERE state = 'pending'").fetchone() == (
                1,
            )
        connection.close()
        before = [row for row in rows(sweep, where) if row["state"] == "done"]
        result = run(*self.LONG)
        assert (result.returncode, result.stdout, result.stderr) == (0, "s: sweep sweep, 10 runs done\n", "")
        found = rows(sweep, where)
        assert len(found) == len(sweep)
        assert all(row in found for row in before)
        assert [row["state"] for row in found] == ["done"] * 10

    @pytest.mark.slow
    def test_killed_its_workers_end_by_themselves(self, start, tmp_path):
        where = tmp_path / "s"
        process = start(*self.ENDLESS, "--jobs", 2)
        wait_for(lambda: counts(where)["claimed"] == 2, process)
        working = workers(process)
        assert len(working) == 2
        try:
            process.kill()
            wait_for(lambda: all(ended(pid) for pid in working))
        finally:
            for pid in working:
                if not ended(pid):
                    os.kill(pid, signal.SIGKILL)
        assert counts(where) == {"pending": 1, "claimed": 2, "done": 0, "failed": 0}
        # Others take over once the claims have expired.
        expire(where)
        store = Store(where)
        for _ in range(3):
            assert len(store.claim(1, "other").asked) == 1
        store.close()


class TestNoRoom:
    @pytest.fixture
    def cramped(self, run_apart):
        """Run where no file may become larger than so many bytes."""

        def cramped(most, *arguments):
            return run_apart(
                *arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            )

        return cramped

    def test_for_the_store(self, cramped, run, tmp_path):
        arguments = ("sweep", "run", "grid.toml", "--store", "s")
        table = "{from = 0.01, to = 0.5, points = 40}"
        (tmp_path / "grid.toml").write_text(f"p = {table}\nratio = 0.25\nn_sparse = 64\nsamples = 8\n")
        sweep = Sweep.read(tmp_path / "grid.toml")
        message = refused(cramped(300_000, *arguments))
        assert "store s failed: " in message
        assert "; what was stored is kept, and the sweep can be run again" in message
        before = [row for row in rows(sweep, tmp_path / "s") if row["state"] == "done"]
        assert 0 < len(before) < 40
        # Where it could not even be said that they are free, claims expire.
        expire(tmp_path / "s")
        assert run(*arguments).stdout == "s: sweep grid, 40 runs done\n"
        found = rows(sweep, tmp_path / "s")
        assert [row["number"] for row in found] == list(range(40))
        assert all(row in found for row in before)

    def test_for_weights(self, cramped, run, tmp_path):
        arguments = ("sweep", "run", "--p", "0.1,0.2", "--ratio", "0.25", "--n-sparse", "1024,64", "--steps", 1,
                     "--method", "sampled", "--batch", 4, "--store", "s", "--weights", "w", "--json")  # fmt: skip
        # The largest networks are trained first.
        assert "File too large" in refused(cramped(1_000_000, *arguments))
        assert counts(tmp_path / "s") == {"pending": 4, "claimed": 0, "done": 0, "failed": 0}
        assert not list((tmp_path / "w").iterdir())
        assert json.loads(run(*arguments).stdout)["done"] == 4
        assert len(list((tmp_path / "w").iterdir())) == 4
