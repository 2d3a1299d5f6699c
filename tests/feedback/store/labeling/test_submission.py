from __future__ import annotations

from datetime import timedelta

import pytest

from feedback.database.engine import Database
from feedback.errors import LeaseLost
from feedback.labeling import assignment, judging
from feedback.labeling.assignment import Task
from feedback.store.labeling.drafts import get_draft
from feedback.store.labeling.leases import get_lease
from feedback.store.labeling.submission import Submission, open_submission
from feedback.types import Judgment, LeaseState, Verdict, now
from tests.factories import list_judgments, make_matchup


@pytest.fixture
def task(db: Database) -> Task:
    """A leased pair with a draft."""
    make_matchup(db)
    found = assignment.lease_next(db, "ann")
    assert found
    judging.save_draft(db, found.lease_id, "ann", {"rationale": "half a thought"})
    return found


def judgment_of(submission: Submission) -> Judgment:
    lease = submission.lease
    return Judgment(
        matchup_id=submission.matchup.id,
        lease_id=lease.id,
        annotator=lease.annotator,
        source=lease.source,
        verdict=Verdict.first,
        shown_order=lease.shown_order,
    )


def test_the_same_lease_again_gives_the_first_judgment_and_takes_no_other(db: Database, task: Task) -> None:
    first = judging.submit(db, task.lease_id, "ann", verdict="left")
    again = judging.submit(db, task.lease_id, "ann", verdict="right")
    assert first.created and not again.created and again.judgment_id == first.judgment_id
    with pytest.raises(RuntimeError, match="before"), open_submission(db, task.lease_id, "ann", at=now()) as submission:
        assert submission.earlier == first.judgment_id
        submission.save(judgment_of(submission))
    assert [row.id for row in list_judgments(db)] == [first.judgment_id]


def test_leaving_without_saving_changes_nothing(db: Database, task: Task) -> None:
    with open_submission(db, task.lease_id, "ann", at=now()) as submission:
        assert submission.earlier is None and len(submission.texts) == 2
    unchanged(db, task)


def test_an_error_after_saving_undoes_it(db: Database, task: Task) -> None:
    with pytest.raises(ZeroDivisionError), open_submission(db, task.lease_id, "ann", at=now()) as submission:
        submission.save(judgment_of(submission))
        _ = 1 / 0
    unchanged(db, task)


@pytest.mark.parametrize(("annotator", "later"), [("bob", timedelta(0)), ("ann", timedelta(days=1))])
def test_a_lease_of_another_person_or_of_yesterday_is_lost(
    annotator: str, later: timedelta, db: Database, task: Task
) -> None:
    with pytest.raises(LeaseLost), open_submission(db, task.lease_id, annotator, at=now() + later):
        pytest.fail("the block must not be entered")


def unchanged(db: Database, task: Task) -> None:
    """The lease is live, the draft is there, and nothing was judged."""
    assert get_lease(db, task.lease_id).state is LeaseState.leased
    assert get_draft(db, task.matchup_id, "ann") is not None
    assert list_judgments(db) == []
