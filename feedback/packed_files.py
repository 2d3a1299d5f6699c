"""Objects out of a file, whatever they are packed in: a line each or one JSON array, plain or compressed.

The file is opened once and read forwards, so a pipe will do; ``-`` is standard input. Memory is bounded by the largest
object. Compression is known by how the file begins, not by its name.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from feedback.errors import InvalidInput, InvalidLine, Item

TOO_LONG = f"a number in it has more than the {sys.get_int_max_str_digits()} digits that can be read"

_LONGEST = 64 * 2**20  # bytes of one line, characters of one item; whatever is longer is no data for people
_PIECE = 2**20
_BOM = codecs.BOM_UTF8
_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first (`zstd -d`)",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"PAR1": "is a Parquet file; write it as JSON Lines first, for instance with `datasets.Dataset.to_json`",
}


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with the number of its line, or of its place in the array (``Item``); both from 1.

    Blank lines are passed over. Raises InvalidInput when the file cannot be read, InvalidLine when an object cannot.
    """
    with _opened(path) as stream:
        try:
            blank_lines = _skip_blank(stream)
            if stream.peek(1)[:1] == b"[":
                yield from _Array(path.name, stream).objects()
            else:
                yield from _lines(path.name, stream, blank_lines)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise InvalidInput(
                f"{path} cannot be read to its end: {error}. Nothing was imported; fetch it again."
            ) from error


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    if str(path) == "-":
        yield _unpacked(path, cast(io.BufferedReader, sys.stdin.buffer))
        return
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}. Name a JSONL file.") from error
    with raw:
        yield _unpacked(path, raw)


def _unpacked(path: Path, raw: io.BufferedReader) -> io.BufferedReader:
    """What a compressed file holds, or the file itself."""
    try:
        start = raw.peek(6)[:6]
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}. Name a JSONL file.") from error
    for magic, reason in _FOREIGN.items():
        if start.startswith(magic):
            raise InvalidInput(f"{path} {reason}.")
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    return raw if opener is None else io.BufferedReader(opener(raw))


def _skip_blank(stream: io.BufferedReader) -> int:
    """Pass over a byte order mark and white space at the start; gives how many lines that were."""
    if stream.peek(len(_BOM)).startswith(_BOM):
        stream.read(len(_BOM))
    lines = 0
    while (ahead := stream.peek(1)[:1]) and ahead in b" \t\r\n":
        lines += stream.read(1) == b"\n"
    return lines


def _lines(source: str, stream: io.BufferedReader, passed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    number = passed
    while raw := stream.readline(_LONGEST + 1):
        number += 1
        if len(raw) > _LONGEST:
            raise InvalidLine(source, number, f"longer than {_LONGEST // 2**20} MiB")
        if raw.strip():
            yield number, _parse(source, number, raw)


def _parse(source: str, number: int, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise InvalidLine(source, number, f"not UTF-8 (byte {error.start} of the line)") from error
    except json.JSONDecodeError as error:
        raise InvalidLine(source, number, f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise InvalidLine(source, number, "nested too deeply") from error
    except ValueError as error:  # all that is left: Python reads no whole number of thousands of digits
        raise InvalidLine(source, number, TOO_LONG) from error
    return _object(source, number, value)


def _object(source: str, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidLine(source, number, f"a JSON object is needed, not a {type(value).__name__}")
    return value


class _Array:
    """The items of a JSON array that is read piece by piece; ``_place`` is where the next one begins in ``_text``."""

    def __init__(self, source: str, stream: BinaryIO) -> None:
        self._source = source
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._json = json.JSONDecoder()
        self._text = ""
        self._place = 0
        self._number = Item(0)

    def objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every item with its number, up to the end of the array and of the file."""
        self._take("[")
        separator = "]" if self._peek() == "]" else ","
        while separator == ",":
            self._number = Item(self._number + 1)
            yield self._number, _object(self._source, self._number, self._item())
            separator = self._peek()
            if separator == "]":
                break
            self._take(",")
        self._take("]")
        if self._peek():
            raise self._refusal("the file goes on after the end of the array")

    def _refusal(self, reason: str) -> InvalidLine:
        return InvalidLine(self._source, self._number, reason)

    def _peek(self) -> str:
        """The next character that is no white space; nothing at the end of the file."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\r\n":
                self._place += 1
            if self._place < len(self._text) or not self._read_on(_PIECE):
                return self._text[self._place : self._place + 1]

    def _take(self, wanted: str) -> None:
        if (found := self._peek()) != wanted:
            raise self._refusal(f"not JSON ({wanted!r} is missing before {found or 'the end of the file'!r})")
        self._place += 1

    def _item(self) -> Any:
        self._peek()
        size = _PIECE
        while True:
            try:
                value, self._place = self._json.raw_decode(self._text, self._place)
                return value
            except json.JSONDecodeError as error:
                if not self._read_on(size):  # else only the piece ended, not the item
                    raise self._refusal(f"not JSON ({error.msg})") from error
            except RecursionError as error:
                raise self._refusal("nested too deeply") from error
            except ValueError as error:
                raise self._refusal(TOO_LONG) from error
            if len(self._text) > _LONGEST:
                raise self._refusal(f"not JSON, or longer than {_LONGEST // 2**20} MiB")
            size *= 2

    def _read_on(self, size: int) -> bool:
        """Read another piece, and let go of what was used; False at the end of the file."""
        piece = self._stream.read(size)
        try:
            self._text = self._text[self._place :] + self._decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise self._refusal(f"not UTF-8 ({error.reason})") from error
        self._place = 0
        return bool(piece)
