"""Pairs as token ids: where replies end, and what is left out where one of them was cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from feedback.types import Message, PreferencePair
from training.data.encoding import Encoder
from training.data.pairs import TokenPair, encode_pairs
from training.generation.sampling import end_token


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


def pair(*, chosen_cut: bool = False, rejected_cut: bool = False) -> PreferencePair:
    return PreferencePair(
        prompt_id="prm-1",
        matchup_id="mat-1",
        messages=(Message(role="user", content="Say hello."),),  # type: ignore[arg-type]
        chosen="Hello to you and to everybody",
        rejected="Hello.",
        chosen_generation="gen-1",
        rejected_generation="gen-2",
        judgment_ids=("jud-1",),
        chosen_cut=chosen_cut,
        rejected_cut=rejected_cut,
    )


def ends(tokenizer: Any, row: TokenPair) -> tuple[bool, bool]:
    return tuple(end_token(tokenizer) in row[side] for side in ("chosen_ids", "rejected_ids"))  # type: ignore[literal-required,return-value]


@pytest.mark.parametrize(
    ("cut", "as_drawn", "level"),
    [
        ({}, (True, True), (True, True)),
        ({"chosen_cut": True}, (False, True), (False, False)),
        ({"rejected_cut": True}, (True, False), (False, False)),
        ({"chosen_cut": True, "rejected_cut": True}, (False, False), (False, False)),
    ],
)
def test_no_end_is_taught_by_a_pair_in_which_one_reply_was_cut(
    tokenizer: Any, cut: dict[str, bool], as_drawn: tuple[bool, bool], level: tuple[bool, bool]
) -> None:
    (row,) = encode_pairs(Encoder(tokenizer, 256), [pair(**cut)])
    assert ends(tokenizer, row) == as_drawn
    (leveled,) = encode_pairs(Encoder(tokenizer, 256), [pair(**cut)], level_ends=True)
    assert ends(tokenizer, leveled) == level
    for side in ("chosen_ids", "rejected_ids"):  # nothing but ends is left out
        assert row[side][: len(leveled[side])] == leveled[side]  # type: ignore[literal-required]
