from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feedback.errors import HomeInUse, InvalidInput
from training.home import Home

HOLD = "import sys, time; from pathlib import Path; from training.home import Home\n" + (
    "lock = Home(Path(sys.argv[1])).create().lock_studio(url='http://127.0.0.1:7860'); print('held', flush=True)\n"
    "time.sleep(600)"
)


def test_the_argument_beats_the_environment_beats_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDIO_HOME", raising=False)
    assert Home.locate().path == Path("~/.rlhf-studio").expanduser()
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "env"))
    assert Home.locate().path == tmp_path / "env"
    assert Home.locate(tmp_path / "said").path == tmp_path / "said"


def test_a_database_url_replaces_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDIO_DATABASE_URL", raising=False)
    assert Home(tmp_path).database_url == f"sqlite:///{tmp_path}/studio.db"
    monkeypatch.setenv("STUDIO_DATABASE_URL", "sqlite:////elsewhere.db")
    assert Home.locate(tmp_path).database_url == "sqlite:////elsewhere.db"
    assert Home.locate(tmp_path, "sqlite:////said.db").database_url == "sqlite:////said.db"


def test_locating_creates_nothing_and_opening_all(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    assert not home.path.exists()
    home.open().dispose()
    assert home.checkpoints.is_dir() and home.runs.is_dir() and home.exports.is_dir()
    assert home.database_file.exists() and home.is_present()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="is a file; name a directory"):
        Home(tmp_path / "file").open()
    with pytest.raises(InvalidInput, match="cannot be used"):
        Home(tmp_path / "file" / "below").open()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InvalidInput, match="writable directory"):
        Home(tmp_path / "locked" / "home").open()


def test_a_second_studio_is_told_who_serves(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    home = Home(tmp_path)
    try:
        with pytest.raises(HomeInUse, match=rf"pid {holder.pid}.*http://127.0.0.1:7860.*--home"):
            home.lock_studio()
        assert (home.studio_holder() or {})["pid"] == holder.pid
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    # The lock went with the process, whatever its file still says.
    assert home.studio_holder() is None
    home.lock_studio().release()


def test_looking_does_not_take(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    assert home.worker_holder() is None
    with home.lock_worker(owner="up"):
        holder = home.worker_holder()
        assert holder is not None and holder["pid"] == os.getpid() and holder["owner"] == "up"
        with pytest.raises(HomeInUse, match="A worker"):
            home.lock_worker()
    assert home.worker_holder() is None


def test_a_lock_is_free_at_once_after_release(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    for _ in range(20):
        home.lock_worker().release()  # a lock that lingered would raise HomeInUse
