"""Recipes and their rounds. A round changes only if it is as its reader saw it, so two writers cannot both be right."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from feedback.database.engine import Database
from feedback.errors import Conflict
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.rows import as_row, get_by_key
from feedback.types import Recipe, RecipeState, Round, RoundState


def save_recipe(db: Database, recipe: Recipe, first_round: Round) -> RecipeRow:
    """Keep a recipe with its first round, or neither. Conflict when the name is taken."""
    row = as_row(RecipeRow, recipe)
    try:
        with db.write() as session:
            session.add(row)
            session.flush()
            session.add(as_row(RoundRow, first_round, recipe_id=row.id))
    except IntegrityError as error:
        raise Conflict(f"There is already a recipe {recipe.name!r}; choose another name.") from error
    return row


def get_recipe(db: Database, key: str) -> RecipeRow:
    """The recipe with this id or name."""
    with db.read() as session:
        return get_by_key(session, RecipeRow, "recipe", key, hint="`studio rounds list` shows all.")


def list_recipes(db: Database, *, states: Collection[RecipeState] | None = None) -> list[RecipeRow]:
    """Recipes, newest first."""
    query = select(RecipeRow).order_by(col(RecipeRow.created_at).desc(), col(RecipeRow.id))
    if states is not None:
        query = query.where(col(RecipeRow.state).in_(list(states)))
    with db.read() as session:
        return list(session.exec(query))


def move_recipe(
    db: Database, recipe_id: str, *, expected: Collection[RecipeState], to: RecipeState, reason: str = ""
) -> RecipeRow | None:
    """Move a recipe to another state if it is in one of ``expected``; None when it was not, and nothing changed."""
    with db.write() as session:
        moved = session.execute(
            update(RecipeRow)
            .where(col(RecipeRow.id) == recipe_id, col(RecipeRow.state).in_(list(expected)))
            .values(state=to, reason=reason)
        )
        return session.get(RecipeRow, recipe_id) if moved.rowcount else None  # type: ignore[attr-defined]


def save_round(db: Database, value: Round) -> RoundRow:
    """Begin a round; where it was begun already, the round that is there."""
    row = as_row(RoundRow, value)
    try:
        with db.write() as session:
            session.add(row)
        return row
    except IntegrityError:
        return next(found for found in list_rounds(db, value.recipe_id) if found.number == value.number)


def list_rounds(db: Database, recipe_id: str) -> list[RoundRow]:
    """The rounds of a recipe, first to last."""
    query = select(RoundRow).where(RoundRow.recipe_id == recipe_id).order_by(col(RoundRow.number))
    with db.read() as session:
        return list(session.exec(query))


def list_promoted(db: Database, limit: int) -> list[RoundRow]:
    """The newest rounds of all recipes whose policy was promoted, newest first."""
    query = (
        select(RoundRow)
        .where(RoundRow.state == RoundState.promoted)
        .order_by(col(RoundRow.since).desc(), col(RoundRow.id))
        .limit(limit)
    )
    with db.read() as session:
        return list(session.exec(query))


def last_round(db: Database, recipe_id: str) -> RoundRow:
    """The newest round of a recipe; every recipe has one."""
    query = select(RoundRow).where(RoundRow.recipe_id == recipe_id).order_by(col(RoundRow.number).desc()).limit(1)
    with db.read() as session:
        return session.exec(query).one()


def change_round(db: Database, seen: RoundRow, **changes: Any) -> RoundRow | None:
    """Change a round that is still as it was ``seen``; None when somebody changed it meanwhile."""
    with db.write() as session:
        changed = session.execute(
            update(RoundRow)
            .where(col(RoundRow.id) == seen.id, col(RoundRow.version) == seen.version)
            .values(version=seen.version + 1, **changes)
        )
        return session.get(RoundRow, seen.id) if changed.rowcount else None  # type: ignore[attr-defined]
