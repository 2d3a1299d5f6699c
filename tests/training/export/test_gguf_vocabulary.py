"""A tokenizer in a GGUF file: recognized by how it splits text, written whole, put together again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import InvalidInput
from tests.training.export.conftest import tokenizer_split_as
from tests.training.families import FAMILIES, tokenizer_of
from tests.training.tiny_models import byte_tokenizer
from training.export.gguf_vocabulary import (
    CONTROL,
    NORMAL,
    PRE_TOKENIZERS,
    PROBE_TEXT,
    UNUSED,
    USER_DEFINED,
    describe,
    pre_tokenizer_of,
    read_vocabulary,
    rebuild,
)

STARTER = Path(__file__).parents[3] / "assets" / "starter"


def read(tokenizer: Any, rows: int | None = None) -> Any:
    return read_vocabulary(tokenizer, rows or len(tokenizer), end=tokenizer.eos_token_id, begins_with_bos=False)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_each_pre_tokenizer_is_recognized_and_put_together_again(name: str) -> None:
    tokenizer = tokenizer_split_as(name)
    found = read(tokenizer)
    assert found.pre_tokenizer == name
    rebuilt = rebuild(found.tokens, found.types, found.merges, found.pre_tokenizer)
    text = f"<|im_start|>user\n{PROBE_TEXT}<|im_end|>"
    assert rebuilt.encode(text).ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_pre_tokenizers_that_differ_give_other_tokens() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    def pieces(name: str) -> list[str]:
        core = json.loads(Tokenizer(models.BPE()).to_str())
        core["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[name][0]}
        splitter: pre_tokenizers.PreTokenizer = Tokenizer.from_str(json.dumps(core)).pre_tokenizer
        return [piece for piece, _ in splitter.pre_tokenize_str(PROBE_TEXT)]

    different = {name: tuple(pieces(name)) for name in PRE_TOKENIZERS if name != "dbrx"}  # as Llama 3, merged otherwise
    assert len(set(different.values())) == len(different)
    assert pieces("dbrx") == pieces("llama-bpe")


def test_the_expressions_are_those_transformers_reads_files_with() -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    for name in ("llama-bpe", "qwen2", "tekken", "dbrx"):
        assert PRE_TOKENIZERS[name][0][0]["pattern"]["Regex"] == GGUF_PRE_TOKENIZER_SPLITS[name]


def test_the_starters_tokenizer_is_gpt_2s() -> None:
    from transformers import AutoTokenizer

    assert pre_tokenizer_of(describe(AutoTokenizer.from_pretrained(STARTER))) == "gpt-2"


def test_types_and_missing_tokens() -> None:
    tokenizer = tokenizer_split_as("qwen2", "qwen3")  # with <think>, an added token that is not special
    found = read(tokenizer, len(tokenizer) + 3)
    by_name = dict(zip(found.tokens, found.types, strict=True))
    assert by_name["<|im_start|>"] == CONTROL and by_name["<think>"] == USER_DEFINED and by_name["Ġthe"] == NORMAL
    assert found.types[-3:] == [UNUSED] * 3 and found.tokens[-1] == f"[PAD{len(tokenizer) + 2}]"
    assert found.ids["eos"] == tokenizer.eos_token_id and "eot" not in found.ids
    other = read_vocabulary(tokenizer, len(tokenizer), end=7, begins_with_bos=True)
    assert other.ids["eot"] == 7 and not other.adds_bos


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, r"llama.cpp has no name for its pre-tokenizer \(Whitespace\)"),
        ({"normalizer": {"type": "Lowercase"}}, r"it normalizes text \(Lowercase\)"),
        ({"model": {"byte_fallback": True}}, "as SentencePiece makes it"),
        ({"model": {"ignore_merges": True}}, "has no name"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "marks within words"),
    ],
)
def test_other_tokenizers_are_refused_in_words(change: dict[str, Any], why: str) -> None:
    described = describe(tokenizer_split_as("qwen2"))
    for key, value in change.items():
        described[key] = {**described[key], **value} if key == "model" else value
    with pytest.raises(InvalidInput, match=why) as refused:
        pre_tokenizer_of(described)
    assert "gpt-2, smollm, qwen2" in str(refused.value) and "--as merged" in str(refused.value)


def test_a_sentencepiece_tokenizer_and_one_without_merges_are_refused() -> None:
    for tokenizer in (tokenizer_of(FAMILIES["gemma"]), byte_tokenizer()):
        with pytest.raises(InvalidInput, match="cannot be written as GGUF"):
            read(tokenizer)
