"""Stop strings: a reply ends before the first of them, however its text is cut into tokens.

They are looked for in the decoded text of the reply alone, at each token that is drawn. A string that the tokenizer
knows as one special token, which decoding leaves out, ends a reply as an end token does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.models.chat import decode_raw
from training.models.control_tokens import control_tokens

_MARGIN = 4  # tokens decoded before the place where a string may begin: some decoders drop a space in front


class StopStrings:
    """The strings before which a reply ends; ``end_ids`` are those of them that are special tokens."""

    def __init__(self, tokenizer: Any, strings: Sequence[str]) -> None:
        known = control_tokens(tokenizer).ids
        self.tokenizer = tokenizer
        self.end_ids = [known[text] for text in strings if text in known]
        self.strings = [text for text in strings if text not in known]
        self._window = max((len(text.encode()) for text in self.strings), default=0) + _MARGIN

    def __bool__(self) -> bool:
        return bool(self.strings)

    def found(self, tokens: Sequence[int]) -> bool:
        """Whether the text of a reply that grew by one token holds a stop string now."""
        # A token holds one byte at least, so that the string lies within so many of the last tokens
        return self._place(decode_raw(self.tokenizer, tokens[-self._window :])) >= 0

    def body(self, tokens: Sequence[int], *, past_space: bool = False) -> list[int]:
        """The tokens before the first stop string; one that spans its beginning belongs to the string.

        With ``past_space``, white space that the text begins with holds none.
        """
        text, kept = decode_raw(self.tokenizer, tokens), len(tokens)
        begin = len(text) - len(text.lstrip()) if past_space else 0
        place = begin + found if (found := self._place(text[begin:])) >= 0 else -1
        while place >= 0 and kept and len(decode_raw(self.tokenizer, tokens[:kept])) > place:
            kept -= 1
        return list(tokens[:kept])

    def is_in(self, text: str) -> bool:
        """Whether a text holds a stop string."""
        return self._place(text) >= 0

    def cut(self, text: str) -> str:
        """The text before the first stop string."""
        place = self._place(text)
        return text if place < 0 else text[:place]

    def _place(self, text: str) -> int:
        return place_of_stop(text, self.strings)


def place_of_stop(text: str, strings: Sequence[str]) -> int:
    """Where the first stop string begins in a text; -1 where it holds none."""
    return min((place for string in strings if (place := text.find(string)) >= 0), default=-1)


def named_ends(tokenizer: Any, ends: Sequence[int], strings: Sequence[str]) -> str:
    """What ends a reply, in words for a log."""
    tokens = ", ".join(repr(tokenizer.convert_ids_to_tokens(end)) for end in ends)
    return f"a reply ends with {tokens}{before_strings(strings)}"


def before_strings(strings: Sequence[str]) -> str:
    """Stop strings as the end of a sentence; empty where there are none."""
    return f", or before {', '.join(map(repr, strings))}" if strings else ""
