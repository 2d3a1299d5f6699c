"""A recipe and its rounds as plain JSON: what command, page and REST show."""

from __future__ import annotations

from typing import Any

from feedback.database.engine import Database
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.models.policies import list_policies
from feedback.store.models.rounds import list_rounds
from feedback.store.models.runs import find_run
from training.rounds.acts import SKIPPED
from training.rounds.guidance import command_of, guidance


def account_of(db: Database, recipe: RecipeRow, *, every_run: bool = True) -> dict[str, Any]:
    """The recipe with its settings, guidance and rounds, first to last.

    Without ``every_run`` only the last round lists its runs, which saves queries for a recipe of many rounds.
    """
    rounds = list_rounds(db, recipe.id)
    names = {row.id: row.name for row in list_policies(db)}
    return summary_of(recipe, rounds[-1]) | {
        "settings": recipe.settings,
        "forked_from": recipe.forked_from,
        "guidance": guidance(db, recipe, rounds),
        "command": command_of(recipe, rounds[-1]),
        "rounds": [_round(db, row, names, with_runs=every_run or row is rounds[-1]) for row in rounds],
    }


def summary_of(recipe: RecipeRow, row: RoundRow) -> dict[str, Any]:
    """A recipe on one line: the state of its newest round and what that round waits for."""
    return {
        "id": recipe.id,
        "name": recipe.name,
        "state": recipe.state.value,
        "reason": recipe.reason,
        "round": row.number,
        "of": recipe.settings["rounds"],
        "round_state": row.state.value,
        "waits_for": row.waits_for,
        "since": row.since.isoformat(),
        "created_at": recipe.created_at.isoformat(),
    }


def _round(db: Database, row: RoundRow, names: dict[str, str], *, with_runs: bool) -> dict[str, Any]:
    asked = row.evidence.get("runs", {}) if with_runs else {}
    runs = {purpose: find_run(db, run_id) for purpose, run_id in asked.items()}
    return {
        "number": row.number,
        "state": row.state.value,
        "since": row.since.isoformat(),
        "waits_for": row.waits_for,
        "champion": names.get(row.champion_id, row.champion_id),
        "can_skip": row.state in SKIPPED,
        "evidence": {name: value for name, value in row.evidence.items() if name != "runs"},
        "runs": [
            {
                "purpose": purpose,
                "id": run.id,
                "method": run.method,
                "state": run.state.value,
                "progress": run.progress,
                "progress_text": run.progress_text,
            }
            for purpose, run in runs.items()
            if run is not None
        ],
        "history": row.history,
    }
