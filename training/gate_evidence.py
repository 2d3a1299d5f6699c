"""What the gate is asked about, out of the store: the newest win rate over the champion, benchmarks, and who judged."""

from __future__ import annotations

from feedback.db import Database
from feedback.errors import InvalidInput
from feedback.store.lineage import policy_lineage
from feedback.store.policies import get_champion, get_policy
from feedback.store.scorecards import list_scorecards
from feedback.tables import PolicyRow, ScorecardRow
from training.benchmarks import Compared, compare
from training.gate import Decision, Limits, TaskResult, decide


def decide_policy(db: Database, key: str, against: str | None = None, limits: Limits | None = None) -> Decision:
    """May this policy serve in place of ``against``: the champion, or for the champion itself its parent?

    InvalidInput for a policy that has nobody to be measured against.
    """
    policy = get_policy(db, key)
    other = opponent_of(db, policy, against)
    card = _newest_card(db, policy.id, other.id)
    taken = compare(db, policy.id, other.id)
    return decide(
        card.figures if card else None,
        against=other.name,
        tasks=task_results(taken),
        notes=taken.unlike,
        judge_taught_it=card is not None and _judge_taught(db, policy, card),
        limits=limits,
    )


def opponent_of(db: Database, policy: PolicyRow, against: str | None = None) -> PolicyRow:
    """Whom a policy is measured against: the one named, else the champion, or for the champion its parent.

    InvalidInput for the policy itself, and for one that serves and has no parent.
    """
    champion = get_champion(db)
    if against is not None:
        other = get_policy(db, against)
    elif champion is not None and champion.id != policy.id:
        other = champion
    elif policy.parent_id is not None:
        other = get_policy(db, policy.parent_id)
    else:
        raise InvalidInput(f"{policy.name!r} has no parent to be measured against; name another policy.")
    if other.id == policy.id:
        raise InvalidInput(f"{policy.name!r} cannot be measured against itself; name another policy.")
    return other


def task_results(taken: Compared) -> list[TaskResult]:
    """The benchmarks that both took, each by its main metric."""
    return [TaskResult(one.task, one.paired, one.higher_is_better) for one in taken.comparisons]


def _newest_card(db: Database, policy_id: str, against_id: str) -> ScorecardRow | None:
    cards = list_scorecards(db, subject_id=policy_id)
    # What the best of many replies are worth says nothing of a policy that gives its first.
    return next(
        (
            card
            for card in cards
            if card.kind == "win_rate" and card.against_id == against_id and "best_of" not in card.figures
        ),
        None,
    )


def _judge_taught(db: Database, policy: PolicyRow, card: ScorecardRow) -> bool:
    rule = str(card.settings.get("oracle") or "")
    judge = card.settings.get("reward") or rule.removeprefix("reward:")
    taught = [reward["checkpoint"] for reward in policy_lineage(db, policy.id)["rewards"]]
    return any(judge in (checkpoint["id"], checkpoint["name"]) for checkpoint in taught)
