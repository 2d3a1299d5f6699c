"""What every request passes before a route: guard, authentication, the fast path of votes, the routes of the page."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI

from studio.page.gradio_routes import PageRoutes
from studio.security.sessions import Auth
from studio.services.facade import Services
from studio.web.fast_path import FastPath
from studio.web.guard.authentication import Gate
from studio.web.guard.mount import Mount
from studio.web.guard.request_guard import Guard


def add_front(
    page: FastAPI, services: Services, auth: Auth, *, host: str, mount: Mount, token: str, scripts: Sequence[str]
) -> FastAPI:
    """Put the middleware before an app; what is added last is passed first."""
    page.add_middleware(PageRoutes)
    page.add_middleware(FastPath, services=services)
    page.add_middleware(Gate, auth=auth, host=host, token=token)
    page.add_middleware(Guard, host=host, mount=mount, scripts=scripts)
    return page
