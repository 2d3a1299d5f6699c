"""Head-to-head comparisons: pairs of two policies' replies that people judged to compare the policies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, and_, func, select, update
from sqlmodel import col
from sqlmodel import select as select_rows

from feedback.database.engine import Database
from feedback.store.labeling.pool import JUDGMENT, MATCHUP
from feedback.tables import GenerationRow, LeaseRow, MatchupRow, PromptRow
from feedback.types import JudgmentState, LeaseState, MatchupKind, MatchupState, Part, Purpose, Source, Split, Verdict

_ANSWERS = (Verdict.first, Verdict.second, Verdict.tie, Verdict.both_bad)
_PROMPT = PromptRow.__table__  # type: ignore[attr-defined]
_FIRST = GenerationRow.__table__.alias("first_reply")  # type: ignore[attr-defined]
_SECOND = GenerationRow.__table__.alias("second_reply")  # type: ignore[attr-defined]


@dataclass(frozen=True)
class PairComparison:
    """One person's answer to a pair: ``verdict`` in stored order, ``first`` the policy of the first reply.

    ``longer`` is by how many characters the first reply exceeds the second.
    """

    prompt_id: str
    annotator: str
    verdict: Verdict
    first: str
    longer: int = 0


@dataclass
class HeadToHead:
    """The comparisons of two policies, oldest judgment first, and how many of their pairs wait for an answer."""

    comparisons: list[PairComparison] = field(default_factory=list)
    waiting: int = 0


def list_comparisons(db: Database, policy_id: str) -> dict[str, HeadToHead]:
    """What people said in force of the pairs of this policy, by the id of the other; skips and rules are left out.

    Of held-out prompts alone: a batch that evaluates may hold pairs of work prompts, on which either policy may have
    been trained. Where an adjudicator settled a pair, that answer stands in place of the others.
    """
    with db.reading() as connection:
        rows = connection.execute(_said_of(policy_id)).all()
    met: dict[str, HeadToHead] = {}
    settled = {row.id for row in rows if row.part is Part.adjudicator}
    waiting = {row.id: row for row in rows if row.state is MatchupState.open}
    for row in rows:
        found = met.setdefault(_other(row, policy_id), HeadToHead())
        if row.verdict is not None and (row.part is Part.adjudicator or row.id not in settled):
            found.comparisons.append(PairComparison(row.prompt_id, row.annotator, row.verdict, row.first, row.longer))
    for row in waiting.values():
        met[_other(row, policy_id)].waiting += 1
    return met


def _other(row: Any, policy_id: str) -> str:
    """Who made the reply that this policy did not make."""
    return str(row.second if row.first == policy_id else row.first)


def _said_of(policy_id: str) -> Select[Any]:
    """Each answer to a pair of this policy and another, and each pair without one; the oldest answer first.

    One statement, whose work the database does: the page asks every other second while a run is active.
    """
    answered = and_(
        JUDGMENT.c.matchup_id == MATCHUP.c.id,
        JUDGMENT.c.state == JudgmentState.current,
        JUDGMENT.c.source == Source.human,
        JUDGMENT.c.verdict.in_(_ANSWERS),
    )
    return (
        select(
            MATCHUP.c.id,
            MATCHUP.c.prompt_id,
            MATCHUP.c.state,
            _FIRST.c.policy_id.label("first"),
            _SECOND.c.policy_id.label("second"),
            (func.length(_FIRST.c.text) - func.length(_SECOND.c.text)).label("longer"),
            JUDGMENT.c.annotator,
            JUDGMENT.c.verdict,
            JUDGMENT.c.part,
        )
        .join(_PROMPT, _PROMPT.c.id == MATCHUP.c.prompt_id)
        .join(_FIRST, _FIRST.c.id == MATCHUP.c.generation_ids[0].as_string())
        .join(_SECOND, _SECOND.c.id == MATCHUP.c.generation_ids[1].as_string())
        .outerjoin(JUDGMENT, answered)
        .where(
            MATCHUP.c.purpose == Purpose.evaluate,
            MATCHUP.c.kind == MatchupKind.pair,
            _PROMPT.c.split == Split.evaluation,
            (_FIRST.c.policy_id == policy_id) != (_SECOND.c.policy_id == policy_id),
        )
        .order_by(JUDGMENT.c.created_at, JUDGMENT.c.id)
    )


def count_met(db: Database, one: str, other: str) -> dict[str, int]:
    """How many pairs of these two policies each held-out prompt had, open or not, by the prompt's id."""
    with db.reading() as connection:
        rows = {row.id: row for row in connection.execute(_said_of(one)).all() if _other(row, one) == other}
    return Counter(row.prompt_id for row in rows.values())


def withdraw_comparisons(db: Database, one: str, other: str) -> int:
    """Retire the pairs of two policies that nobody has judged or holds; returns how many. Asking again draws others."""
    with db.write() as session:
        rows = session.connection().execute(_said_of(one)).all()
        own = {row.id for row in rows if _other(row, one) == other and row.state is MatchupState.open}
        busy = session.exec(
            select_rows(LeaseRow.matchup_id).where(col(LeaseRow.state).in_([LeaseState.leased, LeaseState.submitted]))
        )
        changes = [{"id": key, "state": MatchupState.retired} for key in own - set(busy)]
        if changes:
            session.execute(update(MatchupRow), changes)
        return len(changes)
