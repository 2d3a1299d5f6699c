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


def reject_unstorable_text(text: str, what: str) -> str:
    """Return the text; ValueError if a database cannot store it: a NUL or half of a surrogate pair."""
    if "\0" in text:
        raise ValueError(f"{what} must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be whole Unicode characters; it holds half of a surrogate pair") from None
    return text


def reject_unstorable_values(value: Any, what: str) -> None:
    """Raise ValueError for unstorable text anywhere in nested lists and dictionaries, keys included, and for NaN."""
    if isinstance(value, str):
        reject_unstorable_text(value, what)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, not {value}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            reject_unstorable_values(key, what)
            reject_unstorable_values(inner, what)
    elif isinstance(value, list | tuple):
        for inner in value:
            reject_unstorable_values(inner, what)


def reject_bool(value: Any) -> Any:
    """Return the value; ValueError for a bool, which Python would otherwise accept as the number 1 or 0."""
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
