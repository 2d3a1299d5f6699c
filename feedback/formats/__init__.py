"""Outside formats, one module each, export and import side by side. A new format is one module and one line here.

Every export comes with a drop report beside it (``__reports__/FILE.json``): how many rows were left out and why.
The folder's name begins with two underscores because ``datasets.load_dataset(FOLDER)``, which ``trl`` calls, reads
every file of a folder but passes such folders over; a report lying next to the data would break that load.
Nothing exported has chosen == rejected; splits are by prompt.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from feedback import jsonl
from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.formats import arena, helpsteer3, hh, label_studio, openai_preference, raw, spreadsheet, ultrafeedback
from feedback.formats.base.format import Export, Format, Row, Side
from feedback.formats.trl import conversational, kto, preference, prompt, sft
from feedback.outputs import find_output
from feedback.store.datasets.datasets import get_dataset
from feedback.store.people.users import list_pseudonyms

__all__ = [
    "FORMATS",
    "Export",
    "ExportReport",
    "Format",
    "count_dropped",
    "export_dataset",
    "get_format",
    "import_file",
    "open_export",
    "stream_dataset",
]

REPORT_VERSION = 1

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        raw.FORMAT,
        preference.FORMAT,
        conversational.FORMAT,
        kto.FORMAT,
        sft.FORMAT,
        prompt.FORMAT,
        openai_preference.FORMAT,
        hh.FORMAT,
        ultrafeedback.FORMAT,
        helpsteer3.FORMAT,
        arena.FORMAT,
        label_studio.FORMAT,
        spreadsheet.FORMAT,
    )
}


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and what of the dataset's judgments it left out."""

    path: Path
    rows: int
    dropped: dict[str, int]
    report: Path | None


def get_format(name: str) -> Format:
    """The format of this name; InvalidInput lists the valid ones."""
    if name not in FORMATS:
        raise InvalidInput(f"{name!r} is not a format; valid: {', '.join(FORMATS)}.")
    return FORMATS[name]


def open_export(db: Database, dataset_key: str, format: str, split: str | None = None) -> tuple[Export, Format]:
    """An export that is ready to be read; an unknown dataset, format or split is refused here."""
    chosen = get_format(format)
    if split not in (None, *get_args(Side)):
        raise InvalidInput(f"{split!r} is not a side of a dataset; valid: train, test, or none for both.")
    dataset = get_dataset(db, dataset_key)
    return Export(db, dataset, cast(Side | None, split), Counter(chosen.dropped(dataset))), chosen


def stream_dataset(db: Database, dataset_key: str, format: str, split: str | None = None) -> Iterator[str]:
    """A dataset in a format, line by line in constant memory. Unknown names are refused before the first line."""
    export, chosen = open_export(db, dataset_key, format, split)
    return chosen.lines(chosen.rows(export))


def export_dataset(db: Database, dataset_key: str, format: str, out: Path, split: str | None = None) -> ExportReport:
    """Write a dataset, or one side of its split, in a format; beside a file lies its drop report.

    ``out`` may be whatever ``feedback.outputs`` can write; beside what is no file, as a pipe, lies nothing.
    """
    is_file = find_output(out).is_file
    export, chosen = open_export(db, dataset_key, format, split)
    counted = _Counted(chosen.rows(export))
    lines = chosen.lines(counted)
    frame = chosen.frames.get(Path(out.name.removesuffix(".gz")).suffix)
    jsonl.write_lines(out, frame(lines) if frame else lines)
    dropped = _told(export)
    report = _write_report(export, format, out, counted.number, dropped) if is_file else None
    return ExportReport(out, counted.number, dropped, report)


def count_dropped(db: Database, dataset_key: str, format: str, split: str | None = None) -> dict[str, int]:
    """The drop report of an export before its first line is sent: every row is made once, and none is kept."""
    export, chosen = open_export(db, dataset_key, format, split)
    deque(chosen.rows(export), maxlen=0)
    return _told(export)


def _told(export: Export) -> dict[str, int]:
    return dict(sorted((reason, count) for reason, count in export.dropped.items() if count))


class _Counted:
    """Rows on their way through, counted: a row is not always a line."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.number = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.number += 1
            yield row


def import_file(db: Database, path: Path, format: str) -> dict[str, int]:
    """Read a file into the store, all of it or nothing; gives counts of what was added and what was there.

    Raises InvalidInput for a format that cannot be imported, InvalidLine with the number of a line that is wrong.
    """
    chosen = get_format(format)
    if chosen.read is None:
        readable = [entry.name for entry in FORMATS.values() if entry.read is not None]
        raise InvalidInput(f"The format {format!r} can only be exported; import takes: {', '.join(readable)}.")
    return chosen.read(db, path)


def _write_report(export: Export, format: str, out: Path, rows: int, dropped: dict[str, int]) -> Path:
    dataset = export.dataset
    pseudonyms = list_pseudonyms(export.db)
    annotators = [pseudonyms.get(name, name) for name in dataset.filters.get("annotators", ())]
    report = {
        "report_version": REPORT_VERSION,
        "format": format,
        "split": export.split or "both",
        "rows": rows,
        "dropped": dropped,
        "dataset": {"id": dataset.id, "name": dataset.name, "hash": dataset.hash, "counts": dataset.counts},
        "filters": {**dataset.filters, "annotators": annotators},
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    path = out.parent / "__reports__" / f"{out.name}.json"
    jsonl.write_lines(path, [text])
    return path
