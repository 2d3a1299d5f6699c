"""A byte-level BPE tokenizer as a GGUF file holds it: tokens, their types, merges, and llama.cpp's pre-tokenizer name.

llama.cpp does not read how a tokenizer splits text before its merges: it knows pre-tokenizers by name, each with
regular expressions of its own. So a tokenizer is written only where its pre-tokenizer is one of those below, and what
was written is put together again and compared (``rebuild``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback.errors import InvalidInput
from training.conversion.pre_tokenizers import PRE_TOKENIZERS

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types of GGUF
# Added tokens, digits, contractions, runs of spaces, several scripts: what pre-tokenizers differ in
PROBE_TEXT = (
    "It's 2026, isn't it?  \n\n\tSo 3.14159 + 1000000 = café naïve Ünï über 你好世界 привет 🙂🙂 ___x__ don't!!! "
    "camelCase HTTPRequest //\n/ "
)


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer; ``ids`` are special tokens by GGUF's names (bos, eos, eot, pad, unk)."""

    pre_tokenizer: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: dict[str, int]
    adds_bos: bool
    template: str


def read_vocabulary(tokenizer: Any, rows: int, *, end: int, begins_with_bos: bool) -> Vocabulary:
    """The vocabulary of a tokenizer for a model with so many embedding ``rows``; rows without a token are filled.

    Args:
        tokenizer: A fast tokenizer of ``transformers`` with a chat template.
        rows: Tokens that the model's embedding knows.
        end: The id of the token that ends a reply in the template.
        begins_with_bos: Whether the template begins with the bos token. Where the tokenizer also adds one by itself,
            the file says so: llama.cpp then takes care that there is one, and no second.

    Raises:
        InvalidInput: It is no byte-level BPE, or splits text in a way that llama.cpp has no name for.
    """
    described = describe(tokenizer)
    model = described["model"]
    pre_tokenizer = pre_tokenizer_of(described)
    added = {token["id"]: token for token in described["added_tokens"]}
    names: dict[int, str] = {number: token for token, number in model["vocab"].items()}
    names |= {number: token["content"] for number, token in added.items()}
    tokens = [names.get(number, f"[PAD{number}]") for number in range(rows)]
    types = [_type_of(number, names, added) for number in range(rows)]
    special = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
        "eot": end if end != tokenizer.eos_token_id else None,
    }
    return Vocabulary(
        pre_tokenizer=pre_tokenizer,
        tokens=tokens,
        types=types,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        ids={name: number for name, number in special.items() if number is not None and number < rows},
        adds_bos=begins_with_bos and adds_bos(tokenizer),
        template=str(tokenizer.get_chat_template()),
    )


def adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer puts its bos token before a text by itself, as Llama 3's does."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]


def describe(tokenizer: Any) -> dict[str, Any]:
    """A tokenizer as the JSON of ``tokenizers``; InvalidInput for one that is not made of it."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise _cannot("it is not a fast tokenizer")
    described: dict[str, Any] = json.loads(backend.to_str())
    return described


def pre_tokenizer_of(described: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer splits text; InvalidInput where it has none."""
    model = described["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or not model["merges"]:
        raise _cannot(f"its model is {model['type']} without byte-level merges, as SentencePiece makes it")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _cannot("its tokens carry marks within words")
    normalizer = described.get("normalizer")
    if normalizer is not None and normalizer["type"] != "NFC":
        raise _cannot(f"it normalizes text ({normalizer['type']})")
    before = described.get("pre_tokenizer") or {"type": "None"}
    parts = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    whole_first = bool(model.get("ignore_merges"))
    for name, (known, ignores_merges) in PRE_TOKENIZERS.items():
        if _alike(parts, known) and whole_first == ignores_merges:
            return name
    raise _cannot(f"llama.cpp has no name for its pre-tokenizer ({' + '.join(part['type'] for part in parts)})")


def rebuild(tokens: Sequence[str], types: Sequence[int], merges: Sequence[str], pre_tokenizer: str) -> Any:
    """A ``tokenizers.Tokenizer`` from what a GGUF file says, split as llama.cpp does under that name."""
    from tokenizers import AddedToken, Tokenizer, models

    parts, whole_first = PRE_TOKENIZERS[pre_tokenizer]
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=whole_first))
    described = json.loads(core.to_str())
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    core = Tokenizer.from_str(json.dumps(described))
    for kind, is_special in ((CONTROL, True), (USER_DEFINED, False)):
        named = [token for token, one in zip(tokens, types, strict=True) if one == kind]
        core.add_tokens([AddedToken(token, special=is_special, normalized=False) for token in named])
    return core


def _type_of(number: int, names: Mapping[int, str], added: Mapping[int, Mapping[str, Any]]) -> int:
    if number not in names:
        return UNUSED
    if number not in added:
        return NORMAL
    return CONTROL if added[number]["special"] else USER_DEFINED


def _alike(parts: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two pre-tokenizers are the same; ``trim_offsets`` moves no boundary."""
    stripped = [[{k: v for k, v in part.items() if k != "trim_offsets"} for part in each] for each in (parts, known)]
    return stripped[0] == stripped[1]


def _cannot(why: str) -> InvalidInput:
    return InvalidInput(
        f"This model's tokenizer cannot be written as GGUF: {why}. What can be written is byte-level BPE with the "
        f"pre-tokenizer of {', '.join(PRE_TOKENIZERS)}. `--as merged` exports the model, which llama.cpp's own "
        "convert_hf_to_gguf.py may know how to convert."
    )
