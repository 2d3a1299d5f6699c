from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from studio.worker_keeper import WorkerKeeper
from training.home import Home

ROOT = Path(__file__).parents[2]


def test_the_worker_does_not_show_the_database_url_in_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("STUDIO_DATABASE_URL", f"sqlite:///{tmp_path / 'wrong.db'}")
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path / 'secret.db'}").create()
    keeper = WorkerKeeper(home, owner="temporary", standby=False, dies_with_me=True)
    keeper.tend()
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "secret.db").exists():  # until it has found this database
            assert time.monotonic() < deadline, Path(keeper.log_path).read_text()
            time.sleep(0.05)
        holder = home.worker_holder()
        assert holder is not None
        arguments = psutil.Process(holder["pid"]).cmdline()
    finally:
        keeper.stop()
    assert str(home.path) in arguments and "secret" not in " ".join(arguments)
    assert not (tmp_path / "wrong.db").exists()
