"""Files as other tools publish them: Label Studio, the arenas, and what no format here has a place for."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback import formats
from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import InvalidInput, InvalidLine
from feedback.formats.label_studio import as_array
from feedback.store.models import policies
from feedback.types import DatasetFilters, Verdict, content_hash
from tests.factories import count_judgments, list_judgments, make_policy


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def battle(a: str = "one", b: str = "two", winner: str = "model_a", **more: Any) -> dict[str, Any]:
    sides = {"conversation_a": asked("p") + said(f"of {a}"), "conversation_b": asked("p") + said(f"of {b}")}
    return {"model_a": a, "model_b": b, "winner": winner, **sides, **more}


def result(name: str | None, kind: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "value": value} | ({} if name is None else {"from_name": name})


def task(*annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": {"prompt": "p", "answer1": "a", "answer2": "b"}, "annotations": list(annotations), **more}


LEFT = result("preference", "pairwise", selected="left")


def brought(db: Database, tmp_path: Path, format: str, *lines: dict[str, Any]) -> dict[str, int]:
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return formats.import_file(db, tmp_path / "in.jsonl", format)


# Label Studio ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, -1])
def test_results_are_read_by_the_names_of_their_controls(turn: int, db: Database, tmp_path: Path) -> None:
    results = [
        LEFT,
        result("strength", "rating", rating=3),
        result("fluency", "rating", rating=5),
        result("rationale", "textarea", text=["why"]),
        result("notes", "textarea", text=["other"]),
        {"type": "relation", "from_id": "x", "to_id": "y", "direction": "right"},
    ][::turn]
    counts = brought(db, tmp_path, "label-studio", task({"result": results}))
    (judgment,) = list_judgments(db)
    assert (judgment.strength, judgment.rationale) == (3, "why")
    assert (counts["ignored_fluency"], counts["ignored_notes"]) == (1, 1)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"result": []}, "no_verdict"),
        ({"result": [result("notes", "textarea", text=["hm"])]}, "no_verdict"),
        ({"result": [LEFT, result("neither", "choices", choices=["tie"])]}, "contradictory"),
        ({"result": [result(name, "pairwise", selected="left") for name in ("x", "y")]}, "no_verdict"),
    ],
)
def test_an_annotation_without_a_verdict_is_counted_and_the_others_are_kept(
    annotation: dict[str, Any], reason: str, db: Database, tmp_path: Path
) -> None:
    counts = brought(db, tmp_path, "label-studio", task(annotation, {"result": [LEFT]}))
    assert (counts["judgments"], counts[reason]) == (1, 1)


def test_another_scale_is_no_strength_and_another_name_of_the_one_preference_does(db: Database, tmp_path: Path) -> None:
    results = [result("pw", "pairwise", selected="right"), result("strength", "rating", rating=5)]
    counts = brought(db, tmp_path, "label-studio", task({"result": results}, predictions=[{"result": []}]))
    (judgment,) = list_judgments(db)
    assert judgment.strength is None and judgment.verdict in (Verdict.first, Verdict.second)
    assert (counts["strength_beyond_3"], counts["ignored_predictions"]) == (1, 1)


def test_an_export_names_no_user_of_label_studio_and_keeps_its_judges_apart(db: Database, tmp_path: Path) -> None:
    brought(db, tmp_path, "arena", *(battle(judge=judge, question_id=judge) for judge in ("ann", "bob", "eve")))
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    (exported,) = (json.loads(line) for line in formats.stream_dataset(db, "d", "label-studio"))
    assert len(exported["annotations"]) == 3
    assert not any("completed_by" in annotation for annotation in exported["annotations"])
    assert sorted(exported["data"]["judges"].values()) == [1, 2, 3]
    other = open_database(tmp_path / "other.db")
    exported["annotations"].reverse()  # Label Studio gives them back in an order of its own
    for annotation in exported["annotations"]:
        annotation["completed_by"] = 1  # and as its own user's
    assert brought(other, tmp_path, "label-studio", exported)["judgments"] == 3
    assert {row.annotator for row in list_judgments(other)} == {"imported-1", "imported-2", "imported-3"}
    assert brought(db, tmp_path, "label-studio", exported)["already_there"] == 3


# The arenas -----------------------------------------------------------------------------------------------


def test_models_whose_names_look_alike_here_are_two_policies(db: Database, tmp_path: Path) -> None:
    lines = [battle("通义千问", "文心一言"), battle("org/model", "org-model")]
    for _ in range(2):
        brought(db, tmp_path, "arena", *lines)
        names = [row.name for row in policies.list_policies(db)]
        assert len(names) == len(set(names)) == 4 and "imported" not in names
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    rows = [json.loads(line) for line in formats.stream_dataset(db, "d", "arena")]
    assert {(row["model_a"], row["model_b"]) for row in rows} == {
        ("通义千问", "文心一言"),
        ("org/model", "org-model"),
    }


@pytest.mark.parametrize("is_old", [False, True], ids=["today's home", "a home of an older release"])
def test_another_home_s_model_of_a_name_that_looks_alike_stays_another_policy(
    is_old: bool, db: Database, tmp_path: Path
) -> None:
    """``org/model`` there and ``org-model`` here: what one of them wrote is never the other's."""
    there = open_database(tmp_path / "there.db")
    brought(there, tmp_path, "arena", battle("org/model", "other"))
    freeze.freeze(there, "d", DatasetFilters(test_share=0.0))
    path = formats.export_dataset(there, "d", "raw", tmp_path / "raw.jsonl").path
    if is_old:
        (line,) = [json.loads(line) for line in path.read_text().splitlines()]
        written = next(policy["id"] for policy in line["policies"] if policy["base"] == "org/model")
        path.write_text(path.read_text().replace(written, f"pol-{content_hash(['imported', 'org-model'])[:20]}"))
    brought(db, tmp_path, "arena", battle("org-model", "other", conversation_a=[*asked("p"), *said("not of it")]))
    for _ in range(2):
        formats.import_file(db, path, "raw")
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    rows = [json.loads(line) for line in formats.stream_dataset(db, "d", "arena")]
    wrote = {row["model_a"]: row["conversation_a"][-1]["content"] for row in rows}
    assert wrote == {"org/model": "of org/model", "org-model": "not of it"}
    assert sorted(row.base for row in policies.list_policies(db)) == ["org-model", "org/model", "other"]
    brought(db, tmp_path, "arena", battle("org/model", "other", conversation_a=[*asked("p"), *said("later")]))
    assert len(policies.list_policies(db)) == 3, "the model is found again by its own name"


