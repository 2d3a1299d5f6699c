"""The charts of the Overview as figures, and the same as tables for who does not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as plain
from typing import TYPE_CHECKING, Any, NamedTuple

from studio.page.html import Html, element, join, table
from studio.page.text import share
from studio.page.views.training.curves import PALETTE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_PEOPLE = 7
"""Most people with a bar of their own; the others share one bar."""
_GRID: dict[str, Any] = {"gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.4)"}
_LAYOUT: dict[str, Any] = {
    "height": 250,
    "margin": {"l": 48, "r": 12, "t": 8, "b": 40},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "showlegend": True,
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
}


class WinRate(NamedTuple):
    """A round's win rate over a policy, with its 95 % interval."""

    number: int
    value: float
    low: float
    high: float
    prompts: int


def win_rates(recipe: Mapping[str, Any] | None) -> dict[str, list[WinRate]]:
    """The win rates of a recipe's rounds: over the start, and over the champion where only that was measured."""
    found: dict[str, list[WinRate]] = {"over the start": [], "over the champion of the round": []}
    for row in recipe["rounds"] if recipe else ():
        evidence = row["evidence"]
        # The champion of the first round is the start
        start = evidence.get("over_start") or (evidence.get("over_champion") if row["number"] == 1 else None)
        _add(found["over the start"], row["number"], start)
        if not start:
            _add(found["over the champion of the round"], row["number"], evidence.get("over_champion"))
    return {name: points for name, points in found.items() if points}


def _add(points: list[WinRate], number: int, figures: Mapping[str, Any] | None) -> None:
    if figures and figures.get("win_rate") is not None:
        prompts = int(figures.get("n_prompts") or 0)
        points.append(WinRate(number, figures["win_rate"], figures["low"], figures["high"], prompts))


def win_rate_figure(series: Mapping[str, Sequence[WinRate]]) -> Figure | None:
    """Win rate by round, with intervals and the line of chance; None where nothing was measured."""
    if not series:
        return None
    from plotly.graph_objects import Figure, Scatter

    drawn = [
        Scatter(
            x=[point.number for point in points],
            y=[100 * point.value for point in points],
            error_y={
                "type": "data",
                "array": [100 * (point.high - point.value) for point in points],
                "arrayminus": [100 * (point.value - point.low) for point in points],
                "thickness": 2,
                "width": 6,
            },
            name=name,
            mode="lines+markers",
            line={"color": PALETTE[place], "width": 2, "dash": "dot" if place else "solid"},
            marker={"size": 9},
            hovertemplate="round %{x}: %{y:.1f} %",
        )
        for place, (name, points) in enumerate(series.items())
    ]
    last = max(point.number for points in series.values() for point in points)
    chance = Scatter(
        x=[0.5, last + 0.5],
        y=[50, 50],
        name="chance",
        mode="lines",
        line={"color": "#808080", "width": 1, "dash": "dash"},
        hoverinfo="skip",
    )
    xaxis = {"title": {"text": "Round"}, "range": [0.5, last + 0.5], "dtick": max(1, last // 8), "tick0": 1, **_GRID}
    yaxis = {"title": {"text": "Win rate, %"}, "range": [0, 100], **_GRID}
    return Figure(data=[*drawn, chance], layout={**_LAYOUT, "xaxis": xaxis, "yaxis": yaxis})


def judged_by(judgments: Mapping[str, Any]) -> dict[str, list[int]]:
    """Judgments per day by person, those who judged least taken together."""
    people = dict(judgments["people"])
    if len(people) <= MOST_PEOPLE + 1:
        return people
    names = list(people)
    rest = [people[name] for name in names[MOST_PEOPLE:]]
    others = [sum(day) for day in zip(*rest, strict=True)]
    return {name: people[name] for name in names[:MOST_PEOPLE]} | {f"{len(rest)} others": others}


def judgments_figure(judgments: Mapping[str, Any]) -> Figure | None:
    """Judgments per day as stacked bars, a color for each person; None where nobody judged in these days."""
    people = judged_by(judgments)
    if not people:
        return None
    from plotly.graph_objects import Bar, Figure

    bars = [
        Bar(
            x=judgments["days"],
            y=counts,
            name=plain(name),
            marker={"color": PALETTE[place % len(PALETTE)]},
            hovertemplate="%{x}: %{y}",
        )
        for place, (name, counts) in enumerate(people.items())
    ]
    xaxis = {"type": "category", "nticks": 7, "tickangle": 0, "tickvals": judgments["days"][::4], **_GRID}
    most = max(sum(day) for day in zip(*people.values(), strict=True))
    yaxis = {"title": {"text": "Judgments"}, "rangemode": "tozero", **({"dtick": 1} if most < 6 else {}), **_GRID}
    return Figure(data=bars, layout={**_LAYOUT, "barmode": "stack", "xaxis": xaxis, "yaxis": yaxis})


def win_rate_words(series: Mapping[str, Sequence[WinRate]]) -> Html:
    """The heading of the win rates, and the same as a table."""
    title = element("h3", "Win rate by round")
    if not series:
        return join([title, element("p", "No round has measured a new policy yet.", class_="quiet")])
    rows = [
        [
            str(point.number),
            name,
            share(point.value, 1),
            f"{share(point.low, 1)} to {share(point.high, 1)}",
            f"{point.prompts:,}",
        ]
        for name, points in series.items()
        for point in points
    ]
    headers = ("Round", "Measured", "Win rate", "95 % interval", "Prompts")
    return join([title, _as_table("rates", table(headers, rows, caption="Win rate by round"))])


def judgments_words(judgments: Mapping[str, Any]) -> Html:
    """The heading of the judgments per day, and the same as a table."""
    title = element("h3", "Judgments per day")
    days, people = judgments["days"], judged_by(judgments)
    if not people:
        return join([title, element("p", f"Nobody judged in the last {len(days)} days.", class_="quiet")])
    rows = [
        [day, name, f"{counts[place]:,}"]
        for place, day in reversed(list(enumerate(days)))
        for name, counts in people.items()
        if counts[place]
    ]
    return join([title, _as_table("days", table(("Day", "Person", "Judgments"), rows, caption="Judgments per day"))])


def _as_table(part: str, shown: Html) -> Html:
    folded = element("details", element("summary", "As a table"), shown, data_part=part)
    return element("div", folded, data_run="overview")
