"""Paired comparisons: numbers worked by hand, scipy's own tests, and what the intervals hold over many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from feedback.errors import InvalidInput, NotEnoughData
from training.evaluation.paired_tests import PairedFinding, finding, holm, mcnemar, paired


def answers(both: int, won: int, lost: int, neither: int) -> tuple[list[float], list[float]]:
    """Scores of two policies: so many items both got right, A alone, B alone, nobody."""
    return [1.0] * (both + won) + [0.0] * (lost + neither), [1.0] * both + [0.0] * won + [1.0] * lost + [0.0] * neither


def test_mcnemar_counts_the_items_on_which_the_two_disagree() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(7, 31) == pytest.approx(stats.binomtest(7, 38).pvalue)


def test_what_an_unpaired_test_misses_on_the_same_items_is_found() -> None:
    a, b = answers(both=137, won=8, lost=24, neither=51)
    found = paired(a, b)
    pooled = (found.mean_a * (1 - found.mean_a) + found.mean_b * (1 - found.mean_b)) / found.n
    unpaired = 2 * stats.norm.sf(abs(found.difference) / math.sqrt(pooled))
    assert found.n == 220 and unpaired > 0.08
    assert found.p_value < 0.01 and found.test == "McNemar, exact" and (found.won, found.lost) == (8, 24)
    assert found.high < 0 and finding(found, found.p_value) is PairedFinding.worse
    assert finding(found, found.p_value, higher_is_better=False) is PairedFinding.better


def test_the_interval_of_right_and_wrong_is_that_of_bonett_and_price() -> None:
    found = paired(*answers(both=30, won=12, lost=3, neither=15))
    one, other, n = 13 / 62, 4 / 62, 60
    error = math.sqrt((one + other - (one - other) ** 2) / 62)
    quantile = stats.t.ppf(0.975, n - 1)
    assert (found.low, found.high) == pytest.approx((one - other - quantile * error, one - other + quantile * error))
    assert found.at_least() == pytest.approx(one - other - stats.t.ppf(0.95, n - 1) * error)
    assert found.difference == pytest.approx(9 / 60)


def test_scores_that_are_no_shares_are_tested_as_student_did() -> None:
    rng = np.random.default_rng(3)
    b = rng.normal(2.0, 1.0, 50)
    a = b + rng.normal(0.3, 0.5, 50)
    found = paired(list(a), list(b))
    assert found.test == "paired t" and found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    interval = stats.ttest_rel(a, b).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    alike = paired([0.3, 0.5], [0.2, 0.4])
    assert alike.p_value > 0.05 and alike.low < 0 < alike.high, "two items that differ alike prove nothing"


def test_agreement_on_every_item_proves_no_agreement_everywhere() -> None:
    found = paired(*answers(both=40, won=0, lost=0, neither=10))
    assert found.difference == 0.0 and found.p_value == 1.0 and found.low == -found.high < -0.02
    assert finding(found, found.p_value) is PairedFinding.unclear
    assert paired(*answers(both=40, won=0, lost=0, neither=0)).high == pytest.approx(found.high, rel=0.3)
    same = paired([0.25, 0.5, 0.75], [0.25, 0.5, 0.75])
    assert same.p_value == 1.0 and same.low < 0 < same.high


@pytest.mark.parametrize(("won", "lost"), [(0.04, 0.04), (0.1, 0.04), (0.01, 0.0)])
def test_of_many_draws_the_interval_holds_the_truth_and_alarms_are_rare(won: float, lost: float) -> None:
    rng = np.random.default_rng(11)
    held = alarms = 0
    draws, n = 600, 150
    for _ in range(draws):
        up, down, rest = rng.multinomial(n, [won, lost, 1 - won - lost])
        found = paired(*answers(both=int(rest), won=int(up), lost=int(down), neither=0))
        held += found.low <= won - lost <= found.high
        alarms += found.p_value < 0.05
    assert held / draws >= 0.93
    assert won != lost or alarms / draws <= 0.05


def test_the_smallest_detectable_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    n, spread = 80, 1.0
    reference = rng.normal(0.0, spread, n)
    detectable = paired(list(reference), [0.0] * n).detectable
    found = [stats.ttest_1samp(rng.normal(detectable, spread, n), 0.0).pvalue < 0.05 for _ in range(800)]
    assert 0.7 < np.mean(found) < 0.9
    found_here = paired(*answers(80, 10, 10, 100))
    assert found_here.items_for(0.05) == pytest.approx(found_here.n * (2.5 * found_here.error / 0.05) ** 2, rel=0.02)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="at least 2"):
        paired([1.0], [0.0])
    with pytest.raises(InvalidInput, match="3 scores cannot be paired with 2"):
        paired([1.0, 0.0, 1.0], [0.0, 1.0])
    with pytest.raises(InvalidInput, match="finite"):
        paired([1.0, math.nan], [0.0, 1.0])
