"""Encode a rendered conversation such that nothing a person or a model wrote becomes a control token.

A tokenizer reads ``<|im_end|>`` as the end of a turn wherever it stands. In a message it is text: it is encoded as
such, character by character if need be, while the same spelling written by the template stays the token.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from training.models.chat_template import (
    THOUGHT_TAGS,
    ControlTokenInText,
    Messages,
    Unencodable,
    any_of,
    render,
)

_THOUGHT = re.compile(rf"</?({'|'.join(THOUGHT_TAGS)})>")
_MARKS = [chr(code) for code in range(0xE200, 0xE240)]  # private-use characters
_QUOTES = [chr(code) for code in range(0xE300, 0xE308)]  # around the stand-ins; each that is used costs a twin
_PROBES = (
    [{"role": "user", "content": "."}],
    [{"role": "system", "content": "."}, {"role": "user", "content": "."}, {"role": "assistant", "content": "."}],
)
_found: WeakKeyDictionary[Any, ControlTokens] = WeakKeyDictionary()


@dataclass(frozen=True)
class Disguised:
    """Messages whose control-token spellings hold a ``mark``, which ``encode`` removes; None where none is spelled."""

    messages: Messages
    mark: str | None = None


@dataclass
class ControlTokens:
    """The control tokens of one tokenizer, and its twins, which read their spellings as text, by quote."""

    template: Any
    ids: dict[str, int]
    thoughts: frozenset[str]
    special: frozenset[int]
    normalized: bool = False  # whether a text that spells none may be normalized into one
    twins: dict[str, tuple[Any, dict[str, str]]] = field(default_factory=dict)

    def count_written(self, text: str, unknown: int | None) -> int:
        """How many control tokens a rendered text spells; ``unknown`` is the id that any text may become."""
        return sum(self.ids[found.group()] != unknown for found in self._of_people.finditer(text))

    def spelled(self, text: str, *, by_model: bool) -> re.Match[str] | None:
        """The first control token spelled in a text; the model itself may open and close a thought."""
        return self._pattern(by_model).search(text)

    def disguise(self, text: str, mark: str, *, by_model: bool) -> str:
        """The text with a mark inside every control token it spells."""
        return self._pattern(by_model).sub(lambda found: found.group()[0] + mark + found.group()[1:], text)

    def _pattern(self, by_model: bool) -> re.Pattern[str]:
        return self._of_models if by_model else self._of_people

    @cached_property
    def _of_people(self) -> re.Pattern[str]:
        return any_of(self.ids)

    @cached_property
    def _of_models(self) -> re.Pattern[str]:
        return any_of(name for name in self.ids if name not in self.thoughts)


def disguise(tokenizer: Any, messages: Messages) -> Disguised:
    """The messages, with a mark wherever one spells a control token."""
    control = control_tokens(tokenizer)
    if not any(control.spelled(m["content"], by_model=m["role"] == "assistant") for m in messages):
        return Disguised(messages)
    mark = next((mark for mark in _MARKS if not any(mark in m["content"] for m in messages)), None)
    if mark is None:
        raise ControlTokenInText("This conversation uses every private-use character that could mark its text.")
    hidden = [
        {"role": m["role"], "content": control.disguise(m["content"], mark, by_model=m["role"] == "assistant")}
        for m in messages
    ]
    return Disguised(hidden, mark)


def encode(tokenizer: Any, text: str, mark: str | None = None) -> list[int]:
    """The ids of a rendered text; spellings that hold the ``mark`` become text, all others control tokens.

    What a tokenizer normalizes into such a spelling (full-width letters, capitals) is text as well.
    Raises ControlTokenInText where this tokenizer cannot tell the two apart.
    """
    control = control_tokens(tokenizer)
    if mark is None or mark not in text:  # the template already wrote every special token: no second one is added
        read = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        written = control.count_written(text, tokenizer.unk_token_id) if control.normalized else len(read)
        if _count_read(tokenizer, control, read) <= written:
            return read
        mark = ""
    quote = next((quote for quote in _QUOTES if quote not in text), None)
    if quote is None:
        raise ControlTokenInText("This conversation uses every private-use character that could stand for a token.")
    twin, places = _twin(tokenizer, control, quote)
    spelled, count = any_of(control.ids).subn(lambda found: places[found.group()], text)
    ids = twin.encode(spelled.replace(mark, ""), add_special_tokens=False)
    back = {twin.token_to_id(place): control.ids[name] for name, place in places.items()}
    # A twin that reads a stand-in as text would teach its characters.
    if _count_read(tokenizer, control, ids.ids) or count != sum(token in back for token in ids.ids):
        raise _unreadable(text.replace(mark, ""), control)
    return [back.get(token, token) for token in ids.ids]


def special_thoughts(tokenizer: Any) -> frozenset[int]:
    """The special tokens among those that open and close a thought, which decoding would leave out with the others."""
    control = control_tokens(tokenizer)
    return frozenset(control.ids[name] for name in control.thoughts) & control.special


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that decoding leaves out as no text."""
    return control_tokens(tokenizer).special


