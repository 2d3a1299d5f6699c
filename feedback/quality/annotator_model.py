"""How far each annotator can be believed: an annotator model over all ballots, fitted without knowing the truth.

For a person a and a pair whose better reply is t (+1 when it was shown left, -1 right), the chance of preferring the
left one is

    sigma(side_a + skill_a * t + length_a * x),        x = log2(length of left / length of right),

and the truth has the prior sigma(length_0 * x): longer may really be better. Fitted by EM with a logistic regression
per person in the M-step; Dawid & Skene (1979) with the screen and the length as covariates, after Raykar et al.
(2010). Gold fixes the truth where it is known. Ties and both-bad say nothing here. Without shared pairs or gold
nobody can be told from anybody, and all keep the prior.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy.special import expit, logit

from feedback.quality.agreement import Measure, undefined
from feedback.quality.ballots import Ballot, Unit

ROUNDS = 60
PRIOR_MEAN = numpy.array([0.0, 1.0, 0.0])
"""Nobody leans to a side or to length, and everybody is right with probability sigma(1), nearly three in four."""
PRIOR_PRECISION = numpy.array([0.25, 1.0, 1.0])
MAX_RATIO = 3.0  # log2: beyond eight times as long, longer is no longer more
MIN_SHARED = 10
"""Decisive ballots on pairs that others judged too, or gold, below which a person's figures say too little."""
DRAWS = 400


@dataclass(frozen=True)
class Skill:
    """One person as the model sees them, with 95 % intervals.

    ``accuracy``: the chance that their preference is right. ``left``: the chance of preferring the left of two equally
    good replies; ``longer``: of preferring the one twice as long. ½ is fair in both. ``leans_left`` and
    ``leans_longer`` are surely not fair: the sign, or 0 when that cannot be said (Bonferroni over the people).
    """

    accuracy: Measure
    left: Measure
    longer: Measure
    leans_left: int = 0
    leans_longer: int = 0


@dataclass(frozen=True)
class Reliability:
    """The fitted model: every person's figures, and for every pair the chance that stored reply 1 is the better."""

    skills: dict[str, Skill]
    second_better: dict[Unit, float]

    def weight(self, unit: Unit) -> float:
        """How much a label of this pair is worth: 0 for a coin, 1 for a certainty."""
        return abs(2 * self.second_better.get(unit, 0.5) - 1)


def fit(ballots: Sequence[Ballot], *, seed: int = 0) -> Reliability:
    """Fit the model; deterministic. People without a decisive ballot are left out of ``skills``."""
    data = _Data.of([ballot for ballot in ballots if ballot.is_decisive])
    if data is None:
        return Reliability({}, {})
    people = len(data.people)
    betas = numpy.tile(PRIOR_MEAN, (people, 1))
    slope = 0.0
    posterior = data.majority()
    for _ in range(ROUNDS):
        left_better = data.in_screen_terms(posterior)
        betas = numpy.array([_regress(data, left_better, person, betas[person])[0] for person in range(people)])
        slope = _prior_slope(data, posterior, slope)
        before, posterior = posterior, data.posterior(betas, slope)
        if float(numpy.abs(posterior - before).max()) < 1e-3:
            break
    left_better = data.in_screen_terms(posterior)
    rng = numpy.random.default_rng(seed)
    skills = {
        name: _skill(data, person, *_regress(data, left_better, person, betas[person]), people, rng)
        for person, name in enumerate(data.people)
    }
    return Reliability(skills, dict(zip(data.units, posterior.tolist(), strict=True)))


@dataclass(frozen=True)
class _Data:
    """Decisive ballots as arrays. ``sign`` is +1 where the ballot's screen showed stored reply 1 on the left."""

    people: list[str]
    units: list[Unit]
    person: numpy.ndarray
    unit: numpy.ndarray
    chose_left: numpy.ndarray
    sign: numpy.ndarray
    left_ratio: numpy.ndarray
    unit_ratio: numpy.ndarray
    known: numpy.ndarray  # per unit: NaN, or 0 or 1 where gold says which stored reply is better
    shared: numpy.ndarray  # per ballot: somebody else judged the pair too, or gold knows it
    rows: list[numpy.ndarray]  # per person

    @classmethod
    def of(cls, ballots: Sequence[Ballot]) -> _Data | None:
        if not ballots:
            return None
        people = sorted({ballot.annotator for ballot in ballots})
        units = sorted({ballot.unit for ballot in ballots})
        person_at = {name: i for i, name in enumerate(people)}
        unit_at = {unit: i for i, unit in enumerate(units)}
        ratio, known = numpy.zeros(len(units)), numpy.full(len(units), numpy.nan)
        judges: dict[int, set[str]] = defaultdict(set)
        for ballot in ballots:
            at = unit_at[ballot.unit]
            ratio[at] = min(MAX_RATIO, max(-MAX_RATIO, ballot.length_ratio))
            judges[at].add(ballot.annotator)
            if isinstance(ballot.truth, int):
                known[at] = ballot.truth
        unit = numpy.array([unit_at[ballot.unit] for ballot in ballots])
        person = numpy.array([person_at[ballot.annotator] for ballot in ballots])
        sign = numpy.array([1.0 if ballot.left == 1 else -1.0 for ballot in ballots])
        several = numpy.array([len(judges[at]) > 1 for at in range(len(units))]) | ~numpy.isnan(known)
        return cls(
            people=people,
            units=units,
            person=person,
            unit=unit,
            chose_left=numpy.array([float(ballot.choice == ballot.left) for ballot in ballots]),
            sign=sign,
            left_ratio=sign * ratio[unit],
            unit_ratio=ratio,
            known=known,
            shared=several[unit],
            rows=[numpy.flatnonzero(person == i) for i in range(len(people))],
        )

    def majority(self) -> numpy.ndarray:
        """The starting point: each unit's votes, softened."""
        votes = numpy.zeros(len(self.units))
        numpy.add.at(votes, self.unit, self.sign * (2 * self.chose_left - 1))
        return self._with_gold(expit(votes))

    def posterior(self, betas: numpy.ndarray, slope: float) -> numpy.ndarray:
        """E-step: the chance that stored reply 1 is the better one, per unit."""
        side, skill, length = betas[self.person].T
        base = side + length * self.left_ratio
        chose = 2 * self.chose_left - 1
        log_odds = _log_expit(chose * (base + skill)) - _log_expit(chose * (base - skill))
        total = slope * self.unit_ratio
        numpy.add.at(total, self.unit, self.sign * log_odds)
        return self._with_gold(expit(total))

    def in_screen_terms(self, posterior: numpy.ndarray) -> numpy.ndarray:
        """Per ballot: the chance that the reply shown on the left is the better one."""
        second = posterior[self.unit]
        return numpy.where(self.sign > 0, second, 1 - second)

    def _with_gold(self, posterior: numpy.ndarray) -> numpy.ndarray:
        return numpy.where(numpy.isnan(self.known), posterior, numpy.clip(self.known, 0.001, 0.999))


