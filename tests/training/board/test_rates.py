"""Strengths from win rates: the interval of two policies is their own, and holds whatever the rates have in common."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.board.bradley_terry import Strength, Vote, design_of, estimate, influence, strengths
from training.board.rates import Rate, strengths_of_rates
from training.evaluation.intervals import clustered


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_two_policies_have_the_interval_of_their_win_rate() -> None:
    found = strengths_of_rates([Rate("new", "start", 150, 0.7, 0.6, 0.78)], "start")
    assert found["start"] == Strength(0.0, 0.0, 0.0)
    new = found["new"]
    assert [new.value, new.low, new.high] == pytest.approx([logit(0.7), logit(0.6), logit(0.78)], abs=1e-3)
    turned = strengths_of_rates([Rate("start", "new", 150, 0.3, 0.22, 0.4)], "start")["new"]
    assert [turned.value, turned.low, turned.high] == pytest.approx([new.value, new.low, new.high], abs=1e-6)


def test_a_chain_adds_the_uncertainty_of_its_links() -> None:
    rates = [Rate("a", "start", 150, 0.6, 0.5, 0.7), Rate("b", "a", 150, 0.6, 0.5, 0.7)]
    b = strengths_of_rates(rates, "start")["b"]
    assert b.value == pytest.approx(2 * logit(0.6), abs=1e-3)
    assert (b.low, b.high) == pytest.approx((0.0, 2 * logit(0.7)), abs=1e-3)


def test_rates_that_contradict_each_other_are_fitted_as_the_votes_behind_them() -> None:
    wins = {("a", "start"): 66, ("b", "a"): 55, ("b", "start"): 60, ("c", "b"): 40}
    votes = [Vote(f"{pair}{n}", *pair, float(n < count)) for pair, count in wins.items() for n in range(100)]
    rates = [Rate(*pair, 100, count / 100, count / 100 - 0.1, count / 100 + 0.1) for pair, count in wins.items()]
    by_votes, by_rates = strengths(votes, "start", replicates=0), strengths_of_rates(rates, "start")
    for name in ("a", "b", "c"):
        assert by_rates[name].value == pytest.approx(by_votes[name].value, abs=1e-6)
        assert by_rates[name].low < by_rates[name].value < by_rates[name].high


def test_influence_is_the_change_of_the_estimate_with_a_rate() -> None:
    design = design_of([("a", "start"), ("b", "a"), ("b", "start")], ["start", "a", "b"])
    value, weight = np.array([0.6, 0.55, 0.7]), np.array([100.0, 50.0, 80.0])
    fitted = estimate(design, value, weight)
    for place in range(3):
        moved = value.copy()
        moved[place] += 1e-5
        change = (estimate(design, moved, weight) - fitted) / 1e-5
        assert change == pytest.approx(influence(design, weight, fitted)[:, place], rel=1e-3, abs=1e-6)


def test_a_policy_without_a_bound_is_left_out_and_others_stay() -> None:
    rates = [
        Rate("perfect", "start", 150, 1.0, 0.97, 1.0),
        Rate("nearly", "start", 150, 0.99, 0.9, 1.0),
        Rate("new", "start", 150, 0.6, 0.5, 0.7),
        Rate("far", "away", 150, 0.6, 0.5, 0.7),
    ]
    assert set(strengths_of_rates(rates, "start")) == {"start", "new"}
    assert set(strengths_of_rates([], "start")) == {"start"}


@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_holds_the_truth_whatever_the_rates_have_in_common(shared: bool) -> None:
    random, truth = np.random.default_rng(5), {"start": 0.0, "a": 0.5, "b": 1.0}
    held, rounds = 0, 200
    for _ in range(rounds):
        luck, rates = random.random(120), []
        for first, second in (("a", "start"), ("b", "a"), ("b", "start")):
            chance = 1 / (1 + math.exp(truth[second] - truth[first]))
            won = (luck if shared else random.random(120)) < chance
            rates.append(Rate(first, second, 120, *clustered(won.astype(float).tolist())))
        b = strengths_of_rates(rates, "start")["b"]
        held += b.low <= truth["b"] <= b.high
    assert held / rounds >= 0.93, held / rounds
