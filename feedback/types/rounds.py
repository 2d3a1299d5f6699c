"""Recipes and rounds: the settings of the loop of labeling and training, and each pass of it as a record."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import field_validator
from sqlmodel import SQLModel

from feedback.types.validation import now, usable_name


class RecipeState(StrEnum):
    """*paused* waits for a person, with a reason; a *finished* recipe has completed all of its rounds."""

    active = "active"
    paused = "paused"
    finished = "finished"
    cancelled = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether no further round follows."""
        return self in (RecipeState.finished, RecipeState.cancelled)


class RoundState(StrEnum):
    """The stages of a round in their order, then how it can end."""

    filling = "filling"
    labeling = "labeling"
    frozen = "frozen"
    training = "training"
    evaluating = "evaluating"
    gate = "gate"
    promoted = "promoted"
    held = "held"
    rejected = "rejected"
    cancelled = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the round has ended."""
        return self in (RoundState.promoted, RoundState.held, RoundState.rejected, RoundState.cancelled)


class Recipe(SQLModel):
    """How rounds are to be run. ``settings`` are those of ``training.rounds.recipe``; ``reason`` says why it is paused.

    ``forked_from`` is the id of the recipe whose settings this one began with.
    """

    name: str
    settings: dict[str, Any]
    state: RecipeState = RecipeState.active
    reason: str = ""
    forked_from: str | None = None

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        return usable_name(name, "recipe")


class Round(SQLModel):
    """One pass of the loop, which starts from the policy ``champion_id``.

    ``since`` is when ``state`` was entered and ``waits_for`` what must happen before it is left. ``evidence`` names
    what the round made: runs by what they are for, dataset, policy, figures, the gate's decision. ``history`` holds
    every state with the moment it was entered. ``version`` grows with every change.
    """

    recipe_id: str
    number: int
    champion_id: str
    state: RoundState = RoundState.filling
    waits_for: str = ""
    since: datetime
    version: int = 0
    evidence: dict[str, Any] = {}
    history: list[dict[str, str]] = []


def first_state(recipe_id: str, number: int, champion_id: str) -> Round:
    """A round at its beginning."""
    moment = now()
    entered = [{"state": RoundState.filling.value, "at": moment.isoformat()}]
    return Round(recipe_id=recipe_id, number=number, champion_id=champion_id, since=moment, history=entered)
