"""How llama.cpp splits text before a tokenizer's merges: pre-tokenizers by their names in GGUF files."""

from __future__ import annotations

import json
from typing import Any

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_WORDS}\p{{N}}{{1,3}}{_REST}"
QWEN2 = rf"{_WORDS}\p{{N}}{_REST}"
_LETTERS = r"\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_LETTERS}*[\p{{Ll}}{_LETTERS}+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_LETTERS}+[\p{{Ll}}{_LETTERS}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = {"type": "Digits", "individual_digits": True}
_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES = {**_GPT2, "use_regex": False}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


# llama.cpp's name → how it splits, in the words of `tokenizers`, and whether whole tokens come before merges
PRE_TOKENIZERS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "gpt-2": ([_GPT2], False),
    "smollm": ([_DIGITS, _GPT2], False),
    "qwen2": ([_split(QWEN2), _BYTES], False),
    "llama-bpe": ([_split(LLAMA3), _BYTES], True),
    "dbrx": ([_split(LLAMA3), _BYTES], False),  # Llama 3's expressions, merges alone
    "tekken": ([_split(TEKKEN), _BYTES], True),
}

_OTHER_NAMES = {
    "qwen2": ("deepseek-r1-qwen", "kormo"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"),
}


def known_name(name: str) -> str | None:
    """The name in ``PRE_TOKENIZERS`` for how llama.cpp splits under a name; None where it is not known."""
    if name in PRE_TOKENIZERS:
        return name
    return next((own for own, others in _OTHER_NAMES.items() if name in others), None)


def split_as(tokenizer: Any, name: str) -> None:
    """Let a byte-level BPE tokenizer split text as llama.cpp does under a name; transformers does not read it."""
    from tokenizers import Tokenizer

    parts, whole_first = PRE_TOKENIZERS[name]
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    described["model"]["ignore_merges"] = whole_first
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(described))
