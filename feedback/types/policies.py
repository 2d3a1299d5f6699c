"""Policies, their checkpoints, and what was measured of them."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from sqlmodel import SQLModel

from feedback.types.validation import usable_name

CANNOT_REPLY = "cannot reply here"
"""How the note of a policy ends of which only judgments came here."""
ENDPOINT_SCHEMES = ("http://", "https://")
"""What the base of a policy begins with when a server replies for it."""


class Policy(SQLModel):
    """A checkpoint or a base model that can reply. ``base`` is a local path, a hub id, or a server's address.

    ``checkpoint_id`` is None for a base model; ``parent_id`` is the policy it was trained from. The ``note`` of one
    that came with imported judgments, its weights left behind, ends with ``CANNOT_REPLY``.
    """

    name: str
    base: str
    checkpoint_id: str | None = None
    parent_id: str | None = None
    run_id: str | None = None
    note: str = ""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "policy")

    @property
    def is_endpoint(self) -> bool:
        """Whether it replies over HTTP: its base is the address of a server, and nothing here has its weights."""
        return self.base.startswith(ENDPOINT_SCHEMES)

    @property
    def can_reply(self) -> bool:
        """False for a policy known by name alone: its base without its checkpoint would be another policy."""
        return self.checkpoint_id is not None or not self.note.endswith(CANNOT_REPLY)


class Checkpoint(SQLModel):
    """What a training run left on disk. ``path`` is relative to the home; ``kind`` is policy or reward.

    ``removed_at`` tells when its weights were deleted to save space; the manifest is kept for ever.
    """

    name: str
    kind: Literal["policy", "reward"]
    path: str
    base: str
    run_id: str | None = None
    dataset_id: str | None = None
    parent_id: str | None = None
    manifest: dict[str, Any] = {}
    removed_at: datetime | None = None


class Scorecard(SQLModel):
    """The outcome of an evaluation: policy A against policy B, or a reward model against held-out pairs.

    ``figures`` are the numbers; ``settings`` what they were measured with (prompts, judge, seed).
    """

    kind: Literal["win_rate", "reward_accuracy"]
    subject_id: str
    against_id: str | None = None
    run_id: str | None = None
    settings: dict[str, Any] = {}
    figures: dict[str, Any] = {}


class BenchmarkItem(BaseModel):
    """One item of a benchmark: its scores by metric, what was asked and what the policy said.

    ``item`` names the item in every policy's results, so that two of them can be compared item by item.
    """

    model_config = ConfigDict(frozen=True)

    item: str
    scores: dict[str, float]
    asked: str = ""
    answer: str = ""


class Benchmark(SQLModel):
    """What a policy scored on one task: the mean of each metric over ``n`` items, the task's main metric first.

    ``settings`` are what it was taken with (version of the task and of the harness, examples shown, limit, seed);
    ``higher_is_better`` names the direction of each metric.
    """

    policy_id: str
    task: str
    n: int
    means: dict[str, float]
    higher_is_better: dict[str, bool] = {}
    settings: dict[str, Any] = {}
    run_id: str | None = None

    @model_validator(mode="after")
    def _holds_figures(self) -> Benchmark:
        if self.n < 1 or not self.means:
            raise ValueError("a benchmark needs at least one item and one metric")
        if not all(math.isfinite(mean) for mean in self.means.values()):
            raise ValueError("every mean of a benchmark must be a finite number")
        return self
