"""The REST contract, route by route: shapes, status codes, and errors in one sentence."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.labeling import assignment, judging
from feedback.store.content import generations
from feedback.store.labeling import matchups
from feedback.store.models import policies, runs
from feedback.types import DatasetFilters, Generation, Matchup, MetricPoint, Policy, Run, RunState, Verdict
from studio.services.facade import Services
from studio.web.fast_path import FastPath
from tests import factories
from tests.factories import count_judgments, list_judgments
from tests.studio.conftest import Opened
from training.export.archive import archive_path
from training.home import Home


def prompt(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


def fill(db: Database, count: int) -> None:
    policy = factories.make_policy(db, "author-of-all")
    policies.promote_policy(db, policy.id)
    for _ in range(count):
        factories.make_matchup(db, policy=policy)


def sentence(response, status: int) -> str:
    """The detail of an error with this status: one string, not a structure."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    assert isinstance(response.json()["detail"], str)
    return response.json()["detail"]


def test_health(client: TestClient) -> None:
    answer = client.get("/api/health").json()
    assert answer["status"] == "ok"
    assert answer["version"]


def test_prompts_are_added_once_and_listed_by_split(client: TestClient) -> None:
    body = {"prompts": [prompt("One"), prompt("Two") | {"tags": ["x"]}, prompt("One")]}
    assert client.post("/api/prompts", json=body).json() == {"added": 2, "duplicates": 1}
    assert client.post("/api/prompts", json=body).json() == {"added": 0, "duplicates": 3}
    listed = client.get("/api/prompts", params={"split": "work", "limit": 1}).json()["prompts"]
    assert len(listed) == 1
    assert set(listed[0]) >= {"id", "messages"}
    assert client.get("/api/prompts", params={"split": "evaluation"}).json() == {"prompts": []}
    held_out = {"prompts": [prompt("One") | {"split": "evaluation"}]}
    changed = {"added": 0, "duplicates": 1, "changed": 1, "still_in_datasets": []}
    assert client.post("/api/prompts", json=held_out).json() == changed
    assert len(client.get("/api/prompts", params={"split": "evaluation"}).json()["prompts"]) == 1
    assert client.post("/api/prompts", json=body).json() == {"added": 0, "duplicates": 3}


def test_an_export_is_queued_and_downloaded_once_it_is_there(client: TestClient, db: Database, home: Home) -> None:
    policy = factories.make_policy(db, "mine")
    queued = client.post("/api/policies/mine/export", json={"form": "gguf", "quantization": "q8_0"})
    assert queued.status_code == 202
    run = runs.get_run(db, queued.json()["run_id"])
    assert (run.method, run.config) == ("export", {"policy": policy.id, "form": "gguf", "quantization": "q8_0"})
    again = client.post("/api/policies/mine/export", json={"form": "gguf", "quantization": "q8_0"})
    assert again.json() == queued.json(), "one under way is given back"
    other = client.post("/api/policies/mine/export", json={})
    assert other.json() != queued.json()
    missing = "/api/policies/mine/export?form=gguf&quantization=q8_0"
    assert "POST /api/policies/mine/export makes one" in sentence(client.get(missing), 404)
    path = archive_path(home, policy.id, "gguf", "q8_0")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK of a kind")
    answer = client.get(missing)
    assert answer.content == b"PK of a kind" and answer.headers["content-type"] == "application/zip"
    assert 'filename="mine-gguf-q8_0.zip"' in answer.headers["content-disposition"]
    sentence(client.post("/api/policies/mine/export", json={"form": "hub"}), 422)
    sentence(client.post("/api/policies/nobody/export", json={}), 404)


