"""The first half of a round: the pool is filled, people or a rule judge, the judgments become a dataset."""

from __future__ import annotations

from typing import Any

from feedback.datasets.freeze import freeze, preview
from feedback.errors import Conflict, NotEnoughData
from feedback.store.content.prompts import list_prompts
from feedback.store.datasets.datasets import get_dataset
from feedback.store.labeling.batches import count_ties, ensure_batch, find_batch, retire_open
from feedback.store.labeling.matchups import MatchupCounts
from feedback.store.models.rounds import list_rounds
from feedback.tables import DatasetRow
from feedback.types import FOR_PEOPLE, Batch, DatasetFilters, RoundState, RunState, Source, Split
from training.rewards.oracle_annotator import annotator_name
from training.rounds.context import RoundBlocked, RoundContext, Step
from training.rounds.recipe import round_name
from training.runs.validation import MIN_TRAINING_PAIRS

# A few replies of a fill come out identical or empty and make no pair.
SPARE_SHARE = 0.1
MOST_PAIRS_PER_PROMPT = 4  # in one fill
MOST_FILLS = 20
MOST_AT_ONCE = 100_000  # prompts of a fill, or pairs of a judging; further runs bring the rest
SEEDS = 2**31
# Annotators are given the pairs of a round before the rest of the pool, and those of a rule last.
PRIORITY = {True: 1, False: -1}
# What a rule judged is measured on fresh replies to held-out prompts; what people judged measures the reward model too.
TEST_SHARES = {True: 0.1, False: 0.0}


def fill(context: RoundContext) -> Step:
    """Draw replies until there are pairs enough to judge."""
    fills = int(context.evidence.get("fills", 0))
    pool = context.pool()
    missing = context.settings.pairs - _judged(pool) - pool.open - pool.disputed
    if missing <= 0:
        return Step(RoundState.labeling, _labeling_words(context, pool))
    if context.skips() and pool.open + _judged(pool):
        return _leave_filling(context, fills, pool)
    if fills >= context.evidence.get("fill_limit", MOST_FILLS):
        raise _too_few(pool, context.settings.pairs)
    ensure_batch(context.db, _batch(context))
    run = context.run(f"fill {fills}", "generate", _fill_config(context, missing, fills))
    if run.state is not RunState.succeeded:
        return context.stay(f"replies by {context.champion}, for {missing} more pairs")
    context.evidence["fills"] = fills + 1
    after = context.pool()
    if after.open + _judged(after) + after.disputed == 0 or not run.result.get("matchups", after.open):
        raise _too_few(after, context.settings.pairs)
    return fill(context)


def _leave_filling(context: RoundContext, fills: int, pool: MatchupCounts) -> Step:
    """Go on with the pairs that are there: the run that draws more is cancelled, and is not asked for again."""
    context.cancel_runs()
    if f"fill {fills}" in context.evidence.get("runs", {}):
        context.evidence["fills"] = fills + 1
    return Step(RoundState.labeling, _labeling_words(context, pool)) if pool.open else _freeze(context)


def _batch(context: RoundContext) -> Batch:
    """The part of the pool that is this round's: people do not judge for a rule, nor a rule for people."""
    by_people = context.settings.by_people
    whose = FOR_PEOPLE if by_people else annotator_name(context.settings.annotator)
    return Batch(
        name=context.name, required=context.settings.opinions, priority=PRIORITY[by_people], reserved_for=whose
    )


def label(context: RoundContext) -> Step:
    """Wait until people, or the rule, have judged the pairs; then freeze what they said."""
    pool = context.pool()
    judged = _judged(pool)
    if judged >= context.settings.pairs or (context.skips() and judged):
        return _freeze(context)
    if pool.open == 0 and pool.disputed == 0:
        return Step(RoundState.filling, "more pairs")
    if context.settings.by_people or pool.open == 0:
        return context.stay(_labeling_words(context, pool))
    judgings = int(context.evidence.get("judgings", 0))
    run = context.run(
        f"judge {judgings}", "judge", _judge_config(context, min(context.settings.pairs - judged, pool.open), judgings)
    )
    if run.state is RunState.succeeded:
        context.evidence["judgings"] = judgings + 1
        if not run.result["judged"] + run.result.get("before", 0):
            raise RoundBlocked(
                f"{context.settings.annotator} could judge none of {pool.open} open pairs: others hold their leases."
            )
    return context.stay(_labeling_words(context, context.pool()))


