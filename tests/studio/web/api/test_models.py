"""A model is checked and added over REST: by whom, what is refused, and that it is done in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database
from feedback.store.models import policies
from feedback.store.people import audit
from feedback.types import Policy, UserRole
from studio.security import accounts
from studio.services.facade import Services
from tests.training.served import Served, serving
from training.home import Home

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    """The database of the home itself: a process of its own opens that."""
    database = home.open()
    yield database
    database.dispose()


@pytest.fixture
def researcher(db: Database) -> dict[str, str]:
    accounts.add_user(db, "root", "admin", actor="test")
    made = accounts.add_user(db, "res", "researcher", actor="test")
    return {"Authorization": f"Bearer {made.token}"}


@pytest.fixture
def admin(db: Database, researcher: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {accounts.add_user(db, 'ada', 'admin', actor='test').token}"}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("STUDIO_ENDPOINT_KEY", "STUDIO_ENDPOINT_KEY_127_0_0_1"):
        monkeypatch.delenv(name, raising=False)
    with serving("small", "large") as server:
        yield server


def refused(client: TestClient, body: dict[str, str], headers: dict[str, str], path: str = "/api/policies") -> str:
    answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == 403, answer.text
    return str(answer.json()["detail"])


def test_a_model_is_checked_then_added_and_added_once(client: TestClient, db: Database, tiny_base: Path) -> None:
    report = client.post("/api/policies/check", json={"model": str(tiny_base)}).json()
    assert report["architecture"] == "LlamaForCausalLM (llama)" and "timed here" in report["timing"]
    assert all(one["works"] and one["needed_mb"] > 0 for one in report["methods"])
    assert policies.list_policies(db) == [], "a check adds nothing"

    body = {"model": str(tiny_base), "name": "mine", "chat_template": "plain"}
    answer = client.post("/api/policies", json=body)
    assert answer.status_code == 201, answer.text
    assert [answer.json()] == client.get("/api/policies").json()["policies"]
    assert (answer.json()["name"], answer.json()["champion"]) == ("mine", False)
    (event,) = audit.list_events(db, verb="policy.add")
    assert (event.subject, event.detail) == (str(tiny_base), {"name": "mine", "chat_template": "plain"})
    checked = client.post("/api/policies/check", json={"model": "mine"}).json()
    assert checked["chat_template"] == "plain, chosen when it was added"


def test_an_error_comes_as_the_kind_that_it_was(client: TestClient, db: Database, tmp_path: Path) -> None:
    policies.save_policy(db, Policy(name="far", base="somebody/else"))
    for body, status, words in (
        ({"model": str(tmp_path / "none")}, 422, "There is no model directory"),
        ({"model": "http://127.0.0.1:9/v1#m"}, 502, "see whether the server runs"),
        ({"model": "http:///v1#m"}, 422, "is not the address of a server"),
        ({"model": "starter", "chat_template": "nope"}, 404, "Known: alpaca, chatml, llama2, plain, zephyr"),
        ({"model": "nobody/here", "name": "far"}, 409, "There is already another policy 'far'"),
        ({"model": ""}, 422, "model:"),
        ({"model": "starter", "path": "/"}, 422, "valid: model, chat_template, name"),
    ):
        answer = client.post("/api/policies", json=body)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    answer = client.post("/api/policies/check", json={"model": "http://127.0.0.1:9/v1#m"})
    assert answer.status_code == 422 and "is a server" in answer.json()["detail"]
    assert len(policies.list_policies(db)) == 1 and audit.list_events(db, verb="policy.add") == []


def test_a_researcher_names_no_path(
    client: TestClient,
    db: Database,
    researcher: dict[str, str],
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    for path in ("/api/policies", "/api/policies/check"):
        for model in (
            str(tiny_base),
            "/etc/passwd",
            "~/model",
            "./model",
            "owner/name",
            "a/../..",
            "model",
            "C:\\m",
            "o/" + "n" * 4000,
        ):
            assert "are for an admin to name" in refused(client, {"model": model}, researcher, path), model
        said = refused(client, {"model": "starter", "chat_template": str(template)}, researcher, path)
        assert "choose plain, alpaca, llama2, zephyr, chatml" in said
    tried = [(row.actor, row.subject) for row in audit.list_events(db, verb="refused")]
    assert set(tried) == {("res", "policies.add"), ("res", "policies.check")}
    assert policies.list_policies(db) == []


def test_a_researcher_adds_an_id_and_checks_what_an_admin_added(
    client: TestClient, db: Database, researcher: dict[str, str], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = client.post("/api/policies", json={"model": "nobody/small-1B"}, headers=researcher)
    assert (answer.status_code, answer.json().get("name")) == (201, "small-1B"), answer.text
    policies.save_policy(db, Policy(name="local", base=str(tiny_base)))
    answer = client.post("/api/policies/check", json={"model": "local"}, headers=researcher)
    assert answer.status_code == 200, answer.text


def test_no_key_is_sent_to_a_server_that_a_researcher_names_first(
    client: TestClient,
    researcher: dict[str, str],
    admin: dict[str, str],
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = {"model": f"{served.url}#small"}, {"model": f"{served.url}#large"}
    monkeypatch.setenv("STUDIO_ENDPOINT_KEY", "secret")
    said = refused(client, small, researcher)
    assert served.url in said and "only an admin" in said and "secret" not in said
    assert served.keys == []
    assert client.post("/api/policies", json=small, headers=admin).status_code == 201
    assert client.post("/api/policies", json=large, headers=researcher).status_code == 201
    assert set(served.keys) == {"Bearer secret"}
    other = served.url.replace("127.0.0.1", "127.0.0.2")
    refused(client, {"model": f"{other}#small"}, researcher)
    monkeypatch.delenv("STUDIO_ENDPOINT_KEY")
    answer = client.post("/api/policies", json={"model": f"{other}#small"}, headers=researcher)
    assert answer.status_code in (201, 502), "without a key every server may be asked"


def test_one_model_is_examined_at_a_time_and_votes_go_on(client: TestClient) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    with services._shared.examiner._busy:
        answer = client.post("/api/policies/check", json={"model": "starter"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "Another model is being examined" in answer.json()["detail"]
        assert client.post("/api/tasks/next").status_code in (200, 204)


def test_the_least_role_is_that_of_a_researcher(services: Services) -> None:
    from studio.services.access import rule_of

    assert {rule_of(services.policies.add).role, rule_of(services.policies.check).role} == {UserRole.researcher}