def test_a_model_that_has_a_policy_here_under_another_id_is_that_policy(db: Database, tmp_path: Path) -> None:
    there = open_database(tmp_path / "there.db")
    brought(there, tmp_path, "arena", battle("org-model", "x"), battle("org/model", "x"))
    freeze.freeze(there, "d", DatasetFilters(test_share=0.0))
    path = formats.export_dataset(there, "d", "raw", tmp_path / "raw.jsonl").path
    brought(db, tmp_path, "arena", battle("org/model", "x", conversation_a=[*asked("p"), *said("here")]))
    formats.import_file(db, path, "raw")
    assert sorted(row.base for row in policies.list_policies(db)) == ["org-model", "org/model", "x"]


def test_a_policy_of_this_studio_does_not_become_a_model_of_elsewhere(db: Database, tmp_path: Path) -> None:
    there = open_database(tmp_path / "there.db")
    brought(there, tmp_path, "arena", battle("org/model", "x"))
    freeze.freeze(there, "d", DatasetFilters(test_share=0.0))
    path = formats.export_dataset(there, "d", "raw", tmp_path / "raw.jsonl").path
    own = make_policy(db, "org-model")
    with pytest.raises(InvalidLine, match="another policy is already called 'org-model'"):
        formats.import_file(db, path, "raw")
    assert [row.id for row in policies.list_policies(db)] == [own.id]


