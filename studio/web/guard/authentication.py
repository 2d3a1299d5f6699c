"""Who is asking: every request passes here before a route or the page sees it.

Without users everybody on this machine is ``LOCAL`` and passes. With users a request needs a token
(``Authorization: Bearer``) or the cookie of a session; what has neither is led to the sign-in page, or answered 401
where no person would read a page. What the person may do is decided later, in ``Services.acting_as``.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.identity import LOCAL, PERSON, Person
from studio.security.sessions import Auth
from studio.web.guard.mount import is_loopback
from studio.web.guard.request_guard import SAFE_METHODS
from studio.web.server.refusals import NOT_SERVED, not_served, shortened

# The page's own code, which is the same for everybody, and the ways in and out.
_PUBLIC = {"/api/health", "/login", "/logout", "/favicon.ico", "/manifest.json"}
_PUBLIC_FILES = ("/assets/", "/static/")


@dataclass(frozen=True)
class Asker:
    """What is known of a request: a person, or nobody, and then ``refusal`` says why."""

    person: Person | None = None
    by_cookie: bool = False
    refusal: str = ""


class Gate:
    """ASGI middleware that puts the person behind a request into its scope, or turns it away."""

    def __init__(self, app: ASGIApp, auth: Auth, host: str = "127.0.0.1", token: str = "") -> None:
        self.app = app
        self.auth = auth
        self.token = token
        self.loopback_only = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "The studio speaks HTTP only."})
            return
        if scope["type"] == "http":
            try:
                refusal = await self._enter(scope)
            except NOT_SERVED as error:
                refusal = not_served(error)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _enter(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), get_route_path(scope)
        public = path in _PUBLIC or (path.startswith(_PUBLIC_FILES) and scope["method"] in SAFE_METHODS)
        scope[PERSON] = None
        if public and path not in ("/login", "/logout"):
            return None
        asker = await self._look_up(headers, (scope.get("client") or ("",))[0])
        scope[PERSON] = asker.person
        if asker.by_cookie and scope["method"] not in SAFE_METHODS and not _from_a_page(headers):
            return JSONResponse({"detail": _COOKIE_WITHOUT_ORIGIN}, status_code=403)
        if asker.refusal == _NO_TOKEN and self._brings_token(scope):
            return self._remember_token(scope)
        if asker.refusal and not public:
            return _turn_away(scope, path, headers, asker.refusal)
        return None

    async def _look_up(self, headers: Headers, address: str) -> Asker:
        """Who asks; in a thread where that may take a while, for to change threads costs more than a light look."""
        if self.auth.is_light:
            return self._ask(headers, address)
        return await run_sync(self._ask, headers, address)

    def _ask(self, headers: Headers, address: str) -> Asker:
        if self.auth.is_open():
            # A proxy on this machine makes every stranger look local, but says for whom it asks.
            if self.loopback_only and address and not _is_local(address):
                return Asker(refusal=_STRANGER.format(address=shortened(address, 100)))
            return self._ask_for_token(headers) if self.token else Asker(LOCAL)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            person = self.auth.person_of_token(token.strip())
            return Asker(person) if person else Asker(refusal=_BAD_TOKEN)
        cookie = cookie_parser(headers.get("cookie", "")).get(self.auth.cookie_name)
        person = self.auth.person_of_cookie(cookie) if cookie else None
        return Asker(person, by_cookie=True) if person else Asker(refusal=_SIGNED_OUT)

    def _ask_for_token(self, headers: Headers) -> Asker:
        """While there are no users: whether a request has the token of this start."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return Asker(LOCAL) if _same(given.strip(), self.token) else Asker(refusal=_NO_TOKEN)
        cookie = cookie_parser(headers.get("cookie", "")).get(self._token_cookie, "")
        return Asker(LOCAL, by_cookie=True) if _same(cookie, self.token) else Asker(refusal=_NO_TOKEN)

    @property
    def _token_cookie(self) -> str:
        return f"{self.auth.cookie_name}_open"

    def _brings_token(self, scope: Scope) -> bool:
        """Whether the address of the page has the token in it."""
        if scope["method"] != "GET" or get_route_path(scope) not in ("", "/"):
            return False
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])
        return _same(given[0], self.token)

    def _remember_token(self, scope: Scope) -> Response:
        """Let the browser keep the token, and take it out of the address, which others may see."""
        answer = RedirectResponse("./", status_code=303, headers={"Cache-Control": "no-store"})
        path = scope.get("root_path") or "/"
        secure = scope.get("scheme") == "https"
        answer.set_cookie(self._token_cookie, self.token, httponly=True, samesite="lax", secure=secure, path=path)
        return answer


def address_of(request: Request) -> str:
    """Where a request comes from, as the audit log and the lock-out know it.

    A proxy says for whom it asks; what it says there, and is no address, is not taken over.
    """
    host = request.client.host if request.client else ""
    return host if _is_address(host) else "unknown"


def _turn_away(scope: Scope, path: str, headers: Headers, why: str) -> Response:
    wants_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
    if wants_page and not path.startswith(("/api/", "/gradio_api/")) and why == _SIGNED_OUT:
        # Relative at the front page, so that it holds under whatever prefix a proxy serves it.
        target = "login" if path in ("", "/") else f"{scope.get('root_path', '')}/login"
        return RedirectResponse(target, status_code=303, headers={"Cache-Control": "no-store"})
    return JSONResponse({"detail": why}, status_code=401, headers={"WWW-Authenticate": "Bearer"})


def _from_a_page(headers: Headers) -> bool:
    """Whether a browser vouches for where a request comes from; the guard has checked what it says."""
    return "origin" in headers or headers.get("sec-fetch-site") == "same-origin"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "testclient"
    return True


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _is_local(address: str) -> bool:
    return is_loopback(address) or address == "testclient"


_SIGNED_OUT = "Sign in first: open the studio's page, or send a token with `Authorization: Bearer TOKEN`."
_BAD_TOKEN = (
    "This token is unknown, was replaced, or belongs to a disabled user; an admin makes another with "
    "`studio users token NAME`."
)
_NO_TOKEN = (
    "This studio was started with --token: open the address that `studio up` printed, or send the token, which also "
    "is in the file open.token of its home, with `Authorization: Bearer TOKEN`."
)
_STRANGER = (
    "This studio has no users, so it serves only people on its own machine, and this request comes from {address}. "
    "Add an admin first: `studio users add NAME --role admin`."
)
_COOKIE_WITHOUT_ORIGIN = (
    "A change made with a browser's session must come from the studio's own page; a script sends a token with "
    "`Authorization: Bearer TOKEN`."
)
