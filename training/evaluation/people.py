"""People as the judge of two policies: which one they prefer, blind, on prompts that no dataset ever saw.

``generate`` with ``against`` puts a reply of each side by side; nobody who judges them can tell which is whose. Rules
and reward models never see these pairs, and nothing is trained on them.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import Any

from feedback.database.engine import Database
from feedback.rules.votes import TIE_SHARE
from feedback.store.content.prompts import list_prompts
from feedback.store.models.policies import list_policies
from feedback.store.models.runs import list_runs
from feedback.store.reports.comparisons import HeadToHead, count_met, list_comparisons
from feedback.tables import PromptRow
from feedback.types import RunState, Split, Verdict
from training.evaluation.intervals import clustered_trials, evidence_at_any_time

PEOPLE = "people"
_WORTH = {Verdict.first: (1.0, 0.0), Verdict.second: (0.0, 1.0)}
"""What a verdict gives to the policy of the first reply and to that of the second."""


def asked_of_people(a: str, b: str, prompts: int, seed: int | None = None) -> dict[str, Any]:
    """The settings of ``generate`` that put two policies before people, one pair for each held-out prompt."""
    return {"policy": a, "against": b, "split": "evaluation", "limit": prompts, "seed": seed}


def by_people(db: Database, a_id: str, b_id: str) -> dict[str, Any] | None:
    """A's win rate over B by what people said, as the figures of a scorecard; None where nobody was ever asked.

    Ties and pairs of which both are bad count half, and so does a prompt on which both said the same, which nobody is
    asked about. Judgments of one prompt are no independent evidence: the 95 % interval treats a prompt as one unit. It
    is meant to be read once, when nothing waits any more; until then ``evidence`` tells (``evidence_at_any_time``).
    """
    return list_by_people(db, a_id).get(b_id)


def list_by_people(db: Database, policy_id: str) -> dict[str, dict[str, Any]]:
    """As ``by_people``, over each policy that people were asked to compare this one with, by its id."""
    met = list_comparisons(db, policy_id)
    alike = _alike(db, policy_id) if met else {}
    return {
        other: _figures(policy_id, found, alike.get(other, 0))
        for other, found in met.items()
        if found.comparisons or found.waiting  # else all that was asked was withdrawn
    }


def prompts_to_compare(db: Database, one: str, other: str, limit: int) -> list[PromptRow]:
    """The held-out prompts on which these two met least, oldest first; those that wait for an answer count as met."""
    met = count_met(db, one, other)
    rows = list_prompts(db, split=Split.evaluation, brought=True)
    return sorted(rows, key=lambda row: met.get(row.id, 0))[:limit]


def _alike(db: Database, policy_id: str) -> dict[str, int]:
    """On how many prompts the two said the same, by the other's id: a tie that nobody needs to be asked about."""
    names = {key: row.id for row in list_policies(db) for key in (row.id, row.name)}
    found: Counter[str] = Counter()
    for run in list_runs(db, method="generate", states=[RunState.succeeded]):
        if run.config.get("split") == Split.evaluation and run.config.get("against"):
            sides = [names.get(str(run.config.get(side))) for side in ("policy", "against")]
            other = next((side for side in sides if side != policy_id), None)
            if policy_id in sides and other is not None:
                found[other] += run.result.get("identical", 0)
    return found


def _figures(policy_id: str, found: HeadToHead, alike: int) -> dict[str, Any]:
    won: dict[str, list[float]] = {}
    for comparison in found.comparisons:
        first, second = _WORTH.get(comparison.verdict, (TIE_SHARE, TIE_SHARE))
        won.setdefault(comparison.prompt_id, []).append(first if comparison.first == policy_id else second)
    units = [*won.values(), *[[TIE_SHARE]] * (alike if won else 0)]
    share = clustered_trials([sum(scores) for scores in units], [len(scores) for scores in units])
    verdicts, said = [comparison.verdict for comparison in found.comparisons], max(1, len(found.comparisons))
    return {
        "win_rate": share.value if verdicts else None,
        "low": share.low,
        "high": share.high,
        "evidence": evidence_at_any_time([fmean(scores) for scores in won.values()]),
        "ties": verdicts.count(Verdict.tie) / said,
        "both_bad": verdicts.count(Verdict.both_bad) / said,
        "alike": alike,
        "n_prompts": len(units),
        "judgments": len(verdicts),
        "annotators": len({comparison.annotator for comparison in found.comparisons}),
        "waiting": found.waiting,
    }