def _judged(pool: MatchupCounts) -> int:
    return pool.satisfied + pool.adjudicated


def _labeling_words(context: RoundContext, pool: MatchupCounts) -> str:
    who = "people" if context.settings.by_people else context.settings.annotator
    disputed = f"; {pool.disputed} disputed pairs wait for a reviewer" if pool.disputed else ""
    return f"{who}: {_judged(pool)} of {context.settings.pairs} pairs judged{disputed}"


def _too_few(pool: MatchupCounts, wanted: int) -> NotEnoughData:
    return NotEnoughData(
        f"Only {_judged(pool) + pool.open} of {wanted} pairs could be drawn; import more prompts "
        "(`studio prompts import FILE`) and resume, or skip to train on what was judged."
    )


def _fill_config(context: RoundContext, missing: int, attempt: int) -> dict[str, Any]:
    wanted = int(missing * (1 + SPARE_SHARE)) + 2
    prompts = max(len(list_prompts(context.db, split=Split.work, tags=context.settings.tags, brought=True)), 1)
    # One pair per prompt while there are prompts enough: variety of prompts teaches more than of replies.
    pairs_per_prompt = min(-(-wanted // prompts), MOST_PAIRS_PER_PROMPT)
    return {
        "policy": context.champion,
        "per_prompt": 2 * pairs_per_prompt,
        "limit": min(-(-wanted // pairs_per_prompt), prompts, MOST_AT_ONCE),
        "seed": (context.seed + attempt) % SEEDS,
        "batch": context.name,
        "required": context.settings.opinions,
        **({"tags": context.settings.tags} if context.settings.tags else {}),
    }


def _judge_config(context: RoundContext, count: int, attempt: int) -> dict[str, Any]:
    return {
        "oracle": context.settings.annotator,
        "count": min(count, MOST_AT_ONCE),
        "noise": context.settings.noise,
        "seed": (context.seed + attempt) % SEEDS,
        "batch": context.name,
    }


def _freeze(context: RoundContext) -> Step:
    filters = _filters(context)
    usable = preview(context.db, filters).counts()["train"]
    if usable < MIN_TRAINING_PAIRS:
        raise NotEnoughData(
            f"Only {usable} of the {_judged(context.pool())} judged pairs can be trained on, and at least "
            f"{MIN_TRAINING_PAIRS} are needed: the others are ties or were left out. Judge more pairs and resume, or "
            "start a recipe with more."
        )
    dataset = _dataset(context, filters)
    context.evidence |= {"dataset": dataset.name, "pairs": dataset.counts["pairs"], "judged": _judged(context.pool())}
    batch = find_batch(context.db, context.name)
    if batch is not None:
        context.evidence["ties"] = count_ties(context.db, batch.id)
        context.evidence["withdrawn"] = retire_open(context.db, batch.id)
    return Step(RoundState.frozen, "training to begin")


def _filters(context: RoundContext) -> DatasetFilters:
    """All that was judged in the rounds of this recipe so far: later rounds keep what earlier ones learned from."""
    by_people = context.settings.by_people
    return DatasetFilters(
        sources=(Source.human,) if by_people else (Source.simulated,),
        annotators=() if by_people else (annotator_name(context.settings.annotator),),
        batches=tuple(
            round_name(context.recipe.name, row.number) for row in list_rounds(context.db, context.recipe.id)
        ),
        test_share=TEST_SHARES[by_people],
        split_seed=context.settings.seed,
    )


def _dataset(context: RoundContext, filters: DatasetFilters) -> DatasetRow:
    """The frozen dataset of the round; the one that an advance which was killed froze counts too."""
    try:
        return freeze(context.db, context.name, filters)
    except Conflict:
        there = get_dataset(context.db, context.name)
        if there.filters != filters.model_dump(mode="json"):
            raise RoundBlocked(f"The name {context.name!r} belongs to a dataset that is not of this recipe.") from None
        return there
