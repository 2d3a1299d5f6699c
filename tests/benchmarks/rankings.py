"""Reward models from rankings of four beside reward models from pairs: how many prompts each needs.

    python -m tests.benchmarks.rankings [--oracle warm] [--prompts 40,80,160] [--seeds 2]

The starter replies four times to each work prompt. An oracle ranks the four, or judges the first two. Reward models are
trained with their defaults on growing numbers of prompts, and are right on the share printed of fresh pairs of replies
to held-out prompts. The last lines say how many prompts pairs need, by interpolation over the logarithm of their
number, to be as right as rankings are.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from feedback.datasets.examples import Ranking
from feedback.types import Message
from training.bundled import STARTER_BASE
from training.evaluation.reward_accuracy import reward_figures
from training.generation.sampling import sample
from training.methods.reward import train_reward
from training.models.loading import LoadedPolicy, load_base
from training.reporting.reporter import LocalProgress
from training.rewards.oracles import Judge, get_oracle
from training.settings.reward import RewardSettings

PROMPTS = Path("assets/prompts")
REPLIES = 4


def load_prompts(name: str) -> list[list[dict[str, str]]]:
    """The shipped prompts of one file."""
    lines = (PROMPTS / f"{name}.jsonl").read_text().splitlines()
    return [row["messages"] for row in map(json.loads, lines)]


def rank(oracle: Judge, messages: Sequence[dict[str, str]], replies: Sequence[str], number: int) -> Ranking | None:
    """The oracle's ranking of replies; None where it cannot tell any of them apart."""
    scores = oracle.score_all([(messages, reply) for reply in replies])
    if len(set(scores)) == 1:
        return None
    return Ranking(
        prompt_id=str(number),
        matchup_id=str(number),
        messages=tuple(Message.model_validate(dict(message)) for message in messages),
        replies=tuple(replies),
        ranks=tuple(1 + sum(other > score for other in scores) for score in scores),
    )


def accuracy(rankings: Sequence[Ranking], held_out: Any, oracle: Judge, seed: int) -> tuple[float, float, float]:
    """How often a reward model trained on rankings is right on held-out pairs, what length knows, and seconds."""
    settings = RewardSettings(dataset="benchmark", rankings=True, seed=seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        outcome = train_reward(STARTER_BASE, [], settings, Path(directory), LocalProgress(), rankings=rankings)
    figures = reward_figures(outcome.reward, oracle, held_out)
    return figures["accuracy"], figures["length_only_accuracy"], time.perf_counter() - began


def needed(curve: Sequence[tuple[int, float]], wanted: float) -> str:
    """How many prompts a rising curve of (prompts, accuracy) needs for an accuracy."""
    for (low, below), (high, above) in pairwise(curve):
        if below < wanted <= above:
            share = (wanted - below) / (above - below)
            return f"{math.exp(math.log(low) + share * math.log(high / low)):.0f}"
    return f"at most {curve[0][0]}" if wanted <= curve[0][1] else f"more than {curve[-1][0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--oracle", default="warm")
    parser.add_argument("--prompts", default="40,80,160")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    counts = [int(count) for count in options.prompts.split(",")]
    oracle = get_oracle(options.oracle)
    policy = LoadedPolicy(*load_base(STARTER_BASE), STARTER_BASE)
    work, evaluation = load_prompts("work")[: 2 * max(counts)], load_prompts("evaluation")
    drawn = [[reply.text for reply in own] for own in sample(policy, work, REPLIES, seed=1)]
    fresh = [
        (messages, own[0].text, own[1].text)
        for messages, own in zip(evaluation, sample(policy, evaluation, 2, seed=2), strict=True)
    ]
    curves: dict[str, list[tuple[int, float]]] = {"pairs": [], "rankings of 4": []}
    print(
        "| judged | prompts | right on held-out pairs | by seed | length alone | seconds |\n|---|---|---|---|---|---|"
    )
    for name, size, ladder in (("rankings of 4", REPLIES, counts), ("pairs", 2, [*counts, 2 * counts[-1]])):
        for count in ladder:
            made = [rank(oracle, work[i], drawn[i][:size], i) for i in range(min(count, len(work)))]
            found = [accuracy([one for one in made if one], fresh, oracle, seed) for seed in range(options.seeds)]
            mean = fmean(right for right, _, _ in found)
            curves[name].append((count, mean))
            seeds = " ".join(f"{100 * right:.1f}" for right, _, _ in found)
            seconds = fmean(took for _, _, took in found)
            length = 100 * found[0][1]
            print(f"| {name} | {count} | {100 * mean:.1f} % | {seeds} | {length:.1f} % | {seconds:.0f} |", flush=True)
    for count, right in curves["rankings of 4"]:
        print(f"rankings of {count} prompts: as right as pairs of {needed(curves['pairs'], right)} prompts")


if __name__ == "__main__":
    main()
