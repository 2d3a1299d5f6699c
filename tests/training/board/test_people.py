"""The board by people: the same figures as the policy table, who is unknown and why, and what never counts."""

from __future__ import annotations

import math

import pytest

from feedback.database.engine import Database
from feedback.errors import NotFound
from feedback.store.models.policies import promote_policy
from feedback.tables import PolicyRow
from feedback.types import Source, Split
from tests.factories import compare_policies, make_policy
from training.board.people import people_board
from training.board.standings import FEWEST_PROMPTS
from training.evaluation.people import by_people


@pytest.fixture
def policies(db: Database) -> list[PolicyRow]:
    """Three policies, the first of which serves."""
    rows = [make_policy(db, name) for name in ("start", "better", "best")]
    promote_policy(db, rows[0].id)
    return rows


def test_strengths_of_two_are_the_log_odds_of_the_win_rate(db: Database, policies: list[PolicyRow]) -> None:
    compare_policies(db, policies[1], policies[0], wins=12, losses=4, ties=4)
    board = people_board(db)
    figures = by_people(db, policies[1].id, policies[0].id)
    assert figures is not None and figures["win_rate"] == 0.7
    assert board.reference == "start" and [row.policy for row in board.standings] == ["better", "start"]
    top = board.standings[0]
    assert top.strength is not None and top.strength.value == pytest.approx(math.log(0.7 / 0.3), abs=1e-3)
    assert top.strength.low < top.strength.value < top.strength.high
    assert (top.votes, top.prompts, top.votes_to_reverse) == (20, 20, 8)
    assert board.wins["better"]["start"] == figures


def test_policies_that_never_met_are_placed_through_others(db: Database, policies: list[PolicyRow]) -> None:
    start, better, best = policies
    compare_policies(db, better, start, wins=14, losses=6)
    compare_policies(db, best, better, wins=14, losses=6)
    board = people_board(db)
    assert [row.policy for row in board.standings] == ["best", "better", "start"]
    top = board.standings[0].strength
    assert top is not None and top.value == pytest.approx(2 * math.log(14 / 6), abs=1e-2)
    assert "start" not in board.wins["best"], "a figure of two policies is given only where they met"
    other = people_board(db, "best")
    assert next(row.strength for row in other.standings if row.policy == "best").value == 0.0


def test_who_was_compared_too_rarely_or_never_lost_is_unknown(db: Database, policies: list[PolicyRow]) -> None:
    start, better, best = policies
    compare_policies(db, better, start, wins=FEWEST_PROMPTS, losses=FEWEST_PROMPTS)
    compare_policies(db, best, start, wins=1, losses=1)
    unknown = {row.policy: row.unknown for row in people_board(db).standings}
    assert unknown == {"better": "", "start": "", "best": "compared on 2 prompts, 10 are needed"}
    compare_policies(db, best, start, wins=20, losses=0)
    compare_policies(db, make_policy(db, "perfect"), start, wins=12, losses=0)
    rows = {row.policy: row for row in people_board(db).standings}
    assert rows["best"].strength is not None
    assert rows["perfect"].strength is None and "no upper bound" in rows["perfect"].unknown


def test_ties_alone_make_no_interval(db: Database, policies: list[PolicyRow]) -> None:
    compare_policies(db, policies[1], policies[0], wins=0, losses=0, ties=FEWEST_PROMPTS + 2)
    rows = {row.policy: row for row in people_board(db).standings}
    assert rows["better"].strength is None and "a tie in every comparison" in rows["better"].unknown
    assert rows["start"].strength is not None and rows["start"].strength.value == 0.0


def test_work_prompts_and_rules_do_not_count(db: Database, policies: list[PolicyRow]) -> None:
    start, better, _ = policies
    compare_policies(db, better, start, wins=12, losses=2, split=Split.work)
    compare_policies(db, better, start, wins=12, losses=2, source=Source.simulated)
    assert people_board(db).standings == []


def test_without_policies_or_with_an_unknown_reference(db: Database) -> None:
    assert people_board(db).standings == [] and people_board(db).reference == ""
    with pytest.raises(NotFound):
        people_board(db, "nobody")
