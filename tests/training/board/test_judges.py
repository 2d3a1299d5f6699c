"""The boards by rules and reward models: each judge apart, the figures that were measured, and nothing beyond them."""

from __future__ import annotations

import math

import pytest

from feedback.database.engine import Database
from feedback.errors import NotFound
from feedback.store.models.checkpoints import save_checkpoint
from feedback.store.models.policies import promote_policy
from feedback.tables import PolicyRow
from feedback.types import Checkpoint
from tests.factories import compare_policies, make_policy, make_win_rate
from training.board.judges import board_by


@pytest.fixture
def policies(db: Database) -> list[PolicyRow]:
    """Three policies, the first of which serves."""
    rows = [make_policy(db, name) for name in ("start", "better", "best")]
    promote_policy(db, rows[0].id)
    return rows


def test_every_judge_has_a_board_of_its_own(db: Database, policies: list[PolicyRow]) -> None:
    start, better, _ = policies
    reward = save_checkpoint(db, Checkpoint(name="rm", kind="reward", path="checkpoints/rm", base="starter"))
    make_win_rate(db, better, start, 0.7, oracle="shorter")
    make_win_rate(db, better, start, 0.4, oracle="keyword:please")
    make_win_rate(db, better, start, 0.8, reward=reward.id)
    make_win_rate(db, better, start, 0.6, reward="rm")  # the same judge, named otherwise, and newer
    compare_policies(db, better, start, wins=11, losses=9)
    found = {by: board_by(db, by) for by in board_by(db).judges}
    assert list(found) == ["people", "oracle:keyword:please", "oracle:shorter", "reward:rm"]
    rates = {by: board.wins["better"]["start"]["win_rate"] for by, board in found.items()}
    assert rates == {"people": 0.55, "oracle:keyword:please": 0.4, "oracle:shorter": 0.7, "reward:rm": 0.6}
    assert [row.policy for row in found["oracle:keyword:please"].standings] == ["start", "better"]
    with pytest.raises(NotFound, match="oracle:longer.*Known: people, oracle:keyword:please"):
        board_by(db, "oracle:longer")


def test_the_newest_measurement_counts_and_its_interval_is_that_of_the_strength(
    db: Database, policies: list[PolicyRow]
) -> None:
    start, better, _ = policies
    make_win_rate(db, better, start, 0.4)
    make_win_rate(db, better, start, 0.7, half=0.1)
    board = board_by(db, "oracle:shorter")
    top = board.standings[0]
    assert top.policy == "better" and top.strength is not None
    odds = [math.log(share / (1 - share)) for share in (0.7, 0.6, 0.8)]
    assert [top.strength.value, top.strength.low, top.strength.high] == pytest.approx(odds, abs=2e-3)
    assert (top.votes, top.prompts, top.at_equal_length, top.votes_to_reverse) == (600, 150, None, None)
    turned = board.wins["start"]["better"]
    assert [turned[name] for name in ("win_rate", "low", "high")] == pytest.approx([0.3, 0.2, 0.4])
    assert "kl" not in turned


def test_each_way_keeps_its_own_figure_and_the_newer_one_makes_the_strength(
    db: Database, policies: list[PolicyRow]
) -> None:
    start, better, _ = policies
    make_win_rate(db, better, start, 0.7)
    make_win_rate(db, start, better, 0.4)
    board = board_by(db, "oracle:shorter")
    assert (board.wins["better"]["start"]["win_rate"], board.wins["start"]["better"]["win_rate"]) == (0.7, 0.4)
    assert board.standings[0].strength is not None
    assert board.standings[0].strength.value == pytest.approx(math.log(0.6 / 0.4), abs=1e-3)


def test_who_was_measured_on_few_prompts_never_lost_or_stands_apart_is_unknown(
    db: Database, policies: list[PolicyRow]
) -> None:
    start, better, best = policies
    make_win_rate(db, better, start, 0.5, n_prompts=4)
    make_win_rate(db, best, start, 1.0)
    apart, alone = make_policy(db, "apart"), make_policy(db, "alone")
    make_win_rate(db, apart, alone, 0.6)
    rows = {row.policy: row for row in board_by(db, "oracle:shorter").standings}
    assert rows["better"].unknown == "compared on 4 prompts, 10 are needed"
    assert "no upper bound" in rows["best"].unknown and "no chain" in rows["apart"].unknown
    assert all(rows[name].strength is None for name in ("better", "best", "apart", "alone"))
    assert rows["start"].strength is not None


def test_the_best_of_many_replies_and_a_policy_over_itself_make_no_strength(
    db: Database, policies: list[PolicyRow]
) -> None:
    start, better, _ = policies
    make_win_rate(db, better, start, 0.9, best_of=4, best_of_kl=0.64, picker="rm")
    make_win_rate(db, start, start, 0.5)
    make_win_rate(db, better, start, math.nan)
    board = board_by(db, "oracle:shorter")
    assert board.standings == [] and board.wins == {}


def test_distances_are_read_from_the_scorecards(db: Database, policies: list[PolicyRow]) -> None:
    start, better, best = policies
    make_win_rate(db, better, start, 0.7, kl=3.5, kl_error=0.2)
    make_win_rate(db, best, start, 0.8, kl=None)
    make_win_rate(db, start, start, 0.62, best_of=4, best_of_kl=math.log(4) - 3 / 4, kl=0.01, picker="rm")
    make_win_rate(db, better, start, 0.9, best_of=2, best_of_kl=math.log(2) - 1 / 2, kl=3.4, picker="rm")
    make_win_rate(db, best, better, 0.6, kl=9.0)
    points = {(one.policy, one.best_of): one for one in board_by(db, "oracle:shorter").distances}
    kl = {key: point.kl for key, point in points.items()}
    assert kl == {
        ("better", 1): 3.5,
        ("best", 1): None,
        ("start", 4): pytest.approx(0.636, abs=1e-3),
        ("better", 2): pytest.approx(3.593, abs=1e-3),
    }
    assert points["start", 4].picker == "rm" and points["better", 1].win_rate == 0.7


def test_the_distance_of_a_policy_that_people_judged_comes_from_its_newest_scorecard(
    db: Database, policies: list[PolicyRow]
) -> None:
    start, better, _ = policies
    compare_policies(db, better, start, wins=12, losses=8)
    [point] = board_by(db).distances
    assert point.kl is None and point.win_rate == 0.6
    make_win_rate(db, better, start, 0.7, kl=3.5, kl_error=0.2)
    [point] = board_by(db).distances
    assert (point.kl, point.kl_error, point.win_rate, point.prompts) == (3.5, 0.2, 0.6, 20)