def test_a_task_tells_the_reasoning_of_a_reply_where_there_is_any(client: TestClient, db: Database) -> None:
    policy, asked = factories.make_policy(db), factories.make_prompt(db)
    values = [
        Generation(prompt_id=asked.id, policy_id=policy.id, text=text, seed=1, reasoning=thought)
        for text, thought in (("Yes.", "Let me see."), ("No.", None))
    ]
    ids = [row.id for row in generations.save_generations(db, values)]
    matchups.save_matchups(db, [Matchup(prompt_id=asked.id, generation_ids=ids)])
    task = client.post("/api/tasks/next", json={}).json()
    assert dict(zip(task["responses"], task["reasoning"], strict=True)) == {"Yes.": "Let me see.", "No.": None}
    client.post("/api/judgments", json={"lease": task["lease"], "verdict": "tie"})
    factories.make_matchup(db)
    assert "reasoning" not in client.post("/api/tasks/next", json={}).json()


def test_prompts_are_retired_and_restored_by_id_or_tag(client: TestClient, db: Database) -> None:
    row = factories.make_matchup(db)
    client.post("/api/prompts", json={"prompts": [prompt("Two") | {"tags": ["x"]}]})
    done = client.post("/api/prompts/retire", json={"ids": [row.prompt_id]})
    assert done.json() == {"retired": 1, "already": 0, "withdrawn": 1}
    assert client.post("/api/tasks/next", json={}).status_code == 204
    listed = client.get("/api/prompts").json()["prompts"]
    assert [one["tags"] for one in listed] == [["x"]]
    assert [one["id"] for one in client.get("/api/prompts?retired=true").json()["prompts"]] == [row.prompt_id]
    assert client.post("/api/prompts/retire", json={"tag": "x"}).json()["retired"] == 1
    added = client.post("/api/prompts", json={"prompts": [prompt("Two")]})
    assert added.json() == {"added": 0, "duplicates": 1, "retired": 1}
    back = client.post("/api/prompts/restore", json={"tag": "x"})
    assert back.json() == {"restored": 1, "already": 0, "reopened": 0}
    assert len(client.get("/api/prompts?tag=x&tag=x").json()["prompts"]) == 1
    assert "'y'" in sentence(client.post("/api/prompts/retire", json={"tag": "y"}), 404)
    sentence(client.post("/api/prompts/retire", json={}), 422)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": [{"messages": []}]}, "messages"),
        ({"prompts": [prompt("fine"), {"messages": [{"role": "assistant", "content": "x"}]}]}, "Prompt 2"),
        ({"prompts": [{"messages": [{"role": "user", "content": " "}]}]}, "1 cannot be used: messages.0.content: "),
        ({"prompts": [{"messages": [{"role": "robot", "content": "x"}]}]}, "role"),
        ({"prompts": [prompt("   ")]}, "empty"),
        ({"prompts": [prompt("x") | {"colour": "red"}]}, "colour"),
    ],
)
def test_a_bad_prompt_adds_nothing(client: TestClient, bad: dict, says: str) -> None:
    assert says in sentence(client.post("/api/prompts", json=bad), 422)
    assert client.get("/api/prompts").json() == {"prompts": []}


@pytest.mark.parametrize(("bad", "field"), [({"text": " "}, "text"), ({"criteria": ["a", "a"]}, "criteria")])
def test_bad_guidelines_name_their_field_and_change_nothing(client: TestClient, bad: dict, field: str) -> None:
    told = client.post("/api/guidelines", json={"text": "Choose well.", **bad})
    assert (told.status_code, told.json()["detail"].partition(": ")[0]) == (422, field)
    assert client.get("/api/guidelines").json()["version"] == 0


def test_a_task_has_the_contract_and_names_no_policy(client: TestClient, db: Database) -> None:
    fill(db, 1)
    answer = client.post("/api/tasks/next", json={})
    assert answer.status_code == 200
    task = answer.json()
    assert set(task) == {"lease", "kind", "prompt", "responses", "guidelines", "expires_at"}
    assert task["kind"] == "pair"
    assert task["prompt"][0]["role"] == "user"
    assert len(task["responses"]) == 2
    assert "author-of-all" not in answer.text
    assert policies.list_policies(db)[0].id not in answer.text
    empty = client.post("/api/tasks/next", json={})
    assert (empty.status_code, empty.content) == (204, b"")


