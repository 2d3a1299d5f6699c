"""A real PostgreSQL for the tests that must hold on both databases."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from feedback.database.engine import Database, open_database

SERVER = "STUDIO_TEST_POSTGRESQL"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server that may be written to: ``$STUDIO_TEST_POSTGRESQL``, else one started for the tests."""
    given = os.environ.get(SERVER)
    if given:
        yield given
        return
    try:
        import pgserver
    except ModuleNotFoundError:
        pytest.fail(f"PostgreSQL is not there to test with: `make setup` installs it, or name a server in ${SERVER}.")
    # Not below pytest's directories: the path of the server's socket may have no more than 107 characters.
    with tempfile.TemporaryDirectory(prefix="studio-pg-", ignore_cleanup_errors=True) as directory:
        server = _started(pgserver, Path(directory))
        yield server.get_uri()
        server.cleanup()


def _started(pgserver: Any, directory: Path) -> Any:
    """A server of our own; it is given ten seconds to start, which a busy machine may need more than once."""
    for attempts_left in (2, 1, 0):
        try:
            return pgserver.get_server(directory / str(attempts_left), cleanup_mode="stop")
        except (OSError, subprocess.SubprocessError):
            if not attempts_left:
                raise
    raise AssertionError("unreachable")


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    server = make_url(postgresql_server.replace("postgresql://", "postgresql+psycopg://", 1))
    name = f"studio_test_{os.getpid()}_{next(_numbers)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name, drivername="postgresql").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    """A new, migrated PostgreSQL database."""
    database = open_database(postgresql_url)
    yield database
    database.dispose()
