"""TRL's standard preference format: plain texts ``prompt``, ``chosen``, ``rejected``.

For base models without a chat template. A prompt of several turns is written out with a role before each turn,
since one string has no other way to say who spoke; chat models are better served by ``trl-conversational``.
A file that is read may hold either kind of prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row, as_text
from feedback.formats.base.importing import Incoming, read_votes, replies_after
from feedback.store.datasets.exports import iterate_pair_records


def rows(export: Export) -> Iterator[Row]:
    """One object per pair, with exactly the columns TRL names."""
    for pair in iterate_pair_records(export.db, export.dataset.id, split=export.split):
        yield {"prompt": as_text(pair.messages), "chosen": pair.chosen, "rejected": pair.rejected}


def read(db: Database, path: Path) -> dict[str, int]:
    """Pairs as imported judgments: texts or messages, with the prompt in a column of its own or in both replies."""
    return read_votes(db, path, preference, known=("prompt", "chosen", "rejected"))


def preference(fields: Row) -> Incoming:
    """A line of any of TRL's preference layouts."""
    return replies_after(fields.get("prompt"), fields["chosen"], fields["rejected"])


FORMAT = Format(
    name="trl-preference",
    sentence="TRL preference pairs as plain texts: prompt, chosen, rejected.",
    rows=rows,
    read=read,
)
