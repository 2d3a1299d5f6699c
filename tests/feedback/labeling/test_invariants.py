"""The promises of the pool, held against any order of leases, answers, releases, undos, reviews and clock jumps."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlmodel import select

from feedback.database.engine import open_database
from feedback.errors import Conflict, LeaseLost
from feedback.labeling import assignment, judging
from feedback.labeling.assignment import Task
from feedback.store.labeling import batches, judgments, leases, matchups, reviews
from feedback.tables import JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Batch, Checks, JudgmentState, LeaseState, MatchupState, Part, Purpose, Verdict
from tests.factories import get_matchup, list_judgments, make_matchup, make_policy, make_prompt

PEOPLE = ("ann", "bob", "cat", "dan")
people = st.sampled_from(PEOPLE)
answers = st.sampled_from([{"verdict": "left"}, {"verdict": "right"}, {"verdict": "tie"}, {"skip_reason": "unclear"}])


class Pool(RuleBasedStateMachine):
    """Four people, a reviewer, eight matchups (two of them gold), and a clock that runs both ways."""

    @initialize(seed=st.integers(0, 2**16))
    def open_pool(self, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.db = open_database(Path(self.folder.name) / "studio.db")
        self.rng = random.Random(seed)
        self.at = datetime(2026, 1, 5, 12, tzinfo=UTC)
        self.checks = Checks(gold_share=0.2, repeat_share=0.2, repeat_after=30)
        self.held: list[Task] = []
        self.said: dict[str, str] = {}
        policy, prompt = make_policy(self.db, "secret-policy"), make_prompt(self.db, "What?")
        made = [make_matchup(self.db, policy=policy, prompt=prompt, required=1 + i % 2) for i in range(8)]
        for row in made[:2]:
            matchups.save_gold(self.db, row.id, {"verdict": "first"})
        batches.save_batch(
            self.db, Batch(name="urgent", priority=5, required=2, max_required=3), matchup_ids=[made[7].id, made[6].id]
        )

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.dispose()
            self.folder.cleanup()

    @rule(seconds=st.integers(-3000, 3000))
    def clock_jumps(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)

    @rule(name=people)
    def ask(self, name: str) -> None:
        task = assignment.lease_next(
            self.db, name, checks=self.checks, rng=self.rng, at=self.at, lease_seconds=600, session=f"{name}-tab"
        )
        if task is None:
            return
        self.held.append(task)
        matchup = get_matchup(self.db, task.matchup_id)
        if matchup.purpose in (Purpose.collect, Purpose.evaluate):
            assert self.taken(matchup) <= matchup.required
        assert sorted(leases.get_lease(self.db, task.lease_id).shown_order) == [0, 1]
        assert not {"gold", "secret-policy", "repeat"} & set(repr(vars(task)).replace("'", " ").split())

    @rule(name=people)
    def ask_in_two_windows_at_once(self, name: str) -> None:
        tasks = [
            assignment.lease_next(self.db, name, session=f"{name}-one", resume=True, at=self.at, checks=self.checks)
            for _ in range(2)
        ]
        assert tasks[0] == tasks[1]
        self.held.extend(task for task in tasks[:1] if task is not None)

    @rule(which=st.integers(0, 50), said=answers)
    def answer(self, which: int, said: dict[str, str]) -> None:
        if not self.held:
            return
        task = self.held[which % len(self.held)]
        try:
            first = judging.submit(self.db, task.lease_id, task.annotator, at=self.at, **said)
        except LeaseLost:
            return
        again = judging.submit(self.db, task.lease_id, task.annotator, at=self.at, verdict="tie")
        assert first.judgment_id == again.judgment_id and not again.created
        assert self.said.setdefault(task.lease_id, first.judgment_id) == first.judgment_id

    @rule(which=st.integers(0, 50))
    def give_back(self, which: int) -> None:
        if self.held:
            assignment.release(self.db, self.held[which % len(self.held)].lease_id)

    @rule(name=people)
    def undo(self, name: str) -> None:
        key = f"{name}-tab"
        lease = judgments.withdraw_last_judgment(
            self.db, name, session_key=key, expires_at=self.at + timedelta(seconds=600), at=self.at
        )
        if lease is not None:
            self.held.append(assignment.task_of(self.db, lease))

    @rule(which=st.integers(0, 50), requeue=st.booleans())
    def exclude(self, which: int, requeue: bool) -> None:
        current = [row for row in self.rows() if row.state is JudgmentState.current]
        if current:
            row = current[which % len(current)]
            reviews.exclude_judgment(self.db, row.id, "reviewer", "spam", requeue=requeue)

    @rule()
    def settle_a_dispute(self) -> None:
        task = assignment.lease_next(self.db, "reviewer", part=Part.adjudicator, at=self.at)
        if task is not None:
            judging.submit(self.db, task.lease_id, "reviewer", verdict="left", at=self.at)
            assert get_matchup(self.db, task.matchup_id).state is MatchupState.adjudicated

    def rows(self) -> list[JudgmentRow]:
        return list_judgments(self.db)

    def taken(self, matchup: MatchupRow) -> int:
        """Live leases and counting judgments of a matchup."""
        wanted = select(LeaseRow).where(LeaseRow.matchup_id == matchup.id, LeaseRow.state == LeaseState.leased)
        with self.db.read() as session:
            held = session.exec(wanted).all()
        live = sum(lease.expires_at > self.at and lease.part is Part.annotator for lease in held)
        return live + sum(
            row.matchup_id == matchup.id
            and row.state is JudgmentState.current
            and row.verdict is not Verdict.skip
            and row.part is Part.annotator
            for row in self.rows()
        )

    @invariant()
    def one_current_judgment_per_person_and_nothing_lost(self) -> None:
        if not hasattr(self, "db"):
            return
        rows = self.rows()
        current = Counter((row.matchup_id, row.annotator) for row in rows if row.state is JudgmentState.current)
        assert all(count == 1 for count in current.values())
        assert set(self.said.values()) <= {row.id for row in rows}
        assert len({row.lease_id for row in rows}) == len(rows)
        by_id = {row.id: row for row in rows}
        for row in rows:
            if row.supersedes:
                assert by_id[row.supersedes].revision == row.revision - 1
        last: dict[str, datetime] = {}
        for row in sorted(rows, key=lambda row: row.created_at):
            assert last.get(row.annotator, row.created_at - timedelta(seconds=1)) < row.created_at
            last[row.annotator] = row.created_at


Pool.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPool = Pool.TestCase


def test_gold_cannot_be_made_of_a_check(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    gold = matchups.save_gold(db, make_matchup(db).id, {"verdict": "second"})
    try:
        matchups.save_gold(db, gold.id, {"verdict": "second"})
    except Conflict as error:
        assert "a check already" in str(error)
    else:
        raise AssertionError("gold of gold")
