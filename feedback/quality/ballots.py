"""Judgments as ballots: what one person said of one pair of replies, and how the screen showed it.

Everything in ``agreement`` and ``reliability`` is computed from these. A ranking of k replies is k(k-1)/2 ballots.
Skips are none: a skip says nothing about the replies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from feedback.store.reports.opinions import Opinion
from feedback.types import Verdict

Unit = tuple[str, int, int]
"""What is judged: a matchup and two of its stored indices, the lower one first."""


@dataclass(frozen=True)
class Ballot:
    """``choice`` is 0 or 1 for the lower or higher stored index, ``tie`` or ``both_bad`` where neither was preferred.

    ``left`` is the one (0 or 1) that the screen showed first. ``length_ratio`` is log2(length of 1 / length of 0).
    ``truth`` is what gold says, None where there is none.
    """

    unit: Unit
    annotator: str
    choice: int | str
    left: int
    length_ratio: float
    judgment_id: str
    truth: int | str | None = None

    @property
    def is_decisive(self) -> bool:
        """True when one of the two replies was preferred."""
        return not isinstance(self.choice, str)


def ballots_of(opinions: Iterable[Opinion]) -> list[Ballot]:
    """Every ballot in these judgments."""
    return [ballot for opinion in opinions for ballot in _ballots(opinion)]


def _ballots(opinion: Opinion) -> Iterator[Ballot]:
    if opinion.verdict is Verdict.skip:
        return
    for low, high in combinations(range(len(opinion.lengths)), 2):
        lengths = max(1, opinion.lengths[low]), max(1, opinion.lengths[high])
        yield Ballot(
            unit=(opinion.repeat_of or opinion.matchup_id, low, high),
            annotator=opinion.annotator,
            choice=_choice(opinion.verdict, opinion.ranking, low, high),
            left=0 if opinion.shown_order.index(low) < opinion.shown_order.index(high) else 1,
            length_ratio=math.log2(lengths[1] / lengths[0]),
            judgment_id=opinion.judgment_id,
            truth=None if opinion.gold is None else _known(opinion.gold, low, high),
        )


def _choice(verdict: Verdict | None, ranking: list[int] | None, low: int, high: int) -> int | str:
    if ranking is not None:
        return "tie" if ranking[low] == ranking[high] else int(ranking[high] < ranking[low])
    if verdict in (Verdict.first, Verdict.second):
        return int(verdict is Verdict.second)
    return str(verdict.value) if verdict is not None else "tie"


def _known(gold: dict[str, Any], low: int, high: int) -> int | str:
    verdict = gold.get("verdict")
    return _choice(None if verdict is None else Verdict(verdict), gold.get("ranking"), low, high)
