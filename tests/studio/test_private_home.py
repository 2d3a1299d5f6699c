"""A home is its owner's alone, whatever the umask: what is new, what an earlier release left, what a run writes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.datasets.freeze import freeze
from studio.security.sessions import signing_key
from tests.factories import judge_by, longer, make_matchup, make_policy
from training.home import Home
from training.private_files import mend_modes

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def loose() -> Iterator[None]:
    """The umask that most systems give."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in [home, *home.rglob("*")] if mode(path) & 0o077]


def studio(home: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "studio.cli", "--home", str(home), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_a_command_makes_is_private(tmp_path: Path) -> None:
    studio(tmp_path / "home", "prompts", "list")
    assert open_to_others(tmp_path / "home") == []


def test_a_database_in_use_and_the_files_beside_it_are_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    db = home.open()
    policy = make_policy(db)
    make_matchup(db, policy=policy)
    signing_key(home.path)
    with home.lock_studio(), home.lock_worker():
        beside = {path.name for path in home.path.iterdir()}
        assert {"studio.db", "studio.db-wal", "studio.db-shm", "studio.db.turn", "studio.lock"} <= beside
        assert open_to_others(home.path) == []
    db.dispose()


def test_what_an_earlier_release_left_open_is_mended(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first = home.open()
    names = ["session.key", "worker.log", "studio.lock", "studio.db.before-0005"]
    for name in names:
        (home.path / name).write_text("x")
    for path in [home.path, *home.path.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert len(open_to_others(home.path)) >= 9
    home.open().dispose()
    assert open_to_others(home.path) == []
    first.dispose()


def test_a_directory_that_is_more_than_a_home_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, wanted in (("tmp", 0o1777), ("me", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(wanted)
        (tmp_path / name / "studio.db").write_text("x")
        (tmp_path / name / "letter.txt").write_text("x")
        (tmp_path / name / "link.log").symlink_to(tmp_path / name / "letter.txt")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for name, wanted in (("tmp", 0o1777), ("me", 0o755)):
        mend_modes(tmp_path / name, ())
        assert mode(tmp_path / name) == wanted
        assert mode(tmp_path / name / "studio.db") == 0o600 and mode(tmp_path / name / "letter.txt") == 0o644


def test_a_file_that_the_user_names_has_the_users_mode(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    db = home.open()
    policy = make_policy(db)
    for _ in range(6):
        make_matchup(db, policy=policy)
    judge_by(db, longer)
    freeze(db, "d")
    db.dispose()
    studio(home.path, "export", "d", "--format", "raw", "--out", str(tmp_path / "new" / "d.jsonl"))
    assert mode(tmp_path / "new") == 0o755 and mode(tmp_path / "new" / "d.jsonl") == 0o644
    studio(home.path, "backup", str(tmp_path / "b.tar"))
    assert mode(tmp_path / "b.tar") == 0o600, "a backup has the hashes of passwords in it"
    assert open_to_others(home.path) == []


@pytest.mark.slow
def test_what_a_run_writes_is_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    studio(home, "generate", "--limit", "2", "--max-new-tokens", "4")
    (log,) = home.glob("runs/*/log.txt")
    assert log.stat().st_size and open_to_others(home) == []
