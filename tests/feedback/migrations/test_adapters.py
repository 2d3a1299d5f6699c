"""From the first schema, with rows in it, to runs that wait and checkpoints whose weights may go."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from feedback import migrations
from feedback.database.engine import open_database
from feedback.store.models.checkpoints import list_checkpoints
from feedback.store.models.runs import claim_next_run, list_runs


def migrate_to(path: Path, revision: str) -> None:
    """A new SQLite file at this revision."""
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_old_runs_wait_for_nothing_and_old_checkpoints_are_there(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    migrate_to(path, "0001")
    with sqlite3.connect(path) as old:
        old.execute(
            "INSERT INTO run (id, created_at, method, config, priority, attempt, progress, progress_text, result, "
            "state) VALUES ('run-old', '2026-01-01 00:00:00', 'dpo', '{}', 0, 1, 0.0, '', '{}', 'queued')"
        )
        old.execute(
            "INSERT INTO checkpoint (id, created_at, name, kind, path, base, run_id, manifest)"
            " VALUES ('ckp-old', '2026-01-01 00:00:00', 'old', 'policy', 'checkpoints/old', 'b', 'run-old', '{}')"
        )
    db = open_database(path)
    assert [(run.id, run.after) for run in list_runs(db)] == [("run-old", None)]
    assert [(row.name, row.removed_at, row.run_id) for row in list_checkpoints(db)] == [("old", None, "run-old")]
    claimed = claim_next_run(db)
    assert claimed is not None and claimed.id == "run-old"