def test_the_same_lease_gives_the_same_judgment(client: TestClient, db: Database) -> None:
    fill(db, 2)
    lease = client.post("/api/tasks/next", json={}).json()["lease"]
    first = client.post("/api/judgments", json={"lease": lease, "verdict": "left", "strength": 2})
    again = client.post("/api/judgments", json={"lease": lease, "verdict": "right"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"judgment_id": list_judgments(db)[0].id}


def test_verdicts_speak_of_the_shown_order(client: TestClient, db: Database) -> None:
    fill(db, 12)
    stored = Counter()
    for _ in range(12):
        task = client.post("/api/tasks/next", json={}).json()
        side = "left" if task["responses"][0].endswith("a.") else "right"
        client.post("/api/judgments", json={"lease": task["lease"], "verdict": side})
    for row in list_judgments(db):
        index = 0 if row.verdict is Verdict.first else 1
        stored[row.shown_order.index(index)] += 1
    assert stored[0] and stored[1], "both sides were shown first at times"


def test_what_is_not_there_and_what_is_asked_otherwise_are_told_apart(client: TestClient) -> None:
    assert "/api/docs" in sentence(client.get("/api/nothing/here"), 404)
    for asked in ("/api/judgments", "/api/tasks/next"):
        found = client.get(asked)
        assert "not asked with GET but with POST" in sentence(found, 405)
        assert found.headers["allow"] == "POST"
    assert "GET or POST" in sentence(client.delete("/api/prompts"), 405)
    assert not any("{rest}" in path for path in client.get("/api/openapi.json").json()["paths"])


def test_a_refused_judgment_says_what_is_valid(client: TestClient, db: Database) -> None:
    fill(db, 1)
    lease = client.post("/api/tasks/next", json={"annotator": "ann"}).json()["lease"]
    body = {"lease": lease, "annotator": "ann"}
    said = sentence(client.post("/api/judgments", json=body | {"verdict": "up"}), 422)
    assert all(word in said for word in ("left", "right", "tie", "both_bad", "up"))
    assert "verdict" in sentence(client.post("/api/judgments", json=body), 422)
    sentence(client.post("/api/judgments", json=body | {"verdict": "tie", "strength": 2}), 422)
    sentence(client.post("/api/judgments", json=body | {"verdict": "left", "strength": 4}), 422)
    sentence(client.post("/api/judgments", json=body | {"verdict": "left", "skip_reason": "no"}), 422)
    sentence(client.post("/api/judgments", json=body | {"ranking": [1, 2, 3]}), 422)
    sentence(client.post("/api/judgments", json={"lease": "lea-unknown", "verdict": "left"}), 404)
    foreign = sentence(client.post("/api/judgments", json={"lease": lease, "verdict": "left"}), 409)
    assert "another annotator" in foreign
    assert count_judgments(db) == 0
    skipped = client.post(
        "/api/judgments", json={"lease": lease, "skip_reason": "unclear"}, headers={"X-Annotator": "ann"}
    )
    assert skipped.status_code == 201


def test_tasks_go_to_many_at_once_without_a_double(client: TestClient, db: Database) -> None:
    fill(db, 24)
    leased: list[str] = []

    def take(name: str) -> None:
        while (answer := client.post("/api/tasks/next", json={"annotator": name})).status_code == 200:
            leased.append(answer.json()["lease"])

    threads = [threading.Thread(target=take, args=(f"ann-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leased) == len(set(leased)) == 24


def test_a_filter_that_names_no_policy_is_refused_where_nothing_was_judged_too(client: TestClient) -> None:
    body = {"name": "d", "filters": {"policies": ["nobody"]}}
    assert "nobody" in sentence(client.post("/api/datasets", json=body), 404)
    assert client.get("/api/datasets").json() == {"datasets": []}


def test_a_dataset_is_frozen_listed_and_exported(client: TestClient, db: Database) -> None:
    fill(db, 6)
    factories.judge_by(db, factories.longer, count=5)
    answer = client.post("/api/datasets", json={"name": "round-1", "filters": {"sources": ["human"], "test_share": 0}})
    assert answer.status_code == 201
    frozen = answer.json()
    assert set(frozen) >= {"dataset_id", "hash", "counts", "dropped"}
    assert frozen["counts"]["pairs"] == 5
    for key in (frozen["dataset_id"], "round-1"):
        export = client.get(f"/api/datasets/{key}/export", params={"format": "trl-preference"})
        assert export.headers["content-type"].startswith("application/x-ndjson")
        rows = [json.loads(line) for line in export.text.splitlines()]
        assert len(rows) == 5
        assert all(row["chosen"] != row["rejected"] for row in rows)
    assert client.get("/api/datasets").json()["datasets"][0]["name"] == "round-1"
    again = client.post(
        "/api/datasets", json={"name": "again", "filters": {"sources": ["human"], "test_share": 0}}
    ).json()
    assert again["hash"] == frozen["hash"] and again["same_as"] == "round-1" and frozen["same_as"] is None
    assert client.post("/api/datasets", json={"name": "split"}).json()["same_as"] is None
    assert "trl-preference" in sentence(client.get("/api/datasets/round-1/export", params={"format": "xml"}), 422)
    sentence(client.get("/api/datasets/none/export", params={"format": "raw"}), 404)
    sentence(client.post("/api/datasets", json={"name": "round-1"}), 409)
    sentence(client.post("/api/datasets", json={"name": "../etc"}), 422)
    sentence(client.post("/api/datasets", json={"name": "x", "filters": {"annotator": "a"}}), 422)


@pytest.fixture(scope="module")
def frozen(opened: Opened) -> Opened:
    """A studio with the dataset ``d``, of which every format must leave something out."""
    db = opened.db
    policy = factories.make_policy(db, "maker")
    said = {"left": {"verdict": "left"}, "tie": {"verdict": "tie"}, "bad": {"verdict": "both_bad"}}
    said |= {"skip": {"skip_reason": "no idea"}, "marker": {"verdict": "left"}}
    for number in range(30):
        name = list(said)[number % len(said)]
        texts = [f"{number} yes\n\nHuman: and you?" if name == "marker" else f"{number} yes", f"{number} no"]
        factories.make_matchup(db, policy=policy, texts=texts)
        task = assignment.lease_next(db, "ann")
        assert task
        judging.submit(db, task.lease_id, "ann", **said[name])
    freeze.freeze(db, "d", DatasetFilters(test_share=0.3))
    return opened


@pytest.mark.parametrize("split", [None, "train", "test"])
@pytest.mark.parametrize("format_name", formats.FORMATS)
def test_the_header_reports_the_drops_that_the_command_reports(
    format_name: str, split: str | None, frozen: Opened, tmp_path: Path
) -> None:
    asked = {"format": format_name} | ({"split": split} if split else {})
    answer = frozen.client.get("/api/datasets/d/export", params=asked)
    report = formats.export_dataset(frozen.db, "d", format_name, tmp_path / "out", split)
    assert json.loads(answer.headers["X-Dropped"]) == report.dropped
    assert split is not None or report.dropped or format_name in ("raw", "trl-prompt", "label-studio", "csv")


def test_a_runs_replies_go_back_to_the_annotators(client: TestClient, db: Database) -> None:
    policy, asked = factories.make_policy(db), factories.make_prompt(db)
    run = runs.save_run(db, Run(method="ppo", config={}))
    rows = [
        Generation(
            prompt_id=asked.id, policy_id=policy.id, text=text, seed=1, finish_reason="stop", tokens=1, run_id=run.id,
            sampling={"iteration": number, "score": 1.5, "kl": 0.25},
        )
        for number, text in enumerate(("early", "late"))
    ]  # fmt: skip
    generations.save_generations(db, rows)
    answer = client.post(f"/api/runs/{run.id}/annotate")
    assert (answer.status_code, answer.json()) == (201, {"matchups": 1})
    task = client.post("/api/tasks/next", json={}).json()
    assert sorted(task["responses"]) == ["early", "late"]
    assert "sent to them before" in sentence(client.post(f"/api/runs/{run.id}/annotate"), 422)
    sentence(client.post("/api/runs/run-none/annotate"), 404)


def test_a_run_is_queued_read_and_cancelled(client: TestClient, db: Database) -> None:
    fill(db, 1)
    answer = client.post("/api/runs", json={"method": "generate", "config": {"per_prompt": 2, "limit": 5, "seed": 1}})
    assert answer.status_code == 202
    run_id = answer.json()["run_id"]
    runs.save_metrics(db, run_id, [MetricPoint(step=s, name="loss", value=1.0 / (s + 1)) for s in range(3)])
    run = client.get(f"/api/runs/{run_id}").json()
    assert set(run) >= {"id", "method", "state", "progress", "metrics", "error", "result"}
    assert (run["method"], run["state"], run["progress"], run["error"]) == ("generate", "queued", 0.0, None)
    assert run["metrics"] == {"loss": pytest.approx(1 / 3)}
    points = client.get(f"/api/runs/{run_id}/metrics").json()
    assert points[0] == {"step": 0, "name": "loss", "value": 1.0}
    assert len(points) == 3
    assert client.get(f"/api/runs/{run_id}/log").json() == {"log": ""}
    assert client.post(f"/api/runs/{run_id}/cancel").json()["state"] == "cancelled"
    sentence(client.post(f"/api/runs/{run_id}/cancel"), 409)
    assert client.post(f"/api/runs/{run_id}/resume").json()["state"] == "queued"
    sentence(client.get("/api/runs/run-none"), 404)
    sentence(client.post("/api/runs/run-none/cancel"), 404)
    sentence(client.get("/api/runs/run-none/metrics"), 404)


def test_an_unknown_method_or_setting_lists_the_valid_ones(client: TestClient, db: Database) -> None:
    fill(db, 3)
    factories.judge_by(db, factories.longer, count=1)
    client.post("/api/datasets", json={"name": "tiny"})
    said = sentence(client.post("/api/runs", json={"method": "magic", "config": {}}), 422)
    assert "dpo" in said and "reward" in said
    said = sentence(client.post("/api/runs", json={"method": "dpo", "config": {"dataset": "tiny", "lr": 1}}), 422)
    assert "learning_rate" in said
    sentence(client.post("/api/runs", json={"method": "dpo", "config": {"dataset": "none"}}), 404)
    assert "pair" in sentence(client.post("/api/runs", json={"method": "dpo", "config": {"dataset": "tiny"}}), 422)


def test_policies_are_listed_promoted_and_traced(client: TestClient, db: Database) -> None:
    fill(db, 2)
    client.post("/api/prompts", json={"prompts": [prompt("One more")]})
    child = factories.make_policy(db, "child", parent_id=policies.get_policy(db, "author-of-all").id)
    listed = client.get("/api/policies").json()["policies"]
    assert [(row["name"], row["champion"], row["parent"]) for row in listed] == [
        ("child", False, "author-of-all"),
        ("author-of-all", True, None),
    ]
    answer = client.post(f"/api/policies/{child.id}/promote").json()
    assert answer["previous"] == "author-of-all"
    assert runs.get_run(db, answer["run_id"]).config["policy"] == child.id
    assert policies.get_champion(db).name == "child"
    lineage = client.get("/api/policies/child/lineage").json()
    assert lineage["parent"]["policy"]["name"] == "author-of-all"
    assert client.post("/api/tasks/next", json={}).status_code == 204, "pairs of the old champion left the pool"
    sentence(client.post("/api/policies/nobody/promote"), 404)
    sentence(client.get("/api/policies/nobody/lineage"), 404)


def test_the_board_says_how_strong_each_policy_is(client: TestClient, db: Database) -> None:
    start, child = factories.make_policy(db, "start"), factories.make_policy(db, "child")
    factories.compare_policies(db, child, start, wins=12, losses=4, ties=4)
    found = client.get("/api/board", params={"reference": "start"}).json()
    assert found["reference"] == "start"
    top, bottom = found["standings"]
    assert (top["policy"], top["votes"], bottom["policy"], bottom["strength"]["value"]) == ("child", 20, "start", 0.0)
    assert top["strength"]["low"] < 0.847 < top["strength"]["high"]
    assert found["wins"]["child"]["start"]["win_rate"] == 0.7
    sentence(client.get("/api/board", params={"reference": "nobody"}), 404)


def test_a_policy_is_checked_before_anything_is_started(client: TestClient, db: Database, tiny_base: Path) -> None:
    policies.save_policy(db, Policy(name="tiny", base=str(tiny_base)))
    report = client.get("/api/policies/tiny/check").json()
    assert (report["architecture"], report["system_role"]) == ("LlamaForCausalLM (llama)", True)
    by_method = {one["method"]: one for one in report["methods"]}
    assert set(by_method) == {"generate", "reward", "dpo", "kto", "sft", "ppo"}
    assert all(one["works"] and one["needed_mb"] > 0 and one["step_seconds"] is None for one in by_method.values())
    policies.save_policy(db, Policy(name="gone", base="/nowhere/at/all"))
    assert "No directory has this path" in sentence(client.get("/api/policies/gone/check"), 404)
    policies.save_policy(db, Policy(name="served", base="http://127.0.0.1:9/v1#m"))
    assert "is a server" in sentence(client.get("/api/policies/served/check"), 422)


def test_replies_on_demand_are_seeded_and_kept(client: TestClient, db: Database, tiny_base: Path) -> None:
    policies.save_policy(db, Policy(name="tiny", base=str(tiny_base)))
    body = {"policy": "tiny", **prompt("Say something."), "n": 3, "max_new_tokens": 12, "seed": 7}
    first, again = (client.post("/api/generations", json=body) for _ in range(2))
    assert first.status_code == 200, first.text
    texts = [[row["text"] for row in answer.json()["generations"]] for answer in (first, again)]
    assert len(texts[0]) == 3
    assert texts[0] == texts[1]
    assert matchups.list_prompts_without_open_matchup(db, limit=9) == [], "a prompt to try a policy with is no work"
    sentence(client.post("/api/generations", json=body | {"policy": "none"}), 404)
    sentence(client.post("/api/generations", json=body | {"n": 0}), 422)
    sentence(client.post("/api/generations", json=body | {"messages": []}), 422)
    assert "1 to 200 characters" in sentence(client.post("/api/generations", json=body | {"stop": ["a", ""]}), 422)
    too_long = sentence(client.post("/api/generations", json=body | prompt("long " * 400)), 422)
    assert "tokens" in too_long


def test_state_is_never_changed_by_get(client: TestClient, db: Database) -> None:
    fill(db, 2)
    for path in ("tasks/next", "judgments", "policies/author-of-all/promote", "runs/x/cancel"):
        assert client.get(f"/api/{path}").status_code in (404, 405)
    assert [run.state for run in runs.list_runs(db) if run.state is RunState.cancelled] == []


def test_the_reference_needs_nothing_from_elsewhere(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described == client.get("/api/openapi.json").json()
    assert {"/api/tasks/next", "/api/judgments", "/api/runs/{run_id}/cancel"} <= set(described["paths"])
    page = client.get("/api/docs").text
    assert "/api/tasks/next" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/api/review/judgments?offset={10**22}", None),
        ("GET", f"/api/audit?before={10**22}", None),
        ("POST", "/api/runs", {"method": "generate", "config": {}, "priority": 10**22}),
        ("POST", "/api/batches", {"name": "b", "count": 1, "required": 10**22}),
        ("POST", "/api/batches", {"name": "b", "count": 1, "max_required": 10**22}),
        ("POST", "/api/prompts", {"prompts": [{"messages": [{"role": "user", "content": "x"}], "tags": ["\ud800"]}]}),
        ("POST", "/api/judgments", {"lease": "\ud800", "verdict": "left"}),
        ("POST", "/api/runs", {"method": "generate", "config": {"policy": "\ud800"}}),
        ("POST", "/api/datasets", {"name": "d", "filters": {"annotators": ["\ud800"]}}),
    ],
)
def test_what_no_database_can_hold_is_a_mistake_and_not_a_failure(
    client: TestClient, method: str, path: str, body: dict | None
) -> None:
    answer = client.request(method, path, content=None if body is None else json.dumps(body))
    assert answer.status_code == 422 and answer.json()["detail"].endswith(".")


def test_a_body_that_is_no_json_is_called_so(client: TestClient) -> None:
    answer = client.post("/api/prompts", content="{oops", headers={"Content-Type": "application/json"})
    assert sentence(answer, 422).startswith("The body is not JSON: ") and "at character 1" in answer.text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"method": ' + b"[" * 5000, "it is nested too deeply; send an object with fewer levels"),
        (b'{"priority": ' + b"9" * 5000 + b"}", "a number in it has more than 4300 digits; give a smaller one"),
        (b'{"method": "\xff"}', "it is not UTF-8; encode it as UTF-8"),
    ],
    ids=["deep", "long", "bytes"],
)
def test_a_body_that_cannot_be_read_is_told_with_the_reason(client: TestClient, body: bytes, reason: str) -> None:
    for path in ("/api/runs", "/api/judgments"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert sentence(answer, 400) == f"The body cannot be read: {reason}."


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (
            "runs",
            {"method": "generate", "config": {"limit": True}},
            "limit='true' is not valid for generate: int, 1 to",
        ),
        (
            "runs",
            {"method": "generate", "config": {"seed": False}},
            "seed='false' is not valid for generate: int, 0 to",
        ),
        ("runs", {"method": "generate", "config": {"top_p": True}}, "top_p='true' is not valid for generate: float"),
        ("runs", {"method": "generate", "config": {"priority": True}}, "priority=True is not a whole number from"),
        ("runs", {"method": "generate", "config": {}, "priority": True}, "priority: a number is needed, not true"),
        ("runs", {"method": "generate", "config": {"priority": 5000}}, "from -1000 to 1000; higher begins first"),
        ("runs", {"method": "generate", "config": {"priority": 1.5}}, "priority=1.5 is not a whole number"),
        ("runs", {"method": "generate", "config": {"priority": 1e999}}, "priority=inf is not a whole number"),
        ("runs", {"method": "generate", "config": {"after": ["run-1"]}}, "after=['run-1'] is not the id of a run"),
        ("generations", {"policy": "p", **prompt("Hi?"), "n": True}, "n: a number is needed, not true"),
        ("generations", {"policy": "p", **prompt("Hi?"), "seed": False}, "seed: a number is needed, not false"),
        ("generations", {"policy": "p", **prompt("Hi?"), "temperature": True}, "temperature: a number is needed"),
        ("datasets", {"name": "d", "filters": {"min_agreement": True}}, "min_agreement: a number is needed, not true"),
        ("batches", {"name": "b", "count": True}, "count: a number is needed, not true"),
    ],
    ids=str,
)
def test_true_is_no_number_and_a_priority_has_its_bounds(frozen: Opened, path: str, body: dict, says: str) -> None:
    sent = json.dumps(body)
    answer = frozen.client.post(f"/api/{path}", content=sent, headers={"Content-Type": "application/json"})
    assert says in sentence(answer, 422)
    assert runs.list_runs(frozen.db) == []


