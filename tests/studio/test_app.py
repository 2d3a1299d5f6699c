"""The assembled app: the guard in front, a page of four tabs, handlers that turn errors into toasts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from feedback.db import Database
from feedback.errors import Conflict
from feedback.store import judgments, policies, runs
from studio.app import build_page, create_app
from studio.guard import Guard, is_loopback
from studio.services import Services
from studio.tabs import bind, datasets, label, train
from studio.tabs import policies as policies_tab
from tests import factories
from training.home import Home

SESSION = "browser-0001"


@pytest.fixture
def champion(db: Database):
    return policies.promote_policy(db, factories.make_policy(db, "starter").id)


def test_the_page_is_served_with_its_script_and_style(client: TestClient) -> None:
    page = client.get("/").text
    assert "RLHF Studio" in page
    assert "window.studio" in page
    assert ".reply-card" in client.get("/config").text + page


def test_every_tab_is_there_and_no_event_is_public(services: Services) -> None:
    page = build_page(services)
    tabs = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert tabs == ["Label", "Train", "Policies", "Datasets", "Review"]
    assert all(fn.api_visibility == "private" for fn in page.fns.values() if fn.fn is not None)


def test_the_app_file_stays_a_page_long() -> None:
    lines = (Path(__file__).parents[2] / "studio" / "app.py").read_text().splitlines()
    assert len(lines) < 100


def test_the_page_is_made_without_torch() -> None:
    code = "import sys, studio.app; print('torch' in sys.modules, 'transformers' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "False False"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:7860"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.invalid"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.invalid"}, 403),
        ({"Host": "127.0.0.1.evil.invalid:7860"}, 403),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "[::1]:7860"}, 200),
    ],
)
def test_only_the_studios_own_page_may_change_it(client: TestClient, headers: dict, status: int) -> None:
    body = {"prompts": [{"messages": [{"role": "user", "content": "Hi"}]}]}
    answer = client.post("/api/prompts", json=body, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert isinstance(answer.json()["detail"], str)
        assert client.get("/api/prompts").json() == {"prompts": []}


def test_a_link_from_elsewhere_may_be_followed(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200


def test_the_gradio_routes_are_guarded_too(client: TestClient) -> None:
    answer = client.post("/gradio_api/run/predict", json={"data": []}, headers={"Origin": "http://evil.invalid"})
    assert answer.status_code == 403


def test_replies_forbid_loading_from_elsewhere(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "img-src 'self' data: blob:" in policy
    assert "http" not in policy


def test_a_body_too_large_is_refused_however_it_is_sent(home: Home, db: Database) -> None:
    app = create_app(home, db)
    small = TestClient(Guard(app, max_body_bytes=1000), base_url="http://127.0.0.1")
    body = b'{"prompts": [' + b" " * 2000 + b"]}"
    declared = small.post("/api/prompts", content=body, headers={"Content-Type": "application/json"})
    chunks = iter([body[:500], body[500:1200], body[1200:]])
    streamed = small.post("/api/prompts", content=chunks, headers={"Content-Type": "application/json"})
    assert (declared.status_code, streamed.status_code) == (413, 413)


def test_a_wider_bind_is_not_held_to_loopback_names() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "example.org", "", "10.0.0.1")] == [False] * 4


def test_errors_become_toasts() -> None:
    def fails(_services: object) -> None:
        raise Conflict("That is <taken>.")

    with pytest.raises(gr.Error) as raised:
        bind(fails, None)()  # type: ignore[arg-type]
    assert raised.value.message == "That is &lt;taken&gt;."


def test_a_vote_answers_with_the_next_pair(services: Services, db: Database, champion) -> None:
    for _ in range(3):
        factories.make_matchup(db, policy=champion)
    first, status, timer = label.show(services, "", SESSION)
    lease = services.current_task(SESSION).lease_id
    assert lease in first
    assert not timer.active
    second, status, _ = label.vote(services, {"verdict": "left"}, lease, SESSION)
    assert lease not in second
    assert "1</strong> done" in status
    again, status, _ = label.vote(services, {"verdict": "right"}, lease, SESSION)
    assert again == second, "a second press on the same lease shows what is next and counts nothing"
    assert judgments.count_judgments(db) == 1
    _, status, _ = label.undo(services, "", SESSION)
    assert "Taken back" in status
    _, status, _ = label.undo(services, "", SESSION)
    assert "nothing to take back" in status
    assert judgments.count_judgments(db) == 0


def test_a_lost_lease_is_told_and_the_next_pair_shown(services: Services, db: Database, champion) -> None:
    factories.make_matchup(db, policy=champion)
    shown, status, _ = label.vote(services, {"verdict": "left"}, "lea-unknown", SESSION)
    assert "was not counted" in status
    assert "data-lease" in shown


def test_waiting_leaves_a_pair_on_the_screen_alone(services: Services, db: Database, champion) -> None:
    factories.make_matchup(db, policy=champion)
    shown, _, timer = label.wait(services, "lea-on-screen", SESSION)
    assert shown == gr.skip()
    assert not timer.active
    shown, _, _ = label.wait(services, "", SESSION)
    assert "data-lease" in shown


def test_the_train_tab_starts_watches_cancels_and_resumes(services: Services, db: Database, champion) -> None:
    for _ in range(6):
        factories.make_matchup(db, policy=champion)
    factories.judge_by(db, factories.longer)
    dataset = services.freeze("round-1")
    forms = {name: train.present.form_fields(services.describe(name)) for name in services.training_methods()}
    values = [field.default for fields in forms.values() for field in fields]
    table, selected, seen, *_ = train.start(services, forms, "dpo", dataset.id, None, " first ", *values)
    run = runs.get_run(db, selected)
    assert (run.method, run.config["dataset"], run.config["name"]) == ("dpo", dataset.id, "first")
    assert selected in table
    train.cancel(services, selected, seen)
    assert runs.get_run(db, selected).state == "cancelled"
    train.resume(services, selected, seen)
    assert runs.get_run(db, selected).state == "queued"
    assert train.watch(services, None, None)[1] is None


def test_freezing_shows_the_new_dataset(services: Services, db: Database, champion) -> None:
    for _ in range(3):
        factories.make_matchup(db, policy=champion)
    factories.judge_by(db, factories.longer)
    _, table, name, selected, detail, link, _ = datasets.freeze(services, "mine", ["human"], "raw")
    assert "mine" in table and "mine" in detail
    assert f"api/datasets/{selected}/export?format=raw" in link
    assert name == "round-2"
    assert "format=trl-preference" in datasets.choose_format(services, selected, "trl-preference")
    assert datasets.refresh(services, None, "typed")[2] == "typed"


def test_promoting_asks_first(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    child = factories.make_policy(db, "child", parent_id=champion.id)
    question, _ = policies_tab.ask_promote(services, child.id)
    assert "promote starter again" in question["value"]
    assert policies.get_champion(db).name == "starter"
    policies_tab.promote(services, child.id)
    assert policies.get_champion(db).name == "child"
