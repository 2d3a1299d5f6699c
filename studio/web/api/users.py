"""REST for people: who one is, users, tokens and the audit log. Secrets are in the answer that makes them, once."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from feedback.tables import UserRow
from studio.identity import LOCAL
from studio.web.api.dependencies import Given
from studio.web.api.schemas import PasswordIn, RoleIn, UserIn
from studio.web.guard.authentication import address_of

router = APIRouter(prefix="/api", tags=["people"])


@router.get("/me")
def me(services: Given) -> dict[str, Any]:
    """Who is asking, and as what; ``users`` is false while the studio has none and everybody may do everything."""
    person = services.users.whoami()
    return {"name": person.name, "role": person.role.value, "users": person != LOCAL}


@router.post("/me/password")
async def change_own_password(body: PasswordIn, services: Given, request: Request) -> dict[str, bool]:
    """Change one's own password; one's sessions end, the token stays."""
    change = partial(services.users.change_own_password, body.current, body.wanted, address_of(request))
    await request.app.state.passwords.run(change)
    return {"changed": True}


@router.get("/users")
def list_users(services: Given) -> dict[str, Any]:
    """All users, disabled ones too."""
    return {"users": [_user(row) for row in services.users.list_users()]}


@router.post("/users", status_code=201)
def add_user(body: UserIn, services: Given) -> dict[str, Any]:
    """Add a user. ``password`` and ``token`` are shown this once."""
    made = services.users.add_user(body.name, body.role)
    return {**_user(made.user), "password": made.password, "token": made.token}


@router.post("/users/{name}/role")
def set_user_role(name: str, body: RoleIn, services: Given) -> dict[str, Any]:
    """Give a user another role; it holds from their next request on."""
    return _user(services.users.set_user_role(name, body.role))


@router.post("/users/{name}/disable")
def disable_user(name: str, services: Given) -> dict[str, Any]:
    """Shut a user out at once; their judgments stay."""
    return _user(services.users.disable_user(name))


@router.post("/users/{name}/enable")
def enable_user(name: str, services: Given) -> dict[str, Any]:
    """Let a disabled user in again; their old token stays dead."""
    return _user(services.users.enable_user(name))


@router.post("/users/{name}/token")
def new_token(name: str, services: Given) -> dict[str, Any]:
    """Another token, shown this once; the one before stops working."""
    row, token = services.users.new_token(name)
    return {**_user(row), "token": token}


@router.post("/users/{name}/password")
def reset_password(name: str, services: Given) -> dict[str, Any]:
    """Another password, made up and shown this once; the user's sessions end."""
    row, password = services.users.reset_password(name)
    return {**_user(row), "password": password}


@router.get("/audit")
def list_audit(
    services: Given,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Who did what when, newest first; ``before`` a number reads on."""
    events = services.users.list_audit(limit, before, actor)
    return {
        "events": [
            event.model_dump(mode="json", include={"number", "created_at", "actor", "verb", "subject", "detail"})
            for event in events
        ]
    }


def _user(row: UserRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role.value,
        "status": row.status.value,
        "created_at": row.created_at.isoformat(),
    }
