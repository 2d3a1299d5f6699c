"""Users, roles and sign-in: who may do what over every route, and secrets that are nowhere to be read."""

from __future__ import annotations

import inspect
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidInput, LockedOut, NotAllowed, NotFound, NotSignedIn
from feedback.store.models import policies
from feedback.store.people import audit, users
from feedback.store.rows import as_row
from feedback.tables import AuditRow
from feedback.types import AuditEvent, UserRole, UserStatus, now
from studio.identity import LOCAL, Person
from studio.security import accounts as people
from studio.security import lockout, passwords, sessions
from studio.security.sessions import Auth
from studio.services.access import Acts, act, rule_of
from studio.services.facade import Services
from studio.web.api import label_screen
from studio.web.app import create_app
from tests import factories
from tests.factories import current_task, list_judgments
from training.home import Home
from training.operations.backup import back_up, restore

ORIGIN = {"Origin": "http://127.0.0.1:7860"}
ROLES = [None, *UserRole]
PASSWORD = "four plain words do"


def add(db: Database, name: str, role: str = "annotator") -> people.NewUser:
    return people.add_user(db, name, role, actor="test", password=PASSWORD)


def bearer(made: people.NewUser | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {made if isinstance(made, str) else made.token}"}


def cookie_name(client: TestClient) -> str:
    """What this home calls its cookie."""
    return client.app.state.auth.cookie_name  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def crowd(db: Database) -> dict[UserRole, people.NewUser]:
    """One user of each role, called as the role is."""
    return {role: add(db, f"the-{role.value}", role.value) for role in UserRole}


@contextmanager
def browser_of(client: TestClient, name: str, password: str = PASSWORD) -> Iterator[TestClient]:
    """The client as a browser in which this person signed in."""
    client.cookies.clear()
    answer = client.post("/login", data={"name": name, "password": password}, headers=ORIGIN, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    yield client
    client.cookies.clear()


# Who may do what ------------------------------------------------------------------------------------------

PUBLIC: set[tuple[str, str]] = {
    ("GET", "/api/health"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
}
ANNOTATOR = {
    ("GET", "/api/me"),
    ("POST", "/api/me/password"),
    ("GET", "/account"),
    ("POST", "/account"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/docs"),
    ("GET", "/api/guidelines"),
    ("POST", "/api/tasks/next"),
    ("POST", "/api/tasks/leave"),
    ("POST", "/api/judgments"),
    ("POST", "/api/tasks/{lease}/heartbeat"),
    ("POST", "/api/tasks/{lease}/release"),
    ("GET", "/api/messages"),
    *(("POST", f"/api/label/{act.__name__}") for act in label_screen.ACTS),
    ("GET", "/api/guidelines"),
}
REVIEWER = {
    ("GET", "/api/review"),
    ("GET", "/api/review/judgments"),
    ("POST", "/api/review/judgments/{judgment_id}/exclude"),
    ("POST", "/api/review/judgments/{judgment_id}/restore"),
    ("POST", "/api/review/matchups/{matchup_id}/requeue"),
    ("POST", "/api/review/matchups/{matchup_id}/gold"),
    ("POST", "/api/review/messages"),
    ("GET", "/api/review/acts"),
    ("POST", "/api/disputes/next"),
    ("GET", "/api/batches"),
    ("GET", "/api/checks"),
}
RESEARCHER = {
    ("POST", "/api/prompts"),
    ("GET", "/api/prompts"),
    ("POST", "/api/prompts/retire"),
    ("POST", "/api/prompts/restore"),
    ("POST", "/api/runs"),
    ("GET", "/api/runs"),
    ("GET", "/api/runs/{run_id}"),
    ("POST", "/api/runs/{run_id}/cancel"),
    ("POST", "/api/runs/{run_id}/annotate"),
    ("POST", "/api/runs/{run_id}/resume"),
    ("GET", "/api/runs/{run_id}/metrics"),
    ("GET", "/api/runs/{run_id}/log"),
    ("POST", "/api/guidelines"),
    ("POST", "/api/datasets"),
    ("GET", "/api/datasets"),
    ("GET", "/api/datasets/{key}"),
    ("GET", "/api/datasets/{key}/export"),
    ("GET", "/api/policies"),
    ("POST", "/api/policies"),
    ("POST", "/api/policies/check"),
    ("GET", "/api/policies/{key}"),
    ("GET", "/api/policies/{key}/check"),
    ("GET", "/api/board"),
    ("POST", "/api/rounds"),
    ("GET", "/api/rounds"),
    ("GET", "/api/rounds/{key}"),
    ("POST", "/api/rounds/{key}/pause"),
    ("POST", "/api/rounds/{key}/resume"),
    ("POST", "/api/rounds/{key}/skip"),
    ("POST", "/api/rounds/{key}/decide"),
    ("POST", "/api/rounds/{key}/fork"),
    ("POST", "/api/rounds/{key}/cancel"),
    ("GET", "/api/board/{a}/{b}"),
    ("POST", "/api/chats"),
    ("GET", "/api/chats"),
    ("POST", "/api/chats/preload"),
    ("GET", "/api/chats/{key}"),
    ("POST", "/api/chats/{key}/messages"),
    ("POST", "/api/chats/{key}/sampling"),
    ("POST", "/api/chats/{key}/replies"),
    ("POST", "/api/chats/{key}/stop"),
    ("POST", "/api/chats/{key}/preference"),
    ("POST", "/api/chats/{key}/reveal"),
    ("POST", "/api/chats/{key}/edit"),
    ("POST", "/api/chats/{key}/annotators"),
    ("POST", "/api/chats/{key}/archive"),
    ("POST", "/api/chats/{key}/restore"),
    ("POST", "/api/policies/{key}/promote"),
    ("POST", "/api/policies/{key}/export"),
    ("GET", "/api/policies/{key}/export"),
    ("POST", "/api/policies/{key}/rebase"),
    ("GET", "/api/policies/{key}/lineage"),
    ("GET", "/api/policies/{key}/gate"),
    ("GET", "/api/policies/{key}/people"),
    ("GET", "/api/policies/{key}/benchmarks"),
    ("GET", "/api/benchmarks"),
    ("GET", "/api/review/judgments/{judgment_id}/lineage"),
    ("POST", "/api/generations"),
    ("POST", "/api/batches"),
    ("POST", "/api/batches/{key}/priority"),
    ("POST", "/api/guidelines"),
    ("POST", "/api/checks"),
}
ADMIN = {
    ("GET", "/api/users"),
    ("POST", "/api/users"),
    ("POST", "/api/users/{name}/role"),
    ("POST", "/api/users/{name}/disable"),
    ("POST", "/api/users/{name}/enable"),
    ("POST", "/api/users/{name}/token"),
    ("POST", "/api/users/{name}/password"),
    ("GET", "/api/audit"),
}
NEEDED: dict[tuple[str, str], UserRole | None] = (
    dict.fromkeys(PUBLIC)
    | dict.fromkeys(ANNOTATOR, UserRole.annotator)
    | dict.fromkeys(REVIEWER, UserRole.reviewer)
    | dict.fromkeys(RESEARCHER, UserRole.researcher)
    | dict.fromkeys(ADMIN, UserRole.admin)
)
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/prompts"): {"prompts": [{"messages": [{"role": "user", "content": "Hi"}]}]},
    ("POST", "/api/prompts/retire"): {"ids": ["prm-none"]},
    ("POST", "/api/prompts/restore"): {"ids": ["prm-none"]},
    ("POST", "/api/runs"): {"method": "generate", "config": {}},
    ("POST", "/api/judgments"): {"lease": "lea-none", "verdict": "left"},
    ("POST", "/api/datasets"): {"name": "none"},
    ("POST", "/api/generations"): {"policy": "none", "messages": [{"role": "user", "content": "Hi"}]},
    ("POST", "/api/rounds"): {"name": "none", "settings": {"pairs": 0}},
    ("POST", "/api/rounds/{key}/decide"): {"choice": "hold"},
    ("POST", "/api/rounds/{key}/fork"): {"name": "none"},
    ("POST", "/api/chats"): {"left": "none"},
    ("POST", "/api/chats/preload"): {"policies": ["none"]},
    ("POST", "/api/chats/{key}/messages"): {"text": "Hi"},
    ("POST", "/api/chats/{key}/sampling"): {"sampling": {}},
    ("POST", "/api/chats/{key}/replies"): {"turn": 0},
    ("POST", "/api/chats/{key}/preference"): {"turn": 0, "verdict": "left"},
    ("POST", "/api/chats/{key}/edit"): {"turn": 0, "text": "Better."},
    ("POST", "/api/chats/{key}/annotators"): {"turn": 0},
    ("POST", "/api/policies"): {"model": "http:///none"},
    ("POST", "/api/policies/check"): {"model": "http:///none"},
    ("POST", "/api/policies/{key}/export"): {"form": "merged"},
    ("POST", "/api/policies/{key}/rebase"): {"base": "/nowhere/at/all"},
    ("POST", "/api/users"): {"name": "somebody"},
    ("POST", "/api/users/{name}/role"): {"role": "reviewer"},
    ("POST", "/api/me/password"): {"current": "x", "wanted": "y"},
    ("POST", "/api/review/judgments/{judgment_id}/exclude"): {"reason": "for a test"},
    ("POST", "/api/review/judgments/{judgment_id}/restore"): {"reason": "for a test"},
    ("POST", "/api/review/matchups/{matchup_id}/requeue"): {"reason": "for a test"},
    ("POST", "/api/review/matchups/{matchup_id}/gold"): {"gold": {"verdict": "first"}},
    ("POST", "/api/review/messages"): {"annotator": "the-annotator", "text": "for a test"},
    ("POST", "/api/batches"): {"name": "none", "count": 1},
    ("POST", "/api/batches/{key}/priority"): {"priority": 1},
    ("POST", "/api/guidelines"): {"text": "Choose well."},
    ("POST", "/api/checks"): {"gold_share": 0.1},
    **{("POST", f"/api/label/{act.__name__}"): {"seq": 1, "session": "browser-0001"} for act in label_screen.ACTS},
}


def every_route(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of every route of the studio's own, read from the app that is served."""
    found = []
    for route in client.app.routes:  # type: ignore[attr-defined]
        for inner in _flat(route):
            found += [(method, inner.path) for method in sorted(inner.methods - {"HEAD", "OPTIONS"})]
    return found


def _flat(route: Any) -> Iterator[APIRoute]:
    if isinstance(route, APIRoute):
        yield route
    for inner in getattr(getattr(route, "original_router", None), "routes", None) or ():
        yield from _flat(inner)


def call(client: TestClient, method: str, path: str, headers: dict[str, str]) -> int:
    """The status of a route called with a body it accepts and names that nothing answers to."""
    filled = re.sub(r"\{\w+\}", "none", path)
    return client.request(
        method, filled, json=BODIES.get((method, path)), headers=headers, follow_redirects=False
    ).status_code


def test_every_route_has_a_rule(client: TestClient) -> None:
    routes = every_route(client)
    assert len(routes) > 30
    assert set(routes) - set(NEEDED) == set(), "a route without a line in this file"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.value if role else "signed out")
def test_every_route_for_every_role(client: TestClient, crowd: dict, role: UserRole | None) -> None:
    headers = bearer(crowd[role]) if role else {}
    for method, path in every_route(client):
        needed = NEEDED[method, path]
        status = call(client, method, path, headers)
        if needed is None:
            assert status not in (403, 500), (path, status)
        elif role is None:
            assert status == 401, (method, path, status)
        elif path == "/api/me/password":
            assert status == 403, "the present password was wrong"
        elif role.covers(needed):
            assert status not in (401, 403, 500), (method, path, role, status)
        else:
            assert status == 403, (method, path, role, status)


NOUNS = [name for name, value in vars(Services).items() if isinstance(value, cached_property)]


def acts_of(services: Services) -> list[tuple[Acts, Any]]:
    """Every act, with the part of the services that it belongs to."""
    parts = [getattr(services, noun) for noun in NOUNS]
    return [(part, value) for part in parts for value in vars(type(part)).values() if hasattr(value, "rule")]


@pytest.mark.parametrize("role", UserRole)
def test_every_act_for_every_role(services: Services, crowd: dict, role: UserRole) -> None:
    acts = acts_of(services.acting_as(Person("somebody", role, "usr-x")))
    assert len(acts) > 80
    for part, done in acts:
        needed = rule_of(done).role
        if role.covers(needed):
            part.require(done)
        else:
            with pytest.raises(NotAllowed, match=f"needs an? {needed.value}"):
                done(part)  # refused before it misses its arguments


def test_a_method_that_names_no_role_is_refused_when_its_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Loose\.peek has no role: decorate it with @act"):

        class Loose(Acts):
            def peek(self) -> None:
                """Look."""


def test_an_act_is_done_by_whoever_is_signed_in_and_is_written_down(services: Services, crowd: dict) -> None:
    class Desk(Acts):
        @act(UserRole.reviewer, audit="judgment.exclude", about="judgment_id", detail="reason")
        def exclude(self, judgment_id: str, actor: str, reason: str = "slow") -> str:
            return f"{self.speaker(actor)}: {judgment_id}"

    annotator, reviewer = (Person(f"the-{name}", UserRole(name), "usr-x") for name in ("annotator", "reviewer"))
    given = Desk(services._shared, reviewer)
    assert given.exclude("jud-1", "local", reason="fast") == "the-reviewer: jud-1"
    assert given.exclude(judgment_id="jud-2", actor="the-reviewer") == "the-reviewer: jud-2"
    with pytest.raises(NotAllowed, match="act under that name"):
        given.exclude("jud-3", "somebody-else")
    with pytest.raises(NotAllowed, match="needs a reviewer"):
        Desk(services._shared, annotator).exclude("jud-4", "local")
    events = audit.list_events(given.db, limit=3)[::-1]
    assert [(event.actor, event.verb, event.subject, event.detail.get("reason")) for event in events] == [
        ("the-reviewer", "judgment.exclude", "jud-1", "fast"),
        ("the-reviewer", "judgment.exclude", "jud-2", "slow"),
        ("the-annotator", "refused", "desk.exclude", None),
    ]


def test_the_page_has_the_same_rules(client: TestClient, crowd: dict) -> None:
    """Each handler of the page, called by its number as a browser would: an annotator reaches labeling only."""
    app = client.app
    config = client.get("/config", headers=bearer(crowd[UserRole.admin])).json()
    reached: dict[str, set[str]] = {}
    for role in (UserRole.annotator, UserRole.researcher):
        with browser_of(client, f"the-{role.value}"):
            for number, dependency in enumerate(config["dependencies"]):
                if not dependency["backend_fn"] or dependency["queue"]:
                    continue
                data = [None] * len(dependency["inputs"])
                body = {"fn_index": dependency.get("id", number), "data": data, "session_hash": "s", "event_data": {}}
                answer = client.post("/gradio_api/run/predict", json=body, headers=ORIGIN)
                said = answer.text
                if "and may not do this" in said:
                    reached.setdefault(role.value, set()).add("refused")
    assert app is not None
    refusals = audit.list_events(client.app.state.services._shared.db, verb="refused", limit=500)  # type: ignore[attr-defined]
    refused = [(event.actor, event.subject.partition(".")[2]) for event in refusals]
    by = {role: {name for actor, name in refused if actor == f"the-{role}"} for role in UserRole}
    assert {"list_policies", "list_datasets", "list_runs", "fill_pool", "get_dataset"} & by[UserRole.annotator]
    assert by[UserRole.researcher] <= {"list_users", "list_audit", "add_user", "disable_user", "enable_user",
                                       "set_user_role", "new_token", "reset_password"}  # fmt: skip


# Without users everything stays as it was -----------------------------------------------------------------


def test_without_users_nobody_signs_in(client: TestClient, db: Database) -> None:
    assert client.get("/api/me").json() == {"name": "local", "role": "admin", "users": False}
    assert client.get("/login", follow_redirects=False).headers["location"] == "./"
    assert client.get("/account", follow_redirects=False).headers["location"] == "./"
    factories.make_matchup(db)
    lease = client.post("/api/tasks/next", json={"annotator": "any name"}).json()["lease"]
    judged = client.post("/api/judgments", json={"lease": lease, "verdict": "tie", "annotator": "any name"})
    assert judged.status_code == 201
    assert list_judgments(db)[0].annotator == "any name"


def test_the_first_user_from_the_page_must_be_an_admin(client: TestClient) -> None:
    refused = client.post("/api/users", json={"name": "ann"})
    assert (refused.status_code, "must be an admin" in refused.text) == (409, True)
    made = client.post("/api/users", json={"name": "ada", "role": "admin"}).json()
    assert client.get("/api/users").status_code == 401, "from the first user on, everybody signs in"
    assert [user["name"] for user in client.get("/api/users", headers=bearer(made["token"])).json()["users"]] == ["ada"]


def test_a_stranger_is_refused_while_there_are_no_users(home: Home, db: Database) -> None:
    app = create_app(home, db)
    with TestClient(app, base_url="http://127.0.0.1:7860", client=("203.0.113.9", 4711)) as stranger:
        answer = stranger.get("/api/prompts")
        assert (answer.status_code, "users add NAME --role admin" in answer.text) == (401, True)
        add(db, "ada", "admin")
        assert stranger.get("/api/prompts").status_code == 401


# The annotator is who is signed in ------------------------------------------------------------------------


def test_nobody_judges_under_another_name(client: TestClient, db: Database, crowd: dict) -> None:
    factories.make_matchup(db)
    ann, other = bearer(crowd[UserRole.annotator]), bearer(crowd[UserRole.reviewer])
    assert client.post("/api/tasks/next", json={"annotator": "the-reviewer"}, headers=ann).status_code == 403
    assert client.post("/api/tasks/next", headers={**ann, "X-Annotator": "the-admin"}).status_code == 403
    lease = client.post("/api/tasks/next", json={}, headers=ann).json()["lease"]
    assert client.post("/api/judgments", json={"lease": lease, "verdict": "left"}, headers=other).status_code == 409
    said = {"lease": lease, "verdict": "left", "annotator": "the-reviewer"}
    assert client.post("/api/judgments", json=said, headers=ann).status_code == 403
    assert client.post("/api/judgments", json={"lease": lease, "verdict": "left"}, headers=ann).status_code == 201
    assert [row.annotator for row in list_judgments(db)] == ["the-annotator"]


def test_two_people_at_one_browser_session_hold_their_own_leases(services: Services, db: Database) -> None:
    for _ in range(2):
        factories.make_matchup(db)
    add(db, "ada", "admin")
    first = current_task(services.acting_as(Person("ann", UserRole.annotator, "u1")), "same-browser")
    second = current_task(services.acting_as(Person("bob", UserRole.annotator, "u2")), "same-browser")
    assert first and second and first.lease_id != second.lease_id
    assert (first.annotator, second.annotator) == ("ann", "bob")


# Passwords, tokens, sessions ------------------------------------------------------------------------------


def test_no_secret_is_in_any_file(home: Home, db: Database, tmp_path: Path) -> None:
    made = people.add_user(db, "ann", "admin", actor="test")
    sign_in = Auth(home.path, db)
    cookie = sign_in.sign_in("ann", made.password, "127.0.0.1").cookie
    with pytest.raises(NotSignedIn):
        sign_in.sign_in("a secret typed as a name", "a secret that was wrong", "127.0.0.1")
    _, token_secret = made.token.split(".", 1)
    _, session_secret, signature = cookie.split(".")
    secrets = [made.password, token_secret, session_secret, signature, "a secret typed", "a secret that was wrong"]
    with db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "studio.db" and path.stat().st_size > 50_000 for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
    assert (home.path / "session.key").stat().st_mode & 0o777 == 0o600


def test_tokens_open_and_close(home: Home, db: Database) -> None:
    made = add(db, "ann")
    sign_in = Auth(home.path, db)
    assert sign_in.person_of_token(made.token) == Person("ann", UserRole.annotator, made.user.id)
    for wrong in ("", "studio_", made.token[:-1], made.token + "x", made.token.replace("key-", "key-x"), "ann", "."):
        assert sign_in.person_of_token(wrong) is None, wrong
    _, renewed = people.new_token(db, "ann", actor="test")
    assert sign_in.person_of_token(made.token) is None, "a new token replaces the one before"
    assert sign_in.person_of_token(renewed) is not None
    users.set_user_status(db, "ann", UserStatus.disabled, actor="test")
    assert sign_in.person_of_token(renewed) is None
    users.set_user_status(db, "ann", UserStatus.active, actor="test")
    assert sign_in.person_of_token(renewed) is None, "enabling does not revive what was ended"


def test_a_session_cannot_be_made_up(home: Home, db: Database) -> None:
    add(db, "ann")
    sign_in = Auth(home.path, db)
    cookie = sign_in.sign_in("ann", PASSWORD, "127.0.0.1").cookie
    key_id, secret, signature = cookie.split(".")
    assert sign_in.person_of_cookie(cookie) is not None
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    for wrong in (f"{key_id}.{secret}.{flipped}", f"{key_id}.{secret}", f"{key_id}x.{secret}.{signature}", "é.ü.ö", ""):
        assert sign_in.person_of_cookie(wrong) is None, wrong
    assert Auth(home.path, db).person_of_cookie(cookie) is not None, "a restart keeps the sessions"
    (home.path / "session.key").unlink()
    assert Auth(home.path, db).person_of_cookie(cookie) is None, "another home's key signs for nobody here"


def test_a_restored_home_makes_a_key_of_its_own(home: Home, tmp_path: Path) -> None:
    db = home.open()
    add(db, "ann")
    cookie = Auth(home.path, db).sign_in("ann", PASSWORD, "127.0.0.1").cookie
    back_up(home, db, tmp_path / "b.tar")
    db.dispose()
    restored = Home(tmp_path / "restored")
    restore(restored, tmp_path / "b.tar")
    sign_in = Auth(restored.path, copy := restored.open())
    assert sign_in.person_of_cookie(cookie) is None, "a session is of the home that opened it"
    assert sign_in.person_of_cookie(sign_in.sign_in("ann", PASSWORD, "127.0.0.1").cookie) is not None
    assert (restored.path / "session.key").read_bytes() != (home.path / "session.key").read_bytes()
    copy.dispose()


def test_a_session_ends_by_itself(home: Home, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add(db, "ann")
    sign_in = Auth(home.path, db)
    cookie = sign_in.sign_in("ann", PASSWORD, "127.0.0.1").cookie
    later = now() + timedelta(days=sessions.SESSION_DAYS, seconds=1)
    monkeypatch.setattr(sessions, "now", lambda: later)
    assert sign_in.person_of_cookie(cookie) is None


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: TestClient, home: Home, db: Database) -> None:
    add(db, "ann")
    form = {"name": "ann", "password": PASSWORD}
    answer = client.post("/login", data=form, headers=ORIGIN, follow_redirects=False)
    rules = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= rules and "secure" not in rules
    assert answer.headers["location"] == "./"
    with TestClient(create_app(home, db), base_url="https://127.0.0.1:7860") as over_tls:
        headers = {"Origin": "https://127.0.0.1:7860"}
        answer = over_tls.post("/login", data=form, headers=headers, follow_redirects=False)
        assert "secure" in answer.headers["set-cookie"].lower()


def test_signing_out_ends_every_copy_of_the_cookie(client: TestClient, db: Database) -> None:
    add(db, "ann")
    with browser_of(client, "ann"):
        copy = client.cookies[cookie_name(client)]
        assert client.get("/api/me").json()["name"] == "ann"
        left = client.post("/logout", headers=ORIGIN, follow_redirects=False)
        assert (left.status_code, left.headers["location"]) == (303, "login")
        assert cookie_name(client) not in client.cookies
    assert client.get("/api/me", headers={"Cookie": f"{cookie_name(client)}={copy}"}).status_code == 401


def test_a_disabled_user_is_out_at_once_and_the_judgments_stay(client: TestClient, db: Database, crowd: dict) -> None:
    factories.make_matchup(db)
    admin, ann = bearer(crowd[UserRole.admin]), crowd[UserRole.annotator]
    with browser_of(client, "the-annotator"):
        lease = client.post("/api/tasks/next", json={}, headers=ORIGIN).json()["lease"]
        judged = client.post("/api/judgments", json={"lease": lease, "verdict": "left"}, headers=ORIGIN)
        assert judged.status_code == 201
        cookie = {"Cookie": f"{cookie_name(client)}={client.cookies[cookie_name(client)]}"}
    assert client.get("/api/me", headers=cookie).status_code == 200
    assert client.post("/api/users/the-annotator/disable", headers=admin).json()["status"] == "disabled"
    assert client.get("/api/me", headers=cookie).status_code == 401
    assert client.get("/api/me", headers=bearer(ann)).status_code == 401
    with pytest.raises(AssertionError, match="401|wrong"), browser_of(client, "the-annotator"):
        pass
    assert [row.annotator for row in list_judgments(db)] == ["the-annotator"]
    client.post("/api/users/the-annotator/enable", headers=admin)
    with browser_of(client, "the-annotator"):
        assert client.get("/api/me").status_code == 200


def test_a_role_holds_from_the_next_request_on(client: TestClient, crowd: dict) -> None:
    admin, ann = bearer(crowd[UserRole.admin]), bearer(crowd[UserRole.annotator])
    assert client.get("/api/policies", headers=ann).status_code == 403
    client.post("/api/users/the-annotator/role", json={"role": "researcher"}, headers=admin)
    assert client.get("/api/policies", headers=ann).status_code == 200


def test_python_beside_a_benchmark_task_is_an_admins_to_run(client: TestClient, crowd: dict, db: Database) -> None:
    policies.promote_policy(db, factories.make_policy(db, "starter").id)
    asked = {"method": "benchmark", "config": {"policy": "starter", "tasks": "mine", "include": "/srv/tasks"}}
    refused = client.post("/api/runs", json=asked, headers=bearer(crowd[UserRole.researcher]))
    assert refused.status_code == 403 and "only an admin may name a folder" in refused.text
    assert client.post("/api/runs", json=asked, headers=bearer(crowd[UserRole.admin])).status_code == 202


def test_the_last_admin_stays(db: Database, crowd: dict) -> None:
    for change in (
        lambda: users.set_user_status(db, "the-admin", UserStatus.disabled, actor="test"),
        lambda: users.set_user_role(db, "the-admin", UserRole.reviewer, actor="test"),
    ):
        with pytest.raises(Conflict, match="only admin"):
            change()
    add(db, "second", "admin")
    users.set_user_status(db, "the-admin", UserStatus.disabled, actor="test")
    with pytest.raises(Conflict, match="only admin"):
        users.set_user_role(db, "second", UserRole.annotator, actor="test")


def test_ones_own_password(client: TestClient, db: Database, crowd: dict) -> None:
    with browser_of(client, "the-annotator"):
        form = {"current": PASSWORD, "wanted": "another long password", "again": "another long passwort"}
        assert "differently" in client.post("/account", data=form, headers=ORIGIN).text
        form["again"] = form["wanted"]
        wrong = client.post("/account", data={**form, "current": "no"}, headers=ORIGIN)
        assert (wrong.status_code, "present password is wrong" in wrong.text) == (422, True)
        assert "10 to 200" in client.post("/account", data={**form, "wanted": "x", "again": "x"}, headers=ORIGIN).text
        assert "is changed" in client.post("/account", data=form, headers=ORIGIN).text
        assert client.get("/api/me").status_code == 401, "the session ended with the password"
    with browser_of(client, "the-annotator", "another long password"):
        assert client.get("/api/me").status_code == 200


# Wrong passwords ------------------------------------------------------------------------------------------


def test_too_many_wrong_passwords_lock_and_say_until_when(client: TestClient, db: Database) -> None:
    add(db, "ann")
    form = {"name": "ann", "password": "wrong"}
    answers = [client.post("/login", data=form, headers=ORIGIN) for _ in range(lockout.TRIES_PER_NAME_AND_ADDRESS + 1)]
    assert [answer.status_code for answer in answers] == [401] * lockout.TRIES_PER_NAME_AND_ADDRESS + [429]
    assert "The name or the password is wrong." in answers[0].text
    assert re.search(r"locked until \d\d:\d\d UTC, for 15 more minutes", answers[-1].text)
    assert 0 < int(answers[-1].headers["retry-after"]) <= 15 * 60
    right = client.post("/login", data={**form, "password": PASSWORD}, headers=ORIGIN, follow_redirects=False)
    assert right.status_code == 429, "not even the right one is looked at"
    people.reset_password(db, "ann", actor="test", password=PASSWORD)
    with browser_of(client, "ann"):
        assert client.get("/api/me").status_code == 200


def test_a_session_is_no_place_to_guess_the_password(client: TestClient, db: Database) -> None:
    """At either door, and together: a stolen session or token must not become the password."""
    made = add(db, "ann")
    form = {"current": "wrong", "wanted": "another long password", "again": "another long password"}
    with browser_of(client, "ann"):
        statuses = [client.post("/account", data=form, headers=ORIGIN).status_code for _ in range(3)]
        body = {"current": "wrong", "wanted": form["wanted"]}
        statuses += [client.post("/api/me/password", json=body, headers=bearer(made)).status_code for _ in range(3)]
        assert statuses == [422] * 3 + [403] * 2 + [429]
        right = client.post("/account", data={**form, "current": PASSWORD}, headers=ORIGIN)
        assert (right.status_code, "locked until" in right.text) == (429, True), "not even the right one is looked at"
        assert 0 < int(right.headers["retry-after"]) <= 15 * 60
    answer = client.post("/login", data={"name": "ann", "password": PASSWORD}, headers=ORIGIN, follow_redirects=False)
    assert answer.status_code == 429, "one count for both"
    told = {(event.actor, event.subject) for event in audit.list_events(db, verb="sign_in.failed")}
    assert told == {("ann", "ann from testclient")}
    assert passwords.password_matches(PASSWORD, users.get_user(db, "ann").password_hash)
    people.reset_password(db, "ann", actor="test", password=PASSWORD)
    changed = client.post("/api/me/password", json={**body, "current": PASSWORD}, headers=bearer(made))
    assert changed.json() == {"changed": True}


def test_a_lock_ends_by_itself_and_survives_a_restart(
    home: Home, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, "ann")
    for _ in range(lockout.TRIES_PER_NAME_AND_ADDRESS):
        with pytest.raises(NotSignedIn):
            Auth(home.path, db).sign_in("ann", "wrong", "10.0.0.1")
    with pytest.raises(LockedOut) as locked:
        Auth(home.path, db).sign_in("ann", PASSWORD, "10.0.0.1")
    assert Auth(home.path, db).sign_in("ann", PASSWORD, "10.0.0.2"), "elsewhere ann is not shut out by a guesser"
    after = locked.value.until + timedelta(seconds=1)
    monkeypatch.setattr(lockout, "now", lambda: after)
    assert Auth(home.path, db).sign_in("ann", PASSWORD, "10.0.0.1").person.name == "ann"


def at(db: Database, moment: datetime, verb: str, subject: str) -> None:
    """An act as it is written down while the clock shows another time."""
    event = AuditEvent(actor="nobody", verb=verb, subject=subject)
    with db.write() as session:
        session.add(as_row(AuditRow, event, created_at=moment))


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(days=400)])
def test_a_clock_that_was_ahead_locks_for_no_longer_than_usual(home: Home, db: Database, ahead: timedelta) -> None:
    add(db, "ann")
    for _ in range(lockout.TRIES_PER_NAME_AND_ADDRESS):
        at(db, now() + ahead, "sign_in.failed", "ann from 10.0.0.1")
    sign_in = Auth(home.path, db)
    if ahead > lockout.LOCK_WINDOW:
        assert sign_in.sign_in("ann", PASSWORD, "10.0.0.1")
        return
    with pytest.raises(LockedOut, match="for 15 more minutes") as locked:
        sign_in.sign_in("ann", PASSWORD, "10.0.0.1")
    assert locked.value.until <= now() + lockout.LOCK_WINDOW


def test_a_sign_in_dated_in_the_future_forgives_no_guesses(home: Home, db: Database) -> None:
    add(db, "ann")
    for verb, subject in (("sign_in", "ann from 10.0.0.1"), ("user.password", "ann")):
        at(db, now() + timedelta(days=400), verb, subject)
    sign_in = Auth(home.path, db)
    for _ in range(lockout.TRIES_PER_NAME_AND_ADDRESS):
        with pytest.raises(NotSignedIn):
            sign_in.sign_in("ann", "wrong", "10.0.0.1")
    with pytest.raises(LockedOut):
        sign_in.sign_in("ann", "wrong", "10.0.0.1")


def test_guesses_from_everywhere_and_at_every_name_are_counted(
    home: Home, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, "ann")
    monkeypatch.setattr(lockout, "password_matches", lambda *_: False)  # only the counting is looked at here
    sign_in = Auth(home.path, db)
    for number in range(lockout.TRIES_PER_NAME):
        with pytest.raises(NotSignedIn):
            sign_in.sign_in("ann", "wrong", f"10.0.0.{number}")
    with pytest.raises(LockedOut):
        sign_in.sign_in("ann", "wrong", "10.0.1.1")
    for number in range(lockout.TRIES_PER_ADDRESS):
        with pytest.raises(NotSignedIn):
            sign_in.sign_in(f"name-{number}", "wrong", "10.0.2.1")
    with pytest.raises(LockedOut):
        sign_in.sign_in("name-x", "wrong", "10.0.2.1")


def test_an_address_that_a_proxy_made_up_is_not_written_down() -> None:
    from starlette.requests import Request

    from studio.web.guard.authentication import address_of

    told = {"10.0.0.1": "10.0.0.1", "::1": "::1", "ann from 1.2.3.4": "unknown", "x" * 5000: "unknown", "": "unknown"}
    for given, known in told.items():
        assert address_of(Request({"type": "http", "headers": [], "client": (given, 0)})) == known


def test_guesses_at_once_do_not_slip_past_the_count(home: Home, db: Database) -> None:
    add(db, "ann")
    sign_in = Auth(home.path, db)
    ends: list[str] = []

    def guess() -> None:
        try:
            sign_in.sign_in("ann", "wrong", "10.0.0.1")
        except (NotSignedIn, LockedOut) as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("NotSignedIn") == lockout.TRIES_PER_NAME_AND_ADDRESS
    assert ends.count("LockedOut") == 12 - lockout.TRIES_PER_NAME_AND_ADDRESS


def test_unknown_names_are_not_told_apart(home: Home, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words, and the same work: an unknown name is checked against a password that nobody has."""
    add(db, "ann")
    add(db, "gone")
    users.set_user_status(db, "gone", UserStatus.disabled, actor="test")
    sign_in, told, work = Auth(home.path, db), set(), []
    real = passwords._scrypt
    monkeypatch.setattr(passwords, "_scrypt", lambda *values: work.append(values[2:]) or real(*values))
    for name in ("ann", "gone", "nobody-of-that-name"):
        with pytest.raises(NotSignedIn) as refused:
            sign_in.sign_in(name, "wrong password", "10.0.0.9")
        told.add(str(refused.value))
    assert len(told) == 1
    assert work == [(2**15, 8, 1)] * 3, "one full hash each: no short cut tells who exists"


def test_secrets_are_compared_in_constant_time_only() -> None:
    """No ``==`` on a secret anywhere in sign-in: every comparison is ``hmac.compare_digest``."""
    source = inspect.getsource(sessions) + inspect.getsource(passwords)
    compared = re.findall(r"^.*(?:==|!=).*$", source, re.MULTILINE)
    assert compared == []
    assert source.count("hmac.compare_digest(") == 3


def test_passwords_that_would_be_guessed_are_refused(db: Database) -> None:
    for bad in ("short", "aaaaaaaaaaaa", "a-long-name-here", "x" * 201):
        with pytest.raises(InvalidInput):
            people.add_user(db, "a-long-name-here", "annotator", actor="test", password=bad)
    assert users.list_users(db) == []
    assert len({passwords.new_password() for _ in range(50)}) == 50
    assert passwords.password_matches("pässwörter sind schön", passwords.hash_password("pässwörter sind schön"))


# Other sites ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.invalid"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_no_other_site_uses_a_session(client: TestClient, db: Database, headers: dict[str, str]) -> None:
    add(db, "ada", "admin")
    body = {"prompts": [{"messages": [{"role": "user", "content": "Hi"}]}]}
    with browser_of(client, "ada"):
        assert client.post("/api/prompts", json=body, headers=headers).status_code == 403
        assert client.post("/logout", headers=headers, follow_redirects=False).status_code == 403
        assert client.post("/api/users", json={"name": "eve"}, headers=headers).status_code == 403
        assert client.get("/api/prompts").json() == {"prompts": []}
        assert client.post("/api/prompts", json=body, headers=ORIGIN).status_code == 200
        assert client.post("/api/prompts", json=body, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_two_studios_on_one_machine_keep_their_own_cookies(tmp_path: Path, db: Database) -> None:
    names = {Auth(Home(tmp_path / name).create().path, db).cookie_name for name in ("one", "two")}
    assert len(names) == 2


def test_a_form_is_small(client: TestClient, db: Database) -> None:
    add(db, "ann")
    long = {"name": "ann", "password": "x" * 20_000}
    assert client.post("/login", data=long, headers=ORIGIN).status_code == 413


def test_no_get_changes_anything(client: TestClient, db: Database, crowd: dict) -> None:
    policies.promote_policy(db, factories.make_policy(db, "none").id)
    factories.make_matchup(db)
    factories.judge_by(db, factories.longer)
    freeze.freeze(db, "none")
    before = _content(db)
    for method, path in every_route(client):
        if method == "GET":
            for headers in ({}, bearer(crowd[UserRole.admin])):
                call(client, method, path, headers)
    assert _content(db) == before


def _content(db: Database) -> dict[str, list[Any]]:
    """Every row of every table but the audit log, which also tells who took data out."""
    with db.engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
        return {
            name: sorted(map(str, connection.exec_driver_sql(f'SELECT * FROM "{name}"').all()))
            for name in names
            if name != "audit"
        }


# The audit log --------------------------------------------------------------------------------------------


def test_who_did_what_is_written_down(client: TestClient, db: Database, crowd: dict) -> None:
    policy = factories.make_policy(db, "base")
    factories.make_matchup(db, policy=policy)
    factories.judge_by(db, factories.longer)
    res, admin = bearer(crowd[UserRole.researcher]), bearer(crowd[UserRole.admin])
    client.post("/api/datasets", json={"name": "d"}, headers=res)
    client.get("/api/datasets/d/export", headers=res)
    client.post("/api/policies/base/promote", headers=res)
    client.post("/api/runs", json={"method": "generate", "config": {}}, headers=res)
    client.post("/api/datasets", json={"name": "d2"}, headers=bearer(crowd[UserRole.annotator]))
    client.post("/api/datasets", json={"name": "../bad"}, headers=res)
    client.post("/api/users", json={"name": "new"}, headers=admin)
    with browser_of(client, "the-admin"):
        pass
    events = client.get("/api/audit", headers=admin).json()["events"]
    told = [(event["actor"], event["verb"], event["subject"]) for event in events]
    for expected in [
        ("the-researcher", "dataset.freeze", "d"),
        ("the-researcher", "dataset.export", "d"),
        ("the-researcher", "policy.promote", "base"),
        ("the-annotator", "refused", "datasets.freeze"),
        ("the-admin", "user.add", "new"),
        ("the-admin", "user.token", "new"),
        ("the-admin", "sign_in", "the-admin from testclient"),
    ]:
        assert told.count(expected) == 1, expected
    run = next(event for event in events if event["verb"] == "run.submit")
    assert run["subject"].startswith("run-") and run["detail"] == {"method": "generate"}
    assert not any("bad" in subject for _, _, subject in told), "what was refused as invalid was not done"
    numbers = [event["number"] for event in events]
    assert numbers == sorted(numbers, reverse=True)
    older = client.get("/api/audit", params={"before": numbers[2], "limit": 2}, headers=admin).json()["events"]
    assert [event["number"] for event in older] == numbers[3:5]
    mine = client.get("/api/audit", params={"actor": "the-annotator"}, headers=admin).json()["events"]
    assert {event["actor"] for event in mine} == {"the-annotator"}


def test_the_audit_log_can_only_grow(db: Database) -> None:
    audit.save_event(db, "ann", "policy.promote", "x")
    path = db.engine.url.database
    assert path
    for statement in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1"):
        with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="can only grow"):
            connection.execute(statement)
    with pytest.raises(Exception, match="can only grow"), db.write() as session:
        session.delete(session.get_one(AuditRow, 1))
    assert [event.actor for event in audit.list_events(db)] == ["ann"]


# Exports --------------------------------------------------------------------------------------------------


def test_exports_carry_pseudonyms_and_come_home_under_the_name(db: Database, tmp_path: Path) -> None:
    made = [add(db, name) for name in ("maria-lopez", "li-wei")]
    policy = factories.make_policy(db, "base")
    for number in range(4):
        factories.make_matchup(db, policy=policy)
        factories.judge_by(db, factories.longer, annotator=made[number % 2].user.name)
    freeze.freeze(db, "d", freeze.DatasetFilters(annotators=("maria-lopez", "li-wei")))
    for name in formats.FORMATS:
        formats.export_dataset(db, "d", name, tmp_path / f"one.{name}")
        formats.export_dataset(db, "d", name, tmp_path / f"two.{name}")
        assert (tmp_path / f"one.{name}").read_bytes() == (tmp_path / f"two.{name}").read_bytes(), "stable"
    written = b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "studio.db" not in path.name
    )
    assert b"maria" not in written and b"li-wei" not in written
    aliases = [users.get_user(db, one.user.id).pseudonym for one in made]
    assert all(alias.encode() in written for alias in aliases) and len(set(aliases)) == 2
    back = formats.import_file(db, tmp_path / "one.raw", "raw")
    assert (back["already_there"], back["judgments"]) == (4, 0)
    assert {row.annotator for row in list_judgments(db)} == {"maria-lopez", "li-wei"}


def test_names_are_unique_for_ever_and_never_odd(db: Database) -> None:
    add(db, "ann")
    users.set_user_status(db, "ann", UserStatus.disabled, actor="test")
    for taken in ("ann", "ANN"):
        with pytest.raises(Conflict, match="already a user"):
            add(db, taken)
    for odd in ("local", "Studio", "oracle:shorter", "<b>", "", "a b", "../x"):
        with pytest.raises(InvalidInput):
            add(db, odd)
    with pytest.raises(NotFound, match="Known: ann"):
        users.get_user(db, "bob")
    with pytest.raises(InvalidInput, match="annotator, reviewer, researcher, admin"):
        add(db, "bob", "king")
    assert LOCAL.name == "local"
