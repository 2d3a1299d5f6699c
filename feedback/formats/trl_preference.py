"""TRL's standard preference format: plain texts ``prompt``, ``chosen``, ``rejected``.

For base models without a chat template. A prompt of several turns is written out with a role before each turn,
since one string has no other way to say who spoke; chat models are better served by ``trl-conversational``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from feedback.db import Database
from feedback.formats.shape import Format
from feedback.store.datasets import iterate_pairs
from feedback.tables import DatasetRow
from feedback.types import Message


def rows(db: Database, dataset: DatasetRow) -> Iterator[dict[str, Any]]:
    """One object per pair, with exactly the columns TRL names."""
    for pair in iterate_pairs(db, dataset.id):
        yield {
            "prompt": as_text(pair.messages),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }


def as_text(messages: Sequence[Message]) -> str:
    """A conversation as one string: a lone user message as it is, several turns with their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role.value.capitalize()}: {message.content}" for message in messages)


FORMAT = Format(
    name="trl-preference",
    sentence="TRL preference pairs as plain texts: prompt, chosen, rejected.",
    rows=rows,
)
