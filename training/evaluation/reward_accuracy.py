"""How often a reward model is right on held-out pairs, beside length alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from feedback.errors import NotEnoughData
from feedback.rules.votes import TIE_SHARE
from feedback.types import PreferencePair, SamplingSettings, ShownVerdict, content_hash
from training.data.encoding import as_dicts
from training.evaluation.intervals import Share, clustered_trials
from training.evaluation.win_rate import OnProgress, answered_prompts, compare_scores, interval_figures, sample_replies
from training.generation.sampling import Replier, fitting
from training.models.chat import Messages, is_encodable
from training.models.loading import LoadedReward
from training.models.scoring import reward_scores
from training.rewards.oracles import Judge, noisy


def measure_reward(
    reward: LoadedReward,
    policy: Replier,
    oracle: Judge,
    prompts: Sequence[Messages],
    *,
    samples: int = 2,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
    noise: float = 0.0,
    batch_size: int = 128,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """The figures of a reward model on fresh pairs of held-out prompts, judged by an oracle.

    Beside its accuracy stand what length alone gets right on the same pairs, how often two judgments of the
    same pair agree, and the accuracy that this agreement allows at most: ``(1 + sqrt(2p - 1)) / 2``.
    """
    sampling = sampling or SamplingSettings()
    usable = fitting(policy, prompts, sampling)
    report = on_progress or (lambda fraction, text: None)
    replies = sample_replies(policy, usable, max(2, samples), sampling, seed, batch_size, report, 0.0) if usable else []
    kept = answered_prompts(replies)
    usable, replies = [usable[i] for i in kept], [replies[i] for i in kept]
    pairs = [
        (messages, own[i].text, own[i + 1].text)
        for messages, own in zip(usable, replies, strict=True)
        for i in range(0, len(own) - 1, 2)
        if not own[i].unfinished and not own[i + 1].unfinished
    ]
    report(0.9, "judging")
    return reward_figures(reward, oracle, pairs, noise=noise, seed=seed)


def reward_figures(
    reward: LoadedReward,
    oracle: Judge,
    pairs: Sequence[tuple[Messages, str, str]],
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of a reward model on (prompt, reply, reply) as an oracle judges them; its ties are left out."""
    rng = random.Random(seed)
    pairs = [pair for pair in pairs if is_encodable(reward.tokenizer, pair[0], pair[1:])]
    verdicts = [compare_scores(*oracle.score_all([(m, x), (m, y)])) for m, x, y in pairs]
    first = [noisy(verdict, noise, rng) for verdict in verdicts]
    second = [noisy(verdict, noise, rng) for verdict in verdicts]
    decisive = [i for i, verdict in enumerate(first) if verdict is not ShownVerdict.tie]
    if len(decisive) < 2:
        raise NotEnoughData(
            f"The oracle {oracle.rule!r} can tell apart {len(decisive)} of {len(pairs)} pairs; at least 2 are needed. "
            "Use more prompts or another oracle."
        )
    ordered = [(pairs[i][0], *(pairs[i][1:] if first[i] is ShownVerdict.left else pairs[i][:0:-1])) for i in decisive]
    chosen = reward_scores(reward, [(messages, good) for messages, good, _ in ordered])
    rejected = reward_scores(reward, [(messages, bad) for messages, _, bad in ordered])
    share = share_right([content_hash(list(map(dict, messages))) for messages, _, _ in ordered], chosen, rejected)
    same = sum(first[i] is second[i] for i in decisive) / len(decisive)
    return {
        **interval_figures("accuracy", share),
        "length_only_accuracy": length_only(
            [len(good.split()) for _, good, _ in ordered], [len(bad.split()) for _, _, bad in ordered]
        ),
        "oracle_consistency": same,
        "ceiling": (1 + max(0.0, 2 * same - 1) ** 0.5) / 2,
        "n_pairs": len(ordered),
        "ties": len(pairs) - len(ordered),
    }


def pair_accuracy(reward: LoadedReward, pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """How often the chosen reply scores higher, with its interval, and how often the longer one was chosen.

    Equal scores count half: a model that cannot tell is no better than a coin. The length-only baseline takes
    the better of "longer" and "shorter". Pairs that the model cannot be given are left out; without pairs the figures
    are None.
    """
    pairs = [p for p in pairs if is_encodable(reward.tokenizer, as_dicts(p.messages), (p.chosen, p.rejected))]
    if not pairs:
        return {
            "accuracy": None,
            "accuracy_low": None,
            "accuracy_high": None,
            "length_only_accuracy": None,
            "test_pairs": 0,
        }
    cut = [pair.chosen_cut for pair in pairs], [pair.rejected_cut for pair in pairs]
    chosen = reward_scores(reward, [(as_dicts(pair.messages), pair.chosen) for pair in pairs], cut=cut[0])
    rejected = reward_scores(reward, [(as_dicts(pair.messages), pair.rejected) for pair in pairs], cut=cut[1])
    share = share_right([pair.prompt_id for pair in pairs], chosen, rejected)
    words = [len(pair.chosen.split()) for pair in pairs], [len(pair.rejected.split()) for pair in pairs]
    return {
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "length_only_accuracy": length_only(*words),
        "test_pairs": len(pairs),
    }


def share_right(prompts: Sequence[str], chosen: Sequence[float], rejected: Sequence[float]) -> Share:
    """The share of pairs whose better side scores higher, ties half; the pairs of one prompt (by key) are one unit."""
    units: dict[str, list[tuple[float, float]]] = {}
    for prompt, *scores in zip(prompts, chosen, rejected, strict=True):
        units.setdefault(prompt, []).append((scores[0], scores[1]))
    right = [agreement(*zip(*unit, strict=True)) for unit in units.values()]
    return clustered_trials(right, [len(unit) for unit in units.values()])


def agreement(better: Sequence[float], worse: Sequence[float]) -> float:
    """In how many pairs the better side has the higher number; equal numbers count half."""
    return sum((a > b) + TIE_SHARE * (a == b) for a, b in zip(better, worse, strict=True))


def length_only(better: Sequence[int], worse: Sequence[int]) -> float:
    """Share of pairs that length alone gets right, by whichever of "longer" and "shorter" does better."""
    longer = agreement(better, worse) / len(better)
    return max(longer, 1 - longer)
