"""The strengths of all policies with their intervals as bars, and who can be chosen as the judge."""

from __future__ import annotations

import math
from collections.abc import Sequence

from studio.page.html import Html, element, join, notice, range_plot, table
from studio.page.text import share
from training.board.bradley_terry import Strength
from training.board.standings import Board, Standing
from training.evaluation.people import PEOPLE

SMALLEST_SPAN = 0.5
"""Least range of the bars on either side of the reference, in log-odds."""
MOST_DROPPED = 50
"""Most dropped votes that are tried."""


def judge_label(judge: str) -> str:
    """A judge as a person reads it: *people*, *rule: shorter*, *reward model: rm*."""
    kind, _, name = judge.partition(":")
    return {"oracle": f"rule: {name}", "reward": f"reward model: {name}"}.get(kind, judge)


def judge_choices(board: Board) -> list[tuple[str, str]]:
    """The judges that a board can be chosen of, people first."""
    return [(judge_label(judge), judge) for judge in board.judges]


def strengths_table(board: Board) -> Html:
    """Every policy that the judge compared, strongest first; where there is none, how the board is filled."""
    if not board.standings:
        return _empty(board)
    by_people = board.by == PEOPLE
    span = _span(board.standings)
    followed = [*board.standings[1:], None]
    rows = [
        _row(one, after, board.reference, span, by_people) for one, after in zip(board.standings, followed, strict=True)
    ]
    headers = ["Policy", f"Strength over {board.reference}", "Votes" if by_people else "Verdicts", "Prompts"]
    headers += ["At equal length", "Votes to reverse"] if by_people else []
    shown = table(headers, rows, caption=f"Board of policies, judged by {judge_label(board.by)}")
    return join([shown, element("p", _legend(board, span), class_="quiet legend")])


def _empty(board: Board) -> Html:
    if not board.reference:
        return notice("No policy yet", "Add a model below; once it is promoted, it serves.")
    others = ", ".join(judge_label(judge) for judge in board.judges if judge != board.by)
    who = "People have" if board.by == PEOPLE else f"{judge_label(board.by).capitalize()} has"
    return notice(
        f"{who} compared no two policies yet",
        f"Other judges have: {others}. Choose one of them under “Judged by”." if others else "",
        "Pick a policy in the list below, choose whom to compare it with and who judges, and press “Measure win rate”. "
        "People judge pairs of both on the Label tab, without knowing whose they are.",
        "With one policy only, train a second one on the Train tab first.",
    )


def _span(standings: Sequence[Standing]) -> float:
    ends = [abs(end) for one in standings if one.strength for end in (one.strength.low, one.strength.high)]
    return max([SMALLEST_SPAN, *(math.ceil(2 * end) / 2 for end in ends)])


def _row(one: Standing, after: Standing | None, reference: str, span: float, by_people: bool) -> list[object]:
    strength: object = element("span", f"unknown: {one.unknown}", class_="quiet")
    if one.strength is not None:
        strength = _bar(one.policy, one.strength, reference, span)
    cells: list[object] = [one.policy, strength, f"{one.votes:,}", f"{one.prompts:,}"]
    if not by_people:
        return cells
    equal = in_figures(one.at_equal_length) if one.at_equal_length else "—"
    if one.policy == reference:
        equal = "0"
    return [*cells, equal, _reversed_by(one, after)]


def _bar(policy: str, strength: Strength, reference: str, span: float) -> Html:
    said = "0, the reference" if policy == reference else in_figures(strength)
    low, value, high = ((end + span) / (2 * span) for end in (strength.low, strength.value, strength.high))
    title = f"Strength of {policy} in log-odds, from {-span:g} to {span:g}"
    line = range_plot(low, value, high, title=title, said=said, marks=(0.5,))
    return element("span", line, element("span", said, class_="range-value"), class_="range-cell")


def in_figures(strength: Strength) -> str:
    """A strength with its interval: ``+0.85 (+0.62 to +1.10)``."""
    return f"{strength.value:+.2f} ({strength.low:+.2f} to {strength.high:+.2f})"


def _reversed_by(one: Standing, after: Standing | None) -> str:
    if one.strength is None or after is None or after.strength is None:
        return "—"
    return f"over {MOST_DROPPED}" if one.votes_to_reverse is None else f"{one.votes_to_reverse:,}"


def _legend(board: Board, span: float) -> str:
    even = share(1 / (1 + math.exp(-1)))
    common = (
        f"Strength is in log-odds (Bradley-Terry): 0 is {board.reference}, +1 means preferred to it in {even} of "
        f"comparisons. Dot: estimate. Bar: 95 % interval. Line: 0. The bars span ±{span:g}. "
    )
    if board.by == PEOPLE:
        return common + (
            "Intervals resample prompts. “At equal length” compares replies of the same number of characters, and "
            "is not known where lengths alone could explain the votes. “Votes to reverse” is how few votes, left out, "
            "would put the next policy level."
        )
    return common + (
        "An evaluation keeps win rates, not single verdicts: each interval follows from the intervals of the win rates "
        "and is wide where a policy met the reference only through others. A strength at equal length and the votes to "
        "reverse need single verdicts and are known for people alone."
    )
