"""Bodies are limited by route before they are parsed, and a large one is parsed beside the event loop."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from studio.web.app import create_app
from studio.web.bulk_prompts import MAX_PARTS, read_prompts
from studio.web.guard.request_guard import Guard
from studio.web.server import limits
from tests.studio.conftest import Opened
from tests.studio.running import Running, running, watched
from training.home import Home

JSON = {"Content-Type": "application/json"}
SMALL = [
    "/api/judgments", "/api/tasks/next", "/api/users", "/api/users/ann/role", "/api/me/password", "/api/runs",
    "/api/datasets", "/api/checks", "/api/review/judgments/j/exclude", "/api/review/messages",
]  # fmt: skip
UNREAD = ["/api/nothing", "/api/prompts/", "/", "/login/"]  # nobody reads what comes in chunks
LONGER = [
    "/api/guidelines", "/api/batches", "/api/generations", "/api/label/vote", "/gradio_api/queue/join",
    "/gradio_api/run/predict",
]  # fmt: skip


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Home(tmp_path_factory.mktemp("limits") / "home").create()) as studio:
        yield studio


@pytest.mark.parametrize(
    ("path", "declared"),
    [(path, declared) for path in SMALL + LONGER for declared in (True, False)] + [(path, True) for path in UNREAD],
)
def test_a_body_larger_than_its_route_needs_is_refused(opened: Opened, path: str, declared: bool) -> None:
    size = limits.TEXT_BYTES if path in LONGER else limits.ACT_BYTES
    body = b'{"' + b"k" * size + b'": 1}'
    sent = body if declared else iter([body[: size // 2], body[size // 2 : size], body[size:]])
    answer = opened.client.post(path, content=sent, headers=JSON)
    assert answer.status_code == 413
    assert limits.shown(size) in answer.json()["detail"]


def test_a_prefix_does_not_widen_a_limit(home: Home, db: Database) -> None:
    from studio.web.guard.mount import Mount

    mount = Mount.parse("/studio")
    client = TestClient(create_app(home, db, mount=mount), base_url="http://127.0.0.1:7860")
    body = b" " * (limits.ACT_BYTES + 1)
    assert client.post("/studio/api/judgments", content=body, headers=JSON).status_code == 413
    assert client.post("/studio/api/prompts", content=body, headers=JSON).status_code == 422


def test_many_unknown_keys_are_one_error(client: TestClient) -> None:
    body = {f"k{index}": 1 for index in range(20_000)}
    for path in ("/api/judgments", "/api/tasks/next", "/api/runs", "/api/prompts"):
        for kind in ("application/json", "application/json; charset=utf-8"):
            answer = client.post(path, content=json.dumps(body), headers={"Content-Type": kind})
            assert answer.status_code == 422
            assert "'k0'" in answer.json()["detail"] and len(answer.content) < 1000


def test_a_body_that_does_not_arrive_ends_with_408(home: Home, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACT_SECONDS", 0.0)

    async def sent() -> None:
        import asyncio

        answers = []

        async def receive() -> dict:
            await asyncio.sleep(3600)
            return {}

        async def send(message: dict) -> None:
            answers.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/api/judgments", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")], "client": ("127.0.0.1", 1),
        }  # fmt: skip
        await Guard(create_app(home, db))(scope, receive, send)
        assert answers[0]["status"] == 408
        assert (b"connection", b"close") in answers[0]["headers"]

    import asyncio

    asyncio.run(sent())


def prompts(count: int, content: str = "Hi") -> dict:
    return {"prompts": [{"messages": [{"role": "user", "content": f'{content} {i} \\ " é 😀'}]} for i in range(count)]}


@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_many_prompts_are_read_as_json_is(ascii: bool, indent: int | None) -> None:
    body = json.dumps(prompts(50), ensure_ascii=ascii, indent=indent).encode()
    assert read_prompts(body).model_dump()["prompts"] == [
        {**one, "tags": [], "split": "work"} for one in prompts(50)["prompts"]
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "expected '{'"),
        (b"[]", "expected '{'"),
        (b"\xff", "not UTF-8"),
        (b"{}", "expected '\"'"),
        (b'{"k0": 1}', "'k0'"),
        (b'{"prompts": 3}', "expected '['"),
        (b'{"prompts": []}', "at least 1"),
        (b'{"prompts": [1]}', "prompts.0"),
        (b'{"prompts": [{', "expected the end"),
        (b'{"prompts": [{]}', "Prompt 1 is not JSON"),
        (b'{"prompts": [{"a"}]}', "Prompt 1 is not JSON"),
        (b'{"prompts": [{"messages": "', "without an end"),
        (b'{"prompts": [' + b'{"messages":' + b"[" * 100 + b"]" * 100 + b"}]}", "too deeply"),
        (b'{"prompts": [{"messages": [' + b"1," * MAX_PARTS + b"1]}]}", str(MAX_PARTS)),
        (b'{"prompts": [{"x": 1' + b"0" * 5000 + b"}]}", "not JSON"),
        (b'{"prompts": [{"messages": [{"role": "user", "content": "Hi"}]}]} more', "nothing after"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused_at_its_first_mistake(body: bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_prompts(body)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


def test_an_invalid_prompt_is_named() -> None:
    body = prompts(3)
    body["prompts"][2]["messages"][0]["role"] = "boss"
    with pytest.raises(RequestValidationError) as refused:
        read_prompts(json.dumps(body).encode())
    assert refused.value.errors()[0]["loc"] == ("body", "prompts", 2, "messages", 0, "role")


def test_a_large_import_is_taken_and_a_wrong_one_named(client: TestClient, db: Database) -> None:
    body = prompts(4000, "word " * 20)
    for kind in ("application/json", "application/json; charset=utf-8"):
        sent = json.dumps(body).encode()
        assert len(sent) > limits.ACT_BYTES
        answer = client.post("/api/prompts", content=sent, headers={"Content-Type": kind})
        assert answer.status_code == 200, answer.text
    assert answer.json() == {"added": 0, "duplicates": 4000}
    body["prompts"][3999]["messages"][0]["role"] = "boss"
    answer = client.post("/api/prompts", content=iter([json.dumps(body).encode()]), headers=JSON)
    assert answer.status_code == 422 and answer.json()["detail"].startswith("prompts.3999.messages.0.role")


@pytest.mark.slow
def test_nobody_waits_for_a_hostile_body(studio: Running) -> None:
    keys = ("{" + ",".join(f'"k{i}":1' for i in range(2_000_000)) + "}").encode()
    bodies = [
        ("/api/judgments", keys, 413),
        ("/api/prompts", keys, 422),
        ("/api/prompts", b'{"prompts":[' + keys + b"]}", 422),
        ("/api/prompts", b'{"prompts":[{"messages":[' + b"[]," * 5_000_000 + b"]}]}", 422),
        ("/api/prompts", b'{"prompts":["' + b"\\n" * 20_000_000 + b'"]}', 422),
    ]
    before = studio.memory()
    with watched(studio.url) as pulse:
        for path, body, status in bodies:
            assert httpx.post(studio.url + path, content=body, headers=JSON, timeout=120).status_code == status
    assert pulse.longest < 5
    assert studio.memory() - before < 600


def test_only_some_large_bodies_are_read_at_once(studio: Running) -> None:
    at = urlsplit(studio.url)
    fields = [f"Host: {at.netloc}", "Content-Type: application/json", f"Content-Length: {limits.ACT_BYTES * 2}"]
    head = "\r\n".join(["POST /api/prompts HTTP/1.1", *fields, "", ""]).encode()
    held = [socket.create_connection((str(at.hostname), at.port or 0)) for _ in range(4)]
    try:
        for one in held:
            one.sendall(head)
        answer = httpx.Response(200)
        for _ in range(50):  # the four are read a moment later
            answer = httpx.post(f"{studio.url}/api/prompts", content=b" " * 300_000, headers=JSON, timeout=60)
            if answer.status_code == 503:
                break
            time.sleep(0.1)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert httpx.post(f"{studio.url}/api/prompts", json=prompts(1), timeout=60).status_code == 200
    finally:
        for one in held:
            one.close()


def test_a_path_without_its_own_limit_is_held_to_that_of_an_act() -> None:
    assert limits.body_bytes("/api/whatever/comes") == limits.ACT_BYTES == 256 * 1024
    assert limits.body_bytes("/login") == limits.FORM_BYTES
    assert limits.body_bytes("/api/prompts") == 64 * 1024 * 1024
