"""Which replies count as identical: equal texts in imports, datasets and exports; what looks alike before people."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.rules import pairing
from feedback.store.datasets import datasets as dataset_store
from feedback.types import DatasetFilters
from tests.factories import judge_by, make_generations, make_matchup, make_policy, make_prompt

CODE = ("if x:\n    return 1\nreturn 2", "if x:\n    return 1\n    return 2")
POEM = ("Roses are red,\nviolets are blue.", "Roses are red, violets are blue.")


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(("chosen", "rejected"), [CODE, POEM, ("a\n", "a"), ("a  b", "a b")])
@pytest.mark.parametrize("format", ["trl-preference", "hh", "arena", "helpsteer3", "label-studio"])
def test_an_imported_pair_that_differs_in_white_space_is_kept_to_the_end(
    format: str, chosen: str, rejected: str, db: Database, tmp_path: Path
) -> None:
    line = {
        "trl-preference": {"prompt": "p", "chosen": chosen, "rejected": rejected},
        "hh": {
            "chosen": f"\n\nHuman: p\n\nAssistant: {chosen}",
            "rejected": f"\n\nHuman: p\n\nAssistant: {rejected}",
        },
        "arena": {
            "model_a": "x",
            "model_b": "y",
            "winner": "model_a",
            "conversation_a": asked("p") + said(chosen),
            "conversation_b": asked("p") + said(rejected),
        },
        "helpsteer3": {"context": asked("p"), "response1": chosen, "response2": rejected, "overall_preference": -1},
        "label-studio": {
            "data": {"prompt": "p", "answer1": chosen, "answer2": rejected},
            "annotations": [
                {"result": [{"from_name": "preference", "type": "pairwise", "value": {"selected": "left"}}]}
            ],
        },
    }[format]
    (tmp_path / "in.jsonl").write_text(json.dumps(line))
    counts = formats.import_file(db, tmp_path / "in.jsonl", format)
    assert counts["judgments"] == 1 and "identical" not in counts
    frozen = freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    assert frozen.dropped == {}
    (pair,) = dataset_store.list_pairs(db, "d")
    assert (pair.chosen, pair.rejected) == (chosen, rejected)
    report = formats.export_dataset(db, "d", format, tmp_path / "out.jsonl")
    assert report.rows == 1 and report.dropped == {}


def test_equal_replies_are_still_left_out_and_counted(db: Database, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "p", "chosen": CODE[0], "rejected": CODE[0]}))
    counts = formats.import_file(db, tmp_path / "in.jsonl", "trl-preference")
    assert (counts["judgments"], counts["identical"]) == (0, 1)


def test_generated_replies_meet_when_the_white_space_inside_them_differs(db: Database) -> None:
    policy = make_policy(db, "starter")
    rows = make_generations(db, make_prompt(db), policy, list(CODE))
    assert len(pairing.make_pairs(rows, random.Random(0))) == 1
    assert len(pairing.make_ranking(rows, random.Random(0))) == 1
    rows = make_generations(db, make_prompt(db), policy, ["the same", " the same\n"])
    assert pairing.make_pairs(rows, random.Random(0)) == [] == pairing.make_ranking(rows, random.Random(0))


def test_votes_here_on_white_space_reach_a_dataset(db: Database) -> None:
    make_matchup(db, texts=list(CODE))
    judge_by(db, lambda left, right: 1 if left == CODE[0] else -1)
    frozen = freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    assert (frozen.counts["pairs"], frozen.dropped) == (1, {})
