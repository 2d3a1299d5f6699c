"""How policies compare, whatever the door: benchmarks item by item, what people prefer, and who may serve."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.store.models import benchmarks as benchmark_store
from feedback.store.models.benchmarks import Both
from feedback.store.models.policies import get_policy
from feedback.store.reports.comparisons import withdraw_comparisons
from feedback.tables import BenchmarkRow, PolicyRow, RunRow, ScorecardRow
from feedback.types import UserRole
from studio.services.access import Acts, act
from training.evaluation import benchmark_comparison, people, standing
from training.evaluation.benchmark_comparison import Compared, Comparison
from training.evaluation.gate import Decision, GateLimits
from training.evaluation.gate_evidence import decide_policy, opponent_of
from training.evaluation.harness_report import from_report, read_report
from training.runs import queue

if TYPE_CHECKING:
    from training.board.bradley_terry import Strength
    from training.board.standings import Board

T = TypeVar("T")
REMEMBERED = 256
"""So many comparisons are kept in memory."""
"""What is asked for where nothing else was said."""


class Remembered:
    """Results that never change, kept in memory by what they were computed from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[object, object] = {}

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """The result for a key, computed at most once while it is remembered."""
        with self._lock:
            if key not in self._found:
                if len(self._found) >= REMEMBERED:
                    self._found.clear()
                self._found[key] = compute()
            return cast(T, self._found[key])


