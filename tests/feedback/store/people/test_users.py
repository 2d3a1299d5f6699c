"""Users, credentials and the audit log in the database: migrated with rows in it, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from feedback import migrations
from feedback.database.engine import open_database
from feedback.errors import Conflict
from feedback.store.content import prompts
from feedback.store.people import audit, credentials, users
from feedback.types import Credential, CredentialKind, User, UserRole, UserStatus, now


def test_a_database_of_the_first_schema_with_rows_gains_people(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    _first_schema_with_a_prompt(path)
    db = open_database(path)
    assert [row.id for row in prompts.list_prompts(db)] == ["prm-old"]
    assert not users.any_user(db)
    user = users.save_user(db, User(name="ann"), actor="test")
    assert user.pseudonym.startswith("person-") and [event.verb for event in audit.list_events(db)] == ["user.add"]
    copy = tmp_path / f"studio.db.before-{migrations.current_revision(db.engine)}"
    assert copy.exists(), "a database with rows is copied aside before it is migrated"


def _first_schema_with_a_prompt(path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO prompt (created_at, messages, tags, split, content_hash, id) VALUES "
            "('2026-11-01 10:00:00', '[{\"role\": \"user\", \"content\": \"Hi\"}]', '[]', 'work', 'x', 'prm-old')"
        )
    engine.dispose()


def test_a_change_and_its_record_are_one_transaction(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    users.save_user(db, User(name="ada", role=UserRole.admin), actor="test")
    with pytest.raises(Conflict):
        users.set_user_status(db, "ada", UserStatus.disabled, actor="test")
    with pytest.raises(Conflict):
        users.save_user(db, User(name="ada"), actor="test")
    assert [event.verb for event in audit.list_events(db)] == ["user.add"], "what was refused left no line"
    assert users.get_user(db, "ada").status is UserStatus.active


def test_disabling_ends_every_credential_at_once(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    user = users.save_user(db, User(name="ann"), actor="test")
    made = [
        credentials.save_credential(
            db, Credential(user_id=user.id, kind=kind, secret_hash="x"), actor="ann", verb="given", subject="ann"
        )
        for kind in CredentialKind
    ]
    assert all(credentials.get_live_credential(db, row.id, row.kind, at=now()) for row in made)
    assert credentials.get_live_credential(db, made[0].id, CredentialKind.session, at=now()) is None, "kinds differ"
    users.set_user_status(db, "ann", UserStatus.disabled, actor="test")
    assert not any(credentials.get_live_credential(db, row.id, row.kind, at=now()) for row in made)


def test_moments_are_found_by_the_words_around_them(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    start = now()
    for subject in ("a_b from 10.0.0.1", "axb from 10.0.0.1", "a_b from 10.0.0.2"):
        audit.save_event(db, "nobody", "sign_in.failed", subject)
    assert len(audit.list_moments(db, "sign_in.failed", since=start, starting="a_b from ")) == 2, "_ is no wildcard"
    assert len(audit.list_moments(db, "sign_in.failed", since=start, ending=" from 10.0.0.1")) == 2
    assert audit.list_moments(db, "sign_in.failed", since=now()) == []
    assert audit.list_moments(db, "sign_in", since=start) == []
