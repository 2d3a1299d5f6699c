"""Prompts, which of them the bundled policy understands, and the pool of pairs that is filled from them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from feedback.store.content import prompts as prompt_store
from feedback.store.content.prompts import SavedPrompts
from feedback.store.labeling import retirement
from feedback.store.labeling.retirement import ChosenPrompts, Retirement
from feedback.store.models import policies as policy_store
from feedback.tables import PromptRow, RunRow
from feedback.types import Prompt, Split, UserRole
from studio.background.pool_filler import PENDING, POOL_SIZE
from studio.services.access import Acts, act
from training.bundled import STARTER_BASE
from training.runs import lifecycle


class Prompts(Acts):
    """Acts on prompts."""

    @act(UserRole.researcher, audit="prompts.add")
    def add_prompts(self, prompts: list[Prompt]) -> SavedPrompts:
        """Save prompts, each content once."""
        return prompt_store.save_prompts(self.db, prompts)

    @act(UserRole.researcher)
    def list_prompts(
        self,
        split: Split | None = None,
        limit: int | None = None,
        *,
        tags: Sequence[str] = (),
        retired: bool = False,
    ) -> list[PromptRow]:
        """Prompts of one split or of both that carry every one of the tags; those in use, or the retired ones."""
        return prompt_store.list_prompts(self.db, split=split, limit=limit, tags=tags, retired=retired)

    @act(UserRole.researcher)
    def count_tags(self, split: Split | None = None, *, retired: bool = False) -> dict[str, int]:
        """How many prompts carry each tag, the commonest first; prompts without a tag are under ``""``."""
        return prompt_store.count_tags(self.db, split=split, retired=retired)

    @act(UserRole.researcher)
    def choose(self, ids: Sequence[str], tag: str | None = None, *, retired: bool) -> ChosenPrompts:
        """Which prompts ``retire`` (or, unless ``retired``, ``restore``) would change."""
        return retirement.choose_prompts(self.db, ids, tag, retired=retired)

    @act(UserRole.researcher, audit="prompts.retire", detail="tag")
    def retire(self, ids: Sequence[str], tag: str | None = None) -> Retirement:
        """Draw nothing for these prompts from now on, and ask nobody about them; what was judged on them stays."""
        return retirement.retire_prompts(self.db, ids, tag)

    @act(UserRole.researcher, audit="prompts.restore", detail="tag")
    def restore(self, ids: Sequence[str], tag: str | None = None) -> Retirement:
        """Take retired prompts back into use, with those of their matchups that are still wanted."""
        return retirement.restore_prompts(self.db, ids, tag)

    @act(UserRole.annotator)
    def starter_requests(self) -> list[tuple[str, str]]:
        """What the starter understands, a family and an example each; empty where another model serves."""
        champion = policy_store.get_champion(self.db)
        if champion is None or champion.base != STARTER_BASE:
            return []
        from training.starter.families import FAMILIES  # only the page asks for them

        return [(name, draw(random.Random(name)).prompt) for name, draw in FAMILIES.items()]


class Pool(Acts):
    """Acts that fill the pool."""

    @act(UserRole.researcher, audit="pool.fill")
    def fill_pool(self, limit: int = POOL_SIZE) -> RunRow:
        """Queue a run that samples the champion's replies to ``limit`` prompts, or give back the one under way."""
        with self.shared.filler.lock:
            pending = self.shared.filler.newest_fill(PENDING)
            return pending or self.shared.filler.submit_fill(limit)

    @act(UserRole.annotator)
    def last_fill(self) -> RunRow | None:
        """The newest run that filled, fills or failed to fill the pool."""
        lifecycle.reconcile(self.db)
        return self.shared.filler.newest_fill(None)
