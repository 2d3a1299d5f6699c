"""What is answered to a request that is no mistake and yet cannot be served: in one sentence, and when to ask again.

A database that is locked by another process or restarting comes back by itself, and slow work ends, so whoever asked
is told 503 and ``Retry-After``. Anything that nobody foresaw is a bug: the log has its traceback, the answer a
sentence.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from feedback.errors import DatabaseDamaged, StudioError, Unavailable

NOT_SERVED = (Unavailable, DatabaseDamaged)
"""What any request may meet, before its route is asked."""

LONGEST = 2000
"""Characters of a sentence; it may quote what was sent, which may be long."""


def unavailable(error: Unavailable) -> JSONResponse:
    """503 with ``Retry-After``."""
    answer = JSONResponse({"detail": shortened(str(error))}, status_code=503)
    answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def not_served(error: StudioError) -> JSONResponse:
    """What to answer when the database cannot even say who asks."""
    if isinstance(error, Unavailable):
        return unavailable(error)
    return JSONResponse({"detail": shortened(str(error))}, status_code=500)


def tell_failure(_request: Request, error: Exception) -> JSONResponse:
    """500 for a bug, in the form of every other error; the server logs its traceback."""
    kind = type(error).__name__
    said = f"The studio failed to answer ({kind}); its log has the rest, and `studio doctor` looks at the database."
    return JSONResponse({"detail": said}, status_code=500)


def shortened(text: str, longest: int = LONGEST) -> str:
    """A sentence that quotes what was sent, without its middle where it is too long."""
    if len(text) <= longest:
        return text
    half = (longest - 20) // 2
    return f"{text[:half]} […] {text[-half:]}"
