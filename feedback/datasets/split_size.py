"""What the split of a dataset came to, in words: the share that was asked for, and whether the test side says anything.

A prompt lies on one side by its own hash, so that it lies there in every dataset; of few prompts the sides can be far
from what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

FEW_TEST_PAIRS = 30
"""Below so many pairs the 95 % interval of an accuracy is wider than a third: it hardly tells a model from chance."""

_FAR = 0.02
"""A share that is off by less is what was asked for."""


def split_notes(counts: Mapping[str, int], test_share: float) -> list[str]:
    """What is to be known of a split before anything is measured on it; empty where nothing is.

    ``counts`` are those of a dataset: pairs, train, test.
    """
    pairs, train, test = (counts.get(name, 0) for name in ("pairs", "train", "test"))
    if not pairs:
        return []
    notes = []
    got = test / pairs
    if abs(got - test_share) >= _FAR:
        words = f"Test share: asked {_percent(test_share)}, got {_percent(got)} ({test:,} of {pairs:,} pairs)"
        notes.append(f"{words}; the side of a prompt is fixed by its content and the split seed.")
    if test_share > 0 and test < FEW_TEST_PAIRS:
        are = "pair is" if test == 1 else "pairs are"
        words = f"Only {test:,} {are} kept for testing; an accuracy on fewer than {FEW_TEST_PAIRS} says little."
        notes.append(f"{words} Judge more, ask for a larger test share, or take another split seed.")
    if test_share == 0:
        notes.append("No pair is kept for testing, so a reward model trained on this cannot be measured.")
    if not train:
        notes.append("No pair is left to train on.")
    return notes


def few_pairs_note(pairs: int) -> str:
    """What is said beside an accuracy that was measured on few pairs; empty where there are enough."""
    if pairs >= FEW_TEST_PAIRS:
        return ""
    told = f"measured on {pairs:,} test pair{'' if pairs == 1 else 's'} only"
    return f"{told}: fewer than {FEW_TEST_PAIRS} say little"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
