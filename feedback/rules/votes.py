"""Judgments → preferences: what a verdict is worth for one pair of generations.

Ties, both-bad, skips and flags stay apart in storage; here each is given its meaning for pairwise training.
A decisive vote prefers one generation to another; a tie and a both-bad prefer none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol, TypeVar

from feedback.types import Verdict

TIE_SHARE = 0.5
"""What a tie gives to each side, where a win gives 1 and a loss 0."""


class Edited(Protocol):
    """What an edit is read from: a stored judgment, or what an export reads of one."""

    @property
    def verdict(self) -> Verdict | None: ...

    @property
    def edited(self) -> dict[str, Any] | None: ...


class Voted(Protocol):
    """What votes are read from."""

    @property
    def verdict(self) -> Verdict | None: ...

    @property
    def ranking(self) -> list[int] | None: ...

    @property
    def strength(self) -> int | None: ...


EditedT = TypeVar("EditedT", bound=Edited)


@dataclass(frozen=True)
class Vote:
    """One judgment's word on one pair of stored indices: ``better`` over ``worse``, with its strength."""

    better: int
    worse: int
    strength: float
    judgment_id: str


@dataclass
class Tally:
    """The votes on one unordered pair of stored indices, (low, high)."""

    for_low: list[Vote] = field(default_factory=list)
    for_high: list[Vote] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Decisive votes cast."""
        return len(self.for_low) + len(self.for_high)

    @property
    def agreement(self) -> float:
        """Share of decisive votes on the winning side: ½ when split evenly, 1 when unanimous."""
        return max(len(self.for_low), len(self.for_high)) / self.total

    def winners(self) -> list[Vote]:
        """The votes of the larger side; empty when the sides are equal."""
        if len(self.for_low) == len(self.for_high):
            return []
        return max(self.for_low, self.for_high, key=len)


def votes_of(judgment: Voted, judgment_id: str) -> Iterator[Vote]:
    """The decisive votes in a judgment: one for a pair's verdict, up to k(k-1)/2 for a ranking of k."""
    strength = float(judgment.strength or 0)
    if judgment.ranking is not None:
        for one, other in combinations(range(len(judgment.ranking)), 2):
            if judgment.ranking[one] != judgment.ranking[other]:
                better, worse = sorted((one, other), key=judgment.ranking.__getitem__)
                yield Vote(better, worse, strength, judgment_id)
    elif judgment.verdict is Verdict.first:
        yield Vote(0, 1, strength, judgment_id)
    elif judgment.verdict is Verdict.second:
        yield Vote(1, 0, strength, judgment_id)


def edits_of(judgments: Iterable[EditedT]) -> Iterator[tuple[EditedT, int, str]]:
    """What people wrote in place of replies: the judgment, the reply's stored index, the text; a skip teaches nothing.

    Whoever skips after they began to edit did not stand by what they typed.
    """
    for judgment in judgments:
        if judgment.edited and judgment.verdict is not Verdict.skip:
            yield judgment, judgment.edited["index"], judgment.edited["text"]


def pairwise_verdicts(verdict: Verdict | None, ranking: Sequence[int] | None) -> Iterator[tuple[int, int, Verdict]]:
    """What a judgment says of each two replies: stored indices i < j, and whether the first, the second or neither.

    A verdict speaks of the replies 0 and 1; a ranking of k speaks of k(k-1)/2 pairs, with ties where ranks are equal.
    """
    if ranking is None:
        if verdict is not None:
            yield 0, 1, verdict
        return
    for one, other in combinations(range(len(ranking)), 2):
        if ranking[one] == ranking[other]:
            yield one, other, Verdict.tie
        else:
            yield one, other, Verdict.first if ranking[one] < ranking[other] else Verdict.second


def tally_votes(votes: Iterable[Vote]) -> dict[tuple[int, int], Tally]:
    """Decisive votes gathered by the pair of stored indices they are about."""
    tallies: dict[tuple[int, int], Tally] = defaultdict(Tally)
    for vote in votes:
        low, high = sorted((vote.better, vote.worse))
        tally = tallies[low, high]
        (tally.for_low if vote.better == low else tally.for_high).append(vote)
    return dict(tallies)


def mean_strength(votes: Sequence[Vote]) -> float:
    """Mean preference strength of votes that gave one (1 to 3); 0 when none did."""
    given = [vote.strength for vote in votes if vote.strength > 0]
    return sum(given) / len(given) if given else 0.0
