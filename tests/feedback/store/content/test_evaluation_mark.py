"""The mark for evaluation wins, whichever of a prompt and its judgments came first and whatever brought the mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback import formats
from feedback.database.engine import Database, open_database
from feedback.datasets import examples, freeze
from feedback.formats.base.prompts import read_prompts
from feedback.store.content import prompts
from feedback.types import DatasetFilters, Prompt, Split

MESSAGES = [{"role": "user", "content": "held out?"}]
VOTES = [{"prompt": "held out?", "chosen": "a", "rejected": "b"}, {"prompt": "work?", "chosen": "a", "rejected": "b"}]


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def judged(db: Database, tmp_path: Path) -> Database:
    """Two judged work prompts, frozen as the dataset ``before``."""
    formats.import_file(db, write(tmp_path / "votes.jsonl", *VOTES), "trl-preference")
    assert freeze.freeze(db, "before").counts["pairs"] == 2
    return db


def assert_held_out(db: Database) -> None:
    assert [row.messages for row in prompts.list_prompts(db, split=Split.evaluation)] == [MESSAGES]
    frozen = freeze.freeze(db, "after", DatasetFilters(test_share=0.0))
    assert (frozen.counts["pairs"], frozen.dropped) == (1, {"evaluation_prompt": 1})


def test_a_work_prompt_that_comes_again_for_evaluation_leaves_every_later_dataset(
    judged: Database, tmp_path: Path
) -> None:
    file = write(tmp_path / "prompts.jsonl", {"messages": MESSAGES, "split": "evaluation"})
    saved = prompts.save_prompts(judged, read_prompts(file))
    assert (saved.added, saved.duplicates, saved.marked, saved.still_in) == (0, 1, saved.ids, ["before"])
    assert_held_out(judged)
    again = prompts.save_prompts(judged, read_prompts(file))
    assert (again.marked, again.still_in) == ([], [])


def test_the_split_for_lines_that_do_not_say_theirs_marks_as_well(judged: Database, tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.jsonl", {"prompt": "held out?"})
    assert len(prompts.save_prompts(judged, read_prompts(file, split=Split.evaluation)).marked) == 1
    assert_held_out(judged)


def test_a_prompt_that_is_held_out_stays_so_when_it_comes_as_work(judged: Database) -> None:
    prompts.save_prompts(judged, [Prompt(messages=MESSAGES, split=Split.evaluation)])
    saved = prompts.save_prompts(judged, [Prompt(messages=MESSAGES), Prompt(messages=MESSAGES, split=Split.work)])
    assert (saved.added, saved.marked, saved.held_out) == (0, [], 2)
    assert_held_out(judged)


@pytest.mark.parametrize("order", [[Split.work, Split.evaluation], [Split.evaluation, Split.work]])
def test_a_file_that_says_both_holds_out(order: list[Split], db: Database) -> None:
    saved = prompts.save_prompts(db, [Prompt(messages=MESSAGES, split=split) for split in order])
    assert (saved.added, saved.duplicates, saved.held_out) == (1, 1, 1)
    assert [row.split for row in prompts.list_prompts(db)] == [Split.evaluation]


def test_a_file_of_prompts_as_trl_has_them_marks_as_well(judged: Database, tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.jsonl", {"prompt": MESSAGES, "split": "evaluation"})
    counts = formats.import_file(judged, file, "trl-prompt")
    assert counts == {"prompts": 0, "already_there": 1, "became_evaluation": 1}
    assert_held_out(judged)


def test_judgments_of_another_studio_where_the_prompt_is_held_out_mark_it(judged: Database, tmp_path: Path) -> None:
    raw = formats.export_dataset(judged, "before", "raw", tmp_path / "raw.jsonl").path
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    for line in lines:
        if line["prompt"]["messages"] == MESSAGES:
            line["prompt"]["split"] = "evaluation"
    counts = formats.import_file(judged, write(tmp_path / "theirs.jsonl", *lines), "raw")
    assert (counts["already_there"], counts["became_evaluation"]) == (2, 1)
    assert_held_out(judged)
    other = open_database(tmp_path / "other.db")
    prompts.save_prompts(other, [Prompt(messages=MESSAGES, split=Split.evaluation)])
    formats.import_file(other, raw, "raw")  # where it is work
    assert_held_out(other)


def test_a_dataset_that_is_frozen_stays_whole_when_its_prompt_is_held_out_later(judged: Database) -> None:
    before = examples.list_rankings(judged, "before")
    assert len(before) == 2
    prompts.save_prompts(judged, [Prompt(messages=MESSAGES, split=Split.evaluation)])
    assert examples.list_rankings(judged, "before") == before
