"""The preference format of OpenAI's fine-tuning, read by Azure, Fireworks and Together too.

``input`` holds the messages, ``preferred_output`` and ``non_preferred_output`` one assistant message each. Unknown
keys are refused there, so there are no ids here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row
from feedback.formats.base.importing import Incoming, ignored, read_votes, replies_after
from feedback.store.datasets.exports import iterate_pair_records


def rows(export: Export) -> Iterator[Row]:
    """One object per pair."""
    for pair in iterate_pair_records(export.db, export.dataset.id, split=export.split):
        yield {
            "input": {"messages": pair.messages},
            "preferred_output": [{"role": "assistant", "content": pair.chosen}],
            "non_preferred_output": [{"role": "assistant", "content": pair.rejected}],
        }


def read(db: Database, path: Path) -> dict[str, int]:
    """Pairs as imported judgments. Tools have no place here: a line that declares some is read without them, and
    counted.
    """
    return read_votes(db, path, _incoming, known=("input", "preferred_output", "non_preferred_output"))


def _incoming(fields: Row) -> Incoming:
    asked = fields["input"]
    vote = replies_after(asked["messages"], fields["preferred_output"], fields["non_preferred_output"])
    return replace(vote, counted=ignored(asked, ("messages",)))


FORMAT = Format(
    name="openai-preference",
    sentence="Preference pairs for OpenAI's fine-tuning, and for Azure, Fireworks and Together.",
    rows=rows,
    read=read,
)
