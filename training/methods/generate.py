"""Fill the pool: draw replies to prompts that have no open matchup, and pair them up for the annotators; or put the
replies of two policies side by side.

Replies are saved chunk by chunk. The first chunk is one prompt, so that the first pair can be judged within seconds;
each is larger than the one before, up to a full batch.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from feedback.errors import EndpointFailed, InvalidInput, RunFailed
from feedback.tables import GenerationRow, PromptRow
from feedback.types import Batch, Generation, Matchup, MatchupKind, Purpose
from training.generation.decoding import OnToken
from training.generation.endpoint import Endpoint
from training.generation.endpoint_answers import REFUSED
from training.generation.own_sampling import own_sampling
from training.generation.sampling import Replier, Reply, at_once, fits, log_drawing, log_unfinished, sample, use_half
from training.models.chat import PromptTooLong, Unencodable
from training.reporting.pace import DrawingPace
from training.reporting.reporter import RunContext
from training.settings.generate import GenerateSettings
from training.smollm2.convert import ensure_base

FIRST_CHUNK = 1  # prompts; somebody may be waiting for the first pair
GROWTH = 4  # times as many prompts in each chunk as in the one before
ASKED_FOR = 1  # the priority of pairs that somebody waits for: they come before the rest of the pool
REFUSALS_IN_VAIN = 16  # so many prompts that a server refuses, and none that it answered: it will not answer the next


@dataclass(frozen=True)
class Side:
    """A policy that replies, and the seed of its draw."""

    policy_id: str
    replier: Replier
    seed: int
    half: bool = False  # it draws in bf16


@dataclass(frozen=True)
class Place:
    """Where the pairs of a run go in the pool: into a batch, with its priority and who judges it, or into none."""

    batch_id: str | None = None
    priority: int = 0
    reserved_for: str | None = None


@dataclass
class Filled:
    """What a run has put into the pool so far, and what it could not use."""

    generations: int = 0
    matchups: int = 0
    identical: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0

    def result(self, seed: int) -> dict[str, Any]:
        """The figures of the run; ``refused`` counts prompts, its reasons beside it.

        ``unfinished`` counts replies that were cut inside their reasoning: they say nothing, and are not kept.
        """
        return {
            "generations": self.generations,
            "matchups": self.matchups,
            "identical": self.identical,
            "refused": sum(self.refused.values()),
            "refused_reasons": dict(self.refused),
            "unfinished": self.unfinished,
            "seed": seed,
        }


def run(context: RunContext) -> dict[str, Any]:
    """Draw and pair; the result counts generations, matchups, identical replies and refused prompts.

    Where no prompt waits for replies, ``nothing`` in the result says why.
    """
    from feedback.store.models.policies import get_champion, get_policy

    settings: GenerateSettings = context.settings
    row = get_policy(context.db, settings.policy) if settings.policy else get_champion(context.db)
    if row is None:
        raise InvalidInput("There is no champion to generate with: name a policy, or promote one first.")
    place = _place(context, settings)
    prompts = _prompts(context, settings, row.id, place)
    seed = settings.seed if settings.seed is not None else secrets.randbelow(2**31)
    filled = Filled()
    answered = take_up(context, settings, seed, filled, place)
    prompts = [prompt for prompt in prompts if prompt.id not in answered][: max(0, settings.limit - len(answered))]
    if answered and not prompts:
        return filled.result(seed)
    if not prompts:
        why = _why_nothing(context, settings)
        context.progress.log(why)
        return filled.result(seed) | {"nothing": why}
    ensure_base(row.base, context.progress.report)
    context.progress.log(f"loading {row.name}")
    context.progress.report(0.0, "loading the model")  # by no name: whoever is to judge its replies may be reading this
    sides = [_side(context, settings, row.id, seed)]
    if settings.against is not None:
        other = get_policy(context.db, settings.against)
        ensure_base(other.base, context.progress.report)
        context.progress.log(f"loading {other.name}")
        # Its own seed: with the same numbers two policies that differ little would say the same.
        sides.append(_side(context, settings, other.id, seed + 1))
    settings = settings.resolved(own_sampling(sides[0].replier))
    for side in sides:
        log_drawing(side.replier, settings.sampling(), context.progress.log)
    usable = prompts
    for side in sides:
        usable = refuse_unusable(side.replier, usable, settings, filled, context.progress)
    _draw_chunks(context, sides, usable, settings, seed, filled, place)
    log_unfinished(filled.unfinished, filled.generations, settings.sampling(), context.progress.log)
    return filled.result(seed)


def _place(context: RunContext, settings: GenerateSettings) -> Place:
    from feedback.store.labeling.batches import ensure_batch

    if settings.batch is None:
        return Place(priority=ASKED_FOR if settings.is_measurement else 0)
    batch = ensure_batch(context.db, Batch(name=settings.batch, required=settings.required))
    return Place(batch.id, batch.priority, batch.reserved_for)


def _side(context: RunContext, settings: GenerateSettings, policy_id: str, seed: int) -> Side:
    from training.checkpoints.opening import open_replier

    replier = open_replier(context.db, context.home, policy_id)
    half = settings.precision == "auto" and use_half(replier, context.progress.log)
    return Side(policy_id, replier, seed, half)


def _draw_chunks(
    context: RunContext,
    sides: Sequence[Side],
    usable: Sequence[PromptRow],
    settings: GenerateSettings,
    seed: int,
    filled: Filled,
    place: Place,
) -> None:
    """Draw, save and pair up chunk by chunk; progress moves with each token."""
    done, pace, progress = 0, DrawingPace(len(usable) * settings.per_prompt), context.progress

    def tell() -> None:
        progress.report(pace.share, f"{done} of {len(usable)} prompts, {filled.matchups} matchups{pace.words}")

    def told(drawn: float, tokens: int) -> None:
        progress.check()
        pace.look(drawn, tokens)
        tell()

    together = min(at_once(side.replier, settings.batch_size) for side in sides)
    for chunk in chunks(usable, together // settings.per_prompt):
        progress.check()
        fill(context, sides, chunk, settings, seed, filled, told, place)
        refuse_in_vain(sides, filled, last=done + len(chunk) == len(usable))
        done += len(chunk)
        pace.finish(len(chunk) * settings.per_prompt)
        tell()
        progress.metrics(done, matchups=filled.matchups, generations=filled.generations)


def _prompts(context: RunContext, settings: GenerateSettings, policy_id: str, place: Place) -> list[PromptRow]:
    """Prompts that wait for nobody's judgment, in the batch if there is one.

    Where two policies are measured, those on which they met least.
    """
    from feedback.store.labeling.matchups import list_prompts_without_open_matchup
    from feedback.store.models.policies import get_policy
    from training.evaluation.people import prompts_to_compare

    if settings.is_measurement:
        other = get_policy(context.db, str(settings.against))
        return prompts_to_compare(context.db, policy_id, other.id, settings.limit)
    return list_prompts_without_open_matchup(
        context.db, limit=settings.limit, split=settings.split, batch_id=place.batch_id, tags=settings.tags
    )


def _why_nothing(context: RunContext, settings: GenerateSettings) -> str:
    """Why no prompt is to be replied to, and what to do about it."""
    from feedback.store.content.prompts import list_prompts

    if settings.is_measurement:
        return (
            "There are no held-out prompts to compare two policies on, so nothing was drawn: import prompts marked "
            '"split": "evaluation" by `studio prompts import FILE`.'
        )
    prompts = len(list_prompts(context.db, split=settings.split, tags=settings.tags, brought=True))
    tags = ", ".join(settings.tags)
    if prompts == 0:
        what = f"that carry {tags}" if tags else "to reply to"
        return f"There are no prompts {what}, so nothing was drawn: bring some by `studio prompts import FILE`."
    carry = f" that carry {tags}" if tags else ""
    every = "The one prompt has" if prompts == 1 else f"Every one of the {prompts} prompts{carry} has"
    return (
        f"{every} an open matchup, so nothing was drawn: have people judge them on the Label tab of `studio up`, or a "
        "rule by `studio judge --oracle RULE --count N`, or bring more prompts by `studio prompts import FILE`."
    )


def take_up(
    context: RunContext, settings: GenerateSettings, seed: int, filled: Filled, place: Place | None = None
) -> set[str]:
    """The prompts an earlier attempt answered, counted; its replies that were not paired before it died are now."""
    from feedback.store.content.generations import list_generations
    from feedback.store.labeling.matchups import list_matched, save_matchups

    if context.run.attempt == 1:
        return set()
    rows = list_generations(context.db, run_id=context.run.id)
    answered = {row.prompt_id for row in rows}
    matched = list_matched(context.db, sorted(answered))
    paired = {row.prompt_id for row in rows if row.id in matched}
    matchups = pair_up(rows, seed, settings, place)
    save_matchups(context.db, [matchup for matchup in matchups if matchup.prompt_id not in paired])
    filled.generations, filled.matchups = len(rows), len(matchups)
    return answered


def refuse_unusable(
    policy: Replier,
    prompts: Sequence[PromptRow],
    settings: GenerateSettings,
    filled: Filled,
    progress: Any,
) -> list[PromptRow]:
    """The prompts that can be given to the model; the others are counted and logged. RunFailed when none can.

    A prompt is left out where it does not fit the model's window, or where its chat template refuses it.
    """
    usable, last = [], ""
    for prompt in prompts:
        try:
            fits(policy, prompt.messages, settings.sampling())
            usable.append(prompt)
        except (PromptTooLong, Unencodable) as error:
            filled.refused["too_long" if isinstance(error, PromptTooLong) else "template"] += 1
            last = str(error)
            progress.log(f"prompt {prompt.id} is left out: {error}")
    if not usable:
        raise RunFailed(f"None of the {len(prompts)} prompts can be given to the model. The last one: {last}")
    return usable


def refuse_in_vain(sides: Sequence[Side], filled: Filled, *, last: bool) -> None:
    """EndpointFailed, with the server's words, when it refused every prompt and had its chances."""
    words = [side.replier.last_refusal for side in sides if isinstance(side.replier, Endpoint)]
    if not filled.matchups and filled.refused[REFUSED] >= (1 if last else REFUSALS_IN_VAIN):
        raise EndpointFailed(" ".join(filter(None, words)))


