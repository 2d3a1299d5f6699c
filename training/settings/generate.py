"""Settings of the method ``generate``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from feedback.types import MatchupKind, Split
from training.settings.train import _Sampled


class GenerateSettings(_Sampled):
    """Fill the pool: draw replies to work prompts and pair them up for the annotators."""

    METHOD: ClassVar[str] = "generate"
    SUMMARY: ClassVar[str] = "Draw replies and pair them up."
    NEEDS_WEIGHTS: ClassVar[bool] = False

    policy: str | None = Field(None, description="The policy that replies; left out, the champion.")
    per_prompt: int = Field(2, ge=2, le=9, description="Replies drawn for each prompt.")
    limit: int = Field(50, ge=1, le=100_000, description="How many prompts are given replies, least judged first.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="Seed of the draw; left out, a fresh one is drawn.")
    split: Split = Field(Split.work, description="Which prompts are used; evaluation prompts never reach a dataset.")
    required: int = Field(1, ge=1, le=50, description="Judgments each matchup is to get.")
    kind: MatchupKind = Field(MatchupKind.pair, description="Pairs, or one ranking of all replies to a prompt.")
    against: str | None = Field(
        None,
        description="A second policy: each pair holds a reply of both. Of evaluation prompts such pairs are put before "
        "people alone, first of all, and only measure which of the two they prefer.",
    )

    batch: str | None = Field(
        None,
        description="The batch that the pairs join, made where there is none; only its own open pairs count.",
    )
    tags: tuple[str, ...] = Field((), description="Tags that a prompt must carry to be given replies; all of them.")

    @model_validator(mode="after")
    def _can_be_halved(self) -> GenerateSettings:
        if self.against is not None and (self.per_prompt % 2 or self.kind is not MatchupKind.pair):
            raise ValueError(
                f"against pairs the replies of two policies: kind must be pair, not {self.kind.value}, and per_prompt "
                f"even, not {self.per_prompt}"
            )
        if self.batch is not None and self.is_measurement:
            raise ValueError("pairs of evaluation prompts join no batch: leave batch out, or name no policy in against")
        return self

    @property
    def is_measurement(self) -> bool:
        """Whether the pairs only measure which policy people prefer; nothing is trained on them."""
        return self.against is not None and self.split is Split.evaluation
