"""Datasets: what could be frozen, what was, and how it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feedback import formats
from feedback.datasets import freeze as datasets
from feedback.store.content import prompts as prompt_store
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import judgments as judgment_store
from feedback.store.labeling import matchups as matchup_store
from feedback.tables import DatasetRow
from feedback.types import DatasetFilters, PreferencePair, Split, UserRole
from studio.services.access import Acts, act


@dataclass(frozen=True)
class FeedbackCounts:
    """What there is to freeze: prompts for work, judgments by verdict and by source, the pool.

    ``drawn`` has the sizes of the dataset that would come of it: pairs, train, test, prompts.
    """

    prompts: int
    verdicts: dict[str, int]
    sources: dict[str, int]
    drawn: dict[str, int]
    open_matchups: int


class Datasets(Acts):
    """Acts on datasets."""

    @act(UserRole.reviewer)
    def feedback_counts(self) -> FeedbackCounts:
        """What a dataset frozen now could draw from."""
        return FeedbackCounts(
            prompts=prompt_store.count_prompts(self.db, split=Split.work),
            verdicts=judgment_store.tally_judgments(self.db),
            sources=judgment_store.tally_sources(self.db),
            drawn=datasets.preview(self.db).counts(),
            open_matchups=matchup_store.count_matchups(self.db).open,
        )

    @act(UserRole.researcher)
    def preview_counts(self, filters: DatasetFilters | None = None) -> dict[str, int]:
        """The sizes of the dataset that these filters would give now: pairs, train, test, prompts."""
        return datasets.preview(self.db, filters).counts()

    @act(UserRole.researcher, audit="dataset.freeze", about="name")
    def freeze(self, name: str, filters: DatasetFilters | None = None) -> DatasetRow:
        """Freeze the judgments that pass the filters into a named, hashed dataset."""
        return datasets.freeze(self.db, name, filters or DatasetFilters())

    @act(UserRole.researcher)
    def list_datasets(self) -> list[DatasetRow]:
        """All datasets, newest first."""
        return sorted(dataset_store.list_datasets(self.db), key=lambda row: row.created_at, reverse=True)

    @act(UserRole.researcher)
    def get_dataset(self, key: str) -> DatasetRow:
        """A dataset by id or name."""
        return dataset_store.get_dataset(self.db, key)

    @act(UserRole.researcher)
    def twin_of(self, row: DatasetRow) -> str | None:
        """The name of an older dataset that holds the same as this one."""
        return dataset_store.find_identical_dataset(self.db, row)

    @act(UserRole.researcher)
    def preview_pairs(self, key: str, limit: int = 8) -> list[PreferencePair]:
        """The first pairs of a dataset."""
        return dataset_store.list_pairs(self.db, key, limit=limit)

    @act(UserRole.researcher)
    def suggest_dataset_name(self) -> str:
        """The first free name of the form ``round-N``."""
        taken = {row.name for row in dataset_store.list_datasets(self.db)}
        number = len(taken) + 1
        while f"round-{number}" in taken:
            number += 1
        return f"round-{number}"

    @act(UserRole.researcher, audit="dataset.export", about="key", detail=("format_name", "split"))
    def export(
        self, key: str, format_name: str, split: str | None = None
    ) -> tuple[formats.Export, formats.Format, Iterator[str]]:
        """A dataset, or one side of its split, in an outside format, and its lines, read as they are taken."""
        export, chosen = formats.open_export(self.db, key, format_name, split)
        return export, chosen, chosen.lines(chosen.rows(export))

    @act(UserRole.admin, audit="dataset.export", about="key", detail=("format_name", "split"))
    def export_file(self, key: str, format_name: str, out: Path, split: str | None = None) -> formats.ExportReport:
        """Write a dataset, or one side of its split, to a file of this machine, with a report of what it left out."""
        return formats.export_dataset(self.db, key, format_name, out, split)

    @act(UserRole.admin, audit="judgments.import", about="path", detail="format_name")
    def import_file(self, path: Path, format_name: str) -> dict[str, int]:
        """Read prompts, replies and judgments from a file of this machine: all of it or nothing; what came of it."""
        return formats.import_file(self.db, path, format_name)

    @act(UserRole.researcher)
    def format_names(self) -> list[str]:
        """The outside formats a dataset can be downloaded in."""
        return sorted(formats.FORMATS)

    @act(UserRole.researcher)
    def count_dropped(self, key: str, format_name: str, split: str | None = None) -> dict[str, int]:
        """What an export leaves out and why, counted by reading it through once."""
        return formats.count_dropped(self.db, key, format_name, split)
