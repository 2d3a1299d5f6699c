"""What a person does to a recipe: start, pause, resume, skip, decide, fork, cancel."""

from __future__ import annotations

from typing import Any, Literal

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, NotEnoughData, StudioError
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.content.prompts import list_prompts
from feedback.store.datasets.datasets import list_datasets
from feedback.store.labeling.batches import find_batch, list_batches, retire_open
from feedback.store.models.checkpoints import list_checkpoints
from feedback.store.models.policies import check_has_weights, get_champion, get_policy, list_policies
from feedback.store.models.rounds import change_round, get_recipe, last_round, move_recipe, save_recipe
from feedback.store.models.runs import find_run
from feedback.store.reports.comparisons import withdraw_comparisons
from feedback.tables import PolicyRow
from feedback.types import Recipe, RecipeState, RoundState, RunState, Split, first_state, now, usable_name
from training.evaluation.people import PEOPLE
from training.home import Home
from training.rounds.collecting import MOST_FILLS
from training.rounds.context import cancel_runs
from training.rounds.learning import step_name
from training.rounds.recipe import ROUND_REWARD, RecipeSettings, parse_recipe, round_name
from training.runs import queue
from training.runs.validation import check_oracle

SKIPPED = {
    RoundState.filling: "labeling begins with the pairs that are there",
    RoundState.labeling: "what was judged is frozen",
    RoundState.evaluating: "the gate decides by what was measured",
    RoundState.gate: "the new policy is held",
}
"""The states that can be skipped, and what follows."""
PAUSED_BY_PERSON = "paused by a person"
_RESUMABLE = (RunState.failed, RunState.cancelled, RunState.interrupted)


def start(db: Database, name: str, given: dict[str, Any], *, forked_from: str | None = None) -> RecipeRow:
    """Keep a recipe; the worker begins its first round.

    Raises:
        Conflict: When the name is taken.
        InvalidInput: For settings that do not fit together, and where no policy serves and none is named.
        NotEnoughData: Where no prompt carries the tags, or none is held out to compare policies on.
    """
    settings, policy = check(db, name, given)
    settings = settings.model_copy(update={"policy": policy.name})
    recipe = Recipe(name=name, settings=settings.model_dump(mode="json"), forked_from=forked_from)
    return save_recipe(db, recipe, first_state("", 1, policy.id))


def check(db: Database, name: str, given: dict[str, Any]) -> tuple[RecipeSettings, PolicyRow]:
    """The settings of a recipe and the policy it begins with; raises as ``start``, which keeps it."""
    settings = parse_recipe(given)
    policy = _start_policy(db, settings)
    _check_prompts(db, settings)
    for rule in {settings.annotator, settings.judge} - {PEOPLE, ROUND_REWARD}:
        check_oracle(db, rule)
    _check_names(db, name, settings)
    return settings, policy


def pause(db: Database, key: str) -> RecipeRow:
    """Begin nothing more; runs under way go on to their end. Conflict for a recipe that is not active."""
    return _move(db, key, RecipeState.active, RecipeState.paused, PAUSED_BY_PERSON)


def resume(db: Database, home: Home, key: str) -> RecipeRow:
    """Go on with a paused recipe; runs of its round that failed or were cancelled are queued again."""
    recipe = get_recipe(db, key)
    if recipe.state is not RecipeState.paused:
        raise _refused(recipe, "resumed", RecipeState.paused)
    row = last_round(db, recipe.id)
    left = row.evidence.get("left", [])
    for purpose, run_id in row.evidence.get("runs", {}).items():
        run = find_run(db, run_id)
        if purpose not in left and run is not None and run.state in _RESUMABLE:
            queue.resume(db, home, run.id)
    if row.state is RoundState.filling:
        _change(db, recipe, row, fill_limit=row.evidence.get("fills", 0) + MOST_FILLS)
    return _move(db, key, RecipeState.paused, RecipeState.active)


def skip(db: Database, key: str) -> str:
    """Wait no longer in the present state; returns what follows. Conflict where a state cannot be skipped."""
    recipe, row = _working(db, key)
    if row.state not in SKIPPED:
        valid = ", ".join(state.value for state in SKIPPED)
        raise Conflict(f"{recipe.name!r} is {row.state.value}, which cannot be skipped; these can: {valid}.")
    _change(db, recipe, row, skip=row.state.value)
    # What it waited for in vain is not waited for any more; what a person paused stays so
    if recipe.state is RecipeState.paused and recipe.reason != PAUSED_BY_PERSON:
        _move(db, key, RecipeState.paused, RecipeState.active)
    return SKIPPED[row.state]


def decide(db: Database, key: str, choice: Literal["promote", "hold"], by: str) -> RoundRow:
    """Answer the gate's question. Conflict for a round that asks none."""
    if choice not in ("promote", "hold"):
        raise InvalidInput(f"{choice!r:.40} is no decision. Valid: promote, hold.")
    recipe, row = _working(db, key)
    if row.state is not RoundState.gate:
        raise Conflict(f"{recipe.name!r} is {row.state.value}: nothing is to be decided before its gate.")
    if recipe.state is RecipeState.paused:
        raise Conflict(f"{recipe.name!r} is paused; resume it first.")
    return _change(db, recipe, row, decision={"choice": choice, "by": by, "at": now().isoformat()})


