"""Settings of the method ``benchmark``."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from training.settings.train import Settings

STANDARD_TASKS = ("everyday_facts",)
"""What is taken where nothing is named; it comes with the studio."""


class BenchmarkSettings(Settings):
    """Have a policy take tasks of lm-evaluation-harness; its score on every item is kept."""

    METHOD: ClassVar[str] = "benchmark"
    SUMMARY: ClassVar[str] = "Have a policy take benchmark tasks."
    NEEDS_HARNESS: ClassVar[bool] = True

    policy: str | None = Field(None, description="The policy that is measured; left out, the champion.")
    tasks: tuple[str, ...] = Field(
        STANDARD_TASKS, min_length=1, description="Names of tasks or groups of tasks, separated by commas."
    )
    include: str | None = Field(
        None, description="A folder with tasks of your own (the harness's YAML files); left out, those of the studio."
    )
    limit: int | None = Field(None, ge=2, le=1_000_000, description="Only this many items of each task; left out, all.")
    num_fewshot: int | None = Field(
        None, ge=0, le=64, description="Solved examples shown before each item; left out, as the task says."
    )
    chat_template: bool = Field(True, description="Ask in the policy's chat template, as it was trained to be asked.")
    batch_size: int = Field(16, ge=1, le=1024, description="How many items are answered side by side.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the choice of examples and of what is drawn.")

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, tasks: Any) -> Any:
        return tuple(name.strip() for name in tasks.split(",") if name.strip()) if isinstance(tasks, str) else tasks
