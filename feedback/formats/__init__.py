"""Outside formats, one module each, export and import side by side. A new format is one module and one line here.

Every export comes with a drop report beside it (``__reports__/FILE.json``): how many rows were left out and why.
The folder's name begins with two underscores because ``datasets.load_dataset(FOLDER)``, which ``trl`` calls, reads
every file of a folder but passes such folders over; a report lying next to the data would break that load.
Nothing exported has chosen == rejected; splits are by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feedback import jsonl
from feedback.db import Database
from feedback.errors import InvalidInput
from feedback.formats import raw, trl_conversational, trl_preference
from feedback.formats.shape import Format
from feedback.store.datasets import get_dataset
from feedback.store.users import list_pseudonyms
from feedback.tables import DatasetRow

__all__ = ["FORMATS", "ExportReport", "export_dataset", "get_format", "import_file", "stream_dataset"]

REPORT_VERSION = 1

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        raw.FORMAT,
        trl_preference.FORMAT,
        trl_conversational.FORMAT,
    )
}


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and what of the dataset's judgments it left out."""

    path: Path
    rows: int
    dropped: dict[str, int]
    report: Path


def get_format(name: str) -> Format:
    """The format of this name; InvalidInput lists the valid ones."""
    if name not in FORMATS:
        raise InvalidInput(f"{name!r} is not a format; valid: {', '.join(FORMATS)}.")
    return FORMATS[name]


def stream_dataset(db: Database, dataset_key: str, format: str) -> Iterator[str]:
    """A dataset in a format, line by line in constant memory. Unknown names are refused before the first line."""
    chosen = get_format(format)
    dataset = get_dataset(db, dataset_key)
    return (jsonl.dump_line(row) for row in chosen.rows(db, dataset))


def export_dataset(db: Database, dataset_key: str, format: str, out: Path) -> ExportReport:
    """Write a dataset to a file in a format, with its drop report beside it."""
    dataset = get_dataset(db, dataset_key)
    rows = jsonl.write_lines(out, stream_dataset(db, dataset.id, format))
    dropped = get_format(format).dropped(dataset)
    report = _write_report(dataset, format, out, rows, dropped, list_pseudonyms(db))
    return ExportReport(out, rows, dropped, report)


def import_file(db: Database, path: Path, format: str) -> dict[str, int]:
    """Read a file into the store, all of it or nothing; gives counts of what was added and what was there.

    Raises InvalidInput for a format that cannot be imported, InvalidLine with the number of a line that is wrong.
    """
    chosen = get_format(format)
    if chosen.read is None:
        readable = [entry.name for entry in FORMATS.values() if entry.read is not None]
        raise InvalidInput(f"The format {format!r} can only be exported; import takes: {', '.join(readable)}.")
    return chosen.read(db, path)


def _write_report(
    dataset: DatasetRow, format: str, out: Path, rows: int, dropped: dict[str, int], pseudonyms: dict[str, str]
) -> Path:
    annotators = [pseudonyms.get(name, name) for name in dataset.filters.get("annotators", ())]
    report = {
        "report_version": REPORT_VERSION,
        "format": format,
        "rows": rows,
        "dropped": dropped,
        "dataset": {"id": dataset.id, "name": dataset.name, "hash": dataset.hash, "counts": dataset.counts},
        "filters": {**dataset.filters, "annotators": annotators},
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    path = out.parent / "__reports__" / f"{out.name}.json"
    jsonl.write_lines(path, [text])
    return path
