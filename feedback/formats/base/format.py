"""What a format is: how a frozen dataset becomes rows and lines, and how a file becomes judgments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from feedback import jsonl
from feedback.database.engine import Database
from feedback.datasets.freeze import split_of
from feedback.store.datasets.exports import Messages, PromptRecord, iterate_prompt_records
from feedback.tables import DatasetRow

Row = dict[str, Any]
Side = Literal["train", "test"]

_BY_FREEZING = ("tie", "both_bad", "skip", "conflict", "below_agreement", "identical", "duplicate", "undecided")


@dataclass
class Export:
    """One export under way: what is read, which side of the split is wanted (None: both), and what is left out.

    ``dropped`` holds what freezing left out as far as it concerns the format; rows add what the format itself
    cannot say, so it is whole only when the last row has been taken.
    """

    db: Database
    dataset: DatasetRow
    split: Side | None = None
    dropped: Counter[str] = field(default_factory=Counter)

    def prompts(self) -> Iterator[PromptRecord]:
        """The judged prompts of the wanted side, with all that was said of their replies."""
        for prompt in iterate_prompt_records(self.db, self.dataset.id):
            if self.split is None or self.side_of(prompt.content_hash) == self.split:
                yield prompt

    def side_of(self, prompt_hash: str) -> Side:
        """Which side of the dataset's split a prompt lies on."""
        filters = self.dataset.filters
        return split_of(prompt_hash, filters["test_share"], filters["split_seed"])


def dropped_in_derivation(dataset: DatasetRow) -> dict[str, int]:
    """The drops of a format that exports pairs: all that freezing left out."""
    return dataset.dropped


def dropped_by_filters(dataset: DatasetRow) -> dict[str, int]:
    """The drops of a format that exports judgments: what the filters refused. A tie is a judgment like any other."""
    return {reason: count for reason, count in dataset.dropped.items() if reason not in _BY_FREEZING}


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """One JSON object per line."""
    return (jsonl.dump_line(row) for row in rows)


@dataclass(frozen=True)
class Format:
    """One outside format. ``read`` is None where files of this kind cannot be imported."""

    name: str
    sentence: str
    rows: Callable[[Export], Iterator[Row]]
    read: Callable[[Database, Path], dict[str, int]] | None = None
    dropped: Callable[[DatasetRow], dict[str, int]] = dropped_in_derivation
    lines: Callable[[Iterable[Row]], Iterator[str]] = json_lines
    extension: str = "jsonl"
    media_type: str = "application/x-ndjson"
    # How a file is framed whose name has one of these endings; any other is the lines as they are.
    frames: Mapping[str, Callable[[Iterable[str]], Iterator[str]]] = field(default_factory=dict)


def as_text(messages: Messages) -> str:
    """A conversation as one string: a lone user message as it is, several turns with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
