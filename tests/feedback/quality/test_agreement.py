from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.quality import agreement
from feedback.quality.ballots import Ballot, ballots_of
from feedback.store.reports.opinions import Opinion
from feedback.types import Verdict


def ballots(table: dict[str, str]) -> list[Ballot]:
    """Annotator → one answer per unit as a letter, '.' for a missing one."""
    return [
        Ballot((f"u{at}", 0, 1), name, answer, 0, 0.0, f"{name}{at}")
        for name, row in table.items()
        for at, answer in enumerate(row)
        if answer != "."
    ]


# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", example C: nominal data, four observers, missing
# values; the text gives alpha = 0.743.
EXAMPLE = {"A": "123321412...", "B": "1233224125.3", "C": ".3332342251.", "D": "12332441251."}


def test_alpha_of_the_published_example() -> None:
    assert agreement.krippendorff_alpha(ballots(EXAMPLE)).value == pytest.approx(0.743, abs=0.0005)


def test_alpha_by_hand() -> None:
    # Two people, four pairs, one disagreement: o = 2 ordered mismatches of 8 values, 3 ones and 5 twos:
    # alpha = 1 - (8 - 1) * 2 / (64 - 9 - 25) = 1 - 14 / 30
    assert agreement.krippendorff_alpha(ballots({"A": "1122", "B": "1222"})).value == pytest.approx(1 - 14 / 30)
    assert agreement.raw_agreement(ballots({"A": "1122", "B": "1222"})).value == pytest.approx(0.75)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text("12t.", min_size=6, max_size=6), min_size=1, max_size=5))
def test_no_figure_is_ever_nan_and_whatever_is_missing_is_explained(rows: list[str]) -> None:
    given_ballots = ballots({f"p{i}": row for i, row in enumerate(rows)})
    for measure in (
        agreement.krippendorff_alpha(given_ballots),
        agreement.raw_agreement(given_ballots),
        agreement.left_share(given_ballots),
        agreement.longer_share(given_ballots),
        agreement.gold_accuracy(given_ballots),
        agreement.self_consistency(given_ballots, []),
    ):
        assert (measure.value is None) == bool(measure.note) or measure.low is None
        assert all(value is None or math.isfinite(value) for value in (measure.value, measure.low, measure.high))


def test_alpha_of_chance_is_about_zero_and_its_interval_holds_it() -> None:
    rng = random.Random(3)
    measure = agreement.krippendorff_alpha(
        ballots({name: "".join(rng.choice("12") for _ in range(300)) for name in "AB"})
    )
    assert measure.low is not None and measure.high is not None and measure.low < 0.0 < measure.high
    assert abs(measure.value or 1) < 0.15


def test_one_answer_only_is_no_reliability_at_all() -> None:
    measure = agreement.krippendorff_alpha(ballots({"A": "111", "B": "111"}))
    assert measure.value is None and "All 6 answers are the same" in measure.note


def test_gold_is_tested_step_by_step() -> None:
    assert agreement.gold_test([True] * 8) == "undecided" and agreement.gold_test([True] * 10) == "trusted"
    assert agreement.gold_test([False] * 3) == "doubtful"
    assert agreement.gold_test([True] * 10 + [False] * 10) == "trusted"  # the first boundary decides


def test_the_sequential_test_errs_as_rarely_as_it_says() -> None:
    rng = random.Random(1)
    wrong = {0.9: 0, 0.65: 0}
    for chance, bad in ((0.9, "doubtful"), (0.65, "trusted")):
        for _ in range(400):
            wrong[chance] += agreement.gold_test([rng.random() < chance for _ in range(120)]) == bad
    assert wrong[0.9] <= 30 and wrong[0.65] <= 30, wrong


def opinion(**fields: object) -> Opinion:
    defaults = {
        "judgment_id": "j", "matchup_id": "m", "annotator": "ann", "verdict": Verdict.first, "ranking": None,
        "shown_order": [0, 1], "seconds": 20.0, "lengths": (100, 200),
    }  # fmt: skip
    return Opinion(**{**defaults, **fields})  # type: ignore[arg-type]


def test_a_ballot_says_what_was_preferred_and_where_it_stood() -> None:
    (one,) = ballots_of([opinion(verdict=Verdict.second, shown_order=[1, 0], gold={"verdict": "second"})])
    assert (one.choice, one.left, one.length_ratio, one.truth) == (1, 1, 1.0, 1)
    ranked = ballots_of([opinion(verdict=None, ranking=[2, 1, 2], shown_order=[2, 0, 1], lengths=(10, 20, 40))])
    assert [(b.unit[1:], b.choice, b.left) for b in ranked] == [((0, 1), 1, 0), ((0, 2), "tie", 1), ((1, 2), 0, 1)]
    assert ballots_of([opinion(verdict=Verdict.skip)]) == []


def test_side_length_and_haste() -> None:
    always_left = ballots_of(
        opinion(matchup_id=f"m{i}", verdict=Verdict.second if i % 2 else Verdict.first, shown_order=[i % 2, 1 - i % 2])
        for i in range(20)
    )
    assert agreement.left_share(always_left).value == 1.0 and agreement.is_lopsided(
        agreement.left_share(always_left), 20
    )
    assert agreement.longer_share(always_left).value == 0.5
    assert not agreement.is_lopsided(agreement.longer_share(always_left), 1)
    hasty = [opinion(seconds=1.0)] * 3 + [opinion(seconds=10.0)]
    assert agreement.hasty_share(hasty).value == 0.75 and agreement.median_seconds(hasty).value == 1.0


def test_a_repeat_is_compared_with_the_first_answer() -> None:
    first = ballots_of([opinion(matchup_id="a"), opinion(matchup_id="b", verdict=Verdict.tie)])
    again = ballots_of(
        [opinion(matchup_id="c", repeat_of="a"), opinion(matchup_id="d", repeat_of="b", verdict=Verdict.first)]
    )
    measure = agreement.self_consistency(first, again)
    assert (measure.value, measure.n) == (0.5, 2)


def test_what_two_people_share() -> None:
    assert agreement.pairwise_agreement(ballots({"A": "12.", "B": "112", "C": "..2"})) == {
        ("A", "B"): (2, 1),
        ("B", "C"): (1, 1),
    }
