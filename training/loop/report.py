"""A round of the loop in words."""

from __future__ import annotations

from typing import Any

from training.evaluation.gate import Answer, GateVerdict
from training.loop.plan import Plan, Round


def report_lines(done: Round, plan: Plan) -> list[str]:
    """A round in words: what a person reads at the end of it."""
    refused = "rejected" if done.gate.get("verdict") == GateVerdict.reject else "held"
    verdict = "promoted" if done.promoted else f"{refused} ({done.champion} stays champion)"
    stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in done.seconds.items())
    lines = [f"Round {done.number}: {done.policy} {verdict}", *map("  {}".format, _against(done))]
    lines.append(f"  win rate over {done.champion}: {_win_rate(done.over_champion)}, judged by {plan.oracle}")
    if done.start and done.start != done.champion:
        lines.append(f"  win rate over the starting policy: {_win_rate(done.over_start)}")
    figures = done.over_start
    lines.append(
        f"  reply length: {_number(figures, 'length_before')} → {_number(figures, 'length_after')} words; "
        f"KL from the start: {_number(figures, 'kl', 2)} nats per reply"
    )
    if done.reward:
        lines.append(_reward_model(done.reward))
    lines.append(f"  learned from {done.pairs} pairs ({done.judged} judged, {done.ties} ties), dataset {done.dataset}")
    lines.append(f"  seconds: {stages}; {sum(done.seconds.values()):.0f} in all")
    return lines


def _reward_model(figures: dict[str, Any]) -> str:
    return (
        f"  reward model: right on {_share(figures, 'accuracy')} of held-out pairs; "
        f"length alone: {_share(figures, 'length_only_accuracy')}; "
        f"the oracle agrees with itself on {_share(figures, 'oracle_consistency')}"
    )


def _against(done: Round) -> list[str]:
    """The gate's sentences that kept the policy out."""
    return [one["words"] for one in done.gate.get("reasons", ()) if one["answer"] in (Answer.failed, Answer.unclear)]


def _win_rate(figures: dict[str, Any]) -> str:
    interval = f"[{_share(figures, 'low')}, {_share(figures, 'high')}]"
    return f"{_share(figures, 'win_rate')} {interval} on {figures.get('n_prompts', '?')} held-out prompts"


def _share(figures: dict[str, Any], name: str) -> str:
    value = figures.get(name)
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _number(figures: dict[str, Any], name: str, digits: int = 1) -> str:
    value = figures.get(name)
    return "unknown" if value is None else f"{value:.{digits}f}"
