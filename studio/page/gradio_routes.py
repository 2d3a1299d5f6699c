"""Which of Gradio's routes there are: those that the page needs, and none besides, for anybody.

Gradio brings some seventy routes along. Several take files (``upload``, ``process_recording``), fetch addresses
(``file=``, ``proxy=``), run what a component offers (``component_server``) or keep what they are sent; no part of this
page uses them. What is not named here is 404, also for what a later release of Gradio adds.
"""

from __future__ import annotations

import re
from typing import Any

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.errors import StudioError, Unavailable
from studio.web.server.refusals import shortened, unavailable

_HASH = "[A-Za-z0-9_-]{1,64}"
_READ = re.compile(
    "/|/config/?|/openapi\\.json|/theme\\.css|/favicon\\.ico|/manifest\\.json|/robots\\.txt|/(?:assets|static)/.+|/svelte/.+"
    "|/gradio_api/(?:info/?|theme\\.css|startup-events|queue/data|app_id/?"
    f"|heartbeat/{_HASH})"
)
_WRITE = re.compile("/gradio_api/(?:run/predict/?|queue/join|cancel|reset/?)")
_API = "/api/"
# Gradio has a sign-out of its own, which ends nothing here.
_OWN_PAGES = {"/login": ("GET", "POST"), "/logout": ("POST",), "/account": ("GET", "POST")}
_CALL = "/gradio_api/run/"

_TROUBLE = "studio.trouble"
"""Where the scope of a request holds why the services could not serve it."""


def is_there(method: str, path: str) -> bool:
    """Whether a request may go on to a route: to the studio's own, or to one of Gradio's that the page needs."""
    if path.startswith(_API):
        return True
    if path in _OWN_PAGES:
        return method in _OWN_PAGES[path]
    return (_READ if method in ("GET", "HEAD") else _WRITE).fullmatch(path) is not None


def note_trouble(scope: Any, error: StudioError) -> None:
    """Write down why a handler of the page could not do its work, for the answer to say so."""
    if isinstance(error, Unavailable) and (noted := scope.get(_TROUBLE)) is not None:
        noted.append(error)


class PageRoutes:
    """ASGI middleware before Gradio: lets through what the page needs, and answers 503 where Gradio would say 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = get_route_path(scope)
        if not is_there(scope["method"], path):
            detail = f"There is nothing at {shortened(path, 200)} that is asked with {scope['method'][:10]}."
            await JSONResponse({"detail": detail}, status_code=404)(scope, receive, send)
        elif path in _OWN_PAGES and Headers(scope=scope).get("content-type", "").startswith("multipart/"):
            detail = "A form is sent here as application/x-www-form-urlencoded, not in parts."
            await JSONResponse({"detail": detail}, status_code=415)(scope, receive, send)
        elif path.startswith(_CALL):
            await self._call(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        trouble: list[Unavailable] = []
        replaced = False

        async def told(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 500 and trouble:
                replaced = True
                await unavailable(trouble[0])(scope, receive, send)
            if not replaced:
                await send(message)

        await self.app({**scope, _TROUBLE: trouble}, receive, told)
