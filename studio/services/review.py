"""What reviewers can do and ask for, whatever the door: the report, the evidence, acts, batches, gold, adjudication.

Everything here is for reviewers and above: it tells gold and repeats from other tasks, and names who said what.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from feedback.database.engine import Database
from feedback.labeling import assignment
from feedback.labeling.assignment import Task
from feedback.store.labeling import batches, matchups, reviews
from feedback.store.labeling.batches import BatchSummary
from feedback.store.labeling.judgments import judgments_mark
from feedback.store.reports import evidence
from feedback.store.reports.evidence import Evidence
from feedback.store.reports.lineage import judgment_lineage
from feedback.tables import MatchupRow, ReviewRow
from feedback.types import Act, Batch, MatchupState, Part, UserRole
from studio.services.access import Acts, act

if TYPE_CHECKING:
    from feedback.quality.report import QualityReport


class QualityReports:
    """The newest quality report, computed again only when a judgment or its state has changed."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._reporting = threading.Lock()
        self._report: tuple[object, QualityReport] | None = None

    def newest(self) -> QualityReport:
        """The quality of all judgments."""
        with self._reporting:
            mark = judgments_mark(self.db)
            if self._report is None or self._report[0] != mark:
                from feedback.quality import report as quality  # numpy and scipy: nothing else here needs them

                self._report = (mark, quality.report(self.db))
            return self._report[1]


class Review(Acts):
    """Acts of reviewers: the report, the evidence, acts on judgments, batches, gold, adjudication."""

    @act(UserRole.reviewer)
    def report(self) -> QualityReport:
        """The quality of all judgments; computed again only when a judgment or its state has changed."""
        return self.shared.reports.newest()

    @act(UserRole.reviewer)
    def list_evidence(self, **wanted: Any) -> list[Evidence]:
        """Judgments with their texts and what others said: of one person, of one matchup, of disputed matchups."""
        return evidence.list_evidence(self.db, **wanted)

    @act(UserRole.researcher)
    def lineage(self, judgment_id: str) -> dict[str, Any]:
        """What was made with a judgment: datasets, reward models, policies."""
        return judgment_lineage(self.db, judgment_id)

    @act(UserRole.reviewer, audit="judgment.exclude", about="judgment_id")
    def exclude(self, judgment_id: str, actor: str, reason: str, *, requeue: bool = False) -> ReviewRow:
        """Take a judgment out of everything derived; it stays, marked, with the reason."""
        actor = self.speaker(actor)
        return reviews.exclude_judgment(self.db, judgment_id, actor, reason, requeue=requeue)

    @act(UserRole.reviewer, audit="judgment.restore", about="judgment_id")
    def restore(self, judgment_id: str, actor: str, reason: str) -> ReviewRow:
        """Let an excluded judgment count again."""
        actor = self.speaker(actor)
        return reviews.restore_judgment(self.db, judgment_id, actor, reason)

    @act(UserRole.reviewer, audit="matchup.requeue", about="matchup_id")
    def requeue(self, matchup_id: str, actor: str, reason: str) -> ReviewRow:
        """Ask for one more opinion on a matchup."""
        actor = self.speaker(actor)
        return reviews.requeue_matchup(self.db, matchup_id, actor, reason)

    @act(UserRole.reviewer, audit="annotator.message", about="annotator")
    def message(self, annotator: str, actor: str, text: str) -> ReviewRow:
        """Leave a message for an annotator."""
        actor = self.speaker(actor)
        return reviews.save_message(self.db, annotator, actor, text)

    @act(UserRole.annotator)
    def messages_for(self, annotator: str) -> list[ReviewRow]:
        """What reviewers wrote to an annotator, newest first; the one thing here that an annotator may see."""
        annotator = self.speaker(annotator)
        return reviews.list_reviews(self.db, annotator=annotator, act=Act.message)

    @act(UserRole.reviewer)
    def list_acts(self, limit: int = 50) -> list[ReviewRow]:
        """What reviewers did, newest first."""
        return reviews.list_reviews(self.db, limit=limit)

    @act(UserRole.reviewer)
    def next_dispute(self, reviewer: str, *, resume: bool = False) -> Task | None:
        """A matchup that annotators disagree about, blind: the reviewer sees none of their answers.

        With ``resume`` the one that this reviewer was shown last, until it is answered: a reload forgets nothing.
        """
        reviewer = self.speaker(reviewer)
        desk = f"adjudication {reviewer}" if resume else None
        return assignment.lease_next(self.db, reviewer, part=Part.adjudicator, session=desk, resume=resume)

    @act(UserRole.reviewer)
    def count_disputes(self) -> int:
        """How many matchups wait for an adjudicator."""
        return matchups.count_matchups(self.db).disputed

    @act(UserRole.reviewer)
    def list_disputed(self, limit: int = 20) -> list[Evidence]:
        """The judgments of matchups that wait for an adjudicator."""
        return evidence.list_evidence(self.db, state=MatchupState.disputed, limit=limit)

    @act(UserRole.reviewer, audit="matchup.gold", about="matchup_id")
    def make_gold(self, matchup_id: str, answer: dict[str, Any]) -> MatchupRow:
        """Put a matchup with its known answer (stored order) before every annotator, unseen as such."""
        return matchups.save_gold(self.db, matchup_id, answer)

    @act(UserRole.researcher, audit="batch.add")
    def add_batch(
        self, batch: Batch, *, matchup_ids: list[str] | None = None, count: int | None = None
    ) -> BatchSummary:
        """Give a part of the pool its own purpose, priority and number of opinions."""
        return batches.save_batch(self.db, batch, matchup_ids=matchup_ids, count=count)

    @act(UserRole.researcher, audit="batch.priority", about="key")
    def set_priority(self, key: str, priority: int) -> BatchSummary:
        """Move a batch forward or back in the queue."""
        return batches.set_priority(self.db, key, priority)

    @act(UserRole.reviewer)
    def list_batches(self) -> list[BatchSummary]:
        """All batches with their progress."""
        return batches.list_batches(self.db)
