"""Signing in and out, and one's own account: plain forms that need no script. Changes only by POST."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from feedback.errors import LockedOut, NotSignedIn, StudioError, Unavailable
from studio.identity import LOCAL, PERSON, Person
from studio.page.views import login as login_view
from studio.security.sessions import SESSION_DAYS, Auth
from studio.services.facade import Services
from studio.web.guard.authentication import address_of
from studio.web.server.on_demand import Limited

router = APIRouter(include_in_schema=False)

Field = Annotated[str, Form()]

PASSWORDS_WAITING = 15
"""Passwords that wait to be looked at. Each takes a tenth of a second or more, one at a time."""


def add_login(app: FastAPI, auth: Auth) -> None:
    """Give an app the sign-in, sign-out and account pages."""
    app.state.auth = auth
    app.state.passwords = Limited("sign-ins", 1, waiting=PASSWORDS_WAITING)
    app.router.on_shutdown.append(app.state.passwords.close)
    app.include_router(router)


@router.get("/login", response_model=None)
def ask(request: Request) -> HTMLResponse | RedirectResponse:
    """The sign-in page; whoever is in already, or needs not be, goes to the studio."""
    auth: Auth = request.app.state.auth
    if request.scope.get(PERSON) is not None or auth.is_open():
        return _to_the_studio()
    return _page(login_view.sign_in_page())


@router.post("/login", response_model=None)
async def sign_in(request: Request, name: Field = "", password: Field = "") -> HTMLResponse | RedirectResponse:
    """Check a name and a password, and begin a session."""
    auth: Auth = request.app.state.auth
    passwords: Limited = request.app.state.passwords
    if await run_sync(auth.is_open):
        return _to_the_studio()
    try:
        session = await passwords.run(partial(auth.sign_in, name, password, address_of(request)))
    except Unavailable as error:
        return _page(login_view.sign_in_page(name, str(error)), 503, {"Retry-After": str(error.retry_after)})
    except LockedOut as error:
        return _page(login_view.sign_in_page(name, str(error)), 429, _retry_after(error))
    except NotSignedIn as error:
        return _page(login_view.sign_in_page(name, str(error)), 401)
    answer = _to_the_studio()
    answer.set_cookie(auth.cookie_name, session.cookie, max_age=SESSION_DAYS * 86_400, **_cookie_rules(request))
    return answer


@router.post("/logout")
def sign_out(request: Request) -> RedirectResponse:
    """End the session, here and for every copy of its cookie."""
    auth: Auth = request.app.state.auth
    auth.sign_out(request.cookies.get(auth.cookie_name, ""))
    answer = RedirectResponse("login", status_code=303)
    answer.delete_cookie(auth.cookie_name, **_cookie_rules(request))
    return answer


@router.get("/account", response_model=None)
def account(request: Request) -> HTMLResponse | RedirectResponse:
    """Who one is, and a form for another password."""
    person: Person | None = request.scope.get(PERSON)
    if person is None or person == LOCAL:
        return _to_the_studio()
    return _page(login_view.account_page(person.name, person.role.value))


@router.post("/account", response_model=None)
async def change_password(
    request: Request, current: Field = "", wanted: Field = "", again: Field = ""
) -> HTMLResponse | RedirectResponse:
    """Change one's own password; every session of the person ends, this one too."""
    person: Person | None = request.scope.get(PERSON)
    services: Services = request.app.state.services
    if person is None or person == LOCAL:
        return _to_the_studio()
    try:
        if wanted != again:
            raise StudioError("The new password was typed differently the second time; nothing was changed.")
        change = services.acting_as(person).users.change_own_password
        passwords: Limited = request.app.state.passwords
        await passwords.run(partial(change, current, wanted, address_of(request)))
    except Unavailable as error:
        page = login_view.account_page(person.name, person.role.value, str(error))
        return _page(page, 503, {"Retry-After": str(error.retry_after)})
    except LockedOut as error:
        return _page(login_view.account_page(person.name, person.role.value, str(error)), 429, _retry_after(error))
    except StudioError as error:
        return _page(login_view.account_page(person.name, person.role.value, str(error)), 422)
    changed = "The password is changed. Sign in with the new one."
    return _page(login_view.sign_in_page(person.name, note=changed, action="login"))


def _page(text: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    rules = {"Content-Security-Policy": login_view.SIGN_IN_CONTENT_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(text, status, headers={**rules, **(headers or {})})


def _retry_after(error: LockedOut) -> dict[str, str]:
    return {"Retry-After": str(max(1, int((error.until - datetime.now(UTC)).total_seconds())))}


def _to_the_studio() -> RedirectResponse:
    # Relative: "login" and "account" lie beside the page, whatever prefix a proxy puts before both.
    return RedirectResponse("./", status_code=303, headers={"Cache-Control": "no-store"})


def _cookie_rules(request: Request) -> dict[str, Any]:
    secure = request.url.scheme == "https"
    return {"httponly": True, "samesite": "lax", "secure": secure, "path": request.scope.get("root_path") or "/"}
