"""Scorecards: is policy A better than policy B, how far did it move, and is a reward model right?

Both policies reply to prompts kept apart for evaluation, each from its own seeds. Every reply of A meets
every reply of B to the same prompt, ties count half, and the interval treats a prompt as one unit: replies to
one prompt are not independent evidence.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from feedback.errors import NotEnoughData
from feedback.types import SamplingSettings, ShownVerdict, content_hash
from training.chat import Messages, PromptTooLong, Unencodable, encode_prompt, is_encodable
from training.endpoint import Endpoint
from training.intervals import Share, clustered
from training.models import LoadedPolicy, LoadedReward
from training.oracles import Oracle, better, noisy
from training.rewards import Scorer
from training.sampling import REFUSED, Replier, Reply, fits, sample
from training.scoring import reply_log_probs, reward_scores

OnProgress = Callable[[float, str], None]

_WORTH = {ShownVerdict.left: 1.0, ShownVerdict.tie: 0.5, ShownVerdict.right: 0.0}


@dataclass(frozen=True)
class Divergence:
    """How far a policy moved from its reference, on its own replies: nats per reply (and its error), and per token."""

    per_reply: float
    error: float
    per_token: float


def compare_policies(
    a: Replier,
    b: Replier,
    oracle: Oracle,
    prompts: Sequence[Messages],
    *,
    samples: int = 2,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
    noise: float = 0.0,
    batch_size: int = 128,
    on_progress: OnProgress | None = None,
    best_of: int = 1,
    picker: Scorer | None = None,
) -> dict[str, Any]:
    """The figures of A against B: win rate with interval, KL of A from B, and what their replies look like.

    The KL figures are None for two models that read in different tokens, and for those behind an endpoint: none can say
    how likely the other's replies are. A prompt that either refuses is left out.
    With ``best_of`` above 1, each reply of A is the one of so many that ``picker`` scores highest: what choosing at
    the time of serving gives without any training. Its own distance is at most ``ln n - (n-1)/n`` nats on top of A's.
    """
    sampling = sampling or SamplingSettings()
    usable = fitting(b, fitting(a, prompts, sampling), sampling)
    if len(usable) < 2:
        raise NotEnoughData(
            f"{len(usable)} of {len(prompts)} evaluation prompts fit both models; at least 2 are needed. "
            "Import prompts with the split 'evaluation'."
        )
    report = on_progress or (lambda fraction, text: None)
    replies_a = _drawn(a, usable, samples * best_of, sampling, 2 * seed, batch_size, report, 0.0)
    moved_on = replies_a
    if best_of > 1 and picker is not None:
        report(0.45, "picking")
        replies_a = picked(picker, usable, replies_a, best_of)
    replies_b = _drawn(b, usable, samples, sampling, 2 * seed + 1, batch_size, report, 0.45)
    report(0.9, "judging")
    kept = _answered(moved_on, replies_b)
    usable, moved_on = [usable[i] for i in kept], [moved_on[i] for i in kept]
    replies_a, replies_b = [replies_a[i] for i in kept], [replies_b[i] for i in kept]
    means, ties = win_means(oracle, usable, replies_a, replies_b, noise, random.Random(seed))
    share = clustered(means, per_cluster=samples)
    report(0.95, "measuring the distance")
    moved = _divergence(a, b, usable, [own[:samples] for own in moved_on])
    chosen = {"best_of": best_of, "best_of_kl": math.log(best_of) - (best_of - 1) / best_of} if best_of > 1 else {}
    return {
        **_named("win_rate", share),
        "ties": ties,
        "n_prompts": len(usable),
        "n_refused": len(prompts) - len(usable),
        "samples": samples,
        "kl": moved.per_reply if moved else None,
        "kl_error": moved.error if moved else None,
        "kl_per_token": moved.per_token if moved else None,
        **chosen,
        **_after_and_before(describe_replies(replies_a), describe_replies(replies_b)),
    }


def picked(
    picker: Scorer, prompts: Sequence[Messages], replies: Sequence[Sequence[Reply]], best_of: int
) -> list[list[Reply]]:
    """Of every ``best_of`` replies to a prompt the one that scores highest; the first of those that score alike."""
    scores = _scored(picker, prompts, replies)
    best = []
    for own, rated in zip(replies, scores, strict=True):
        groups = [range(start, start + best_of) for start in range(0, len(own), best_of)]
        best.append([own[max(group, key=lambda i: rated[i])] for group in groups])
    return best


def win_means(
    oracle: Oracle,
    prompts: Sequence[Messages],
    replies_a: Sequence[Sequence[Reply]],
    replies_b: Sequence[Sequence[Reply]],
    noise: float = 0.0,
    rng: random.Random | None = None,
) -> tuple[list[float], float]:
    """For each prompt how often A's replies beat B's (ties half), and the share of ties over all comparisons."""
    rng = rng or random.Random(0)
    scores_a = _scored(oracle, prompts, replies_a)
    scores_b = _scored(oracle, prompts, replies_b)
    means, ties, total = [], 0, 0
    for own, others in zip(scores_a, scores_b, strict=True):
        verdicts = [noisy(_verdict(x, y), noise, rng) for x in own for y in others]
        means.append(sum(_WORTH[verdict] for verdict in verdicts) / len(verdicts))
        ties += verdicts.count(ShownVerdict.tie)
        total += len(verdicts)
    return means, ties / total


def _answered(*replies: Sequence[Sequence[Reply]]) -> list[int]:
    """The places of the prompts that nobody refused. NotEnoughData when fewer than two are left."""
    refused = {i for own in replies for i, drawn in enumerate(own) if any(r.finish_reason == REFUSED for r in drawn)}
    kept = [i for i in range(len(replies[0])) if i not in refused]
    if len(kept) < 2:
        raise NotEnoughData(f"{len(kept)} of {len(replies[0])} prompts were replied to; at least 2 are needed.")
    return kept


def _divergence(
    a: Replier, b: Replier, prompts: Sequence[Messages], replies: Sequence[Sequence[Reply]]
) -> Divergence | None:
    """KL of A from B on A's replies; None where one cannot say how likely the other's replies are."""
    if isinstance(a, Endpoint) or isinstance(b, Endpoint) or not read_alike(a, b):
        return None
    return divergence(a, b, prompts, replies)


def read_alike(one: LoadedPolicy, other: LoadedPolicy) -> bool:
    """Whether both read a prompt as the same tokens."""
    if one.base == other.base:
        return True
    readers = [(policy.tokenizer.chat_template, policy.tokenizer.get_vocab()) for policy in (one, other)]
    return bool(readers[0] == readers[1])


def divergence(
    policy: LoadedPolicy,
    reference: LoadedPolicy,
    prompts: Sequence[Messages],
    replies: Sequence[Sequence[Reply]],
) -> Divergence:
    """KL(policy || reference) in nats, estimated on the policy's own replies: mean summed log-ratio.

    Unbiased for replies drawn at temperature 1; at another temperature it is the log-ratio of what was drawn.
    The estimate can come out slightly below 0 when the two are alike; the standard error says how slightly.
    """
    exchanges = [
        (encode_prompt(policy.tokenizer, messages), reply.token_ids)
        for messages, own in zip(prompts, replies, strict=True)
        for reply in own
    ]
    pad = policy.tokenizer.pad_token_id
    own_sums = reply_log_probs(policy.model, pad, exchanges)
    other_sums = reply_log_probs(reference.model, pad, exchanges)
    ratios = [x - y for x, y in zip(own_sums, other_sums, strict=True)]
    mean = sum(ratios) / len(ratios)
    spread = sum((ratio - mean) ** 2 for ratio in ratios) / max(1, len(ratios) - 1)
    tokens = sum(len(ids) for _, ids in exchanges)
    return Divergence(mean, (spread / len(ratios)) ** 0.5, sum(ratios) / max(1, tokens))


def measure_reward(
    reward: LoadedReward,
    policy: Replier,
    oracle: Oracle,
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
    replies = _drawn(policy, usable, max(2, samples), sampling, seed, batch_size, report, 0.0) if usable else []
    kept = _answered(replies)
    usable, replies = [usable[i] for i in kept], [replies[i] for i in kept]
    pairs = [
        (messages, own[i].text, own[i + 1].text)
        for messages, own in zip(usable, replies, strict=True)
        for i in range(0, len(own) - 1, 2)
    ]
    report(0.9, "judging")
    return reward_figures(reward, oracle, pairs, noise=noise, seed=seed)


def reward_figures(
    reward: LoadedReward,
    oracle: Oracle,
    pairs: Sequence[tuple[Messages, str, str]],
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of a reward model on (prompt, reply, reply) as an oracle judges them; its ties are left out."""
    from training.methods.reward import length_only, share_right

    rng = random.Random(seed)
    pairs = [pair for pair in pairs if is_encodable(reward.tokenizer, pair[0], pair[1:])]
    verdicts = [_verdict(*oracle.score_all([(m, x), (m, y)])) for m, x, y in pairs]
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
        **_named("accuracy", share),
        "length_only_accuracy": length_only(
            [len(good.split()) for _, good, _ in ordered], [len(bad.split()) for _, _, bad in ordered]
        ),
        "oracle_consistency": same,
        "ceiling": (1 + max(0.0, 2 * same - 1) ** 0.5) / 2,
        "n_pairs": len(ordered),
        "ties": len(pairs) - len(ordered),
    }


