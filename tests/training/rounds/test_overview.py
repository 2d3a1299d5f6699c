"""What the Overview shows: the round in full, who judged when, who served and why, what runs with its time left."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.errors import NotFound
from feedback.store.labeling.batches import find_batch
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import list_runs, update_run
from feedback.store.reports.activity import count_by_person
from feedback.types import RunState, now
from tests.factories import judge_by, longer, make_matchup, make_policy
from tests.pretended_runs import PretendedRuns
from tests.training.rounds.test_advance import PEOPLE, RULE, home, starter, step, vote
from training.home import Home
from training.rounds.acts import decide, start
from training.rounds.advance import advance
from training.rounds.overview import DAYS, overview_of
from training.runs import lifecycle

__all__ = ["home", "starter"]


def test_an_empty_home_has_a_champion_and_no_recipe(db: Database, home: Home, starter: object) -> None:
    found = overview_of(db, home)
    assert (found["champion"], found["recipe"], found["recipes"], found["runs"]) == ("starter", None, [], [])
    assert found["judgments"]["people"] == {} and len(found["judgments"]["days"]) == DAYS
    assert found["champions"][0] | {"at": "", "policy_id": ""} == {
        "policy": "starter", "policy_id": "", "at": "", "again": False, "first": True,
        "verdict": None, "words": "", "by": None,
    }  # fmt: skip
    assert 0 < found["disk"]["free"] <= found["disk"]["total"] and found["worker"] is False
    with pytest.raises(NotFound):
        overview_of(db, home, "none")


def test_a_round_is_counted_and_its_champion_explained(db: Database, home: Home, starter: object) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "tone", PEOPLE)
    step(db, home, recipe, runs)
    vote(db, 2, "ann")
    vote(db, 4, "bob")
    found = overview_of(db, home)["recipe"]
    assert (found["pool"]["judged"], found["people_compare"], found["dataset_id"]) == (6, True, None)
    step(db, home, recipe, runs)
    judge_by(db, lambda left, right: ("tone" in left) - ("tone" in right), annotator="cy")
    step(db, home, recipe, runs)
    at_the_gate = overview_of(db, home)["recipe"]
    assert at_the_gate["dataset_id"] and at_the_gate["policy_id"]
    decide(db, "tone", "promote", "rita")
    step(db, home, recipe, runs)
    found = overview_of(db, home)
    assert [one["policy"] for one in found["champions"]] == ["tone-1", "starter"]
    assert (found["champions"][0]["verdict"], found["champions"][0]["by"]) == ("PROMOTE", "rita")
    assert found["champions"][0]["words"].startswith("It wins 100.0 %")
    people = found["judgments"]["people"]
    assert {name: sum(days) for name, days in people.items()} == {"cy": 8, "bob": 4, "ann": 2}
    assert list(people) == ["cy", "bob", "ann"] and all(days[-1] for days in people.values())
    promote_policy(db, "starter")
    assert overview_of(db, home)["champions"][0]["again"] is True


def test_the_newest_recipe_under_way_is_shown_and_its_run_has_a_time_left(
    db: Database, home: Home, starter: object
) -> None:
    one = start(db, "one", RULE)
    start(db, "two", RULE)
    assert overview_of(db, home)["recipe"]["name"] == "two"
    assert overview_of(db, home, one.id)["recipe"]["name"] == "one"
    advance(db, home, one.id)
    (run,) = list_runs(db)
    assert overview_of(db, home)["runs"][0]["seconds_left"] is None
    lifecycle.advance(db, run.id, RunState.starting)
    lifecycle.advance(db, run.id, RunState.running)
    update_run(db, run.id, progress=0.25, started_at=now() - timedelta(seconds=10))
    left = overview_of(db, home)["runs"][0]["seconds_left"]
    assert left == pytest.approx(30, abs=5)


def test_pairs_that_are_there_can_be_judged_while_more_are_drawn(db: Database, home: Home, starter: object) -> None:
    recipe = start(db, "tone", PEOPLE)
    advance(db, home, recipe.id)
    batch = find_batch(db, "tone-1")
    assert batch is not None
    make_matchup(db, batch=batch)
    found = overview_of(db, home)["recipe"]
    assert (found["round_state"], found["pool"]["open"]) == ("filling", 1)


def test_judgments_are_counted_by_person_and_span(db: Database, tmp_path: Path) -> None:
    policy = make_policy(db, "p")
    for _ in range(3):
        make_matchup(db, policy=policy)
    judge_by(db, longer, count=2, annotator="ann")
    judge_by(db, longer, annotator="bob")
    at = now()
    spans = [at - timedelta(days=2), at - timedelta(days=1), at + timedelta(days=1)]
    assert [tuple(one) for one in count_by_person(db, spans)] == [(1, "ann", 2), (1, "bob", 1)]
    assert count_by_person(db, [at + timedelta(days=1)]) == [] and count_by_person(db, []) == []
