"""Of Gradio's routes there are those that the page needs, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database
from feedback.types import UserRole
from studio.page.gradio_routes import is_there
from studio.security import accounts as users
from tests.studio.conftest import Opened

NOT_THERE = [
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/process_recording"),
    ("GET", "/gradio_api/upload_progress"),
    ("GET", "/gradio_api/file=https://example.org/x"),
    ("HEAD", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file/etc/passwd"),
    ("GET", "/gradio_api/proxy=https://example.org/x"),
    ("POST", "/gradio_api/stream/abc"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/component_server/"),
    ("POST", "/gradio_api/call/v2/predict"),
    ("POST", "/gradio_api/call/predict"),
    ("POST", "/gradio_api/api/predict"),
    ("POST", "/gradio_api/run/other"),
    ("POST", "/gradio_api/vibe-edit"),
    ("GET", "/gradio_api/vibe-code"),
    ("GET", "/gradio_api/deep_link"),
    ("GET", "/gradio_api/dev/reload"),
    ("GET", "/gradio_api/token"),
    ("GET", "/gradio_api/custom_component/a/b/c/d.js"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/monitoring"),
    ("GET", "/monitoring/summary"),
    ("GET", "/deep_link"),
    ("GET", "/pwa_icon"),
    ("GET", "/logout"),
    ("GET", "/logout/"),
    ("GET", "/login/"),
    ("POST", "/"),
    ("GET", "/whatever"),
    ("GET", "/gradio_api/queue/status"),
]


@pytest.mark.parametrize(("method", "path"), NOT_THERE)
def test_what_the_page_does_not_need_is_not_there(opened: Opened, method: str, path: str) -> None:
    answer = opened.client.request(method, path, content=b"x" if method == "POST" else None)
    assert answer.status_code == 404
    if method != "HEAD":
        assert isinstance(answer.json()["detail"], str)


def test_nobody_leaves_files_here(client: TestClient, db: Database, tmp_path: Path) -> None:
    users.add_user(db, "boss", "admin", actor="test")
    for role in UserRole:
        token = users.add_user(db, f"one-{role.value}", role, actor="test").token
        for path in ("upload", "process_recording"):
            files = {"files": ("x.txt", b"x"), "video": ("y.webm", b"y" * 1000)}
            answer = client.post(f"/gradio_api/{path}", files=files, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 404, role


def test_a_route_that_a_later_release_brings_is_brought_in_vain() -> None:
    for method, path in [("GET", "/new"), ("GET", "/gradio_api/new"), ("POST", "/gradio_api/new"), ("PUT", "/config")]:
        assert not is_there(method, path)
    for method, path in [("GET", "/assets/index.js"), ("GET", "/gradio_api/heartbeat/abc"), ("POST", "/login")]:
        assert is_there(method, path)


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/startup-events"])
def test_what_the_page_needs_is_there(opened: Opened, path: str) -> None:
    assert opened.client.get(path).status_code == 200


def test_a_form_is_no_place_for_parts(client: TestClient, db: Database) -> None:
    users.add_user(db, "boss", "admin", actor="test")
    boundary = "b" * 10_000
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Origin": "http://127.0.0.1:7860"}
    answer = client.post("/login", content=f"--{boundary}--".encode(), headers=headers)
    assert answer.status_code == 415
