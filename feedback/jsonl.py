"""JSON Lines in and out: one object per line, UTF-8, ``\\n``; every complaint names its line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_LINE_BREAKS = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


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
