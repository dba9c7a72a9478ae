"""The database of sweeps: every run is taken by one worker, and stored as it finishes.

A sweep is cut into batches of runs. A worker *claims* a batch for some seconds and renews its claim while it
works, so that the batch of a worker that dies is taken by another one. A claim that another one has taken over
cannot store anything any more: nothing is lost, and nothing is stored twice. Workers on different machines may
share a store, if their clocks agree to within some seconds.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from persianrug._support import checks
from persianrug._support.extras import installing
from persianrug._support.files import check_writable

SCHEMA = 1

# Seconds for which a claim holds, if it is not renewed.
LEASE = 20.0
# A batch whose workers died so often kills them; others should go on.
_MOST_ATTEMPTS = 3
# Seconds to wait for another process that is writing, and for a server.
_PATIENCE = 60
_CONNECT = 10
_RETRY = 0.005

PENDING, CLAIMED, DONE, FAILED = "pending", "claimed", "done", "failed"

_TABLES = sa.MetaData()
_schema = sa.Table("persianrug", _TABLES, sa.Column("schema", sa.Integer, primary_key=True, autoincrement=False))
_sweeps = sa.Table(
    "sweeps", _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("recipe", sa.Text, nullable=False),
)  # fmt: skip
_batches = sa.Table(
    "batches", _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sweep", sa.ForeignKey("sweeps.id"), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("owner", sa.String(100)),
    sa.Column("expires", sa.Float(53), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Index("batches_by_state", "sweep", "state"),
)  # fmt: skip
_runs = sa.Table(
    "runs", _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("batch", sa.ForeignKey("batches.id"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    # What was asked for, and what came out, as JSON objects.
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
)  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Runs that a worker has claimed: by the id of each, what was asked for."""

    id: int
    owner: str
    asked: dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What came of a run: a result, or the error that it failed with."""

    result: dict[str, Any] | None = None
    error: str | None = None


class Store:
    """A database of sweeps.

    Parameters
    ----------
    where : path or str
        A path of an SQLite file, which is made if it is not there; or a URL as SQLAlchemy writes them, such as
        postgresql://user:password@host/name.
    reading : bool
        Whether it is only read, and must exist.

    Raises
    ------
    ValueError
        If the URL is malformed or its driver is missing, the file is no such database, holds something else or is
        missing where it is read, or the store has another version.
    OSError
        If it cannot be reached or written.

    Attributes
    ----------
    name : str
        How messages name it, without a password.
    lease : float
        Seconds for which its claims hold, if they are not renewed.
    """

    def __init__(self, where: str | os.PathLike[str], *, reading: bool = False) -> None:
        self.lease = LEASE
        text = store_name(where)
        if "://" in text:
            self._url, self.name = _parse(text)
        else:
            self._url, self.name = sa.URL.create("sqlite", database=text), text
        if self._url.get_backend_name() == "sqlite":
            self._check_file(Path(self._url.database or ""), reading)
        self._engine = _engine(self._url, reading)
        try:
            with self._transaction() as connection:
                self._check_schema(connection, reading)
        except BaseException:
            self.close()
            raise

    def _check_file(self, path: Path, reading: bool) -> None:
        """Refuse a file that cannot serve."""
        if path == Path() or str(path) == ":memory:" or self._url.query:
            raise ValueError(f"store is {self.name}; allowed: a file, or the URL of a database")
        checks.path("store", path)
        if not reading:
            check_writable(path)
        elif not path.is_file():
            said = "is no file" if path.exists() else "is missing"
            raise ValueError(f"store {self.name} {said}; allowed: a store that a sweep has written")

    def _check_schema(self, connection: sa.Connection, reading: bool) -> None:
        names = set(sa.inspect(connection).get_table_names())
        if _schema.name not in names:
            # The file of another program is left alone; on a server, tables of others may lie beside these.
            foreign = names if connection.dialect.name == "sqlite" else names & set(_TABLES.tables)
            if reading or foreign:
                raise ValueError(f"store {self.name} holds no sweeps; allowed: a store that a sweep has written")
            if connection.dialect.name == "postgresql":
                # Two processes may find an empty database at once.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(20241012101)"))
            _TABLES.create_all(connection)
            if connection.scalar(sa.select(sa.func.count()).select_from(_schema)) == 0:
                connection.execute(_schema.insert().values(schema=SCHEMA))
        found = connection.scalars(sa.select(_schema.c.schema)).all()
        if found != [SCHEMA]:
            said = ", ".join(map(str, found)) or "none"
            raise ValueError(f"store {self.name} has version {said}; allowed: {SCHEMA}, or a new store")

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise _failure(self.name, error) from error
        except sa.exc.SQLAlchemyError as error:
            raise OSError(f"store {self.name} failed: {error}") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(
        self, digest: str, name: str, recipe: dict[str, Any], batches: Sequence[Sequence[dict[str, Any]]]
    ) -> int:
        """The id of the sweep with this digest, which is added if it is not there yet.

        Parameters
        ----------
        digest : str
        name : str
        recipe : dict
            What the sweep was made from, as a JSON object.
        batches : sequence of sequences of dict
            What is asked for in each run, as JSON objects with its number. Batches are claimed in this order.
        """
        known = sa.select(_sweeps.c.id).where(_sweeps.c.digest == digest)
        with self._transaction() as connection:
            found = connection.scalar(known)
        if found is not None:
            return int(found)
        try:
            with self._transaction() as connection:
                # Where another process adds the same, one of them fails here.
                added = _sweeps.insert().values(digest=digest, name=name, recipe=json.dumps(recipe))
                sweep = _key(connection, added)
                for runs in batches:
                    added = _batches.insert().values(sweep=sweep, state=PENDING, expires=0.0, attempts=0)
                    batch = _key(connection, added)
                    rows = [
                        {"batch": batch, "number": asked["number"], "state": PENDING, "asked": json.dumps(asked)}
                        for asked in runs
                    ]
                    connection.execute(_runs.insert(), rows)
                return sweep
        except OSError as error:
            if not isinstance(error.__cause__, sa.exc.IntegrityError):
                raise
        with self._transaction() as connection:
            return int(connection.execute(known).scalar_one())

    def claim(self, sweep: int, owner: str) -> Batch | None:
        """The next batch that nobody works on, or None."""
        with self._transaction() as connection:
            return self._claim(connection, sweep, owner)

    def _claim(self, connection: sa.Connection, sweep: int, owner: str) -> Batch | None:
        # Not before the transaction has begun, which may take a while.
        now = time.time()
        free = sa.or_(_batches.c.state == PENDING, sa.and_(_batches.c.state == CLAIMED, _batches.c.expires < now))
        candidate = (
            sa.select(_batches.c.id, _batches.c.attempts)
            .where(_batches.c.sweep == sweep, free)
            .order_by(_batches.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        while (found := connection.execute(candidate).first()) is not None:
            mine = _batches.c.id == found.id
            unfinished = sa.and_(_runs.c.batch == found.id, _runs.c.state == PENDING)
            if found.attempts >= _MOST_ATTEMPTS:
                error = f"its worker died {found.attempts} times, for want of memory perhaps"
                connection.execute(_batches.update().where(mine).values(state=DONE, owner=None))
                connection.execute(_runs.update().where(unfinished).values(state=FAILED, error=error))
                continue
            connection.execute(
                _batches.update().where(mine).values(
                    state=CLAIMED, owner=owner, expires=now + self.lease, attempts=found.attempts + 1
                )
            )  # fmt: skip
            rows = connection.execute(
                sa.select(_runs.c.id, _runs.c.asked).where(unfinished).order_by(_runs.c.number)
            )
            return Batch(found.id, owner, {row.id: json.loads(row.asked) for row in rows})
        return None

    def renew(self, owner: str) -> None:
        """Prolong the claims of an owner."""
        with self._transaction() as connection:
            connection.execute(
                _batches.update()
                .where(_batches.c.owner == owner, _batches.c.state == CLAIMED)
                .values(expires=time.time() + self.lease)
            )

    def release(self, owner: str, *, died: bool = False) -> None:
        """Give back the claims of an owner, and of those whose names begin with it.

        It is as if there were none; but where workers have `died`, it counts as what it was.
        """
        attempts = _batches.c.attempts - (0 if died else 1)
        with self._transaction() as connection:
            connection.execute(
                _batches.update()
                .where(_batches.c.owner.startswith(owner, autoescape=True), _batches.c.state == CLAIMED)
                .values(state=PENDING, owner=None, attempts=attempts)
            )

    def finish(self, batch: Batch, outcomes: dict[int, Outcome]) -> bool:
        """Store what came of the runs of a batch, by their ids; False, and nothing, where the claim was lost."""
        mine = sa.and_(_batches.c.id == batch.id, _batches.c.owner == batch.owner, _batches.c.state == CLAIMED)
        with self._transaction() as connection:
            if connection.execute(_batches.update().where(mine).values(state=DONE, owner=None)).rowcount != 1:
                return False
            rows = [
                {
                    "run": run,
                    "state": DONE if outcome.error is None else FAILED,
                    "result": None if outcome.result is None else json.dumps(outcome.result),
                    "error": outcome.error,
                }
                for run, outcome in outcomes.items()
            ]
            connection.execute(_runs.update().where(_runs.c.id == sa.bindparam("run")), rows)
        return True

    def retry(self, sweep: int) -> int:
        """Make the failed runs of a sweep pending again, and return how many there were."""
        failed = sa.and_(
            _runs.c.state == FAILED,
            _runs.c.batch.in_(sa.select(_batches.c.id).where(_batches.c.sweep == sweep)),
        )
        with self._transaction() as connection:
            batches = sa.select(_runs.c.batch).where(failed)
            connection.execute(
                _batches.update().where(_batches.c.id.in_(batches)).values(state=PENDING, attempts=0)
            )
            return connection.execute(_runs.update().where(failed).values(state=PENDING, error=None)).rowcount

    def counts(self, sweep: int) -> dict[str, int]:
        """How many runs of a sweep are pending, claimed, done and failed."""
        claimed = sa.and_(_batches.c.state == CLAIMED, _runs.c.state == PENDING)
        state = sa.case((claimed, CLAIMED), else_=_runs.c.state).label("shown")
        query = (
            sa.select(state, sa.func.count())
            .join(_batches, _runs.c.batch == _batches.c.id)
            .where(_batches.c.sweep == sweep)
            .group_by(state)
        )
        with self._transaction() as connection:
            found = {name: int(count) for name, count in connection.execute(query)}
        return {name: found.get(name, 0) for name in (PENDING, CLAIMED, DONE, FAILED)}

    def sweeps(self) -> list[dict[str, Any]]:
        """Of every sweep id, digest, name and recipe."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_sweeps).order_by(_sweeps.c.id)).mappings()
            return [{**row, "recipe": json.loads(row["recipe"])} for row in rows]

    def rows(self, sweep: int) -> list[dict[str, Any]]:
        """Of every run of a sweep, by number: what was asked for and found, state and error."""
        query = (
            sa.select(_runs.c.state, _runs.c.asked, _runs.c.result, _runs.c.error)
            .join(_batches, _runs.c.batch == _batches.c.id)
            .where(_batches.c.sweep == sweep)
            .order_by(_runs.c.number)
        )
        with self._transaction() as connection:
            return [
                {**json.loads(row.asked), "state": row.state, "error": row.error, **json.loads(row.result or "{}")}
                for row in connection.execute(query)
            ]


