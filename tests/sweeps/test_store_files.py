"""Stores as files and on servers: shared, full, damaged or of others, and what is refused."""

import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

import persianrug.sweeps.store as stores
from persianrug.sweeps.store import Store, shown
from tests.conftest import free_port, without_privileges
from tests.sweeps.helpers import batches, done, numbers


def execute(where, statement):
    """Change a store behind its back."""
    engine = sa.create_engine(stores._parse(where)[0] if "://" in where else f"sqlite:///{where}")
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


class TestWhatIsRefused:
    def test_another_version(self, where, store):
        store.add("a" * 64, "one", {}, batches([1]))
        execute(where, "UPDATE persianrug SET schema = 7")
        for reading in (False, True):
            with pytest.raises(ValueError, match=r"has version 7; allowed: 1, or a new store$"):
                Store(where, reading=reading)
        execute(where, "DELETE FROM persianrug")
        with pytest.raises(ValueError, match=r"has version none; allowed: 1"):
            Store(where)

    def test_an_empty_database_where_it_is_read(self, where):
        if "://" not in where:
            Path(where).touch()
        with pytest.raises(ValueError, match="holds no sweeps; allowed: a store that a sweep has written"):
            Store(where, reading=True)
        Store(where).close()
        Store(where, reading=True).close()

    def test_tables_of_others_by_the_same_names(self, where):
        execute(where, "CREATE TABLE runs (id INTEGER)")
        with pytest.raises(ValueError, match="holds no sweeps; allowed"):
            Store(where)

    def test_the_database_of_another_program_is_not_touched(self, tmp_path):
        path = tmp_path / "places.sqlite"
        execute(str(path), "CREATE TABLE places (id INTEGER)")
        before = path.read_bytes()
        for reading in (False, True):
            with pytest.raises(ValueError, match="holds no sweeps; allowed"):
                Store(path, reading=reading)
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["places.sqlite"]

    def test_a_server_may_hold_tables_of_others(self, database):
        execute(database, "CREATE TABLE places (id INTEGER)")
        store = Store(database)
        assert store.sweeps() == []
        store.close()
        execute(database, "DROP TABLE places")

    @pytest.mark.parametrize("reading", [True, False])
    def test_files_that_are_no_databases(self, tmp_path, reading):
        path = tmp_path / "runs.sqlite"
        path.write_bytes(b"SQLite format 4\0" + bytes(range(256)) * 40)
        before = path.read_bytes()
        with pytest.raises(ValueError, match="is no SQLite database, or damaged; allowed"):
            Store(path, reading=reading)
        assert path.read_bytes() == before
        with pytest.raises(ValueError, match=r"is no file; allowed|is not a regular file; allowed"):
            Store(tmp_path, reading=reading)
        with pytest.raises(ValueError, match="is missing; allowed"):
            Store(tmp_path / "none" / "runs.sqlite", reading=reading)
        assert not (tmp_path / "none").exists()

    def test_a_damaged_store(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        store = Store(path)
        store.add("a" * 64, "one", {}, batches([1] * 200))
        store.close()
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="is no SQLite database, or damaged; allowed"):  # noqa: PT012
            store = Store(path)
            try:
                store.claim(1, "a")
            finally:
                store.close()

    def test_a_missing_file_where_it_is_read_is_not_made(self, tmp_path):
        with pytest.raises(ValueError, match="is missing; allowed: a store that a sweep has written"):
            Store(tmp_path / "runs.sqlite", reading=True)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("where", ["", ".", ":memory:", "sqlite://", "sqlite:///:memory:",
                                       "sqlite:///runs.sqlite?timeout=soon"])  # fmt: skip
    def test_what_is_no_file(self, where):
        with pytest.raises(ValueError, match="allowed: a file, or the URL of a database"):
            Store(where)

    @pytest.mark.parametrize(
        ("where", "said"),
        [
            ("nosuch://user:s3cret@host/name", "store nosuch://... is of no known kind; allowed: the path of an"),
            ("postgresql://user:s3cret@host:port/name", "store is no URL; allowed: the path of an SQLite file"),
            ("postgresql://user:s3cret", "store is no URL; allowed"),
            ("s3cret here://", "store is no URL; allowed"),
            ("postgresql://user:a@s3cret@host/name", "an @ too many; allowed: %40"),
            ("postgresql://user/a:s3cret@host/name", "an @ too many; allowed: %40"),
            (
                "postgresql+asyncpg://user:s3cret@host/name",
                "needs the module asyncpg; allowed: SQLite, or postgresql://..., by pip install '.[postgresql]'",
            ),
        ],
    )
    def test_urls(self, where, said):
        with pytest.raises(ValueError, match="allowed") as raised:
            Store(where)
        assert said in str(raised.value)
        assert "s3cret" not in str(raised.value)

    @pytest.mark.parametrize(
        "form",
        [
            "postgresql://user:s3cret@127.0.0.1:{}/name",
            "postgres://user:s3cret@127.0.0.1:{}/name?application_name=a",
            "postgresql://127.0.0.1:{}/name?user=user&password=s3cret",
        ],
    )
    def test_a_server_that_is_not_there(self, form):
        where = form.format(free_port())
        with pytest.raises(OSError, match="Connection refused") as raised:
            Store(where)
        assert "\n" not in str(raised.value)
        assert "s3cret" not in str(raised.value)
        assert "127.0.0.1" in str(raised.value)

    def test_a_database_and_a_user_that_are_not_there(self, postgresql):
        with pytest.raises(OSError, match='database "none" does not exist'):
            Store(f"{postgresql}/none")
        with pytest.raises(OSError, match='role "nobody" does not exist') as raised:
            Store(f"{postgresql.replace('postgres@', 'nobody:s3cret@')}/postgres")
        assert "s3cret" not in str(raised.value)

    def test_shown_hides_passwords(self):
        assert shown("runs.sqlite") == "runs.sqlite"
        assert shown("postgresql://me:s3cret@host/name") == "postgresql+psycopg://me:***@host/name"
        assert "s3cret" not in shown("postgresql://host/name?password=s3cret&sslpassword=s3cret")
        assert "sslmode=require" in shown("postgresql://host/name?sslmode=require")


