"""What was typed in a window that answered second is not lost: it can be added to the saved judgment."""

from __future__ import annotations

import random

import pytest

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, LeaseLost
from feedback.labeling import amending, assignment, judging
from feedback.labeling.assignment import Task
from feedback.tables import JudgmentRow
from feedback.types import JudgmentState
from tests.factories import list_judgments, make_matchup


def judged(db: Database, **said: object) -> Task:
    make_matchup(db, texts=["First reply.", "Second reply."])
    task = assignment.lease_next(db, "ann", session="page-one", rng=random.Random(3))
    assert task
    assert judging.submit(db, task.lease_id, "ann", **{"verdict": "left", **said}).created  # type: ignore[arg-type]
    return task


def current(db: Database) -> JudgmentRow:
    [row] = list_judgments(db, current_only=True)
    return row


def test_a_late_note_is_missing_and_can_be_added(db: Database) -> None:
    task = judged(db)
    before = current(db)
    late = {"rationale": "It is kinder.", "active_ms": 900}
    assert amending.missing_remarks(db, task.lease_id, "ann", late) == {"rationale": "It is kinder."}
    made = amending.add_remarks(db, task.lease_id, "ann", late)
    now_current = current(db)
    assert now_current.id == made and now_current.rationale == "It is kinder."
    assert (now_current.verdict, now_current.shown_order) == (before.verdict, before.shown_order)
    assert (now_current.revision, now_current.supersedes) == (2, before.id)
    old = next(row for row in list_judgments(db) if row.id == before.id)
    assert old.state is JudgmentState.superseded and old.rationale is None
    assert amending.missing_remarks(db, task.lease_id, "ann", late) == {}
    assert amending.add_remarks(db, task.lease_id, "ann", late) == made, "a second press adds nothing"


def test_everything_that_can_be_said_is_added_in_stored_order(db: Database) -> None:
    task = judged(db, rationale="Shorter.", criteria={"tone": [1, None]})
    late = {
        "rationale": "Kinder.",
        "edited": {"index": 1, "text": "A better wording."},
        "spans": [{"index": 0, "start": 0, "end": 5, "mark": "good"}],
        "criteria": {"tone": [None, 4]},
        "flag": "personal",
    }
    assert amending.missing_remarks(db, task.lease_id, "ann", late) == late
    amending.add_remarks(db, task.lease_id, "ann", late)
    row = current(db)
    assert row.rationale == "Shorter.\nKinder." and row.flag == "personal"
    assert row.edited == {"index": row.shown_order[1], "text": "A better wording."}
    assert row.spans and row.spans[0]["index"] == row.shown_order[0]
    assert row.criteria and [row.criteria["tone"][index] for index in row.shown_order] == [1, 4]


def test_undo_takes_back_the_judgment_with_what_was_added(db: Database) -> None:
    task = judged(db)
    amending.add_remarks(db, task.lease_id, "ann", {"rationale": "It is kinder."})
    again = judging.undo_last(db, "ann", session="page-one")
    assert again and again.matchup_id == task.matchup_id
    assert judging.draft_of(db, again)["rationale"] == "It is kinder."
    assert list_judgments(db, current_only=True) == []


def test_where_nothing_was_judged_there_is_nothing_to_add_to(db: Database) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann", lease_seconds=-1)
    assert task and amending.missing_remarks(db, task.lease_id, "ann", {"rationale": "x"}) is None
    with pytest.raises(Conflict):
        amending.add_remarks(db, task.lease_id, "ann", {"rationale": "x"})
    other = judged(db)
    assert amending.missing_remarks(db, other.lease_id, "bob", {"rationale": "x"}) is None
    with pytest.raises(Conflict):
        amending.add_remarks(db, other.lease_id, "bob", {"rationale": "x"})
    with pytest.raises(InvalidInput):
        amending.add_remarks(db, other.lease_id, "ann", {"edited": {"index": 7, "text": "x"}})


def test_a_judgment_under_another_lease_of_the_same_person_is_found(db: Database) -> None:
    make_matchup(db)
    late = assignment.lease_next(db, "ann", lease_seconds=-1)
    again = assignment.lease_next(db, "ann")
    assert late and again and late.matchup_id == again.matchup_id
    judging.submit(db, again.lease_id, "ann", verdict="left")
    with pytest.raises(LeaseLost):
        judging.submit(db, late.lease_id, "ann", verdict="right")
    assert amending.missing_remarks(db, late.lease_id, "ann", {"rationale": "x"}) == {"rationale": "x"}
