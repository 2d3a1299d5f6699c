"""The control tokens of a GGUF file: whole tokens under their own numbers, whatever characters spell them."""

from __future__ import annotations

import json
from typing import Any

from training.conversion.gguf_header import GgufHeader

_CONTROL, _USER_DEFINED = 3, 4  # types of tokens in GGUF


def keep_added_tokens(tokenizer: Any, header: GgufHeader) -> None:
    """Let a byte-level BPE tokenizer read each control or user-defined token of the file as that one token.

    Transformers takes one whose characters no byte is written as, such as DeepSeek's ``<｜User｜>``, for a text of
    bytes: it would be cut into pieces, and an end token get a number that the embedding does not have.
    """
    from tokenizers import Tokenizer

    if header.pre_tokenizer is None:
        return
    tokens = header.metadata.get("tokenizer.ggml.tokens") or ()
    types = header.metadata.get("tokenizer.ggml.token_type") or ()
    added = {number: token for number, (token, kind) in enumerate(zip(tokens, types, strict=False))
             if kind in (_CONTROL, _USER_DEFINED)}  # fmt: skip
    wrong = {number for number, token in added.items() if tokenizer.convert_tokens_to_ids(token) != number}
    if not wrong:
        return
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    kept = {token: number for token, number in vocabulary.items() if number not in wrong}
    described["model"]["vocab"] = kept | {added[number]: number for number in sorted(wrong)}
    others = [one for one in described["added_tokens"] if one["content"] not in {added[number] for number in wrong}]
    own = [_added_token(number, added[number], types[number]) for number in wrong]
    described["added_tokens"] = sorted([*others, *own], key=lambda one: one["id"])
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(described))


def _added_token(number: int, token: str, kind: int) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, "special": kind == _CONTROL, **plain}
