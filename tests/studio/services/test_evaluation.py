"""What a researcher asks before a policy is let serve, by the shell and by REST."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound
from feedback.rules.pairing import make_pairs
from feedback.store.labeling.matchups import save_matchups
from feedback.store.models import runs as run_store
from feedback.store.models.policies import get_champion, get_policy, promote_policy, save_policy
from feedback.store.models.scorecards import save_scorecard
from feedback.types import Policy, Purpose, Scorecard, Split
from studio.cli.app import app
from studio.cli.commands import evaluate
from studio.page.views.policies import policy_detail
from studio.services.facade import Services
from studio.web.app import create_app
from tests.factories import judge_by, keep_benchmark, longer, make_generations, make_prompt, sample
from training.evaluation import benchmark_comparison
from training.home import Home
from training.settings.parsing import parse_settings

FIGURES = {"win_rate": 0.8, "low": 0.7, "high": 0.9, "n_prompts": 50}


@pytest.fixture
def measured(home: Home) -> Home:
    """A home with a champion and a child that people prefer and that lost a little elsewhere."""
    db = home.open()
    parent = promote_policy(db, save_policy(db, Policy(name="parent", base="starter")).id)
    child = save_policy(db, Policy(name="child", base="starter", parent_id=parent.id))
    save_scorecard(db, Scorecard(kind="win_rate", subject_id=child.id, against_id=parent.id, figures=FIGURES))
    keep_benchmark(db, parent.id, [1.0] * 50)
    keep_benchmark(db, child.id, [1.0] * 47 + [0.0] * 3)
    db.dispose()
    return home


def said(home: Home, *words: str) -> Result:
    return CliRunner().invoke(app, ["--home", str(home.path), *words])


def test_the_shell_compares_and_shows_what_was_lost(measured: Home) -> None:
    shown = said(measured, "benchmark", "compare", "child", "parent", "--items", "2")
    assert shown.exit_code == 0, shown.output
    assert "-0.0600" in shown.output and "cannot tell" in shown.output
    assert "0 against 1: What is 47?" in shown.output and "child: It is 0." in shown.output
    told = json.loads(said(measured, "benchmark", "compare", "child", "parent", "--json").output)
    (found,) = told["comparisons"]
    assert told["unlike"] == []
    assert (found["n"], found["lost"], found["p_value"], found["items"]) == (50, 3, 0.25, [])
    assert found["detectable"] > 0.06 and found["finding"] == "cannot tell"
    listed = json.loads(said(measured, "benchmark", "list", "--policy", "child", "--json").output)
    assert [(row["policy"], row["task"], row["means"]) for row in listed] == [("child", "sums", {"acc": 0.94})]


def test_the_gate_speaks_in_the_shell_and_changes_nothing(measured: Home) -> None:
    held = said(measured, "policies", "gate", "child")
    assert held.exit_code == 0 and held.output.startswith("HOLD\n  passed: It wins 80.0 %")
    assert "unclear: sums lost 6.0 points (1.000 to 0.940, 50 items): cannot tell" in held.output
    decision = json.loads(said(measured, "policies", "gate", "child", "--margin", "0.2", "--json").output)
    assert decision["verdict"] == "PROMOTE" and decision["limits"]["margin"] == 0.2
    assert said(measured, "policies", "gate", "parent").exit_code == 1
    assert "no parent" in said(measured, "policies", "gate", "parent").output
    policies = json.loads(said(measured, "policies", "list", "--json").output)
    assert [row["name"] for row in policies if row["champion"]] == ["parent"]


def test_a_report_from_elsewhere_comes_in_by_the_shell(measured: Home, tmp_path: Path) -> None:
    (tmp_path / "results_2026.json").write_text(json.dumps({"results": {"facts": {}}, "versions": {"facts": 2}}))
    lines = [json.dumps(sample(number, 1.0)) for number in range(4)]
    (tmp_path / "samples_facts_2026.jsonl").write_text("\n".join(lines))
    (row,) = json.loads(said(measured, "benchmark", "import", str(tmp_path), "--policy", "child", "--json").output)
    assert (row["task"], row["n"], row["means"], row["settings"]["version"]) == ("facts", 4, {"acc": 1.0}, 2)
    lost = said(measured, "benchmark", "import", str(tmp_path / "none"), "--policy", "child")
    assert lost.exit_code == 1 and "results_*.json" in lost.output and "Traceback" not in lost.output


def test_what_is_taken_is_looked_at_before_anything_is_queued(services: Services, db: Database) -> None:
    parent = promote_policy(db, save_policy(db, Policy(name="parent", base="starter")).id)
    child = save_policy(db, Policy(name="child", base="starter", parent_id=parent.id))
    keep_benchmark(db, parent.id, [1.0] * 4)
    with pytest.raises(NotFound, match="nobody"):
        services.evaluation.take("child", "sums", "nobody")
    with pytest.raises(InvalidInput, match="Name a benchmark task"):
        services.evaluation.take("child", " , ")
    assert run_store.list_runs(db) == []
    queued = services.evaluation.take("child", "sums, facts", "parent")
    assert [run.config for run in queued] == [
        {"policy": child.id, "tasks": ["sums", "facts"]},
        {"policy": parent.id, "tasks": ["facts"]},
    ]
    assert len(services.evaluation.take("child", "sums", "parent")) == len(
        services.evaluation.take("child", "x", "child")
    )
    assert services.evaluation.opponent("child") == parent and services.evaluation.opponent("parent") is None


def test_a_comparison_is_worked_out_once_until_there_is_more(
    services: Services, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = promote_policy(db, save_policy(db, Policy(name="parent", base="starter")).id)
    child = save_policy(db, Policy(name="child", base="starter", parent_id=parent.id))
    read: list[str] = []
    real = benchmark_comparison.list_scores
    monkeypatch.setattr(benchmark_comparison, "list_scores", lambda *given: read.append(given[3]) or real(*given))
    for policy in (parent.id, child.id):
        keep_benchmark(db, policy, [1.0] * 4)
    for _ in range(3):
        services.evaluation.decide("child")
        services.evaluation.compare("child")
    assert len(read) == 1
    keep_benchmark(db, child.id, [0.0] * 8)
    keep_benchmark(db, parent.id, [1.0] * 8)
    assert services.evaluation.compare("child").comparisons[0].paired.n == 8


def test_rest_tells_benchmarks_comparisons_and_the_gate(client: TestClient, db: Database) -> None:
    parent = promote_policy(db, save_policy(db, Policy(name="parent", base="starter")).id)
    child = save_policy(db, Policy(name="child", base="starter", parent_id=parent.id))
    assert client.get("/api/policies/child/benchmarks").json() == {"comparisons": [], "unlike": []}
    assert client.get("/api/policies/child/gate").json()["verdict"] == "HOLD"
    for policy, wrong in ((parent.id, 0), (child.id, 120)):
        keep_benchmark(db, policy, [0.0] * wrong + [1.0] * (400 - wrong))
    assert len(client.get("/api/benchmarks").json()["benchmarks"]) == 2
    assert len(client.get("/api/benchmarks", params={"policy": "child"}).json()["benchmarks"]) == 1
    (found,) = client.get("/api/policies/child/benchmarks", params={"items": 3}).json()["comparisons"]
    assert found["finding"] == "worse" and found["difference"] == -0.3 and len(found["items"]) == 3
    assert found["items"][0]["asked"].startswith("What is ")
    (other,) = client.get("/api/policies/parent/benchmarks", params={"against": "child"}).json()["comparisons"]
    assert other["finding"] == "better"
    decision = client.get("/api/policies/child/gate").json()
    assert decision["verdict"] == "REJECT" and decision["reasons"][0]["answer"] == "unclear"
    assert client.get("/api/policies/child/gate", params={"margin": -1}).status_code == 422
    assert client.get("/api/policies/nobody/gate").status_code == 404
    assert client.get("/api/policies/child/benchmarks", params={"against": "child"}).status_code == 422
    refused = client.post("/api/runs", json={"method": "benchmark", "config": {"policy": "child", "tasks": []}})
    assert refused.status_code == 422 and "tasks" in refused.text
    queued = client.post("/api/runs", json={"method": "benchmark", "config": {"policy": "child", "tasks": "a, b"}})
    config = client.get(f"/api/runs/{queued.json()['run_id']}").json()
    assert queued.status_code == 202 and config["method"] == "benchmark"


def test_people_judge_two_policies_by_rest_and_the_figures_are_told_everywhere(measured: Home) -> None:
    db = measured.open()
    child, parent = get_policy(db, "child"), get_policy(db, "parent")
    for number in range(4):
        prompt = make_prompt(db, split=Split.evaluation)
        rows = [
            *make_generations(db, prompt, child, [f"a longer one {number}"]),
            *make_generations(db, prompt, parent, [f"short {number}"]),
        ]
        pair = make_pairs(rows, Random(number), purpose=Purpose.evaluate, across=True)
        save_matchups(db, pair)
    judge_by(db, longer, count=3)
    client = TestClient(create_app(measured, db), base_url="http://127.0.0.1")
    (told,) = client.get("/api/policies/child/people").json()["people"]
    assert (told["against"], told["win_rate"], told["judgments"], told["waiting"]) == ("parent", 1.0, 3, 1)
    assert json.loads(said(measured, "policies", "show", "child", "--json").output)["people"] == [told]
    assert "preferred by people" in said(measured, "policies", "show", "child").output
    services = Services(measured, db)
    (card, against), *others = services.policies.list_win_rates(child.id)
    assert (card.figures["win_rate"], card.settings["oracle"], against, len(others)) == (1.0, "people", "parent", 1)
    shown = policy_detail(services.policies.get_policy("child"), services.policies.lineage("child"), [(card, against)])
    assert "judge people" in shown and "→" not in shown, "nobody counted the words"
    for body, reason in (
        ({"policy": "child", "against": "child"}, "cannot be compared with itself"),
        ({"policy": "child", "against": "nobody"}, "no policy 'nobody'"),
    ):
        refused = client.post("/api/runs", json={"method": "generate", "config": body})
        assert refused.status_code in (404, 422) and reason in refused.json()["detail"]
    config = {"policy": "child", "against": "parent", "split": "evaluation"}
    asked = client.post("/api/runs", json={"method": "generate", "config": config})
    assert asked.status_code == 202
    wrong = said(measured, "evaluate", "child", "parent", "--people", "--oracle", "longer")
    assert wrong.exit_code == 1 and "no other judge" in wrong.output
    db.dispose()


def test_people_are_asked_about_fresh_replies_each_time_and_told_how_few_there_are(
    measured: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one seed the replies would be those of last time, and people would meet the same pairs again."""
    configs: list[dict[str, Any]] = []

    def pretend(session: Any, keeper: Any, method: str, config: dict[str, Any]) -> Any:
        configs.append(config)
        figures = {"win_rate": 0.5, "low": 0.4, "high": 0.6}
        return SimpleNamespace(id="run-1", result={"matchups": 12, **figures})

    monkeypatch.setattr(evaluate, "submit_and_wait", pretend)
    asked = said(measured, "evaluate", "child", "parent", "--people", "--prompts", "40")
    assert "12 pairs come first on the Label tab" in asked.output and "40 were asked for" in asked.output
    assert "asked for" not in said(measured, "evaluate", "child", "parent", "--people", "--prompts", "12").output
    said(measured, "evaluate", "child", "parent", "--people", "--seed", "7")
    said(measured, "evaluate", "child", "parent", "--oracle", "longer")
    assert [config["seed"] for config in configs] == [None, None, 7, None]
    assert parse_settings("evaluate", {"a": "child", "b": "parent", "oracle": "longer"}).seed == 0


def test_a_loop_that_cannot_begin_leaves_the_champion(measured: Home) -> None:
    db = measured.open()
    far = save_policy(db, Policy(name="far", base="http://127.0.0.1:9/v1#m"))
    refused = said(measured, "loop", "--oracle", "longer", "--policy", far.name)
    assert refused.exit_code == 1 and "its weights, which this needs, are not here" in refused.output
    champion = get_champion(db)
    assert champion is not None and champion.name == "parent"
