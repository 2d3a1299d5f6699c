"""Templates are applied in one place, and a prompt that leaves no room is refused with the numbers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from feedback.errors import InvalidInput
from training.models import chat
from training.models.loading import load_base

ASK = [{"role": "user", "content": "hi"}]


def test_an_exchange_is_the_prompt_the_reply_and_the_end(tiny_base: Path) -> None:
    _, tokenizer = load_base(str(tiny_base), "cpu")
    exchange = chat.encode_exchange(tokenizer, ASK, "yo")
    assert tokenizer.decode(exchange.ids) == "<|user|>hi<|end|><|assistant|>yo<|end|>"
    assert exchange.prompt == chat.encode_prompt(tokenizer, ASK)


def test_an_unfinished_reply_has_no_end(tiny_base: Path) -> None:
    _, tokenizer = load_base(str(tiny_base), "cpu")
    cut = chat.encode_exchange(tokenizer, ASK, "yo", ended=False)
    assert cut.ids == chat.encode_exchange(tokenizer, ASK, "yo").ids[:-1]


def test_a_tokenizer_without_a_template_is_refused(tiny_base: Path) -> None:
    _, tokenizer = load_base(str(tiny_base), "cpu")
    tokenizer.chat_template = None
    with pytest.raises(InvalidInput, match="no chat template"):
        chat.encode_prompt(tokenizer, ASK)


def test_the_refusal_of_a_long_prompt_names_the_numbers() -> None:
    chat.check_fits(200, 56, 256)
    with pytest.raises(
        chat.PromptTooLong, match="200 tokens; with 57 for the reply that is 257.*window is 256"
    ) as caught:
        chat.check_fits(200, 57, 256)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_one_module_applies_templates() -> None:
    room = Path(chat.__file__).parent
    users = [
        path.name
        for path in room.rglob("*.py")
        if ".apply_chat_template(" in path.read_text() and "starter" not in path.parts
    ]
    assert users == ["chat_template.py"]