VOTES = [
    ("/api/tasks/next", "{}"),
    ("/api/tasks/next", ""),
    ("/api/tasks/next", "null"),
    ("/api/tasks/next", "[]"),
    ("/api/tasks/next", '{"annotator": ""}'),
    ("/api/tasks/next", '{"annotator": "a\\u0000b"}'),
    ("/api/tasks/next", '{"annotator": "\\ud800"}'),
    ("/api/tasks/next", '{"annotater": "ann"}'),
    ("/api/judgments", "{oops"),
    ("/api/judgments", "[" * 5000),
    ("/api/judgments", b"\xff"),
    ("/api/judgments", '{"verdict": "left"}'),
    ("/api/judgments", '{"lease": "lea-none", "verdict": "left"}'),
    ("/api/judgments", '{"lease": "lea-none", "verdict": "best"}'),
    ("/api/judgments", '{"lease": "LEASE"}'),
    ("/api/judgments", '{"lease": "LEASE", "verdict": "left", "skip_reason": "?"}'),
    ("/api/judgments", '{"lease": "LEASE", "verdict": "left", "annotator": "somebody else"}'),
    ("/api/judgments", '{"lease": "LEASE", "verdict": "left", "strength": "2"}'),
    ("/api/judgments", '{"lease": "LEASE", "verdict": "left", "strength": 2, "rationale": "dry"}'),
    ("/api/judgments", '{"lease": "LEASE", "verdict": "right"}'),
]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_a_vote_is_answered_alike_the_short_way_and_the_long(
    client: TestClient, db: Database, content_type: str
) -> None:
    fill(db, 8)
    lease = client.post("/api/tasks/next", json={}).json()["lease"]
    seen = []
    for path, body in VOTES:
        content = body if isinstance(body, bytes) else body.replace("LEASE", lease).encode()
        answer = client.post(path, content=content, headers={"Content-Type": content_type})
        assert answer.headers["Content-Security-Policy"] and answer.headers["X-Content-Type-Options"] == "nosniff"
        kept = answer.json().get("detail") or sorted(answer.json())
        seen.append((answer.status_code, kept))
    task = ["expires_at", "guidelines", "kind", "lease", "prompt", "responses"]
    assert seen[:3] == [(200, task)] * 3
    assert [status for status, _ in seen[3:9]] == [422] * 6
    assert [status for status, _ in seen[9:11]] == [400, 400]
    assert [status for status, _ in seen[11:]] == [422, 404, 422, 422, 422, 409, 422, 201, 200]
    assert "Input should be 'left'" in seen[13][1] and "at character 1" in seen[8][1]
    assert list_judgments(db)[0].rationale == "dry"


def test_a_vote_goes_the_short_way_and_all_else_the_long_with_every_byte(services: Services, db: Database) -> None:
    fill(db, 2)

    async def long_way(scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": body})

    client = TestClient(FastPath(long_way, services))
    lease = client.post("/api/tasks/next", json={"annotator": "ann"}).json()["lease"]
    vote = {"lease": lease, "verdict": "left", "annotator": "ann"}
    assert client.post("/api/judgments", json=vote).status_code == 201
    for answer in (
        client.post(
            "/api/judgments", content=iter([b'{"lease', b'": 3}']), headers={"Content-Type": "application/json"}
        ),
        client.post("/api/judgments", content=b'{"lease": 3}', headers={"X-Annotator": "ann"}),
    ):
        assert (answer.status_code, answer.content) == (418, b'{"lease": 3}')
    for answer in (client.get("/api/tasks/next"), client.post("/api/prompts", json={}), client.post("/api/judgments/")):
        assert answer.status_code == 418
