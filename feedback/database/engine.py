"""One database from one URL: SQLite by default, PostgreSQL as the way out.

SQLite runs in WAL mode with foreign keys on and a busy timeout. Every writing transaction begins with
``BEGIN IMMEDIATE``: the write lock is taken before the first read, so a check and the write that depends on it
cannot be torn apart by another process, and two writers wait for each other instead of failing at commit. SQLite
waits by polling, which is unfair under load, so writers queue for their turn first (``feedback.database.write_queue``).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlmodel import Session, SQLModel

import feedback.chat_tables
import feedback.round_tables
import feedback.tables  # noqa: F401  (both fill SQLModel.metadata)
from feedback import migrations
from feedback.database.driver_errors import READ_ERRORS, explain, explain_sqlite, full_disk, one_line
from feedback.database.write_queue import WriteQueue
from feedback.errors import RESTORE_HINT, DatabaseDamaged, DatabaseUnavailable, InvalidInput, StudioError

BUSY_TIMEOUT_SECONDS = 30.0
# How often a patient process asks again whether the database is there.
RETRY_SECONDS = 0.5
_KINDS = ("sqlite", "postgresql")
OpenedT = TypeVar("OpenedT", Session, Connection)


class Database:
    """An open, migrated database. ``read`` and ``write`` are for ``feedback.store`` alone.

    Whatever is wrong with the database itself is raised as a StudioError: DatabaseUnavailable while it is locked or
    away, DatabaseDamaged when it cannot be read. ``patience`` is how many seconds a session waits, in addition to
    the driver's own timeout, for a database that is locked or away when the session begins; the process of a run
    raises it, since hours of training must not end with a server that is restarted.
    """

    def __init__(self, url: str, engine: Engine) -> None:
        self.url = url
        self.engine = engine
        self.patience = 0.0
        self._writing = engine.execution_options(begin_immediate=True)
        self._glance: Connection | None = None
        self._glancing = threading.Lock()
        self._write_queue = WriteQueue(Path(engine.url.database) if self.is_sqlite and engine.url.database else None)

    @property
    def is_sqlite(self) -> bool:
        """True for the embedded default; row locks (``SKIP LOCKED``) exist only when this is False."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose work is rolled back at the end; rows stay usable after it."""
        with self._told(), self._begun(lambda: _session(self.engine)) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits on leaving, or rolls everything back when anything is raised."""
        with self._told(), self._turn(), self._begun(lambda: _session(self._writing)) as session, _committed(session):
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As ``write``, for statements on tables instead of rows: a tenth of the work, for what is done per vote."""
        with (
            self._told(),
            self._turn(),
            self._begun(lambda: _connection(self._writing)) as connection,
            _committed(connection),
        ):
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """As ``read``, for statements on tables instead of rows."""
        with self._told(), self._begun(lambda: _connection(self.engine)) as connection:
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """For one light prepared statement outside of any transaction, as what is asked before every request.

        A SQLite file has one connection kept for them: to take one from the pool, begin and roll back costs ten times
        the statement. They never wait for writers, for in WAL mode no reader does.
        """
        if not self.glances_are_light:
            with self._told(), self.engine.connect() as connection:
                yield connection
            return
        with self._told(), self._glancing:
            if self._glance is None:
                self._glance = self.engine.connect()
            yield self._glance

    @property
    def glances_are_light(self) -> bool:
        """True when a ``glance`` costs microseconds, since nothing is asked over a network or waited for."""
        return self.is_sqlite and bool(self.engine.url.database)

    def _turn(self) -> AbstractContextManager[None]:
        return self._write_queue.wait() if self.is_sqlite else nullcontext()

    def dispose(self) -> None:
        """Close all connections."""
        with self._glancing:
            if self._glance is not None:
                self._glance.close()
            self._glance = None
        self.engine.dispose()
        self._write_queue.close()

    def _begun(self, begin: Callable[[], OpenedT]) -> OpenedT:
        """What ``begin`` opens, tried again while the database is locked or away and patience lasts."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return begin()
            except READ_ERRORS as error:
                told = explain(error, self.engine)
                if not isinstance(told, DatabaseUnavailable) or time.monotonic() >= deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what a driver says about the state of the database as an error a user can act on."""
        try:
            yield
        except READ_ERRORS as error:
            if told := explain(error, self.engine):
                raise told from error
            raise


@contextmanager
def _committed(transaction: Session | Connection) -> Iterator[None]:
    """Commit at the end, or roll back when anything is raised.

    The rollback is explicit because SQLite keeps a transaction open whose COMMIT failed, and the pool, which takes a
    transaction that was committed for a finished one, would hand the connection on with it.
    """
    try:
        yield
        transaction.commit()
    except BaseException:
        transaction.rollback()
        raise


def _session(engine: Engine) -> Session:
    """A session whose transaction has begun."""
    session = Session(engine, expire_on_commit=False)
    try:
        session.connection()
    except BaseException:
        session.close()
        raise
    return session


def _connection(engine: Engine) -> Connection:
    """A connection whose transaction has begun."""
    connection = engine.connect()
    try:
        connection.begin()
    except BaseException:
        connection.close()
        raise
    return connection