def chunks(prompts: Sequence[PromptRow], size: int) -> Iterator[Sequence[PromptRow]]:
    """A small chunk first, then ever larger ones of ``size`` prompts at most, but one at least."""
    start, length = 0, FIRST_CHUNK
    while start < len(prompts):
        yield prompts[start : start + length]
        start += length
        length = max(1, min(size, length * GROWTH))


def fill(
    context: RunContext,
    sides: Sequence[Side],
    prompts: Sequence[PromptRow],
    settings: GenerateSettings,
    seed: int,
    filled: Filled,
    told: OnToken = lambda drawn, tokens: None,
    place: Place | None = None,
) -> None:
    """Draw replies to one chunk of prompts, each side its share, save them, and save the matchups they make."""
    from feedback.store.content.generations import save_generations
    from feedback.store.labeling.matchups import save_matchups

    sampling = settings.sampling()
    share = settings.per_prompt // len(sides)
    generations = []
    half = {side.policy_id: {"precision": "bf16"} if side.half else {} for side in sides}
    for prompt, replies in zip(prompts, _drawn(sides, prompts, share, settings, told), strict=True):
        texts = [" ".join(reply.text.split()) for _, reply in replies if reply.text]
        filled.identical += len(texts) - len(set(texts))
        if any(reply.finish_reason == REFUSED for _, reply in replies):
            filled.refused[REFUSED] += 1
        elif not texts:
            filled.refused["blank"] += 1
        filled.unfinished += sum(reply.unfinished for _, reply in replies)
        generations += [
            Generation(
                prompt_id=prompt.id,
                policy_id=policy_id,
                text=reply.text,
                seed=reply.seed,
                sampling=sampling.model_dump() | half[policy_id],
                finish_reason=reply.finish_reason,
                tokens=reply.tokens,
                run_id=context.run.id,
                reasoning=reply.reasoning or None,
            )
            for policy_id, reply in replies
            if reply.text
        ]
    rows = save_generations(context.db, generations)
    matchups = pair_up(rows, seed, settings, place)
    save_matchups(context.db, matchups)
    filled.generations += len(rows)
    filled.matchups += len(matchups)


