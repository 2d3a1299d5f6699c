"""CSV for people: every judgment as a row, as its judge saw it, safe to open in a spreadsheet.

A cell that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break, or a
full-width form of them) is given a ``'`` in front. That changes the text, so nothing reads this format back: it is
for eyes, ``raw`` is for machines. A ranking is written as its pairs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from feedback.formats.base.format import Export, Format, Row, as_text, dropped_by_filters
from feedback.formats.base.pairwise import PairOfReplies, judged_pairs
from feedback.store.datasets.exports import PromptRecord
from feedback.store.people.users import list_pseudonyms
from feedback.types import Verdict

COLUMNS = (
    "judgment",
    "judged_at",
    "annotator",
    "source",
    "split",
    "prompt",
    "left",
    "right",
    "verdict",
    "strength",
    "rationale",
    "edited",
    "policy_left",
    "policy_right",
)
_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")


def rows(export: Export) -> Iterator[Row]:
    """One row per judgment of two replies, skips included."""
    names = list_pseudonyms(export.db)
    for prompt in export.prompts():
        for pair in judged_pairs(prompt, export):
            yield from _rows_of(prompt, pair, export.side_of(prompt.content_hash), names)


def _rows_of(prompt: PromptRecord, pair: PairOfReplies, split: str, pseudonyms: dict[str, str]) -> Iterator[Row]:
    for (verdict, vote), is_swapped in zip(pair.votes, pair.is_swapped, strict=True):
        left, right = (1, 0) if is_swapped else (0, 1)
        if verdict in (Verdict.first, Verdict.second):
            said = "left" if (verdict is Verdict.second) == is_swapped else "right"
        else:
            said = verdict.value
        yield {
            "judgment": vote.id,
            "judged_at": vote.at.isoformat(timespec="seconds"),
            "annotator": pseudonyms.get(vote.annotator, vote.annotator),
            "source": vote.source.value,
            "split": split,
            "prompt": as_text(prompt.messages),
            "left": pair.texts[left],
            "right": pair.texts[right],
            "verdict": said,
            "strength": vote.strength,
            "rationale": vote.skip_reason or vote.rationale,
            "edited": vote.edited and vote.edited["text"],
            "policy_left": pair.policies[left],
            "policy_right": pair.policies[right],
        }


def safe_cell(value: object) -> object:
    """A value no spreadsheet runs: texts that begin like a formula, even after spaces, get a ``'`` in front."""
    if isinstance(value, str) and (value.startswith(_FORMULA_STARTS) or value.lstrip().startswith(_FORMULA_STARTS)):
        return f"'{value}"
    return value


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """The header, then one record per row; a record may span several lines, quoted."""
    buffer = io.StringIO()
    # Everything quoted: left to itself the writer does not quote a lone carriage return, which readers break at.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for row in rows:
        yield _taken(buffer)
        writer.writerow([safe_cell(row[column]) for column in COLUMNS])
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


FORMAT = Format(
    name="csv",
    sentence="A spreadsheet for people: every judgment as its judge saw it. Formula-safe; not for reading back.",
    rows=rows,
    dropped=dropped_by_filters,
    lines=lines,
    extension="csv",
    media_type="text/csv; charset=utf-8",
)