def fork(db: Database, key: str, name: str, changes: dict[str, Any]) -> RecipeRow:
    """A new recipe with this one's settings but for ``changes``, from the policy that its newest round started from."""
    recipe = get_recipe(db, key)
    policy = get_policy(db, last_round(db, recipe.id).champion_id).name
    return start(db, name, {**recipe.settings, "policy": policy, **changes}, forked_from=recipe.id)


def cancel(db: Database, key: str) -> RecipeRow:
    """End a recipe: its runs are cancelled and its open pairs withdrawn. What it made is kept.

    The round ends first, so that nothing goes on; a cancel that was cut short is finished by the next one, or by the
    worker.
    """
    recipe = get_recipe(db, key)
    if recipe.state.is_terminal:
        raise Conflict(f"{recipe.name!r} is {recipe.state.value} already.")
    row = last_round(db, recipe.id)
    while not row.state.is_terminal and not _end(db, row):
        row = last_round(db, recipe.id)
    return clean_up(db, recipe)


def clean_up(db: Database, recipe: RecipeRow) -> RecipeRow:
    """Finish a cancel whose round has ended: runs, open pairs, the recipe's own state."""
    row = last_round(db, recipe.id)
    cancel_runs(db, row.evidence)
    if "evaluate by people" in row.evidence.get("runs", {}):
        withdraw_comparisons(db, get_policy(db, str(row.evidence["policy"])).id, row.champion_id)
    batch = find_batch(db, round_name(recipe.name, row.number))
    if batch is not None:
        retire_open(db, batch.id)
    waiting = [RecipeState.active, RecipeState.paused]
    moved = move_recipe(db, recipe.id, expected=waiting, to=RecipeState.cancelled, reason="by a person")
    return moved or get_recipe(db, recipe.id)


def _end(db: Database, row: RoundRow) -> bool:
    moment = now()
    history = [*row.history, {"state": RoundState.cancelled.value, "at": moment.isoformat()}]
    return change_round(db, row, state=RoundState.cancelled, since=moment, waits_for="", history=history) is not None


def _check_names(db: Database, name: str, settings: RecipeSettings) -> None:
    """Refuse a recipe whose rounds would make something with a name that is too long or taken."""
    names = [round_name(name, number) for number in range(1, settings.rounds + 1)]
    made = {f"{one}-reward" for one in names}
    made |= {step_name(one, n, step.method) for one in names for n, step in enumerate(settings.methods[:-1])}
    usable_name(max({*names, *made}, key=len), "round")
    kept = {
        "dataset": {row.name for row in list_datasets(db)},
        "batch": {one.batch.name for one in list_batches(db)},
        "policy": {row.name for row in list_policies(db)},
        "checkpoint": {row.name for row in list_checkpoints(db)},
    }
    for noun, taken in kept.items():
        met = sorted(taken & ({*names, *made} if noun in ("policy", "checkpoint") else set(names)))
        if met:
            words = f"There is already a {noun} {met[0]!r}, which a round of {name!r} would make; choose another name."
            raise Conflict(words)


def _start_policy(db: Database, settings: RecipeSettings) -> PolicyRow:
    policy = get_policy(db, settings.policy) if settings.policy else get_champion(db)
    if policy is None:
        raise InvalidInput("No policy serves yet; name one with --policy, or run `studio policies promote NAME`.")
    check_has_weights(policy)
    return policy


def _check_prompts(db: Database, settings: RecipeSettings) -> None:
    if not list_prompts(db, split=Split.work, tags=settings.tags, brought=True, limit=1):
        tags = f" that carry {', '.join(settings.tags)}" if settings.tags else ""
        raise NotEnoughData(f"There are no prompts{tags}; bring some by `studio prompts import FILE`.")
    if not list_prompts(db, split=Split.evaluation, brought=True, limit=1):
        raise NotEnoughData(
            'There are no held-out prompts to compare policies on; import prompts marked "split": "evaluation" by '
            "`studio prompts import FILE`."
        )


def _working(db: Database, key: str) -> tuple[RecipeRow, RoundRow]:
    recipe = get_recipe(db, key)
    row = last_round(db, recipe.id)
    if recipe.state.is_terminal or row.state.is_terminal:
        raise Conflict(f"{recipe.name!r} has no round under way: it is {recipe.state.value}.")
    return recipe, row


def _change(db: Database, recipe: RecipeRow, row: RoundRow, **evidence: Any) -> RoundRow:
    """Add to a round's evidence while it is in the state in which it was seen, whatever is counted meanwhile."""
    seen = row
    while seen.state is row.state and seen.number == row.number:
        changed = change_round(db, seen, evidence={**seen.evidence, **evidence})
        if changed is not None:
            return changed
        seen = last_round(db, recipe.id)
    raise Conflict(f"{recipe.name!r} is {seen.state.value} meanwhile; look at it again and repeat what still applies.")


def _move(db: Database, key: str, expected: RecipeState, to: RecipeState, reason: str = "") -> RecipeRow:
    recipe = get_recipe(db, key)
    moved = move_recipe(db, recipe.id, expected=[expected], to=to, reason=reason)
    if moved is None:
        verbs = {RecipeState.paused: "paused", RecipeState.active: "resumed"}
        raise _refused(get_recipe(db, key), verbs[to], expected)
    return moved


def _refused(recipe: RecipeRow, verb: str, expected: RecipeState) -> StudioError:
    return Conflict(f"{recipe.name!r} is {recipe.state.value}; only one that is {expected.value} can be {verb}.")
