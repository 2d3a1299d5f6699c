"""A value that does not belong where it lies is told in words, by the doctor and by whatever command meets it."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from feedback import formats
from feedback.database.engine import Database
from feedback.database.stored_values import check_values
from feedback.datasets import freeze
from feedback.errors import DatabaseDamaged
from feedback.labeling import assignment, judging
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import save_run
from feedback.store.models.scorecards import save_scorecard
from feedback.tables import PolicyRow
from feedback.types import Run, Scorecard
from studio.cli.app import app
from studio.security import accounts as users
from tests.factories import judge_by, longer, make_matchup, make_policy
from tests.feedback.migrations.test_adapters import migrate_to
from training.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with something in its larger tables; closed."""
    home = Home(tmp_path / "home")
    db = home.open()
    users.add_user(db, "ada", "admin", actor="test", password="correct horse battery")
    policy = make_policy(db, "starter")
    promote_policy(db, policy.id)
    for number in range(5):
        make_matchup(db, policy=policy, texts=[f"short {number}", f"longer it is {number}"])
    judge_by(db, longer, count=2)
    task = assignment.lease_next(db, "ann")
    assert task
    judging.submit(db, task.lease_id, "ann", verdict="left", strength=2)
    freeze.freeze(db, "d")
    save_run(db, Run(method="dpo"))
    assert check_values(db) == "ok"
    db.dispose()
    return home


DAMAGES = {
    "UPDATE judgment SET created_at = 12": ("judgment", "created_at"),
    "UPDATE judgment SET created_at = 'soon'": ("judgment", "created_at"),
    "UPDATE judgment SET strength = 'abc'": ("judgment", "strength"),
    "UPDATE judgment SET verdict = 'best'": ("judgment", "verdict"),
    "UPDATE judgment SET shown_order = '{}'": ("judgment", "shown_order"),
    "UPDATE generation SET text = x'00ff'": ("generation", "text"),
    "UPDATE generation SET text = 5": ("", ""),  # a column of texts makes a text of it
    "UPDATE matchup SET generation_ids = '[\"nope\"]'": ("generation", "nope"),
    "UPDATE matchup SET required = 'two'": ("matchup", "required"),
    "UPDATE prompt SET messages = '5'": ("prompt", "messages"),
    "UPDATE prompt SET messages = '[{}]'": ("prompt", "messages"),
    'UPDATE prompt SET messages = \'[{"role": "user", "content": 1}]\'': ("prompt", "messages"),
    "UPDATE prompt SET messages = '[not json'": ("prompt", "messages"),
    "UPDATE run SET config = '[]'": ("run", "config"),
    "UPDATE policy SET base = x'01'": ("policy", "base"),
}
COMMANDS = [
    ("export", "d", "--format", "raw", "--out", "x.jsonl"),
    ("export", "d", "--format", "trl-preference", "--out", "y.jsonl"),
    ("export", "d", "--format", "label-studio", "--out", "z.jsonl"),
    ("dataset", "freeze", "e"),
    ("prompts", "list"),
    ("policies", "list"),
    ("runs", "list"),
    ("judge", "--oracle", "longer", "--count", "1"),
    ("users", "list"),
]


@pytest.mark.slow_except("UPDATE matchup SET required = 'two'")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_value_of_another_kind_is_found_by_the_doctor_and_no_command_shows_a_traceback(
    damage: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.path)
    with sqlite3.connect(home.database_file) as connection:
        assert connection.execute(damage).rowcount
    told = CliRunner().invoke(app, ["--home", str(home.path), "doctor", "--json"])
    (found,) = (finding for finding in json.loads(told.stdout)["findings"] if finding["name"] == "database")
    assert found["ok"] == (damage == "UPDATE generation SET text = 5")
    for part in DAMAGES[damage]:
        assert part in found["seen"]
    for command in COMMANDS:
        told = CliRunner().invoke(app, ["--home", str(home.path), *command])
        assert isinstance(told.exception, SystemExit | None), (command, told.exception)
        if told.exit_code:
            assert "damaged" in told.stderr, (command, told.stderr)


def test_what_is_no_damage_is_shown_as_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("feedback.store.models.policies.list_policies", fails)
    told = CliRunner().invoke(app, ["--home", str(home.path), "policies", "list"])
    assert isinstance(told.exception, KeyError)


def test_a_raw_export_writes_no_value_of_another_kind(home: Home, tmp_path: Path) -> None:
    with sqlite3.connect(home.database_file) as connection:
        connection.execute("UPDATE judgment SET strength = 'abc' WHERE strength = 2")
    db: Database = home.open()
    with pytest.raises(DatabaseDamaged, match="the judgment jud-.* cannot be written"):
        formats.export_dataset(db, "d", "raw", tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()
    db.dispose()


def test_what_the_studio_stores_is_no_damage(db: Database) -> None:
    """The last moment there is, and figures that are no numbers."""
    figures = {"x": float("nan"), "y": -float("inf")}
    save_scorecard(db, Scorecard(kind="win_rate", subject_id=make_policy(db, "p").id, figures=figures))
    with db.write() as session:
        session.execute(update(PolicyRow).values(created_at=datetime.max.replace(tzinfo=UTC)))
    assert check_values(db) == "ok"


def test_a_database_of_an_earlier_release_is_not_called_damaged(tmp_path: Path) -> None:
    home = Home(tmp_path / "old")
    home.path.mkdir()
    migrate_to(home.database_file, "0005_purpose")
    with sqlite3.connect(home.database_file) as connection:
        connection.execute(
            "INSERT INTO prompt (id, created_at, messages, tags, split, content_hash) VALUES "
            "('prm-1', '2026-01-01 00:00:00.000000', '[{\"role\": \"user\", \"content\": \"x\"}]', '[]', 'work', 'h')"
        )
    db = home.look()
    assert db is not None and check_values(db) == "ok"
    db.dispose()


def test_postgresql_looks_after_its_values(postgresql: Database) -> None:
    assert check_values(postgresql) == "ok"
