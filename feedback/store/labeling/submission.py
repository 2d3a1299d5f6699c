"""A submission: one transaction in which a lease becomes a judgment.

Whoever submits opens it, reads what the lease is about, and saves the judgment. A lease yields one judgment, however
often it is submitted; leaving the block without saving, or by an error, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, insert, update
from sqlalchemy import select as choose

from feedback.column_types import new_id
from feedback.database.engine import Database
from feedback.database.statements import CompiledStatement
from feedback.errors import NotFound
from feedback.rules import consensus
from feedback.store.labeling.drafts import delete_draft
from feedback.store.labeling.leases import require_live
from feedback.store.labeling.pool import JUDGMENT, LEASE, MATCHUP
from feedback.store.rows import record
from feedback.tables import GenerationRow, LeaseRow, MatchupRow
from feedback.types import Judgment, JudgmentState, LeaseState, MatchupState, Part, Purpose, Verdict


@dataclass(frozen=True)
class Submission:
    """What a lease is about, read inside the transaction that ``save`` writes in.

    ``lease`` and ``matchup`` are plain records to read from. ``earlier`` is the id of the judgment that the lease has
    led to, None while it is live.
    """

    lease: LeaseRow
    matchup: MatchupRow
    earlier: str | None
    _connection: Connection
    _found: Any  # the row of _LEASED
    _at: datetime

    @cached_property
    def texts(self) -> list[str]:
        """The replies in stored order."""
        texts = {row.id: row.text for row in _TEXTS.all(self._connection, ids=self.matchup.generation_ids)}
        return [texts[key] for key in self.matchup.generation_ids]

    def save(self, judgment: Judgment) -> str:
        """Save the judgment of this lease and end the lease and the draft with it; the judgment's id.

        An earlier judgment of the same matchup by the same person is superseded. Call it once.
        """
        if self.earlier is not None:
            raise RuntimeError(f"the lease {self.lease.id} led to the judgment {self.earlier} before")
        connection, lease, matchup, found = self._connection, self.lease, self.matchup, self._found
        judgment.part = lease.part
        delete_draft(connection, matchup.id, lease.annotator)
        others = _OF_MATCHUP.all(connection, matchup_id=matchup.id) if found.others else []
        _supersede(connection, judgment, [other for other in others if other.annotator == lease.annotator])
        judgment_id, moment = new_id("jud"), _next_moment(found.last, self._at)
        _INSERT.all(connection, id=judgment_id, created_at=moment, **judgment.model_dump(exclude_none=True))
        skipped = judgment.verdict is Verdict.skip
        ended = LeaseState.skipped if skipped else LeaseState.submitted
        _END_LEASE.all(connection, lease_id=lease.id, ended=ended, at=self._at)
        if not skipped:
            _settle(connection, matchup, judgment, others)
        return judgment_id


@contextmanager
def open_submission(db: Database, lease_id: str, annotator: str, *, at: datetime) -> Iterator[Submission]:
    """Begin the transaction that turns a lease into a judgment; it commits where the block ends.

    Raises:
        NotFound: For an unknown lease.
        LeaseLost: For a lease that is expired, released or somebody else's, unless it led to a judgment of this
            annotator before.
    """
    with db.transaction() as connection:
        if not db.is_sqlite:
            # Locked before anything is read (SQLite has one writer): a double click must find the judgment of the
            # first one, and of two last judgments at once the second must count the first to settle the matchup.
            _LOCK_LEASE.all(connection, lease_id=lease_id)
            _LOCK_MATCHUP.all(connection, lease_id=lease_id)
        found = _LEASED.first(connection, lease_id=lease_id)
        if found is None:
            raise NotFound("lease", lease_id, hint="Ask for a new task.")
        lease, matchup = record(LeaseRow, found, 0), record(MatchupRow, found, len(LEASE.c))
        earlier = found.known if lease.annotator == annotator else None
        if earlier is None:
            require_live(lease, annotator, at)
        yield Submission(lease, matchup, earlier, connection, found, at)


def _supersede(connection: Connection, judgment: Judgment, own: Sequence[Any]) -> None:
    """Number the new revision after this person's earlier ones of the same matchup."""
    if not own:
        return
    previous = max(own, key=lambda other: other.revision)
    judgment.revision = previous.revision + 1
    judgment.supersedes = previous.id
    if previous.state is JudgmentState.current:
        # First, for the partial unique index refuses the new row while the old one is still current.
        connection.execute(update(JUDGMENT).where(JUDGMENT.c.id == previous.id).values(state=JudgmentState.superseded))


