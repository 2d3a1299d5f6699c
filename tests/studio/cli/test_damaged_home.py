"""A home whose database is gone, empty or damaged: every command says so, and none makes a new one in its place."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedback.database import health
from feedback.database.engine import Database
from feedback.database.health import check_integrity
from feedback.errors import DatabaseDamaged
from studio.cli.app import app
from studio.cli.commands.serve import refuse_damaged
from studio.security import accounts as users
from studio.security.sessions import signing_key
from tests.factories import make_prompt
from tests.feedback.migrations.test_adapters import migrate_to
from training.home import Home

Studio = Callable[..., Result]

COMMANDS = [
    ("prompts", "list"),
    ("users", "list"),
    ("users", "add", "eve", "--role", "admin"),
    ("runs", "list"),
    ("policies", "list"),
    ("dataset", "list"),
    ("checkpoints", "list"),
    ("audit",),
    ("generate", "--limit", "1"),
    ("judge", "--oracle", "longer", "--count", "1"),
    ("export", "d", "--out", "x.jsonl"),
    ("backup", "b.tar"),
    ("doctor",),
    ("worker", "--no-standby"),
    ("up", "--port", "0"),
]


@pytest.fixture(scope="module")
def in_use(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in use: a key, an admin, a prompt, a run's directory; closed."""
    home = Home(tmp_path_factory.mktemp("in-use") / "home")
    db = home.open()
    users.add_user(db, "ada", "admin", actor="test")
    for number in range(200):
        make_prompt(db, f"Question {number}: " + "why " * 30)
    db.dispose()
    signing_key(home.path)
    home.run_dir("run-x").mkdir()
    return home.path


@pytest.fixture
def home(in_use: Path, tmp_path: Path) -> Home:
    return Home(Path(shutil.copytree(in_use, tmp_path / "home")))


@pytest.fixture
def studio(home: Home) -> Studio:
    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["--home", str(home.path), *arguments])

    return command


def state_of(home: Home) -> dict[str, bytes]:
    """What the database holds; SQLite may leave an empty log and its shared memory beside it."""
    files = [path for path in home.path.glob("studio.db*") if not path.name.endswith("-shm")]
    return {path.name: path.read_bytes() for path in files if path.name != "studio.db-wal" or path.stat().st_size}


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def without_tables(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20_000])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def overwritten(file: Path) -> None:
    file.write_text("words " * 10_000)