def _count_read(tokenizer: Any, control: ControlTokens, ids: list[int]) -> int:
    ends = set(control.ids.values()) - {tokenizer.unk_token_id}
    return sum(token in ends for token in ids)


def control_tokens(tokenizer: Any) -> ControlTokens:
    """The special tokens of a tokenizer, and the added ones that its template writes between messages."""
    found = _found.get(tokenizer)
    if (
        found is None
        or found.template != tokenizer.chat_template
        or not set(tokenizer.all_special_tokens) <= set(found.ids)
    ):
        found = _found[tokenizer] = _read(tokenizer)
    return found


def _read(tokenizer: Any) -> ControlTokens:
    tokens = tokenizer.added_tokens_decoder
    added = {token.content: (number, token.special) for number, token in tokens.items()}
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    thoughts = frozenset(name for name in added if _THOUGHT.fullmatch(name))
    written = "".join(_rendered(tokenizer))
    ids = special | {
        name: number
        for name, (number, is_special) in added.items()
        if is_special or name in thoughts or (name.strip() and not name.isalnum() and name in written)
    }
    ids = {name: number for name, number in ids.items() if name}
    changes = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None) is not None
    normalized = changes and any(token.normalized for token in tokens.values())
    dropped = frozenset(special.values()) | {number for number, token in tokens.items() if token.special}
    return ControlTokens(tokenizer.chat_template, ids, thoughts, dropped, normalized)


def _rendered(tokenizer: Any) -> list[str]:
    """What the template writes around short messages, so far as it takes them."""
    texts = []
    for messages in _PROBES:
        for opens in (True, False):
            try:
                texts.append(render(tokenizer, messages, generation_prompt=opens))
            except Unencodable:
                continue
    return texts


def _twin(tokenizer: Any, control: ControlTokens, quote: str) -> tuple[Any, dict[str, str]]:
    """A copy of the tokenizer that reads control tokens as text, and the stand-in of each that it still reads as one.

    The stand-ins are added tokens with the flags of the originals, so that all text is cut and normalized as before.
    ``quote`` encloses each; it must not occur in the text, which could spell a stand-in otherwise.
    """
    if quote in control.twins:
        return control.twins[quote]
    from tokenizers import AddedToken, Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ControlTokenInText(
            "A message spells a control token, and this model's tokenizer can only read it as that token."
        )
    described = json.loads(backend.to_str())
    flags = {token["content"]: token for token in described["added_tokens"]}
    for token in described["added_tokens"]:
        token["special"] = token["special"] or token["content"] in control.ids
    twin = Tokenizer.from_str(json.dumps(described))
    twin.no_truncation()
    twin.no_padding()
    twin.encode_special_tokens = True
    places = {name: f"{quote}{number}{quote}" for number, name in enumerate(control.ids)}
    kept = ("lstrip", "rstrip", "single_word", "normalized")
    twin.add_tokens(
        [
            AddedToken(place, special=False, **{flag: flags.get(name, {}).get(flag, False) for flag in kept})
            for name, place in places.items()
        ]
    )
    control.twins[quote] = twin, places
    return twin, places


def _unreadable(text: str, control: ControlTokens) -> ControlTokenInText:
    found = control.spelled(text, by_model=False)
    return ControlTokenInText(
        f"A message spells the control token {found.group() if found else ''!r}, and this model's tokenizer can only "
        "read it as that token. Write it otherwise."
    )
