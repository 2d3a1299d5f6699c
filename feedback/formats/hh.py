"""The format of Anthropic's helpful-harmless data: ``chosen`` and ``rejected`` as whole transcripts.

A turn begins with a blank line and ``Human:`` or ``Assistant:``; both transcripts share everything but the last turn.
A system message stands before the first turn. A text that itself holds such a marker cannot be told from a turn,
so its pair is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row
from feedback.formats.base.importing import Incoming, LeftOut, Refused, read_votes
from feedback.store.datasets.exports import Messages, iterate_pair_records

_SPEAKERS = {"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
_ROLES = {"Human": "user", "Assistant": "assistant"}
_MARKER = re.compile(r"\n\n(Human|Assistant):")


def rows(export: Export) -> Iterator[Row]:
    """One object per pair whose texts hold no marker."""
    for pair in iterate_pair_records(export.db, export.dataset.id, split=export.split):
        texts = [message["content"] for message in pair.messages]
        if any(_MARKER.search(text) for text in (*texts, pair.chosen, pair.rejected)):
            export.dropped["turn_marker_in_text"] += 1
            continue
        asked = "".join(_SPEAKERS[message["role"]] + message["content"] for message in pair.messages)
        yield {
            "chosen": f"{asked}{_SPEAKERS['assistant']}{pair.chosen}",
            "rejected": f"{asked}{_SPEAKERS['assistant']}{pair.rejected}",
        }


def read(db: Database, path: Path) -> dict[str, int]:
    """Pairs as imported judgments; pairs whose transcripts part before the last turn are left out and counted."""
    return read_votes(db, path, _incoming, known=("chosen", "rejected"))


def _incoming(fields: Row) -> Incoming:
    chosen, rejected = _turns(fields["chosen"], "chosen"), _turns(fields["rejected"], "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise LeftOut("different_conversations")
    return Incoming(chosen[:-1], (chosen[-1]["content"], rejected[-1]["content"]))


def _turns(transcript: str, column: str) -> Messages:
    if not isinstance(transcript, str):
        raise Refused(f"{column} must be a transcript, not {type(transcript).__name__}")
    before, *parts = _MARKER.split(transcript)
    turns = [{"role": "system", "content": before}] if before.strip() else []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        turns.append({"role": _ROLES[speaker], "content": text.removeprefix(" ")})
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise Refused(f"{column} must end with a turn of the Assistant after one of the Human")
    return turns


FORMAT = Format(
    name="hh",
    sentence="Whole transcripts, as in Anthropic's helpful-harmless data.",
    rows=rows,
    read=read,
)