def _next_moment(last: datetime | None, at: datetime) -> datetime:
    """Now, or just after this person's last judgment when the clock was set back: undo must find the last one."""
    return at if last is None or last < at else last + timedelta(microseconds=1)


def _settle(connection: Connection, matchup: MatchupRow, judgment: Judgment, others: Sequence[Any]) -> None:
    """A matchup with all the opinions it needs leaves the pool; gold stays for everybody."""
    if matchup.purpose is Purpose.gold or matchup.state is MatchupState.adjudicated:
        return
    if judgment.part is Part.adjudicator:
        state, required = MatchupState.adjudicated, matchup.required
    else:
        answers = [consensus.answer_of(judgment.verdict, judgment.ranking)]
        answers += [
            consensus.answer_of(other.verdict, other.ranking)
            for other in others
            if other.state is JudgmentState.current
            and other.annotator != judgment.annotator
            and other.verdict is not Verdict.skip
            and other.part is Part.annotator
        ]
        state, required = consensus.settle(answers, matchup.required, matchup.max_required)
        if state is MatchupState.open and matchup.state is MatchupState.retired:
            state = MatchupState.retired  # a vote may settle what was retired meanwhile, and never brings it back
    if (state, required) != (matchup.state, matchup.required):
        _SETTLE.all(connection, matchup_id=matchup.id, settled=state, needed=required)


_OTHER, _MINE = JUDGMENT.alias("other"), JUDGMENT.alias("mine")
_LEASED = CompiledStatement(
    choose(
        *LEASE.c,
        *(column.label(f"matchup_{column.name}") for column in MATCHUP.c),
        JUDGMENT.c.id.label("known"),
        choose(func.max(_MINE.c.created_at))
        .where(_MINE.c.annotator == LEASE.c.annotator)
        .scalar_subquery()
        .label("last"),
        exists().where(_OTHER.c.matchup_id == LEASE.c.matchup_id).label("others"),
    )
    .join(MATCHUP, MATCHUP.c.id == LEASE.c.matchup_id)
    .outerjoin(JUDGMENT, JUDGMENT.c.lease_id == LEASE.c.id)
    .where(LEASE.c.id == bindparam("lease_id"))
)
_LOCK_LEASE = CompiledStatement(choose(LEASE.c.id).where(LEASE.c.id == bindparam("lease_id")).with_for_update())
_LOCK_MATCHUP = CompiledStatement(
    choose(MATCHUP.c.id)
    .where(MATCHUP.c.id == choose(LEASE.c.matchup_id).where(LEASE.c.id == bindparam("lease_id")).scalar_subquery())
    .with_for_update()
)
_GENERATION = GenerationRow.__table__  # type: ignore[attr-defined]
_TEXTS = CompiledStatement(
    choose(_GENERATION.c.id, _GENERATION.c.text).where(_GENERATION.c.id.in_(bindparam("ids", expanding=True)))
)
_OF_MATCHUP = CompiledStatement(
    choose(
        JUDGMENT.c.id,
        JUDGMENT.c.annotator,
        JUDGMENT.c.revision,
        JUDGMENT.c.state,
        JUDGMENT.c.verdict,
        JUDGMENT.c.ranking,
        JUDGMENT.c.part,
    ).where(JUDGMENT.c.matchup_id == bindparam("matchup_id"))
)
_INSERT = CompiledStatement(insert(JUDGMENT))
_END_LEASE = CompiledStatement(
    update(LEASE).where(LEASE.c.id == bindparam("lease_id")).values(state=bindparam("ended"), ended_at=bindparam("at"))
)
_SETTLE = CompiledStatement(
    update(MATCHUP)
    .where(MATCHUP.c.id == bindparam("matchup_id"))
    .values(state=bindparam("settled"), required=bindparam("needed"))
)
