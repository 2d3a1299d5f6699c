"""Judgments: how the last one is withdrawn, and how they are counted. They are revisions, never overwritten."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func
from sqlalchemy import select as choose
from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.database.statements import CompiledStatement
from feedback.errors import NotFound
from feedback.store.labeling import idle_leases
from feedback.store.labeling.drafts import draft_of_judgment, put_draft
from feedback.store.labeling.matchups import may_reopen
from feedback.store.labeling.pool import COUNTS, JUDGMENT
from feedback.tables import JudgmentRow, LeaseRow, MatchupRow
from feedback.types import JudgmentState, LeaseState, MatchupState, Part, Purpose, Source, Verdict

_DECISIVE = (Verdict.first, Verdict.second)


@dataclass(frozen=True)
class AnnotatorFigures:
    """One person's current judgments in numbers; ``median_ms`` is active time, None when none was measured.

    ``sides`` counts what was preferred as the screen showed it: left, right.
    """

    total: int
    recent: int
    verdicts: dict[str, int]
    sides: tuple[int, int]
    median_ms: int | None
    edits: int
    flags: int


def withdraw_last_judgment(
    db: Database, annotator: str, *, session_key: str | None, expires_at: datetime, at: datetime
) -> LeaseRow | None:
    """Take back this annotator's newest judgment and lease its matchup again, shown the same way round.

    The judgment stays as a withdrawn revision, and its remarks become the draft to go on from. Live leases of the
    same session are released. None when there is nothing to take back, or when it was a skip and others have
    meanwhile filled the matchup. Judgments made in the browser session ``session_key`` come first; where it has none,
    as in a new window, this person's newest of all is taken back, unless the page that made it is still open.
    """
    with db.write() as session:
        judgment = _newest_judgment(session, annotator, session_key)
        if judgment is None and session_key is not None:
            judgment = _newest_of_closed(session, annotator, at)
        if judgment is None:
            return None
        matchup = session.get_one(MatchupRow, judgment.matchup_id, with_for_update=True)
        session.refresh(judgment, with_for_update=True)
        if judgment.state is not JudgmentState.current:
            return None  # another request took it back between the look and the lock
        if not _may_return(session, judgment, matchup, at):
            return None
        judgment.state = JudgmentState.withdrawn
        session.flush()
        _release_held(session, annotator, session_key, at)
        matchup.state = _state_without(session, judgment, matchup)
        lease = LeaseRow(
            matchup_id=judgment.matchup_id,
            annotator=annotator,
            session=session_key,
            source=judgment.source,
            shown_order=judgment.shown_order,
            expires_at=expires_at,
            part=judgment.part,
            created_at=at,
        )
        session.add(lease)
        put_draft(session, draft_of_judgment(judgment), at)
        return lease


def tally_judgments(db: Database, annotator: str | None = None) -> dict[str, int]:
    """Current judgments by verdict (``rank`` for rankings), with their ``total``."""
    with db.reading() as connection:
        rows = _TALLY.all(connection) if annotator is None else _TALLY_OF.all(connection, annotator=annotator)
    found = {str(row.verdict or "rank"): int(row.votes) for row in rows}
    tally = {key: found.get(key, 0) for key in [*(verdict.value for verdict in Verdict), "rank"]}
    return {**tally, "total": sum(tally.values())}


def annotator_figures(db: Database, annotator: str, *, since: datetime) -> AnnotatorFigures:
    """What one person did: in all and since a moment, how they decided, and how long it took them."""
    query = choose(
        col(JudgmentRow.verdict),
        col(JudgmentRow.shown_order),
        col(JudgmentRow.active_ms),
        col(JudgmentRow.created_at),
        col(JudgmentRow.flag),
        col(JudgmentRow.edited),
    ).where(col(JudgmentRow.annotator) == annotator, col(JudgmentRow.state) == JudgmentState.current)
    with db.read() as session:
        rows = session.execute(query).all()
    verdicts: Counter[str] = Counter(str(verdict or "rank") for verdict, *_ in rows)
    decided = [
        order[0] == (0 if verdict is Verdict.first else 1) for verdict, order, *_ in rows if verdict in _DECISIVE
    ]
    times = [active for _, _, active, *_ in rows if active is not None]
    return AnnotatorFigures(
        total=len(rows),
        recent=sum(created >= since for _, _, _, created, *_ in rows),
        verdicts=dict(verdicts),
        sides=(sum(decided), len(decided) - sum(decided)),
        median_ms=round(statistics.median(times)) if times else None,
        edits=sum(bool(edited) for *_, edited in rows),
        flags=sum(flag is not None for *_, flag, _ in rows),
    )


def count_judgments(db: Database, annotator: str, *, since: datetime) -> tuple[int, int]:
    """How many current judgments a person has made, skips included: in all, and since a moment."""
    recent = func.count().filter(col(JudgmentRow.created_at) >= since)
    query = select(func.count(), recent).where(
        JudgmentRow.annotator == annotator, JudgmentRow.state == JudgmentState.current
    )
    with db.read() as session:
        total, after = session.exec(query).one()
    return int(total), int(after)


def tally_sources(db: Database) -> dict[str, int]:
    """Current judgments by who is behind them: human, simulated, imported."""
    query = (
        select(JudgmentRow.source, func.count())
        .where(JudgmentRow.state == JudgmentState.current)
        .group_by(col(JudgmentRow.source))
    )
    with db.read() as session:
        found = {str(source): count for source, count in session.exec(query).all()}
    return {source.value: found.get(source.value, 0) for source in Source}


def check_annotators(db: Database, names: Sequence[str]) -> None:
    """Raise NotFound for the first name under which nothing was ever judged, with those under which something was."""
    judged = select(JudgmentRow.annotator).distinct()
    with db.read() as session:
        found = set(session.exec(judged.where(col(JudgmentRow.annotator).in_(names))))
        missing = [name for name in names if name not in found]
        if missing:
            known = session.exec(judged.order_by(col(JudgmentRow.annotator)).limit(9)).all()
            raise NotFound("judgment by", missing[0], known, hint="Leave the annotator out to take everybody's.")


def judgments_mark(db: Database) -> tuple[tuple[str, int], ...]:
    """What changes whenever a judgment is added or changes its state: how many there are in each."""
    query = select(JudgmentRow.state, func.count()).group_by(col(JudgmentRow.state))
    newest = select(func.max(JudgmentRow.created_at))
    with db.read() as session:
        counts = sorted((str(state), number) for state, number in session.exec(query))
        moment = session.exec(newest).one()
    return (*counts, (str(moment), 0))


def _state_without(session: Session, judgment: JudgmentRow, matchup: MatchupRow) -> MatchupState:
    """Where a matchup goes without a judgment: one step back if a judgment brought it where it is, else nowhere."""
    if judgment.part is Part.adjudicator:
        return MatchupState.disputed if matchup.state is MatchupState.adjudicated else matchup.state
    if matchup.state not in (MatchupState.satisfied, MatchupState.disputed):
        return matchup.state
    return MatchupState.open if may_reopen(session, matchup) else MatchupState.retired


def _may_return(session: Session, judgment: JudgmentRow, matchup: MatchupRow, at: datetime) -> bool:
    """A judgment makes room for itself; a skip held no place, so there must be one left."""
    if judgment.verdict is not Verdict.skip or judgment.part is Part.adjudicator:
        return True
    live = select(func.count()).where(
        LeaseRow.matchup_id == matchup.id, LeaseRow.state == LeaseState.leased, col(LeaseRow.expires_at) > at
    )
    judged = select(func.count()).where(JUDGMENT.c.matchup_id == matchup.id, COUNTS, JUDGMENT.c.part == Part.annotator)
    taken = session.exec(live).one() + session.exec(judged).one()
    return matchup.purpose is Purpose.gold or taken < matchup.required


def _newest_judgment(session: Session, annotator: str, session_key: str | None) -> JudgmentRow | None:
    query = (
        select(JudgmentRow)
        .join(LeaseRow, col(LeaseRow.id) == col(JudgmentRow.lease_id))
        .join(MatchupRow, col(MatchupRow.id) == col(JudgmentRow.matchup_id))
        .where(JudgmentRow.annotator == annotator, JudgmentRow.state == JudgmentState.current)
        .where(MatchupRow.purpose != Purpose.playground)  # taken back where it was given
        .order_by(col(JudgmentRow.created_at).desc())
        .limit(1)
    )
    if session_key is not None:
        query = query.where(LeaseRow.session == session_key)
    return session.exec(query).first()


def _newest_of_closed(session: Session, annotator: str, at: datetime) -> JudgmentRow | None:
    judgment = _newest_judgment(session, annotator, None)
    if judgment is None:
        return None
    page = session.get_one(LeaseRow, judgment.lease_id).session
    return None if page is None or idle_leases.is_open(session, page, at) else judgment


def _release_held(session: Session, annotator: str, session_key: str | None, at: datetime) -> None:
    query = select(LeaseRow).where(
        LeaseRow.annotator == annotator, LeaseRow.session == session_key, LeaseRow.state == LeaseState.leased
    )
    if session_key is None:
        return  # without a session there is no one screen the held lease could be taken from
    for lease in session.exec(query):
        lease.state = LeaseState.released
        lease.ended_at = at


_BY_VERDICT = (
    choose(JUDGMENT.c.verdict, func.count().label("votes"))
    .where(JUDGMENT.c.state == JudgmentState.current)
    .group_by(JUDGMENT.c.verdict)
)
_TALLY = CompiledStatement(_BY_VERDICT)
_TALLY_OF = CompiledStatement(_BY_VERDICT.where(JUDGMENT.c.annotator == bindparam("annotator")))
