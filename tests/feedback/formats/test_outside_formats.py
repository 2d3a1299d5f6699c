"""Every outside format, from judgments made through leases to files and back; texts drawn by hypothesis."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback import formats
from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import InvalidLine
from feedback.formats import label_studio, spreadsheet
from feedback.labeling import assignment, judging
from feedback.store.content import generations, prompts
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.types import DatasetFilters, Generation, Matchup, MatchupKind, Prompt, Source, Verdict
from tests.factories import count_judgments, judge_by, list_judgments, longer, make_matchup, make_policy

PAIR_FORMATS = ("trl-conversational", "openai-preference", "hh", "ultrafeedback")
_numbers = itertools.count()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def add_matchup(db: Database, messages: list[dict[str, str]], texts: list[str], names: list[str] | None = None) -> str:
    """Replies to a conversation, put before people; a ranking when there are more than two."""
    known = {row.name: row.id for row in policies.list_policies(db)}
    prompt_id = prompts.save_prompts(db, [Prompt(messages=messages)]).ids[0]
    replies = [
        Generation(
            prompt_id=prompt_id, policy_id=known.get(name) or make_policy(db, name).id, text=text, seed=next(_numbers)
        )
        for text, name in zip(texts, names or [next(iter(known), "starter")] * len(texts), strict=True)
    ]
    rows = generations.save_generations(db, replies)
    kind = MatchupKind.pair if len(texts) == 2 else MatchupKind.rank
    value = Matchup(prompt_id=prompt_id, generation_ids=[row.id for row in rows], kind=kind, required=9)
    return matchups.save_matchups(db, [value])[0].id


def say(db: Database, annotator: str, **said: Any) -> None:
    task = assignment.lease_next(db, annotator, rng=random.Random(1))
    assert task
    chosen = said.pop("prefers", None)
    if chosen is not None:
        said["verdict"] = "left" if task.responses[0] == chosen else "right"
    if "order" in said:
        best = said.pop("order")
        said["ranking"] = [best[text] for text in task.responses]
    if "edit_of" in said:
        said["edited"] = {"index": task.responses.index(said.pop("edit_of")), "text": said.pop("into")}
    judging.submit(db, task.lease_id, annotator, **said)


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def mixed(db: Database) -> Database:
    """Four matchups: a preferred reply by two people, a tie, a both-bad, and a ranking of three with a tie in it."""
    make_policy(db, "one")
    make_policy(db, "two")
    add_matchup(db, asked("Say hello."), ["Hello!", "Go away."], ["one", "two"])
    say(db, "ann", prefers="Hello!", strength=3, rationale="=polite", edit_of="Hello!", into="Hello, friend!")
    say(db, "bob", prefers="Hello!")
    add_matchup(db, asked("Name a colour."), ["Red.", "Blue."], ["two", "one"])
    say(db, "ann", verdict="tie")
    add_matchup(db, asked("What is love?"), ["+1", "@home"], ["one", "two"])
    say(db, "ann", verdict="both_bad")
    add_matchup(db, asked("Count."), ["one two three", "one two", "uno due"], ["one", "one", "two"])
    say(db, "ann", order={"one two three": 1, "one two": 2, "uno due": 2})
    add_matchup(db, asked("Skip me."), ["a b", "c d"])
    say(db, "ann", skip_reason="not mine")
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    return db


def exported(db: Database, format: str, tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    report = formats.export_dataset(db, "d", format, tmp_path / f"{format}.jsonl")
    rows = read(report.path)
    assert report.rows == len(rows)
    return rows, report.dropped


def test_kto_labels_winners_losers_and_both_sides_of_a_both_bad(mixed: Database, tmp_path: Path) -> None:
    rows, dropped = exported(mixed, "trl-kto", tmp_path)
    labels = {row["completion"][0]["content"]: row["label"] for row in rows}
    assert labels == {
        "Hello!": True,
        "Hello, friend!": True,
        "Go away.": False,
        "+1": False,
        "@home": False,
        "one two three": True,
        "one two": False,
        "uno due": False,
    }
    assert all(list(row) == ["prompt", "completion", "label"] for row in rows)
    assert dropped == {"skip": 2, "tie": 2}  # replies, not judgments


def test_sft_takes_what_people_wrote_and_what_they_chose(mixed: Database, tmp_path: Path) -> None:
    rows, dropped = exported(mixed, "trl-sft", tmp_path)
    assert {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows} == {
        "Say hello.": "Hello, friend!",
        "Count.": "one two three",
    }
    assert all(list(row) == ["messages"] for row in rows)
    assert dropped == {"edited": 1, "rejected": 5, "skip": 2, "tie": 2}


def test_prompts_alone_come_out_and_back(mixed: Database, tmp_path: Path) -> None:
    rows, dropped = exported(mixed, "trl-prompt", tmp_path)
    assert sorted(row["prompt"][0]["content"] for row in rows) == [
        "Count.",
        "Name a colour.",
        "Say hello.",
        "Skip me.",
        "What is love?",
    ]
    assert dropped == {}
    other = open_database(tmp_path / "other.db")
    assert formats.import_file(other, tmp_path / "trl-prompt.jsonl", "trl-prompt") == {"prompts": 5, "already_there": 0}
    assert formats.import_file(other, tmp_path / "trl-prompt.jsonl", "trl-prompt")["already_there"] == 5


def test_openai_rows_hold_the_three_keys_and_nothing_else(mixed: Database, tmp_path: Path) -> None:
    rows, _ = exported(mixed, "openai-preference", tmp_path)
    assert rows[0].keys() == {"input", "preferred_output", "non_preferred_output"}
    hello = next(row for row in rows if row["input"]["messages"][0]["content"] == "Say hello.")
    assert hello == {
        "input": {"messages": asked("Say hello.")},
        "preferred_output": [{"role": "assistant", "content": "Hello!"}],
        "non_preferred_output": [{"role": "assistant", "content": "Go away."}],
    }


def test_hh_writes_transcripts_and_leaves_out_texts_that_hold_a_marker(mixed: Database, tmp_path: Path) -> None:
    add_matchup(mixed, asked("Play a scene."), ["A\n\nHuman: B", "No."])
    say(mixed, "eve", prefers="Hello!")  # the oldest pair first
    for _ in range(9):
        task = assignment.lease_next(mixed, "eve")
        if task:
            said = {"verdict": "left"} if task.kind is MatchupKind.pair else {"ranking": [1, 2, 3]}
            judging.submit(mixed, task.lease_id, "eve", **said)  # type: ignore[arg-type]
    freeze.freeze(mixed, "e", DatasetFilters(annotators=("eve",)))
    report = formats.export_dataset(mixed, "e", "hh", tmp_path / "hh.jsonl")
    assert report.dropped["turn_marker_in_text"] == 1
    rows = read(report.path)
    assert {
        "chosen": "\n\nHuman: Say hello.\n\nAssistant: Hello!",
        "rejected": "\n\nHuman: Say hello.\n\nAssistant: Go away.",
    } in rows


def test_ultrafeedback_scores_are_the_shares_of_votes(mixed: Database, tmp_path: Path) -> None:
    rows, _ = exported(mixed, "ultrafeedback", tmp_path)
    hello = next(row for row in rows if row["prompt"] == "Say hello.")
    columns = ["prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen", "score_rejected"]
    assert list(hello) == columns and (hello["score_chosen"], hello["score_rejected"]) == (1.0, 0.0)
    assert hello["messages"] == hello["chosen"] == [*asked("Say hello."), {"role": "assistant", "content": "Hello!"}]


def test_helpsteer3_keeps_every_vote_with_its_sign(mixed: Database, tmp_path: Path) -> None:
    rows, dropped = exported(mixed, "helpsteer3", tmp_path)
    hello = next(row for row in rows if row["context"] == asked("Say hello."))
    scores = [one["score"] for one in hello["individual_preference"]]
    assert (hello["response1"], hello["response2"], scores) == ("Hello!", "Go away.", [-3, -2])
    assert hello["overall_preference"] == -3  # the mean, -2.5, away from 0
    assert hello["individual_preference"][0]["reasoning"] == "=polite"
    ranked = {
        (r["response1"], r["response2"]): r["overall_preference"] for r in rows if r["context"] == asked("Count.")
    }
    assert ranked == {
        ("one two three", "one two"): -2,
        ("one two three", "uno due"): -2,
        ("one two", "uno due"): 0,
    }
    assert dropped == {"both_bad": 1, "skip": 1}


def test_arena_keeps_tie_and_both_bad_apart_and_names_no_judge(mixed: Database, tmp_path: Path) -> None:
    rows, dropped = exported(mixed, "arena", tmp_path)
    by_prompt = {row["conversation_a"][0]["content"]: row for row in rows}
    assert by_prompt["Name a colour."]["winner"] == "tie" and by_prompt["What is love?"]["winner"] == "tie (bothbad)"
    hello = by_prompt["Say hello."]
    winner = hello["conversation_a" if hello["winner"] == "model_a" else "conversation_b"]
    assert winner[-1]["content"] == "Hello!" and hello[hello["winner"]] == "one"
    assert {row["judge"] for row in rows} == {"judge_1", "judge_2"} and dropped == {"skip": 1}


def test_arena_shows_the_reply_that_stood_left_as_a(mixed: Database, tmp_path: Path) -> None:
    rows, _ = exported(mixed, "arena", tmp_path)
    shown = {row.id: row for row in list_judgments(mixed)}
    for row in rows:
        judgment = shown.get(row["question_id"])
        if judgment and judgment.verdict is Verdict.first:
            assert row["winner"] == ("model_a" if judgment.shown_order == [0, 1] else "model_b")


def test_what_leaves_in_an_outside_format_and_comes_home_adds_nothing(mixed: Database, tmp_path: Path) -> None:
    before = count_judgments(mixed)
    for format in ("arena", "label-studio"):
        exported(mixed, format, tmp_path)
        counts = formats.import_file(mixed, tmp_path / f"{format}.jsonl", format)
        known = counts["already_there"] + counts.get("identical", 0)
        assert (counts["judgments"], known) == ((0, 7) if format == "arena" else (1, 7))
    # Label Studio gives a cancelled annotation no result to carry an id: the skip alone comes back as a new one.
    assert count_judgments(mixed) == before + 1


def test_label_studio_files_are_lines_or_the_array_it_imports(mixed: Database, tmp_path: Path) -> None:
    rows, _ = exported(mixed, "label-studio", tmp_path)
    formats.export_dataset(mixed, "d", "label-studio", tmp_path / "tasks.json")
    assert json.loads((tmp_path / "tasks.json").read_text()) == rows
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    said = Counter(
        "skip" if annotation["was_cancelled"] else str(next(iter(annotation["result"][0]["value"].values())))
        for row in rows
        for annotation in row["annotations"]
    )
    assert said == {"left": 4, "['tie']": 2, "['both_bad']": 1, "skip": 1}
    counts = []
    for name in ("tasks.json", "label-studio.jsonl"):
        other = open_database(tmp_path / f"{name}.db")
        counts.append(formats.import_file(other, tmp_path / name, "label-studio"))
        verdicts = Counter(str(row.verdict) for row in list_judgments(other))
        assert verdicts["tie"] == 2 and verdicts["both_bad"] == 1 and verdicts["skip"] == 1
        assert verdicts["first"] + verdicts["second"] == 4
    assert counts[0] == counts[1] and counts[0]["judgments"] == 8
    assert list(label_studio.as_array([])) == ["[]\n"]


def test_csv_is_for_eyes_and_runs_nothing(mixed: Database, tmp_path: Path) -> None:
    report = formats.export_dataset(mixed, "d", "csv", tmp_path / "d.csv")
    with report.path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == report.rows == 8
    assert list(rows[0]) == list(spreadsheet.COLUMNS)
    love = next(row for row in rows if row["prompt"] == "What is love?")
    assert {love["left"], love["right"]} == {"'+1", "'@home"} and love["verdict"] == "both_bad"
    hello = next(row for row in rows if row["annotator"] == "ann" and row["prompt"] == "Say hello.")
    assert hello["rationale"] == "'=polite" and hello["edited"] == "Hello, friend!"
    assert hello[hello["verdict"]] == "Hello!"
    assert not any(value.startswith(tuple("=+-@\t\r")) for row in rows for value in row.values())


# Round trips ----------------------------------------------------------------------------------------------

# Any character a text may hold but lone surrogates, which UTF-8 cannot write, and NUL, which PostgreSQL cannot store.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
HARD = st.sampled_from(
    ["a\u2028b", "x\u2029y", "\x85 next", "🏳️‍🌈 e\u0301", "\r\nwin", "\x1f\x0b", "<|end|>", 'q"\\n', "‮rtl"]
)
WORDS = st.one_of(TEXT, HARD).filter(str.strip)


@st.composite
def pair_of_replies(draw: st.DrawFn) -> tuple[list[dict[str, str]], str, str]:
    contents = draw(st.lists(WORDS, min_size=1, max_size=3).filter(lambda texts: len(texts) % 2))
    roles = ("user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    if draw(st.booleans()):
        messages.insert(0, {"role": "system", "content": draw(WORDS)})
    chosen, rejected = draw(WORDS), draw(WORDS)
    return messages, chosen, rejected if rejected.split() != chosen.split() else f"{chosen} not"


def frozen_pairs(db: Database) -> Counter[tuple[str, str, str]]:
    freeze.freeze(db, "d", DatasetFilters(test_share=0.0))
    pairs = dataset_store.list_pairs(db, "d")
    return Counter((json.dumps([m.model_dump() for m in p.messages]), p.chosen, p.rejected) for p in pairs)


@pytest.mark.slow_except("hh")
@pytest.mark.parametrize("format", PAIR_FORMATS)
@given(drawn=st.lists(pair_of_replies(), min_size=1, max_size=5, unique_by=lambda one: json.dumps(one[0])))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pairs_survive_the_way_out_and_back(
    format: str, drawn: list[tuple[list[dict[str, str]], str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / str(next(_numbers))
    here, there = open_database(folder.with_suffix(".one")), open_database(folder.with_suffix(".two"))
    make_policy(here, "starter")
    for number, (messages, chosen, rejected) in enumerate(drawn):
        texts = [chosen, rejected] if number % 2 else [rejected, chosen]
        add_matchup(here, messages, texts)
        say(here, "ann", prefers=chosen)
    pairs = frozen_pairs(here)
    report = formats.export_dataset(here, "d", format, folder / "out.jsonl")
    assert len(report.path.read_text(encoding="utf-8").splitlines()) == report.rows  # a line is a line to everyone
    counts = formats.import_file(there, report.path, format)
    left_out = report.dropped.get("turn_marker_in_text", 0)
    assert counts["judgments"] == len(drawn) - left_out
    assert not left_out and frozen_pairs(there) == pairs
    assert formats.import_file(there, report.path, format)["judgments"] == 0
    assert {row.source for row in list_judgments(there)} == {Source.imported}
    here.dispose()
    there.dispose()


@given(cell=st.one_of(WORDS, st.sampled_from(["=1+1", " =cmd|' /C calc'!A0", "\t@x", "＝1", "-2", "\n+3"])))
@settings(max_examples=200, deadline=None)
def test_no_cell_begins_like_a_formula_and_every_cell_can_be_read(cell: str) -> None:
    row = dict.fromkeys(spreadsheet.COLUMNS, cell)
    text = "".join(spreadsheet.lines([row]))
    (read_back,) = csv.DictReader(io.StringIO(text, newline=""))
    for value in read_back.values():
        assert value in (cell, f"'{cell}") and not value.lstrip().startswith(tuple("=+-@＝＋－＠"))


# Reading what others wrote --------------------------------------------------------------------------------


def reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


TEXTS = {"prompt": "p", "chosen": "a", "rejected": "b"}
WHOLE = {"chosen": asked("p") + reply("a"), "rejected": asked("p") + reply("b")}
INPUT = {"input": {"messages": asked("p")}, "preferred_output": reply("a"), "non_preferred_output": reply("b")}
TRANSCRIPTS = {"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"}
RESPONSES = {"context": asked("p"), "response1": "a", "response2": "b", "overall_preference": 1}
BATTLE = {"model_a": "x", "model_b": "y", "winner": "model_a"}
BATTLE |= {"conversation_a": WHOLE["chosen"], "conversation_b": WHOLE["rejected"]}  # type: ignore[dict-item]
TASK = {
    "data": {"prompt": "p", "answer1": "a", "answer2": "b"},
    "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "left"}}]}],
}


@pytest.mark.parametrize(
    ("format", "good", "bad", "reason"),
    [
        ("trl-preference", TEXTS, {"prompt": "p"}, "'chosen' is missing"),
        ("trl-preference", TEXTS, TEXTS | {"prompt": 3}, "prompt must be"),
        ("trl-preference", TEXTS, TEXTS | {"prompt": reply("x")}, "the last message must be the user's"),
        ("trl-conversational", WHOLE, WHOLE | {"chosen": asked("p")}, "must end with a message of the assistant"),
        ("openai-preference", INPUT, {"input": []}, "not of this format"),
        ("hh", TRANSCRIPTS, {"chosen": "hello", "rejected": "b"}, "must end with a turn of the Assistant"),
        ("ultrafeedback", WHOLE, {"chosen": "a", "rejected": "b"}, "must hold the whole conversation"),
        ("helpsteer3", RESPONSES, RESPONSES | {"overall_preference": 9}, "from -3 to 3, not 9"),
        ("arena", BATTLE, BATTLE | {"winner": "me"}, "winner must be one of"),
        (
            "label-studio",
            TASK,
            TASK | {"annotations": [{"result": [{"type": "choices", "value": {"choices": ["maybe"]}}]}]},
            "must say one of",
        ),
    ],
)
def test_a_malformed_line_is_named_and_nothing_of_the_file_is_kept(
    format: str, good: dict[str, Any], bad: dict[str, Any], reason: str, db: Database, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, [good, good, bad])))
    with pytest.raises(InvalidLine, match=f"line 3: .*{reason}"):
        formats.import_file(db, tmp_path / "in.jsonl", format)
    assert count_judgments(db) == prompts.count_prompts(db) == 0 and policies.list_policies(db) == []
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, [good, good])))
    counts = formats.import_file(db, tmp_path / "in.jsonl", format)
    assert (counts["judgments"], counts["already_there"]) == (1, 1)


HALF = "a \ud800"
REPLY, MODEL = "a reply must be whole", "a model's name must be whole"
JUDGED = TASK["annotations"][0]["result"][0]  # type: ignore[index]


def task(**said: Any) -> dict[str, Any]:
    return TASK | {"annotations": [{"result": [JUDGED]} | said]}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("format", "line", "reason"),
    [
        ("trl-preference", TEXTS | {"chosen": HALF}, REPLY),
        ("trl-preference", TEXTS | {"prompt": HALF}, "content must be whole"),
        ("trl-conversational", WHOLE | {"rejected": asked("p") + reply(HALF)}, REPLY),
        ("openai-preference", INPUT | {"preferred_output": reply(HALF)}, REPLY),
        ("hh", TRANSCRIPTS | {"chosen": TRANSCRIPTS["chosen"] + HALF}, REPLY),
        ("ultrafeedback", WHOLE | {"chosen": asked("p") + reply(HALF)}, REPLY),
        ("helpsteer3", RESPONSES | {"response1": HALF}, REPLY),
        ("helpsteer3", RESPONSES | {"individual_preference": [{"score": 1, "reasoning": HALF}]}, "a rationale must be"),
        ("arena", BATTLE | {"conversation_a": asked("p") + reply(HALF)}, REPLY),
        ("arena", BATTLE | {"judge": HALF}, "a judge's name must be whole"),
        ("arena", BATTLE | {"question_id": HALF}, "an id must be whole"),
        ("arena", BATTLE | {"model_a": HALF}, MODEL),
        ("arena", BATTLE | {"model_a": "a\0"}, "a model's name must not hold a NUL"),
        ("label-studio", TASK | {"data": {"prompt": "p", "answer1": HALF, "answer2": "b"}}, REPLY),
        ("label-studio", task(result=[JUDGED | {"id": HALF}]), "an id must be whole"),  # type: ignore[operator]
        ("label-studio", task(created_at="0001-01-01T00:00:00+14:00"), "created_at must be a moment"),
    ],
)
def test_what_no_database_can_hold_refuses_the_file(
    format: str, line: dict[str, Any], reason: str, db: Database, tmp_path: Path
) -> None:
    """Hashing it, or looking it up, failed before anything had looked at it: a traceback, and no line."""
    (tmp_path / "in.jsonl").write_text(json.dumps(line))
    with pytest.raises(InvalidLine, match=f"line 1: .*{reason}"):
        formats.import_file(db, tmp_path / "in.jsonl", format)
    assert prompts.count_prompts(db) == 0 and policies.list_policies(db) == []


def test_a_number_of_thousands_of_digits_is_told_with_its_line(db: Database, tmp_path: Path) -> None:
    endless = '{"id": ' + "9" * 5000 + "}"
    (tmp_path / "in.jsonl").write_text(f"{json.dumps(TEXTS)}\n{endless}")
    with pytest.raises(InvalidLine, match="line 2: a number in it has more than the 4300 digits that can be read"):
        formats.import_file(db, tmp_path / "in.jsonl", "trl-preference")
    (tmp_path / "in.json").write_text(f"[{endless}]")
    with pytest.raises(InvalidLine, match="in.json, item 1: a number in it has more than"):
        formats.import_file(db, tmp_path / "in.json", "label-studio")


def test_lines_that_say_nothing_are_counted_and_passed_over(db: Database, tmp_path: Path) -> None:
    lines = [
        {"prompt": "p", "chosen": "same words", "rejected": "same words"},
        {"prompt": "p", "chosen": "a", "rejected": " "},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    counts = formats.import_file(db, tmp_path / "in.jsonl", "trl-preference")
    assert {key: counts[key] for key in ("judgments", "identical", "empty")} == {
        "judgments": 1,
        "identical": 1,
        "empty": 1,
    }


def test_the_same_pair_preferred_both_ways_is_a_disagreement(db: Database, tmp_path: Path) -> None:
    lines = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert formats.import_file(db, tmp_path / "in.jsonl", "trl-preference")["judgments"] == 3
    assert formats.import_file(db, tmp_path / "in.jsonl", "trl-preference")["already_there"] == 3
    dataset = freeze.freeze(db, "d")
    assert dataset.counts["pairs"] == 1 and dataset.dropped == {"conflict": 1}


def test_both_spellings_of_both_bad_are_understood(db: Database, tmp_path: Path) -> None:
    turns = {"conversation_a": [*asked("p"), {"role": "assistant", "content": "a"}]}
    turns["conversation_b"] = [*asked("p"), {"role": "assistant", "content": "b"}]
    lines = [
        {
            "model_a": "org/model v2",
            "model_b": "y",
            "winner": winner,
            "judge": str(number),
            "tstamp": 1e9 + number,
            **turns,
        }
        for number, winner in enumerate(["tie (bothbad)", "both_bad", "tie"])
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert formats.import_file(db, tmp_path / "in.jsonl", "arena")["judgments"] == 3
    assert Counter(row.verdict for row in list_judgments(db)) == {Verdict.both_bad: 2, Verdict.tie: 1}
    assert [row.name for row in policies.list_policies(db)] == ["org-model-v2", "y"]


# The split, and the real consumer -------------------------------------------------------------------------


def test_the_split_is_by_prompt_in_every_format(db: Database, tmp_path: Path) -> None:
    policy = make_policy(db, "starter")
    for number in range(30):
        make_matchup(db, policy=policy, texts=[f"short {number}", f"rather longer {number}"])
    judge_by(db, longer)
    freeze.freeze(db, "d", DatasetFilters(test_share=0.4))
    for format in formats.FORMATS:
        both, train, test = (list(formats.stream_dataset(db, "d", format, split)) for split in (None, "train", "test"))
        header = 1 if format == "csv" else 0
        assert len(train) + len(test) == len(both) + header and min(len(train), len(test)) > header, format
        if format not in ("csv", "label-studio"):  # its tasks are numbered from 1 in each file
            assert sorted(train + test) == sorted(both)


@pytest.mark.parametrize("format", ["trl-preference", "trl-conversational", "trl-kto", "trl-sft", "trl-prompt"])
def test_the_datasets_library_loads_it_and_trl_knows_its_kind(format: str, mixed: Database, tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    folder = tmp_path / format
    report = formats.export_dataset(mixed, "d", format, folder / "train.jsonl")
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(loaded) == report.rows > 0
    assert is_conversational(loaded[0]) is (format != "trl-preference")
    assert not any(row.get("chosen") == row.get("rejected") for row in loaded if "chosen" in row)
