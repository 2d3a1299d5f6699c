"""What the figures of a run mean, in a line each, and how their names read. A name without a line speaks for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from studio.page.text import label_of

KEPT = {
    "best_iteration": "Kept policy, after iteration",
    "best_proxy": "Training score of the kept policy",
    "best_score": "Score of the kept policy",
    "best_kl": "KL of the kept policy",
    "best_end_rate": "End rate of the kept policy",
    "best_tokens": "Tokens of the kept policy",
    "best_repetition": "Repetition of the kept policy",
}
"""How the figures of the policy that a PPO run keeps read: they are its own, and none is the best there was."""

FAMILIES: Mapping[str, tuple[str, str]] = {
    "canary_": (
        "Canary …",
        "The same of replies to the few prompts kept apart from learning. They are looked at every few iterations, so "
        "that the last look may be of an earlier step. A score that rises while the canary's falls games its reward.",
    ),
    "best_": (
        "… of the kept policy",
        "The same of the policy that the run publishes, as it was on the prompts kept apart: of all looks at what was "
        "learnt, the one with the highest score after beta times KL is taken off.",
    ),
}
"""Figures that repeat others for something else, by the beginning of their names."""

MEANINGS: Mapping[str, str] = {
    "reward": "What the judges gave the replies, on their own scale.",
    "score": "What is learnt from: the reward in deviations of the parent's replies, less what a reply without an end "
    "costs. 0 is as good as the parent.",
    "proxy": "The score on the prompts it learnt from, at that moment.",
    "iteration": "0 is the parent, unchanged.",
    "kl": "How far the policy is from its parent, or in an evaluation from the other policy: nats per reply. 0 is the "
    "same policy; a small number below 0 is chance.",
    "kl_k3": "The same distance by another estimate (k3), which is never below 0.",
    "kl_per_token": "The same distance in nats per token.",
    "divergence": "How far the steps of one iteration moved the policy from the one that drew the replies: nats per "
    "token.",
    "entropy": "How undecided the policy is, in nats per token; near 0 it always says the same.",
    "beta": "What a nat of distance costs in score.",
    "end_rate": "The share of replies that came to an end by themselves.",
    "tokens": "Tokens per reply, on average.",
    "tokens_p95": "Nineteen replies of twenty have no more tokens.",
    "repetition": "The share of runs of three words that repeat one before.",
    "clip_rate": "The share of tokens whose step was cut short; where it is high, the steps are too large.",
    "policy_gradient_norm": "The length of the gradient; a jump warns of steps that are too large.",
    "gradient_norm": "The length of the gradient; a jump warns of steps that are too large.",
    "explained_variance": "How much of the returns the value had foretold: 1 all, 0 nothing.",
    "accuracy": "The share of pairs whose better reply scores higher.",
    "margin": "By how much the better reply scores higher, on average.",
    "length_only_accuracy": "What choosing by length alone would reach on the same pairs.",
    "win_rate": "The share of comparisons won, ties counted half, with its 95 % interval.",
}


def figure_label(name: str) -> str:
    """A figure's name as it reads on a run's card."""
    return KEPT.get(name) or label_of(name)


def meanings(names: Iterable[str]) -> dict[str, str]:
    """What the figures there are mean, by label; each once, and what repeats others for something else in one line."""
    told: dict[str, str] = {}
    for name in names:
        family = next((start for start in FAMILIES if name.startswith(start) and _repeats(name, start)), "")
        if family:
            told.setdefault(*FAMILIES[family])
        own = name.removeprefix(family)
        if own in MEANINGS:
            told[label_of(own) if own != "proxy" else "Training score"] = MEANINGS[own]
    return told


def _repeats(name: str, start: str) -> bool:
    return name in KEPT if start == "best_" else name.removeprefix(start) in MEANINGS
