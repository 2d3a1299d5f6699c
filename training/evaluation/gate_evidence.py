"""What the gate is asked about, out of the store: win rates over the champion, benchmarks, and who judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feedback.database.engine import Database
from feedback.store.models.policies import get_policy
from feedback.store.reports.lineage import policy_lineage
from training.evaluation.benchmark_comparison import Compared, compare
from training.evaluation.gate import Decision, GateLimits, TaskResult, decide
from training.evaluation.people import PEOPLE, by_people
from training.evaluation.standing import judge_of, opponent_of, win_rates


def decide_policy(
    db: Database,
    key: str,
    against: str | None = None,
    limits: GateLimits | None = None,
    compare: Callable[[Database, str, str], Compared] = compare,
) -> Decision:
    """May this policy serve in place of ``against``: the champion, or for the champion itself its parent?

    ``compare`` may be one that remembers. InvalidInput for a policy that has nobody to be measured against.
    """
    policy = get_policy(db, key)
    other = opponent_of(db, policy, against)
    cards = _by_judge(db, policy.id, other.id)
    judge, figures = next(iter(cards.items()), ("", None))
    taken = compare(db, policy.id, other.id)
    return decide(
        figures,
        against=other.name,
        judge=judge,
        judge_taught_it=judge_taught(db, policy.id, judge),
        people=by_people(db, policy.id, other.id),
        other_judges={name: card for name, card in cards.items() if name != judge},
        tasks=task_results(taken),
        unlike=taken.unlike,
        limits=limits,
    )


def judge_taught(db: Database, policy_id: str, judge: str) -> bool:
    """Whether a judge, as ``reward:CHECKPOINT``, scored replies while this policy or one it came of learnt."""
    kind, _, named = judge.partition(":")
    if kind != "reward":
        return False
    checkpoint = named.strip()
    step: dict[str, Any] | None = policy_lineage(db, policy_id)
    while step is not None:
        if any(checkpoint in (row["checkpoint"]["id"], row["checkpoint"]["name"]) for row in step["rewards"]):
            return True
        step = step["parent"]
    return False


def task_results(taken: Compared) -> list[TaskResult]:
    """The benchmarks that both took, each by its main metric and with the margin its author gave it."""
    return [
        TaskResult(one.task, one.paired, one.higher_is_better, one.a.settings.get("margin"))
        for one in taken.comparisons
    ]


def _by_judge(db: Database, policy_id: str, against_id: str) -> dict[str, dict[str, Any]]:
    """The newest figures by each rule and reward model, in the order in which they speak."""
    newest: dict[str, dict[str, Any]] = {}
    for card in win_rates(db, policy_id, against_id):
        if judge_of(card) != PEOPLE and "best_of" not in card.figures:
            newest.setdefault(judge_of(card), card.figures)
    return newest
