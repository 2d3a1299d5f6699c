"""Curves as plot frames of step, value and curve, and as figures; those of several runs in one, told apart by run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from feedback.tables import MetricRow
from studio.present.words import label_of

Series = Mapping[str, Sequence[MetricRow]]
"""The points of each run, under the words that name the run; one alone needs no words."""

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TICKS = 8
# Told apart by most eyes, on white and on black.
PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#72b7b2", "#9d755d", "#d6a800")


def plot_frames(series: Series, chosen: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The losses, the shares of 0 to 1, and the one curve that was chosen."""
    return _frame(series, _is_loss), _frame(series, _is_share), _frame(series, lambda name: name == chosen)


def curve_names(series: Series) -> list[str]:
    """Every curve that is neither a loss nor a share, in the order it first appeared: what can be chosen."""
    found = dict.fromkeys(point.name for points in series.values() for point in points)
    return [name for name in found if not _is_loss(name) and not _is_share(name)]


def figure(frame: pd.DataFrame, title: str) -> Figure | None:
    """The curves of a frame over steps, with whole steps on the axis; None where there is nothing to draw.

    Colours read on white and on black. Names are shown as they are: Plotly would take what looks like a tag for one.
    """
    if frame.empty:
        return None
    from plotly.graph_objects import Figure, Scatter

    lines = [
        Scatter(
            x=points["step"].tolist(),
            y=points["value"].tolist(),
            name=escape(str(curve)),
            mode="lines+markers" if len(points) < MOST_TICKS else "lines",
            line={"color": PALETTE[place % len(PALETTE)], "width": 2},
            hovertemplate="step %{x}: %{y:.4g}",
        )
        for place, (curve, points) in enumerate(frame.groupby("curve", sort=False))
    ]
    grid: dict[str, Any] = {"gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.4)"}
    step = tick_step(int(frame["step"].max()))
    return Figure(
        data=lines,
        layout={
            "height": 260,
            "margin": {"l": 48, "r": 12, "t": 8, "b": 40},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "xaxis": {"title": {"text": "Step"}, "tick0": 0, "dtick": step, "rangemode": "tozero", **grid},
            "yaxis": {"title": {"text": title}, **grid},
        },
    )


def tick_step(last: int) -> int:
    """Steps between two ticks so that at most eight are drawn: 1, 2 or 5 times a power of ten."""
    size = 1
    while True:
        for times in (1, 2, 5):
            if last <= times * size * MOST_TICKS:
                return times * size
        size *= 10


def _is_loss(name: str) -> bool:
    return "loss" in name


def _is_share(name: str) -> bool:
    return "accuracy" in name or (name.endswith("_rate") and name != "learning_rate")


def _frame(series: Series, wanted: Callable[[str], bool]) -> pd.DataFrame:
    rows = [
        (point.step, point.value, f"{label_of(point.name)}, {words}" if len(series) > 1 else label_of(point.name))
        for words, points in series.items()
        for point in points
        if wanted(point.name)
    ]
    return pd.DataFrame(rows, columns=["step", "value", "curve"])
