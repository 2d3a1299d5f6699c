"""A database that is locked, away or damaged: one sentence and one type of error, whatever the driver says."""

from __future__ import annotations

import pickle
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from feedback.database import engine as databases
from feedback.database.engine import Database, open_database
from feedback.errors import DatabaseDamaged, DatabaseUnavailable, InvalidInput, StudioError
from feedback.store.content import prompts
from feedback.store.models import runs
from feedback.store.people import audit, users
from feedback.types import Run
from tests.factories import make_prompt


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database whose driver waits for a lock no longer than a moment."""
    monkeypatch.setattr(databases, "BUSY_TIMEOUT_SECONDS", 0.05)
    return open_database(tmp_path / "hasty.db")


def lock(path: Path) -> sqlite3.Connection:
    """Keep everybody from writing until the connection is closed."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


ACTS: list[Callable[[Database], object]] = [
    make_prompt,
    lambda db: audit.save_event(db, "ann", "act"),
    lambda db: runs.save_run(db, Run(method="dpo")),
]


@pytest.mark.parametrize("act", ACTS)
def test_a_locked_database_is_unavailable(act: Callable[[Database], object], hasty: Database, tmp_path: Path) -> None:
    with closing(lock(tmp_path / "hasty.db")):
        with pytest.raises(DatabaseUnavailable, match=r"locked or cannot be reached .* Nothing was saved; try again"):
            act(hasty)
        with pytest.raises(DatabaseUnavailable), hasty.transaction():
            pass
    act(hasty)
    assert pickle.loads(pickle.dumps(DatabaseUnavailable("x"))).reason == "x"


def test_a_database_is_locked_while_it_is_opened(hasty: Database, tmp_path: Path) -> None:
    hasty.dispose()
    with closing(sqlite3.connect(tmp_path / "hasty.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable):
            open_database(tmp_path / "hasty.db")
    assert prompts.count_prompts(open_database(tmp_path / "hasty.db")) == 0


def test_a_patient_database_outlasts_a_lock(hasty: Database, tmp_path: Path) -> None:
    other = lock(tmp_path / "hasty.db")
    tried = threading.Event()

    def let_go() -> None:
        tried.wait(30)
        other.close()

    thread = threading.Thread(target=let_go)
    thread.start()
    hasty.patience = 60.0
    threading.Timer(1.0, tried.set).start()
    make_prompt(hasty, "worth waiting for")
    thread.join()
    assert prompts.count_prompts(hasty) == 1


def test_a_page_that_is_damaged_is_told_with_the_remedy(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    for number in range(300):
        make_prompt(db, f"Question {number} " + "word " * 40)
    db.dispose()
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'prompt'").fetchone()
    with (tmp_path / "studio.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\x5a" * 600)
    db = open_database(tmp_path / "studio.db")
    for act in (lambda: prompts.list_prompts(db), lambda: make_prompt(db)):
        with pytest.raises(DatabaseDamaged, match=r"The database is damaged: .*malformed.* `studio restore FILE"):
            act()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("messages", '[{"role": '),
        ("messages", b"\xff\xfe\x00"),
        ("created_at", "yesterday"),
        ("created_at", "2026-13-01 00:00:00.000000"),
    ],
)
def test_a_value_that_is_damaged_is_told(column: str, value: object, tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    make_prompt(db)
    db.dispose()
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        connection.execute(f"UPDATE prompt SET {column} = CAST(? AS TEXT)", (value,))
    db = open_database(tmp_path / "studio.db")
    with pytest.raises(DatabaseDamaged, match="a backup"):
        prompts.list_prompts(db)


def test_a_value_that_belongs_to_no_list_is_told(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    runs.save_run(db, Run(method="dpo"))
    db.dispose()
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        connection.execute("UPDATE run SET state = 'quxued'")
    with pytest.raises(DatabaseDamaged, match="'quxued'"):
        runs.list_runs(open_database(tmp_path / "studio.db"))


def test_a_table_that_is_gone_is_told(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        connection.execute("DROP TABLE user")
    with pytest.raises(DatabaseDamaged, match="no such table: user"):
        users.any_user(db)


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + bytes(84), b"\0" * 8192, b"words " * 999])
def test_a_file_that_is_no_database_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "studio.db").write_bytes(content)
    with pytest.raises(StudioError):
        open_database(tmp_path / "studio.db")
    assert (tmp_path / "studio.db").read_bytes() == content


def test_a_connection_that_the_server_ends_is_unavailable(postgresql: Database, postgresql_url: str) -> None:
    server = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")

    def end_others() -> None:
        with server.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    make_prompt(postgresql, "kept")
    with pytest.raises(DatabaseUnavailable), postgresql.write() as session:
        end_others()
        session.execute(text("SELECT count(*) FROM prompt"))
    assert prompts.count_prompts(postgresql) == 1, "the next transaction has a fresh connection"
    with pytest.raises(InvalidInput), postgresql.read() as session:
        session.execute(text("SELECT 'x'::integer"))
    server.dispose()
