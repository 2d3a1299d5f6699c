"""How far annotators agree, with others and with themselves; what the screen does to them. Pure arithmetic.

Every figure is a ``Measure``: a value with a 95 % interval, or no value and the reason why there is none. Nothing here
is ever NaN.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy
from scipy.stats import beta, binom

from feedback.quality.ballots import Ballot, Unit
from feedback.store.reports.opinions import Opinion
from feedback.types import Verdict

RESAMPLES = 500
READING_SPEED = 55.0
"""Characters per second that nobody reads: 600 words a minute is called skimming."""


@dataclass(frozen=True)
class Measure:
    """A figure with its 95 % interval and the number of observations behind it.

    ``value`` is None when the figure is not defined; ``note`` then says why, and what would define it.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""

    def as_json(self) -> dict[str, float | int | str | None]:
        """The figure for REST and the command."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "note": self.note}


def undefined(note: str, n: int = 0) -> Measure:
    """A figure that does not exist, and why."""
    return Measure(None, None, None, n, note)


def share(hits: int, n: int, why_none: str) -> Measure:
    """A share with its exact (Clopper–Pearson) interval, which holds at 0 and at 1 too."""
    if n == 0:
        return undefined(why_none)
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))
    return Measure(hits / n, low, high, n)


def raw_agreement(ballots: Sequence[Ballot], *, seed: int = 0) -> Measure:
    """The share of pairs of opinions on the same two replies that say the same; interval by resampling matchups."""
    tables = _tables(ballots)
    if not tables:
        return undefined("Nobody has judged the same pair as somebody else yet: ask for two or more opinions.")
    counted = numpy.array([(_agreeing(row), _pairs(row)) for row in tables], dtype=float)

    def ratio(rows: numpy.ndarray) -> float:
        return float(counted[rows, 0].sum() / counted[rows, 1].sum())

    return _bootstrapped(ratio, len(tables), seed)


def krippendorff_alpha(ballots: Sequence[Ballot], *, seed: int = 0) -> Measure:
    """Krippendorff's alpha for nominal answers (first, second, tie, both bad), with missing opinions.

    alpha = 1 - observed / expected disagreement over the coincidences of all pairable answers (Krippendorff 2011,
    "Computing Krippendorff's alpha-reliability"). 1 is perfect, 0 is what chance gives, less is systematic. The
    interval resamples matchups. Undefined when nobody judged the same, and when all answers are one and the same.
    """
    tables = _tables(ballots)
    if not tables:
        return undefined("Nobody has judged the same pair as somebody else yet: ask for two or more opinions.")
    answers = sorted({answer for row in tables for answer in row}, key=str)
    if len(answers) < 2:
        n = sum(sum(row.values()) for row in tables)
        return undefined(
            f"All {n} answers are the same, so there is no disagreement that chance could be compared with.", n
        )
    counts = numpy.array([[row[answer] for answer in answers] for row in tables], dtype=float)

    def alpha(rows: numpy.ndarray) -> float:
        return _alpha(counts[rows])

    return _bootstrapped(alpha, len(tables), seed)


def pairwise_agreement(ballots: Sequence[Ballot]) -> dict[tuple[str, str], tuple[int, int]]:
    """For every two people who share pairs: how many they share, and on how many of these they say the same."""
    by_unit: dict[Unit, dict[str, int | str]] = defaultdict(dict)
    for ballot in ballots:
        by_unit[ballot.unit][ballot.annotator] = ballot.choice
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for said in by_unit.values():
        people = sorted(said)
        for i, one in enumerate(people):
            for other in people[i + 1 :]:
                shared, same = found.get((one, other), (0, 0))
                found[one, other] = shared + 1, same + (said[one] == said[other])
    return found


def self_consistency(first: Sequence[Ballot], again: Sequence[Ballot]) -> Measure:
    """How often one person says the same of a pair that came back with its sides swapped."""
    said = {ballot.unit: ballot.choice for ballot in first}
    pairs = [(said[ballot.unit], ballot.choice) for ballot in again if ballot.unit in said]
    same = sum(one == other for one, other in pairs)
    return share(same, len(pairs), "No pair has come back to this person yet: 2 to 5 in a hundred do, after a delay.")


def left_share(ballots: Sequence[Ballot]) -> Measure:
    """How often the reply shown on the left was preferred, ties left out; sides are balanced, so ½ is fair."""
    decisive = [ballot for ballot in ballots if ballot.is_decisive]
    left = sum(ballot.choice == ballot.left for ballot in decisive)
    return share(left, len(decisive), "No reply has been preferred to another yet.")


def longer_share(ballots: Sequence[Ballot]) -> Measure:
    """How often the longer reply was preferred, ties and equal lengths left out."""
    decisive = [ballot for ballot in ballots if ballot.is_decisive and ballot.length_ratio]
    longer = sum((ballot.choice == 1) == (ballot.length_ratio > 0) for ballot in decisive)
    return share(longer, len(decisive), "No reply has been preferred to one of another length yet.")


def is_lopsided(measure: Measure, people: int) -> bool:
    """Whether a share is surely not ½, when as many people are looked at: exact binomial, Bonferroni."""
    if measure.value is None:
        return False
    hits = round(measure.value * measure.n)
    tail = 2 * min(binom.cdf(hits, measure.n, 0.5), binom.sf(hits - 1, measure.n, 0.5))
    return bool(tail < 0.05 / max(1, people)) and abs(measure.value - 0.5) > 0.1


def gold_accuracy(ballots: Sequence[Ballot]) -> Measure:
    """How often gold was answered as known; a tie where gold is decisive counts as wrong."""
    known = [ballot for ballot in ballots if ballot.truth is not None]
    right = sum(ballot.choice == ballot.truth for ballot in known)
    return share(right, len(known), "This person has met no pair with a known answer yet.")


GoldVerdict = Literal["trusted", "doubtful", "undecided"]


def gold_test(answers: Sequence[bool], *, good: float = 0.9, bad: float = 0.65, error: float = 0.05) -> GoldVerdict:
    """Wald's sequential test: may a person be trusted, after these answers to gold in the order given?

    Compares "right with probability ``good``" with "``bad``"; each error happens at most with ``error``, however often
    one looks (Wald 1945). The first boundary that is crossed decides.
    """
    upper = math.log((1 - error) / error)
    total = 0.0
    for right in answers:
        total += math.log(good / bad) if right else math.log((1 - good) / (1 - bad))
        if abs(total) >= upper:
            return "trusted" if total > 0 else "doubtful"
    return "undecided"


def hasty_share(opinions: Sequence[Opinion]) -> Measure:
    """How often an answer came sooner than the replies can be read (``READING_SPEED``), skips left out."""
    judged = [opinion for opinion in opinions if opinion.verdict is not Verdict.skip]
    hasty = sum(opinion.seconds < sum(opinion.lengths) / READING_SPEED for opinion in judged)
    return share(hasty, len(judged), "Nothing has been judged yet.")


def median_seconds(opinions: Sequence[Opinion]) -> Measure:
    """The median time from being given a task to answering it, with the interval of its order statistics."""
    seconds = sorted(opinion.seconds for opinion in opinions if opinion.verdict is not Verdict.skip)
    n = len(seconds)
    if not n:
        return undefined("Nothing has been judged yet.")
    low, high = int(binom.ppf(0.025, n, 0.5)), int(binom.ppf(0.975, n, 0.5))
    return Measure(float(numpy.median(seconds)), seconds[max(0, low - 1)], seconds[min(n - 1, high)], n)


def _tables(ballots: Sequence[Ballot]) -> list[Counter[int | str]]:
    """Answers per unit, one per person, of the units that two people or more judged."""
    by_unit: dict[Unit, dict[str, int | str]] = defaultdict(dict)
    for ballot in ballots:
        by_unit[ballot.unit][ballot.annotator] = ballot.choice
    return [Counter(said.values()) for said in by_unit.values() if len(said) > 1]


def _pairs(row: Counter[int | str]) -> int:
    return math.comb(sum(row.values()), 2)


def _agreeing(row: Counter[int | str]) -> int:
    return sum(math.comb(count, 2) for count in row.values())


def _alpha(counts: numpy.ndarray) -> float:
    """Alpha of a table units × answers; 1 where a resample happens to hold one answer only."""
    per_unit = counts.sum(axis=1)
    coincidences = (counts.T / (per_unit - 1)) @ counts - numpy.diag((counts / (per_unit - 1)[:, None]).sum(axis=0))
    totals = coincidences.sum(axis=0)
    n = totals.sum()
    expected = n * n - (totals**2).sum()
    if expected <= 0:
        return 1.0
    observed = n - numpy.trace(coincidences)
    return float(1 - (n - 1) * observed / expected)


def _bootstrapped(figure: Callable[[numpy.ndarray], float], units: int, seed: int) -> Measure:
    """A figure over all units with the 2.5 and 97.5 per cent points over resamples of units."""
    value = figure(numpy.arange(units))
    if units < 2:
        return Measure(value, None, None, units, "Only one pair was judged by several people, so there is no interval.")
    rng = numpy.random.default_rng(seed)
    drawn = [figure(rng.integers(0, units, units)) for _ in range(RESAMPLES)]
    low, high = numpy.percentile(drawn, [2.5, 97.5])
    return Measure(value, float(low), float(high), units)
