"""What it costs to look at people's judgments while they come in: how often two equal policies seem decided.

python -m tests.benchmarks.peeking
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

from training.evaluation.intervals import clustered_trials, evidence_at_any_time

PAIRS, TIES, DRAWS = 150, 0.2, 1000
CLEAR = 20.0


def judged(rng: random.Random, share: float) -> list[float]:
    """What people say of one policy beside another: one score for each prompt."""
    return [0.5 if rng.random() < TIES else float(rng.random() < share) for _ in range(PAIRS)]


def excludes_half(scores: Sequence[float]) -> bool:
    """Whether the 95 % interval for so many prompts says that one is better."""
    share = clustered_trials(scores, [1] * len(scores))
    return share.low > 0.5 or share.high < 0.5


def first_clear(scores: Sequence[float]) -> int | None:
    """After how many judgments the evidence that may be looked at whenever is clear; None if it never is."""
    return next((n for n in range(1, len(scores)) if evidence_at_any_time(scores[:n]) >= CLEAR), None)


def main() -> None:
    """Print both tables."""
    rng = random.Random(1)
    equal = [judged(rng, 0.5) for _ in range(DRAWS)]
    at_any_look = sum(any(excludes_half(scores[:n]) for n in range(2, PAIRS + 1)) for scores in equal)
    at_the_end = [excludes_half(scores) for scores in equal]
    early = [first_clear(scores) is not None for scores in equal]
    either = sum(map(max, at_the_end, early))
    print(f"equal policies called unequal: {at_any_look / DRAWS:.1%} by the interval at any look, ", end="")
    print(f"{sum(at_the_end) / DRAWS:.1%} by the interval at the end, {either / DRAWS:.1%} by the gate")
    for share in (0.6, 0.7, 0.8):
        found = [first_clear(judged(rng, share)) for _ in range(DRAWS // 4)]
        when = [n for n in found if n is not None]
        print(f"{share:.0%} preferred: decided early in {len(when) / len(found):.0%}", end="")
        print(f", after {median(when):.0f} of {PAIRS} judgments" if when else "")


if __name__ == "__main__":
    main()
