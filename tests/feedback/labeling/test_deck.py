"""A browser holds the task on its screen and the next one; however many windows ask, no more than that."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.labeling import assignment, judging
from feedback.labeling.assignment import Task
from feedback.store.labeling import matchups
from feedback.store.reports import opinions
from feedback.types import Checks, Purpose, now
from tests.factories import get_matchup, make_matchup

NEVER = Checks(gold_share=0.0, repeat_share=0.0)
OFTEN = Checks(gold_share=0.5, repeat_share=0.5)


@pytest.fixture(params=["db", "postgresql"])
def either(request: pytest.FixtureRequest) -> Database:
    database: Database = request.getfixturevalue(request.param)
    return database


def test_windows_that_ask_at_once_fill_one_deck(either: Database) -> None:
    for _ in range(6):
        make_matchup(either, required=2)
    barrier, seen = threading.Barrier(4), {}

    def ask(number: int) -> None:
        barrier.wait()
        seen[number] = assignment.fill_deck(either, "ann", f"tab-{number % 2}", size=2, checks=NEVER)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[0] == seen[2] and seen[1] == seen[3]
    held = {task.lease_id: task.matchup_id for tasks in seen.values() for task in tasks}
    assert len(set(held.values())) == len(held) == 4


def test_the_screen_comes_first_and_each_place_is_another_matchup(db: Database) -> None:
    for _ in range(4):
        make_matchup(db)
    first, second = assignment.fill_deck(db, "ann", "tab", size=2, checks=NEVER)
    assert [task.lease_id for task in assignment.held(db, "tab")] == [first.lease_id, second.lease_id]
    judging.submit(db, first.lease_id, "ann", verdict="left")
    upcoming = assignment.fill_deck(db, "ann", "tab", size=2, checks=NEVER)
    assert upcoming[0] == second and upcoming[1].matchup_id not in (first.matchup_id, second.matchup_id)


def test_checks_are_dealt_into_the_deck_and_repeats_turn_the_sides(db: Database) -> None:
    for _ in range(30):
        make_matchup(db)
    gold = {matchups.save_gold(db, make_matchup(db).id, {"verdict": "first"}).id for _ in range(4)}
    rng, shown = random.Random(1), []
    start = now()
    for number in range(20):
        at = start + timedelta(hours=2 * number)
        deck = assignment.fill_deck(db, "ann", "tab", size=2, checks=OFTEN, rng=rng, at=at, lease_seconds=10**6)
        assert len({task.matchup_id for task in deck}) == 2
        shown.append(deck[0])
        judging.submit(db, deck[0].lease_id, "ann", verdict="tie", at=at)
    assert gold <= {task.matchup_id for task in shown}
    orders = {task.matchup_id: task.shown_order for task in shown}
    repeats = [row for row in _rows(db, shown) if row.purpose is Purpose.repeat]
    assert repeats and all(orders[row.id] == orders[row.repeat_of][::-1] for row in repeats)


def test_time_on_the_screen_counts_and_not_the_time_in_the_deck(db: Database) -> None:
    make_matchup(db), make_matchup(db)
    first, second = assignment.fill_deck(db, "ann", "tab", size=2, checks=NEVER)
    late = now() + timedelta(seconds=90)
    judging.submit(db, first.lease_id, "ann", verdict="left", at=late)
    judging.submit(db, second.lease_id, "ann", verdict="left", active_ms=400, at=late)
    measured = {opinion.matchup_id: opinion.seconds for opinion in opinions.list_opinions(db)}
    assert measured[second.matchup_id] == 0.4 and measured[first.matchup_id] > 80


def _rows(db: Database, tasks: list[Task]) -> list[Any]:
    return [get_matchup(db, task.matchup_id) for task in tasks]
