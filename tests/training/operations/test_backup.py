"""Backups of a home in use, restored elsewhere; archives that are damaged, cut off or hostile."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import stat
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import Conflict, HomeInUse, InvalidInput
from feedback.store.models import runs
from feedback.types import Run, RunState
from tests.factories import count_judgments, judge_by, list_judgments, longer, make_matchup, make_policy, make_prompt
from training.home import Home
from training.operations.backup import back_up, restore


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    """A home with judgments, a dataset, a checkpoint on disk, an export and a log."""
    database = home.open()
    policy = make_policy(database, "starter")
    for _ in range(6):
        make_matchup(database, policy=policy)
    judge_by(database, longer)
    freeze.freeze(database, "d")
    (home.checkpoints / "first").mkdir()
    (home.checkpoints / "first" / "adapter.safetensors").write_bytes(random.Random(0).randbytes(300_000))
    formats.export_dataset(database, "d", "raw", home.exports / "d.jsonl")
    home.run_dir("run-x").mkdir()
    home.log_path("run-x").write_text("hello\n")
    yield database
    database.dispose()


def files_of(home: Home) -> dict[str, bytes]:
    return {
        path.relative_to(home.path).as_posix(): path.read_bytes()
        for path in home.path.rglob("*")
        if path.is_file() and not path.name.startswith("studio.db")
    }


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_home_comes_back_whole(home: Home, db: Database, tmp_path: Path) -> None:
    report = back_up(home, db, tmp_path / "b.tar")
    other = Home(tmp_path / "other")
    restored = restore(other, tmp_path / "b.tar")
    assert (restored.files, restored.kept_aside) == (report.files, None)
    assert files_of(other) == files_of(home)
    again = other.open()
    assert list_judgments(again) == list_judgments(db)
    formats.export_dataset(again, "d", "raw", tmp_path / "d.jsonl")
    assert (tmp_path / "d.jsonl").read_bytes() == (home.exports / "d.jsonl").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_backup_is_one_moment_while_others_write(home: Home, db: Database, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            make_prompt(db)
            with home.log_path("run-x").open("a") as log:
                log.write("more and more\n" * 500)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(home, db, tmp_path / f"{number}.tar")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        restored = Home(tmp_path / f"restored-{number}")
        restore(restored, tmp_path / f"{number}.tar")
        assert count_judgments(restored.open()) == 6


def test_a_home_that_is_there_stays_and_is_kept_aside_when_forced(home: Home, db: Database, tmp_path: Path) -> None:
    back_up(home, db, tmp_path / "b.tar")
    (home.exports / "precious.txt").write_text("mine")
    before = files_of(home)
    with pytest.raises(Conflict, match=r"is not empty; restore into another --home, or give --force"):
        restore(home, tmp_path / "b.tar")
    assert files_of(home) == before
    db.dispose()
    report = restore(home, tmp_path / "b.tar", force=True)
    assert report.kept_aside is not None and (report.kept_aside / "exports" / "precious.txt").read_text() == "mine"
    assert not (home.exports / "precious.txt").exists()
    with home.lock_studio(), pytest.raises(HomeInUse, match=r"stop it first"):
        restore(home, tmp_path / "b.tar", force=True)


def test_an_archive_that_is_there_is_not_overwritten(home: Home, db: Database, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("an older backup")
    with pytest.raises(Conflict, match="is there already"):
        back_up(home, db, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "an older backup"
    back_up(home, db, tmp_path / "b.tar", replace=True)
    restore(Home(tmp_path / "other"), tmp_path / "b.tar")


def test_a_backup_and_what_is_restored_are_for_their_owner_alone(home: Home, db: Database, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        back_up(home, db, tmp_path / "b.tar")
        (tmp_path / "there").mkdir()
        for name in ("new", "there"):
            restore(Home(tmp_path / name), tmp_path / "b.tar")
            assert mode(tmp_path / name) == 0o700
            assert {mode(path) for path in (tmp_path / name).glob("studio.db*")} == {0o600}
        assert mode(tmp_path / "b.tar") == 0o600
        (tmp_path / "b.tar").chmod(0o644)
        back_up(home, db, tmp_path / "b.tar", replace=True)
        assert mode(tmp_path / "b.tar") == 0o600
    finally:
        os.umask(before)


def test_the_key_of_the_cookies_stays_behind(home: Home, db: Database, tmp_path: Path) -> None:
    (home.path / "session.key").write_bytes(b"k" * 32)
    (home.path / "session.key.12ab").write_bytes(b"k" * 32)  # one that is being made
    (home.checkpoints / "first" / "session.key").write_bytes(b"no key")
    back_up(home, db, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert [name for name in archive.getnames() if "session.key" in name] == ["checkpoints/first/session.key"]


def test_an_archive_of_an_earlier_release_restores_without_its_key(home: Home, db: Database, tmp_path: Path) -> None:
    back_up(home, db, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as archive:
        held = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    manifest = json.loads(held.pop("manifest.json"))
    held["session.key"] = b"k" * 32
    manifest["files"].append({"name": "session.key", "size": 32, "sha256": hashlib.sha256(b"k" * 32).hexdigest()})
    with tarfile.open(tmp_path / "old.tar", "w") as archive:
        for name, data in [*held.items(), ("manifest.json", json.dumps(manifest).encode())]:
            member = tarfile.TarInfo(name)  # readable by all, as they were
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    other = Home(tmp_path / "other")
    assert restore(other, tmp_path / "old.tar").files == len(held) - 1
    assert files_of(other) == files_of(home)
    assert count_judgments(other.open()) == 6


def test_a_run_that_was_at_work_is_interrupted_in_the_copy_alone(home: Home, db: Database, tmp_path: Path) -> None:
    run = runs.save_run(db, Run(method="dpo", state=RunState.running, pid=1, pid_started=1.0, host="here"))
    waiting = runs.save_run(db, Run(method="dpo"))
    back_up(home, db, tmp_path / "b.tar")
    restore(Home(tmp_path / "other"), tmp_path / "b.tar")
    copied = Home(tmp_path / "other").open()
    found = runs.get_run(copied, run.id)
    assert (found.state, found.pid) == (RunState.interrupted, None) and "resume" in str(found.error)
    assert runs.get_run(copied, waiting.id).state is RunState.queued
    assert runs.get_run(db, run.id).state is RunState.running


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.7, 0.98])
def test_an_archive_that_was_cut_off_changes_nothing(kept: float, home: Home, db: Database, tmp_path: Path) -> None:
    whole = back_up(home, db, tmp_path / "b.tar").path.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InvalidInput, match=r"not a whole backup: .* Nothing was restored"):
        restore(Home(tmp_path / "other"), tmp_path / "cut.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "cut.tar", "home"]


def test_a_flipped_byte_is_found_wherever_it_is(home: Home, db: Database, tmp_path: Path) -> None:
    whole = back_up(home, db, tmp_path / "b.tar").path.read_bytes()
    rng = random.Random(4)
    with tarfile.open(tmp_path / "b.tar") as archive:
        places = [member.offset_data + rng.randrange(member.size) for member in archive if member.size]
    for place in places:
        spoiled = bytearray(whole)
        spoiled[place] ^= 0x41
        (tmp_path / "bad.tar").write_bytes(spoiled)
        with pytest.raises(InvalidInput):
            restore(Home(tmp_path / "other"), tmp_path / "bad.tar")
        assert not (tmp_path / "other").exists()


def hostile(path: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    member.size = len(data)
    with tarfile.open(path, "w") as archive:
        archive.addfile(member, io.BytesIO(data))
        manifest = json.dumps({"version": 1, "files": []}).encode()
        end = tarfile.TarInfo("manifest.json")
        end.size = len(manifest)
        archive.addfile(end, io.BytesIO(manifest))
    return path


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "..", "runs\\..\\outside"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = hostile(tmp_path / "evil.tar", tarfile.TarInfo(name), b"gotcha")
    with pytest.raises(InvalidInput, match="no plain file of a home"):
        restore(Home(tmp_path / "other"), path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["evil.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("checkpoints/x")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(InvalidInput, match="no plain file of a home"):
        restore(Home(tmp_path / "other"), hostile(tmp_path / "evil.tar", member))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["evil.tar"]


def test_what_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    path = hostile(tmp_path / "evil.tar", tarfile.TarInfo("studio.db"), b"smuggled")
    with pytest.raises(InvalidInput, match=r"studio.db is not what its manifest says"):
        restore(Home(tmp_path / "other"), path)
    for text, reason in (("a letter", "not a whole backup"), ("", "not a whole backup")):
        (tmp_path / "no.tar").write_text(text)
        with pytest.raises(InvalidInput, match=reason):
            restore(Home(tmp_path / "other"), tmp_path / "no.tar")
    with pytest.raises(InvalidInput, match="There is no file"):
        restore(Home(tmp_path / "other"), tmp_path / "missing.tar")


def test_a_file_that_is_written_anew_meanwhile_is_in_the_backup_as_it_was_read(
    home: Home, db: Database, tmp_path: Path
) -> None:
    state = home.path / "runs" / "run-y" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("x" * 500_000)
    stop = threading.Event()

    def rewrite() -> None:  # in place, as trainers write their states
        while not stop.is_set():
            state.write_text("x" * 400_000)
            state.write_text("short")

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for number in range(30):
            back_up(home, db, tmp_path / f"{number}.tar")
    finally:
        stop.set()
        writer.join()
    assert restore(Home(tmp_path / "other"), tmp_path / "0.tar").files > 1


def test_an_archive_goes_through_links_and_pipes_and_leaves_them(home: Home, db: Database, tmp_path: Path) -> None:
    link, pipe = tmp_path / "link.tar", tmp_path / "pipe"
    link.symlink_to(tmp_path / "real.tar")
    back_up(home, db, link)
    assert link.is_symlink() and (tmp_path / "real.tar").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict, match="is there already"):
        back_up(home, db, link)
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        copied = pool.submit(pipe.read_bytes)
        back_up(home, db, pipe)
        (tmp_path / "copied.tar").write_bytes(copied.result(60))
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert restore(Home(tmp_path / "other"), tmp_path / "copied.tar").files
