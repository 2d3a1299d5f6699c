"""Head to head: pairs of two policies' replies that were put before people only to learn which policy they prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass
class HeadToHead:
    """The duels of two policies, oldest judgment first, and how many of their pairs still wait for somebody."""

    duels: list[Duel] = field(default_factory=list)
    waiting: int = 0


def list_duels(db: Database, policy_id: str) -> dict[str, HeadToHead]:
    """What people said in force of the pairs of this policy, by the id of the other; skips and rules are left out."""
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
        others = {
            key: _other(policy_id, [makers[reply] for reply in row.generation_ids]) for key, row in matchups.items()
        }
        met: dict[str, HeadToHead] = {}
        for key, other in others.items():
            if other is not None:
                met.setdefault(other, HeadToHead()).waiting += matchups[key].state is MatchupState.open
        for key, annotator, verdict in session.exec(answers):
            other = others.get(key)
            if other is not None and verdict is not None:
                row = matchups[key]
                duel = Duel(row.prompt_id, annotator, Verdict(verdict), makers[row.generation_ids[0]])
                met[other].duels.append(duel)
        return met


def _other(policy_id: str, makers: Sequence[str]) -> str | None:
    """Who made the other reply of a pair; None when the policy made none or both."""
    others = [maker for maker in makers if maker != policy_id]
    return others[0] if len(others) == 1 else None


def _makers(session: Session, replies: Sequence[str]) -> dict[str, str]:
    """The policy of each reply."""
    found = in_chunks(
        sorted(set(replies)),
        lambda part: list(
            session.exec(select(GenerationRow.id, GenerationRow.policy_id).where(col(GenerationRow.id).in_(part)))
        ),
    )
    return dict(found)