def send(connection: Connection, sql: str, parameters: Any) -> Sequence[Any]:
    """Hand a statement to the driver itself; the rows found. Errors are SQLAlchemy's, as everywhere."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError.instance(sql, parameters, error, connection.dialect.loaded_dbapi.Error) from error
    finally:
        cursor.close()


def one_at_a_time(transaction: Session | Connection, what: str) -> None:
    """Wait until no other open transaction does ``what``; the turn ends with the transaction.

    For checks that no row can be locked for, as "is there such a prompt?". SQLite has one writer anyway.
    """
    connection = transaction.connection() if isinstance(transaction, Session) else transaction
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"studio:{what}",))


def open_database(url_or_path: str | Path) -> Database:
    """Open the database at a URL or a SQLite file path, and apply the migrations it lacks.

    Raises InvalidInput when the URL cannot be read or the file is not a database, StudioError when it cannot
    be reached or was written by a newer release.
    """
    url = as_url(url_or_path)
    engine = create_engine_for(url)
    try:
        refuse_foreign(url)
        migrations.require_known(engine)
        migrations.upgrade(engine)
        require_schema(engine)
    except (StudioError, DatabaseError, sqlite3.Error) as error:
        engine.dispose()
        told = _refusal(error, engine, url)
        raise told from (None if told is error else error)
    return Database(url, engine)


def _refusal(error: StudioError | DatabaseError | sqlite3.Error, engine: Engine, url: str) -> StudioError:
    """Why a database cannot be opened, for whoever named it."""
    if isinstance(error, StudioError):
        return error
    reason = one_line(error.orig if isinstance(error, DatabaseError) else error)
    told = explain_sqlite(error, engine) if isinstance(error, sqlite3.Error) else explain(error, engine)
    if engine.dialect.name == "sqlite" and isinstance(told, DatabaseUnavailable):
        return told
    if isinstance(error, OperationalError | sqlite3.OperationalError):
        return full_disk(engine) or StudioError(
            f"The database {shown_url(url)} cannot be opened: {reason}. Check that it exists and is writable."
        )
    if isinstance(told, DatabaseDamaged) and "malformed" in reason:
        return told
    return InvalidInput(
        f"{shown_url(url)} is not a studio database: {reason}. Name another --home or restore a backup."
    )


def refuse_foreign(url: str) -> None:
    """Refuse to put tables into a file that holds those of another program, before anything in it is touched."""
    file = file_of(url)
    if file is None or not file.is_file() or file.stat().st_size == 0:
        return
    with closing(read_only_connection(file)) as connection:
        names = sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
    if names and "alembic_version" not in names:
        raise InvalidInput(
            f"{file} is not a studio database: it holds the tables {', '.join(names[:5])}, which are another "
            "program's. Name another --home or restore a backup."
        )


def read_only_connection(file: Path) -> sqlite3.Connection:
    """A connection that cannot change a file, nor create it."""
    uri = f"file:{quote(str(file))}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)


def require_schema(engine: Engine) -> None:
    """Refuse a database that says it is of this schema and lacks some of its tables or columns."""
    stored = migrations.columns_of_tables(engine)
    tables = SQLModel.metadata.tables
    if missing := sorted(tables.keys() - stored.keys()):
        raise DatabaseDamaged(f"it lacks the tables {', '.join(missing[:5])}", RESTORE_HINT)
    lost = sorted(f"{name}.{key}" for name, table in tables.items() for key in set(table.columns.keys()) - stored[name])
    if lost:
        raise DatabaseDamaged(f"it lacks the columns {', '.join(lost[:5])}", RESTORE_HINT)


def as_url(url_or_path: str | Path) -> str:
    """The URL that SQLAlchemy is given for a URL or a file path."""
    text = str(url_or_path)
    if isinstance(url_or_path, Path) or "://" not in text:
        return f"sqlite:///{Path(text).expanduser().resolve()}"
    if text.startswith(("postgresql://", "postgres://")):
        return "postgresql+psycopg://" + text.split("://", 1)[1]
    return text


def create_engine_for(url: str) -> Engine:
    """An engine for a URL of a kind that is supported, with the settings that keep rows safe."""
    dialect = _parsed(url).get_backend_name()
    if dialect not in _KINDS:
        raise InvalidInput(f"The database kind {dialect!r} is not supported; valid: {', '.join(_KINDS)}.")
    if dialect == "postgresql":
        return _create_postgresql(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _create_postgresql(url: str) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise StudioError("PostgreSQL needs its driver: pip install 'rlhf-studio[postgres]'.") from error


def _set_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver must not open transactions by itself: _begin decides between BEGIN and BEGIN IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA recursive_triggers=ON")  # so that a row which is replaced counts as deleted
    cursor.close()


def _begin(connection: Any) -> None:
    immediate = connection.get_execution_options().get("begin_immediate", False)
    send(connection, "BEGIN IMMEDIATE" if immediate else "BEGIN", ())


def _parsed(url: str) -> URL:
    """A URL in its parts. One that has none is not repeated: where its password begins and ends nobody can tell."""
    with suppress(ArgumentError, ValueError):  # the latter for a port that is no number
        parsed = make_url(url)
        if parsed.get_backend_name() in _KINDS:
            parsed.get_dialect()().create_connect_args(parsed)  # which would fail at connecting, with less to say
        if "@" not in (parsed.host or ""):  # else the end of a password, and told as a host
            return parsed
    kind = url.partition("://")[0].removesuffix("+psycopg")
    raise InvalidInput(
        f"The database URL {kind}://… cannot be read; valid: sqlite:///FILE or "
        "postgresql://USER:PASSWORD@HOST:PORT/NAME, where PORT is a number, and @, : and / in PASSWORD are written "
        "%40, %3A and %2F."
    )


def file_of(url: str) -> Path | None:
    """The file of an SQLite database; None for a server's."""
    parsed = _parsed(as_url(url))
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def shown_url(url: str) -> str:
    """A URL that may be shown: without its password."""
    parsed = make_url(url).difference_update_query(["password", "sslpassword"])
    return parsed.render_as_string(hide_password=True)
