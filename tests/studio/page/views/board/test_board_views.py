"""What the board says and draws: intervals, reasons for the unknown, every figure also as text, nothing unescaped."""

from __future__ import annotations

import pytest

from studio.page.views.board import distance_plot, strengths, win_matrix
from training.board.bradley_terry import Strength
from training.board.distances import DistancePoint
from training.board.standings import Board, Standing

HOSTILE = "<b>new</b>"


def figures(rate: float | None, **more: object) -> dict[str, object]:
    bounds = {"low": 0.0, "high": 1.0} if rate is None else {"low": rate - 0.1, "high": rate + 0.1}
    return {"win_rate": rate, **bounds, "n_prompts": 20, "waiting": 0, **more}


def board(by: str = "people", **changed: object) -> Board:
    standings = [
        Standing(HOSTILE, 20, 20, Strength(0.85, 0.2, 1.62), Strength(0.4, -0.2, 1.0), votes_to_reverse=8),
        Standing("start", 24, 24, Strength(0.0, 0.0, 0.0), Strength(0.0, 0.0, 0.0)),
        Standing("late", 4, 4, unknown="compared on 4 prompts, 10 are needed"),
    ]
    wins = {
        HOSTILE: {"start": figures(0.7, waiting=3)},
        "start": {HOSTILE: figures(0.3, waiting=3), "late": figures(None, waiting=6)},
        "late": {"start": figures(None, waiting=6)},
    }
    values: dict[str, object] = {"judges": ["people", "oracle:shorter"], "standings": standings, "wins": wins}
    return Board("start", by, **(values | changed))  # type: ignore[arg-type]


def test_strengths_stand_with_their_intervals_and_the_unknown_with_its_reason() -> None:
    shown = strengths.strengths_table(board())
    assert HOSTILE not in shown and "&lt;b&gt;new" in shown
    assert "+0.85 (+0.20 to +1.62)" in shown and "+0.40 (-0.20 to +1.00)" in shown
    assert "unknown: compared on 4 prompts, 10 are needed" in shown
    assert "The bars span ±2." in shown and 'aria-label="Strength of start in log-odds, from -2 to 2: 0' in shown
    assert ">8<" in shown and "Votes to reverse" in shown


def test_a_board_by_a_rule_has_no_column_that_it_cannot_fill() -> None:
    shown = strengths.strengths_table(board("oracle:shorter"))
    assert "Verdicts" in shown and "need single verdicts" in shown
    assert "At equal length</th>" not in shown and "Votes to reverse" not in shown


def test_a_lead_that_no_fifty_votes_reverse_says_so() -> None:
    first, second = board().standings[:2]
    lasting = Standing(first.policy, 900, 900, first.strength)
    shown = strengths.strengths_table(board(standings=[lasting, second]))
    assert "over 50" in shown


@pytest.mark.parametrize(("by", "who"), [("people", "People have"), ("oracle:shorter", "Rule: shorter has")])
def test_an_empty_board_says_what_to_do(by: str, who: str) -> None:
    shown = strengths.strengths_table(board(by, standings=[], wins={}))
    assert f"{who} compared no two policies yet" in shown and "Measure win rate" in shown
    assert ("Other judges have: rule: shorter." in shown) is (by == "people")
    assert win_matrix.win_matrix(board(by, standings=[], wins={})) == ""
    assert "No policy yet" in strengths.strengths_table(Board(""))


def test_judges_are_named_in_words() -> None:
    labels = [strengths.judge_label(judge) for judge in ("people", "oracle:keyword:please", "reward:rm")]
    assert labels == ["people", "rule: keyword:please", "reward model: rm"]


def test_each_cell_has_its_figure_and_names_its_two_policies() -> None:
    shown = win_matrix.win_matrix(board())
    assert "<strong>70 %</strong>" in shown and "60–80" in shown and "6 wait" in shown
    assert "3 pairs wait for somebody" in shown and "not judged yet, 6 pairs wait" in shown
    assert 'class="matrix-wins" style="--heat:0.24"' in shown and 'class="matrix-losses"' in shown
    assert win_matrix.names_of("a\nb") == ("a", "b")
    assert win_matrix.win_matrix(board(wins={HOSTILE: board().wins[HOSTILE]})) == ""


def test_the_plot_and_its_table_hold_the_same_points() -> None:
    points = [
        DistancePoint(HOSTILE, 4.0, 0.5, 0.7, 0.6, 0.8, 150),
        DistancePoint("start", 0.64, None, 0.65, 0.6, 0.7, 150, best_of=4, picker="rm"),
        DistancePoint("start", 0.19, None, 0.6, 0.55, 0.65, 150, best_of=2, picker="rm"),
        DistancePoint("late", None, None, 0.5, 0.4, 0.6, 150),
    ]
    found = board(distances=points)
    drawn = distance_plot.distance_figure(found)
    assert drawn is not None
    own, best = drawn.data
    assert list(own.x) == [4.0] and list(own.y) == [70.0] and own.text[0] == "&lt;b&gt;new&lt;/b&gt;"
    assert own.error_x.array[0] == pytest.approx(0.98) and own.error_y.array[0] == pytest.approx(10.0)
    assert list(best.x) == [0.64, 0.19] and best.name == "start, best of n by rm" and "n = 4" in best.text
    words = distance_plot.distance_words(found)
    assert "start, best of 4 by rm" in words and "at most 0.64" in words and "65.0 % (60.0 % to 70.0 %)" in words
    assert "KL is not known of late:" in words and "not measured" in words


def test_without_a_known_distance_nothing_is_drawn() -> None:
    assert distance_plot.distance_figure(board(distances=[DistancePoint("late", None, None, 0.5, 0.4, 0.6, 9)])) is None
    assert distance_plot.distance_words(board()) == "" and distance_plot.distance_legend(board()) == ""
