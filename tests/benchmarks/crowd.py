"""A crowd of twenty of known character judges 600 pairs: who is seen through, and what is that worth to training?

    python -m tests.benchmarks.crowd [--matchups 600] [--overlap 3] [--seeds 3] [--home DIR]

Eight good annotators, four noisy ones, two each that always choose left, that take the longer reply, that choose at
random, that answer before they can have read. The truth is the starter's style axis *warm* over replies written by the
starter's own corpus. Prints the report's line of everybody, then the accuracy on held-out truth of reward models that
were trained on the same judgments without and with the reliability weights, with the interval of the difference
(bootstrap over the held-out pairs of the mean over seeds).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy

from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.quality import report as quality
from feedback.quality.report import QualityReport
from feedback.store.content import generations, prompts
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.types import DatasetFilters, Generation, Matchup, Policy, PreferencePair, Prompt, Weighting
from tests.crowd import judge_all, make_crowd
from training.bundled import STARTER_BASE
from training.home import Home
from training.methods.reward import train_reward
from training.models.scoring import reward_scores
from training.reporting.reporter import LocalProgress
from training.settings.reward import RewardSettings
from training.starter.axes import AXES
from training.starter.corpus import requests
from training.starter.text.composition import compose, draw_style

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
GOLD = 30
Pair = tuple[str, str, str]


def warm(messages: Sequence[dict[str, str]], reply: str) -> float:
    """The truth."""
    return AXES["warm"].score(messages[-1]["content"], reply)


def draw_pairs(count: int, seed: int, *, evaluation: bool) -> list[Pair]:
    """Requests with two replies of different warmth each."""
    rng = Random(f"crowd-{seed}-{evaluation}")
    pairs: list[Pair] = []
    for draft in requests(seed, 4 * count, evaluation=evaluation):
        texts = [compose(draft, draw_style(rng), rng)[0] for _ in range(2)]
        messages = [{"role": "user", "content": draft.prompt}]
        if warm(messages, texts[0]) != warm(messages, texts[1]):
            pairs.append((draft.prompt, texts[0], texts[1]))
        if len(pairs) == count:
            break
    return pairs


def fill(db: Database, pairs: Sequence[Pair], overlap: int) -> None:
    """The pool: the first thirty pairs as gold, the others for the crowd."""
    policy = policies.save_policy(db, Policy(name="writer", base=STARTER_BASE))
    policies.promote_policy(db, policy.id)
    asked = [Prompt(messages=[{"role": "user", "content": prompt}]) for prompt, _, _ in pairs]
    ids = prompts.save_prompts(db, asked).ids
    replies = [
        Generation(prompt_id=ids[at], policy_id=policy.id, text=text, seed=at)
        for at, (_, *texts) in enumerate(pairs)
        for text in texts
    ]
    rows = generations.save_generations(db, replies)
    pool = [
        Matchup(
            prompt_id=ids[at], generation_ids=[rows[2 * at].id, rows[2 * at + 1].id], required=overlap,
            max_required=overlap,
        )
        for at in range(len(pairs))
    ]  # fmt: skip
    saved = matchups.save_matchups(db, pool)
    for at in range(GOLD):
        prompt, first, second = pairs[at]
        messages = [{"role": "user", "content": prompt}]
        answer = "first" if warm(messages, first) > warm(messages, second) else "second"
        matchups.save_gold(db, saved[at].id, {"verdict": answer})


def accuracies(home: Home, pairs: Sequence[PreferencePair], held_out: Sequence[Pair], seed: int) -> numpy.ndarray:
    """Train a reward model; per held-out pair 1 where it scores the truly warmer reply higher."""
    settings = RewardSettings(dataset="crowd", seed=seed)
    with tempfile.TemporaryDirectory(dir=home.path) as folder:
        reward = train_reward(STARTER_BASE, pairs, settings, Path(folder), LocalProgress()).reward
    exchanges = [([{"role": "user", "content": p}], text) for p, *texts in held_out for text in texts]
    scores = numpy.array(reward_scores(reward, exchanges)).reshape(-1, 2)
    truth = numpy.array([warm(messages, text) for messages, text in exchanges]).reshape(-1, 2)
    return ((scores[:, 0] > scores[:, 1]) == (truth[:, 0] > truth[:, 1])).astype(float)


def show_people(report: QualityReport) -> None:
    """The report's lines, the least reliable first."""
    print(f"agreement {report.agreement.value:.3f}, alpha {report.alpha.value:.3f}\n")
    print("| annotator | judgments | right | left | longer | same again | gold | flags |")
    print("|---|---|---|---|---|---|---|---|")
    for line in report.annotators:
        figures = (line.accuracy, line.left, line.longer, line.consistency, line.gold)
        cells = ["—" if m.value is None else f"{m.value:.2f}" for m in figures]
        print(f"| {line.name} | {line.judgments} | {' | '.join(cells)} | {', '.join(line.flags)} |")


def compare(db: Database, home: Home, held_out: Sequence[Pair], seeds: int) -> dict[str, Any]:
    """Train both ways per seed and say what the weights are worth."""
    means = {}
    for weighting in Weighting:
        row = freeze.freeze(db, f"crowd-{weighting.value}", DatasetFilters(test_share=0.0, weighting=weighting))
        pairs = dataset_store.list_pairs(db, row.id, split="train")
        right = [_is_right(pair) for pair in pairs]
        weights = [pair.weight for pair in pairs]
        print(
            f"{weighting.value}: {len(pairs)} pairs, {numpy.mean(right):.3f} of them true, "
            f"{numpy.average(right, weights=weights):.3f} by weight"
        )
        runs = [accuracies(home, pairs, held_out, seed) for seed in range(seeds)]
        print(f"  accuracy per seed: {', '.join(f'{run.mean():.3f}' for run in runs)}", flush=True)
        means[weighting] = numpy.mean(runs, axis=0)
    gain = means[Weighting.reliability] - means[Weighting.none]
    rng = numpy.random.default_rng(0)
    drawn = [gain[rng.integers(0, len(gain), len(gain))].mean() for _ in range(2000)]
    low, high = numpy.percentile(drawn, [2.5, 97.5])
    return {"gain": float(gain.mean()), "low": float(low), "high": float(high)}


def _is_right(pair: PreferencePair) -> bool:
    messages = [{"role": "user", "content": pair.messages[-1].content}]
    return warm(messages, pair.chosen) > warm(messages, pair.rejected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--matchups", type=int, default=600)
    parser.add_argument("--overlap", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3, help="reward models per kind; 0 trains none")
    parser.add_argument("--home", type=Path, help="keep the home there, to look at it on the Review tab")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(options.home or Path(folder)).create()
        db = home.open()
        began = time.perf_counter()
        fill(db, draw_pairs(options.matchups + GOLD, 1, evaluation=False), options.overlap)
        made = judge_all(db, make_crowd(), warm, start=START)
        print(f"{made} judgments in {time.perf_counter() - began:.0f} s")
        show_people(quality.report(db))
        if options.seeds:
            found = compare(db, home, draw_pairs(options.held_out, 2, evaluation=True), options.seeds)
            print(f"\nweights: {found['gain']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] accuracy on truth")
        db.dispose()


if __name__ == "__main__":
    main()
