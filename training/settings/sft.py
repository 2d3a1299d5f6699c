"""Settings of the method ``sft``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from training.settings.train import Rates, SharedSettings


class SftSettings(SharedSettings):
    """Learn to reply as the best replies do: those that people edited, and those they chose."""

    METHOD: ClassVar[str] = "sft"
    SUMMARY: ClassVar[str] = "Imitate edited and chosen replies."
    NEEDS_PAIRS: ClassVar[bool] = False  # edits teach too; the method says when there are too few replies
    RATES: ClassVar[Rates] = (3e-3, 1e-4, 1e-4)

    batch_size: int = Field(16, ge=1, le=1024, description="Replies (or packs of replies) per optimizer step.")
    replies: Literal["all", "edited", "chosen"] = Field(
        "all", description="What is imitated: replies people edited, replies people chose, or both."
    )
    packing: bool = Field(
        False, description="Puts several short replies into one row, which saves padding; no reply sees another."
    )