@dataclass(frozen=True)
class PairedPolicies:
    """One policy over another: its win rates in the order in which they speak, and what the gate says of them.

    ``has_reverse`` tells that rules or reward models measured the other over the first, which is another question.
    """

    policy: PolicyRow
    against: PolicyRow
    win_rates: list[ScorecardRow]
    decision: Decision
    has_reverse: bool

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain JSON."""
        rates = [
            {"judge": standing.judge_of(card), **card.figures, "settings": card.settings} for card in self.win_rates
        ]
        names = {"policy": self.policy.name, "against": self.against.name}
        return {**names, "win_rates": rates, "gate": self.decision.as_json(), "has_reverse": self.has_reverse}


class Evaluation(Acts):
    """Acts that inform a promotion: benchmarks, comparisons, human preferences, the gate."""

    @act(UserRole.researcher, audit="run.submit", about="tasks")
    def take(self, policy: str, tasks: str, against: str | None = None) -> list[RunRow]:
        """Queue a run in which a policy takes these benchmark tasks, names separated by commas.

        Whom it is to be measured against takes those that it has no result of, so that there is something to compare.
        """
        wanted = [task.strip() for task in tasks.split(",") if task.strip()]
        if not wanted:
            raise InvalidInput("Name a benchmark task; `everyday_facts` comes with the studio.")
        asked = {get_policy(self.db, policy).id: wanted}
        if against and (other := get_policy(self.db, against)).id not in asked:
            taken = {row.task for row in self.list_benchmarks(other.id)}
            asked[other.id] = [task for task in wanted if task not in taken]
        return [
            queue.submit(self.db, "benchmark", {"policy": key, "tasks": names}) for key, names in asked.items() if names
        ]

    @act(UserRole.researcher)
    def opponent(self, policy: str) -> PolicyRow | None:
        """Whom a policy is measured against unless told otherwise; None where there is nobody."""
        try:
            return opponent_of(self.db, get_policy(self.db, policy))
        except InvalidInput:
            return None

    @act(UserRole.researcher)
    def list_benchmarks(self, policy: str | None = None) -> list[BenchmarkRow]:
        """What policies scored, newest first, of one or of all."""
        return benchmark_store.list_benchmarks(
            self.db, policy_id=get_policy(self.db, policy).id if policy is not None else None
        )

    @act(UserRole.researcher)
    def compare(self, policy: str, against: str | None = None, metric: str | None = None) -> Compared:
        """A policy against another, the champion if none is named, on every task both took."""
        a = get_policy(self.db, policy)
        return self._compared(self.db, a.id, opponent_of(self.db, a, against).id, metric)

    @act(UserRole.researcher)
    def compare_two(self, a: str, b: str, metric: str | None = None) -> Compared:
        """Two policies, both named, on every task both took."""
        return self._compared(self.db, get_policy(self.db, a).id, get_policy(self.db, b).id, metric)

    def _compared(self, db: Database, a_id: str, b_id: str, metric: str | None = None) -> Compared:
        """What is compared never changes, and a page that watches a run asks every other second."""
        taken = tuple(row.id for key in (a_id, b_id) for row in benchmark_store.list_benchmarks(db, policy_id=key))
        return self.shared.remembered.once(
            (a_id, b_id, metric, taken), lambda: benchmark_comparison.compare(db, a_id, b_id, metric)
        )

    @act(UserRole.researcher)
    def list_differing(self, found: Comparison, limit: int) -> list[Both]:
        """The items on which the two of a comparison differ, those that A lost first."""
        key = ("differing", found.a.id, found.b.id, found.metric, limit)
        return self.shared.remembered.once(key, lambda: benchmark_comparison.differing_items(self.db, found, limit))

    @act(UserRole.admin, audit="benchmark.import", about="policy", detail="path")
    def import_benchmarks(self, policy: str, path: Path) -> tuple[list[BenchmarkRow], list[str]]:
        """Bring in what lm_eval measured of a policy, from files of this machine, and name the tasks left out."""
        policy_id = get_policy(self.db, policy).id
        taken = from_report(*read_report(path), policy_id)
        return [benchmark_store.save_benchmark(self.db, *one) for one in taken.results], taken.left_out

    @act(UserRole.researcher)
    def by_people(self, a: str, b: str) -> dict[str, Any] | None:
        """What people said of one policy beside another, as the figures of a scorecard; None where nobody was asked."""
        return people.by_people(self.db, get_policy(self.db, a).id, get_policy(self.db, b).id)

    @act(UserRole.researcher, audit="comparison.withdraw", about="a", detail="b")
    def withdraw(self, a: str, b: str) -> int:
        """Withdraw the pairs of two policies that people were asked about and nobody has judged; how many."""
        return withdraw_comparisons(self.db, get_policy(self.db, a).id, get_policy(self.db, b).id)

    @act(UserRole.researcher)
    def list_by_people(self, policy: str) -> list[dict[str, Any]]:
        """What people said of a policy beside others, each as the figures of a scorecard with whom it met."""
        found = people.list_by_people(self.db, get_policy(self.db, policy).id)
        return [{"against": get_policy(self.db, other).name, **figures} for other, figures in found.items()]

    @act(UserRole.researcher)
    def board(self, reference: str | None = None, by: str = people.PEOPLE) -> Board:
        """How strong each policy is by one judge: ``people``, ``oracle:RULE`` or ``reward:NAME``.

        ``reference`` has strength 0, left out the champion.
        """
        from training.board.judges import board_by  # numpy is no part of a light command

        return board_by(self.db, by, reference, fit=self._strengths)

    def _strengths(self, votes: Any, reference: str, **options: Any) -> dict[str, Strength]:
        """Strengths computed once from the same votes: resampling takes seconds, and an open page asks again."""
        from training.board.bradley_terry import strengths

        digest = blake2b(repr(votes).encode()).hexdigest()
        return self.shared.remembered.once(
            ("strengths", digest, reference, *sorted(options.items())), lambda: strengths(votes, reference, **options)
        )

    @act(UserRole.researcher)
    def pair(self, a: str, b: str) -> PairedPolicies:
        """Two policies, the first over the second: the figures that the gate and the policy table read."""
        policy, other = get_policy(self.db, a), get_policy(self.db, b)
        decision = decide_policy(self.db, policy.id, other.id, compare=self._compared)
        turned = standing.win_rates(self.db, other.id, policy.id)
        return PairedPolicies(
            policy,
            other,
            standing.win_rates(self.db, policy.id, other.id),
            decision,
            has_reverse=any(standing.judge_of(card) != people.PEOPLE for card in turned),
        )

    @act(UserRole.researcher)
    def decide(self, policy: str, against: str | None = None, limits: GateLimits | None = None) -> Decision:
        """May this policy serve, by all that was measured? Changes nothing."""
        return decide_policy(self.db, policy, against, limits, self._compared)
