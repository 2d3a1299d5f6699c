"""What the Overview is told of a home: the recipe in full, who judged on which day, who served, what runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from feedback.database.engine import Database
from feedback.errors import NotAllowed, NotFound
from feedback.store.models import policies
from feedback.store.models.rounds import get_recipe, last_round
from feedback.store.models.runs import list_runs, save_run, transition_run
from feedback.tables import JudgmentRow
from feedback.types import Run, RunState, Source, Split, UserRole, now
from studio.identity import Person
from studio.services.facade import Services
from tests import factories
from tests.training.loop.test_loop import PretendedRuns
from training.home import Home
from training.rounds.advance import advance

SETTINGS = {"pairs": 6, "rounds": 2, "prompts": 4, "evaluator": "shorter"}


def begun(services: Services, db: Database) -> str:
    """A recipe of people over a starter and some prompts; its id."""
    policies.promote_policy(db, factories.make_policy(db, "starter").id)
    for _ in range(8):
        factories.make_prompt(db)
        factories.make_prompt(db, split=Split.evaluation)
    return services.rounds.start("house", SETTINGS).id


def turn(db: Database, home: Home, key: str, until: str) -> None:
    """Let pretended runs take the round to a state."""
    work = PretendedRuns(db)
    for _ in range(20):
        advance(db, home, key)
        if last_round(db, get_recipe(db, key).id).state.value == until:
            return
        for run in list_runs(db, states=[RunState.queued]):
            work(run)
    raise AssertionError(f"never {until}")


def test_an_empty_home_has_nothing_to_show(services: Services) -> None:
    shown = services.rounds.overview()
    assert shown["recipe"] is None and shown["recipes"] == [] and shown["champion"] is None
    assert shown["runs"] == [] and shown["champions"] == [] and not shown["worker"]
    assert len(shown["judgments"]["days"]) == 14 and shown["judgments"]["people"] == {}
    assert 0 < shown["disk"]["free"] <= shown["disk"]["total"]


def test_a_round_is_told_with_its_counts_and_its_evidence(services: Services, db: Database, home: Home) -> None:
    key = begun(services, db)
    turn(db, home, key, "labeling")
    assert factories.judge_by(db, factories.longer, annotator="ada", count=2) == 2
    recipe = services.rounds.overview()["recipe"]
    assert (recipe["round_state"], recipe["pool"]["judged"]) == ("labeling", 2)
    assert recipe["pool"]["open"] >= 4 and recipe["dataset_id"] is None and not recipe["people_compare"]
    factories.judge_by(db, factories.longer, annotator="bob", count=4)
    turn(db, home, key, "gate")
    shown = services.rounds.overview("house")
    evidence = shown["recipe"]["rounds"][-1]["evidence"]
    assert evidence["gate"]["verdict"] and evidence["over_start"]["win_rate"] == 0.8
    assert services.datasets.get_dataset(shown["recipe"]["dataset_id"]).name == evidence["dataset"] == "house-1"
    assert policies.get_policy(db, shown["recipe"]["policy_id"]).name == "house-1"
    services.rounds.decide(key, "promote")
    turn(db, home, key, "filling")
    newest, first = services.rounds.overview()["champions"]
    assert (newest["policy"], newest["verdict"], newest["by"]) == ("house-1", evidence["gate"]["verdict"], "local")
    assert newest["words"] == evidence["gate"]["reasons"][0]["words"]
    assert (first["policy"], first["verdict"], first["first"]) == ("starter", None, True)


def test_the_recipe_that_is_under_way_is_shown_unless_another_is_asked_for(services: Services, db: Database) -> None:
    begun(services, db)
    over = services.rounds.start("over", SETTINGS).id
    services.rounds.cancel(over)
    assert services.rounds.overview()["recipe"]["name"] == "house"
    assert services.rounds.overview("over")["recipe"]["state"] == "cancelled"
    assert {one["name"] for one in services.rounds.overview()["recipes"]} == {"house", "over"}
    with pytest.raises(NotFound):
        services.rounds.overview("nobody")


def test_judgments_are_counted_by_person_and_day_without_rules(services: Services, db: Database) -> None:
    for _ in range(6):
        factories.make_matchup(db)
    factories.judge_by(db, factories.longer, annotator="ada", count=3)
    factories.judge_by(db, factories.longer, annotator="bob", count=1)
    factories.judge_by(db, factories.longer, annotator="rule", count=1, source=Source.simulated)
    oldest, older = (row.id for row in factories.list_judgments(db)[:2])
    with db.write() as session:
        for row_id, days in ((oldest, 40), (older, 2)):
            moved = update(JudgmentRow).where(JudgmentRow.id == row_id)  # type: ignore[arg-type]
            session.execute(moved.values(created_at=now() - timedelta(days=days)))
    people: dict[str, Any] = services.rounds.overview()["judgments"]["people"]
    assert list(people) == ["ada", "bob"]
    assert sum(people["ada"]) == 2 and people["ada"][-3] == 1 and people["ada"][-1] == 1
    assert people["bob"][-1] == 1


def test_a_run_under_way_is_told_with_the_time_it_needs(services: Services, db: Database) -> None:
    run = save_run(db, Run(method="dpo", config={"name": "warm"}))
    assert services.rounds.overview()["runs"][0]["seconds_left"] is None
    transition_run(
        db, run.id, expected=[RunState.queued], to=RunState.running,
        started_at=now() - timedelta(seconds=100), progress=0.25,
    )  # fmt: skip
    (shown,) = services.rounds.overview()["runs"]
    assert (shown["name"], shown["method"], shown["state"]) == ("warm", "dpo", "running")
    assert 295 < shown["seconds_left"] < 330


def test_the_overview_is_for_researchers(services: Services) -> None:
    for role in (UserRole.annotator, UserRole.reviewer):
        with pytest.raises(NotAllowed):
            services.acting_as(Person("ann", role)).rounds.overview()
