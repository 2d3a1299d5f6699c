"""Leases of closed pages: the same person's next page takes them over, and whoever needs a matchup ends them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from feedback.database.engine import Database
from feedback.errors import LeaseLost
from feedback.labeling import assignment, judging
from feedback.labeling.assignment import Task
from feedback.store.labeling import idle_leases, judgments, leases
from feedback.store.labeling.idle_leases import IDLE_SECONDS
from feedback.tables import MatchupRow
from feedback.types import LeaseState, MatchupState, now
from tests.factories import make_matchup

SILENCE = timedelta(seconds=IDLE_SECONDS + 1)


def deck(db: Database, annotator: str, session: str, at: datetime, size: int = 2) -> list[Task]:
    return assignment.fill_deck(db, annotator, session, size=size, at=at)


def matchups_of(tasks: list[Task]) -> list[str]:
    return [task.matchup_id for task in tasks]


def test_a_new_page_takes_over_what_a_closed_page_of_the_same_person_held(db: Database) -> None:
    for _ in range(3):
        make_matchup(db)
    start = now()
    first = deck(db, "ann", "page-one", start)
    assert assignment.leave(db, "ann", "page-one") == 2
    second = deck(db, "ann", "page-two", now())
    assert [task.lease_id for task in second] == [task.lease_id for task in first]
    assert judging.submit(db, second[0].lease_id, "ann", verdict="left").created


def test_a_silent_page_loses_its_tasks_to_the_next_one_after_a_minute(db: Database) -> None:
    for _ in range(2):
        make_matchup(db)
    start = now()
    first = deck(db, "ann", "page-one", start)
    assert deck(db, "ann", "page-two", start + timedelta(seconds=IDLE_SECONDS / 2)) == []
    second = deck(db, "ann", "page-two", start + SILENCE)
    assert matchups_of(second) == matchups_of(first)


def test_what_is_taken_over_comes_behind_what_is_on_the_screen(db: Database) -> None:
    for _ in range(3):
        make_matchup(db)
    start = now()
    old = deck(db, "ann", "page-one", start)
    shown = deck(db, "ann", "page-two", start + timedelta(seconds=1))
    assert len(shown) == 1
    both = deck(db, "ann", "page-two", start + SILENCE)
    assert matchups_of(both) == [shown[0].matchup_id, old[0].matchup_id]


def test_a_sign_of_life_keeps_the_tasks_of_a_page(db: Database) -> None:
    make_matchup(db)
    start = now()
    [task] = deck(db, "ann", "page-one", start, size=1)
    assignment.heartbeat(db, task.lease_id, "ann", session="page-one", at=start + timedelta(seconds=50))
    assert deck(db, "ann", "page-two", start + SILENCE) == []
    assert assignment.lease_next(db, "bob", at=start + SILENCE) is None


def test_the_same_page_comes_back_to_its_own_tasks(db: Database) -> None:
    for _ in range(3):
        make_matchup(db)
    start = now()
    before = deck(db, "ann", "page-one", start)
    assignment.leave(db, "ann", "page-one")
    assert [one.lease_id for one in deck(db, "ann", "page-one", now())] == [one.lease_id for one in before]


@pytest.mark.parametrize("session", [None, "page-of-bob"])
def test_somebody_else_is_given_what_a_silent_page_held_once_nothing_else_is_left(
    db: Database, session: str | None
) -> None:
    for _ in range(3):
        make_matchup(db)
    start = now()
    held = deck(db, "ann", "page-one", start)
    free = assignment.lease_next(db, "bob", session=session, at=start + SILENCE)
    assert free and free.matchup_id not in matchups_of(held)
    assert leases.get_lease(db, held[0].lease_id).state is LeaseState.leased, "nobody needed it yet"
    got = assignment.lease_next(db, "bob", session=session, at=start + SILENCE)
    assert got and got.matchup_id == held[0].matchup_id
    with pytest.raises(LeaseLost):
        judging.submit(db, held[0].lease_id, "ann", verdict="left")


def test_a_task_given_by_rest_is_never_idle(db: Database) -> None:
    make_matchup(db)
    start = now()
    assert assignment.lease_next(db, "ann", at=start)
    assert assignment.lease_next(db, "bob", at=start + SILENCE) is None
    assert deck(db, "ann", "page-one", start + SILENCE) == []


def test_a_page_whose_task_was_taken_over_is_told_so(db: Database) -> None:
    make_matchup(db)
    start = now()
    [task] = deck(db, "ann", "page-one", start, size=1)
    assert deck(db, "ann", "page-two", start + SILENCE, size=1)
    with pytest.raises(LeaseLost, match="another window"):
        assignment.heartbeat(db, task.lease_id, "ann", session="page-one", at=start + SILENCE)


def test_what_is_left_for_a_person_is_what_their_page_can_get(db: Database) -> None:
    for _ in range(5):
        make_matchup(db)
    start = now()
    tasks = deck(db, "ann", "page-one", start)
    assert idle_leases.reach_of(db, annotator="ann", session="page-one", at=start).left == 5
    judging.submit(db, tasks[0].lease_id, "ann", verdict="left")
    assert idle_leases.reach_of(db, annotator="ann", session="page-one", at=start).left == 4
    seen = idle_leases.reach_of(db, annotator="ann", session="page-two", at=start)
    assert (seen.left, seen.elsewhere) == (3, 1) and seen.until == tasks[1].expires_at
    assert idle_leases.reach_of(db, annotator="bob", session="page-bob", at=start).left == 3
    later = start + SILENCE
    assert idle_leases.reach_of(db, annotator="ann", session="page-two", at=later).elsewhere == 0
    assert idle_leases.reach_of(db, annotator="ann", session="page-two", at=later).left == 4
    assert idle_leases.reach_of(db, annotator="bob", session="page-bob", at=later).left == 4
    skipped = assignment.lease_next(db, "bob", at=later)
    assert skipped
    judging.submit(db, skipped.lease_id, "bob", skip_reason="unclear")
    assert idle_leases.reach_of(db, annotator="bob", session="page-bob", at=later).left == 3


def test_a_new_page_takes_back_the_last_judgment_of_a_closed_one(db: Database) -> None:
    for _ in range(3):
        make_matchup(db)
    task, _ = deck(db, "ann", "page-one", now())
    judging.submit(db, task.lease_id, "ann", verdict="left")
    assert judging.undo_last(db, "ann", session="page-two") is None, "the page that made it is open"
    assignment.leave(db, "ann", "page-one")
    again = judging.undo_last(db, "ann", session="page-two")
    assert again and again.matchup_id == task.matchup_id


class Page:
    """One person's page: it votes, takes back and reads what is left, as the Label tab does."""

    def __init__(self, db: Database, annotator: str, counts: idle_leases.ReachCounts) -> None:
        self.db, self.annotator, self.session, self.counts = db, annotator, f"page-{annotator}", counts

    def vote(self, **said: str) -> None:
        [task, *_] = deck(self.db, self.annotator, self.session, now())
        judging.submit(self.db, task.lease_id, self.annotator, **(said or {"verdict": "left"}))

    def left(self, *, exactly: bool = False) -> int:
        deck(self.db, self.annotator, self.session, now())
        judged = judgments.tally_judgments(self.db, self.annotator)["total"]
        counts = None if exactly else self.counts
        return idle_leases.reach_of(
            self.db, annotator=self.annotator, session=self.session, at=now(), judged=judged, counts=counts
        ).left


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each count of all free matchups."""
    made: list[int] = []
    query = idle_leases._FREE

    class Counting:
        def first(self, *args: object, **values: object) -> object:
            made.append(1)
            return query.first(*args, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(idle_leases, "_FREE", Counting())
    monkeypatch.setattr(idle_leases, "RECOUNT_SECONDS", 1e9)
    return made


def test_a_large_pool_is_not_counted_after_every_vote(
    db: Database, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_leases, "FEW", 4)
    for _ in range(12):
        make_matchup(db)
    ann = Page(db, "ann", idle_leases.ReachCounts())
    assert ann.left() == 12
    for expected in (11, 10, 9):
        ann.vote()
        assert ann.left() == expected == ann.left(exactly=True)
    ann.vote(skip_reason="unclear")
    assert ann.left() == 8 == ann.left(exactly=True)
    assert judging.undo_last(db, "ann", session=ann.session)
    assert ann.left() == 9
    assert len(counted) == 1 + 4
    bob = Page(db, "bob", ann.counts)
    for _ in range(2):
        bob.vote()
    assert ann.left() == 9, "what others did is seen with the next count"
    monkeypatch.setattr(idle_leases, "RECOUNT_SECONDS", 0.0)
    assert ann.left() == ann.left(exactly=True) == 6, "of three that bob judged or holds"


def test_a_page_that_is_given_nothing_counts_anew(
    db: Database, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_leases, "FEW", 2)
    for _ in range(9):
        make_matchup(db)
    ann = Page(db, "ann", idle_leases.ReachCounts())
    assert ann.left() == 9
    with db.write() as session:
        session.execute(update(MatchupRow).values(state=MatchupState.retired))
    assert ann.left() == 0, "nothing is left, and no count of before says otherwise"


def test_a_small_pool_is_counted_after_every_vote(db: Database, counted: list[int]) -> None:
    for _ in range(3):
        make_matchup(db)
    ann, bob = (Page(db, name, idle_leases.ReachCounts()) for name in ("ann", "bob"))
    assert ann.left() == 3
    bob.vote()
    assert ann.left() == ann.left(exactly=True)


def test_a_count_that_stopped_at_its_limit_stays_there(
    db: Database, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_leases, "FEW", 2)
    monkeypatch.setattr(idle_leases, "COUNTED", 5)
    counts = idle_leases.ReachCounts()
    counts.note(("ann", "page"), 0, 5)
    assert counts.known(("ann", "page"), 3) == 5
    counts.note(("ann", "page"), 0, 4)
    assert counts.known(("ann", "page"), 1) == 3
    assert counts.known(("ann", "page"), 2) is None
    assert counts.known(("ann", "other"), 0) is None
