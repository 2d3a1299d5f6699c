"""Opinions: current judgments with their circumstances and without any text, as quality is measured from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from feedback.database.engine import Database
from feedback.store.labeling.pool import JUDGMENT, LEASE, MATCHUP
from feedback.tables import GenerationRow
from feedback.types import JudgmentState, Part, Purpose, Source, Verdict

_GENERATION = GenerationRow.__table__  # type: ignore[attr-defined]


def list_opinions(
    db: Database,
    *,
    sources: Iterable[Source] = tuple(Source),
    purposes: Iterable[Purpose] = tuple(Purpose),
    annotator: str | None = None,
) -> list[Opinion]:
    """Current judgments of these sources and purposes in the order they were made, skips included."""
    query = (
        select(
            JUDGMENT.c.id,
            JUDGMENT.c.matchup_id,
            JUDGMENT.c.annotator,
            JUDGMENT.c.verdict,
            JUDGMENT.c.ranking,
            JUDGMENT.c.shown_order,
            JUDGMENT.c.source,
            JUDGMENT.c.part,
            JUDGMENT.c.created_at,
            JUDGMENT.c.active_ms,
            LEASE.c.created_at.label("leased_at"),
            MATCHUP.c.generation_ids,
            MATCHUP.c.purpose,
            MATCHUP.c.gold,
            MATCHUP.c.repeat_of,
        )
        .join(LEASE, LEASE.c.id == JUDGMENT.c.lease_id)
        .join(MATCHUP, MATCHUP.c.id == JUDGMENT.c.matchup_id)
        .where(
            JUDGMENT.c.state == JudgmentState.current,
            JUDGMENT.c.source.in_(list(sources)),
            MATCHUP.c.purpose.in_(list(purposes)),
        )
        .order_by(JUDGMENT.c.created_at, JUDGMENT.c.id)
    )
    if annotator is not None:
        query = query.where(JUDGMENT.c.annotator == annotator)
    with db.reading() as connection:
        lengths = {
            key: length or 0
            for key, length in connection.execute(select(_GENERATION.c.id, func.length(_GENERATION.c.text)))
        }
        return [
            Opinion(
                judgment_id=row.id,
                matchup_id=row.matchup_id,
                annotator=row.annotator,
                verdict=row.verdict,
                ranking=row.ranking,
                shown_order=row.shown_order,
                seconds=_seconds(row.active_ms, row.leased_at, row.created_at),
                lengths=tuple(lengths[key] for key in row.generation_ids),
                source=row.source,
                purpose=row.purpose,
                part=row.part,
                gold=row.gold,
                repeat_of=row.repeat_of,
            )
            for row in connection.execute(query)
        ]


def _seconds(active_ms: int | None, leased_at: datetime, judged_at: datetime) -> float:
    """The time at work as the browser measured it, for a lease may have been fetched ahead; else from the lease on."""
    if active_ms is not None:
        return active_ms / 1000
    # A clock that was set back in between must not make a negative time.
    return max(0.0, (judged_at - leased_at).total_seconds())


@dataclass(frozen=True)
class Opinion:
    """A current judgment as the store gives it: answers and circumstances, no texts.

    ``seconds`` at work on it, or from lease to answer where nobody measured; ``lengths`` in characters, one per
    reply in stored order.
    """

    judgment_id: str
    matchup_id: str
    annotator: str
    verdict: Verdict | None
    ranking: list[int] | None
    shown_order: list[int]
    seconds: float
    lengths: tuple[int, ...]
    source: Source = Source.human
    purpose: Purpose = Purpose.collect
    part: Part = Part.annotator
    gold: dict[str, Any] | None = None
    repeat_of: str | None = None
