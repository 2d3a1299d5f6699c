"""Reads a large body of prompts piece by piece, so that the interpreter is never held for long.

``json.loads`` and pydantic keep every other thread waiting until they are through, which is seconds for a body of
64 MiB. Here each prompt is cut out of the text, bounded in size and number of parts, and then parsed and validated
alone; between two prompts other threads run. The first mistake ends the reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from feedback.errors import InvalidInput
from studio.web.api.schemas import MAX_CONTENT, MAX_PROMPTS, PromptIn, PromptsIn

MAX_PARTS = 10_000
"""Strings, brackets and commas of one prompt: 200 messages have about 2,000."""

_MAX_DEPTH = 32
_MAX_STRING = 12 * MAX_CONTENT + 2  # a character beyond the basic plane is twelve when escaped
_SPACE = re.compile(r"[ \t\n\r]*+")
_PART = re.compile(r'["{}\[\],]')
_REST_OF_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def read_prompts(body: bytes) -> PromptsIn:
    """The prompts of a body ``{"prompts": [...]}``.

    Raises InvalidInput for what is no such JSON, RequestValidationError with one error for a prompt that is invalid.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("The body cannot be read: it is not UTF-8; encode it as UTF-8.") from error
    prompts: list[PromptIn] = []
    for index, piece in enumerate(_pieces(text)):
        if index == MAX_PROMPTS:
            raise InvalidInput(f"prompts: a request may carry {MAX_PROMPTS} prompts; send them in several parts.")
        prompts.append(_prompt(index, piece))
    if not prompts:
        raise InvalidInput("prompts: the list should have at least 1 prompt, not 0.")
    return PromptsIn.model_construct(prompts=prompts)


def _prompt(index: int, piece: str) -> PromptIn:
    try:
        return PromptIn.model_validate(json.loads(piece))
    except ValidationError as error:
        first: dict[str, Any] = {**error.errors(include_url=False)[0]}
        raise RequestValidationError([{**first, "loc": ("body", "prompts", index, *first["loc"])}]) from error
    except ValueError as error:
        raise InvalidInput(f"Prompt {index + 1} is not JSON: {error}. Nothing was added.") from error


def _pieces(text: str) -> Iterator[str]:
    """The source of each prompt."""
    at = _expect(text, 0, "{")
    at = _expect(text, at, '"')
    end = _string_end(text, at, 0)
    if text[at - 1 : end] != '"prompts"':
        raise InvalidInput(f"Extra inputs are not permitted: {text[at : end - 1][:80]!r}; valid: prompts.")
    at = _expect(text, _expect(text, end, ":"), "[")
    index = 0
    while _peek(text, at) != "]":
        if index:
            at = _expect(text, at, ",")
        start = _skip(text, at)
        if _peek(text, start) != "{":
            raise InvalidInput(f"prompts.{index}: a prompt is an object with messages (at character {start + 1}).")
        at = _object_end(text, start, index)
        yield text[start:at]
        index += 1
    at = _expect(text, _expect(text, at, "]"), "}")
    if _skip(text, at) != len(text):
        raise _not_json("nothing after the object", at)


def _object_end(text: str, at: int, index: int) -> int:
    """Where the object that starts at ``at`` ends."""
    depth = 0
    for _ in range(MAX_PARTS):
        found = _PART.search(text, at)
        if found is None:
            raise _not_json("the end of a prompt", len(text))
        at, sign = found.end(), found.group()
        if sign == '"':
            at = _string_end(text, at, index)
        elif sign in "{[":
            depth += 1
        elif sign in "}]":
            depth -= 1
        if depth == 0:
            return at
        if depth > _MAX_DEPTH:
            raise InvalidInput(f"Prompt {index + 1} is nested too deeply; send an object with fewer levels.")
    raise InvalidInput(f"Prompt {index + 1} has more than {MAX_PARTS} keys and values; a prompt has 200 messages.")


def _string_end(text: str, at: int, index: int) -> int:
    """Where the string whose first character stands at ``at`` ends."""
    found = _REST_OF_STRING.match(text, at, at + _MAX_STRING)
    if found is None:
        raise InvalidInput(
            f"Prompt {index + 1} has a text without an end, or one longer than {MAX_CONTENT} characters "
            f"(at character {at})."
        )
    return found.end()


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _peek(text: str, at: int) -> str:
    at = _skip(text, at)
    return text[at : at + 1]


def _expect(text: str, at: int, sign: str) -> int:
    """The place behind ``sign``, which stands next, with or without spaces before it."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise _not_json(repr(sign), at)
    return at + 1


def _not_json(wanted: str, at: int) -> InvalidInput:
    return InvalidInput(f"The body is not JSON: expected {wanted} (at character {at + 1}).")
