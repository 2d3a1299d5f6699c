"""The data of the Overview: the round, judgments per day, champions, active runs, free disk space.

Counts and names alone: no prompt, reply or judgment is read, so that a page may ask every few seconds.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from feedback.database.engine import Database
from feedback.errors import NotFound
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.datasets.datasets import get_dataset
from feedback.store.labeling.batches import find_batch
from feedback.store.labeling.matchups import MatchupCounts, count_matchups
from feedback.store.models.policies import get_champion, list_policies, list_promotions
from feedback.store.models.rounds import get_recipe, last_round, list_promoted, list_recipes
from feedback.store.models.runs import list_runs
from feedback.store.reports.activity import count_by_person
from feedback.tables import RunRow
from feedback.types import RunState, now
from training.evaluation.people import PEOPLE
from training.home import Home
from training.rounds.account import account_of, summary_of
from training.rounds.recipe import round_name

DAYS = 14
"""Days of judging that are counted, today included."""
MOST_RECIPES, MOST_CHAMPIONS, MOST_RUNS = 50, 12, 8
FEWEST_FOR_TIME_LEFT = 0.05
"""Below this share of a run its speed so far does not tell when it ends."""
_ACTIVE = (RunState.queued, RunState.starting, RunState.running, RunState.stopping)


def overview_of(db: Database, home: Home, key: str | None = None) -> dict[str, Any]:
    """The state of a home, with one recipe in full: ``key``, else the newest that is not over, else the newest.

    Raises NotFound where ``key`` names no recipe.
    """
    recipes = list_recipes(db)
    chosen = get_recipe(db, key) if key else _usual(recipes)
    champion = get_champion(db)
    space = shutil.disk_usage(home.path)
    return {
        "champion": champion.name if champion else None,
        "recipes": [summary_of(one, last_round(db, one.id)) for one in recipes[:MOST_RECIPES]],
        "recipe": _in_full(db, chosen) if chosen else None,
        "judgments": _judgments(db, now().astimezone()),
        "champions": _champions(db),
        "runs": [_run(run, now()) for run in list_runs(db, states=_ACTIVE, limit=MOST_RUNS)],
        "worker": home.worker_holder() is not None,
        "disk": {"free": space.free, "total": space.total},
    }


def _usual(recipes: Sequence[RecipeRow]) -> RecipeRow | None:
    return next((one for one in recipes if not one.state.is_terminal), recipes[0] if recipes else None)


def _in_full(db: Database, recipe: RecipeRow) -> dict[str, Any]:
    """A recipe with the pool of its last round, and the ids behind the names in that round's evidence."""
    row = last_round(db, recipe.id)
    evidence = row.evidence
    batch = find_batch(db, round_name(recipe.name, row.number))
    pool = count_matchups(db, batch_id=batch.id) if batch else MatchupCounts(0, 0, 0, 0)
    return {
        **summary_of(recipe, row),
        **account_of(db, recipe, every_run=False),
        "pool": {
            "judged": pool.satisfied + pool.adjudicated,
            "open": pool.open,
            "leased": pool.leased,
            "disputed": pool.disputed,
        },
        "dataset_id": _dataset_id(db, evidence.get("dataset")),
        "policy_id": {one.name: one.id for one in list_policies(db)}.get(str(evidence.get("policy"))),
        "people_compare": (recipe.settings["evaluator"] or recipe.settings["annotator"]) == PEOPLE,
    }


def _dataset_id(db: Database, name: str | None) -> str | None:
    try:
        return get_dataset(db, name).id if name else None
    except NotFound:  # removed meanwhile
        return None


def _judgments(db: Database, at: datetime) -> dict[str, Any]:
    """What people judged on each of the last days of this machine's calendar, those who judged most first."""
    today = at.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    counts: dict[str, list[int]] = {}
    for found in count_by_person(db, starts):
        counts.setdefault(found.annotator, [0] * DAYS)[found.span] = found.judgments
    order = Counter({name: sum(days) for name, days in counts.items()}).most_common()
    return {"days": [f"{start:%Y-%m-%d}" for start in starts], "people": {name: counts[name] for name, _ in order}}


def _champions(db: Database) -> list[dict[str, Any]]:
    """Who served, newest first, with what the gate of the round that made each said of it."""
    promotions = list_promotions(db)
    names = {row.id: row.name for row in list_policies(db)}
    rounds = {str(row.evidence.get("policy")): row for row in list_promoted(db, MOST_CHAMPIONS)}
    seen: set[str] = set()
    shown = []
    for promotion in promotions:
        name = names.get(promotion.policy_id, promotion.policy_id)
        again, row = name in seen, rounds.get(name)
        seen.add(name)
        shown.append(
            {
                "policy": name,
                "policy_id": promotion.policy_id,
                "at": promotion.created_at.isoformat(),
                "again": again,
                "first": promotion is promotions[0],
                **_gate(row if not again else None),
            }
        )
    return shown[: -MOST_CHAMPIONS - 1 : -1]


def _gate(row: RoundRow | None) -> dict[str, Any]:
    """The verdict of a round's gate, its first sentence, and who decided; empty where no round made the policy."""
    gate = row.evidence.get("gate") if row else None
    if row is None or not gate:
        return {"verdict": None, "words": "", "by": None}
    return {
        "verdict": gate["verdict"],
        "words": gate["reasons"][0]["words"] if gate["reasons"] else "",
        "by": row.evidence.get("decision", {}).get("by"),
    }


def _run(run: RunRow, at: datetime) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": str(run.config.get("name") or ""),
        "method": run.method,
        "state": run.state.value,
        "progress": run.progress,
        "text": run.progress_text,
        "seconds_left": _seconds_left(run, at),
    }


def _seconds_left(run: RunRow, at: datetime) -> float | None:
    """Until a run ends at its speed so far, in seconds; None where that cannot be told, or a resumed run began anew."""
    known = run.state is RunState.running and run.attempt == 1 and FEWEST_FOR_TIME_LEFT <= run.progress < 1
    if not known or run.started_at is None:
        return None
    return (at - run.started_at).total_seconds() * (1 - run.progress) / run.progress
