"""Shell commands in messages, said as the place on the page where the same is done.

The errors of the product are written for every door, and name the command. Whoever reads one on the page has no shell.
"""

from __future__ import annotations

import re

_PLACES = {
    "rounds": "the Overview tab",
    "runs": "the Train tab",
    "train": "the Train tab",
    "policies add": "“Add a model” on the Policies tab",
    "policies check": "“Add a model” on the Policies tab",
    "policies": "the Policies tab",
    "evaluate": "“Measure win rate” on the Policies tab",
    "benchmark": "“Take benchmarks” on the Policies tab",
    "generate": "“Fill the pool” on the Label tab",
    "dataset": "the Datasets tab",
    "export": "the Datasets tab",
    "review": "the Review tab",
    "users": "the People tab",
}
"""A command stands before its own beginning. What is not here can be done in a shell alone, and keeps its command."""

_COMMAND = re.compile(r"(^|[.:] +)?`studio (" + "|".join(_PLACES) + r")\b[^`]*`")


def on_the_page(text: str) -> str:
    """A message with the places of the page in the stead of commands that it has a place for."""

    def place(found: re.Match[str]) -> str:
        before, words = found[1] or "", _PLACES[found[2]]
        starts = found.start() == 0 or before.startswith(".")
        return before + (words[0].upper() + words[1:] if starts else words)

    return _COMMAND.sub(place, text)
