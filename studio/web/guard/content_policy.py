"""The content security policy of every reply, and the nonce of a page's own scripts."""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

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


NO_PAGE_POLICY = content_policy()


def script_hash(script: str) -> str:
    """A script's text as a source of a content policy."""
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


class PolicyHeaders:
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
            headers.setdefault("Content-Security-Policy", content_policy(*own) if is_page else NO_PAGE_POLICY)
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
