"""Datasets: what there is to freeze, the list, one in full with its first pairs, the download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from feedback.datasets.split_size import split_notes
from feedback.tables import DatasetRow
from feedback.types import CUT_REPLY, DatasetFilters, PreferencePair
from studio.page.html import Html, element, facts, join, notice, plain_text, table
from studio.page.text import ago, label_of
from studio.services.datasets import FeedbackCounts
from training.methods import trainers_without_dataset

TALLY_LABELS = {"tie": "Ties", "both_bad": "Both bad", "skip": "Skipped", "rank": "Rankings"}


def feedback_counts(counts: FeedbackCounts) -> Html:
    """What a dataset frozen now can draw from."""
    total = counts.verdicts.get("total", 0)
    others = [(label, counts.verdicts.get(name, 0)) for name, label in TALLY_LABELS.items()]
    tiles = [
        ("Judgments", total),
        ("Usable pairs", counts.drawn.get("pairs", 0)),
        *((label, count) for label, count in others if count),
        ("Pairs waiting", counts.open_matchups),
        ("Prompts", counts.prompts),
    ]
    sources = ", ".join(f"{n:,} {name}" for name, n in counts.sources.items() if n)
    return element(
        "div",
        element("dl", *(_tile(name, value) for name, value in tiles), class_="tiles"),
        element("p", f"By source: {sources}.", class_="quiet") if sources else "",
    )


def _tile(name: str, value: int) -> Html:
    return element("div", element("dt", name), element("dd", f"{value:,}"), class_="tile")


def datasets_table(rows: Sequence[DatasetRow], selected: str | None, now: datetime) -> Html:
    """All datasets; each row can be picked."""
    if not rows:
        return notice(
            "No dataset yet",
            "Judge some pairs on the Label tab, then freeze them here: a dataset never changes afterwards, so "
            "every training run says exactly what it learned from.",
        )
    cells = [
        [
            row.name,
            f"{row.counts.get('pairs', 0):,}",
            f"{row.counts.get('train', 0):,} / {row.counts.get('test', 0):,}",
            f"{row.counts.get('judgments', 0):,}",
            element("code", row.hash[:12]),
            ago(row.created_at, now),
        ]
        for row in rows
    ]
    headers = ("Name", "Pairs", "Train / test", "Judgments", "Hash", "Frozen")
    return table(headers, cells, caption="Datasets, newest first", keys=[row.id for row in rows], selected=selected)


def split_preview(counts: Mapping[str, int], test_share: float) -> Html:
    """What a dataset frozen now would hold on each side, and what is to be known of that before it is frozen."""
    if not counts.get("pairs"):
        return element("p", "A dataset frozen now would hold no pair.", class_="quiet")
    pairs, train, test = (counts.get(name, 0) for name in ("pairs", "train", "test"))
    line = f"A dataset frozen now: {pairs:,} pairs, {train:,} to train on and {test:,} to test."
    return join([element("p", line, class_="quiet"), split_warning(counts, test_share)])


def split_warning(counts: Mapping[str, int], test_share: float) -> Html:
    """The notes on a split in a frame; empty where there are none."""
    notes = split_notes(counts, test_share)
    return notice("About the split", *notes, tone="warn") if notes else Html("")


def frozen_text(row: DatasetRow, twin: str | None) -> str:
    """What is said when a dataset is frozen, and whether there was one like it."""
    if twin is not None:
        return f"{row.name} is frozen, and holds the same judgments and pairs as {twin}: nothing new was judged for it."
    cut = row.dropped.get(CUT_REPLY, 0)
    note = f" {cut} of them hold a reply that was cut at its length limit." if cut else ""
    return f"{row.name} is frozen: {row.counts.get('pairs', 0)} pairs.{note} Train on it on the Train tab."


def dataset_detail(row: DatasetRow, pairs: Sequence[PreferencePair]) -> Html:
    """One dataset: its identity, what was left out and why, and its first pairs."""
    return element(
        "div",
        element("div", element("h3", row.name), class_="detail-head"),
        facts([("Id", row.id), ("Hash", element("code", row.hash)), *_counts(row.counts)]),
        split_warning(row.counts, float(row.filters.get("test_share", DatasetFilters().test_share))),
        _dropped(row.dropped),
        _preview(pairs),
        class_="detail",
    )


def _counts(counts: Mapping[str, int]) -> list[tuple[str, object]]:
    return [(label_of(name), f"{value:,}") for name, value in counts.items()]


def _dropped(dropped: Mapping[str, int]) -> Html:
    left_out = {name: count for name, count in dropped.items() if count and name != CUT_REPLY}
    items = (element("li", f"{count:,} × {label_of(name).lower()}") for name, count in left_out.items())
    listed = element("div", element("h4", "Left out"), element("ul", *items, class_="plain-list"))
    report = listed if left_out else element("p", "Nothing was left out.", class_="quiet")
    return join([report, _cut(dropped.get(CUT_REPLY, 0))])


def _cut(pairs: int) -> Html:
    """How many pairs hold a reply without an end; nothing where none does."""
    if not pairs:
        return join([])
    words = "pair holds" if pairs == 1 else "pairs hold"
    text = f"{pairs:,} {words} a reply that was cut at its length limit. It is trained on without an end."
    return notice("Cut replies", text, tone="warn")


def _preview(pairs: Sequence[PreferencePair]) -> Html:
    if not pairs:
        return notice("No pairs", "None of these judgments says which of two replies is better.", tone="warn")
    rows = [
        [
            plain_text(pair.messages[-1].content),
            plain_text(pair.chosen),
            plain_text(pair.rejected),
            pair.split,
        ]
        for pair in pairs
    ]
    shown = table(("Request", "Chosen", "Rejected", "Split"), rows, caption="First pairs of the dataset")
    return element("div", element("h4", f"First {len(pairs)} pairs"), shown, class_="preview")


def download_link(row: DatasetRow, format_name: str) -> Html:
    """A link that streams the dataset from the REST route; relative, so a path prefix keeps working."""
    kind = "csv" if format_name == "csv" else "jsonl"
    words = f"Download {kind.upper()}"
    return element(
        "a",
        words,
        href=f"api/datasets/{row.id}/export?format={format_name}",
        download=f"{row.name}.csv" if kind == "csv" else f"{row.name}.{format_name}.jsonl",
        aria_label=f"{words} of {row.name} as {format_name}",
        class_="download",
    )


def dataset_choices(rows: Sequence[DatasetRow]) -> list[tuple[str, str]]:
    """Datasets for a dropdown, with their size."""
    return [(f"{row.name} ({row.counts.get('pairs', 0):,} pairs)", row.id) for row in rows]


def no_dataset() -> Html:
    """Why nothing can be trained yet."""
    return notice(
        "There is nothing to train on yet",
        "This method learns from a dataset. Judge some pairs on the Label tab, then freeze them on the Datasets tab. "
        "Methods that score replies they draw themselves ("
        f"{', '.join(trainers_without_dataset())}) can do without one.",
    )