def test_a_battle_s_zero_is_an_id_and_its_null_is_no_name(db: Database, tmp_path: Path) -> None:
    lines = [battle("one", "two", judge=0, question_id=0), battle("one", "two", judge=1, question_id=1)]
    lines.append(battle("one", "two", question_id=2) | {"model_a": None, "judge": None, "judge_hash": "h"})
    assert brought(db, tmp_path, "arena", *lines)["judgments"] == 3
    assert brought(db, tmp_path, "arena", *lines)["already_there"] == 3
    assert sorted(row.annotator for row in list_judgments(db)) == ["0", "1", "h"]
    assert sorted(row.base for row in policies.list_policies(db)) == ["imported", "one", "two"]
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    rows = [json.loads(line) for line in formats.stream_dataset(db, "d", "arena")]
    assert sorted(row["question_id"] for row in rows) == [0, 1, 2]


def test_votes_that_differ_in_anything_they_say_are_two(db: Database, tmp_path: Path) -> None:
    lines = [
        battle(judge_hash="x", tstamp=1e9),
        battle(judge_hash="y", tstamp=1e9 + 1),
        battle(tstamp=1e9 + 2),
        battle(tstamp=1e9 + 3),
        battle(judge="j" * 100 + "1"),
        battle(judge="j" * 100 + "2"),
    ]
    assert brought(db, tmp_path, "arena", *lines)["judgments"] == 6
    again = brought(db, tmp_path, "arena", *lines, lines[0])
    assert (again["judgments"], again["already_there"]) == (0, 7)


def test_what_a_battle_said_comes_out_again_and_home_again(db: Database, tmp_path: Path) -> None:
    brought(db, tmp_path, "arena", battle(question_id="q1", anony=False, language="German", judge="j", tstamp=1e9))
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    (row,) = (json.loads(line) for line in formats.stream_dataset(db, "d", "arena"))
    assert (row["question_id"], row["anony"], row["language"], row["tstamp"]) == ("q1", False, "German", 1e9)
    assert brought(db, tmp_path, "arena", row)["already_there"] == 1


def test_what_lmarena_and_fastchat_publish_is_read(db: Database, tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "of one", "image": None}]
    new = battle(id="e1", timestamp="2025-06-01 10:00:00", winner="both_bad", evaluation_order=3)
    new["conversation_a"] = [*asked("p"), {"role": "assistant", "content": parts}]
    picture = battle(id="e2")
    picture["conversation_b"] = [*asked("p"), {"role": "assistant", "content": [{"type": "image", "image": "x"}]}]
    (tmp_path / "in.json").write_text(json.dumps([new, picture, battle(tstamp=1.7e9)], indent=2))
    counts = formats.import_file(db, tmp_path / "in.json", "arena")
    assert (counts["judgments"], counts["not_text"], counts["ignored_evaluation_order"]) == (2, 1, 1)
    assert {row.created_at.year for row in list_judgments(db)} == {2025, 2023}


# Containers -----------------------------------------------------------------------------------------------

