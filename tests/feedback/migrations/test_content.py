"""From the schemas before, with rows in them, to prompts that can be retired and replies with their reasoning."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from feedback.database.engine import open_database
from feedback.database.stored_values import check_values
from feedback.store.content.generations import list_generations
from feedback.store.content.prompts import list_prompts
from feedback.store.labeling.retirement import retire_prompts
from tests.feedback.migrations.test_adapters import migrate_to


def test_replies_of_the_schema_before_have_no_reasoning(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    migrate_to(path, "0008_retired_prompts")
    with sqlite3.connect(path) as old:
        old.execute(
            "INSERT INTO prompt (id, created_at, messages, split, tags, content_hash) VALUES ('prm-old', "
            "'2026-01-01 00:00:00', '[{\"role\": \"user\", \"content\": \"Hi\"}]', 'work', '[]', 'abc')"
        )
        old.execute(
            "INSERT INTO policy (id, created_at, name, base, note) "
            "VALUES ('pol-old', '2026-01-01 00:00:00', 'old', 'b', '')"
        )
        old.execute(
            "INSERT INTO generation (id, created_at, prompt_id, policy_id, text, seed, sampling, finish_reason, "
            "tokens) VALUES ('gen-old', '2026-01-01 00:00:00', 'prm-old', 'pol-old', 'Hello.', 1, '{}', 'stop', 2)"
        )
    db = open_database(path)
    assert [(row.text, row.reasoning) for row in list_generations(db)] == [("Hello.", None)]
    assert check_values(db) == "ok"
    db.dispose()


def test_prompts_of_the_schema_before_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    migrate_to(path, "0007_audit")
    with sqlite3.connect(path) as old:
        old.execute(
            "INSERT INTO prompt (id, created_at, messages, split, tags, content_hash) VALUES ('prm-old', "
            "'2026-01-01 00:00:00', '[{\"role\": \"user\", \"content\": \"Hi\"}]', 'work', '[]', 'abc')"
        )
    db = open_database(path)
    assert [(row.id, row.retired) for row in list_prompts(db)] == [("prm-old", False)]
    assert retire_prompts(db, ["prm-old"]).changed == 1 and check_values(db) == "ok"
    assert list_prompts(db) == []
    db.dispose()
