"""Connections that only wait are closed, and a reader that takes nothing is let go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from studio.web.server import connections
from studio.web.server.connections import BoundedProtocol


@dataclass
class Site:
    """A small server on this machine with the studio's connections."""

    port: int
    protocols: list[BoundedProtocol]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


async def app(scope, receive, send) -> None:
    """Answers without reading at /early, with 256 MB at /endless, else with the size of the body."""
    if scope["type"] != "http":
        return
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/endless":
        await send(start)
        for _ in range(4096):  # not for ever: to send to a reader that is gone takes no time and would never yield
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        return
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send(start)
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in {"HEAD_SECONDS": 0.5, "BODY_SECONDS": 1.0, "STALL_SECONDS": 1.0}.items():
        monkeypatch.setattr(connections, name, value)
    made: list[BoundedProtocol] = []

    class Noted(BoundedProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            made.append(self)
            super().connection_made(transport)

    config = uvicorn.Config(app, http=Noted, log_level="critical", lifespan="off", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Site(listener.getsockname()[1], made)
    server.should_exit = True
    server.force_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the server goes on behind the tests that follow"


def is_closed(one: socket.socket, seconds: float = 20.0) -> bool:
    """Whether the other side ends a connection in this time."""
    one.settimeout(seconds)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    ],
    ids=["nothing", "line", "head", "body", "chunks", "after the reply", "second"],
)
def test_what_does_not_come_to_an_end_is_closed(site: Site, sent: bytes) -> None:
    with site.connect() as one:
        one.sendall(sent)
        assert is_closed(one)


def test_blank_lines_keep_no_connection_open(site: Site) -> None:
    with site.connect() as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in one.recv(65536)
        time.sleep(0.2)
        one.sendall(b"\r\n")
        assert is_closed(one)


def test_a_drip_keeps_no_connection_open(site: Site) -> None:
    with site.connect() as one:
        one.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        end = time.monotonic() + 30
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                one.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() < end


def test_a_reader_that_takes_nothing_is_let_go(site: Site) -> None:
    with site.connect() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + 30
        while not (site.protocols and site.protocols[0].transport.is_closing()):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_connection_is_used_again(site: Site) -> None:
    with site.connect() as one:
        for _ in range(3):
            one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfour")
            assert b"200 OK" in one.recv(65536)
            time.sleep(0.2)


def test_a_head_beyond_reason_is_refused(site: Site) -> None:
    with site.connect() as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: ")
        with contextlib.suppress(OSError):
            for _ in range(100):
                one.sendall(b"y" * 10_000)
        assert is_closed(one)


def test_those_who_wait_longest_make_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 60.0)
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    held = [site.connect() for _ in range(40)]
    try:
        with site.connect() as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in one.recv(65536)
        assert is_closed(held[0])
        assert sum(not protocol.transport.is_closing() for protocol in site.protocols) <= 21
    finally:
        for one in held:
            one.close()
