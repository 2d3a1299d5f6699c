"""Rounds: recipes that the worker carries out, and what a person does to them."""

from __future__ import annotations

from typing import Any, Literal

from feedback.round_tables import RecipeRow
from feedback.store.models import rounds as store
from feedback.types import UserRole
from studio.services.access import Acts, act
from training.rounds import account, acts, overview


class Rounds(Acts):
    """Acts on recipes and their rounds."""

    @act(UserRole.researcher)
    def list_recipes(self) -> list[dict[str, Any]]:
        """All recipes, newest first, each with the state of its newest round."""
        return [
            account.summary_of(recipe, store.last_round(self.db, recipe.id)) for recipe in store.list_recipes(self.db)
        ]

    @act(UserRole.researcher)
    def get_recipe(self, key: str) -> dict[str, Any]:
        """One recipe with its settings, guidance and every round."""
        return account.account_of(self.db, store.get_recipe(self.db, key))

    @act(UserRole.researcher)
    def overview(self, key: str | None = None) -> dict[str, Any]:
        """The state of the home: one recipe in full, judgments per day, champions, active runs, free disk space."""
        return overview.overview_of(self.db, self.home, key)

    @act(UserRole.researcher, audit="rounds.start", about="name")
    def start(self, name: str, settings: dict[str, Any]) -> RecipeRow:
        """Keep a recipe; the worker begins its first round."""
        return acts.start(self.db, name, settings)

    @act(UserRole.researcher, audit="rounds.pause", about="key")
    def pause(self, key: str) -> RecipeRow:
        """Begin nothing more; runs under way go on to their end."""
        return acts.pause(self.db, key)

    @act(UserRole.researcher, audit="rounds.resume", about="key")
    def resume(self, key: str) -> RecipeRow:
        """Go on with a paused recipe; runs of its round that failed are queued again."""
        return acts.resume(self.db, self.home, key)

    @act(UserRole.researcher, audit="rounds.skip", about="key")
    def skip(self, key: str) -> str:
        """Wait no longer in the present state; returns what follows."""
        return acts.skip(self.db, key)

    @act(UserRole.researcher, audit="rounds.decide", about="key", detail="choice")
    def decide(self, key: str, choice: Literal["promote", "hold"]) -> None:
        """Answer the question of the gate."""
        acts.decide(self.db, key, choice, self.person.name)

    @act(UserRole.researcher, audit="rounds.fork", about="key", detail="name")
    def fork(self, key: str, name: str, changes: dict[str, Any]) -> RecipeRow:
        """A new recipe with this one's settings but for the changes, from where its newest round started."""
        return acts.fork(self.db, key, name, changes)

    @act(UserRole.researcher, audit="rounds.cancel", about="key")
    def cancel(self, key: str) -> RecipeRow:
        """End a recipe: its runs are cancelled and its open pairs withdrawn. What it made is kept."""
        return acts.cancel(self.db, key)
