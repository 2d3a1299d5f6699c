"""The short way for the two requests that every vote is: straight to the functions of ``studio.api``.

FastAPI looks through all routes, solves dependencies and opens three stacks of contexts for every request, which costs
more than a vote itself. A body as it should be needs none of that. Whatever else comes (no body, another content type,
a mistake, a name in a header) goes the long way with every byte it had, and is answered there.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.api import TOLD, judge, next_task, tell
from studio.gate import PERSON
from studio.schemas import JudgmentIn, TaskIn
from studio.services import Services

_Answer = Callable[[Any, Services], Awaitable[Response]]

_WAYS: dict[str, tuple[type[BaseModel], _Answer]] = {
    "/api/tasks/next": (TaskIn, lambda body, services: next_task(services, body)),
    "/api/judgments": (JudgmentIn, judge),
}


class ShortWay:
    """ASGI middleware behind the gate; it answers votes, and passes all else on."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app = app
        self.services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = _way_of(scope)
        if way is None:
            await self.app(scope, receive, send)
            return
        kind, answer = way
        messages = await _read(receive)
        body = _parse(kind, messages)
        if body is None:
            await self.app(scope, _again(messages, receive), send)
            return
        response = await self._answered(answer, body, scope)
        await response(scope, receive, send)

    async def _answered(self, answer: _Answer, body: BaseModel, scope: Scope) -> Response:
        try:
            return await answer(body, self.services.acting_as(scope.get(PERSON)))
        except TOLD as error:
            return tell(Request(scope), error)


def _way_of(scope: Scope) -> tuple[type[BaseModel], _Answer] | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    headers = Headers(scope=scope)
    plain = headers.get("content-type") == "application/json" and "x-annotator" not in headers
    return _WAYS.get(get_route_path(scope)) if plain else None


async def _read(receive: Receive) -> list[Message]:
    """All that a request brings, up to the end of its body or of its connection."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _parse(kind: type[BaseModel], messages: list[Message]) -> BaseModel | None:
    """The body as a route is given it; None for what only the route can answer."""
    if messages[-1]["type"] != "http.request":
        return None
    try:
        return kind.model_validate(json.loads(b"".join(message.get("body", b"") for message in messages)))
    except (ValidationError, ValueError, RecursionError):
        return None


def _again(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replayed() -> Message:
        return next(waiting, None) or await receive()

    return replayed