def of_another_program(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipe (name)")


def with_its_log_alone(file: Path) -> None:
    file.unlink()
    file.with_name("studio.db-wal").write_bytes(b"the last changes" * 500)


DAMAGES = [emptied, Path.unlink, without_tables, cut, zeroed, overwritten, of_another_program, with_its_log_alone]
CASES = [(emptied, command) for command in COMMANDS]
CASES += [(damage, command) for damage in DAMAGES[1:] for command in (("users", "list"), ("doctor",))]


@pytest.mark.parametrize(("damage", "command"), CASES)
def test_every_command_refuses_a_lost_database_and_leaves_it(
    damage: Callable[[Path], Any], command: tuple[str, ...], home: Home, studio: Studio
) -> None:
    damage(home.database_file)
    before = state_of(home)
    told = studio(*command)
    assert told.exit_code == 1 and isinstance(told.exception, SystemExit), told.exception
    assert "restore" in told.stderr and "Traceback" not in told.stderr
    assert state_of(home) == before


def test_the_words_name_the_traces_and_the_remedy(home: Home) -> None:
    shutil.copy(home.database_file, home.path / "studio.db.before-0005")
    emptied(home.database_file)
    with pytest.raises(DatabaseDamaged, match=r"studio.db is empty, though .* session.key, runs/run-x.*restore FILE"):
        home.open()
    with pytest.raises(DatabaseDamaged, match=r"copy studio.db.before-0005 over it"):
        home.open()


def test_a_database_that_was_never_served_is_missed_too(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    db = home.open()
    make_prompt(db)
    db.dispose()
    emptied(home.database_file)
    with pytest.raises(DatabaseDamaged, match="is empty"):
        home.open()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "studio.db").touch()
    Home(tmp_path / "new").open().dispose()


def test_a_database_that_was_removed_is_missed_in_a_home_used_from_the_shell_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    db = home.open()
    make_prompt(db)
    db.dispose()
    home.database_file.unlink()
    for open_it in (home.open, home.look):
        with pytest.raises(DatabaseDamaged, match="is gone, though the home .* was in use"):
            open_it()
    assert not home.database_file.exists()


def test_a_database_elsewhere_that_was_emptied_is_refused(home: Home, tmp_path: Path) -> None:
    other = Home(home.path, f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(DatabaseDamaged, match="session.key"):
        other.open()
    assert not (tmp_path / "other.db").exists()


def test_a_table_that_is_gone_is_refused(home: Home) -> None:
    with sqlite3.connect(home.database_file) as connection:
        connection.execute("DROP TABLE credential")
    with pytest.raises(DatabaseDamaged, match="lacks the tables credential"):
        home.open()


SCHEMAS = {
    "ALTER TABLE judgment DROP COLUMN rationale": "lacks the columns judgment.rationale",
    "DELETE FROM alembic_version": "does not say of which schema they are",
    "UPDATE alembic_version SET version_num = '9999_of_next_year'": "schema 9999_of_next_year, which this release",
    "DROP TABLE lease": "lacks the tables lease",
}


@pytest.mark.parametrize("damage", SCHEMAS)
def test_a_schema_that_no_release_has_is_found_by_doctor_as_by_every_command(
    damage: str, home: Home, studio: Studio
) -> None:
    with sqlite3.connect(home.database_file) as connection:
        connection.executescript(damage)
    before = state_of(home)
    told = studio("users", "list")
    assert told.exit_code == 1 and SCHEMAS[damage] in told.stderr
    told = studio("doctor", "--json")
    assert told.exit_code == 1
    (found,) = (finding for finding in json.loads(told.stdout)["findings"] if finding["name"] == "database")
    assert not found["ok"] and SCHEMAS[damage] in found["seen"] and found["remedy"]
    assert state_of(home) == before


@pytest.mark.parametrize("name", ["runs", "checkpoints", "exports"])
def test_a_file_where_a_directory_belongs_is_found_by_doctor(name: str, home: Home, studio: Studio) -> None:
    shutil.rmtree(home.path / name)
    (home.path / name).write_text("x")
    (found,) = (one for one in json.loads(studio("doctor", "--json").stdout)["findings"] if one["name"] == "home")
    assert not found["ok"] and f"{home.path / name} is not a directory" in found["seen"]
    assert f"Move {home.path / name} away" in found["remedy"]


def test_doctor_creates_and_migrates_nothing(tmp_path: Path) -> None:
    def examine(home: Path) -> dict[str, Any]:
        told = CliRunner().invoke(app, ["--home", str(home), "doctor", "--json"])
        return {finding["name"]: finding for finding in json.loads(told.stdout)["findings"]}

    found = examine(tmp_path / "none")
    assert found["home"]["ok"] and found["database"]["ok"] and "not there yet" in found["database"]["seen"]
    assert not (tmp_path / "none").exists()
    (tmp_path / "old").mkdir()
    migrate_to(tmp_path / "old" / "studio.db", "0001")
    before = (tmp_path / "old" / "studio.db").read_bytes()
    found = examine(tmp_path / "old")
    assert "schema 0001, which the next command brings to" in found["database"]["seen"] and found["contents"]["ok"]
    assert (tmp_path / "old" / "studio.db").read_bytes() == before
    assert not list((tmp_path / "old").glob("studio.db.before-*"))


def test_a_damaged_inner_page_is_found_at_the_start_and_by_doctor(home: Home, studio: Studio) -> None:
    with sqlite3.connect(home.database_file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'judgment'").fetchone()
    with home.database_file.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\x5a" * 600)
    for command in (("up", "--port", "0"), ("doctor",)):
        told = studio(*command)
        assert told.exit_code == 1 and isinstance(told.exception, SystemExit)
        assert "estore" in told.stderr and "Traceback" not in told.stderr
    assert "The database is damaged" in studio("up", "--port", "0").stderr


def test_a_row_that_refers_to_nothing_is_found_by_doctor(home: Home, studio: Studio) -> None:
    with sqlite3.connect(home.database_file) as connection:
        connection.execute(
            "INSERT INTO metric (run_id, step, name, value, at) VALUES ('run-?', 1, 'loss', 0.5, '2026')"
        )
    told = studio("doctor")
    assert told.exit_code == 1 and "a row of metric refers to one of run that is not there" in told.stdout


def test_a_check_that_takes_too_long_is_given_up_and_told(
    db: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(300):
        make_prompt(db, f"Question {number}: " + "why " * 30)
    monkeypatch.setattr(health, "_INSTRUCTIONS", 1)
    assert check_integrity(db) == "ok" and check_integrity(db, seconds=60) == "ok"
    assert check_integrity(db, seconds=0) == health.UNFINISHED
    monkeypatch.setattr("studio.cli.commands.serve.CHECK_SECONDS", 0.0)
    refuse_damaged(db)
    assert "studio doctor" in capsys.readouterr().err
    assert check_integrity(db, thorough=True) == "ok", "the bound is gone with the check"
