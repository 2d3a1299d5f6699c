"""Connections that do not stay open for nothing: a slow sender, a slow reader and endless headers are cut off.

uvicorn closes a connection that waits for its next request, and no other. Here a connection has some seconds for the
whole head of a request, a time for its body, and a time in which it must take something of a reply that it was sent.
A reply that trickles, as the page's events do, is not bounded: only a reader that takes nothing is.
"""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from studio.web.server.limits import BULK_ROUTES, BULK_SECONDS

HEAD_SECONDS = 20.0
BODY_SECONDS = BULK_SECONDS + 30.0  # the guard answers 408 before; this is for what is still sent after a reply
STALL_SECONDS = 60.0
MAX_HEAD_BYTES = 64 * 1024
MOST_WAITING = 256
"""Connections whose request has not come whole; the one that waits longest makes room for another."""

_FEW = 16
_waiting: OrderedDict[BoundedProtocol, None] = OrderedDict()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds for those who are slow."""

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first request must come soon."""
        super().connection_made(transport)
        self._await(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of a connection, whoever ended it."""
        self._arrived()
        self._unstall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of one or several requests; a head beyond any that a browser sends is refused."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and b"\r\n\r\n" not in data:
                self.send_400_response("The head of this request is too long.")
                return
        super().data_received(data)
        if self._in_head and self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await(HEAD_SECONDS)  # something came that begins no request

    def handle_websocket_upgrade(self) -> None:
        """Another protocol takes over; the gate closes it at once."""
        self._arrived()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head, self._head_bytes = True, 0
        self._await(HEAD_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The whole head of a request; its body may take longer."""
        self._in_head = False
        self._await(BODY_SECONDS)
        if any(route.encode() in self.url for route in BULK_ROUTES):
            _waiting.pop(self, None)  # takes long by its nature; the gate has refused strangers
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The whole request."""
        self._arrived()
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The whole reply; what then is still sent of the request is read by nobody."""
        if not self._in_head:
            self._await(HEAD_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The reader takes nothing at the moment."""
        self.flow.pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader takes something again."""
        self._unstall()
        self.flow.resume_writing()

    def _await(self, seconds: float) -> None:
        """Give what is to come so many seconds."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)
        _waiting[self] = None
        if len(_waiting) > _FEW and len(_waiting) > _most_waiting():
            oldest, _ = _waiting.popitem(last=False)
            oldest.transport.abort()

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _waiting.pop(self, None)

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def _most_waiting() -> int:
    """A quarter of the files that this process may open, so that those who are served find room."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_WAITING if files == resource.RLIM_INFINITY else max(_FEW, min(MOST_WAITING, files // 4))
