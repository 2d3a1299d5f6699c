"""The fast path of the requests that every vote is, and a path of its own for a large body of prompts.

FastAPI looks through all routes, solves dependencies and opens three stacks of contexts for every request, which costs
more than a vote itself. A body as it should be needs none of that. Whatever else comes (no body, another content type,
a mistake, a name in a header) goes on to FastAPI with every byte it had, and is answered there. A large body of
prompts is parsed in a thread (``studio.web.bulk_prompts``), since FastAPI would parse it on the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback.errors import Unavailable
from feedback.store.content.prompts import SavedPrompts
from feedback.types import Prompt
from studio.identity import PERSON
from studio.services.facade import Services
from studio.services.prompts import Prompts
from studio.web.api.label_screen import answer_vote
from studio.web.api.labeling import judge, next_task
from studio.web.api.prompts import add_read_prompts
from studio.web.api.schemas import JudgmentIn, LabelIn, TaskIn
from studio.web.bulk_prompts import read_prompts
from studio.web.server.errors import TOLD, tell, tell_invalid
from studio.web.server.limits import ACT_BYTES, BULK_ROUTES
from studio.web.server.refusals import unavailable

BULK_AT_ONCE = 4
"""Large bodies that are read or wait for their turn; each may hold 64 MiB."""

_Answer = Callable[[Any, Services], Awaitable[Response]]

_WAYS: dict[str, tuple[type[BaseModel], _Answer]] = {
    "/api/tasks/next": (TaskIn, lambda body, services: next_task(services, body)),
    "/api/judgments": (JudgmentIn, judge),
    "/api/label/vote": (LabelIn, answer_vote),
}


class FastPath:
    """ASGI middleware behind authentication; it answers votes, and passes all else on."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app = app
        self.services = services
        self._reading = 0
        self._one_bulk = CapacityLimiter(1)  # of two at once each would take twice as long, and twice the memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _is_bulk(scope):
            await self._bulk(scope, receive, send)
            return
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

    async def _bulk(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a large body of prompts; it is read only for those who may add prompts, and few at a time."""
        if self._reading >= BULK_AT_ONCE:
            error = Unavailable(f"{BULK_AT_ONCE} large imports are being read already; ask again in 5 seconds.")
            response: Response = unavailable(error)
        else:
            self._reading += 1
            try:
                acting = self.services.acting_as(scope.get(PERSON))
                await run_sync(acting.prompts.require, Prompts.add_prompts)
                messages = await _read(receive)
                if _size(messages) <= ACT_BYTES or messages[-1]["type"] != "http.request":
                    await self.app(scope, _again(messages, receive), send)
                    return
                body = b"".join(message.get("body", b"") for message in messages)
                messages.clear()
                response = JSONResponse(
                    await run_sync(_add_prompts, body, acting.prompts.add_prompts, limiter=self._one_bulk)
                )
            except RequestValidationError as error:
                response = tell_invalid(Request(scope), error)
            except TOLD as error:
                response = tell(Request(scope), error)
            finally:
                self._reading -= 1
        await response(scope, receive, send)


def _add_prompts(body: bytes, add: Callable[[list[Prompt]], SavedPrompts]) -> dict[str, int]:
    return add_read_prompts(read_prompts(body), add)


def _is_bulk(scope: Scope) -> bool:
    """Whether a body of prompts is large, or does not say how large it is."""
    if scope["type"] != "http" or scope["method"] != "POST" or get_route_path(scope) not in BULK_ROUTES:
        return False
    length = Headers(scope=scope).get("content-length", "")
    return not length.isdigit() or int(length) > ACT_BYTES


def _size(messages: list[Message]) -> int:
    return sum(len(message.get("body", b"")) for message in messages)


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
