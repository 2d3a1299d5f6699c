"""Labeling: what an annotator is given, says and takes back, and what annotators are asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feedback.errors import LeaseLost
from feedback.labeling import amending, assignment, judging
from feedback.labeling.assignment import CHECKS, Task
from feedback.labeling.judging import Submitted
from feedback.store.labeling import idle_leases as idle_store
from feedback.store.labeling import judgments as judgment_store
from feedback.store.labeling import leases as lease_store
from feedback.store.labeling import matchups as matchup_store
from feedback.store.labeling import settings as guideline_store
from feedback.store.labeling.judgments import AnnotatorFigures
from feedback.tables import ChecksRow, GuidelinesRow
from feedback.types import Checks, Guidelines, UserRole, Verdict, now
from studio.identity import LOCAL
from studio.services.access import Acts, act

LOCAL_ANNOTATOR = LOCAL.name
"""Who judges while no users exist."""

DECK_SIZE = 2
"""Matchups a browser holds: the one on its screen, and the next, so that no vote waits for the network."""

LOOK_EVERY = 4
"""Judgments between two looks at how full the pool is; well below ``REFILL_BELOW``, so none comes too late."""

GUIDELINES = (
    "Choose the reply you would rather receive: it does what was asked, reads well and is true. "
    "If both serve equally well it is a tie; if neither is usable both are bad; skip what you cannot judge."
)

_OWN_GUIDELINES = GuidelinesRow(version=0, text=GUIDELINES, criteria=[], asks_rationale=False)


@dataclass(frozen=True)
class LabelCounts:
    """Where an annotator stands: what they judged and skipped, and what is ``left`` that their page can get now.

    ``elsewhere`` counts what other open windows of theirs hold, ``until`` then at most. ``pool`` is what is open for
    anybody, counted only where nothing is left.
    """

    done: int
    left: int
    skipped: int = 0
    elsewhere: int = 0
    until: datetime | None = None
    pool: int = 0


class Labeling(Acts):
    """Acts of those who judge."""

    @act(UserRole.annotator)
    def lease_with_guidelines(self, annotator: str = LOCAL_ANNOTATOR) -> tuple[Task | None, str]:
        """A matchup nobody else holds, leased to the annotator, and what annotators are asked now.

        None when the pool has no matchup for them. Both take one look at the settings.
        """
        annotator = self.speaker(annotator)
        settings = self.shared.in_force.now()
        task = self._lease(annotator, None, settings.checks or CHECKS)
        return task, settings.guidelines.text if settings.guidelines else GUIDELINES

    @act(UserRole.annotator)
    def deck(self, session: str, annotator: str = LOCAL_ANNOTATOR, *, size: int = DECK_SIZE) -> list[Task]:
        """What a browser holds, the task on its screen first, filled up to ``size``; empty when the pool is."""
        annotator = self.speaker(annotator)
        tasks = assignment.fill_deck(self.db, annotator, session, size=size, checks=self._checks())
        if len(tasks) < size:
            self.shared.filler.refill_soon(empty_handed=not tasks)
        return tasks

    def _lease(self, annotator: str, session: str | None, checks: Checks) -> Task | None:
        task = assignment.lease_next(self.db, annotator, session=session, checks=checks, resume=True)
        if task is None:
            self.shared.filler.refill_soon(empty_handed=True)
        return task

    @act(UserRole.annotator)
    def extend(self, lease: str, annotator: str = LOCAL_ANNOTATOR) -> datetime:
        """A sign of life from whoever works on a task: the moment its lease now ends."""
        annotator = self.speaker(annotator)
        return assignment.heartbeat(self.db, lease, annotator)

    @act(UserRole.annotator)
    def keep(self, lease: str, session: str, annotator: str = LOCAL_ANNOTATOR, *, at_work: bool = True) -> datetime:
        """A sign of life from a page: its task stays with it, and for longer while somebody is ``at_work`` there."""
        annotator = self.speaker(annotator)
        seconds = assignment.LEASE_SECONDS if at_work else 0.0
        return assignment.heartbeat(self.db, lease, annotator, session=session, lease_seconds=seconds)

    @act(UserRole.annotator)
    def leave(self, session: str, annotator: str = LOCAL_ANNOTATOR) -> int:
        """A page is being closed: its tasks may go to another page at once. How many these are."""
        annotator = self.speaker(annotator)
        return assignment.leave(self.db, annotator, session)

    @act(UserRole.annotator)
    def release(self, lease: str, annotator: str = LOCAL_ANNOTATOR) -> bool:
        """Give a task back unjudged; False when it had ended already. LeaseLost when it is somebody else's."""
        annotator = self.speaker(annotator)
        if lease_store.get_lease(self.db, lease).annotator != annotator:
            raise LeaseLost("This task is leased to another annotator; ask for a task of your own.")
        return assignment.release(self.db, lease)

    @act(UserRole.annotator)
    def judge(self, lease: str, annotator: str = LOCAL_ANNOTATOR, **said: Any) -> Submitted:
        """Record a verdict, a ranking or a skip under a lease. The same lease again gives the same judgment."""
        annotator = self.speaker(annotator)
        said.setdefault("guidelines", self.guidelines().version)
        submitted = judging.submit(self.db, lease, annotator, **said)
        if submitted.created and next(self.shared.judged) % LOOK_EVERY == 0:
            self.shared.filler.refill_soon()
        return submitted

    @act(UserRole.annotator)
    def undo(self, session: str, annotator: str = LOCAL_ANNOTATOR) -> Task | None:
        """Take the person's last judgment back and show its matchup again, one made in this session first.

        None when there is none to undo.
        """
        annotator = self.speaker(annotator)
        return judging.undo_last(self.db, annotator, session=session)

    @act(UserRole.annotator)
    def missing_remarks(
        self, lease: str, said: dict[str, Any], annotator: str = LOCAL_ANNOTATOR
    ) -> dict[str, Any] | None:
        """What of these remarks the annotator's saved judgment of a task lacks; None where they judged it nowhere."""
        annotator = self.speaker(annotator)
        return amending.missing_remarks(self.db, lease, annotator, said)

    @act(UserRole.annotator)
    def add_remarks(self, lease: str, said: dict[str, Any], annotator: str = LOCAL_ANNOTATOR) -> str:
        """Add remarks to the annotator's saved judgment of a task, as its next revision; the id of the judgment."""
        annotator = self.speaker(annotator)
        return amending.add_remarks(self.db, lease, annotator, said)

    @act(UserRole.annotator)
    def save_draft(self, lease: str, content: dict[str, Any], annotator: str = LOCAL_ANNOTATOR) -> datetime | None:
        """Keep what is typed and set about the task on the screen; the moment it was kept."""
        annotator = self.speaker(annotator)
        return judging.save_draft(self.db, lease, annotator, content)

    @act(UserRole.annotator)
    def draft_of(self, task: Task) -> dict[str, Any]:
        """What was typed and set about a task before, in shown order."""
        return judging.draft_of(self.db, task)

    @act(UserRole.annotator)
    def label_counts(self, annotator: str = LOCAL_ANNOTATOR, *, session: str | None = None) -> LabelCounts:
        """What the annotator judged and skipped, and what is left that the page of this browser session can get."""
        annotator = self.speaker(annotator)
        tally = judgment_store.tally_judgments(self.db, annotator)
        skipped = tally[Verdict.skip.value]
        reach = idle_store.reach_of(
            self.db,
            annotator=annotator,
            session=session,
            at=now(),
            judged=tally["total"],
            counts=self.shared.reach_counts,
        )
        pool = 0 if reach.left else matchup_store.count_open(self.db)
        return LabelCounts(tally["total"] - skipped, reach.left, skipped, reach.elsewhere, reach.until, pool)

    @act(UserRole.annotator)
    def annotator_figures(self, annotator: str = LOCAL_ANNOTATOR) -> AnnotatorFigures:
        """The annotator's own work in numbers."""
        annotator = self.speaker(annotator)
        return judgment_store.annotator_figures(self.db, annotator, since=now() - timedelta(hours=24))

    @act(UserRole.annotator)
    def judged_since(self, since: datetime, annotator: str = LOCAL_ANNOTATOR) -> tuple[int, int]:
        """How many judgments the annotator has made, skips included: in all, and since a moment."""
        return judgment_store.count_judgments(self.db, self.speaker(annotator), since=since)

    @act(UserRole.annotator)
    def guidelines(self) -> GuidelinesRow:
        """What annotators are asked now; version 0 are the product's own words."""
        return self.shared.in_force.now().guidelines or _OWN_GUIDELINES

    @act(UserRole.researcher, audit="guidelines.save")
    def save_guidelines(self, guidelines: Guidelines) -> GuidelinesRow:
        """Add a version of the guidelines; annotators see it with their next pair."""
        return guideline_store.save_guidelines(self.db, guidelines)

    @act(UserRole.reviewer)
    def checks(self) -> Checks:
        """How many tasks are gold or repeats now."""
        return self._checks()

    def _checks(self) -> Checks:
        return self.shared.in_force.now().checks or CHECKS

    @act(UserRole.researcher, audit="checks.save")
    def change_checks(self, changed: dict[str, float], author: str = LOCAL_ANNOTATOR) -> ChecksRow:
        """Add a version of the checks with these settings changed; it holds from the next task on."""
        author = self.speaker(author)
        return guideline_store.change_checks(self.db, CHECKS, changed, author=author)
