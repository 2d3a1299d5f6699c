"""Which generations to put together.

Replies that look alike never make a matchup: there is nothing to prefer between them, and a vote would be noise. White
space that a page does not show (at the ends of a reply or a line, more than one space between words) makes no
difference here; an indentation or a line break can change what code does or how a poem reads, so it does. Everywhere
else (imports, datasets, exports) replies are identical only when their texts are equal.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from feedback.tables import GenerationRow
from feedback.types import MAX_MATCHUP_SIZE, Matchup, MatchupKind, Purpose


def make_pairs(
    generations: Sequence[GenerationRow],
    rng: random.Random,
    *,
    required: int = 1,
    priority: int = 0,
    purpose: Purpose = Purpose.collect,
    across: bool = False,
) -> list[Matchup]:
    """Disjoint random pairs among the replies to one prompt; which reply comes first is drawn too.

    With ``across`` the two replies of a pair are by different policies. Replies that cannot be paired with a different
    text are left over. Raises ValueError when the generations answer different prompts.
    """
    if len({generation.prompt_id for generation in generations}) > 1:
        raise ValueError("a matchup compares replies to one prompt")
    waiting = list(generations)
    rng.shuffle(waiting)
    matchups = []
    while waiting:
        first = waiting.pop()
        partner = next((i for i, other in enumerate(waiting) if _may_meet(first, other, across)), None)
        if partner is not None:
            second = waiting.pop(partner)
            matchups.append(
                Matchup(
                    prompt_id=first.prompt_id,
                    generation_ids=[first.id, second.id],
                    required=required,
                    priority=priority,
                    purpose=purpose,
                )
            )
    return matchups


def _may_meet(one: GenerationRow, other: GenerationRow, across: bool) -> bool:
    return not looks_alike(one.text, other.text) and not (across and one.policy_id == other.policy_id)


def make_ranking(
    generations: Sequence[GenerationRow], rng: random.Random, *, required: int = 1, priority: int = 0
) -> list[Matchup]:
    """One matchup of all the different replies to one prompt, up to 9, to be ranked; a pair when only two differ.

    Empty when fewer than two replies differ. Raises ValueError when they answer different prompts.
    """
    if len({generation.prompt_id for generation in generations}) > 1:
        raise ValueError("a matchup compares replies to one prompt")
    waiting = list(generations)
    rng.shuffle(waiting)
    distinct: list[GenerationRow] = []
    for one in waiting:
        if len(distinct) < MAX_MATCHUP_SIZE and not any(looks_alike(one.text, other.text) for other in distinct):
            distinct.append(one)
    if len(distinct) < 2:
        return []
    kind = MatchupKind.pair if len(distinct) == 2 else MatchupKind.rank
    ids = [generation.id for generation in distinct]
    prompt_id = distinct[0].prompt_id
    return [Matchup(prompt_id=prompt_id, generation_ids=ids, kind=kind, required=required, priority=priority)]


def looks_alike(one: str, other: str) -> bool:
    """True when a person could not tell two replies apart: they differ in unseen white space at most."""
    return _as_seen(one) == _as_seen(other)


def _as_seen(text: str) -> list[str]:
    lines = text.strip().splitlines()
    return [line[: len(line) - len(line.lstrip())] + " ".join(line.split()) for line in lines]


def balanced_order(
    judged: Sequence[Sequence[int]], given_back: Sequence[Sequence[int]], size: int, rng: random.Random
) -> list[int]:
    """The order to show a matchup's replies in next: item i is the stored index at place i of the screen.

    A pair is shown each way round equally often over the people who judge it, and at random among equals. What was
    given back unjudged counts among equals only: it may come back to whoever saw it, in the order they saw. For
    more than two replies, rotations of one random order are balanced: each reply visits each place in turn.
    """
    earlier = [list(order) for order in (*judged, *given_back)]
    if size == 2:
        candidates = [[0, 1], [1, 0]]
    elif earlier:
        candidates = [earlier[0][shift:] + earlier[0][:shift] for shift in range(size)]
    else:
        order = list(range(size))
        rng.shuffle(order)
        candidates = [order]
    taken = earlier[: len(judged)]
    seen = [(taken.count(order), earlier.count(order)) for order in candidates]
    return rng.choice([order for order, often in zip(candidates, seen, strict=True) if often == min(seen)])