PAIRS = [{"prompt": f"p {n}", "chosen": "a", "rejected": "b"} for n in range(3)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, PAIRS)),
        json.dumps(PAIRS),
        json.dumps(PAIRS, indent=2),
        "\ufeff\n " + json.dumps(PAIRS),
    ],
)
def test_lines_and_arrays_are_read_plain_and_compressed(
    pack: Callable[[bytes], bytes], text: str, db: Database, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(pack(text.encode()))
    assert formats.import_file(db, tmp_path / "in", "trl-preference")["judgments"] == 3


def test_an_array_larger_than_a_piece_is_read(db: Database, tmp_path: Path) -> None:
    long = [{"prompt": f"p {n}", "chosen": "é" * 700_000, "rejected": "b"} for n in range(3)]
    (tmp_path / "in.json").write_text("".join(as_array(json.dumps(one) for one in long)))
    assert formats.import_file(db, tmp_path / "in.json", "trl-preference")["judgments"] == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[{"prompt": "p", "chosen": "a", "rejected": "b"}, 3]', "in.json, item 2: a JSON object is needed"),
        (b'[{"prompt": "p", "chosen": "a"}]', "in.json, item 1: 'rejected' is missing"),
        (b'[{"prompt": "p", "chosen": "a", "rejected": "b"}', "',' is missing before 'the end of the file'"),
        (b'[{"prompt": }]', "item 1: not JSON"),
        (b"[] []", "the file goes on after the end of the array"),
        (gzip.compress(b"[]" * 9, mtime=0)[:-9], "cannot be read to its end"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"PAR1rest", "is a Parquet file"),
    ],
)
def test_what_is_wrong_with_a_container_is_told(content: bytes, reason: str, db: Database, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        formats.import_file(db, tmp_path / "in.json", "trl-preference")
    assert count_judgments(db) == 0


# What is dropped ------------------------------------------------------------------------------------------


def test_what_an_import_does_not_keep_is_counted(db: Database, tmp_path: Path) -> None:
    line = {
        "input": {"messages": asked("p"), "tools": [{"type": "function"}], "parallel_tool_calls": True},
        "preferred_output": said("a"),
        "non_preferred_output": said("b"),
        "weight": 2,
        "empty": None,
    }
    counts = brought(db, tmp_path, "openai-preference", line)
    ignored = {name: number for name, number in counts.items() if name.startswith("ignored_")}
    assert ignored == {"ignored_parallel_tool_calls": 1, "ignored_tools": 1, "ignored_weight": 1}
    many = {"prompt": "q", "chosen": "a", "rejected": "b"} | {f"column {n}": n + 1 for n in range(60)}
    assert len(brought(db, tmp_path, "trl-preference", many)) < 40


CALLS: dict[str, Any] = {"tool_calls": [{"id": 1}], "reasoning_content": "hm", "name": "bot", "refusal": None}


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("trl-preference", {"prompt": asked("p"), "chosen": [said("a")[0] | CALLS], "rejected": said("b")}),
        ("trl-preference", {"chosen": [*asked("p"), said("a")[0] | CALLS], "rejected": [*asked("p"), *said("b")]}),
        (
            "openai-preference",
            {
                "input": {"messages": [asked("p")[0] | CALLS]},
                "preferred_output": [said("a")[0] | CALLS],
                "non_preferred_output": said("b"),
            },
        ),
        ("arena", battle() | {"conversation_a": [*asked("p"), said("of one")[0] | CALLS]}),
        (
            "helpsteer3",
            {"context": [asked("p")[0] | CALLS], "response1": "a", "response2": "b", "overall_preference": 1},
        ),
        (
            "label-studio",
            task({"result": [LEFT]}, data={"messages": [asked("p")[0] | CALLS], "answer1": "a", "answer2": "b"}),
        ),
    ],
)
def test_what_a_message_holds_beside_its_text_is_counted_once_per_line(
    format: str, line: dict[str, Any], db: Database, tmp_path: Path
) -> None:
    counts = brought(db, tmp_path, format, line, {**line, "id": 7})
    dropped = {name: number for name, number in counts.items() if "message" in name}
    assert dropped == {
        "ignored_message.name": 2,
        "ignored_message.reasoning_content": 2,
        "ignored_message.tool_calls": 2,
    }


def test_what_an_annotation_says_beside_its_results_is_counted(db: Database, tmp_path: Path) -> None:
    own = {"id": 3, "unique_id": "u", "project": 1, "task": 2, "updated_at": "2026-01-01", "was_cancelled": False}
    counts = brought(
        db,
        tmp_path,
        "label-studio",
        task({"result": [LEFT], "ground_truth": True, "lead_time": 12.5, **own}, meta={"batch": 1}),
        task({"result": [LEFT], "ground_truth": False, "lead_time": None, "completed_by": 2, **own}, meta={}),
    )
    ignored = {name: number for name, number in counts.items() if name.startswith("ignored_")}
    assert ignored == {"ignored_ground_truth": 1, "ignored_lead_time": 1, "ignored_meta": 1}


