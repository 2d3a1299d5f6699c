"""How much people judged, day by day: counts alone, no bodies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import case, func
from sqlmodel import col, select

from feedback.database.engine import Database
from feedback.tables import JudgmentRow
from feedback.types import JudgmentState, Source


class DayCount(NamedTuple):
    """How many judgments a person gave in a span; ``span`` is its place in the spans that were asked for."""

    span: int
    annotator: str
    judgments: int


def count_by_person(db: Database, starts: Sequence[datetime]) -> list[DayCount]:
    """Judgments of people that stand, skips too, by person and span; each span lasts until the next one starts.

    ``starts`` are in ascending order; the last span is open, and what was judged before the first is not counted.
    """
    if not starts:
        return []
    made = col(JudgmentRow.created_at)
    span = case(*((made >= start, place) for place, start in reversed(list(enumerate(starts)))), else_=-1)
    query = (
        select(span.label("span"), JudgmentRow.annotator, func.count())
        .where(
            made >= starts[0],
            JudgmentRow.source == Source.human,
            JudgmentRow.state == JudgmentState.current,
        )
        .group_by(span, col(JudgmentRow.annotator))
    )
    with db.read() as session:
        found = session.execute(query).all()
    return sorted(DayCount(int(place), str(annotator), int(count)) for place, annotator, count in found)
