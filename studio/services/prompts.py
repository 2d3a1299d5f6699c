"""Prompts, and which of them the bundled policy understands."""

from __future__ import annotations

import random

from feedback.store.content import prompts as prompt_store
from feedback.store.content.prompts import SavedPrompts
from feedback.store.models import policies as policy_store
from feedback.tables import PromptRow
from feedback.types import Prompt, Split, UserRole
from studio.services.access import Acts, act
from training.bundled import STARTER_BASE


class Prompts(Acts):
    """Acts on prompts."""

    @act(UserRole.researcher, audit="prompts.add")
    def add_prompts(self, prompts: list[Prompt]) -> SavedPrompts:
        """Save prompts, each content once."""
        return prompt_store.save_prompts(self.db, prompts)

    @act(UserRole.researcher)
    def list_prompts(self, split: Split | None = None, limit: int | None = None) -> list[PromptRow]:
        """Prompts of one split or of both."""
        return prompt_store.list_prompts(self.db, split=split, limit=limit)

    @act(UserRole.annotator)
    def starter_requests(self) -> list[tuple[str, str]]:
        """What the bundled policy understands, a family and an example each; empty when another model serves."""
        if not any(row.base == STARTER_BASE for row in policy_store.list_policies(self.db)):
            return []
        from training.starter.families import FAMILIES  # only the page asks for them

        return [(name, draw(random.Random(name)).prompt) for name, draw in FAMILIES.items()]
