"""The tables of recipes and rounds, made as those of ``tables.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, UniqueConstraint
from sqlmodel import Field

from feedback.column_types import EnumText, Moment, new_id
from feedback.tables import _Row
from feedback.types import Recipe, RecipeState, Round, RoundState


class RecipeRow(Recipe, _Row, table=True):
    __tablename__ = "recipe"

    id: str = Field(default_factory=lambda: new_id("rec"), primary_key=True)
    name: str = Field(unique=True)
    settings: dict[str, Any] = Field(sa_type=JSON)
    state: RecipeState = Field(default=RecipeState.active, sa_type=EnumText(RecipeState))  # type: ignore[call-overload]
    forked_from: str | None = Field(default=None, foreign_key="recipe.id")


class RoundRow(Round, _Row, table=True):
    __tablename__ = "recipe_round"
    # Whoever begins the next round second finds it begun
    __table_args__ = (UniqueConstraint("recipe_id", "number"),)

    id: str = Field(default_factory=lambda: new_id("rnd"), primary_key=True)
    recipe_id: str = Field(foreign_key="recipe.id", index=True)
    champion_id: str = Field(foreign_key="policy.id")
    state: RoundState = Field(default=RoundState.filling, sa_type=EnumText(RoundState))  # type: ignore[call-overload]
    since: datetime = Field(sa_type=Moment)  # type: ignore[call-overload]
    evidence: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    history: list[dict[str, str]] = Field(default_factory=list, sa_type=JSON)
