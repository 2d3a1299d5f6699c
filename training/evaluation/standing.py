"""Which of several measurements of a policy speaks for it: the one answer for the table, the gate and the command.

People come before rules and rules before reward models, for the latter two stand in for people; among equals the newest
one speaks. What the best of many replies are worth says nothing of a policy that gives its first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.store.models.policies import get_champion, get_policy
from feedback.store.models.scorecards import list_scorecards
from feedback.tables import PolicyRow, ScorecardRow
from training.evaluation.people import PEOPLE, list_by_people


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


def judge_of(card: ScorecardRow) -> str:
    """Who judged: ``people``, the name of a rule, or ``reward:`` and a checkpoint."""
    reward = card.settings.get("reward")
    return f"reward:{reward}" if reward else str(card.settings.get("oracle") or "")


def win_rates(
    db: Database, policy_id: str, against_id: str | None = None, cards: Sequence[ScorecardRow] | None = None
) -> list[ScorecardRow]:
    """Every win rate of a policy, over all others or over one, in the order in which they speak.

    What people said so far is put into the form of a scorecard; it is counted anew each time and never stored.
    ``cards`` spares a look where the policy's scorecards are known, newest first.
    """
    stored = list_scorecards(db, subject_id=policy_id) if cards is None else cards
    found = [*_by_people(db, policy_id), *(card for card in stored if card.kind == "win_rate")]
    if against_id is not None:
        found = [card for card in found if card.against_id == against_id]
    first_replies = [card for card in found if "best_of" not in card.figures]
    others = [card for card in found if "best_of" in card.figures]
    return [*sorted(first_replies, key=_rank), *others]  # sorted keeps the newest first among equals


def speaking(db: Database, policy: PolicyRow, cards: Sequence[ScorecardRow] | None = None) -> ScorecardRow | None:
    """The measurement that stands for a policy: over whom the gate asks about, else over anybody; None without any."""
    found = [card for card in win_rates(db, policy.id, cards=cards) if "best_of" not in card.figures]
    try:
        other: str | None = opponent_of(db, policy).id
    except InvalidInput:
        other = None
    return next((card for card in found if card.against_id == other), next(iter(found), None))


def _rank(card: ScorecardRow) -> int:
    judge = judge_of(card)
    return 0 if judge == PEOPLE else 2 if judge.startswith("reward:") else 1


def _by_people(db: Database, policy_id: str) -> list[ScorecardRow]:
    settings: dict[str, Any] = {"oracle": PEOPLE}
    return [
        ScorecardRow(kind="win_rate", subject_id=policy_id, against_id=other, settings=settings, figures=figures)
        for other, figures in list_by_people(db, policy_id).items()
        if figures["judgments"]
    ]
