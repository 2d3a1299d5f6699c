"""The assembled app: the guard in front, a page of four tabs, handlers that turn errors into toasts."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput
from feedback.store.models import policies, runs
from feedback.store.models.checkpoints import save_checkpoint
from feedback.tables import JudgmentRow
from feedback.types import Checkpoint, MetricPoint, Run, RunState, Verdict, now
from studio.page.tabs import datasets, label, train
from studio.page.tabs import policies as policies_tab
from studio.page.tabs.wiring import bind
from studio.page.views.labeling import tools as tools_view
from studio.page.views.training.forms import BY_ITSELF, CHOSEN_ELSEWHERE, form_fields
from studio.services.facade import Services
from studio.web.api import label_screen
from studio.web.api.schemas import LabelIn
from studio.web.app import build_page, create_app
from studio.web.guard.mount import is_loopback
from studio.web.guard.request_guard import Guard
from tests import factories
from tests.factories import count_judgments, current_task, list_judgments
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
    assert tabs == ["Overview", "Label", "Playground", "Train", "Policies", "Datasets", "Review", "People"]
    assert all(fn.api_visibility == "private" for fn in page.fns.values() if fn.fn is not None)


def test_the_app_file_stays_a_page_long() -> None:
    lines = (Path(__file__).parents[3] / "studio" / "web" / "app.py").read_text().splitlines()
    assert len(lines) < 100


def test_the_page_is_made_without_torch() -> None:
    code = "import sys, studio.web.app; print('torch' in sys.modules, 'transformers' in sys.modules)"
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
        ({"Host": ""}, 400),
        ({"Host": "", "Origin": ""}, 400),
        ({"Origin": ""}, 403),
    ],
)
def test_only_the_studios_own_page_may_change_it(client: TestClient, headers: dict, status: int) -> None:
    body = {"prompts": [{"messages": [{"role": "user", "content": "Hi"}]}]}
    answer = client.post("/api/prompts", json=body, headers=headers)
    assert answer.status_code == status
    if status != 200:
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


def test_errors_become_toasts(services: Services) -> None:
    def fails(_services: object) -> None:
        raise Conflict("That is <taken>.")

    with pytest.raises(gr.Error) as raised:
        bind(fails, services)()
    assert raised.value.message == "That is &lt;taken&gt;."


def test_whatever_a_person_asks_for_can_answer_with_an_error(services: Services) -> None:
    """Gradio tells ``gr.Error`` only through its queue; past it a refused press seems to do nothing."""
    page = build_page(services)
    asked = [
        (getattr(page.blocks[block], "elem_id", None) or "", fn)
        for fn in page.fns.values()
        for block, event in fn.targets
        if fn.fn is not None and event in ("click", "select", "input", "submit") and block in page.blocks
    ]
    told = {name for name, fn in asked if fn.queue}
    assert {"start-run", "try-run", "cancel-run", "runs-table", "add-user", "promote", "fill-pool"} <= told
    # A tab that opens is nobody's press on a button, and a question is closed in silence.
    silent = {name for name, fn in asked if not fn.queue and not name.endswith("-tab")}
    assert silent == {"promote-no", "disable-no", "recipe-close"}


def asked(**fields: object) -> LabelIn:
    return LabelIn(seq=1, session=SESSION, **fields)


def test_a_vote_answers_with_the_next_pair(services: Services, db: Database, champion) -> None:
    for _ in range(3):
        factories.make_matchup(db, policy=champion)
    shown = label_screen.deck(services, asked())
    first, ahead = (item["lease"] for item in shown["deck"])
    assert current_task(services, SESSION).lease_id == first
    assert first in shown["deck"][0]["html"] and shown["guidelines"]["version"] == 0
    voted = asked(lease=first, have=[first, ahead], said={"verdict": "left"}, guidelines=0)
    then = label_screen.vote(services, voted)
    assert then["deck"] == [{"lease": ahead}], "what the browser holds already is only named"
    assert then["more"] and "guidelines" not in then
    assert "1</strong> judged" in then["status"]
    again = label_screen.vote(services, voted)
    assert again["deck"] == then["deck"], "a second press on the same lease shows what is next and counts nothing"
    assert count_judgments(db) == 1
    taken_back = label_screen.undo(services, asked())
    assert "Taken back" in taken_back["note"] and ahead not in str(taken_back["deck"])
    assert "nothing to take back" in label_screen.undo(services, asked())["note"]
    assert count_judgments(db) == 0


def test_a_lost_lease_is_told_and_the_next_pair_shown(services: Services, db: Database, champion) -> None:
    factories.make_matchup(db, policy=champion)
    told = label_screen.vote(services, asked(lease="lea-unknown", said={"verdict": "left"}))
    assert "was not counted" in told["note"]
    assert "data-lease" in told["deck"][0]["html"]


def test_a_refused_judgment_says_why_and_leaves_the_pair(services: Services, db: Database, champion) -> None:
    factories.make_matchup(db, policy=champion)
    lease = current_task(services, SESSION).lease_id
    bad = {"verdict": "left", "spans": [{"index": 0, "start": 0, "end": 9999, "mark": "good"}]}
    told = label_screen.vote(services, asked(lease=lease, said=bad))
    assert "lies within" in told["refused"] and "deck" not in told
    assert current_task(services, SESSION).lease_id == lease


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "seq: Field required"),
        ({"seq": 1}, "session: Field required"),
        ({"seq": 1, "session": "x"}, "session: "),
        ({"seq": "n", "session": SESSION}, "seq: "),
        ({"seq": 1, "session": SESSION, "leases": ["x"] * 17}, "leases: "),
        ({"seq": 1, "session": SESSION, "said": ["left"]}, "said: "),
        ({"seq": 1, "session": SESSION, "verdict": "left"}, "verdict"),
    ],
)
def test_a_request_of_the_screen_that_is_no_act_is_refused(client: TestClient, body: dict, why: str) -> None:
    answer = client.post("/api/label/vote", json=body)
    assert answer.status_code == 422 and why in answer.json()["detail"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"skip_reason": 5}, "skip_reason"),
        ({"ranking": 5}, "ranking"),
        ({"verdict": "best"}, "verdict"),
        ({"verdict": "left", "spans": "all"}, "spans"),
        ({"verdict": "left", "edited": ["x"]}, "edited"),
    ],
)
def test_what_is_said_of_another_kind_is_refused_in_words(
    services: Services, db: Database, champion, said: dict, why: str
) -> None:
    factories.make_matchup(db, policy=champion)
    lease = label_screen.deck(services, asked())["deck"][0]["lease"]
    assert why in label_screen.vote(services, asked(lease=lease, said=said))["refused"]
    assert count_judgments(db) == 0


def test_the_screen_is_served_over_http(client: TestClient, db: Database) -> None:
    factories.make_matchup(db, texts=["One reply.", "Another reply."])
    body = {"seq": 7, "session": SESSION}
    shown = client.post("/api/label/deck", json=body).json()
    lease = shown["deck"][0]["lease"]
    voted = client.post("/api/label/vote", json={**body, "lease": lease, "said": {"verdict": "tie"}}).json()
    assert (shown["seq"], voted["seq"], voted["deck"]) == (7, 7, [])
    assert [row.verdict for row in list_judgments(db)] == [Verdict.tie]
    assert client.post("/api/label/nothing", json=body).status_code == 404
    assert "/api/label/vote" not in client.get("/api/openapi.json").json()["paths"]


def test_today_begins_where_the_annotators_clock_says(services: Services, db: Database, champion) -> None:
    for _ in range(3):
        factories.make_matchup(db, policy=champion)
    factories.judge_by(db, factories.longer, annotator="local", count=3)
    row = list_judgments(db)[0]
    with db.write() as session:
        session.get_one(JudgmentRow, row.id).created_at = now() - timedelta(hours=30)

    def count(**content: str) -> tuple[int, int]:
        told = label_screen.today(services, asked(content=content))
        return told["today"], told["total"]

    assert count(since=(now() - timedelta(hours=48)).isoformat()) == (3, 3)
    assert count(since=(now() - timedelta(hours=24)).isoformat().replace("+00:00", "Z")) == (2, 3)
    assert count(since=(now() + timedelta(hours=1)).isoformat()) == (0, 3)
    assert count(since="yesterday")[1] == count()[1] == 3, "by UTC where the page does not say"
    assert label_screen.deck(services, asked())["status"].count('data-total="3"') == 1


def test_drafts_come_back_with_their_task_and_end_with_it(services: Services, db: Database, champion) -> None:
    factories.make_matchup(db, policy=champion)
    lease = label_screen.deck(services, asked())["deck"][0]["lease"]
    content = {"rationale": "because", "active_ms": 1200}
    assert label_screen.draft(services, asked(lease=lease, content=content))["kept"]
    assert label_screen.deck(services, asked())["deck"][0]["draft"] == content
    label_screen.vote(services, asked(lease=lease, said={"verdict": "tie", **content}))
    assert not label_screen.draft(services, asked(lease=lease, content=content))["kept"]
    (row,) = list_judgments(db)
    assert (row.rationale, row.active_ms, row.guidelines) == ("because", 1200, 0)


def test_guidelines_are_saved_as_versions(services: Services, db: Database, champion) -> None:
    factories.make_matchup(db, policy=champion)
    label.ask(services, "Be **kind**.", "clear, true", True)
    told = label_screen.deck(services, asked(guidelines=0))["guidelines"]
    assert told == {
        "version": 1,
        "html": tools_view.guidelines_text(services.labeling.guidelines()),
        "criteria": ["clear", "true"],
        "asks_rationale": True,
    }
    assert "<strong>kind</strong>" in told["html"]
    label.ask(services, "Be **kind**.", "clear, true", True)
    assert services.labeling.guidelines().version == 1, "what changes nothing is no new version"
    with pytest.raises(InvalidInput, match="^text: guidelines must not be empty"):
        label.ask(services, " ", "", False)


def test_the_train_tab_starts_watches_cancels_and_resumes(services: Services, db: Database, champion) -> None:
    for _ in range(6):
        factories.make_matchup(db, policy=champion)
    factories.judge_by(db, factories.longer)
    dataset = services.datasets.freeze("round-1")
    forms = {name: form_fields(services.runs.describe(name)) for name in services.runs.training_methods()}
    values = [field.default for fields in forms.values() for field in fields]
    table, selected, seen, *_ = train.start(services, forms, "dpo", dataset.id, None, " first ", None, 2, *values)
    run = runs.get_run(db, selected)
    assert (run.method, run.config["dataset"], run.config["name"]) == ("dpo", dataset.id, "first")
    assert selected in table
    with pytest.raises(InvalidInput, match="Choose a dataset"):
        train.start(services, forms, "sft", None, None, "", *values)
    place = sum(len(forms[name]) for name in list(forms)[: list(forms).index("rft")])
    place += [field.name for field in forms["rft"]].index("reward_function")
    drawn = [*values[:place], "length_band:5-15", *values[place + 1 :]]
    _, other, *_ = train.start(services, forms, "rft", None, None, "", None, None, *drawn)
    assert runs.get_run(db, other).config["reward_function"] == "length_band:5-15"
    train.cancel(services, selected, seen)
    assert runs.get_run(db, selected).state == "cancelled"
    train.resume(services, selected, seen)
    assert runs.get_run(db, selected).state == "queued"
    assert train.watch(services, None, None)[1] is None
    assert runs.get_run(db, selected).priority == 2
    tried = train.try_out(services, forms, "dpo", dataset.id, None, "", selected, 0, *values)[1]
    assert runs.get_run(db, tried).config["dry_run"] is True and runs.get_run(db, tried).after == selected


def test_the_train_tab_offers_the_reward_models_there_are(services: Services, db: Database) -> None:
    save_checkpoint(db, Checkpoint(name="kind", kind="reward", path="p", base="b"))
    save_checkpoint(db, Checkpoint(name="a-policy", kind="policy", path="q", base="b"))
    *_, models, functions = train.refresh(services, ["reward models", "reward function"], None, None)
    assert [value for _, value in models.choices] == ["kind"]
    assert {"keyword", "length_band", "no_repetition"} <= {value for _, value in functions.choices}


def test_several_runs_are_drawn_over_one_another(services: Services, db: Database) -> None:
    points = [MetricPoint(step=s, name=name, value=0.5) for s in (1, 2) for name in ("loss", "accuracy", "margin")]
    ours, other = (runs.save_run(db, Run(method=method, config={"dataset": "d"})) for method in ("dpo", "reward"))
    for run in (ours, other):
        runs.save_metrics(db, run.id, points)
    shown = train.watch(services, ours.id, None, [other.id], "margin")
    for plot, curve in zip(shown[6:9], ("Loss", "Accuracy", "Margin"), strict=True):
        lines = json.loads(plot.value["plot"])["data"]
        assert {line["name"] for line in lines} == {
            f"{curve}, dpo {ours.id[4:8]}", f"{curve}, reward {other.id[4:8]}"
        }  # fmt: skip
    again = train.tick(services, ours.id, shown[2], [other.id], "margin")
    assert all(part == gr.skip() for part in again[4:9])
    assert train.watch(services, ours.id, shown[2], [], "margin")[6] != gr.skip()


def test_a_run_is_compared_with_trainings_that_have_curves(services: Services, db: Database) -> None:
    point = [MetricPoint(step=1, name="loss", value=0.5)]
    named = runs.save_run(db, Run(method="dpo", config={"dataset": "d", "name": "mild"}))
    ours = runs.save_run(db, Run(method="dpo", config={"dataset": "d"}))
    for run in (named, ours, runs.save_run(db, Run(method="generate", config={"policy": "p"}))):
        runs.save_metrics(db, run.id, point)
    runs.save_run(db, Run(method="ppo", state=RunState.succeeded, config={"dry_run": True}))
    runs.save_run(db, Run(method="ppo", state=RunState.failed))
    offered = train.watch(services, ours.id, None)[4]
    assert offered.choices == [(f"mild {named.id[4:8]}: dpo, d, queued", named.id)]


def test_the_page_and_the_settings_classes_cannot_drift(services: Services) -> None:
    """Every setting of every training method is on the page with its sentence and range, and nothing else is."""
    page = build_page(services)
    said = {(block.label, getattr(block, "info", None)) for block in page.blocks.values() if hasattr(block, "label")}
    for method in services.runs.training_methods():
        described = services.runs.describe(method)
        fields = {field.name: field for field in form_fields(described)}
        assert set(fields) == {setting.name for setting in described} - set(CHOSEN_ELSEWHERE)
        for setting in described:
            if setting.name in CHOSEN_ELSEWHERE:
                continue
            field = fields[setting.name]
            assert (field.label, field.info) in said, f"{method}: {setting.name} is not on the page"
            assert setting.sentence.rstrip(".") in field.info
            if field.choices:
                assert "one of " + ", ".join(c for c in field.choices if c != BY_ITSELF) == setting.range
            else:
                assert setting.range in field.info
        shown = {field.default for field in fields.values()} - {BY_ITSELF}
        assert shown <= {setting.default for setting in described}


def test_freezing_shows_the_new_dataset(services: Services, db: Database, champion) -> None:
    for _ in range(3):
        factories.make_matchup(db, policy=champion)
    factories.judge_by(db, factories.longer)
    _, table, name, selected, detail, link, *_ = datasets.freeze(services, "mine", ["human"], "raw")
    assert "mine" in table and "mine" in detail
    assert f"api/datasets/{selected}/export?format=raw" in link
    assert name == "round-2"
    assert "format=trl-preference" in datasets.choose_format(services, selected, "trl-preference")
    assert datasets.refresh(services, None)[2] == "round-2"


def test_freezing_the_same_again_is_told(
    services: Services, db: Database, champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.make_matchup(db, policy=champion)
    factories.judge_by(db, factories.longer)
    told: list[str] = []
    monkeypatch.setattr(datasets.gr, "Info", told.append)
    for name in ("mine", "again", "once"):
        datasets.freeze(services, name, ["human"], "raw")
    assert [line.partition(":")[0] for line in told] == [
        "mine is frozen",
        "again is frozen, and holds the same judgments and pairs as mine",
        "once is frozen, and holds the same judgments and pairs as mine",
    ]


def test_promoting_asks_first(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    child = factories.make_policy(db, "child", parent_id=champion.id)
    question, _ = policies_tab.ask_promote(services, child.id)
    assert "promote starter again" in question["value"]
    assert policies.get_champion(db).name == "starter"
    policies_tab.promote(services, child.id)
    assert policies.get_champion(db).name == "child"
