"""The Bradley–Terry model: a published example, scipy, what cannot be told, intervals, length, influence."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.optimize import minimize

from training.board.bradley_terry import Vote, fewest_to_reverse, measurable, strengths

# Games of the eastern division of the American League in 1987: Agresti (2013), Categorical Data Analysis, table 11.10
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)
# The estimates given there, with the last team at 0
PUBLISHED = (1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0)


def season() -> list[Vote]:
    return [
        Vote(f"{row}-{column}-{game}", TEAMS[row], TEAMS[column], 1.0)
        for row, wins in enumerate(WINS)
        for column, count in enumerate(wins)
        for game in range(count)
    ]


def drawn(truth: dict[str, float], count: int, seed: int, *, per_prompt: int = 1, bias: float = 0.0) -> list[Vote]:
    """Votes of policies with these strengths; ``bias`` is what a much longer reply adds to the odds."""
    rng = random.Random(seed)
    votes = []
    for number in range(count):
        first, second = rng.sample(sorted(truth), 2)
        longer = rng.gauss(0.0, 30.0) + (40.0 if first == "wordy" else 0.0) - (40.0 if second == "wordy" else 0.0)
        odds = truth[first] - truth[second] + bias * math.tanh(longer / 50.0)
        won = rng.random() < 1 / (1 + math.exp(-odds))
        votes.append(Vote(f"p{number // per_prompt}", first, second, float(won), longer))
    return votes


def test_a_published_example_comes_out_as_published() -> None:
    found = strengths(season(), "Baltimore", replicates=0)
    assert [found[team].value for team in TEAMS] == pytest.approx(PUBLISHED, abs=1.5e-3)


def test_ties_count_half_and_scipy_finds_the_same() -> None:
    rng = random.Random(3)
    names = ["start", "a", "b", "c"]
    votes = [Vote(f"p{n}", *rng.sample(names, 2), rng.choice([0.0, 0.5, 1.0])) for n in range(200)]

    def loss(values: np.ndarray) -> float:
        own = dict(zip(names, [0.0, *values], strict=True))
        odds = [own[vote.first] - own[vote.second] for vote in votes]
        pairs = zip(votes, odds, strict=True)
        return sum(np.logaddexp(0, -z) * v.score + np.logaddexp(0, z) * (1 - v.score) for v, z in pairs)

    expected = minimize(loss, np.zeros(3), tol=1e-10).x
    found = strengths(votes, "start", replicates=0)
    assert [found[name].value for name in names[1:]] == pytest.approx(expected, abs=1e-4)


def test_the_order_within_a_vote_changes_nothing() -> None:
    turned = [Vote(vote.prompt, vote.second, vote.first, 1.0 - vote.score) for vote in season()]
    one, other = strengths(season(), "Boston", replicates=0), strengths(turned, "Boston", replicates=0)
    assert [one[team].value for team in TEAMS] == pytest.approx([other[team].value for team in TEAMS], abs=1e-6)


def test_who_never_lost_never_won_or_never_met_the_others_has_no_strength() -> None:
    votes = [
        Vote("1", "start", "new", 1.0), Vote("2", "start", "new", 0.0),
        Vote("3", "champion", "start", 1.0), Vote("4", "champion", "new", 1.0),
        Vote("5", "loser", "new", 0.0),
        Vote("6", "far", "away", 1.0), Vote("7", "far", "away", 0.0),
    ]  # fmt: skip
    assert measurable(votes, "start") == {"start", "new"}
    assert set(strengths(votes, "start", replicates=10)) == {"start", "new"}
    assert measurable([*votes, Vote("8", "new", "champion", 0.5)], "start") == {"start", "new", "champion"}


def test_without_votes_only_the_reference_is_known() -> None:
    assert set(strengths([], "start", replicates=5)) == {"start"}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    truth = {"start": 0.0, "a": 0.6, "b": -0.4}
    held = total = 0
    for seed in range(80):
        found = strengths(drawn(truth, 240, seed, per_prompt=2), "start", replicates=200, seed=seed)
        for name in ("a", "b"):
            held += found[name].low <= truth[name] <= found[name].high
            total += 1
    assert 0.90 <= held / total <= 0.985, held / total


def test_votes_on_one_prompt_are_one_piece_of_evidence() -> None:
    votes = drawn({"start": 0.0, "a": 0.5}, 100, 1)
    repeated = [vote for vote in votes for _ in range(9)]
    one, other = strengths(votes, "start")["a"], strengths(repeated, "start")["a"]
    assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.05)


def test_at_equal_length_a_policy_that_only_writes_more_is_no_stronger() -> None:
    votes = drawn({"start": 0.0, "wordy": 0.0}, 1500, 4, bias=1.5)
    plain = strengths(votes, "start", replicates=100)["wordy"]
    equal = strengths(votes, "start", length_controlled=True, replicates=100)["wordy"]
    assert plain.low > 0.5
    assert equal.low < 0.0 < equal.high


def test_a_policy_that_is_always_longer_has_no_strength_at_equal_length() -> None:
    votes = [Vote(f"p{n}", "wordy", "start", float(n % 3 != 0), 50.0) for n in range(60)]
    assert strengths(votes, "start", replicates=20)["wordy"].value == pytest.approx(math.log(2), abs=1e-2)
    assert set(strengths(votes, "start", length_controlled=True, replicates=20)) == {"start"}


def test_few_votes_turn_a_narrow_lead_and_many_a_wide_one() -> None:
    close = [Vote(f"p{n}", "a", "start", float(n % 2)) for n in range(100)] + [Vote("x", "a", "start", 1.0)] * 4
    assert fewest_to_reverse(close, "start", "a", "start") == 4
    assert fewest_to_reverse(close, "start", "start", "a") == 0
    wide = [Vote(f"p{n}", "a", "start", float(n % 10 != 0)) for n in range(100)]
    assert fewest_to_reverse(wide, "start", "a", "start") is None
    assert fewest_to_reverse(wide, "start", "a", "start", most=90) == 80
