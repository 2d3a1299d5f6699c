"""How policies compare, whatever the door: benchmarks, paired item by item, and the gate's verdict on who may serve."""

from __future__ import annotations

from feedback.db import Database
from feedback.errors import InvalidInput
from feedback.store import benchmarks as benchmark_store
from feedback.store.benchmarks import Both
from feedback.store.policies import get_policy
from feedback.tables import BenchmarkRow, RunRow
from training import benchmarks, runs
from training.benchmarks import Compared, Comparison
from training.gate import Decision, Limits
from training.gate_evidence import decide_policy, opponent_of

STANDARD_TASKS = "starter_topic"
"""What is asked for where nothing else was said."""


class Measuring:
    """What a researcher asks before a policy is let serve, over one database."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def take(self, policy: str, tasks: str, against: str | None = None) -> list[RunRow]:
        """Queue a run in which a policy takes these benchmark tasks, names separated by commas.

        Whom it is to be measured against takes those that it has no result of, so that there is something to compare.
        """
        wanted = [task.strip() for task in tasks.split(",") if task.strip()]
        if not wanted:
            raise InvalidInput("Name a benchmark task; `starter_topic` comes with the studio.")
        queued = [runs.submit(self.db, "benchmark", {"policy": policy, "tasks": wanted})]
        taken = {row.task for row in self.list_benchmarks(against)} if against else set(wanted)
        missing = [task for task in wanted if task not in taken]
        if missing:
            queued.append(runs.submit(self.db, "benchmark", {"policy": against, "tasks": missing}))
        return queued

    def list_benchmarks(self, policy: str | None = None) -> list[BenchmarkRow]:
        """What policies scored, newest first, of one or of all."""
        return benchmark_store.list_benchmarks(
            self.db, policy_id=get_policy(self.db, policy).id if policy is not None else None
        )

    def compare(self, policy: str, against: str | None = None, metric: str | None = None) -> Compared:
        """A policy against another, the champion if none is named, on every task both took."""
        a = get_policy(self.db, policy)
        return benchmarks.compare(self.db, a.id, opponent_of(self.db, a, against).id, metric)

    def list_differing(self, found: Comparison, limit: int) -> list[Both]:
        """The items on which the two of a comparison differ, those that A lost first."""
        return benchmark_store.list_differing(self.db, found.a.id, found.b.id, found.metric, limit=limit)

    def decide(self, policy: str, against: str | None = None, limits: Limits | None = None) -> Decision:
        """May this policy serve, by all that was measured? Changes nothing."""
        return decide_policy(self.db, policy, against, limits)
