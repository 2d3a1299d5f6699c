"""Reviews: what reviewers did and why. Acts are added, never changed; judgments change state and are never deleted."""

from __future__ import annotations

from collections.abc import Hashable

from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.errors import Conflict, NotFound
from feedback.rules import consensus
from feedback.store.labeling.matchups import refuse_retired
from feedback.store.rows import as_row, value_of
from feedback.tables import JudgmentRow, MatchupRow, ReviewRow
from feedback.types import Act, JudgmentState, MatchupState, Part, Purpose, Review, Verdict


def exclude_judgment(db: Database, judgment_id: str, actor: str, reason: str, *, requeue: bool = False) -> ReviewRow:
    """Take a judgment out of everything that is derived from judgments; with ``requeue`` another one is asked for.

    The judgment stays as it is, marked. Without its adjudication a matchup is disputed again. Raises Conflict when it
    does not count anyway, InvalidInput without a reason.
    """
    review = as_row(ReviewRow, value_of(Review, act=Act.exclude, actor=actor, reason=reason, judgment_id=judgment_id))
    with db.write() as session:
        judgment, matchup = _locked(session, judgment_id)
        if judgment.state is not JudgmentState.current:
            raise Conflict(f"Judgment {judgment_id} is {judgment.state.value}; only a current one can be excluded.")
        review.matchup_id, review.annotator = judgment.matchup_id, judgment.annotator
        judgment.state = JudgmentState.excluded
        session.add(review)
        session.flush()
        if judgment.part is Part.adjudicator:
            matchup.state = MatchupState.disputed
        elif requeue:
            _reopen(session, matchup)
    return review


def restore_judgment(db: Database, judgment_id: str, actor: str, reason: str) -> ReviewRow:
    """Let an excluded judgment count again, and settle its matchup with it. Raises Conflict when it is not excluded."""
    review = as_row(ReviewRow, value_of(Review, act=Act.restore, actor=actor, reason=reason, judgment_id=judgment_id))
    with db.write() as session:
        judgment, matchup = _locked(session, judgment_id)
        if judgment.state is not JudgmentState.excluded:
            raise Conflict(f"Judgment {judgment_id} is {judgment.state.value}; only an excluded one can be restored.")
        review.matchup_id, review.annotator = judgment.matchup_id, judgment.annotator
        judgment.state = JudgmentState.current
        session.add(review)
        session.flush()
        _settle(session, matchup, judgment.part)
    return review


def requeue_matchup(db: Database, matchup_id: str, actor: str, reason: str) -> ReviewRow:
    """Ask for one opinion more than a matchup has, whatever was said so far."""
    review = as_row(ReviewRow, value_of(Review, act=Act.requeue, actor=actor, reason=reason, matchup_id=matchup_id))
    with db.write() as session:
        matchup = session.get(MatchupRow, matchup_id, with_for_update=True)  # a vote under way is one of its answers
        if matchup is None:
            raise NotFound("matchup", matchup_id)
        if matchup.purpose in (Purpose.gold, Purpose.repeat):
            raise Conflict(f"Matchup {matchup_id} checks annotators ({matchup.purpose.value}); it has no queue.")
        _reopen(session, matchup)
        session.add(review)
    return review


def save_message(db: Database, annotator: str, actor: str, reason: str) -> ReviewRow:
    """Leave a message for an annotator."""
    review = as_row(ReviewRow, value_of(Review, act=Act.message, actor=actor, reason=reason, annotator=annotator))
    with db.write() as session:
        if session.exec(select(JudgmentRow.id).where(JudgmentRow.annotator == annotator).limit(1)).first() is None:
            raise NotFound("annotator", annotator, hint="The Review tab lists who has judged.")
        session.add(review)
    return review


def list_reviews(
    db: Database, *, annotator: str | None = None, act: Act | None = None, limit: int = 200
) -> list[ReviewRow]:
    """What reviewers did, newest first."""
    query = select(ReviewRow).order_by(col(ReviewRow.created_at).desc(), col(ReviewRow.id)).limit(limit)
    if annotator is not None:
        query = query.where(ReviewRow.annotator == annotator)
    if act is not None:
        query = query.where(ReviewRow.act == act)
    with db.read() as session:
        return list(session.exec(query))


def _locked(session: Session, judgment_id: str) -> tuple[JudgmentRow, MatchupRow]:
    """A judgment and its matchup, locked in the order of an undo and a vote, and as these left them."""
    judgment = session.get(JudgmentRow, judgment_id)
    if judgment is None:
        raise NotFound("judgment", judgment_id)
    matchup = session.get_one(MatchupRow, judgment.matchup_id, with_for_update=True)
    session.refresh(judgment, with_for_update=True)
    return judgment, matchup


def _reopen(session: Session, matchup: MatchupRow) -> None:
    """Make room for one opinion more than there are, however the matchup had been settled.

    Raises Conflict where its prompt is retired.
    """
    refuse_retired(session, matchup)
    matchup.required = max(matchup.required, len(_answers(session, matchup)) + 1)
    if matchup.max_required:
        matchup.max_required = max(matchup.max_required, matchup.required)
    matchup.state = MatchupState.open


def _settle(session: Session, matchup: MatchupRow, part: Part) -> None:
    """What a restored judgment makes of its matchup: one that was asked for anew may have all its opinions again."""
    if part is Part.adjudicator:
        matchup.state = MatchupState.adjudicated
    elif matchup.state in (MatchupState.open, MatchupState.satisfied) and matchup.purpose is not Purpose.gold:
        answers = _answers(session, matchup)
        matchup.state, matchup.required = consensus.settle(answers, matchup.required, matchup.max_required)


def _answers(session: Session, matchup: MatchupRow) -> list[Hashable]:
    """What annotators now say of a matchup, skips left out."""
    counting = session.exec(
        select(JudgmentRow).where(
            JudgmentRow.matchup_id == matchup.id,
            JudgmentRow.state == JudgmentState.current,
            JudgmentRow.part == Part.annotator,
        )
    )
    return [consensus.answer_of(row.verdict, row.ranking) for row in counting if row.verdict is not Verdict.skip]