def _key(connection: sa.Connection, insert: sa.Insert) -> int:
    """The id of a row that is inserted."""
    return int(cast(Any, connection.execute(insert).inserted_primary_key)[0])


def store_name(where: str | os.PathLike[str]) -> str:
    """A URL, or the path of a file; ValueError if it is none."""
    text = where if isinstance(where, str) and "://" in where else os.fspath(checks.path("store", where))
    return str(text)


def shown(where: str) -> str:
    """How a store is named in messages: a URL without its password."""
    return _parse(where)[1] if "://" in where else where


def _parse(text: str) -> tuple[sa.URL, str]:
    """A URL with the driver that is used here, and how it is shown."""
    try:
        url = sa.make_url(text)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except sa.exc.NoSuchModuleError:
        raise ValueError(f"store {text.split('://')[0]}://... is of no known kind; allowed: {_ALLOWED}") from None
    except (sa.exc.ArgumentError, ValueError):
        # What they say may have a part of the password in it.
        raise ValueError(f"store is no URL; allowed: {_ALLOWED}") from None
    if url.get_backend_name() != "sqlite" and text.split("?")[0].count("@") > (url.username is not None):
        # A part of the password would be taken for something else, and be shown.
        raise ValueError("store is a URL with an @ too many; allowed: %40 for one in a password, %2F for a /")
    hidden = {key: "***" for key in url.query if "pass" in key.lower()}
    return url, url.update_query_dict(hidden).render_as_string(hide_password=True)