def _drawn(
    sides: Sequence[Side], prompts: Sequence[PromptRow], k: int, settings: GenerateSettings, told: OnToken
) -> list[list[tuple[str, Reply]]]:
    """For each prompt ``k`` replies of each side, each with its policy; ``told`` hears of the sides as of one."""
    together: list[list[tuple[str, Reply]]] = [[] for _ in prompts]
    before = tokens = 0

    def told_of_side(drawn: float, more: int) -> None:
        nonlocal tokens
        tokens = max(tokens, spent + more)
        told(before + drawn, tokens)

    for side in sides:
        spent = tokens
        drawn = sample(
            side.replier,
            [prompt.messages for prompt in prompts],
            k,
            settings.sampling(),
            side.seed,
            settings.batch_size,
            on_token=told_of_side,
        )
        before += len(prompts) * k
        for own, replies in zip(together, drawn, strict=True):
            own += [(side.policy_id, reply) for reply in replies]
    return together


def pair_up(
    rows: Sequence[GenerationRow], seed: int, settings: GenerateSettings, place: Place | None = None
) -> list[Matchup]:
    """Random pairs among the replies to each prompt, or one ranking of them all.

    The draw depends on the prompt alone, not on its chunk.
    """
    from feedback.rules.pairing import make_pairs, make_ranking

    make = partial(make_ranking if settings.kind is MatchupKind.rank else make_pairs, required=settings.required)
    if settings.against is not None:
        make = partial(make, across=True)
    place = place or Place()
    make = partial(make, priority=place.priority)
    if settings.is_measurement:
        make = partial(make, purpose=Purpose.evaluate)
    by_prompt: dict[str, list[GenerationRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt_id, []).append(row)
    matchups: list[Matchup] = []
    for prompt_id, own in by_prompt.items():
        matchups += make(own, random.Random(f"{seed}:{prompt_id}"))
    there = {"batch_id": place.batch_id, "reserved_for": place.reserved_for}
    return [matchup.model_copy(update=there) for matchup in matchups]