def _regress(
    data: _Data, left_better: numpy.ndarray, person: int, start: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """M-step of one person: coefficients and their covariance, by Newton's method with the Gaussian prior.

    Each ballot counts twice: as if the left were better, with that chance, and as if it were not, with the rest.
    """
    rows = data.rows[person]
    chance, said, ratio = left_better[rows], data.chose_left[rows], data.left_ratio[rows]
    n = len(rows)
    features = numpy.ones((2 * n, 3))
    features[:n, 1], features[n:, 1] = 1.0, -1.0
    features[:, 2] = numpy.concatenate([ratio, ratio])
    weights = numpy.concatenate([chance, 1 - chance])
    said = numpy.concatenate([said, said])
    coefficients = start
    for _ in range(25):
        expected = expit(features @ coefficients)
        gradient = features.T @ (weights * (said - expected)) - PRIOR_PRECISION * (coefficients - PRIOR_MEAN)
        curvature = (features * (weights * expected * (1 - expected))[:, None]).T @ features
        step = numpy.linalg.solve(curvature + numpy.diag(PRIOR_PRECISION), gradient)
        coefficients = coefficients + numpy.clip(step, -2.0, 2.0)
        if float(numpy.abs(step).max()) < 1e-6:
            break
    return coefficients, numpy.linalg.inv(curvature + numpy.diag(PRIOR_PRECISION))


def _prior_slope(data: _Data, posterior: numpy.ndarray, slope: float) -> float:
    """How much the truth itself goes with length: logistic regression of the posterior on the ratio, no intercept."""
    for _ in range(10):
        expected = expit(slope * data.unit_ratio)
        curvature = float((data.unit_ratio**2 * expected * (1 - expected)).sum()) + 1.0
        step = (float((data.unit_ratio * (posterior - expected)).sum()) - slope) / curvature
        slope += min(1.0, max(-1.0, step))
        if abs(step) < 1e-6:
            break
    return slope


def _skill(
    data: _Data,
    person: int,
    coefficients: numpy.ndarray,
    covariance: numpy.ndarray,
    people: int,
    rng: numpy.random.Generator,
) -> Skill:
    rows = data.rows[person]
    shared = int(data.shared[rows].sum())
    if shared < MIN_SHARED:
        note = (
            f"{shared} of this person's preferences are on pairs that others judged too or whose answer is known; "
            f"at least {MIN_SHARED} are needed."
        )
        return Skill(undefined(note, shared), undefined(note, shared), undefined(note, shared))
    draws = rng.multivariate_normal(coefficients, covariance, DRAWS)
    ratio = data.left_ratio[rows]

    def accuracy(beta: numpy.ndarray) -> float:
        base = beta[0] + beta[2] * ratio
        return float((expit(base + beta[1]) + 1 - expit(base - beta[1])).mean() / 2)

    values = [accuracy(beta) for beta in draws]
    low, high = numpy.percentile(values, [2.5, 97.5])
    return Skill(
        accuracy=Measure(accuracy(coefficients), float(low), float(high), shared),
        left=_chance(coefficients[0], covariance[0, 0], shared),
        longer=_chance(coefficients[2], covariance[2, 2], shared),
        leans_left=_leaning(coefficients[0], covariance[0, 0], people),
        leans_longer=_leaning(coefficients[2], covariance[2, 2], people),
    )


def _chance(coefficient: float, variance: float, n: int) -> Measure:
    spread = 1.96 * float(numpy.sqrt(variance))
    return Measure(float(expit(coefficient)), float(expit(coefficient - spread)), float(expit(coefficient + spread)), n)


def _leaning(coefficient: float, variance: float, people: int) -> int:
    """The sign of a lean that is both sure (two-sided, Bonferroni) and of a size that matters (beyond 60 to 40)."""
    from scipy.stats import norm

    sure = float(norm.isf(0.025 / max(1, people)))
    if abs(coefficient) < float(logit(0.6)) or abs(coefficient) < sure * float(numpy.sqrt(variance)):
        return 0
    return 1 if coefficient > 0 else -1


def _log_expit(values: numpy.ndarray) -> numpy.ndarray:
    return -numpy.logaddexp(0.0, -values)
