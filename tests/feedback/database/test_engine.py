from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel

from feedback import migrations
from feedback.database.engine import Database, open_database
from feedback.errors import InvalidInput, StudioError
from feedback.store.content import prompts
from feedback.store.rows import rows_by_id
from feedback.tables import PromptRow
from feedback.types import Prompt
from tests.factories import make_prompt
from tests.feedback.migrations.test_adapters import migrate_to


def test_migrations_build_exactly_the_tables(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    with db.engine.connect() as connection:
        # Alembic cannot compare an index over an expression (priority DESC); that one is looked at below.
        options = {"include_object": lambda _object, name, *_: name != "ix_matchup_pool"}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, SQLModel.metadata)
        pool = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'ix_matchup_pool'").scalar()
    assert differences == []
    assert pool and pool.endswith("(state, priority DESC, created_at, id)")


def test_reopening_keeps_rows(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    prompt = make_prompt(db, "kept?")
    db.dispose()
    again = open_database(tmp_path / "studio.db")
    from feedback.store.content.prompts import list_prompts

    assert [row.id for row in list_prompts(again)] == [prompt.id]


def test_sqlite_runs_with_the_settings_that_keep_rows_safe(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    with db.engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys")
        }
    assert pragma == {"journal_mode": "wal", "foreign_keys": 1}


def _open(path: str) -> str | None:
    db = open_database(path)
    return migrations.current_revision(db.engine)


@pytest.mark.slow
def test_eight_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        revisions = pool.map(_open, [str(tmp_path / "studio.db")] * 8)
    assert len(set(revisions)) == 1 and revisions[0] is not None


def _head() -> str:
    parents = migrations._parents()
    return next(iter(set(parents).difference(*parents.values())))


def _revision_of(copy: Path) -> str:
    with closing(sqlite3.connect(copy)) as connection:
        found: str = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        return found


def test_the_copy_before_a_migration_is_not_taken_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that open an old file, one reads its revision, and the other has migrated before it goes on."""
    path = tmp_path / "studio.db"
    migrate_to(path, "0001")
    has_read, migrated = threading.Event(), threading.Event()
    real = migrations.current_revision

    def read_then_wait(engine: Engine) -> str | None:
        found = real(engine)
        if threading.current_thread().name == "late":
            has_read.set()
            migrated.wait(30)
        return found

    monkeypatch.setattr(migrations, "current_revision", read_then_wait)
    late = threading.Thread(target=lambda: open_database(path).dispose(), name="late")
    late.start()
    assert has_read.wait(30)
    open_database(path).dispose()
    copies = {copy.name: _revision_of(copy) for copy in tmp_path.glob("studio.db.before-*")}
    migrated.set()
    late.join()
    assert list(copies.values()) == ["0001"]
    assert {copy.name: _revision_of(copy) for copy in tmp_path.glob("studio.db.before-*")} == copies


def test_a_copy_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    migrate_to(path, "0001")
    old = path.read_bytes()
    open_database(path).dispose()
    (first,) = tmp_path.glob("studio.db.before-*")
    kept = first.read_bytes()
    path.write_bytes(old)  # put back as it was, and tried again: one copy of it is enough
    open_database(path).dispose()
    assert list(tmp_path.glob("studio.db.before-*")) == [first]
    path.write_bytes(old)
    with sqlite3.connect(path) as connection:  # put back, and the old release worked on
        connection.execute("CREATE TABLE note (words)")
    open_database(path).dispose()
    assert sorted(tmp_path.glob("studio.db.before-*")) == [first, first.with_name(f"{first.name}-2")]
    assert first.read_bytes() == kept and _revision_of(first.with_name(f"{first.name}-2")) == "0001"


def test_a_copy_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    migrate_to(path, "0001")
    path.chmod(0o600)
    partial = tmp_path / f"studio.db.before-{_head()}.partial"
    partial.write_bytes(b"half of a copy, left by a process that was killed" * 200)
    open_database(path).dispose()
    copy = tmp_path / f"studio.db.before-{_head()}"
    assert _revision_of(copy) == "0001" and copy.stat().st_mode & 0o777 == 0o600
    assert not partial.exists()


def test_a_database_that_cannot_be_copied_is_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    migrate_to(path, "0001")
    (tmp_path / f"studio.db.before-{_head()}.partial").mkdir()  # in the way
    with pytest.raises(StudioError, match="cannot be copied .* Nothing was changed"):
        open_database(path)
    assert _revision_of(path) == "0001"


def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path / "studio.db").dispose()
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StudioError, match="schema 9999, which this release does not know"):
        open_database(tmp_path / "studio.db")


def test_a_database_that_another_process_makes_at_this_moment_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "studio.db", migrations.current_revision

    def late(engine: Engine) -> str | None:
        monkeypatch.setattr(migrations, "current_revision", seen)
        found = seen(engine)
        open_database(path).dispose()
        return found

    monkeypatch.setattr(migrations, "current_revision", late)
    open_database(path).dispose()


def test_what_is_not_a_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "studio.db").write_text("a letter to a friend, long enough to look like a file" * 20)
    with pytest.raises(InvalidInput, match="not a studio database"):
        open_database(tmp_path / "studio.db")
    with pytest.raises(InvalidInput, match="valid: sqlite, postgresql"):
        open_database("mysql://root:secret@localhost/x")
    with pytest.raises(StudioError, match="cannot be opened"):
        open_database(tmp_path / "no" / "such" / "folder.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:secret@127.0.0.1:bad/db",
        "postgresql://ann:secret@127.0.0.1:1:2/db",
        "postgresql://ann:secret/db",  # so that the password stands where a port would
        "postgresql://ann:with-an-@-secret@127.0.0.1/db",
        "postgresql+psycopg://ann:secret@[::1/db",
        "postgresql+nosuch://ann:secret@127.0.0.1/db",
        "postgresql://ann:secret@127.0.0.1/db?port=bad",
        "post gres://ann:secret@127.0.0.1/db",
        "sqlite:///studio.db?timeout=secret",
        "://secret",
    ],
)
def test_a_url_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"://… cannot be read; valid: .* PORT is a number") as caught:
        open_database(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None, "nor in what it came from"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    from feedback.store.content import prompts
    from feedback.tables import PromptRow
    from feedback.types import Prompt

    db = open_database(tmp_path / "studio.db")
    row = PromptRow.model_validate(Prompt(messages=[{"role": "user", "content": "x"}]))
    with pytest.raises(RuntimeError), db.write() as session:
        session.add(row)
        session.flush()
        raise RuntimeError("the power went")
    assert prompts.count_prompts(db) == 0


def test_a_full_disk_is_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own failure, by a limit on the file's pages; only the look at the disk is played."""
    db = open_database(tmp_path / "studio.db")
    (tmp_path / "not-openable.db").mkdir()
    usage = shutil.disk_usage(tmp_path)
    for free, at_opening, at_writing in ((usage.free, "writable", None), (40 * 1024, "is full", "is full .40 KB free")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: usage._replace(free=free))
        with pytest.raises(StudioError, match=at_opening):
            open_database(tmp_path / "not-openable.db")
        with (
            pytest.raises(StudioError, match=at_writing or "cannot be written: database or disk is full"),
            db.write() as session,
        ):
            session.connection().exec_driver_sql("PRAGMA max_page_count = 1")
            session.connection().exec_driver_sql("CREATE TABLE more AS SELECT hex(randomblob(200000)) AS x")
    db.dispose()


def test_rows_are_found_by_more_ids_than_one_statement_takes(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    offered = [Prompt(messages=[{"role": "user", "content": f"Question {number}"}]) for number in range(1001)]
    ids = prompts.save_prompts(db, offered).ids
    with db.read() as session:
        found = rows_by_id(session, PromptRow, [*ids, *ids, "prm-nothing"])
        assert rows_by_id(session, PromptRow, []) == {}
    assert set(found) == set(ids) and all(row.id == key for key, row in found.items())
    db.dispose()


@pytest.mark.parametrize("kind", ["write", "transaction"])
def test_after_a_commit_that_fails_the_next_transaction_begins(db: Database, kind: str) -> None:
    """SQLite leaves a transaction open whose COMMIT failed, here for a foreign key that it checks as late as that."""
    with db.write() as session:
        session.connection().exec_driver_sql("CREATE TABLE late (id INTEGER PRIMARY KEY, other REFERENCES late(id))")
    with pytest.raises(IntegrityError), getattr(db, kind)() as opened:
        connection = opened.connection() if isinstance(opened, Session) else opened
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql("INSERT INTO late (other) VALUES (99)")
    with getattr(db, kind)() as opened:
        count = opened.execute(text("SELECT count(*) FROM late"))
        assert count.scalar() == 0
