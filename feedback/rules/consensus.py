"""How many opinions a matchup needs: a further one only where those it has give no answer most of the votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from feedback.types import MatchupState, Verdict


def answer_of(verdict: Verdict | None, ranking: Sequence[int] | None) -> Hashable:
    """What a judgment says, so that judgments which say the same are equal: 1, 3, 3 ranks as 1, 2, 2 does."""
    if ranking is None:
        return verdict
    places = sorted(set(ranking))
    return tuple(places.index(rank) for rank in ranking)


def majority(answers: Sequence[Hashable]) -> Hashable | None:
    """The answer that more than half of the votes gave, or None."""
    if not answers:
        return None
    answer, votes = Counter(answers).most_common(1)[0]
    return answer if 2 * votes > len(answers) else None


def settle(answers: Sequence[Hashable], required: int, max_required: int) -> tuple[MatchupState, int]:
    """The state that a matchup's answers (skips left out) put it in, and how many it needs from now on.

    With all required answers in and no majority, one more is asked for as long as ``max_required`` allows; after
    that the matchup is disputed, and an adjudicator decides.
    """
    if len(answers) < required:
        return MatchupState.open, required
    if majority(answers) is not None:
        return MatchupState.satisfied, required
    if required < max_required:
        return MatchupState.open, len(answers) + 1
    return MatchupState.disputed, required
