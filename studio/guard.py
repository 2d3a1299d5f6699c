"""What every request must pass before a route sees it: the right host, the right origin, a sane size.

Without users a studio on loopback trusts whoever reaches it, so a page of another site, open in the same
browser, must not reach it: neither by posting across origins nor by rebinding a name of its own to 127.0.0.1.
A request without an Origin (curl, a script) is nobody's browser and passes. Every reply forbids the page to load
anything from elsewhere, so that even markup that slipped through could not call home.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import secrets
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.errors import InvalidInput
from studio import limits
from studio.refusals import shortened

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

_REPLY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def content_policy(*script_sources: str) -> str:
    """What a page may do: run and load what this studio serves, and no script that is written into its markup.

    An inline script runs only when ``script_sources`` vouch for it, by the nonce of this one reply or by its hash,
    so neither a script nor a handler such as ``onerror`` in smuggled markup ever runs. Gradio's front end makes
    functions of the ``js=`` snippets of its own configuration, hence 'unsafe-eval', and styles elements one by one.
    """
    return "; ".join(
        [
            "default-src 'self'",
            " ".join(["script-src 'self' 'unsafe-eval' blob:", *script_sources]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "frame-src 'none'",
            "form-action 'self'",
            "base-uri 'self'",
            "frame-ancestors 'self'",
        ]
    )


_NO_PAGE_POLICY = content_policy()


def script_hash(script: str) -> str:
    """A script's text as a source of a content policy."""
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


class BodyTooLarge(Exception):
    """More bytes arrived than a request to this route may carry."""


class BodyTooSlow(Exception):
    """The body did not arrive in the time that a request to this route may take."""


@dataclass(frozen=True)
class Mount:
    """Where a reverse proxy shows the studio: under ``prefix`` (empty for none), at ``origin`` if that was said."""

    prefix: str = ""
    origin: str = ""

    @property
    def url(self) -> str:
        """What ``--root-path`` was: the whole address, or the prefix alone."""
        return self.origin + self.prefix

    @classmethod
    def parse(cls, text: str) -> Mount:
        """A path such as ``/studio`` or an address such as ``https://labs.example.org/studio``."""
        parts = urlsplit(text.strip())
        prefix = parts.path.rstrip("/")
        address = parts.scheme in ("http", "https") and parts.netloc and "@" not in parts.netloc
        if parts.query or parts.fragment or not (address or text.startswith("/")) or text.startswith("//"):
            raise InvalidInput(
                f"--root-path {text!r} is neither a path such as /studio nor an address such as "
                "https://labs.example.org/studio."
            )
        if any(part in ("..", ".", "") for part in prefix.split("/")[1:]):
            raise InvalidInput(f"--root-path {text!r} has an empty or dotted part; name a plain path such as /studio.")
        return cls(prefix, f"{parts.scheme}://{parts.netloc.lower()}" if address else "")


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
            # A page is sent as it is: _Dressed could not read a compressed one.
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
        dressed = _Dressed(send, self.script_sources)

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
            await response(scope, receive, _Dressed(send, self.script_sources))

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


class _Dressed:
    """Sends a reply with the headers every reply has; the scripts of the page's own template get a nonce.

    Gradio writes its template and its configuration into one document. In the configuration every ``<`` is escaped,
    so what begins with ``<script`` is the template's, never something a person or a model wrote.
    """

    def __init__(self, send: Send, script_sources: list[str]) -> None:
        self.send = send
        self.script_sources = script_sources
        self.start: Message | None = None
        self.nonce = ""
        self.held = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _REPLY_HEADERS.items():
                headers.setdefault(name, value)
            own_policy = "content-security-policy" in headers
            is_page = headers.get("content-type", "").startswith("text/html") and not own_policy
            self.nonce = secrets.token_urlsafe(16) if is_page else ""
            own = [*self.script_sources, f"'nonce-{self.nonce}'"]
            headers.setdefault("Content-Security-Policy", content_policy(*own) if is_page else _NO_PAGE_POLICY)
            if is_page:
                self.start = message
                return
        elif self.start is not None:
            self.held += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_page(self.start)
            return
        await self.send(message)

    async def _send_page(self, start: Message) -> None:
        body = bytes(self.held).replace(b"<script", f'<script nonce="{self.nonce}"'.encode())
        headers = MutableHeaders(scope=start)
        if "content-length" in headers:
            headers["content-length"] = str(len(body))
        self.start = None
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})


def _too_large(limit: int) -> str:
    return f"A request like this may carry {limits.shown(limit)}; send it in several parts."


@lru_cache(maxsize=256)  # asked with every request, of the same few
def is_loopback(host: str) -> bool:
    """True for names and addresses that mean this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def _declared_length(headers: Headers) -> int:
    declared = headers.get("content-length", "0")
    return int(declared) if declared.isdigit() else 0
