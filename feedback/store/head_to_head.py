"""Head to head: pairs of two policies' replies that were put before people only to learn which policy they prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from feedback.db import Database
from feedback.store.rows import in_chunks
from feedback.tables import GenerationRow, JudgmentRow, MatchupRow
from feedback.types import JudgmentState, MatchupKind, MatchupState, Purpose, Source, Verdict

_ANSWERS = (Verdict.first, Verdict.second, Verdict.tie, Verdict.both_bad)


@dataclass(frozen=True)
class Duel:
    """What one person said of a pair: ``verdict`` in stored order, ``first`` the policy of the first reply."""

    prompt_id: str
    annotator: str
    verdict: Verdict
    first: str


@dataclass(frozen=True)
class HeadToHead:
    """The duels of two policies, oldest judgment first, and how many of their pairs still wait for somebody."""

    duels: tuple[Duel, ...]
    waiting: int


def list_duels(db: Database, one: str, other: str) -> HeadToHead:
    """What people said in force of the pairs of two policies, by id; whatever a rule said is left out, as are skips."""
    pairs = select(MatchupRow).where(MatchupRow.purpose == Purpose.evaluate, MatchupRow.kind == MatchupKind.pair)
    answers = (
        select(JudgmentRow.matchup_id, JudgmentRow.annotator, JudgmentRow.verdict)
        .join(MatchupRow, col(MatchupRow.id) == col(JudgmentRow.matchup_id))
        .where(
            MatchupRow.purpose == Purpose.evaluate,
            JudgmentRow.state == JudgmentState.current,
            JudgmentRow.source == Source.human,
            col(JudgmentRow.verdict).in_(_ANSWERS),
        )
        .order_by(col(JudgmentRow.created_at), col(JudgmentRow.id))
    )
    with db.read() as session:
        matchups = {row.id: row for row in session.exec(pairs)}
        makers = _makers(session, [key for row in matchups.values() for key in row.generation_ids])
        own = {key: row for key, row in matchups.items() if {makers[it] for it in row.generation_ids} == {one, other}}
        duels = [
            Duel(own[key].prompt_id, annotator, Verdict(verdict), makers[own[key].generation_ids[0]])
            for key, annotator, verdict in session.exec(answers)
            if key in own and verdict is not None
        ]
        return HeadToHead(tuple(duels), sum(row.state is MatchupState.open for row in own.values()))


def _makers(session: Session, replies: Sequence[str]) -> dict[str, str]:
    """The policy of each reply."""
    found = in_chunks(
        sorted(set(replies)),
        lambda part: list(
            session.exec(select(GenerationRow.id, GenerationRow.policy_id).where(col(GenerationRow.id).in_(part)))
        ),
    )
    return dict(found)
