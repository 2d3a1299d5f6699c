"""Archives that hold more, less or something else than a home, and full disks: refused, and nothing is changed."""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import io
import lzma
import os
import resource
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import InvalidInput, StudioError
from tests.factories import count_judgments, judge_by, longer, make_matchup, make_policy
from training.checkpoints.atomic_directory import exchange
from training.home import Home
from training.operations import archives, backup
from training.operations.backup import back_up, restore

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    database = home.open()
    policy = make_policy(database, "starter")
    for _ in range(6):
        make_matchup(database, policy=policy)
    judge_by(database, longer)
    freeze.freeze(database, "d")
    yield database
    database.dispose()


def refused(archive: Path, match: str) -> None:
    """Restoring is refused with these words, into a new place and over a home, and nothing of it stays."""
    folder = archive.parent
    (folder / "present" / "exports").mkdir(parents=True)
    (folder / "present" / "exports" / "mine.txt").write_text("mine")
    before = sorted(path.name for path in folder.iterdir())
    for place, force in (("other", False), ("present", True)):
        with pytest.raises(InvalidInput, match=match):
            restore(Home(folder / place), archive, force=force)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "present" / "exports" / "mine.txt").read_text() == "mine"


DAMAGES = {
    "CREATE TRIGGER evil AFTER INSERT ON lease BEGIN UPDATE user SET role = 'admin'; END": "has a trigger evil",
    "CREATE VIEW spy AS SELECT password_hash FROM user": "has a view spy",
    "DROP TRIGGER audit_no_delete": "lacks the trigger audit_no_delete",
    "DROP TRIGGER audit_no_replace": "lacks the trigger audit_no_replace",
    "DELETE FROM prompt": "refers to one of prompt that is not there",
    "UPDATE judgment SET matchup_id = 'none' WHERE rowid = 1": "refers to one of matchup that is not there",
    "DROP TABLE checks": "lacks the tables checks",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_with_foreign_code_or_broken_references_is_refused(
    damage: str, home: Home, db: Database, tmp_path: Path
) -> None:
    db.dispose()
    with sqlite3.connect(home.database_file) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(damage)
    archive = tmp_path / "b.tar"
    copy = tmp_path / "copy.db"
    with (
        contextlib.closing(sqlite3.connect(home.database_file)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    with archive.open("wb") as stream:
        backup._write_archive(stream, [("studio.db", copy)])
    copy.unlink()
    refused(archive, DAMAGES[damage])


def test_a_trigger_that_was_replaced_under_its_own_name_is_refused(home: Home, db: Database, tmp_path: Path) -> None:
    db.dispose()
    with sqlite3.connect(home.database_file) as connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT 1; END")
    back_up(home, home.open(), tmp_path / "b.tar")
    refused(tmp_path / "b.tar", "has a trigger audit_no_update that is not the studio's")


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints",
        "runs",
        "exports",
        "studio.db/x",
        "session.key/x",
        "studio.lock/x",
        "studio.db-wal",
        "studio.db-shm",
    ],
)
def test_an_entry_of_the_wrong_kind_is_refused(name: str, home: Home, db: Database, tmp_path: Path) -> None:
    (tmp_path / "entry").write_text("x")
    with (tmp_path / "b.tar").open("wb") as stream:
        backup._write_archive(stream, [(name, tmp_path / "entry")])
    refused(tmp_path / "b.tar", "where a home has something else")


@pytest.mark.slow
@pytest.mark.parametrize("compress", [gzip.open, lzma.open])
def test_what_unpacks_to_far_more_than_it_is_is_refused_early(
    compress: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with compress(tmp_path / "bomb.tar", "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("exports/zeros")
        member.size = 200 * 2**20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    written: list[int] = []
    real = backup._extract

    def watched(source: Any, target: Path) -> tuple[int, str]:
        try:
            return real(source, target)
        finally:
            written.append(target.stat().st_size)

    monkeypatch.setattr(backup, "_extract", watched)
    refused(tmp_path / "bomb.tar", "unpacks to more than 100 times its size")
    assert max(written) < 64 * 2**20


@pytest.mark.slow
def test_a_header_of_hundreds_of_megabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with lzma.open(tmp_path / "bomb.tar", "wb") as stream:
        member = tarfile.TarInfo("././@PaxHeader")
        member.type, member.size = tarfile.XHDTYPE, 200 * 2**20
        stream.write(member.tobuf() + bytes(member.size) + bytes(1024))
    refused(tmp_path / "bomb.tar", "unpacks to more than 100 times its size")


@pytest.mark.parametrize("compress", [gzip.open, lzma.open])
def test_a_backup_that_was_compressed_since_is_restored(
    compress: Callable[..., Any], home: Home, db: Database, tmp_path: Path
) -> None:
    back_up(home, db, tmp_path / "b.tar")
    with compress(tmp_path / "b.tar.z", "wb") as stream:
        stream.write((tmp_path / "b.tar").read_bytes())
    restore(Home(tmp_path / "other"), tmp_path / "b.tar.z")
    assert count_judgments(Home(tmp_path / "other").open()) == 6


@pytest.mark.slow
def test_a_home_that_cannot_be_put_in_place_leaves_the_server_empty(
    home: Home, db: Database, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(home, db, tmp_path / "b.tar")

    def fail(*_: object) -> None:
        raise OSError("no more renames today")

    other = Home(tmp_path / "other", postgresql_url)
    with monkeypatch.context() as patched:
        patched.setattr(backup, "_swap", fail)
        with pytest.raises(InvalidInput, match="no more renames"):
            restore(other, tmp_path / "b.tar")
    assert not other.path.exists()
    restore(other, tmp_path / "b.tar")
    assert count_judgments(other.open()) == 6


@pytest.mark.slow
def test_a_server_that_refuses_to_commit_leaves_the_home_as_it_was(
    home: Home, db: Database, postgresql: Database, tmp_path: Path
) -> None:
    back_up(home, db, tmp_path / "b.tar")
    with postgresql.engine.begin() as connection:
        connection.execute(
            text("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$")
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON prompt DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION no()"
            )
        )
    (tmp_path / "other" / "exports").mkdir(parents=True)
    (tmp_path / "other" / "exports" / "mine.txt").write_text("mine")
    other = Home(tmp_path / "other", postgresql.url)
    with pytest.raises(Exception, match="no"):
        restore(other, tmp_path / "b.tar", force=True)
    assert (other.exports / "mine.txt").read_text() == "mine" and not (other.path / "studio.db").exists()
    assert count_judgments(postgresql) == 0
    assert not list(tmp_path.glob("*before-restore*")) and not list(tmp_path.glob(".other*"))


def test_two_directories_change_places_at_one_moment(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    done = exchange(tmp_path / "one", tmp_path / "two")
    assert done or not hasattr(ctypes.CDLL(None), "renameat2")
    if done:
        assert (tmp_path / "one" / "name").read_text() == "two"
    assert not exchange(tmp_path / "one", tmp_path / "nothing")


# Full disks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [20_000, 200_000, 500_000])
def test_a_backup_on_a_full_disk_is_a_sentence_and_leaves_nothing(
    limit: int, home: Home, db: Database, tmp_path: Path
) -> None:
    (home.exports / "large").write_bytes(bytes(2**20))
    before = sorted(path.name for path in [*tmp_path.iterdir(), *home.path.iterdir()])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(StudioError):
            back_up(home, db, tmp_path / "b.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in [*tmp_path.iterdir(), *home.path.iterdir()]) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(512)):
            pass


def studio(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "studio.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_commands_on_a_full_disk_are_sentences(home: Home, db: Database, small_disk: Path) -> None:
    """Home and target on a disk that is full up to the last bytes."""
    for _ in range(2):
        make_matchup(db)
    db.dispose()
    back_up(home, home.open(), small_disk.parent / "b.tar")
    full = Home(small_disk / "home")
    restore(full, small_disk.parent / "b.tar")
    lines = small_disk.parent / "prompts.jsonl"
    lines.write_text("".join(f'{{"prompt": "Question {n} {"why " * 50}"}}\n' for n in range(9000)))
    fill(small_disk)
    for arguments in (
        ("backup", small_disk / "c.tar"),
        ("export", "d", "--format", "raw", "--out", small_disk / "d.jsonl"),
        ("dataset", "freeze", "more"),
        ("prompts", "import", lines),
        ("judge", "--oracle", "longer", "--count", "2"),
        ("users", "add", "ann"),
    ):
        told = studio("--home", full.path, *arguments)
        assert told.returncode == 1 and "Traceback" not in told.stderr, (arguments, told.stderr)
        assert any(word in told.stderr.lower() for word in ("full", "space", "disk")), (arguments, told.stderr)
    assert not [path.name for path in small_disk.iterdir() if path.name not in ("home", "ballast")]
    (small_disk / "ballast").unlink()
    again = full.open()
    assert count_judgments(again) == 6
    again.dispose()
    fill(small_disk)
    with pytest.raises(InvalidInput):
        restore(Home(small_disk / "again"), small_disk.parent / "b.tar")
    assert not (small_disk / "again").exists()
