"""Benchmarks of lm-evaluation-harness: results with their items, out of its report, and two policies compared by them.

The harness says how it would judge a difference by two means and their errors, as if the two policies had answered
different questions. Here its samples are kept item by item, and compared item by item
(``training.evaluation.paired_tests``).

An item is named by all that a policy was given and what was right, so that two results meet only where both were asked
the very same thing: with the same examples and choices, in the same chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.store.models.benchmarks import Both, list_benchmarks, list_differing, list_scores
from feedback.tables import BenchmarkRow
from training.evaluation.paired_tests import Paired, PairedFinding, finding, holm, paired

SHARED = 0.9
"""Two results are compared where they share at least so much of the smaller one's items."""


@dataclass(frozen=True)
class Comparison:
    """Policy A against policy B on one task by one metric; the p-value is adjusted for all tasks compared at once."""

    task: str
    metric: str
    a: BenchmarkRow
    b: BenchmarkRow
    paired: Paired
    p_adjusted: float
    higher_is_better: bool

    @property
    def lost(self) -> int:
        """On how many items A did worse than B."""
        return self.paired.lost if self.higher_is_better else self.paired.won

    @property
    def won(self) -> int:
        """On how many items A did better than B."""
        return self.paired.won if self.higher_is_better else self.paired.lost

    @property
    def finding(self) -> PairedFinding:
        """What may be said of A against B."""
        return finding(self.paired, self.p_adjusted, self.higher_is_better)


@dataclass(frozen=True)
class Compared:
    """The comparisons of two policies, and of each task that both took but were asked otherwise a sentence."""

    comparisons: tuple[Comparison, ...]
    unlike: tuple[str, ...]


def compare(db: Database, a_id: str, b_id: str, metric: str | None = None) -> Compared:
    """Compare two policies on every task both took, by the results that share most items, the newest of those.

    A policy never changes, so an older result is as good as a newer one. ``metric`` picks one by name; left out, each
    task's main metric counts. InvalidInput for one policy named twice.
    """
    if a_id == b_id:
        raise InvalidInput("A policy cannot be compared with itself; name another.")
    taken_a, taken_b = (_by_task(db, policy_id) for policy_id in (a_id, b_id))
    found, unlike = [], []
    for task in sorted(taken_a.keys() & taken_b.keys()):
        met = _best_met(db, taken_a[task], taken_b[task], metric)
        if met is None:
            unlike.append(_asked_otherwise(taken_a[task][0], taken_b[task][0], metric))
        else:
            found.append(met)
    adjusted = holm([pair.p_value for *_, pair in found])
    comparisons = [
        Comparison(a.task, name, a, b, pair, p, a.higher_is_better.get(name, True))
        for (name, a, b, pair), p in zip(found, adjusted, strict=True)
    ]
    return Compared(tuple(comparisons), tuple(unlike))


def differing_items(db: Database, found: Comparison, limit: int) -> list[Both]:
    """The items on which the two of a comparison differ, those that A lost first."""
    return list_differing(
        db, found.a.id, found.b.id, found.metric, limit=limit, higher_is_better=found.higher_is_better
    )


def comparison_json(found: Comparison) -> dict[str, Any]:
    """A comparison as plain JSON, the interval and what so many items can show beside the difference."""
    return {
        "task": found.task,
        "metric": found.metric,
        "higher_is_better": found.higher_is_better,
        "finding": found.finding.value,
        **asdict(found.paired),
        "won": found.won,
        "lost": found.lost,
        "p_adjusted": found.p_adjusted,
        "benchmark_a": found.a.id,
        "benchmark_b": found.b.id,
    }


def _by_task(db: Database, policy_id: str) -> dict[str, list[BenchmarkRow]]:
    taken: dict[str, list[BenchmarkRow]] = {}
    for row in list_benchmarks(db, policy_id=policy_id):
        taken.setdefault(row.task, []).append(row)
    return taken


def _best_met(
    db: Database, taken_a: Sequence[BenchmarkRow], taken_b: Sequence[BenchmarkRow], metric: str | None
) -> tuple[str, BenchmarkRow, BenchmarkRow, Paired] | None:
    """The two results of one task that meet on most items; None where none do, or by no common metric."""
    pairs = sorted(((a, b) for a in taken_a for b in taken_b), key=lambda pair: -min(pair[0].n, pair[1].n))
    for a, b in pairs:
        name = metric or next((name for name in a.means if name in b.means), "")
        if name not in a.means or name not in b.means or a.settings.get("version") != b.settings.get("version"):
            continue
        scores = list_scores(db, a.id, b.id, name)
        if len(scores) >= max(2, SHARED * min(a.n, b.n)):
            return name, a, b, paired([score for score, _ in scores], [score for _, score in scores])
    return None


def _asked_otherwise(a: BenchmarkRow, b: BenchmarkRow, metric: str | None) -> str:
    by = f"by {metric} " if metric else ""
    return (
        f"Both took {a.task}, but their results ({a.n:,} and {b.n:,} items) cannot be compared {by}item by item: the "
        "version, the examples, the chat template or the metrics differ. Let both take it again with the same settings."
    )
