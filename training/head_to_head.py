"""People as the judge of two policies: which one they prefer, blind, on prompts that no dataset ever saw.

``generate`` with ``against`` puts a reply of each side by side; nobody who judges them can tell which is whose. Rules
and reward models never see these pairs, and nothing is trained on them.
"""

from __future__ import annotations

from typing import Any

from feedback.db import Database
from feedback.store.head_to_head import HeadToHead, list_duels
from feedback.types import Verdict
from training.intervals import clustered_trials

PEOPLE = "people"
_WORTH = {Verdict.first: (1.0, 0.0), Verdict.second: (0.0, 1.0)}
"""What a verdict gives to the policy of the first reply and to that of the second."""


def asked_of_people(a: str, b: str, prompts: int, seed: int | None = None) -> dict[str, Any]:
    """The settings of ``generate`` that put two policies before people, one pair for each held-out prompt."""
    return {"policy": a, "against": b, "split": "evaluation", "limit": prompts, "seed": seed}


def by_people(db: Database, a_id: str, b_id: str) -> dict[str, Any] | None:
    """A's win rate over B by what people said, as the figures of a scorecard; None where nobody was ever asked.

    Ties and pairs of which both are bad count half. Judgments of one prompt are no independent evidence: the 95 %
    interval treats a prompt as one unit.
    """
    return list_by_people(db, a_id).get(b_id)


def list_by_people(db: Database, policy_id: str) -> dict[str, dict[str, Any]]:
    """As ``by_people``, over each policy that people were asked to compare this one with, by its id."""
    return {other: _figures(policy_id, found) for other, found in list_duels(db, policy_id).items()}


def _figures(policy_id: str, found: HeadToHead) -> dict[str, Any]:
    won: dict[str, list[float]] = {}
    for duel in found.duels:
        first, second = _WORTH.get(duel.verdict, (0.5, 0.5))
        won.setdefault(duel.prompt_id, []).append(first if duel.first == policy_id else second)
    share = clustered_trials([sum(scores) for scores in won.values()], [len(scores) for scores in won.values()])
    verdicts, said = [duel.verdict for duel in found.duels], max(1, len(found.duels))
    return {
        "win_rate": share.value if verdicts else None,
        "low": share.low,
        "high": share.high,
        "ties": verdicts.count(Verdict.tie) / said,
        "both_bad": verdicts.count(Verdict.both_bad) / said,
        "n_prompts": len(won),
        "judgments": len(verdicts),
        "annotators": len({duel.annotator for duel in found.duels}),
        "waiting": found.waiting,
    }
