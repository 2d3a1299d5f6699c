"""REST under /api: the services as JSON. A route does: body → one service call → JSON.

Routes are plain functions, so FastAPI runs them in threads and a database wait never blocks the page; the two that
run per vote hand their work to one thread that keeps the order (``Services.in_turn``). Each module of this room holds
the routes of one resource.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from studio import __version__
from studio.page.views import api_reference as api_reference_view
from studio.services.facade import Services
from studio.web.api import datasets, label_screen, labeling, policies, prompts, review, rounds, runs, users
from studio.web.server.errors import TOLD, tell, tell_invalid, tell_unreadable
from studio.web.server.on_demand import OnDemand
from studio.web.server.refusals import shortened, tell_failure

router = APIRouter(prefix="/api")
_METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


def add_api(app: FastAPI, services: Services) -> None:
    """Give an app the routes of this module and the way their errors are told."""
    app.state.services = services
    app.state.on_demand = OnDemand()
    app.state.examining = OnDemand("requests to examine models", 2, math.inf)  # the examiner has a limit of its own
    for waited_for in (app.state.on_demand, app.state.examining):
        app.router.on_shutdown.insert(0, waited_for.close)
    app.include_router(router)
    for module in (prompts, runs, labeling, label_screen, datasets, policies, rounds, review, users):
        app.include_router(module.router)
    app.add_exception_handler(RequestValidationError, tell_invalid)
    app.add_exception_handler(HTTPException, tell_unreadable)
    for kind in TOLD:
        app.add_exception_handler(kind, tell)
    app.add_exception_handler(Exception, tell_failure)


def add_last(app: FastAPI) -> None:
    """Tell what asks /api for something there is not, before the page, which answers every path, is asked for it."""

    def refuse(request: Request) -> JSONResponse:
        path = request.url.path
        before = list(itertools.takewhile(lambda route: getattr(route, "endpoint", None) is not refuse, app.routes))
        ways = [way for way in _METHODS if any(_answers(route, dict(request.scope, method=way)) for route in before)]
        if not ways:
            detail = f"There is nothing at {shortened(path, 200)}. What there is: /api/docs."
            return JSONResponse({"detail": detail}, 404)
        detail = f"{shortened(path, 200)} is not asked with {request.method} but with {' or '.join(ways)}."
        return JSONResponse({"detail": detail}, 405, {"Allow": ", ".join(ways)})

    app.router.add_route("/api/{rest:path}", refuse, methods=_METHODS, include_in_schema=False)


def _answers(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is Match.FULL


@router.get("/health", tags=["studio"])
async def health() -> dict[str, str]:
    """Whether the studio answers, and which release it is."""
    return {"status": "ok", "version": __version__}


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI description of every route."""
    described: dict[str, Any] = request.app.openapi()
    return described


@router.get("/docs", include_in_schema=False)
def reference(request: Request) -> HTMLResponse:
    """The routes as a page that loads nothing from elsewhere."""
    return HTMLResponse(api_reference_view.api_reference(request.app.openapi()))
