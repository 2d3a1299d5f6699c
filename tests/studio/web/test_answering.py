"""Whatever hangs, the rest of the studio goes on answering: endpoints, passwords, the database."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from feedback.database import engine as database
from feedback.database.engine import Database
from studio.security import accounts as users
from studio.services.facade import Services
from studio.services.policies import Policies
from studio.web.app import create_app
from studio.web.login import PASSWORDS_WAITING
from studio.web.server.on_demand import REPLIES_AT_ONCE
from tests import factories
from tests.studio.running import Running, running, until, watched
from tests.training.served import reply_to, serving
from training.checkpoints.registration import add_policy
from training.home import Home

MESSAGES = [{"role": "user", "content": "Say it."}]


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []
        over = threading.Event()

        def take() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        over.set()
        for one in held:
            one.close()


@contextlib.contextmanager
def opened(home: Home) -> Iterator[Database]:
    db = home.open()
    try:
        yield db
    finally:
        db.dispose()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[tuple[Running, Home]]:
    home = Home(tmp_path / "home").create()
    with running(home) as served:
        yield served, home


def ask(url: str, policy: str, seconds: float) -> httpx.Response | None:
    body = {"policy": policy, "messages": MESSAGES, "max_new_tokens": 8}
    try:
        return httpx.post(f"{url}/api/generations", json=body, timeout=seconds)
    except httpx.TimeoutException:
        return None


@pytest.mark.slow
def test_an_endpoint_that_hangs_takes_nothing_else_along(studio: tuple[Running, Home]) -> None:
    served, home = studio
    with silent_server() as silent, serving("chatty") as good, opened(home) as db:
        row = factories.make_policy(db, "hangs")
        with db.write() as session:
            stored = session.get(type(row), row.id)
            stored.base = f"{silent}#m"
        good.behave = lambda body, before: reply_to(body, "Here I am.")
        add_policy(db, good.base, "answers")
        many = REPLIES_AT_ONCE + 8
        with ThreadPoolExecutor(many) as pool, watched(served.url) as pulse:
            asked = [pool.submit(ask, served.url, "hangs", 20) for _ in range(many)]
            answers = [one.result() for one in asked]
            for path in ("/api/runs", "/api/guidelines", "/api/policies"):
                assert httpx.get(served.url + path, timeout=30).status_code == 200
        refused = [one for one in answers if one is not None]
        assert len(refused) == 8
        assert {one.status_code for one in refused} == {503}
        assert all(int(one.headers["Retry-After"]) > 0 and "ask again" in one.json()["detail"] for one in refused)
        assert pulse.longest < 10
        # Nobody waits any more, so the places are free again long before the endpoint's own time is over.
        until(lambda: (answer := ask(served.url, "answers", 30)) is not None and answer.status_code == 200)
        for _ in range(REPLIES_AT_ONCE):
            threading.Thread(target=ask, args=(served.url, "hangs", 60), daemon=True).start()
        time.sleep(1)
        begun = time.monotonic()
        served.process.terminate()
        assert served.process.wait(30) is not None
        assert time.monotonic() - begun < 25


def test_replies_have_a_deadline(client: TestClient, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.web.server.on_demand.REPLIES_SECONDS", 0.5)
    with silent_server() as silent:
        row = factories.make_policy(db, "hangs")
        with db.write() as session:
            session.get(type(row), row.id).base = f"{silent}#m"
        answer = client.post("/api/generations", json={"policy": "hangs", "messages": MESSAGES})
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "60"
    assert "POST /api/runs" in answer.json()["detail"]


@pytest.mark.slow
def test_passwords_wait_apart_from_everything_else(studio: tuple[Running, Home]) -> None:
    served, home = studio
    with opened(home) as db:
        users.add_user(db, "ann", "admin", actor="test")
    many = 60

    def guess(number: int) -> int:
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "Origin": served.url}
        fields = {"name": f"nobody{number}", "password": "wrong password"}
        answer = httpx.post(f"{served.url}/login", data=fields, headers=headers, timeout=120)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0 and "sign-ins" in answer.text
        return answer.status_code

    with ThreadPoolExecutor(many) as pool, watched(served.url) as pulse:
        asked = [pool.submit(guess, number) for number in range(many)]
        assert httpx.get(f"{served.url}/login", timeout=30).status_code == 200
        seen = [one.result() for one in asked]
    assert set(seen) <= {401, 503}
    assert seen.count(503) >= 1 and seen.count(401) >= PASSWORDS_WAITING
    assert pulse.longest < 5


@pytest.fixture
def locked(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TestClient, Database]]:
    """A studio whose database another process holds, and which does not wait long."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.2)
    path = home.path / "studio.db"
    db = database.open_database(path)
    policy = factories.make_policy(db, "p")
    for number in range(3):
        factories.make_matchup(db, policy=policy, texts=[f"a{number}", f"b{number}"])
    app = create_app(home, db)
    with TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False) as client:
        lease = client.post("/api/tasks/next", json={}).json()["lease"]
        client.headers["x-lease"] = lease
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield client, db
        other.rollback()
        other.close()
    db.dispose()


