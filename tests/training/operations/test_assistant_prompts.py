"""The prompts for a general assistant: their format, their mix, and that no wording repeats itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FILES = Path(__file__).parents[3] / "assets" / "prompts" / "assistant"
COUNTS = {"work": 400, "evaluation": 200}
SHARES = {
    "question": 0.14,
    "advice": 0.14,
    "writing": 0.15,
    "explain": 0.12,
    "rewrite": 0.12,
    "summarize": 0.11,
    "list": 0.10,
    "refuse": 0.05,
    "chat": 0.07,
}
LONGEST = 1200  # characters in all of a prompt's messages

Prompt = dict[str, Any]


def load(split: str) -> list[Prompt]:
    lines = (FILES / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def messages_of(prompt: Prompt, role: str) -> list[str]:
    return [message["content"] for message in prompt["messages"] if message["role"] == role]


def opening(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower())[:4])


def normalized(prompt: Prompt) -> str:
    """What the user asks, without case, spacing and punctuation."""
    return " ".join(re.findall(r"[\w']+", " ".join(messages_of(prompt, "user")).lower()))


@pytest.mark.parametrize("split", COUNTS)
def test_each_line_is_a_prompt_that_ends_with_the_user(split: str) -> None:
    prompts = load(split)
    assert len(prompts) == COUNTS[split]
    for prompt in prompts:
        assert list(prompt) == ["messages", "split", "tags"] and prompt["split"] == split
        assert all(list(message) == ["role", "content"] for message in prompt["messages"])
        assert all(text and text == text.strip() for text in (message["content"] for message in prompt["messages"]))
        roles = [message["role"] for message in prompt["messages"]]
        if roles[0] == "system":
            roles.pop(0)
        turns = roles.count("user")
        assert 1 <= turns <= 3
        assert roles == ["user", "assistant"] * (turns - 1) + ["user"]
        assert sum(len(message["content"]) for message in prompt["messages"]) <= LONGEST


@pytest.mark.parametrize("split", COUNTS)
def test_kinds_turns_and_system_messages_keep_their_shares(split: str) -> None:
    prompts = load(split)
    assert all(len(prompt["tags"]) == 2 and prompt["tags"][0] == "assistant" for prompt in prompts)
    kinds = Counter(prompt["tags"][1] for prompt in prompts)
    assert set(kinds) == set(SHARES)
    for kind, share in SHARES.items():
        assert kinds[kind] / len(prompts) == pytest.approx(share, abs=0.02), kind
    turns = Counter(len(messages_of(prompt, "user")) for prompt in prompts)
    for count, share in {1: 0.75, 2: 0.18, 3: 0.07}.items():
        assert turns[count] / len(prompts) == pytest.approx(share, abs=0.03), count
    assert 0.08 <= sum(bool(messages_of(prompt, "system")) for prompt in prompts) / len(prompts) <= 0.12


def test_no_prompt_and_no_system_message_appears_twice() -> None:
    prompts = load("work") + load("evaluation")
    asked = Counter(normalized(prompt) for prompt in prompts)
    assert [text for text, count in asked.items() if count > 1] == []
    systems = Counter(text for prompt in prompts for text in messages_of(prompt, "system"))
    assert [text for text, count in systems.items() if count > 1] == []


def test_evaluation_shares_no_first_request_with_work() -> None:
    work, evaluation = ({messages_of(prompt, "user")[0] for prompt in load(split)} for split in COUNTS)
    assert work.isdisjoint(evaluation)


def test_few_prompts_open_with_the_same_four_words() -> None:
    prompts = load("work") + load("evaluation")
    openings = Counter(opening(messages_of(prompt, "user")[0]) for prompt in prompts)
    assert {words: count for words, count in openings.items() if count > 6} == {}