@pytest.mark.parametrize("prompt", ["p", "q", "r", "s"])  # stored order follows a hash: some are swapped
def test_helpsteer_keeps_what_annotators_wrote(prompt: str, db: Database, tmp_path: Path) -> None:
    one = {"score": 2, "reasoning": "r", "feedback1": "f1", "feedback2": "f2"}
    line = {"context": asked(prompt), "response1": "a", "response2": "b", "overall_preference": 2, "domain": "code"}
    line |= {"language": "python", "individual_preference": [one]}
    assert not any(name.startswith("ignored_") for name in brought(db, tmp_path, "helpsteer3", line))
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    (row,) = (json.loads(line) for line in formats.stream_dataset(db, "d", "helpsteer3"))
    assert (row["domain"], row["language"]) == ("code", "python")
    (given,) = row["individual_preference"]
    assert {row["response1"]: given["feedback1"], row["response2"]: given["feedback2"]} == {"a": "f1", "b": "f2"}


def test_scores_against_the_choice_are_counted(db: Database, tmp_path: Path) -> None:
    line = {"chosen": asked("p") + said("a"), "rejected": asked("p") + said("b")}
    counts = brought(db, tmp_path, "ultrafeedback", line | {"score_chosen": 2.0, "score_rejected": 7.5})
    assert (counts["judgments"], counts["scores_contradict"]) == (1, 1)
    assert counts["ignored_score_chosen"] == counts["ignored_score_rejected"] == 1


def test_a_table_s_scores_are_whole_numbers_though_it_writes_a_point(db: Database, tmp_path: Path) -> None:
    line = {"context": "p", "response1": "a", "response2": "b", "individual_preference": [{"score": 2.0}]}
    assert brought(db, tmp_path, "helpsteer3", line)["judgments"] == 1
    assert [row.strength for row in list_judgments(db)] == [2]
    for score in (2.5, float("nan"), "2", True, -4):
        with pytest.raises(InvalidLine, match="score must be a whole number from -3 to 3, not"):
            brought(db, tmp_path, "helpsteer3", line | {"individual_preference": [{"score": score}]})


@pytest.mark.parametrize(
    ("format", "line", "reason"),
    [
        ("label-studio", task({"result": [None]}), "result must be a list of objects, not [None]"),
        ("label-studio", task(None), "annotations must be a list of objects, not [None]"),  # type: ignore[arg-type]
        ("label-studio", task({"result": [LEFT, result("rationale", "textarea", text=5)]}), "textarea must be a text"),
        ("label-studio", task({"result": 5}), "result must be a list of objects, not 5"),
        ("label-studio", task({"result": [result("preference", "pairwise", selected=["left"])]}), "not ['left']"),
        ("label-studio", {"data": [1]}, "data must be an object with prompt, answer1 and answer2, not [1]"),
        ("label-studio", {"data": None}, "data must be an object with prompt, answer1 and answer2, not None"),
        ("arena", battle() | {"winner": ["model_a"]}, "winner must be one of"),
        ("helpsteer3", {"context": "p", "response1": "a", "response2": "b", "individual_preference": [3]}, "objects"),
        ("openai-preference", {"input": 5, "preferred_output": "", "non_preferred_output": []}, "input is a number"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words(
    format: str, line: dict[str, Any], reason: str, db: Database, tmp_path: Path
) -> None:
    with pytest.raises(InvalidLine) as told:
        brought(db, tmp_path, format, line)
    assert reason in str(told.value)
    assert "NoneType" not in str(told.value) and "object is not" not in str(told.value)


def test_a_line_of_a_pipe_is_still_named_by_its_number(db: Database, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n\n" + json.dumps(PAIRS[0]) + "\n{}")
    with pytest.raises(InvalidLine, match="line 4: 'chosen' is missing"):
        formats.import_file(db, tmp_path / "in.jsonl", "trl-preference")
