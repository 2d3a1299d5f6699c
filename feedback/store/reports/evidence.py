"""Evidence: judgments with their texts and what others said of the same replies, as a reviewer reads them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.store.rows import rows_by_id
from feedback.tables import GenerationRow, JudgmentRow, MatchupRow, PromptRow, ReviewRow
from feedback.types import JudgmentState, MatchupState, Purpose

_SHOWN = (JudgmentState.current, JudgmentState.excluded)


@dataclass(frozen=True)
class Evidence:
    """One judgment; ``responses`` in shown order, ``others`` counts the other people's answers in stored terms."""

    judgment: JudgmentRow
    purpose: Purpose
    state: MatchupState
    messages: list[dict[str, str]]
    responses: list[str]
    others: dict[str, int]
    reviews: list[ReviewRow]


def list_evidence(
    db: Database,
    *,
    annotator: str | None = None,
    matchup_id: str | None = None,
    state: MatchupState | None = None,
    limit: int = 20,
    offset: int = 0,
) -> list[Evidence]:
    """Current and excluded judgments, newest first: of one person, of one matchup, of matchups in one state."""
    query = (
        select(JudgmentRow, MatchupRow)
        .join(MatchupRow, col(MatchupRow.id) == col(JudgmentRow.matchup_id))
        .where(col(JudgmentRow.state).in_(_SHOWN))
        .order_by(col(JudgmentRow.created_at).desc(), col(JudgmentRow.id))
        .limit(limit)
        .offset(offset)
    )
    for column, wanted in (
        (JudgmentRow.annotator, annotator),
        (JudgmentRow.matchup_id, matchup_id),
        (MatchupRow.state, state),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    with db.read() as session:
        found = session.exec(query).all()
        texts = rows_by_id(session, GenerationRow, [key for _, matchup in found for key in matchup.generation_ids])
        prompts = rows_by_id(session, PromptRow, [matchup.prompt_id for _, matchup in found])
        others = _answers(session, [matchup.id for _, matchup in found])
        reviews = _reviews(session, [judgment.id for judgment, _ in found])
        return [
            Evidence(
                judgment=judgment,
                purpose=matchup.purpose,
                state=matchup.state,
                messages=prompts[matchup.prompt_id].messages,
                responses=[texts[matchup.generation_ids[index]].text for index in judgment.shown_order],
                others=dict(Counter(answer for name, answer in others[matchup.id] if name != judgment.annotator)),
                reviews=reviews[judgment.id],
            )
            for judgment, matchup in found
        ]


def _answers(session: Session, matchup_ids: list[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    rows = session.exec(
        select(JudgmentRow.matchup_id, JudgmentRow.annotator, JudgmentRow.verdict, JudgmentRow.ranking).where(
            col(JudgmentRow.matchup_id).in_(set(matchup_ids)), JudgmentRow.state == JudgmentState.current
        )
    )
    for matchup_id, annotator, verdict, ranking in rows:
        found[matchup_id].append((annotator, str(verdict) if verdict else " ".join(map(str, ranking or []))))
    return found


def _reviews(session: Session, judgment_ids: list[str]) -> dict[str, list[ReviewRow]]:
    found: dict[str, list[ReviewRow]] = defaultdict(list)
    query = select(ReviewRow).where(col(ReviewRow.judgment_id).in_(judgment_ids)).order_by(col(ReviewRow.created_at))
    for row in session.exec(query):
        found[row.judgment_id or ""].append(row)
    return found
