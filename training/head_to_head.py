"""People as the judge of two policies: which one they prefer, blind, on prompts that no dataset ever saw.

``generate`` with ``against`` puts a reply of each side by side; nobody who judges them can tell which is whose. Rules
and reward models never see these pairs, and nothing is trained on them.
"""

from __future__ import annotations

from typing import Any

from feedback.db import Database
from feedback.store.head_to_head import list_duels
from feedback.types import Verdict
from training.intervals import clustered_trials

PEOPLE = "people"


def asked_of_people(a: str, b: str, prompts: int, seed: int | None = None) -> dict[str, Any]:
    """The settings of ``generate`` that put two policies before people, one pair for each held-out prompt."""
    return {"policy": a, "against": b, "split": "evaluation", "limit": prompts, "seed": seed}


def by_people(db: Database, a_id: str, b_id: str) -> dict[str, Any] | None:
    """A's win rate over B by what people said, as the figures of a scorecard; None where nobody was ever asked.

    Ties and pairs of which both are bad count half. Judgments of one prompt are no independent evidence: the 95 %
    interval treats a prompt as one unit.
    """
    found = list_duels(db, a_id, b_id)
    if not found.duels and not found.waiting:
        return None
    worth = {Verdict.first: (1.0, 0.0), Verdict.second: (0.0, 1.0)}
    won: dict[str, list[float]] = {}
    for duel in found.duels:
        won.setdefault(duel.prompt_id, []).append(worth.get(duel.verdict, (0.5, 0.5))[duel.first != a_id])
    share = clustered_trials([sum(scores) for scores in won.values()], [len(scores) for scores in won.values()])
    verdicts = [duel.verdict for duel in found.duels]
    return {
        "win_rate": share.value if verdicts else None,
        "low": share.low,
        "high": share.high,
        "n_prompts": len(won),
        "judgments": len(verdicts),
        "ties": verdicts.count(Verdict.tie),
        "both_bad": verdicts.count(Verdict.both_bad),
        "annotators": len({duel.annotator for duel in found.duels}),
        "waiting": found.waiting,
    }
