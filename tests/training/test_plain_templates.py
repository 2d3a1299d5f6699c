"""Each named chat template holds conversations to the token, for every kind of tokenizer it is meant for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.families import Family, tokenizer_of
from training.models.chat import encode_exchange, encode_prompt, examine_template, prompt_text
from training.models.chat_template import TemplateRefused, has_system_role
from training.plain_templates import PLAIN_TEMPLATES

ASK = [{"role": "user", "content": "What now?"}]
LONG = [
    {"role": "system", "content": "Be brief."},
    *ASK,
    {"role": "assistant", "content": "Cook."},
    {"role": "user", "content": "And then?"},
]
RENDERED = {
    "plain": "<s>Be brief.\n\nUser: What now?\n\nAssistant: Cook.</s>\n\nUser: And then?\n\nAssistant: ",
    "alpaca": "<s>Be brief.\n\n### Instruction:\nWhat now?\n\n### Response:\nCook.</s>\n\n"
    "### Instruction:\nAnd then?\n\n### Response:\n",
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat now? [/INST] Cook. </s><s>[INST] And then? [/INST]",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nWhat now?</s>\n<|assistant|>\nCook.</s>\n<|user|>\nAnd then?</s>\n"
    "<|assistant|>\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat now?<|im_end|>\n"
    "<|im_start|>assistant\nCook.<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.fixture(params=["bytes", "metaspace"])
def pieces(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tokenizer_under(name: str, pieces: str) -> Any:
    family = Family("", "</s>", "</s>", ("<|im_start|>", "<|im_end|>"), "<s>", pieces)
    return tokenizer_of(family, PLAIN_TEMPLATES[name].source)


@pytest.mark.parametrize("name", PLAIN_TEMPLATES)
def test_a_conversation_is_written_as_the_name_promises(name: str, pieces: str) -> None:
    tokenizer = tokenizer_under(name, pieces)
    assert prompt_text(tokenizer, LONG) == RENDERED[name]
    examine_template(tokenizer)
    assert has_system_role(tokenizer)
    with pytest.raises(TemplateRefused, match="Unknown role tool"):
        prompt_text(tokenizer, [*ASK, {"role": "tool", "content": "x"}])


@pytest.mark.parametrize("name", PLAIN_TEMPLATES)
@pytest.mark.parametrize("messages", [ASK, LONG], ids=["one turn", "several"])
def test_replies_are_trained_on_as_they_are_asked_for_and_end(
    name: str, pieces: str, messages: list[dict[str, str]]
) -> None:
    tokenizer = tokenizer_under(name, pieces)
    exchange = encode_exchange(tokenizer, messages, "Read a book.")
    end = "<|im_end|>" if name == "chatml" else "</s>"
    assert exchange.as_rendered
    assert tokenizer.convert_ids_to_tokens(exchange.reply[-1]) == end
    asked = encode_prompt(tokenizer, messages)
    assert exchange.prompt == asked[: len(exchange.prompt)] and len(asked) - len(exchange.prompt) <= 1


def test_a_tokenizer_without_a_beginning_token_needs_none() -> None:
    tokenizer = tokenizer_of(Family("", "</s>", "</s>"), PLAIN_TEMPLATES["llama2"].source)
    assert prompt_text(tokenizer, ASK) == "[INST] What now? [/INST]"
