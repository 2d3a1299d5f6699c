"""What every request must pass before a route sees it: the right host, the right origin, a sane size.

Without users a studio on loopback trusts whoever reaches it, so a page of another site, open in the same
browser, must not reach it: neither by posting across origins nor by rebinding a name of its own to 127.0.0.1.
A request without an Origin (curl, a script) is nobody's browser and passes. Every reply forbids the page to load
anything from elsewhere, so that even markup that slipped through could not call home.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.web.guard.content_policy import PolicyHeaders, script_hash
from studio.web.guard.mount import Mount, is_loopback
from studio.web.server import limits
from studio.web.server.refusals import shortened

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class BodyTooLarge(Exception):
    """More bytes arrived than a request to this route may carry."""


class BodyTooSlow(Exception):
    """The body did not arrive in the time that a request to this route may take."""


class Guard:
    """ASGI middleware that turns away what did not come from this studio's own page or from no page at all."""

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        max_body_bytes: int = limits.BULK_BYTES,
        mount: Mount | None = None,
        scripts: Iterable[str] = (),
    ) -> None:
        self.app = app
        self.loopback_only = is_loopback(host)
        self.max_body_bytes = max_body_bytes
        self.mount = mount or Mount()
        self.script_sources = [script_hash(script) for script in scripts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope = self._under_prefix(scope)
        refusal = self._refusal(scope["method"], headers) or self._misplaced(scope, headers)
        if refusal is None and _declared_length(headers) > self._limit(scope):
            refusal = 413, _too_large(self._limit(scope))
        if refusal is not None:
            status, detail = refusal
            await JSONResponse({"detail": shortened(detail)}, status_code=status)(scope, receive, send)
            return
        if self.mount.prefix and scope["path"] == self.mount.prefix:
            await RedirectResponse(f"{self.mount.prefix}/", status_code=308)(scope, receive, send)
            return
        if "text/html" in headers.get("accept", ""):
            # A page is sent as it is: PolicyHeaders could not read a compressed one.
            kept = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = {**scope, "headers": kept}
        await self._pass_on(scope, receive, send)

    def _under_prefix(self, scope: Scope) -> Scope:
        """The request as the browser sent it: with its prefix, whether the proxy took it off (nginx, Caddy) or left
        it on, and with the public host, where ``--root-path`` names it.
        """
        prefix, public = self.mount.prefix, urlsplit(self.mount.origin)
        if prefix:
            path = scope["path"]
            if path != prefix and not path.startswith(f"{prefix}/"):
                path = prefix + path
            scope = {**scope, "root_path": prefix, "path": path, "raw_path": quote(path).encode()}
        if public.netloc:
            hosts = (b"host", b"x-forwarded-host", b"x-forwarded-proto")
            kept = [(name, value) for name, value in scope["headers"] if name not in hosts]
            headers = [(b"host", public.netloc.encode()), *kept]
            scope = {**scope, "scheme": public.scheme, "headers": headers}
        return scope

    def _misplaced(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """What to change when the proxy and ``--root-path`` do not speak of the same prefix."""
        prefix, told = self.mount.prefix, headers.get("x-forwarded-prefix", "").split(",")[0].strip().rstrip("/")
        if told and told != prefix:
            meant = f"--root-path {prefix}" if prefix else "no --root-path"
            return 400, (
                f"The proxy serves this studio under {told!r} (X-Forwarded-Prefix), but it was started with {meant}. "
                f"Start it with --root-path {self.mount.origin}{told}."
            )
        inner = scope["path"].removeprefix(prefix)
        if inner != "/" and inner.endswith("/") and "text/html" in headers.get("accept", ""):
            return 404, (
                f"There is no page at {inner!r}. If a reverse proxy serves the studio under this prefix, start it "
                f"with --root-path {inner.rstrip('/')}."
            )
        return None

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "").strip().lower()
        if not host:
            return 400, "A request must name the host that it is for, in the Host header."
        public = urlsplit(self.mount.origin).netloc
        if self.loopback_only and host != public and not is_loopback(_host_name(host)):
            return (
                403,
                f"This studio serves this machine only, not {host!r}; open it at 127.0.0.1 or localhost. "
                f"If {host!r} is your reverse proxy, start the studio with --root-path https://{host}"
                f"{self.mount.prefix}.",
            )
        origin = headers.get("origin")
        ours = self.mount.origin and origin is not None and origin.lower() == self.mount.origin
        if origin is not None and not ours and urlsplit(origin).netloc.lower() != host:
            return (
                403,
                f"A page of {origin} may not use the studio at {host}; open the studio at its own address. "
                f"If {origin} is your reverse proxy, start the studio with --root-path {origin}{self.mount.prefix}, "
                "or let the proxy pass the Host header on.",
            )
        if method not in SAFE_METHODS and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return (
                403,
                f"A page of another site may not change the studio at {host}; use the studio's own page.",
            )
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, self._limit(scope), limits.body_seconds(self._inner_path(scope)))
        begun = False
        dressed = PolicyHeaders(send, self.script_sources)

        async def guarded(message: Message) -> None:
            nonlocal begun
            if body.refusal and not begun:
                return  # the app takes the broken body for a syntax error and answers so; it is told better below
            begun = begun or message["type"] == "http.response.start"
            await dressed(message)

        with contextlib.suppress(BodyTooLarge, BodyTooSlow):
            await self.app(scope, body.receive, guarded)
        if body.refusal and not begun:
            status, detail = body.refusal
            response = JSONResponse({"detail": detail}, status_code=status)
            if status == 408:  # the rest may still come, and would be taken for another request
                response.headers["Connection"] = "close"
            await response(scope, receive, PolicyHeaders(send, self.script_sources))

    def _limit(self, scope: Scope) -> int:
        return min(limits.body_bytes(self._inner_path(scope)), self.max_body_bytes)

    def _inner_path(self, scope: Scope) -> str:
        path: str = scope["path"]
        return path.removeprefix(self.mount.prefix)


class _Body:
    """Receives a body up to a size and within a time; ``refusal`` is what to answer when it exceeds one of them."""

    def __init__(self, receive: Receive, size: int, seconds: float) -> None:
        self.refusal: tuple[int, str] | None = None
        self._receive = receive
        self._size = size
        self._seconds = seconds
        self._received = 0
        self._begun: float | None = None
        self._complete = False

    async def receive(self) -> Message:
        """The next message; BodyTooLarge or BodyTooSlow as soon as a limit is exceeded."""
        if self._complete:
            return await self._receive()  # only the end of the connection is left to be told
        now = asyncio.get_running_loop().time()
        self._begun = self._begun or now
        try:
            async with asyncio.timeout_at(self._begun + self._seconds):
                message = await self._receive()
        except TimeoutError:
            self.refusal = 408, f"The body did not arrive within {self._seconds:.0f} seconds; send it again."
            raise BodyTooSlow from None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body")
        if self._received > self._size:
            self.refusal = 413, _too_large(self._size)
            raise BodyTooLarge
        return message


def _too_large(limit: int) -> str:
    return f"A request like this may carry {limits.shown(limit)}; send it in several parts."


def _host_name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def _declared_length(headers: Headers) -> int:
    declared = headers.get("content-length", "0")
    return int(declared) if declared.isdigit() else 0
