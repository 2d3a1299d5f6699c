from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback import formats
from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidInput, InvalidLine
from feedback.labeling import assignment, judging
from feedback.store.content import prompts
from feedback.store.labeling import matchups
from feedback.store.models import policies as policy_store
from feedback.store.models.checkpoints import save_checkpoint
from feedback.types import Checkpoint, Matchup, MatchupKind
from tests.factories import (
    count_judgments,
    judge_by,
    list_judgments,
    longer,
    make_generations,
    make_matchup,
    make_policy,
    make_prompt,
)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def judged(db: Database) -> Database:
    policy = make_policy(db, "starter")
    for number in range(5):
        make_matchup(db, policy=policy, texts=[f"kurz {number} é", f"länger ist es {number} ✓"])
    judge_by(db, longer, count=4)
    task = assignment.lease_next(db, "ann")
    assert task
    judging.submit(db, task.lease_id, "ann", verdict="tie", rationale="=1+1")
    again = judging.undo_last(db, "ann")
    assert again
    judging.submit(db, again.lease_id, "ann", verdict="both_bad")
    freeze.freeze(db, "d")
    return db


def test_raw_comes_back_exactly(judged: Database, tmp_path: Path) -> None:
    report = formats.export_dataset(judged, "d", "raw", tmp_path / "one.jsonl")
    assert (report.rows, report.dropped) == (6, {})  # five judgments and one withdrawn revision
    other = open_database(tmp_path / "other.db")
    counts = formats.import_file(other, report.path, "raw")
    assert counts == {
        "judgments": 6,
        "prompts": 5,
        "generations": 10,
        "matchups": 5,
        "policies": 1,
        "already_there": 0,
    }
    freeze.freeze(other, "d")
    formats.export_dataset(other, "d", "raw", tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert formats.import_file(other, report.path, "raw")["already_there"] == 6
    assert count_judgments(other) == count_judgments(judged)


def test_an_imported_policy_without_its_checkpoint_does_not_reply_as_its_base(db: Database, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(db, Checkpoint(name="kd", kind="policy", path="checkpoints/kd", base="starter"))
    trained = make_policy(db, "kd", checkpoint_id=checkpoint.id)
    make_matchup(db, policy=trained)
    make_matchup(db, policy=make_policy(db, "plain"))
    judge_by(db, longer)
    freeze.freeze(db, "d")
    raw = formats.export_dataset(db, "d", "raw", tmp_path / "one.jsonl").path
    other = open_database(tmp_path / "other.db")
    formats.import_file(other, raw, "raw")
    with pytest.raises(Conflict, match="'kd': it was trained in another studio.* and cannot reply here"):
        policy_store.promote_policy(other, "kd")
    assert policy_store.promote_policy(other, "plain").can_reply
    freeze.freeze(other, "d")  # and so it stays, however often it moves on
    assert formats.export_dataset(other, "d", "raw", tmp_path / "two.jsonl").path.read_bytes() == raw.read_bytes()
    formats.import_file(db, raw, "raw")
    assert policy_store.promote_policy(db, "kd").note == ""


@pytest.mark.slow
def test_raw_is_the_same_bytes_in_every_process(judged: Database, tmp_path: Path) -> None:
    """Sets of names come in another order in each process; what leaves must not."""
    code = (
        "import sys; from feedback import formats; from feedback.database.engine import open_database\n"
        "from feedback.store.models.policies import list_policies; db = open_database(sys.argv[1])\n"
        "print(*formats.stream_dataset(db, 'd', 'raw')); print(list_policies(db)[0].model_dump(mode='json'))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "studio.db")],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in range(4)
    }
    assert len(said) == 1


def test_a_bad_line_imports_nothing_and_says_where(judged: Database, tmp_path: Path) -> None:
    formats.export_dataset(judged, "d", "raw", tmp_path / "one.jsonl")
    lines = (tmp_path / "one.jsonl").read_text().splitlines()
    spoiled = json.loads(lines[3])
    spoiled["judgment"]["verdict"] = "meh"
    other = open_database(tmp_path / "other.db")
    for bad, reason in (
        ("{not json", "line 4: not JSON"),
        ("[1]", "line 4: a JSON object is needed, not a list"),
        (json.dumps(spoiled), "line 4: judgment: verdict"),
        (json.dumps({**json.loads(lines[3]), "version": 7}), "line 4: version 7 is unknown"),
        (json.dumps({"judgment": {}}), r"line 4: this is no line of a raw export \(keys: judgment\)"),
    ):
        (tmp_path / "bad.jsonl").write_text("\n".join([*lines[:3], bad, *lines[4:]]))
        with pytest.raises(InvalidLine, match=reason):
            formats.import_file(other, tmp_path / "bad.jsonl", "raw")
    assert count_judgments(other) == prompts.count_prompts(other) == 0
    assert matchups.count_matchups(other).open == 0 and policy_store.list_policies(other) == []


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one line of a raw file: ``value`` at a path such as ``matchup.generation_ids.0``."""

    def change(line: dict[str, Any]) -> None:
        *outer, last = (int(part) if part.isdigit() else part for part in path.split("."))
        found: Any = line
        for part in outer:
            found = found[part]
        found[last] = value

    return change


INCOHERENT: list[tuple[str, Any, str]] = [
    ("matchup.generation_ids.0", "gen-no", r"matchup.generation_ids names 'gen-no', which is not among .*\(gen-"),
    ("matchup.prompt_id", "prm-no", "matchup.prompt_id must be 'prm-.*', as in the rest of the line, not 'prm-no'"),
    ("generations.1.prompt_id", "prm-no", "generations.1.prompt_id must be"),
    ("judgment.matchup_id", "mat-no", "judgment.matchup_id must be"),
    ("judgment.lease_id", "lea-no", "judgment.lease_id must be"),
    ("lease.matchup_id", "mat-no", "lease.matchup_id must be"),
    ("lease.annotator", "bob", "lease.annotator must be 'ann'"),
    ("judgment.shown_order", [5, 6], r"judgment.shown_order holds each of 0 to 1 once, not \[5, 6\]"),
    ("lease.shown_order", [], "lease.shown_order holds each of 0 to 1 once"),
    ("judgment.edited", {"index": 9, "text": "x"}, "edited.index names a shown reply, 0 to 1, not 9"),
    ("judgment.edited", {"index": 0}, "edited.text must be the edited reply"),
    ("judgment.spans", [{"index": 0, "start": 0, "end": 999, "mark": "bad"}], "A span lies within the"),
    ("judgment.criteria", {"clear": [1, 2, 3]}, "'clear' needs 2 ratings"),
    ("matchup.kind", "rank", "judgment.verdict (first|second) is of a pair; the matchup ranks 2 replies"),
    ("generations.0.sampling", {"a": ["\ud800"]}, "generation.sampling must be whole Unicode characters"),
    ("generations.0.sampling", {"a": float("inf")}, "generation.sampling must be a finite number"),
    ("generations.0.sampling", {"a": json.loads("[" * 300 + "]" * 300)}, "generation is nested too deeply"),
    ("generations.0.seed", 10**30, "generation.seed is a larger number than any database can hold"),
    ("generations.0.tokens", 10**30, "generation.tokens is a larger number"),
    ("judgment.active_ms", 10**30, "judgment.active_ms is a larger number"),
    ("matchup.required", 10**30, "matchup.required is a larger number"),
    ("judgment.annotator", "\ud800", "judgment: annotator must be whole Unicode characters"),
    ("judgment.id", "\ud800", "judgment.id must be whole Unicode characters"),
    ("lease.expires_at", "0001-01-01T00:00:00+14:00", "lease.expires_at lies outside the years 1 to 9999 in UTC"),
    (
        "matchup",
        {
            "id": "m",
            "prompt_id": "p",
            "generation_ids": ["a", "b", "c"],
            "kind": "rank",
            "purpose": "gold",
            "gold": {"ranking": 5},
        },
        "matchup: the gold of a ranking is",
    ),
    ("policies.0.base", "\ud800", "policy.base must be whole Unicode characters"),
    (
        "judgment.supersedes",
        "jud-no",
        "judgment.supersedes names 'jud-no', which is neither stored here nor in",
    ),
    ("matchup.repeat_of", "mat-no", "matchup.repeat_of names 'mat-no', which is neither"),
    ("generations.1.policy_id", "pol-no", "generations.1.policy_id names 'pol-no', which is neither"),
]


@pytest.mark.parametrize(("path", "value", "reason"), INCOHERENT, ids=[f"{i}-{c[0]}" for i, c in enumerate(INCOHERENT)])
def test_a_line_whose_parts_contradict_each_other_is_refused(
    path: str, value: Any, reason: str, judged: Database, tmp_path: Path
) -> None:
    """Each row is right by itself; such a line came in, and every freeze or export after it failed."""
    formats.export_dataset(judged, "d", "raw", tmp_path / "one.jsonl")
    rows = read(tmp_path / "one.jsonl")
    place = next(i for i, row in enumerate(rows) if row["judgment"]["verdict"] in ("first", "second"))
    _set(path, value)(rows[place])
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = open_database(tmp_path / "other.db")
    with pytest.raises(InvalidLine, match=f"line {place + 1}: ({reason})"):
        formats.import_file(other, tmp_path / "bad.jsonl", "raw")
    assert prompts.count_prompts(other) == 0 and policy_store.list_policies(other) == []


def test_a_second_judgment_in_force_by_one_person_is_told_in_words(judged: Database, tmp_path: Path) -> None:
    rows = read(formats.export_dataset(judged, "d", "raw", tmp_path / "one.jsonl").path)
    in_force = next(row for row in rows if row["judgment"]["state"] == "current")
    again = json.loads(json.dumps(in_force))
    again["judgment"] |= {"id": "jud-again", "lease_id": "lea-again"}
    again["lease"]["id"] = "lea-again"
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, [*rows, again])))
    told = f"line {len(rows) + 1}: 'ann' has another judgment of the matchup mat-.* in force, 'jud-"
    with pytest.raises(InvalidLine, match=told):
        formats.import_file(open_database(tmp_path / "other.db"), tmp_path / "bad.jsonl", "raw")


@pytest.mark.parametrize("ranking", [[1, 2], [1, 2, 3, 4], [1, 2, 4], [0, 1, 2]])
def test_a_ranking_of_other_replies_is_refused(ranking: list[int], db: Database, tmp_path: Path) -> None:
    _ranked(db, ranking=[1, 2, 3])
    rows = read(formats.export_dataset(db, "d", "raw", tmp_path / "one.jsonl").path)
    rows[0]["judgment"]["ranking"] = ranking
    (tmp_path / "bad.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(InvalidLine, match=r"line 1: judgment.ranking (needs 3 numbers|goes from 1 \(best\) to 3)"):
        formats.import_file(open_database(tmp_path / "other.db"), tmp_path / "bad.jsonl", "raw")


def test_whatever_can_be_said_here_comes_back(db: Database, tmp_path: Path) -> None:
    """Rankings, of two replies as well, with both-bad and skip; edits, marks and ratings; whatever the order shown."""
    _ranked(db, ranking=[2, 1, 2])
    _ranked(db, verdict="both_bad")
    marks = [{"index": 1, "start": 1, "end": 3, "mark": "bad", "reason": "no"}]
    for number, said in enumerate(
        ({"ranking": [2, 1]}, {"verdict": "left", "edited": {"index": 1, "text": "Better."}, "spans": marks})
    ):
        make_matchup(db, texts=[f"One {number}.", f"Another {number}."])
        task = assignment.lease_next(db, "ann")
        assert task
        judging.submit(db, task.lease_id, "ann", criteria={"clear": [5, None]}, **said)
    _ranked(db, skip_reason="unclear")
    freeze.freeze(db, "all")
    raw = formats.export_dataset(db, "all", "raw", tmp_path / "one.jsonl").path
    other = open_database(tmp_path / "other.db")
    assert formats.import_file(other, raw, "raw")["judgments"] == 5
    freeze.freeze(other, "all")
    assert formats.export_dataset(other, "all", "raw", tmp_path / "two.jsonl").path.read_bytes() == raw.read_bytes()


def _ranked(db: Database, **said: Any) -> None:
    """A ranking of three that was answered, in a dataset ``d``."""
    number = matchups.count_matchups(db).open + len(list_judgments(db))
    prompt, policy = make_prompt(db), make_policy(db)
    rows = make_generations(db, prompt, policy, [f"{word} {number}." for word in ("One", "Two", "Three")])
    keys = [row.id for row in rows]
    matchups.save_matchups(db, [Matchup(prompt_id=prompt.id, generation_ids=keys, kind=MatchupKind.rank)])
    task = assignment.lease_next(db, f"ann-{number}")
    assert task and len(task.responses) == 3
    judging.submit(db, task.lease_id, task.annotator, **said)
    if number == 0:
        freeze.freeze(db, "d")


def test_a_row_that_says_something_else_refuses_the_file(judged: Database, tmp_path: Path) -> None:
    formats.export_dataset(judged, "d", "raw", tmp_path / "one.jsonl")
    rows = read(tmp_path / "one.jsonl")
    rows[0]["generations"][0]["text"] = "something never said"
    (tmp_path / "forged.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InvalidLine, match="line 1: the generation gen-.* is already stored with another text"):
        formats.import_file(judged, tmp_path / "forged.jsonl", "raw")


def test_trl_formats_have_exactly_the_columns_trl_names(judged: Database, tmp_path: Path) -> None:
    report = formats.export_dataset(judged, "d", "trl-preference", tmp_path / "p.jsonl")
    assert report.rows == 4 and report.dropped == {"both_bad": 1}
    for row in read(report.path):
        assert list(row) == ["prompt", "chosen", "rejected"] and all(isinstance(v, str) for v in row.values())
        assert len(row["chosen"]) > len(row["rejected"])
    formats.export_dataset(judged, "d", "trl-conversational", tmp_path / "c.jsonl")
    for row in read(tmp_path / "c.jsonl"):
        assert list(row) == ["prompt", "chosen", "rejected"]
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen"] != row["rejected"]


def test_the_drop_report_lies_beside_the_file(judged: Database, tmp_path: Path) -> None:
    written = formats.export_dataset(judged, "d", "trl-preference", tmp_path / "p.jsonl")
    assert written.report == tmp_path / "__reports__" / "p.jsonl.json"
    report = json.loads(written.report.read_text())
    assert report["rows"] == 4 and report["dropped"] == {"both_bad": 1}
    assert report["dataset"]["hash"] == freeze.freeze(judged, "again").hash
    assert [path.name for path in tmp_path.glob("*.jsonl*")] == ["p.jsonl"]


def test_unknown_formats_and_places_are_refused_with_the_valid_ones(judged: Database, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'xml' is not a format; valid: raw, trl-preference, trl-conversational"):
        formats.export_dataset(judged, "d", "xml", tmp_path / "x")
    with pytest.raises(InvalidInput, match="can only be exported; import takes: raw, trl-preference"):
        formats.import_file(judged, tmp_path / "x", "csv")
    with pytest.raises(InvalidInput, match="'dev' is not a side of a dataset; valid: train, test"):
        formats.export_dataset(judged, "d", "raw", tmp_path / "x", "dev")
    with pytest.raises(InvalidInput, match="cannot be read"):
        formats.import_file(judged, tmp_path / "missing.jsonl", "raw")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        formats.export_dataset(judged, "d", "raw", tmp_path / "file" / "below.jsonl")


def test_an_export_that_fails_leaves_the_old_file_whole(judged: Database, tmp_path: Path) -> None:
    from feedback import jsonl

    (tmp_path / "o.jsonl").write_text("precious")

    def broken() -> Any:
        yield "half\n"
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        jsonl.write_lines(tmp_path / "o.jsonl", broken())
    assert (tmp_path / "o.jsonl").read_text() == "precious" and len(list(tmp_path.glob(".o.jsonl*"))) == 0
