"""Atomic writes: a kill, a failure or a second writer leaves the old file whole, and nothing beside it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from feedback import files
from feedback.files import atomic_write

WRITER = """
import sys
from pathlib import Path
from feedback.files import atomic_write

with atomic_write(Path(sys.argv[1])) as file:
    while True:
        file.write(b"new" * 1000)
        file.flush()
"""


def start_writer(path: Path) -> subprocess.Popen[bytes]:
    """A process in the middle of a write that never ends."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment)
    deadline = time.monotonic() + 60
    while not any(partial.stat().st_size for partial in path.parent.glob(".*partial*")):
        assert writer.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return writer


def write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "state [1].json"  # a name that a pattern could take for another
    path.write_bytes(b"old")
    writer = start_writer(path)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait(60) == -signal.SIGKILL
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    write(tmp_path / "state.json", b"another file")
    assert len(list(tmp_path.iterdir())) == 3, "what was left of another file is no business of this one"
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["state [1].json", "state.json"]


def test_a_writer_that_lives_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    writer = start_writer(path)
    try:
        write(path, b"ours")
        assert path.read_bytes() == b"ours" and len(list(tmp_path.glob(".data.partial-*"))) == 1
    finally:
        writer.kill()
        writer.wait(60)


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path: Path) -> None:
    path, failures = tmp_path / "data", []

    def work(content: bytes) -> None:
        try:
            for _ in range(100):
                write(path, content * 5000)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and path.read_bytes() in (b"a" * 5000, b"b" * 5000, b"c" * 5000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"old")
    for stop in (ValueError, KeyboardInterrupt):
        with pytest.raises(stop), atomic_write(path) as file:
            file.write(b"half")
            raise stop
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "data", b"new")


def test_a_secret_is_its_owners_alone_from_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o644)
    before = os.umask(0)
    try:
        with atomic_write(path, mode=0o600):
            (partial,) = tmp_path.glob(".secret.partial-*")
            assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        os.umask(0o027)
        write(path, b"for the group")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        with atomic_write(path, mode=0o666):
            pass
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link", b"new")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"target"


def test_what_only_looks_like_a_leftover_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".data.partial-00000001")
    (tmp_path / ".data.partial-00000002").mkdir()
    (tmp_path / ".data.partial-00000003").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(b"other")
    write(tmp_path / "data", b"new")
    assert len(list(tmp_path.iterdir())) == 5


def test_content_and_names_are_on_the_disk_before_the_block_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        order.append("names" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "data", b"new")
    assert order == ["content", "rename", "names"]
