"""Intervals: worked examples, the ends, and how often they hold what they should."""

from __future__ import annotations

import math
import random

import pytest

from training.evaluation.intervals import clustered, clustered_trials, evidence_at_any_time, student_quantile, wilson


def test_wilson_agrees_with_values_worked_by_hand() -> None:
    # n = 10, x = 8: centre (0.8 + 3.8415 / 20) / 1.38415 = 0.71674, half width 0.22657
    share = wilson(8, 10)
    assert share.low == pytest.approx(0.4902, abs=5e-4)
    assert share.high == pytest.approx(0.9433, abs=5e-4)


def test_the_ends_are_neither_points_nor_beyond_the_possible() -> None:
    for share in (wilson(0, 20), clustered([0.0] * 20)):
        assert share.low == pytest.approx(0.0)
        assert 0.1 < share.high < 0.25
    for share in (wilson(20, 20), clustered([1.0] * 20)):
        assert share.high == pytest.approx(1.0)
        assert 0.75 < share.low < 0.9


def test_without_trials_nothing_is_known() -> None:
    for share in (wilson(0, 0), clustered([])):
        assert math.isnan(share.value)
        assert (share.low, share.high) == (0.0, 1.0)


def test_independent_clusters_give_wilsons_interval_but_for_students_quantile() -> None:
    means = [1.0] * 60 + [0.0] * 40
    low, high = wilson(60 * 99 / 100, 99, student_quantile(99))[1:]
    assert clustered(means)[1:] == pytest.approx((low, high), abs=2e-3)


def test_more_samples_of_a_prompt_never_count_for_more_than_their_number() -> None:
    alike = [0.5 + 1e-6 * (i % 2) for i in range(50)]
    width = lambda share: share.high - share.low  # noqa: E731
    assert width(clustered(alike, per_cluster=2)) == pytest.approx(
        width(wilson(50, 100, student_quantile(49))), abs=1e-3
    )
    assert width(clustered(alike, per_cluster=2)) < width(clustered(alike, per_cluster=1))


@pytest.mark.parametrize(("truth", "spread"), [(0.5, 0.1), (0.7, 0.3), (0.95, 0.05)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(truth: float, spread: float) -> None:
    rng = random.Random(1)
    held = 0
    for _ in range(600):
        means = []
        for _ in range(80):
            own = min(1.0, max(0.0, truth + rng.choice((-spread, spread))))
            means.append(sum(rng.random() < own for _ in range(3)) / 3)
        share = clustered(means, per_cluster=3)
        held += share.low <= truth <= share.high
    assert 0.925 <= held / 600 <= 0.985


def test_students_quantile() -> None:
    assert student_quantile(1) == pytest.approx(12.706, abs=1e-3)
    assert student_quantile(10_000) == pytest.approx(1.960, abs=1e-3)


def test_clusters_of_unlike_size_weigh_by_their_trials() -> None:
    assert clustered_trials([3.0, 0.0], [3, 1]).value == 0.75
    # By hand: share 3/4; residuals 3 - 9/4 and 0 - 3/4; 2 · (9/16 + 9/16) / 16
    variance = 2 * (2 * 9 / 16) / 16
    low, high = wilson(0.75 * (3 / 16) / variance, (3 / 16) / variance, student_quantile(1))[1:]
    assert clustered_trials([3.0, 0.0], [3, 1])[1:] == pytest.approx((low, high))
    assert clustered([1.0, 0.5, 0.0, 1.0], 2) == pytest.approx(clustered_trials([2.0, 1.0, 0.0, 2.0], [2, 2, 2, 2]))


@pytest.mark.slow
def test_evidence_that_may_be_looked_at_whenever_is_rarely_fooled_and_finds_what_is_there() -> None:
    """Of equal policies, looked at after each of 150 votes, one in twenty at most ever seems decided."""
    rng = random.Random(5)

    def ever(share: float, ties: float = 0.2) -> bool:
        scores = [0.5 if rng.random() < ties else float(rng.random() < share) for _ in range(150)]
        return any(evidence_at_any_time(scores[:n]) >= 20 for n in range(1, 151))

    assert sum(ever(0.5) for _ in range(200)) <= 10
    assert sum(ever(0.75) for _ in range(40)) >= 36
    assert evidence_at_any_time([]) == pytest.approx(1.0)
    assert evidence_at_any_time([0.5] * 100) == pytest.approx(1.0)
    assert evidence_at_any_time([1.0] * 50) == pytest.approx(evidence_at_any_time([0.0] * 50))
    assert evidence_at_any_time([1.0] * 5000) == 1e9
