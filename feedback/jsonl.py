"""JSON Lines in and out: one object per line, UTF-8, ``\\n``; every complaint names its line."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput, InvalidLine

TOO_LONG = f"a number in it has more than the {sys.get_int_max_str_digits()} digits that can be read"

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_LINE_BREAKS = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their line numbers (from 1); blank lines are passed over.

    Raises InvalidInput when the file cannot be read, InvalidLine when a line is not a JSON object in UTF-8.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}. Name a JSONL file.") from error
    with stream:
        for number, raw in enumerate(stream, start=1):
            if raw.strip():
                yield number, _parse(path.name, number, raw)


def dump_line(value: dict[str, Any]) -> str:
    """One object as one line, newline included; a NaN is refused, since JSON has none.

    JSON leaves three characters alone at which many readers, ``str.splitlines`` among them, break a line: they are
    escaped, so that a line is a line to everyone.
    """
    text = _encode(value)
    if not text.isascii():
        for character, escaped in _LINE_BREAKS:
            if character in text:
                text = text.replace(character, escaped)
    return text + "\n"


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines to a temporary name, then rename: the old file stays whole until the new one is.

    Gives the number of lines. Raises InvalidInput when the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as stream:
            for line in lines:
                stream.write(line)
                count += 1
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return count


def _parse(source: str, number: int, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidLine(source, number, f"not UTF-8 (byte {error.start} of the line)") from error
    except json.JSONDecodeError as error:
        raise InvalidLine(source, number, f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise InvalidLine(source, number, "nested too deeply") from error
    except ValueError as error:  # all that is left: Python reads no whole number of thousands of digits
        raise InvalidLine(source, number, TOO_LONG) from error
    if not isinstance(value, dict):
        raise InvalidLine(source, number, f"a JSON object is needed, not a {type(value).__name__}")
    return value
