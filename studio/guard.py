"""What every request must pass before a route sees it: the right host, the right origin, a sane size.

Without users a studio on loopback trusts whoever reaches it, so a page of another site, open in the same
browser, must not reach it: neither by posting across origins nor by rebinding a name of its own to 127.0.0.1.
A request without an Origin (curl, a script) is nobody's browser and passes. Every reply forbids the page to load
anything from elsewhere, so that even markup that slipped through could not call home.
"""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.errors import InvalidInput

MAX_BODY_BYTES = 64 * 1024 * 1024
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

# Gradio's front end evaluates the js= snippets of its own configuration, hence 'unsafe-eval' and 'unsafe-inline'.
_CONTENT_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
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
_REPLY_HEADERS = {
    "Content-Security-Policy": _CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class BodyTooLarge(Exception):
    """More bytes arrived than any request of this product needs."""


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
        self, app: ASGIApp, host: str = "127.0.0.1", max_body_bytes: int = MAX_BODY_BYTES, mount: Mount | None = None
    ) -> None:
        self.app = app
        self.loopback_only = is_loopback(host)
        self.max_body_bytes = max_body_bytes
        self.mount = mount or Mount()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope = self._under_prefix(scope)
        refusal = self._refusal(scope["method"], headers) or self._misplaced(scope, headers)
        if refusal is not None:
            status, detail = refusal
            await JSONResponse({"detail": detail}, status_code=status)(scope, receive, send)
            return
        if self.mount.prefix and scope["path"] == self.mount.prefix:
            await RedirectResponse(f"{self.mount.prefix}/", status_code=308)(scope, receive, send)
            return
        await self._pass_on(scope, receive, send)

    def _under_prefix(self, scope: Scope) -> Scope:
        """The same request with its prefix in place, whether the proxy took it off (nginx, Caddy) or left it on."""
        prefix = self.mount.prefix
        if not prefix:
            return scope
        path = scope["path"]
        if path != prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        return {**scope, "root_path": prefix, "path": path, "raw_path": quote(path).encode()}

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
        host = headers.get("host", "").lower()
        public = urlsplit(self.mount.origin).netloc
        if self.loopback_only and host != public and not is_loopback(_host_name(host)):
            return (
                403,
                f"This studio serves this machine only, not {host!r}; open it at 127.0.0.1 or localhost. "
                f"If {host!r} is your reverse proxy, start the studio with --root-path https://{host}"
                f"{self.mount.prefix}.",
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() != self.mount.origin and urlsplit(origin).netloc.lower() != host:
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
        if _declared_length(headers) > self.max_body_bytes:
            return 413, self._too_large()
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0
        begun = False

        def is_over() -> bool:
            return received > self.max_body_bytes

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if is_over():
                raise BodyTooLarge
            return message

        async def guarded(message: Message) -> None:
            nonlocal begun
            if is_over() and not begun:
                return  # the app takes the broken body for a syntax error and answers so; it is told better below
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _REPLY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with contextlib.suppress(BodyTooLarge):
            await self.app(scope, counted, guarded)
        if is_over() and not begun:
            await JSONResponse({"detail": self._too_large()}, status_code=413)(scope, receive, send)

    def _too_large(self) -> str:
        return f"A request may carry {self.max_body_bytes // 1024**2} MiB; send it in several parts."


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
