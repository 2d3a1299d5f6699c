"""TRL's conversational preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages.

What ``trl dpo`` and ``trl reward`` read for a chat model: the trainer applies the model's own chat template.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.db import Database
from feedback.formats.shape import Format
from feedback.store.datasets import iterate_pairs
from feedback.tables import DatasetRow


def rows(db: Database, dataset: DatasetRow) -> Iterator[dict[str, Any]]:
    """One object per pair, with exactly the columns TRL names."""
    for pair in iterate_pairs(db, dataset.id):
        yield {
            "prompt": [{"role": message.role.value, "content": message.content} for message in pair.messages],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }


FORMAT = Format(
    name="trl-conversational",
    sentence="TRL preference pairs as messages: what `trl dpo` and `trl reward` train a chat model on.",
    rows=rows,
)
