"""TRL's conversational preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages.

What ``trl dpo`` and ``trl reward`` read for a chat model: the trainer applies the model's own chat template.
"""

from __future__ import annotations

from collections.abc import Iterator

from feedback.formats.base.format import Export, Format, Row
from feedback.formats.trl.preference import read
from feedback.store.datasets.exports import iterate_pair_records


def rows(export: Export) -> Iterator[Row]:
    """One object per pair, with exactly the columns TRL names."""
    for pair in iterate_pair_records(export.db, export.dataset.id, split=export.split):
        yield {
            "prompt": pair.messages,
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }


FORMAT = Format(
    name="trl-conversational",
    sentence="TRL preference pairs as messages: what `trl dpo` and `trl reward` train a chat model on.",
    rows=rows,
    read=read,
)