def is_told(answer: httpx.Response) -> bool:
    detail = answer.json()["detail"]
    return answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0 and "database" in detail


def test_a_locked_database_is_told_on_every_way(locked: tuple[TestClient, Database]) -> None:
    client, _ = locked
    vote = {"lease": client.headers["x-lease"], "verdict": "left"}
    slow = {"Content-Type": "application/json; charset=utf-8"}
    assert is_told(client.post("/api/tasks/next", json={}))
    assert is_told(client.post("/api/judgments", json=vote))
    assert is_told(client.post("/api/judgments", json=vote, headers=slow))
    assert is_told(client.post("/api/prompts", json={"prompts": [{"messages": MESSAGES}]}))
    big = {"prompts": [{"messages": [{"role": "user", "content": f"{i} " + "x" * 1000}]} for i in range(300)]}
    assert is_told(client.post("/api/prompts", json=big))
    assert is_told(client.post("/api/users", json={"name": "ann", "role": "admin"}))
    assert client.get("/api/health").status_code == 200
    assert client.get("/api/policies").status_code == 200  # who reads need not wait


@pytest.mark.slow
@pytest.mark.parametrize("act", ["deck", "vote", "undo", "draft"])
def test_a_locked_database_is_told_to_the_labeling_screen(locked: tuple[TestClient, Database], act: str) -> None:
    client, _ = locked
    body = {"seq": 1, "session": "browser-0001", "lease": client.headers["x-lease"], "said": {"verdict": "left"}}
    assert is_told(client.post(f"/api/label/{act}", json=body | {"content": {"rationale": "because"}}))


@pytest.mark.parametrize("role", [None, "annotator"])
def test_a_database_that_is_away_is_told_everywhere(home: Home, role: str | None) -> None:
    path = home.path / "studio.db"
    db = database.open_database(path)
    headers = {}
    if role:
        users.add_user(db, "boss", "admin", actor="test")
        headers = {"Authorization": f"Bearer {users.add_user(db, 'ann', role, actor='test').token}"}
    app = create_app(home, db)
    with TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False) as client:
        assert client.get("/api/me", headers=headers).status_code == 200
        db.dispose()
        path.rename(path.with_suffix(".gone"))
        path.mkdir()
        routes = [
            ("GET", "/api/me"),
            ("POST", "/api/tasks/next"),
            ("POST", "/api/judgments"),
            ("GET", "/api/guidelines"),
        ]
        for method, route in routes:
            body = {"lease": "x", "verdict": "left"} if route == "/api/judgments" else {}
            sent = {"json": body} if method == "POST" else {}
            answer = client.request(method, route, headers=headers, **sent)
            assert is_told(answer), (route, answer.text)
        assert client.get("/api/health").status_code == 200
        path.rmdir()
        path.with_suffix(".gone").rename(path)
        assert client.get("/api/me", headers=headers).status_code == 200


def test_a_bug_is_told_in_the_form_of_every_error(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(services._shared.home, services._shared.db)
    monkeypatch.setattr(Policies, "list_policies", lambda self: 1 / 0)
    with TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False) as client:
        answer = client.get("/api/policies")
    assert answer.status_code == 500 and "ZeroDivisionError" in answer.json()["detail"]


def test_an_error_does_not_repeat_all_that_was_sent(client: TestClient) -> None:
    for answer in (
        client.post("/api/judgments", json={"lease": "x" * 200_000, "verdict": "left"}),
        client.get(f"/api/runs/{'y' * 10_000}"),
        client.get(f"/api/{'z' * 10_000}"),
        client.post("/api/runs", json={"method": "m" * 200_000}),
    ):
        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 5000
