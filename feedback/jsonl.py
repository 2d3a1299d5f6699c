"""JSON Lines in and out: one object per line, UTF-8, ``\\n``; every complaint names its line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from feedback.outputs import find_output

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
    """Write lines to whatever ``feedback.outputs`` can write; gives their number.

    A file that was there stays whole until the new one is. A name that ends in ``.gz`` is compressed. Raises
    InvalidInput when the place cannot be written.
    """
    count = 0
    with find_output(path).open() as raw, _compressed(path, raw) as stream:
        for line in lines:
            stream.write(line.encode())
            count += 1
    return count


def _compressed(path: Path, raw: BinaryIO) -> AbstractContextManager[Any]:
    """As the name says; always the same bytes for the same lines."""
    return gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else nullcontext(raw)
