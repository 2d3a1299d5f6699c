"""Without users: open on loopback, or with ``--token`` by the address that the command prints."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database
from studio.security import accounts as users
from studio.security import open_access
from studio.web.app import create_app
from tests.studio.running import running
from training.home import Home

TOKEN = "a-token-of-this-start"


@pytest.fixture
def client(home: Home, db: Database) -> TestClient:
    return TestClient(create_app(home, db, token=TOKEN), base_url="http://127.0.0.1:7860")


def test_without_the_token_nothing_opens(client: TestClient) -> None:
    for method, path in [("GET", "/"), ("GET", "/api/runs"), ("POST", "/api/tasks/next"), ("GET", "/config")]:
        for sent in ({}, {"headers": {"Authorization": "Bearer other"}}, {"params": {"token": "other"}}):
            answer = client.request(method, path, **sent)  # type: ignore[arg-type]
            assert answer.status_code == 401 and "--token" in answer.json()["detail"]
    assert client.get("/api/runs", params={"token": TOKEN}).status_code == 401  # for the page alone
    assert client.get("/api/health").status_code == 200


def test_the_address_opens_the_page_and_the_browser_remembers(client: TestClient) -> None:
    first = client.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert first.status_code == 303 and TOKEN not in first.headers["location"]
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/me").json()["role"] == "admin"
    assert client.post("/api/tasks/next", json={}).status_code == 403  # no page vouches for it
    assert client.post("/api/tasks/next", json={}, headers={"Origin": "http://127.0.0.1:7860"}).status_code == 204


def test_a_script_sends_it_as_any_token(client: TestClient) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.post("/api/tasks/next", json={}, headers=headers).status_code == 204


def test_with_users_it_opens_nothing(client: TestClient, db: Database) -> None:
    users.add_user(db, "boss", "admin", actor="test")
    assert client.get("/api/runs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 401
    assert client.get("/", params={"token": TOKEN}, follow_redirects=False).headers.get("location") != "./"


@pytest.mark.slow
def test_the_command_prints_the_address_and_keeps_the_token_to_itself(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    with running(home, "--token") as studio:
        file = home.path / open_access.TOKEN_FILE
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        token = file.read_text()
        assert studio.printed == f"{studio.url}/?token={token}"
        assert httpx.get(f"{studio.url}/api/runs").status_code == 401
        assert httpx.get(f"{studio.url}/api/runs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        with httpx.Client(follow_redirects=True) as browser:
            assert "RLHF Studio" in browser.get(studio.printed).text
    assert not file.exists()


def test_a_shared_machine_is_told(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwd = tmp_path / "passwd"
    people_of = ["ann:x:1001:1001::/home/ann:/bin/bash", "bob:x:1002:1002::/home/bob:/bin/zsh"]
    others = ["daemon:x:1:1::/:/usr/sbin/nologin", "svc:x:1003:1003::/:/bin/false", "nobody:x:65534:1::/:/bin/sh"]
    passwd.write_text("\n".join([*people_of, *others, f"me:x:{os.getuid()}:0::/root:/bin/bash"]))
    names = open_access.list_others(passwd)
    assert names == ["ann", "bob"]
    monkeypatch.setattr(open_access, "list_others", lambda: names)
    warning = open_access.who_may_enter(db, "")
    assert "ann, bob" in warning and "--token" in warning and "\n" not in warning
    assert open_access.who_may_enter(db, TOKEN) == ""
    users.add_user(db, "boss", "admin", actor="test")
    assert open_access.who_may_enter(db, "") == ""
