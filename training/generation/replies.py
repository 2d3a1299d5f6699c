"""What drawn tokens say: the reply, and the reasoning that a model writes before it.

Models that reason, such as Qwen3 and the DeepSeek-R1 distills, write ``<think>…</think>`` and then their reply; some
templates open the thought in the generation prompt. The two are kept apart. Whether a model reasons, its tokenizer and
template tell: in the replies of any other model the same spelling is text like all text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.generation.decoding import Decoded
from training.generation.stop_strings import StopStrings
from training.models.chat import decode_raw, readable
from training.models.chat_template import THOUGHT_TAGS, Unencodable, opened_thought, render


@dataclass(frozen=True)
class Parts:
    """A text taken apart: the reasoning, and the answer behind it.

    ``is_open``: the reasoning has no end; ``is_closed``: it has one, though it may be empty.
    """

    reasoning: str
    answer: str
    is_open: bool = False
    is_closed: bool = False

    @property
    def said(self) -> str:
        """The answer, without the empty line that divides it from a thought: it is no stop string."""
        return self.answer.lstrip() if self.is_closed else self.answer


@dataclass(frozen=True)
class Said:
    """What was drawn: ``text`` is the reply alone, ``tokens`` counts it. ``unfinished``: the reasoning has no end."""

    text: str
    tokens: int
    reasoning: str = ""
    unfinished: bool = False


class ReplyReader:
    """Reads the replies of one model, which end before the ``stop`` strings."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stops = StopStrings(tokenizer, stop)
        self.tags = thought_tags(tokenizer)
        self.opened = _opened_by_template(tokenizer) if self.tags else None

    def found_stop(self, tokens: Sequence[int]) -> bool:
        """Whether a reply that grew by one token holds a stop string now; those in its reasoning do not count."""
        if not self.stops or not self.stops.found(tokens):
            return False
        return not self.tags or self.stops.is_in(self.split(decode_raw(self.tokenizer, tokens)).said)

    def split(self, text: str) -> Parts:
        """The reasoning and the answer of a reply's text, to the letter."""
        return split_thought(text, self.tags, self.opened)

    def read_so_far(self, tokens: Sequence[int]) -> Said:
        """What a reply says while it is drawn: without characters that its last tokens have only begun."""
        parts = self.split(decode_raw(self.tokenizer, tokens))
        answer = self.stops.cut(parts.said)
        return Said(_whole(answer), len(tokens), _whole(parts.reasoning), parts.is_open)

    def read(self, drawn: Decoded) -> Said:
        """The reply that was drawn, without its end token or stop string."""
        body = drawn.tokens[:-1] if drawn.ended and not drawn.stopped else drawn.tokens
        parts = self.split(decode_raw(self.tokenizer, body))
        after = self._answer_tokens(body) if parts.is_open or parts.is_closed else body
        kept = self.stops.body(after, past_space=parts.is_closed) if drawn.stopped else after
        answer = self.stops.cut(parts.said) if drawn.stopped else parts.answer
        return Said(readable(answer).strip(), len(kept), readable(parts.reasoning).strip(), parts.is_open)

    def _answer_tokens(self, body: Sequence[int]) -> Sequence[int]:
        """The tokens behind the one that closes the reasoning; none where it is open."""
        low, high = 0, len(body) + 1  # the first count of tokens whose text holds a closed thought, by bisection
        while high - low > 1:
            middle = (low + high) // 2
            if self.split(decode_raw(self.tokenizer, body[:middle])).is_closed:
                high = middle
            else:
                low = middle
        return body[high:]


def _whole(text: str) -> str:
    """A text as people read it, without the sign of a character whose bytes are not all there yet."""
    return readable(text.rstrip("\ufffd")).strip()


def thought_tags(tokenizer: Any) -> tuple[str, ...]:
    """The names of the thoughts that a model writes: their ends are tokens of its own, or its template knows them."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    template = str(tokenizer.chat_template)
    return tuple(tag for tag in THOUGHT_TAGS if f"</{tag}>" in added or f"</{tag}>" in template)


def split_thought(text: str, tags: Sequence[str], opened: str | None = None) -> Parts:
    """A text taken apart at the end of the thought that it begins with; ``opened`` is one that the prompt began.

    A text that begins with no thought is all answer, whatever tags it holds further on.
    """
    begun = re.match(rf"\s*<({'|'.join(map(re.escape, tags))})>", text) if tags else None
    tag = begun.group(1) if begun else opened
    if tag is None:
        return Parts("", text)
    inside, closed, answer = text[begun.end() if begun else 0 :].partition(f"</{tag}>")
    return Parts(inside, answer, is_open=not closed, is_closed=bool(closed))


def _opened_by_template(tokenizer: Any) -> str | None:
    """The thought that the template opens where it asks for a reply."""
    try:
        prompt = render(tokenizer, [{"role": "user", "content": "Hello."}], generation_prompt=True)
    except Unencodable:
        return None
    return opened_thought(prompt)
