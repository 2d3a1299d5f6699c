"""Two policies on the same items: is one better, and what could these items have shown at all? Pure arithmetic.

The scores of two policies on one item go together, because an item is easy or hard for both. A test that ignores
the pairing throws that away: on 220 items, 8 won and 24 lost, it says p = 0.10 where the paired test says 0.007. So
everything here is about the differences, item by item.

- Right or wrong (scores of 0 and 1): McNemar's exact test, a fair coin over the items on which the two disagree.
- Any other score: Student's test of the mean difference (Miller 2024, arXiv:2411.00640, section 4.2).
- The interval: Student's, around the mean difference. For right or wrong, and where every item differs alike, two more
  items are counted, one each way, so that it does not collapse where the policies agree on every item, which n items
  cannot show to be so everywhere. That is the interval of Bonett and Price (2012), with Student's quantile, which is
  wider for few items, in place of the normal one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from feedback.errors import InvalidInput, NotEnoughData

LEVEL = 0.05
"""How often a test, an interval or a bound here may be wrong: on either side together, or on its one side."""
POWER = 0.8
"""How surely the smallest detectable difference would be found."""


class PairedFinding(StrEnum):
    """What a comparison came to, in the words that are shown."""

    better = "better"
    worse = "worse"
    unclear = "cannot tell"


@dataclass(frozen=True)
class Paired:
    """Policy A against policy B over ``n`` items that both answered; differences are A's score minus B's.

    ``centre`` and ``error`` are what the bounds are made of: ``low`` and ``high`` bound the mean difference with 95 %.
    ``won`` and ``lost`` count the items on which A scored higher and lower. ``detectable`` is the smallest true
    difference that as many such items would show in four cases out of five.
    """

    n: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    centre: float
    error: float
    won: int
    lost: int
    p_value: float
    test: str
    detectable: float

    def at_least(self, level: float = LEVEL) -> float:
        """What the mean difference is above, but for a chance of ``level``."""
        return self.centre - _quantile(1 - level, self.n) * self.error

    def at_most(self, level: float = LEVEL) -> float:
        """What the mean difference is below, but for a chance of ``level``."""
        return self.centre + _quantile(1 - level, self.n) * self.error

    def items_for(self, difference: float, level: float = LEVEL) -> int:
        """How many such items would show this difference on one side in four cases out of five."""
        reach = (_quantile(1 - level, self.n) + _quantile(POWER, self.n)) * self.error
        return math.ceil(self.n * (reach / abs(difference)) ** 2)


def paired(scores_a: Sequence[float], scores_b: Sequence[float]) -> Paired:
    """Compare two policies by their scores on the same items, given in the same order.

    NotEnoughData for fewer than two items; InvalidInput for lists of unlike length or scores that are no numbers.
    """
    if len(scores_a) != len(scores_b):
        raise InvalidInput(f"{len(scores_a)} scores cannot be paired with {len(scores_b)}.")
    if len(scores_a) < 2:
        raise NotEnoughData(f"{len(scores_a)} items were answered by both; at least 2 are needed to compare.")
    if not all(map(math.isfinite, (*scores_a, *scores_b))):
        raise InvalidInput("A score is not a finite number; measure that benchmark again.")
    n = len(scores_a)
    differences = [a - b for a, b in zip(scores_a, scores_b, strict=True)]
    is_binary = {*scores_a, *scores_b} <= {0.0, 1.0}
    centre, error = _centre_and_error(differences, is_binary)
    won, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    two_sided, power = _quantile(1 - LEVEL / 2, n), _quantile(POWER, n)
    return Paired(
        n=n,
        mean_a=math.fsum(scores_a) / n,
        mean_b=math.fsum(scores_b) / n,
        difference=math.fsum(differences) / n,
        low=centre - two_sided * error,
        high=centre + two_sided * error,
        centre=centre,
        error=error,
        won=won,
        lost=lost,
        p_value=mcnemar(won, lost) if is_binary else student(centre, error, n),
        test="McNemar, exact" if is_binary else "paired t",
        detectable=(two_sided + power) * error,
    )


def mcnemar(won: int, lost: int) -> float:
    """How often a fair coin would split the items that one policy alone got right at least so unevenly."""
    from scipy.special import bdtr  # scipy.stats would take half a second to import

    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def student(centre: float, error: float, items: int) -> float:
    """The two-sided p-value of a mean difference of zero."""
    from scipy.special import stdtr

    return 2 * float(stdtr(items - 1, -abs(centre) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests at once, adjusted so that any false alarm is as rare as in one test (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = floor
    return adjusted


def finding(compared: Paired, p_value: float, higher_is_better: bool = True) -> PairedFinding:
    """What may be said of A against B, given the (adjusted) p-value."""
    if p_value >= LEVEL or compared.difference == 0:
        return PairedFinding.unclear
    return PairedFinding.better if (compared.difference > 0) is higher_is_better else PairedFinding.worse


def _centre_and_error(differences: Sequence[float], is_binary: bool) -> tuple[float, float]:
    """The mean of the differences and its standard error, with the two items that the module tells of."""
    n = len(differences)
    mean, spread = _mean_and_spread(differences, n - 1)
    if not is_binary and spread > 1e-12 * max(map(abs, differences), default=0.0):
        return mean, spread / math.sqrt(n)
    most = max(map(abs, differences)) or 1.0
    mean, spread = _mean_and_spread([*differences, most, -most], n + 2)
    return mean, spread / math.sqrt(n + 2)


def _mean_and_spread(values: Sequence[float], degrees: int) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / degrees)


def _quantile(probability: float, items: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(items - 1, probability))
