from __future__ import annotations

import json
from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, InvalidLine
from feedback.formats.base.prompts import read_prompts
from feedback.store.content import prompts
from feedback.store.labeling import matchups
from feedback.types import ASKED_HERE, Prompt, Split


def test_conversations_and_plain_prompts_are_read(tmp_path: Path, db: Database) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '\ufeff{"messages": [{"role": "user", "content": "Hallo"}], "split": "evaluation", "tags": ["a"]}\n'
        '\n{"prompt": "Tell me more"}\n{"prompt": [{"role": "user", "content": "Hallo"}]}\n',
        encoding="utf-8",
    )
    read = read_prompts(path)
    assert [prompt.split for prompt in read] == [Split.evaluation, Split.work, Split.work]
    saved = prompts.save_prompts(db, read)
    assert (saved.added, saved.duplicates, saved.ids[0]) == (2, 1, saved.ids[2])
    assert [row.messages[0]["content"] for row in prompts.list_prompts(db, split=Split.evaluation)] == ["Hallo"]
    assert [row.tags for row in prompts.list_prompts(db, tags=["a"])] == [["a"]]
    assert prompts.count_prompts(db, split=Split.work) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": []}', "at least one message"),
        (b'{"text": "hi"}', "neither 'messages' nor 'prompt'"),
        (b'{"prompt": 3}', "messages"),
        (b'{"prompt": "x", "split": "holdout"}', "split: Input should be 'work' or 'evaluation'"),
        (b'{"prompt": "x"', "not JSON"),
        (b'"x"', "a JSON object is needed, not a str"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n\n' + line + b"\n")
    with pytest.raises(InvalidLine, match=f"p.jsonl, line 3: .*{reason}") as caught:
        read_prompts(path)
    assert caught.value.line == 3


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n\n")
    with pytest.raises(InvalidInput, match="holds no prompts"):
        read_prompts(tmp_path / "p.jsonl")


def test_prompts_that_were_only_asked_here_are_no_work_until_somebody_brings_them(
    db: Database, postgresql: Database
) -> None:
    asked = Prompt(messages=[{"role": "user", "content": "ping"}], tags=[ASKED_HERE])
    for database in (db, postgresql):
        prompts.save_prompts(database, [asked])
        assert matchups.list_prompts_without_open_matchup(database, limit=9) == []
        prompts.save_prompts(database, [asked.model_copy(update={"tags": []})])
        prompts.save_prompts(database, [asked])
        assert [row.tags for row in matchups.list_prompts_without_open_matchup(database, limit=9)] == [[]]


def test_a_wrong_message_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"messages": [{"role": "user", "content": 3}]}\n')
    with pytest.raises(InvalidLine, match="line 1: messages.0.content: "):
        read_prompts(tmp_path / "p.jsonl")


def lines_of(directory: Path, *objects: dict[str, object]) -> Path:
    path = directory / "prompts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return path


def test_a_content_in_parts_is_their_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Read "}, {"type": "text", "text": "this."}]
    path = lines_of(tmp_path, {"messages": [{"role": "user", "content": parts}]})
    assert read_prompts(path)[0].messages == [{"role": "user", "content": "Read this."}]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "tool", "content": "42"}, "the role 'tool' is not known; roles are system, user, assistant"),
        ({"role": "developer", "content": "x"}, "the role 'developer' is not known"),
        ({"role": "user", "content": [{"type": "image", "url": "a.png"}]}, r"parts that are no text \(image\)"),
        ({"role": "user", "content": [{"type": "text"}]}, r"parts that are no text \(text\)"),
        ({"role": "user", "content": []}, "Input should be a valid string"),
    ],
)
def test_other_roles_and_other_parts_are_refused_with_the_line(
    message: dict[str, object], says: str, tmp_path: Path
) -> None:
    path = lines_of(tmp_path, {"prompt": "fine"}, {"messages": [message, {"role": "user", "content": "Go on."}]})
    with pytest.raises(InvalidLine, match=rf"line 2: messages\.0\.(role|content): .*{says}"):
        read_prompts(path)
