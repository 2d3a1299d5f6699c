"""Matchups as other labeling tools know them: two replies, and what each judge said of the two."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from feedback.formats.base.format import Export
from feedback.rules.votes import pairwise_verdicts
from feedback.store.datasets.exports import PromptRecord, VoteRecord
from feedback.types import Verdict


class PairOfReplies(NamedTuple):
    """Two replies in stored order with the votes on them; ``id`` is the matchup's, with the two places if it had more.

    ``is_swapped`` says for each vote whether its judge saw the second reply first.
    """

    id: str
    texts: tuple[str, str]
    policies: tuple[str, str]
    votes: list[tuple[Verdict, VoteRecord]]
    is_swapped: list[bool]


def judged_pairs(prompt: PromptRecord, export: Export) -> Iterator[PairOfReplies]:
    """A prompt's matchups two replies at a time; two that are equal say nothing and are counted as dropped.

    A skipped ranking says nothing of any two of its replies: it is counted as ``skip`` and belongs to no pair.
    """
    for matchup in prompt.matchups:
        size = len(matchup.texts)
        said: dict[tuple[int, int], list[tuple[Verdict, VoteRecord]]] = {
            places: [] for places in combinations(range(size), 2)
        }
        for vote in matchup.judgments:
            if size > 2 and vote.ranking is None:
                export.dropped["skip"] += 1
                continue
            for one, other, verdict in pairwise_verdicts(vote.verdict, vote.ranking):
                said[one, other].append((verdict, vote))
        for (one, other), votes in said.items():
            if not votes:
                continue
            if matchup.texts[one] == matchup.texts[other]:
                export.dropped["identical"] += 1
                continue
            yield PairOfReplies(
                id=matchup.id if size == 2 else f"{matchup.id}.{one}.{other}",
                texts=(matchup.texts[one], matchup.texts[other]),
                policies=(matchup.policies[one], matchup.policies[other]),
                votes=votes,
                is_swapped=[_saw_swapped(vote.shown_order, one, other) for _, vote in votes],
            )


def _saw_swapped(shown_order: list[int], one: int, other: int) -> bool:
    return bool(shown_order) and shown_order.index(other) < shown_order.index(one)
