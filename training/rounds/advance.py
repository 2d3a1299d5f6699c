"""Rounds advance from state to state by what the database holds, so that any process can continue them.

    filling → labeling → frozen → training → evaluating → gate → promoted | held | rejected

A look reads a round, lets the stage of its state say where it should be, and writes that down if nobody changed the
round meanwhile. What a stage asks for (a run, a dataset, a promotion) is named after the round, so that asking twice
asks once. A round that cannot go on pauses its recipe and says why.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from feedback.database.engine import Database
from feedback.errors import StudioError, Unavailable
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.models.policies import get_policy
from feedback.store.models.rounds import (
    change_round,
    get_recipe,
    last_round,
    list_recipes,
    move_recipe,
    save_round,
)
from feedback.types import RecipeState, RoundState, first_state, now
from training.home import Home
from training.rounds.acts import clean_up
from training.rounds.collecting import fill, label
from training.rounds.context import RoundContext, Step, cancel_runs
from training.rounds.learning import begin_training, decide, evaluate, train
from training.rounds.recipe import RecipeSettings

STAGES: dict[RoundState, Callable[[RoundContext], Step]] = {
    RoundState.filling: fill,
    RoundState.labeling: label,
    RoundState.frozen: begin_training,
    RoundState.training: train,
    RoundState.evaluating: evaluate,
    RoundState.gate: decide,
}
_MOST_STEPS = 20  # in one look: more than a round has states


def advance_recipes(db: Database, home: Home, say: Callable[[str], None] = lambda line: None) -> None:
    """Look at every active recipe once, oldest first; one that cannot go on does not hold up the others."""
    for recipe in reversed(list_recipes(db, states=[RecipeState.active])):
        advance(db, home, recipe.id, say)


def advance(db: Database, home: Home, key: str, say: Callable[[str], None] = lambda line: None) -> bool:
    """Take a recipe as far as it goes without waiting; returns whether anything changed.

    An active recipe whose stage raises is paused with the reason; while the database is away nothing changes.
    """
    changed = False
    for _ in range(_MOST_STEPS):
        recipe = get_recipe(db, key)
        if recipe.state is not RecipeState.active or not _look(db, home, recipe, say):
            break
        changed = True
    return changed


def _look(db: Database, home: Home, recipe: RecipeRow, say: Callable[[str], None]) -> bool:
    row = last_round(db, recipe.id)
    if row.state.is_terminal:
        return _begin_next(db, recipe, row, say)
    context = RoundContext(db, home, recipe, row)
    try:
        step = STAGES[row.state](context)
    except Unavailable:
        raise
    except StudioError as error:
        _keep(db, context, Step(row.state, row.waits_for))
        _pause(db, recipe, str(error), say)
        return False
    except Exception as error:  # a fault of one recipe must not stop the worker
        traceback.print_exc()
        _pause(db, recipe, f"{type(error).__name__}: {error}", say)
        return False
    moved = _keep(db, context, step)
    if moved is None and last_round(db, recipe.id).state is RoundState.cancelled:
        cancel_runs(db, context.evidence)  # what this look asked for while somebody cancelled the recipe
    if moved is not None and step.to is not row.state:
        say(f"{context.name} is {step.to.value}" + (f": {step.waits_for}" if step.waits_for else ""))
    return moved is not None and step.to is not row.state


def _keep(db: Database, context: RoundContext, step: Step) -> RoundRow | None:
    """Write down what a look found, if it found anything and the round is still as it was seen."""
    row = context.row
    changes: dict[str, Any] = {}
    if context.evidence != row.evidence:
        changes["evidence"] = context.evidence
    if step.waits_for != row.waits_for:
        changes["waits_for"] = step.waits_for
    if step.to is not row.state:
        moment = now()
        changes |= {"state": step.to, "since": moment}
        changes["history"] = [*row.history, {"state": step.to.value, "at": moment.isoformat()}]
        kept = {name: value for name, value in context.evidence.items() if name != "skip"}
        changes["evidence"] = kept | {"left": sorted(kept.get("runs", {}))}  # nobody resumes what is done with
    return change_round(db, row, **changes) if changes else row


def _pause(db: Database, recipe: RecipeRow, reason: str, say: Callable[[str], None]) -> None:
    if move_recipe(db, recipe.id, expected=[RecipeState.active], to=RecipeState.paused, reason=reason):
        say(f"{recipe.name} is paused: {reason}")


def _begin_next(db: Database, recipe: RecipeRow, ended: RoundRow, say: Callable[[str], None]) -> bool:
    if ended.state is RoundState.cancelled:  # somebody's cancel was cut short
        clean_up(db, recipe)
        return False
    settings = RecipeSettings.model_validate(recipe.settings)
    if ended.number >= settings.rounds:
        move_recipe(db, recipe.id, expected=[RecipeState.active], to=RecipeState.finished)
        say(f"{recipe.name} is finished after {ended.number} rounds")
        return False
    champion_id = ended.champion_id
    if ended.state is RoundState.promoted:
        champion_id = get_policy(db, str(ended.evidence["policy"])).id
    save_round(db, first_state(recipe.id, ended.number + 1, champion_id))
    return True