def fitting(policy: Replier, prompts: Sequence[Messages], sampling: SamplingSettings) -> list[Messages]:
    """The prompts that this policy can be given, and that leave room for a reply in its window."""
    kept = []
    for messages in prompts:
        try:
            fits(policy, messages, sampling)
            kept.append(messages)
        except (PromptTooLong, Unencodable):
            continue
    return kept


def describe_replies(replies: Sequence[Sequence[Reply]]) -> dict[str, float]:
    """What replies look like: mean words and tokens, share that end by themselves, share that are distinct."""
    flat = [reply for own in replies for reply in own]
    n = len(flat)
    return {
        "length": sum(len(reply.text.split()) for reply in flat) / n,
        "tokens": sum(reply.tokens for reply in flat) / n,
        "ended": sum(reply.finish_reason == "stop" for reply in flat) / n,
        "distinct": len({reply.text for reply in flat}) / n,
    }


def _drawn(
    policy: Replier,
    prompts: Sequence[Messages],
    samples: int,
    sampling: SamplingSettings,
    seed: int,
    batch_size: int,
    report: OnProgress,
    start: float,
) -> list[list[Reply]]:
    def on_progress(drawn: int, wanted: int) -> None:
        report(start + 0.45 * drawn / wanted, f"{drawn} of {wanted} replies")

    return sample(policy, prompts, samples, sampling, seed, batch_size, on_progress, distinct=False)


def _scored(
    oracle: Oracle | Scorer, prompts: Sequence[Messages], replies: Sequence[Sequence[Reply]]
) -> list[list[float]]:
    """Each reply's score, prompt by prompt; asked for in one go, which a reward model needs to be quick."""
    flat = [(messages, reply.text) for messages, own in zip(prompts, replies, strict=True) for reply in own]
    scores = iter(oracle.score_all(flat))
    return [[next(scores) for _ in own] for own in replies]


def _verdict(left: float, right: float) -> ShownVerdict:
    return {"first": ShownVerdict.left, "second": ShownVerdict.right, "tie": ShownVerdict.tie}[better(left, right)]


def _named(name: str, share: Share) -> dict[str, float]:
    low, high = ("low", "high") if name == "win_rate" else (f"{name}_low", f"{name}_high")
    return {name: share.value, low: share.low, high: share.high}


def _after_and_before(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {
        f"{key}_{when}": value for when, card in (("before", before), ("after", after)) for key, value in card.items()
    }
