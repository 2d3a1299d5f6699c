"""What to know and to do about a recipe, in sentences: how far labeling is and when it ends, which method fits, and
what the win rates of its rounds say.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from feedback.database.engine import Database
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.labeling.batches import count_opinions, find_batch
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.runs import find_run
from feedback.types import RecipeState, RoundState, RunState, now
from training.rounds.recipe import RecipeSettings, round_name

FEW_PAIRS, MANY_PAIRS = 200, 400
"""Below the first DPO alone is advised; from the second a reward model has enough to learn from."""
FEWEST_FOR_PACE = 5  # judgments that tell a pace
MOST_TIES = 0.5
"""Share of judgments without a preference above which a round is said to learn little."""
PACE_WINDOW = timedelta(hours=3)
ROUNDS_FOR_CURVE = 3


def guidance(db: Database, recipe: RecipeRow, rounds: Sequence[RoundRow]) -> list[str]:
    """The sentences that apply now, what needs a person first."""
    settings = RecipeSettings.model_validate(recipe.settings)
    row = rounds[-1]
    found = []
    if recipe.state is RecipeState.paused:
        found.append(f"Paused: {recipe.reason.rstrip('.')}.")
    elif recipe.state is RecipeState.active and row.waits_for:
        found.append(f"Round {row.number} waits for {row.waits_for}{_progress(db, row)}.")
    if row.state in (RoundState.filling, RoundState.labeling) and not recipe.state.is_terminal and settings.by_people:
        found += _pace(db, recipe, row, settings, now())
    found += _tie_warning(settings, row)
    found += [ended.evidence["note"] for ended in rounds[-2:] if "note" in ended.evidence]
    found += _method_advice(settings, rounds)
    return [*found, *curve_words(rounds)]


def _progress(db: Database, row: RoundRow) -> str:
    """How far the run is that the round waits for, with its time left."""
    runs = [find_run(db, run_id) for run_id in row.evidence.get("runs", {}).values()]
    working = next((run for run in runs if run is not None and run.state is RunState.running), None)
    if working is None:
        return ""
    words = f", {working.progress_text}" if working.progress_text else ""
    return f" ({100 * working.progress:.0f} %{words})"


def command_of(recipe: RecipeRow, row: RoundRow) -> str:
    """What answers the recipe in a shell, as a sentence; empty where it waits for no command."""
    if recipe.state is RecipeState.paused:
        return f"`studio rounds resume {recipe.name}` goes on."
    if recipe.state is RecipeState.active and row.state is RoundState.gate:
        return f"`studio rounds decide {recipe.name} promote` or `hold` answers."
    return ""


def _pace(db: Database, recipe: RecipeRow, row: RoundRow, settings: RecipeSettings, at: datetime) -> list[str]:
    """When labeling ends at the pace of the last hours, if that can be told."""
    batch = find_batch(db, round_name(recipe.name, row.number))
    if batch is None:
        return []
    pool = count_matchups(db, batch_id=batch.id)
    left = (settings.pairs - pool.satisfied - pool.adjudicated) * settings.opinions
    given, first = count_opinions(db, batch.id, since=at - PACE_WINDOW)
    if given < FEWEST_FOR_PACE or first is None or left <= 0:
        return []
    seconds = max((at - first).total_seconds(), 1.0) / given * left
    end = (at + timedelta(seconds=seconds)).astimezone()
    day = "" if end.date() == at.astimezone().date() else f"{end:%B} {end.day}, "
    return [f"{left} judgments are missing; at today's pace labeling ends about {day}{end:%H:%M}."]


def _tie_warning(settings: RecipeSettings, row: RoundRow) -> list[str]:
    """That a round has little to learn from, where most of its judgments prefer neither reply."""
    ties, judged = int(row.evidence.get("ties", 0)), int(row.evidence.get("judged", 0))
    if ties <= MOST_TIES * judged:
        return []
    remedy = "Choose a rule that tells replies apart." if not settings.by_people else "Draw replies that differ more."
    return [f"{ties} of {judged} judgments of round {row.number} prefer neither reply, so little is learned. {remedy}"]


def _method_advice(settings: RecipeSettings, rounds: Sequence[RoundRow]) -> list[str]:
    """Which methods fit so many pairs: later rounds learn from the pairs of earlier ones as well."""
    pairs = int(rounds[-1].evidence.get("pairs", 0)) or settings.pairs * len(rounds)
    rewarded = settings.trains_reward and settings.reward_model == "auto"
    if pairs < FEW_PAIRS and rewarded:
        return [f"{pairs} pairs are few for a reward model: below {FEW_PAIRS}, DPO learns more from them."]
    if pairs >= MANY_PAIRS and not rewarded and {step.method for step in settings.methods} == {"dpo"}:
        return [f"{pairs} pairs are enough for a reward model and PPO as well; fork the recipe to try both."]
    return []


def curve_words(rounds: Sequence[RoundRow]) -> list[str]:
    """What the win rates over the champion of three rounds or more say."""
    known = [row for row in rounds if _figures(row)]
    if len(known) < ROUNDS_FOR_CURVE:
        return []
    last = known[-ROUNDS_FOR_CURVE:]
    better = [_figures(row)["low"] > 0.5 for row in last]
    if all(better):
        return [f"Each of the last {ROUNDS_FOR_CURVE} rounds was surely better than the one before: go on."]
    if not any(better):
        return [
            f"None of the last {ROUNDS_FOR_CURVE} rounds was surely better than its champion: more pairs in a round, "
            "another method, or other prompts would tell more than further rounds like these."
        ]
    return [f"{sum(better)} of the last {ROUNDS_FOR_CURVE} rounds were surely better than their champions."]


def _figures(row: RoundRow) -> dict[str, Any]:
    figures = row.evidence.get("over_champion") or {}
    return figures if figures.get("low") is not None else {}
