"""Reads the answer of an HTTP server up to a size and within a time, whatever the server sends.

A server may send a byte now and then for ever, may never come to an end, or may send a small archive that unpacks to
gigabytes. A timeout per read, which is all that ``httpx`` has, stops none of these.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

import httpx

_PIECE = 64 * 1024
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})


class AnswerTooLong(httpx.RequestError):
    """More bytes arrived, or came out of what arrived, than any answer of this kind has."""


class _Content:
    """The bytes of an answer, unpacked as they come; never more than ``most`` of them."""

    def __init__(self, encoding: str, most: int) -> None:
        self.encoding = encoding.strip().lower()
        self.most = most
        self.held = bytearray()
        if self.encoding not in ("", "identity", *_PACKED):
            raise httpx.DecodingError(f"decompressing is not possible: the server was not asked for {encoding!r}")
        self._unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32) if self.encoding in _PACKED else None

    def add(self, data: bytes) -> None:
        """Take one piece as it arrived."""
        while data:
            piece = data
            if self._unpacking is None:
                data = b""
            else:
                try:
                    piece = self._unpacking.decompress(data, _PIECE)
                except zlib.error as error:
                    raise httpx.DecodingError(f"decompressing it fails: {error}") from error
                data = self._unpacking.unconsumed_tail
            self.held += piece
            if len(self.held) > self.most:
                raise AnswerTooLong(f"its answer is longer than {self.most} bytes")

    def response(self, answer: httpx.Response, request: httpx.Request) -> httpx.Response:
        """The answer with what was read of it."""
        dropped = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in answer.headers.multi_items() if name not in dropped]
        return httpx.Response(answer.status_code, headers=headers, content=bytes(self.held), request=request)


async def fetch(
    client: httpx.AsyncClient, method: str, url: str, *, seconds: float, most: int, **sent: Any
) -> httpx.Response:
    """The whole answer to a request, within ``seconds`` and of at most ``most`` bytes.

    Raises httpx.RequestError: AnswerTooLong beyond the size, ReadTimeout beyond the time.
    """
    request = client.build_request(method, url, headers={"Accept-Encoding": "identity"}, **sent)
    try:
        async with asyncio.timeout(seconds):
            answer = await client.send(request, stream=True)
            try:
                content = _Content(answer.headers.get("content-encoding", ""), most)
                async for piece in answer.aiter_raw():
                    content.add(piece)
            finally:
                await answer.aclose()
    except TimeoutError as error:
        raise _too_slow(seconds, request) from error
    return content.response(answer, request)


def fetch_now(
    client: httpx.Client, method: str, url: str, *, seconds: float, most: int, headers: dict[str, str], **sent: Any
) -> httpx.Response:
    """As ``fetch``, without an event loop. The time is looked at whenever something arrives."""
    end = time.monotonic() + seconds
    request = client.build_request(method, url, headers={**headers, "Accept-Encoding": "identity"}, **sent)
    answer = client.send(request, stream=True)
    try:
        content = _Content(answer.headers.get("content-encoding", ""), most)
        for piece in answer.iter_raw():
            content.add(piece)
            if time.monotonic() > end:
                raise _too_slow(seconds, request)
    finally:
        answer.close()
    return content.response(answer, request)


def _too_slow(seconds: float, request: httpx.Request) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(f"its answer did not come to an end within {seconds:.0f} seconds", request=request)
