"""Runs a page at a time, the split before it is frozen, and messages that name places of the page."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound
from feedback.store.models import policies, runs
from feedback.tables import RunRow
from feedback.types import Run, RunState, UserRole
from studio.page.commands import on_the_page
from studio.page.tabs import datasets, runs_list, users
from studio.page.tabs import policies as policies_tab
from studio.page.text import error_text
from studio.page.views import datasets as datasets_view
from studio.page.views.training import runs as runs_view
from studio.services.facade import Services
from studio.services.runs import RunsAsked
from tests import factories


def test_all_runs_can_be_reached_over_rest(client: TestClient, db: Database) -> None:
    made = [runs.save_run(db, Run(method="dpo", config={"name": f"mild-{number}"})).id for number in range(54)]
    first = client.get("/api/runs").json()
    assert len(first["runs"]) == 50 and first["total"] == 54
    rest = client.get("/api/runs", params={"before": first["next"]}).json()
    assert [run["id"] for run in (*first["runs"], *rest["runs"])] == made[::-1] and rest["next"] is None
    assert [run["id"] for run in client.get("/api/runs", params={"name": "mild-7"}).json()["runs"]] == [made[7]]
    assert client.get("/api/runs", params={"method": "sft"}).json()["runs"] == []
    assert client.get("/api/runs", params={"state": "queued", "method": "dpo"}).json()["total"] == 54
    for wrong in ({"method": "nothing"}, {"state": "nothing"}):
        assert client.get("/api/runs", params=wrong).status_code == 422
    assert client.get("/api/runs", params={"before": "run-none"}).status_code == 404


def test_the_list_of_runs_turns_pages_and_narrows(services: Services, db: Database) -> None:
    for number in range(54):
        method = "dpo" if number % 2 else "sft"
        runs.save_run(db, Run(method=method, config={"dataset": "d", "name": f"mild-{number}"}))
    table, newer, older = runs_list.shown(services, None)
    assert "1 to 50 of 54 runs" in table and not newer.visible and older.visible
    listing, table, newer, older = runs_list.turn_older(services, None, None)
    assert "51 to 54 of 54 runs" in table and newer.visible and not older.visible
    assert "mild-0" in table and "mild-53" not in table
    _, table, newer, _ = runs_list.turn_newer(services, None, listing)
    assert "1 to 50" in table and not newer.visible
    narrowed, table, _, older = runs_list.narrow(services, None, "sft", "", " mild-4 ")
    assert "mild-40" in table and "mild-41" not in table and not older.visible
    assert "No run is like this" in runs_list.narrow(services, None, "ppo", "", "")[1]
    assert "mild-40" in runs_list.shown(services, None, narrowed)[0]
    with pytest.raises(InvalidInput):
        services.runs.page_of_runs(RunsAsked(method="nothing"))
    with pytest.raises(NotFound):
        services.runs.page_of_runs(RunsAsked(before="run-none"))


def test_the_split_is_told_before_and_after_it_is_frozen(client: TestClient, services: Services, db: Database) -> None:
    policy = policies.promote_policy(db, factories.make_policy(db, "starter").id)
    for _ in range(12):
        factories.make_matchup(db, policy=policy)
    factories.judge_by(db, factories.longer)
    shown = datasets.preview(services)
    assert "12 pairs" in shown and "kept for testing" in shown and "About the split" in shown
    assert datasets.preview(services, ["human"], 50, 3) != shown
    with pytest.raises(InvalidInput, match="test_share"):
        datasets.preview(services, ["human"], 90, 0)
    frozen = client.post("/api/datasets", json={"name": "small"}).json()
    assert any("kept for testing" in note for note in frozen["notes"])
    row = services.datasets.get_dataset("small")
    assert "kept for testing" in datasets_view.dataset_detail(row, [])
    *_, split = datasets.freeze(services, "other", ["human"], "raw", 50, 7)
    assert "About the split" in split
    assert services.datasets.get_dataset("other").filters["split_seed"] == 7


def test_an_accuracy_on_few_pairs_is_marked_on_the_card_of_a_run() -> None:
    result = {"accuracy": 0.5, "accuracy_low": 0.001, "accuracy_high": 0.998, "test_pairs": 2}
    run = RunRow(id="run-1", method="reward", state=RunState.succeeded, config={}, result=result)
    at = run.created_at
    assert "measured on 2 test pairs only" in runs_view.run_detail(run, [], at)
    many = RunRow(id="run-1", method="reward", state=RunState.succeeded, config={}, result={**result, "test_pairs": 80})
    assert "only: fewer than" not in runs_view.run_detail(many, [], at)


def test_messages_on_the_page_name_its_places() -> None:
    assert on_the_page("There is no run 'x'. `studio runs list` shows all.").endswith("The Train tab shows all.")
    assert "“Measure win rate”" in on_the_page("It was never measured: `studio evaluate` does that.")
    assert on_the_page("`studio users add NAME`") == "The People tab"
    assert on_the_page("Choose one by `studio policies add M --chat-template N`.").endswith(
        "by “Add a model” on the Policies tab."
    )
    assert on_the_page("See `studio policies gate NEW`.") == "See the Policies tab."
    assert "`studio up --policy" in on_the_page("restart with `studio up --policy MODEL`.")
    assert "studio runs" not in error_text(NotFound("run", "x", hint="`studio runs list` shows all."))


def test_a_policy_is_not_offered_to_be_compared_with_itself(services: Services, db: Database) -> None:
    champion = policies.promote_policy(db, factories.make_policy(db, "starter").id)
    child = factories.make_policy(db, "child", parent_id=champion.id)
    offered = policies_tab.select(services, child.id)[6]
    assert [value for _, value in offered.choices] == [champion.id]


def test_the_form_for_the_first_user_begins_with_a_role_that_it_takes(services: Services) -> None:
    assert users.first_role(services) == UserRole.admin
    table, secret, *_ = users.add(services, "ada", users.first_role(services))
    assert "ada is the first user" in table and "Password" in secret
    assert users.first_role(services) == UserRole.annotator
