"""Settings of the method ``rft``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from training.settings.train import Rates, _Drawn


class RftSettings(_Drawn):
    """Reply several times to each prompt, keep what scores best, and learn to reply like that."""

    METHOD: ClassVar[str] = "rft"
    SUMMARY: ClassVar[str] = "Imitate the best of many drawn replies."
    REWARDS_SHARE_BASE: ClassVar[bool] = False
    RATES: ClassVar[Rates] = (3e-3, 1e-4, 1e-4)
    SMALL_BASE_STEPS: ClassVar[int] = 120

    batch_size: int = Field(16, ge=1, le=1024, description="Replies (or packs of replies) per optimizer step.")
    samples: int = Field(8, ge=2, le=256, description="Replies drawn for each prompt.")
    keep: int = Field(1, ge=1, le=64, description="How many of them are imitated, best first.")
    prompts: int = Field(1000, ge=2, le=1_000_000, description="How many prompts are replied to at most.")
    temperature: float = Field(1.0, gt=0.0, le=5.0, description="Spread of the draw; 1 is the model's own.")
    sampling_batch: int = Field(128, ge=1, le=4096, description="How many replies are drawn side by side.")
    packing: bool = Field(
        False, description="Puts several short replies into one row, which saves padding; no reply sees another."
    )

    @model_validator(mode="after")
    def _some_are_left_out(self) -> RftSettings:
        if self.keep >= self.samples:
            raise ValueError(f"keep ({self.keep}) must be below samples ({self.samples}): else nothing is chosen")
        return self
