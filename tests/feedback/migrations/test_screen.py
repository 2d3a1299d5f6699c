"""A database of an earlier schema, with rows in it, opened by this release."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from feedback.database.engine import open_database
from feedback.datasets import freeze
from feedback.labeling import assignment, judging
from feedback.store.datasets.datasets import list_pairs
from feedback.store.labeling.settings import change_checks
from feedback.types import Checks
from tests.factories import judge_by, list_judgments, longer, make_matchup
from tests.feedback.migrations.test_adapters import migrate_to


def test_judgments_and_pairs_of_the_first_schema_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    db = open_database(path)
    for _ in range(4):
        make_matchup(db)
    judge_by(db, longer, count=3)
    dataset = freeze.freeze(db, "before")
    before = [(row.id, row.verdict, row.rationale) for row in list_judgments(db)]
    pairs = list_pairs(db, "before")
    db.dispose()
    take_back_to_first(path)

    again = open_database(path)
    assert [(row.id, row.verdict, row.rationale) for row in list_judgments(again)] == before
    assert list_pairs(again, "before") == pairs
    assert freeze.freeze(again, "after").hash == dataset.hash
    task = assignment.lease_next(again, "ann")
    assert task
    judging.save_draft(again, task.lease_id, "ann", {"rationale": "new"})
    judging.submit(again, task.lease_id, "ann", verdict="left", flag="unsafe", active_ms=5)
    assert list_judgments(again)[-1].flag == "unsafe"
    assert change_checks(again, Checks(), {"gold_share": 0.1}, author="ada").version == 1


def take_back_to_first(path: Path) -> None:
    """The rows as a database of schema 0001 holds them: without the columns and tables that came later."""
    first = path.with_name("first.db")
    migrate_to(first, "0001")
    old = sqlite3.connect(first)
    old.execute("ATTACH ? AS newest", (str(path),))
    tables = old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (table,) in tables.fetchall():
        if table != "alembic_version":
            columns = ", ".join(f'"{row[1]}"' for row in old.execute(f"PRAGMA main.table_info({table})"))
            old.execute(f'INSERT INTO main."{table}" ({columns}) SELECT {columns} FROM newest."{table}"')
    old.commit()
    old.close()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    first.rename(path)
