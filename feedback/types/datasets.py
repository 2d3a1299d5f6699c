"""Preference pairs and the frozen datasets made of them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from sqlmodel import SQLModel

from feedback.types.labeling import Source
from feedback.types.prompts import Message
from feedback.types.validation import reject_bool, usable_name


class Weighting(StrEnum):
    """How a dataset weighs its pairs: all alike, or by how far their annotators can be believed."""

    none = "none"
    reliability = "reliability"


CUT_REPLY = "cut_reply"  # in a drop report: pairs that are kept although a reply of theirs was cut


class PreferencePair(BaseModel):
    """*chosen* over *rejected*: derived, never typed. ``margin`` is the mean strength, 0 when none was given.

    ``judgment_ids`` names the votes behind it; ``agreement`` is the share of decisive votes for *chosen*.
    ``weight`` (0 to 1) is how much a trainer should make of it; 1 unless the dataset weighs by reliability. A pair
    that came of an edit names its judgment in ``edited_by``: *chosen* is the edited text, and both generations are
    the one that was edited. ``chosen_cut`` and ``rejected_cut``: the reply was cut at its length limit and has no end.
    """

    model_config = ConfigDict(frozen=True)

    prompt_id: str
    matchup_id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_generation: str
    rejected_generation: str
    judgment_ids: tuple[str, ...]
    margin: float = 0.0
    agreement: float = 1.0
    split: Literal["train", "test"] = "train"
    edited_by: str | None = None
    weight: float = 1.0
    chosen_cut: bool = False
    rejected_cut: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether either reply was cut."""
        return self.chosen_cut or self.rejected_cut

    @model_validator(mode="after")
    def _differ(self) -> PreferencePair:
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected must differ")
        return self


class DatasetFilters(BaseModel):
    """Which judgments a dataset takes, and how disagreement and ties are resolved.

    Ties never become pairs by default: TRL has no tie type, and a guess would invent a preference. ``weighting``
    ``reliability`` lets the annotator model of ``feedback.quality.annotator_model`` decide disagreements and weigh each
    pair. ``batches`` takes only what was judged in these batches of the pool; ``playground`` takes what researchers
    chose while trying policies out, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[Source, ...] = (Source.human, Source.simulated, Source.imported)
    annotators: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    min_agreement: float = 0.5
    test_share: float = 0.1
    split_seed: int = 0
    weighting: Weighting = Weighting.none
    playground: bool = False

    @field_validator("min_agreement", "test_share", "split_seed", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        return reject_bool(value)

    @field_validator("since", "until")
    @classmethod
    def _aware(cls, moment: datetime | None) -> datetime | None:
        """A moment without a zone is meant as local time, as a person types it."""
        return moment if moment is None else moment.astimezone(UTC)

    @model_validator(mode="after")
    def _ranges(self) -> DatasetFilters:
        if not 0.5 <= self.min_agreement <= 1.0:
            raise ValueError(f"min_agreement must be between 0.5 and 1, not {self.min_agreement}")
        if not 0.0 <= self.test_share <= 0.5:
            raise ValueError(f"test_share must be between 0 and 0.5, not {self.test_share}")
        return self


class Dataset(SQLModel):
    """An immutable snapshot. ``counts`` has judgments, pairs, train, test, prompts; ``dropped`` a count per reason."""

    name: str
    filters: dict[str, Any] = {}
    hash: str = ""
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "dataset")
