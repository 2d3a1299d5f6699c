"""95 % intervals of shares that behave at 0 and 1, and evidence that may be looked at whenever. Pure arithmetic.

Wilson (1927) for independent trials. For trials that come in clusters, the Wilson interval at the effective
sample size of Korn and Graubard (1998): p(1 - p) over the variance of the clustered mean, with Student's
quantile for the number of clusters. Dean and Pagano (2015) compare the candidates for clustered surveys and
find this one's coverage close to nominal also for extreme shares, where the usual p ± 1.96·se collapses to a
point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z95 = 1.959963984540054


class Share(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: float, z: float = Z95) -> Share:
    """The share of successes among independent trials; trials may be a fraction (an effective size)."""
    if trials <= 0:
        return Share(math.nan, 0.0, 1.0)
    share = successes / trials
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / shrink
    return Share(share, max(0.0, centre - half), min(1.0, centre + half))


def clustered(means: Sequence[float], per_cluster: int = 1) -> Share:
    """The mean of clusters' mean scores (each in 0 to 1), with an interval that treats a cluster as one unit.

    ``per_cluster`` bounds the effective size: a cluster counts for at most so many independent trials. Where
    the clusters do not vary at all the data say nothing of the variance, and each counts for one.
    """
    return clustered_trials([mean * per_cluster for mean in means], [per_cluster] * len(means))


def clustered_trials(successes: Sequence[float], trials: Sequence[int]) -> Share:
    """As ``clustered``, for clusters of unlike size: successes and trials of each, the share being over all trials.

    The variance is that of a ratio, linearised (Cochran 1977, section 6.3).
    """
    n, total = len(trials), sum(trials)
    if total == 0:
        return Share(math.nan, 0.0, 1.0)
    share = sum(successes) / total
    if n == 1:
        return wilson(share, 1.0)
    spread = sum((own - share * size) ** 2 for own, size in zip(successes, trials, strict=True))
    variance = spread * n / (n - 1) / total**2
    size = min(share * (1 - share) / variance, total) if variance > 0 else float(n)
    low, high = wilson(share * size, size, student_quantile(n - 1))[1:]
    return Share(share, low, high)


def evidence_at_any_time(scores: Sequence[float]) -> float:
    """How strongly scores (each in 0 to 1, as they came) speak against a mean of one half, whenever one looks.

    What would have become of one unit of money staked on each score in turn at fair odds, averaged over bets of several
    sizes on either side. While the mean is one half, it ever reaches E with probability 1/E at most (Ville), however
    often it is looked at; an interval for a fixed number of scores promises that for one look. Waudby-Smith and Ramdas
    (2024), "Estimating means of bounded random variables by betting".
    """
    fortunes = [math.prod(1 + bet * (score - 0.5) for score in scores) for bet in _BETS]
    return min(sum(fortunes) / len(fortunes), 1e9)


_BETS = [side * size / 10 for size in range(1, 20, 2) for side in (-1, 1)]


def student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's distribution."""
    from scipy.special import stdtrit  # scipy.stats would take half a second to import

    return float(stdtrit(degrees, 0.975))