class TestFiles:
    @pytest.mark.parametrize("name", ["a b.sqlite", "per%20cent?#&.sqlite", "größe.sqlite", "at@home.sqlite"])
    def test_of_any_name(self, tmp_path, name):
        path = tmp_path / name
        store = Store(path)
        store.add("a" * 64, "one", {}, batches([1]))
        store.close()
        assert [file.name for file in tmp_path.iterdir()] == [name]
        store = Store(path, reading=True)
        assert len(store.sweeps()) == 1
        store.close()
        # A reader takes away what SQLite puts beside it, too.
        assert [file.name for file in tmp_path.iterdir()] == [name]

    def test_as_a_url(self, tmp_path):
        store = Store(f"sqlite:///{tmp_path}/me@home.sqlite")
        store.add("a" * 64, "one", {}, batches([1]))
        store.close()
        store = Store(tmp_path / "me@home.sqlite", reading=True)
        assert len(store.sweeps()) == 1
        store.close()

    def test_that_are_read_cannot_be_written(self, tmp_path):
        Store(tmp_path / "runs.sqlite").close()
        store = Store(tmp_path / "runs.sqlite", reading=True)
        with pytest.raises(OSError, match="readonly"):
            store.add("a" * 64, "one", {}, batches([1]))
        store.close()

    @pytest.mark.parametrize("working", [True, False], ids=["with-a-writer", "alone"])
    def test_in_a_folder_that_is_read_only(self, tmp_path, working):
        folder = tmp_path / "closed"
        folder.mkdir()
        writer = Store(folder / "runs.sqlite")
        sweep = writer.add("a" * 64, "one", {}, batches([1, 1]))
        batch = writer.claim(sweep, "a")
        writer.finish(batch, done(batch))
        if not working:
            writer.close()
        code = (
            "import json, os, sys\n"
            "from persianrug.sweeps.store import Store\n"
            "assert not os.access('closed', os.W_OK)\n"
            "store = Store('closed/runs.sqlite', reading=True)\n"
            "print(json.dumps(store.counts(1)))\n"
            "store.close()\n"
            "Store('closed/runs.sqlite')\n"
        )
        folder.chmod(0o555)
        try:
            result = subprocess.run(
                [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, preexec_fn=without_privileges,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            folder.chmod(0o755)
        # What a writer has not yet put into the file itself is read, too.
        assert json.loads(result.stdout) == {"pending": 1, "claimed": 0, "done": 1, "failed": 0}, result.stderr
        assert "folder" in result.stderr.splitlines()[-1]
        assert "is not writable; allowed: a writable folder" in result.stderr.splitlines()[-1]
        writer.close()

    def test_that_are_full_keep_what_was_stored(self, tmp_path):
        store = Store(tmp_path / "runs.sqlite")
        sweep = store.add("a" * 64, "one", {}, batches([1] * 8))

        def limit(pages):
            with store._engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        first = store.claim(sweep, "a")
        assert store.finish(first, done(first))
        second = store.claim(sweep, "a")
        before = store.rows(sweep)
        limit(1)
        with pytest.raises(OSError, match=r"failed: database or disk is full; what was stored is kept"):
            store.finish(second, done(second, text="x" * 50_000))
        assert store.rows(sweep) == before
        limit(1 << 30)
        assert store.finish(second, done(second, text="x" * 50_000))
        assert store.counts(sweep)["done"] == 2
        store.close()

    def test_that_another_writes_are_waited_for(self, tmp_path):
        path = tmp_path / "runs.sqlite"
        store = Store(path)
        sweep = store.add("a" * 64, "one", {}, batches([1]))
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        # Who reads does not wait.
        reader = Store(path, reading=True)
        assert reader.counts(sweep)["pending"] == 1
        reader.close()
        ending = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
        ending.start()
        batch = store.claim(sweep, "a")
        assert numbers(batch) == [0]
        ending.join()
        other.close()
        store.close()

    def test_that_another_writes_for_too_long(self, tmp_path, monkeypatch):
        monkeypatch.setattr(stores, "_PATIENCE", 0.1)
        path = tmp_path / "runs.sqlite"
        store = Store(path)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="database is locked"):
            store.add("a" * 64, "one", {}, batches([1]))
        other.close()
        store.close()


def test_new_files_are_opened_by_many_at_once(tmp_path):
    many = 4
    together = threading.Barrier(many)

    def open_each(_):
        for k in range(60):
            together.wait(timeout=60)
            try:
                Store(tmp_path / f"{k}.sqlite").close()
            except BaseException:
                together.abort()
                raise

    with ThreadPoolExecutor(many) as pool:
        list(pool.map(open_each, range(many)))
