"""Scorecards: is policy A better than policy B, how far did it move, and is a reward model right?

Both policies reply to prompts kept apart for evaluation, each from its own seeds. Every reply of A meets
every reply of B to the same prompt, ties count half, and the interval treats a prompt as one unit: replies to
one prompt are not independent evidence.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from feedback.errors import NotEnoughData
from feedback.rules.votes import TIE_SHARE
from feedback.types import SamplingSettings, ShownVerdict
from training.evaluation.divergence import divergence_if_local
from training.evaluation.intervals import Share, clustered
from training.generation.sampling import REFUSED, Replier, Reply, fitting, sample
from training.models.chat import Messages
from training.reporting.pace import DrawingPace
from training.rewards.oracles import Judge, better, noisy
from training.rewards.scorers import Scorer

OnProgress = Callable[[float, str], None]

_WORTH = {ShownVerdict.left: 1.0, ShownVerdict.tie: TIE_SHARE, ShownVerdict.right: 0.0}


def compare_policies(
    a: Replier,
    b: Replier,
    oracle: Judge,
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
    replies_a = sample_replies(a, usable, samples * best_of, sampling, 2 * seed, batch_size, report, 0.0)
    moved_on = replies_a
    if best_of > 1 and picker is not None:
        report(0.45, "picking")
        replies_a = picked(picker, usable, replies_a, best_of)
    replies_b = sample_replies(b, usable, samples, sampling, 2 * seed + 1, batch_size, report, 0.45)
    report(0.9, "judging")
    kept = answered_prompts(moved_on, replies_b)
    usable, moved_on = [usable[i] for i in kept], [moved_on[i] for i in kept]
    replies_a, replies_b = [replies_a[i] for i in kept], [replies_b[i] for i in kept]
    means, ties = win_means(oracle, usable, replies_a, replies_b, noise, random.Random(seed))
    share = clustered(means, per_cluster=samples)
    unfinished = sum(reply.unfinished for own in (*replies_a, *replies_b) for reply in own)
    report(0.95, "measuring the distance")
    moved = divergence_if_local(a, b, usable, [own[:samples] for own in moved_on])
    chosen = {"best_of": best_of, "best_of_kl": math.log(best_of) - (best_of - 1) / best_of} if best_of > 1 else {}
    return {
        **interval_figures("win_rate", share),
        "ties": ties,
        "n_prompts": len(usable),
        "n_refused": len(prompts) - len(usable),
        "samples": samples,
        "kl": moved.per_reply if moved else None,
        "kl_error": moved.error if moved else None,
        "kl_per_token": moved.per_token if moved else None,
        **chosen,
        **({"unfinished": unfinished} if unfinished else {}),
        **_after_and_before(describe_replies(replies_a), describe_replies(replies_b)),
    }


def picked(
    picker: Scorer, prompts: Sequence[Messages], replies: Sequence[Sequence[Reply]], best_of: int
) -> list[list[Reply]]:
    """Of every ``best_of`` replies to a prompt the one that scores highest; the first of those that score alike."""
    scores = _below_others(_scored(picker, prompts, replies), replies)
    best = []
    for own, rated in zip(replies, scores, strict=True):
        groups = [range(start, start + best_of) for start in range(0, len(own), best_of)]
        best.append([own[max(group, key=lambda i: rated[i])] for group in groups])
    return best


def win_means(
    oracle: Judge,
    prompts: Sequence[Messages],
    replies_a: Sequence[Sequence[Reply]],
    replies_b: Sequence[Sequence[Reply]],
    noise: float = 0.0,
    rng: random.Random | None = None,
) -> tuple[list[float], float]:
    """For each prompt how often A's replies beat B's (ties half), and the share of ties over all comparisons.

    A reply that ended inside its reasoning loses to every other, whoever judges: a rule for short replies would choose
    it.
    """
    rng = rng or random.Random(0)
    scores_a = _below_others(_scored(oracle, prompts, replies_a), replies_a)
    scores_b = _below_others(_scored(oracle, prompts, replies_b), replies_b)
    means, ties, total = [], 0, 0
    for own, others in zip(scores_a, scores_b, strict=True):
        verdicts = [noisy(compare_scores(x, y), noise, rng) for x in own for y in others]
        means.append(sum(_WORTH[verdict] for verdict in verdicts) / len(verdicts))
        ties += verdicts.count(ShownVerdict.tie)
        total += len(verdicts)
    return means, ties / total


def _below_others(scores: Sequence[Sequence[float]], replies: Sequence[Sequence[Reply]]) -> list[list[float]]:
    """The scores, at minus infinity for replies that never came to an answer."""
    return [
        [-math.inf if reply.unfinished else score for score, reply in zip(rated, own, strict=True)]
        for rated, own in zip(scores, replies, strict=True)
    ]


def answered_prompts(*replies: Sequence[Sequence[Reply]]) -> list[int]:
    """Return the indices of the prompts that every policy replied to; NotEnoughData for fewer than two."""
    refused = {i for own in replies for i, drawn in enumerate(own) if any(r.finish_reason == REFUSED for r in drawn)}
    kept = [i for i in range(len(replies[0])) if i not in refused]
    if len(kept) < 2:
        raise NotEnoughData(f"{len(kept)} of {len(replies[0])} prompts were replied to; at least 2 are needed.")
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


def sample_replies(
    policy: Replier,
    prompts: Sequence[Messages],
    samples: int,
    sampling: SamplingSettings,
    seed: int,
    batch_size: int,
    report: OnProgress,
    start: float,
) -> list[list[Reply]]:
    """Draw ``samples`` replies to each prompt, and report the progress from ``start`` on, token by token."""
    wanted = len(prompts) * samples
    pace = DrawingPace(wanted)

    def told(drawn: float, tokens: int) -> None:
        pace.look(drawn, tokens)
        report(start + 0.45 * pace.share, f"{int(drawn)} of {wanted} replies{pace.words}")

    return sample(policy, prompts, samples, sampling, seed, batch_size, on_token=told, distinct=False)


def _scored(
    scorer: Judge | Scorer, prompts: Sequence[Messages], replies: Sequence[Sequence[Reply]]
) -> list[list[float]]:
    """Each reply's score, prompt by prompt; asked for in one go, which a reward model needs to be quick."""
    flat = [(messages, reply.text) for messages, own in zip(prompts, replies, strict=True) for reply in own]
    scores = iter(scorer.score_all(flat))
    return [[next(scores) for _ in own] for own in replies]


def compare_scores(left: float, right: float) -> ShownVerdict:
    """Return which side scores higher, or a tie."""
    return {"first": ShownVerdict.left, "second": ShownVerdict.right, "tie": ShownVerdict.tie}[better(left, right)]


def interval_figures(name: str, share: Share) -> dict[str, float]:
    """Return a share and the bounds of its interval as the figures of a scorecard."""
    low, high = ("low", "high") if name == "win_rate" else (f"{name}_low", f"{name}_high")
    return {name: share.value, low: share.low, high: share.high}


def _after_and_before(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {
        f"{key}_{when}": value for when, card in (("before", before), ("after", after)) for key, value in card.items()
    }
