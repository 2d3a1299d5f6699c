"""Checks and hashes that the values of all rooms share: names, text that can be stored, canonical JSON."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from feedback.errors import InvalidInput

RESERVED_NAMES = {"local", "shell", "studio", "nobody"}
"""Names that stand for nobody in particular and so cannot be a user's."""


def now() -> datetime:
    """The present moment, aware and in UTC: the only clock rows are written from."""
    return datetime.now(UTC)


def canonical_json(value: Any) -> str:
    """One spelling per value (sorted keys, no spaces, UTF-8), so that equal content hashes alike."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_hash(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def storable(text: str, what: str) -> str:
    """The text, if every database can hold it: no NUL (PostgreSQL refuses it), no half of a surrogate pair (UTF-8)."""
    if "\0" in text:
        raise ValueError(f"{what} must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be whole Unicode characters; it holds half of a surrogate pair") from None
    return text


def storable_throughout(value: Any, what: str) -> None:
    """As ``storable``, for every text in nested lists and dictionaries, their keys included; JSON has no NaN either."""
    if isinstance(value, str):
        storable(value, what)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, not {value}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            storable_throughout(key, what)
            storable_throughout(inner, what)
    elif isinstance(value, list | tuple):
        for inner in value:
            storable_throughout(inner, what)


def number_not_truth(value: Any) -> Any:
    """The value, unless it is true or false: Python counts these as 1 and 0, and nobody means that by them."""
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, not {str(value).lower()}")
    return value


def usable_name(name: str, noun: str) -> str:
    """A name that can stand in a command and a file name, or an InvalidInput that says what can.

    Letters, digits, ``.``, ``_`` and ``-``, starting with a letter or digit, at most 80 characters.
    """
    plain = name.replace(".", "").replace("_", "").replace("-", "")
    if not name or len(name) > 80 or not name[0].isalnum() or not (plain.isascii() and plain.isalnum()):
        raise InvalidInput(
            f"{name!r} cannot name a {noun}: use up to 80 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return name
