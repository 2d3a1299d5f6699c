"""The Bradley–Terry model: strengths of policies from votes on pairs of their replies. Pure arithmetic.

The chance that policy i is preferred to policy j is ``1 / (1 + exp(-(s_i - s_j)))``, so a strength is a log-odds and
the reference has strength 0 (Bradley and Terry 1952). A tie counts as half a win for each. Strengths are the maximum
likelihood estimate, found by Newton's method. It exists for the policies that the reference reaches by a chain of wins
and that reach it by another (Ford 1957); for the others, one that never lost for instance, no strength is given.

Prompts are resampled for the intervals, since votes on one prompt are not independent evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 50
CONVERGED = 1e-9
DETERMINED = 1e-3  # the least of the largest eigenvalue of a design that determines every coefficient
LEVEL = 1e-6  # strengths this close are equal
# A resample may leave a policy undefeated: so weak a pull to the reference keeps its strength finite
PULL = 1e-3
REPLICATES = 1000
TAIL = 2.5  # percent beyond either end of an interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Vote:
    """One judgment of two policies' replies to a prompt.

    ``score`` is 1 where the first reply was preferred, 0 where the second was and one half for a tie; ``longer`` by how
    many characters, or other units of length, the first reply exceeds the second.
    """

    prompt: str
    first: str
    second: str
    score: float
    longer: float = 0.0


@dataclass(frozen=True)
class Strength:
    """The log-odds of one policy to be preferred to the reference, with a 95 % interval."""

    value: float
    low: float
    high: float


class Votes:
    """Votes as arrays: the policies of each as indices, of which 0 is the reference."""

    def __init__(self, votes: Sequence[Vote], reference: str) -> None:
        known = measurable(votes, reference)
        used = [vote for vote in votes if vote.first in known and vote.second in known]
        self.policies = [reference, *sorted(known - {reference})]
        index = {policy: number for number, policy in enumerate(self.policies)}
        self.first = np.array([index[vote.first] for vote in used], dtype=np.intp)
        self.second = np.array([index[vote.second] for vote in used], dtype=np.intp)
        self.score = np.array([vote.score for vote in used], dtype=float)
        self.longer = np.array([vote.longer for vote in used], dtype=float)
        prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(vote.prompt for vote in used))}
        self.prompt = np.array([prompts[vote.prompt] for vote in used], dtype=np.intp)
        self.prompts = len(prompts)

    def __len__(self) -> int:
        return len(self.score)

    def design(self, length_controlled: bool) -> Floats:
        """The row of each vote, (V, P - 1) or with the length (V, P): +1 for the first policy, -1 for the second.

        The length enters as the tanh of the difference in standard deviations, as in length-controlled AlpacaEval
        (Dubois et al. 2024), so that a few very long replies do not decide its weight.
        """
        columns = [_rows(self.first, self.second, len(self.policies))]
        if length_controlled:
            spread = float(self.longer.std()) or 1.0
            columns.append(np.tanh(self.longer / spread)[:, None])
        return np.concatenate(columns, axis=1)


def design_of(pairs: Sequence[tuple[str, str]], policies: Sequence[str]) -> Floats:
    """The row of each pair of policies, (V, P - 1): +1 for its first, -1 for its second; the reference leads the P."""
    index = {policy: number for number, policy in enumerate(policies)}
    first, second = (np.array([index[pair[side]] for pair in pairs], dtype=np.intp) for side in (0, 1))
    return _rows(first, second, len(policies))


def _rows(first: NDArray[np.intp], second: NDArray[np.intp], policies: int) -> Floats:
    rows = np.zeros((len(first), policies))
    votes = np.arange(len(first))
    rows[votes, first] += 1.0
    rows[votes, second] -= 1.0
    return rows[:, 1:]


def measurable(votes: Iterable[Vote], reference: str) -> set[str]:
    """The policies whose strength the votes determine, the reference among them."""
    beats: dict[str, set[str]] = defaultdict(set)
    loses: dict[str, set[str]] = defaultdict(set)
    for vote in votes:
        if vote.score > 0.0:
            beats[vote.first].add(vote.second)
            loses[vote.second].add(vote.first)
        if vote.score < 1.0:
            beats[vote.second].add(vote.first)
            loses[vote.first].add(vote.second)
    return _reached(beats, reference) & _reached(loses, reference)


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        new = edges.get(waiting.pop(), set()) - found
        found |= new
        waiting.extend(new)
    return found


def strengths(
    votes: Sequence[Vote],
    reference: str,
    *,
    length_controlled: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Strength]:
    """The strength of each measurable policy, that of the reference being 0.

    With ``length_controlled`` it is the log-odds between replies of equal length; none but the reference has one where
    the votes cannot tell a policy from the length of its replies. The interval is the percentile interval over
    ``replicates`` resamples of the prompts.
    """
    arrays = Votes(votes, reference)
    found = {reference: Strength(0.0, 0.0, 0.0)}
    if not len(arrays):
        return found
    design, kind = np.unique(arrays.design(length_controlled), axis=0, return_inverse=True)

    def fit(weight: Floats, start: Floats | None = None) -> Floats:
        """The estimate from votes that count so many times, those with the same row of the design taken together."""
        counts = np.bincount(kind, weight, minlength=len(design)).astype(np.float64)
        wins = np.bincount(kind, weight * arrays.score, minlength=len(design)).astype(np.float64)
        return estimate(design, np.divide(wins, counts, out=np.zeros_like(wins), where=counts > 0), counts, start)

    if length_controlled and not _is_determined(design[kind]):
        return found
    value = fit(np.ones(len(arrays)))
    random = np.random.default_rng(seed)
    drawn = np.empty((replicates, design.shape[1]))
    for replicate in range(replicates):
        times = np.bincount(random.integers(0, arrays.prompts, arrays.prompts), minlength=arrays.prompts)
        drawn[replicate] = fit(times[arrays.prompt].astype(float), start=value)
    low, high = np.percentile(drawn, [TAIL, 100 - TAIL], axis=0) if replicates else (value, value)
    for number, policy in enumerate(arrays.policies[1:]):
        found[policy] = Strength(float(value[number]), float(low[number]), float(high[number]))
    return found


def estimate(design: Floats, score: Floats, weight: Floats, start: Floats | None = None) -> Floats:
    """The coefficients, (C,), under which the scores, (V,), are likeliest; each vote counts ``weight`` times."""
    coefficients = np.zeros(design.shape[1]) if start is None else start.copy()
    for _ in range(STEPS):
        chance = _logistic(design @ coefficients)
        gradient = design.T @ (weight * (score - chance)) - PULL * coefficients
        step = np.linalg.solve(_information(design, weight, chance), gradient)
        coefficients += np.clip(step, -2.0, 2.0)
        if np.abs(step).max(initial=0.0) < CONVERGED:
            break
    return coefficients


def influence(design: Floats, weight: Floats, value: Floats) -> Floats:
    """By how much each coefficient, (C,), would grow with each score, (V,): the derivative at the estimate, (C, V)."""
    information = _information(design, weight, _logistic(design @ value))
    return np.linalg.solve(information, design.T * weight).astype(np.float64)


def _is_determined(design: Floats) -> bool:
    """Whether no column of the design, (V, C), is nearly a combination of the others."""
    scales = np.linalg.eigvalsh(design.T @ design / len(design))
    return bool(scales[0] > DETERMINED * scales[-1])


def _logistic(odds: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(odds, -500.0, 500.0)))


def _information(design: Floats, weight: Floats, chance: Floats) -> Floats:
    """The negative second derivative of the log-likelihood, (C, C)."""
    spread = weight * chance * (1.0 - chance)
    return (design * spread[:, None]).T @ design + PULL * np.eye(design.shape[1])


def fewest_to_reverse(votes: Sequence[Vote], reference: str, better: str, worse: str, most: int = 50) -> int | None:
    """How many votes, dropped together, would put ``worse`` level with or above ``better``; None when over ``most``.

    Votes are dropped in the order of their influence on the difference, by one step of Newton's method without them
    (Huang et al. 2025), and the model is fitted again: the number is an upper bound of the fewest.
    """
    arrays = Votes(votes, reference)
    design = arrays.design(length_controlled=False)
    contrast = np.zeros(len(arrays.policies))
    contrast[arrays.policies.index(better)] += 1.0
    contrast[arrays.policies.index(worse)] -= 1.0
    weight = np.ones(len(arrays))
    value = estimate(design, arrays.score, weight)
    if contrast[1:] @ value <= LEVEL:
        return 0
    chance = _logistic(design @ value)
    direction = np.linalg.solve(_information(design, weight, chance), contrast[1:])
    order = np.argsort(-(design @ direction) * (arrays.score - chance))
    for dropped in range(1, min(most, len(arrays) - 1) + 1):
        weight[order[dropped - 1]] = 0.0
        if contrast[1:] @ estimate(design, arrays.score, weight, start=value) <= LEVEL:
            return dropped
    return None
