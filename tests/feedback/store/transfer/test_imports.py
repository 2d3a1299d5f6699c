"""Imports beside people at work: nobody waits for a file, nothing is half there, two imports at once agree."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from feedback import formats
from feedback.database import chunks
from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidLine, NotFound, StudioError
from feedback.labeling import assignment, judging
from feedback.store.content import prompts
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.store.transfer import imports
from feedback.types import Prompt
from tests.factories import count_judgments, judge_by, longer, make_generations, make_matchup, make_policy


def pair(number: int) -> dict[str, Any]:
    return {"prompt": f"Question {number}?", "chosen": f"good {number}", "rejected": f"bad {number}"}


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def sizes(db: Database) -> tuple[int, int, int, int]:
    counted = matchups.count_matchups(db)
    return (
        count_judgments(db),
        prompts.count_prompts(db),
        counted.satisfied + counted.open,
        len(policies.list_policies(db)),
    )


@pytest.fixture
def commits(db: Database) -> Iterator[list[int]]:
    """How many rows each transaction has inserted."""
    found: list[int] = []
    inserted = 0

    def count(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal inserted
        if statement.startswith("INSERT"):
            inserted += cursor.rowcount

    def end(_connection: Any) -> None:
        nonlocal inserted
        if inserted:
            found.append(inserted)
        inserted = 0

    event.listen(db.engine, "after_cursor_execute", count)
    event.listen(db.engine, "commit", end)
    yield found


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
@pytest.mark.parametrize("format", ["trl-preference", "raw", "label-studio", "trl-prompt"])
def test_people_vote_while_a_slow_file_is_read(format: str, db: Database, tmp_path: Path) -> None:
    other = open_database(tmp_path / "other.db")
    make_matchup(other)
    judge_by(other, longer)
    freeze.freeze(other, "d")
    lines = list(formats.stream_dataset(other, "d", format))
    make_matchup(db)
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        importing = pool.submit(formats.import_file, db, pipe, format)
        with pipe.open("w") as stream:
            stream.write("".join(lines))
            stream.flush()
            task = assignment.lease_next(db, "ann")  # would wait for the import, and the import waits for this test
            assert task
            assert judging.submit(db, task.lease_id, "ann", verdict="left").created
            assert not importing.done()
        assert importing.result(60)
    assert prompts.count_prompts(db) == 2


def test_an_import_is_many_short_transactions(db: Database, commits: list[int], tmp_path: Path) -> None:
    counts = formats.import_file(db, write(tmp_path / "in.jsonl", [pair(n) for n in range(220)]), "trl-preference")
    assert counts["judgments"] == 220 and len(commits) == 5 and max(commits) <= 350
    commits.clear()
    prompts.save_prompts(db, [Prompt(messages=[{"role": "user", "content": f"New {n}"}]) for n in range(250)])
    assert len(commits) == 3 and max(commits) <= 100


def test_a_raw_import_is_many_short_transactions(db: Database, commits: list[int], tmp_path: Path) -> None:
    other = open_database(tmp_path / "other.db")
    formats.import_file(other, write(tmp_path / "in.jsonl", [pair(n) for n in range(23)]), "trl-preference")
    freeze.freeze(other, "d")
    raw = formats.export_dataset(other, "d", "raw", tmp_path / "raw.jsonl").path
    assert formats.import_file(db, raw, "raw")["judgments"] == 23
    assert len(commits) == 5 and max(commits) <= 31


def test_a_dataset_is_frozen_in_short_transactions_and_seen_when_it_is_whole(
    db: Database, commits: list[int], tmp_path: Path
) -> None:
    formats.import_file(db, write(tmp_path / "in.jsonl", [pair(n) for n in range(620)]), "trl-preference")
    commits.clear()
    seen = []
    event.listen(db.engine, "commit", lambda _: seen.append([row.name for row in dataset_store.list_datasets(db)]))
    assert freeze.freeze(db, "d").counts["pairs"] == 620
    assert len(commits) > 4 and max(commits) <= 500
    assert all(names == [] for names in seen[:-1])
    assert len(dataset_store.list_pairs(db, "d")) == 620
    with pytest.raises(Conflict, match="There is already a dataset 'd'"):
        freeze.freeze(db, "d")
    assert [row.name for row in dataset_store.list_datasets(db)] == ["d"]


def test_a_freeze_that_fails_leaves_no_name_taken(db: Database, tmp_path: Path) -> None:
    formats.import_file(db, write(tmp_path / "in.jsonl", [pair(n) for n in range(40)]), "trl-preference")

    class Full(Exception):
        pass

    begun = 0

    def fail_at_third(*_: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise Full

    event.listen(db.engine, "commit", fail_at_third)
    with pytest.raises(Full):
        freeze.freeze(db, "d")
    assert dataset_store.list_datasets(db) == []
    with pytest.raises(NotFound) as caught:
        dataset_store.get_dataset(db, "d")
    assert caught.value.valid == []
    assert freeze.freeze(db, "d").counts["pairs"] == 40


def test_a_wrong_line_far_behind_leaves_nothing(db: Database, tmp_path: Path) -> None:
    lines = [pair(n) for n in range(150)] + [{"prompt": "p", "chosen": 3, "rejected": "b"}]
    with pytest.raises(InvalidLine, match="line 151"):
        formats.import_file(db, write(tmp_path / "in.jsonl", lines), "trl-preference")
    assert sizes(db) == (0, 0, 0, 0)


def test_a_raw_line_that_contradicts_what_is_stored_leaves_nothing_of_the_chunks_before(
    db: Database, tmp_path: Path
) -> None:
    formats.import_file(db, write(tmp_path / "in.jsonl", [pair(n) for n in range(12)]), "trl-preference")
    freeze.freeze(db, "d")
    raw = formats.export_dataset(db, "d", "raw", tmp_path / "raw.jsonl").path
    lines = raw.read_text().splitlines()
    other = open_database(tmp_path / "other.db")
    write(tmp_path / "last.jsonl", [json.loads(lines[-1])])
    formats.import_file(other, tmp_path / "last.jsonl", "raw")
    before = sizes(other)
    spoiled = json.loads(lines[-1])
    spoiled["generations"][0]["text"] = "something else"
    (tmp_path / "bad.jsonl").write_text("\n".join([*lines[:-1], json.dumps(spoiled)]))
    with pytest.raises(InvalidLine, match="line 12: the generation gen-.* is already stored with another text"):
        formats.import_file(other, tmp_path / "bad.jsonl", "raw")
    assert sizes(other) == before == (1, 1, 1, 1)
    assert formats.import_file(other, raw, "raw")["judgments"] == 11


def test_a_failure_between_two_chunks_takes_the_first_back(db: Database, tmp_path: Path) -> None:
    """Whatever ends an import, a full disk or Ctrl-C, as the database shows it."""
    file = write(tmp_path / "in.jsonl", [pair(n) for n in range(150)])

    class Full(Exception):
        pass

    begun = 0

    def fail_at_third(*_: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise Full

    event.listen(db.engine, "commit", fail_at_third)
    with pytest.raises(Full):
        formats.import_file(db, file, "trl-preference")
    event.remove(db.engine, "commit", fail_at_third)
    assert sizes(db) == (0, 0, 0, 0)
    assert formats.import_file(db, file, "trl-preference")["judgments"] == 150


def test_what_others_already_use_stays_and_is_told(db: Database) -> None:
    def fail(*_: Any) -> chunks.Saved:
        raise RuntimeError("The chunk failed.")

    def save(session: Any, chunk: list[str]) -> chunks.Saved:
        if chunk == ["second"]:
            make = prompts.list_prompts(db)
            assert make  # the first chunk is there: somebody replies to it
            return fail()
        row = prompts._new_row(Prompt(messages=[{"role": "user", "content": chunk[0]}]), held_out=False)
        session.add(row)
        session.flush()
        return chunks.Saved({type(row): [row.id]}, imports.Counter())

    def between(given: list[list[str]]) -> Iterator[list[str]]:
        yield given[0]
        make_generations(db, prompts.list_prompts(db)[0], make_policy(db), ["a reply"])
        yield given[1]

    with pytest.raises(StudioError, match="The chunk failed. Of what was saved before, 1 rows could not be removed"):
        chunks.save_in_chunks(db, between([["first"], ["second"]]), save)
    assert prompts.count_prompts(db) == 1


def together(open_it: Callable[[], Database], files: list[Path]) -> list[dict[str, int]]:
    """Each file imported by a thread with a database of its own, all at once."""
    start = threading.Barrier(len(files))

    def one(file: Path) -> dict[str, int]:
        db = open_it()
        start.wait(60)
        try:
            return formats.import_file(db, file, "trl-preference")
        finally:
            db.dispose()

    with ThreadPoolExecutor(len(files)) as pool:
        return list(pool.map(one, files))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_imports_at_once_agree(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = str(tmp_path / "studio.db") if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    db = open_database(url)
    files = [
        write(tmp_path / "one.jsonl", [pair(n) for n in range(120)]),
        write(tmp_path / "two.jsonl", [pair(n) for n in reversed(range(60, 180))]),
    ]
    done = together(lambda: open_database(url), files)
    assert sum(counts["judgments"] for counts in done) == 180
    assert sum(counts["already_there"] for counts in done) == 60
    assert sizes(db) == (180, 180, 180, 1)
    db.dispose()