_ALLOWED = "the path of an SQLite file, postgresql://user:password@host/name, or another URL of SQLAlchemy's"


def _engine(url: sa.URL, reading: bool) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        try:
            timeout = {"connect_timeout": _CONNECT} if url.get_backend_name() == "postgresql" else {}
            return sa.create_engine(url, connect_args=timeout, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"store needs the module {error.name}; "
                f"allowed: SQLite, or postgresql://..., by {installing('postgresql')}"
            ) from None
    if reading:
        url = _reading(Path(url.database or "").resolve())
    engine = sa.create_engine(url, connect_args={"timeout": _PATIENCE})

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # Transactions are begun below, not by the driver, which would read before it locks.
        connection.isolation_level = None
        try:
            _prepare(connection, reading)
        except BaseException:
            connection.close()
            raise

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _reading(path: Path) -> sa.URL:
    """The URL of an SQLite file that is read; nothing is left beside it."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # SQLite puts files of its own beside it, and takes them away only where it might write.
        mode = {"mode": "rw"}
    elif Path(f"{path}-wal").exists():
        mode = {"mode": "ro"}
    else:
        # Those files cannot be made, or not taken away.
        mode = {"mode": "ro", "immutable": "1"}
    return sa.URL.create("sqlite", database=path.as_uri(), query={**mode, "uri": "true"})


def _prepare(connection: Any, reading: bool) -> None:
    """Set up a connection to an SQLite file."""
    if reading:
        connection.execute("PRAGMA query_only=ON")
        return
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    # What holds something else is refused later, and stays as it is.
    if not names or _schema.name in names:
        # A commit survives the death of a process, and costs no wait for the disk.
        _switch_to_log(connection)
        connection.execute("PRAGMA synchronous=NORMAL")


def _switch_to_log(connection: Any) -> None:
    """Let a connection to an SQLite file write to a log, for which SQLite itself does not wait."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # Another process switches the same new file.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY)


def _failure(name: str, error: sa.exc.DBAPIError) -> Exception:
    """What a database said, in a line of ours."""
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if "not a database" in reason or "malformed" in reason:
        return ValueError(
            f"store {name} is no SQLite database, or damaged; allowed: a file that a sweep has written"
        )
    return OSError(f"store {name} failed: {reason}; what was stored is kept, and the sweep can be run again")
