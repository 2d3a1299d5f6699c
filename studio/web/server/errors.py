"""Errors as replies: the status of each kind, and one sentence as ``{"detail": ...}``."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi import Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from feedback.errors import (
    Conflict,
    DatabaseDamaged,
    EndpointFailed,
    InvalidInput,
    LockedOut,
    NotAllowed,
    NotEnoughData,
    NotFound,
    NotSignedIn,
    StudioError,
    Unavailable,
)
from studio.web.server.refusals import shortened, unavailable

_STATUS: list[tuple[type[StudioError], int]] = [
    (NotFound, 404),
    (Conflict, 409),
    (NotSignedIn, 401),
    (NotAllowed, 403),
    (LockedOut, 429),
    (InvalidInput, 422),
    (NotEnoughData, 422),
    (EndpointFailed, 502),
    (DatabaseDamaged, 500),
]
# What no database can hold, wherever in a request it stood; as a key to look up it matches nothing anywhere.
_BEYOND: list[tuple[type[Exception], str]] = [
    (OverflowError, "A number is larger than any database can hold; give a smaller one."),  # than 64 bits
    (
        UnicodeEncodeError,  # JSON can name half of a pair, UTF-8 cannot
        "A text holds half of a surrogate pair, which no database can hold; send whole Unicode characters.",
    ),
]
# What FastAPI calls an error in parsing, whatever it was; of two that fit, the first is the reason.
_UNREADABLE: list[tuple[type[Exception], str]] = [
    (RecursionError, "it is nested too deeply; send an object with fewer levels"),
    (UnicodeDecodeError, "it is not UTF-8; encode it as UTF-8"),
    (ValueError, f"a number in it has more than {sys.get_int_max_str_digits()} digits; give a smaller one"),
]
TOLD: tuple[type[Exception], ...] = (StudioError, *(kind for kind, _ in _BEYOND))


def tell(_request: Request, error: Exception) -> JSONResponse:
    """A mistake of whoever asked, in the sentence it came with, or in ours where the driver found it.

    What cannot be done right now is nobody's mistake: 503, and when to ask again.
    """
    if not isinstance(error, StudioError):
        return JSONResponse({"detail": next(said for kind, said in _BEYOND if isinstance(error, kind))}, 422)
    if isinstance(error, Unavailable):
        return unavailable(error)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return JSONResponse({"detail": shortened(str(error))}, status_code=status)


async def tell_unreadable(request: Request, error: Exception) -> Response:
    """Why a body could not be read and what to send; FastAPI's other errors as it tells them itself."""
    cause = error.__cause__
    for kind, reason in _UNREADABLE:
        if isinstance(cause, kind):
            return JSONResponse({"detail": f"The body cannot be read: {reason}."}, 400)
    return await http_exception_handler(request, error)  # type: ignore[arg-type]


def tell_invalid(_request: Request, error: Exception) -> JSONResponse:
    """The first complaint about a body or a parameter, in one sentence."""
    found = list(error.errors()) if isinstance(error, RequestValidationError) else []
    first: dict[str, Any] = found[0] if found else {"loc": (), "msg": str(error)}
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    given = first.get("input")
    if first.get("type") == "json_invalid":
        where, said = "", f"The body is not JSON: {first['ctx']['error']} (at character {first['loc'][-1]})"
        given = None
    shown = f" (it was {json.dumps(given)[:120]})" if isinstance(given, str | int | float | bool) else ""
    detail = f"{where}: {said}{shown}." if where else f"{said}{shown}."
    return JSONResponse({"detail": shortened(detail)}, status_code=422)
