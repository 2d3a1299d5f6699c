"""Where a command writes: files are replaced whole, links are followed, pipes and devices stay what they are."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import InvalidInput
from feedback.jsonl import write_lines
from feedback.outputs import find_output
from tests.factories import judge_by, longer, make_matchup

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")


@pytest.fixture
def frozen(db: Database) -> Database:
    for _ in range(3):
        make_matchup(db)
    judge_by(db, longer)
    freeze.freeze(db, "d")
    return db


def test_a_link_is_followed_and_stays(frozen: Database, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "data.jsonl"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "link.jsonl"
    link.symlink_to(Path("real") / "data.jsonl")
    assert formats.export_dataset(frozen, "d", "trl-preference", link).rows == 3
    assert link.is_symlink() and len(target.read_text().splitlines()) == 3
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling.jsonl"
    dangling.symlink_to(tmp_path / "real" / "new.jsonl")
    formats.export_dataset(frozen, "d", "trl-preference", dangling)
    assert dangling.is_symlink() and (tmp_path / "real" / "new.jsonl").is_file()
    assert not list(tmp_path.rglob(".*partial*"))


def test_a_pipe_is_written_and_stays_a_pipe(frozen: Database, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    report = formats.export_dataset(frozen, "d", "trl-preference", pipe)
    reader.join(60)
    assert len(read[0].splitlines()) == report.rows == 3 and report.report is None
    assert stat.S_ISFIFO(pipe.stat().st_mode) and not (tmp_path / "__reports__").exists()


def test_a_device_is_written_and_stays_a_device(frozen: Database, tmp_path: Path) -> None:
    device = tmp_path / "null"  # never the machine's own: a failure would replace it
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.open("wb").close()
    except OSError:
        pytest.skip("only root may make a device, and not on every file system")
    before = device.stat().st_mode
    assert formats.export_dataset(frozen, "d", "trl-preference", device).report is None
    assert device.stat().st_mode == before and stat.S_ISCHR(before)


@pytest.mark.parametrize("place", ["stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
def test_standard_output_is_written_as_it_is_even_when_it_is_a_file(place: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from feedback.jsonl import write_lines\n"
        "print('before'); write_lines(Path(sys.argv[1]), ['a\\n', 'b\\n']); print('after')"
    )
    if place == "stdout":  # as /dev/stdout is one; never the machine's own: a failure would replace it
        (tmp_path / place).symlink_to("/proc/self/fd/1")
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code, place], check=True, stdout=out, cwd=tmp_path, env=_environment())
    assert (tmp_path / "out").read_text() == "before\na\nb\nafter\n"
    assert {path.name for path in tmp_path.iterdir()} == {"out", place} - {"/dev/fd/1", "/proc/self/fd/1", "-"}
    assert place != "stdout" or (tmp_path / place).is_symlink()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_an_open_descriptor_as_a_shell_gives_it_is_written(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    assert write_lines(Path(f"/dev/fd/{writing}"), ["a\n"]) == 1
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read() == "a\n"


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a directory. Name a file"):
        find_output(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InvalidInput, match="cannot be written"):
        find_output(tmp_path / "loop")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_lines(tmp_path / "file" / "under", ["a"])


def test_a_failure_leaves_the_target_of_a_link_whole(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")

    def broken() -> Iterator[str]:
        yield "new\n"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_lines(tmp_path / "link", broken())
    assert (tmp_path / "target").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_a_name_that_ends_in_gz_is_compressed_and_reads_back(frozen: Database, tmp_path: Path) -> None:
    report = formats.export_dataset(frozen, "d", "raw", tmp_path / "raw.jsonl.gz")
    lines = gzip.decompress(report.path.read_bytes()).decode().splitlines()
    assert len([json.loads(line) for line in lines]) == 3
    assert formats.import_file(frozen, report.path, "raw")["already_there"] == 3
    formats.export_dataset(frozen, "d", "label-studio", tmp_path / "tasks.json.gz")
    assert isinstance(json.loads(gzip.decompress((tmp_path / "tasks.json.gz").read_bytes())), list)
