"""A paired comparison beside the harness's own comparator, on the same items: who finds what is there?

    python -m tests.benchmarks.paired [--draws 2000]

lm-evaluation-harness compares two models by z = (mean - mean) / sqrt(error² + error²), with the errors that it reports
of each (its ``scripts/model_comparator.py``). Here both tests see the same drawn items: policy A lost a few that B
gets right, won fewer back, and the rest both get right or both get wrong. Printed is in how many of the draws each
says that they differ, once where they do and once where they do not.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy import stats

from training.evaluation.paired_tests import LEVEL, paired

WORLDS = (
    ("220 items, 8 won, 24 lost of 220", 220, 8 / 220, 24 / 220),
    ("600 items, 1 % won, 3 % lost", 600, 0.01, 0.03),
    ("1000 items, 2 % won, 5 % lost", 1000, 0.02, 0.05),
    ("600 items, nothing changed, 3 % differ", 600, 0.015, 0.015),
)
BOTH_RIGHT = 0.7
"""Of the items on which the two agree, the share both get right."""


def unpaired(a: list[float], b: list[float]) -> float:
    """The two-sided p-value of the harness's comparator."""
    squared_errors = sum(np.var(scores, ddof=1) / len(scores) for scores in (a, b))
    return float(2 * stats.norm.sf(abs(np.mean(a) - np.mean(b)) / math.sqrt(squared_errors)))


def drawn(rng: np.random.Generator, n: int, won: float, lost: float) -> tuple[list[float], list[float]]:
    """The scores of A and B on n items."""
    agreed = 1 - won - lost
    return in_order(*map(int, rng.multinomial(n, [won, lost, agreed * BOTH_RIGHT, agreed * (1 - BOTH_RIGHT)])))


def in_order(up: int, down: int, right: int, wrong: int) -> tuple[list[float], list[float]]:
    """The scores of both, item by item, from how many of each kind there are."""
    a = [1.0] * up + [0.0] * down + [1.0] * right + [0.0] * wrong
    b = [0.0] * up + [1.0] * down + [1.0] * right + [0.0] * wrong
    return a, b


def main() -> None:
    """Draw, test both ways, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    a, b = in_order(8, 24, 137, 51)
    found_by = f"unpaired p = {unpaired(a, b):.3f}, paired p = {paired(a, b).p_value:.3f}"
    print(f"one case, 220 items, 8 won and 24 lost: {found_by}")
    print(f"{'':40} unpaired  paired")
    for name, n, won, lost in WORLDS:
        rng = np.random.default_rng(n)
        found = np.zeros(2)
        for _ in range(draws):
            scores = drawn(rng, n, won, lost)
            found += unpaired(*scores) < LEVEL, paired(*scores).p_value < LEVEL
        print(f"{name:40} {100 * found[0] / draws:6.1f} %  {100 * found[1] / draws:5.1f} %")


if __name__ == "__main__":
    main()
