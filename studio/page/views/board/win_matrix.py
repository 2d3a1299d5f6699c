"""Who was preferred to whom how often: a heat map with figures in its cells, each of which shows the two compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.page.html import Html, element, join
from studio.page.text import share
from training.board.standings import Board

DARKEST = 0.6
"""How opaque the color of a win rate of 0 or 1 is; text must stay readable on it."""
KEY_SEPARATOR = "\n"
"""Between the two names in the key of a cell; no name holds it."""


def win_matrix(board: Board) -> Html:
    """The win rate of each row's policy over each column's; nothing where no two were compared."""
    names = [one.policy for one in board.standings if board.wins.get(one.policy)]
    if len(names) < 2:
        return Html("")
    head = element("tr", element("td"), *(element("th", name, scope="col") for name in names))
    rows = [
        element("tr", element("th", name, scope="row"), *(_cell(board, name, other) for other in names))
        for name in names
    ]
    shown = element(
        "table",
        element("caption", "Win rate of each row’s policy over each column’s", class_="unseen"),
        element("thead", head),
        element("tbody", *rows),
    )
    legend = "Row over column, with the 95 % interval. Blue: above one half. Orange: below. Choose a cell to compare."
    return join(
        [
            element("h4", "Wins"),
            element("div", shown, class_="matrix-wrap"),
            element("p", legend, class_="quiet legend"),
        ]
    )


def names_of(key: str) -> tuple[str, str]:
    """The two policies of a chosen cell."""
    first, _, second = key.partition(KEY_SEPARATOR)
    return first, second


def _cell(board: Board, name: str, other: str) -> Html:
    if name == other:
        return element("td", class_="matrix-self")
    figures = board.wins[name].get(other)
    if figures is None:
        return element("td", element("span", "—", class_="quiet", title="not compared"))
    rate = figures["win_rate"]
    style = None if rate is None else f"--heat:{min(1.0, 2 * abs(rate - 0.5)) * DARKEST:.2f}"
    side = None if rate is None else "matrix-wins" if rate >= 0.5 else "matrix-losses"
    said = element("span", f"{name} over {other}: ", class_="unseen")
    button = element(
        "button",
        said,
        *_figures(figures),
        type="button",
        class_="matrix-pick",
        data_pick=f"{name}{KEY_SEPARATOR}{other}",
        title=f"{name} over {other}: {_in_words(figures)}",
    )
    return element("td", button, class_=side, style=style)


def _figures(figures: Mapping[str, Any]) -> list[Html]:
    if figures["win_rate"] is None:
        return [element("span", f"{figures.get('waiting', 0):,} wait", class_="quiet")]
    between = f"{100 * figures['low']:.0f}–{100 * figures['high']:.0f}"
    return [element("strong", share(figures["win_rate"])), element("span", f" {between}", class_="block")]


def _in_words(figures: Mapping[str, Any]) -> str:
    waiting = figures.get("waiting", 0)
    waits = f", {waiting:,} pairs wait for somebody" if waiting else ""
    if figures["win_rate"] is None:
        return f"not judged yet{waits}"
    interval = f"95 %: {share(figures['low'], 1)} to {share(figures['high'], 1)}"
    return f"{share(figures['win_rate'], 1)} ({interval}) on {figures['n_prompts']:,} prompts{waits}"
