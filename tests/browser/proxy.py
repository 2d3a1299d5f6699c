"""A reverse proxy as people put before a studio, small enough to read: it takes a prefix off or leaves it on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"}


@contextmanager
def reverse_proxy(
    target: str, prefix: str, *, strips: bool = True, passes_host: bool = True, tells_prefix: bool = False
) -> Iterator[str]:
    """The address under which a proxy shows ``target``; everything outside of the prefix is its own 404."""

    async def forward(request: Request) -> Response:
        path = request.url.path
        if not path.startswith(prefix):
            return Response("not the studio's", status_code=404)
        inner = (path[len(prefix) :] or "/") if strips else path
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in HOP_BY_HOP]
        if not passes_host:
            headers = [(name, value) for name, value in headers if name != b"host"]
        if tells_prefix:
            headers.append((b"x-forwarded-prefix", prefix.encode()))
        headers.append((b"x-forwarded-for", b"127.0.0.1"))
        asked = client.build_request(
            request.method, f"{target}{inner}?{request.url.query}", headers=headers, content=await request.body()
        )
        answer = await client.send(asked, stream=True)
        kept = [(name, value) for name, value in answer.headers.raw if name.decode().lower() not in HOP_BY_HOP]
        reply = StreamingResponse(
            answer.aiter_raw(), status_code=answer.status_code, background=BackgroundTask(answer.aclose)
        )
        reply.raw_headers = kept
        return reply

    client = httpx.AsyncClient(timeout=60, follow_redirects=False)
    app = Starlette(routes=[Route("/{path:path}", forward, methods=METHODS)])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
        finally:
            server.should_exit = True
            thread.join(10)
