"""Rounds: start a recipe, inspect it, act on it."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from studio.web.api.dependencies import Given

router = APIRouter(prefix="/api/rounds", tags=["rounds"])


class RecipeIn(BaseModel):
    """A recipe to start; ``settings`` are listed under ``studio rounds start --help``."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class DecisionIn(BaseModel):
    """The answer to a gate."""

    choice: Literal["promote", "hold"]


@router.post("", status_code=201)
def start_recipe(body: RecipeIn, services: Given) -> dict[str, Any]:
    """Start a recipe; the worker begins its first round."""
    return services.rounds.get_recipe(services.rounds.start(body.name, body.settings).id)


@router.get("")
def list_recipes(services: Given) -> dict[str, Any]:
    """All recipes, newest first, each with the state of its newest round."""
    return {"recipes": services.rounds.list_recipes()}


@router.get("/{key}")
def get_recipe(key: str, services: Given) -> dict[str, Any]:
    """One recipe with its settings, guidance and every round with its evidence."""
    return services.rounds.get_recipe(key)


@router.post("/{key}/pause")
def pause_recipe(key: str, services: Given) -> dict[str, Any]:
    """Begin nothing more; runs under way go on to their end."""
    services.rounds.pause(key)
    return services.rounds.get_recipe(key)


@router.post("/{key}/resume")
def resume_recipe(key: str, services: Given) -> dict[str, Any]:
    """Go on with a paused recipe; runs of its round that failed are queued again."""
    services.rounds.resume(key)
    return services.rounds.get_recipe(key)


@router.post("/{key}/skip")
def skip_state(key: str, services: Given) -> dict[str, Any]:
    """Wait no longer in the present state of the round."""
    services.rounds.skip(key)
    return services.rounds.get_recipe(key)


@router.post("/{key}/decide")
def decide(key: str, body: DecisionIn, services: Given) -> dict[str, Any]:
    """Promote or hold the new policy, where the recipe asks."""
    services.rounds.decide(key, body.choice)
    return services.rounds.get_recipe(key)


@router.post("/{key}/fork", status_code=201)
def fork_recipe(key: str, body: RecipeIn, services: Given) -> dict[str, Any]:
    """A new recipe with these settings changed."""
    return services.rounds.get_recipe(services.rounds.fork(key, body.name, body.settings).id)


@router.post("/{key}/cancel")
def cancel_recipe(key: str, services: Given) -> dict[str, Any]:
    """End a recipe; what it made is kept."""
    services.rounds.cancel(key)
    return services.rounds.get_recipe(key)
