"""Bradley–Terry strengths from win rates alone, where the verdicts behind them are not known. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.board.bradley_terry import Floats, Strength, Vote, design_of, estimate, influence, measurable


@dataclass(frozen=True)
class Rate:
    """How often the first policy was preferred to the second, with a 95 % interval, and the number of prompts."""

    first: str
    second: str
    prompts: int
    value: float
    low: float
    high: float


def strengths_of_rates(rates: Sequence[Rate], reference: str) -> dict[str, Strength]:
    """The strength of each measurable policy, that of the reference being 0.

    The value is the maximum likelihood estimate, each win rate counting as many prompts as it was measured on. The
    rates of one judge come from the same prompts, so they are not independent, and what they have in common is not
    known. An end of an interval is therefore the estimate from the rates at those ends of their own intervals that
    speak most against the policy, or for it: at least as wide as a 95 % interval under any dependence. For two policies
    it is the interval of their win rate, in log-odds. A policy whose interval would have no bound is left out.
    """
    known = measurable([Vote("", rate.first, rate.second, rate.value) for rate in rates], reference)
    used = [rate for rate in rates if rate.first in known and rate.second in known]
    found = {reference: Strength(0.0, 0.0, 0.0)}
    if not used:
        return found
    policies = [reference, *sorted(known - {reference})]
    design = design_of([(rate.first, rate.second) for rate in used], policies)
    value, low, high = (np.array([getattr(rate, name) for rate in used]) for name in ("value", "low", "high"))
    weight = np.array([float(rate.prompts) for rate in used])
    fitted = estimate(design, value, weight)
    for place, (policy, raises) in enumerate(zip(policies[1:], influence(design, weight, fitted), strict=True)):
        ends = [_worst(low, value, high, raises), _worst(high, value, low, raises)]
        if all(_is_bounded(used, policy, reference, end) for end in ends):
            least, most = (float(estimate(design, end, weight, start=fitted)[place]) for end in ends)
            found[policy] = Strength(float(fitted[place]), least, most)
    return found


def _worst(low: Floats, value: Floats, high: Floats, raises: Floats) -> Floats:
    """The rates at ``low`` where they raise a strength, at ``high`` where they lower it."""
    return np.where(raises > 0, low, np.where(raises < 0, high, value))


def _is_bounded(rates: Sequence[Rate], policy: str, reference: str, shares: Floats) -> bool:
    """Whether the policy still has a strength where the rates are these shares."""
    moved = [Vote("", rate.first, rate.second, float(share)) for rate, share in zip(rates, shares, strict=True)]
    return policy in measurable(moved, reference)
