"""How far policies moved and what they gained: KL against win rate, with best-of-n points, as a plot and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from studio.page.html import Html, element, join, table
from studio.page.text import number, share
from studio.page.views.training.curves import PALETTE
from training.board.distances import DistancePoint
from training.board.standings import Board

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

Z95 = 1.96


def distance_figure(board: Board) -> Figure | None:
    """Win rate over the reference against KL from it; None where no KL is known.

    A line joins the best-of-n points of one policy and picker. Names are shown as they are: Plotly would take what
    looks like a tag for one.
    """
    points = [point for point in board.distances if point.kl is not None]
    if not points:
        return None
    from plotly.graph_objects import Figure

    own = [point for point in points if point.best_of == 1]
    chosen = [point for point in points if point.best_of > 1]
    series = [("Policies", own)] if own else []
    series += [
        (_chosen_name(*key), list(group)) for key, group in groupby(chosen, lambda one: (one.policy, one.picker))
    ]
    grid: dict[str, Any] = {"gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.4)"}
    even = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 50, "y1": 50}
    middle = max(point.kl or 0.0 for point in points) / 2
    return Figure(
        data=[_trace(name, group, PALETTE[place % len(PALETTE)], middle) for place, (name, group) in enumerate(series)],
        layout={
            "height": 340,
            "margin": {"l": 64, "r": 16, "t": 8, "b": 44},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "shapes": [{**even, "line": {"color": "rgba(128,128,128,.8)", "width": 1, "dash": "dash"}}],
            "xaxis": {"title": {"text": "KL, nats per reply"}, "rangemode": "tozero", **grid},
            "yaxis": {"title": {"text": f"Win rate over {escape(board.reference)}"}, "ticksuffix": " %", **grid},
        },
    )


def _trace(name: str, points: Sequence[DistancePoint], color: str, middle: float) -> Scatter:
    """The points in percent; a name stands on the side of its point on which there is room, ``middle`` parting them."""
    from plotly.graph_objects import Scatter

    is_own = points[0].best_of == 1
    return Scatter(
        x=[point.kl for point in points],
        y=[100 * point.win_rate for point in points],
        name=escape(name),
        mode="markers+text" if is_own else "lines+markers+text",
        text=[escape(point.policy if is_own else f"n = {point.best_of}") for point in points],
        textposition=["top left" if (point.kl or 0.0) > middle else "top right" for point in points],
        marker={"color": color, "size": 9, "symbol": "circle" if is_own else "diamond"},
        line={"color": color, "width": 1, "dash": "dot"},
        error_x={"array": [Z95 * (point.kl_error or 0.0) * is_own for point in points], "thickness": 1, "width": 3},
        error_y={
            "array": [100 * (point.high - point.win_rate) for point in points],
            "arrayminus": [100 * (point.win_rate - point.low) for point in points],
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="%{text}: KL %{x:.2f}, win rate %{y:.1f} %",
        cliponaxis=False,
    )


def distance_words(board: Board) -> Html:
    """What the plot shows, said as text and as a table; nothing where no policy met the reference."""
    if not board.distances:
        return Html("")
    rows = [
        [
            _named(point),
            "not measured" if point.kl is None else f"{'at most ' if point.best_of > 1 else ''}{number(point.kl)}",
            f"{share(point.win_rate, 1)} ({share(point.low, 1)} to {share(point.high, 1)})",
            f"{point.prompts:,}",
        ]
        for point in sorted(board.distances, key=lambda point: (point.kl is None, point.kl or 0.0))
    ]
    headers = ("Policy", "KL, nats per reply", f"Win rate over {board.reference}", "Prompts")
    shown = table(headers, rows, caption=f"KL from {board.reference} and win rate over it")
    lines = [element("details", element("summary", "The figures of this plot"), shown)]
    if any(point.kl is None for point in board.distances):
        lines.insert(0, element("p", _unmeasured(board), class_="quiet legend"))
    return join(lines)


def distance_legend(board: Board) -> Html:
    """The heading of the plot and how to read it; nothing where no policy met the reference."""
    if not board.distances:
        return Html("")
    words = (
        f"How far a policy moved from {board.reference} and how often it is preferred to it. Up and to the left is "
        "better: more wins for less change. Diamonds: the best of n replies, without training, at KL ln n - (n-1)/n, "
        "an upper bound. Bars: 95 % intervals."
    )
    return join([element("h4", "KL and win rate"), element("p", words, class_="quiet legend")])


def _named(point: DistancePoint) -> str:
    if point.best_of == 1:
        return point.policy
    return f"{point.policy}, best of {point.best_of} by {point.picker or 'a scorer'}"


def _chosen_name(policy: str, picker: str) -> str:
    return f"{policy}, best of n by {picker or 'a scorer'}"


def _unmeasured(board: Board) -> str:
    names = ", ".join(_named(point) for point in board.distances if point.kl is None)
    return (
        f"KL is not known of {names}: an evaluation by a rule or a reward model measures it, between models on this "
        "machine that read the same tokens."
    )
