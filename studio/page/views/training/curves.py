"""Curves as plot frames of step, value and curve, and as figures; those of several runs in one, told apart by run.

Each method shows first the plots that its settings class declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from feedback.tables import MetricRow
from studio.page.text import label_of
from training.settings.plots import Plot
from training.settings.registry import SETTINGS
from training.settings.train import Settings

Series = Mapping[str, Sequence[MetricRow]]
"""The points of each run, under the words that name the run; one alone needs no words."""

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TICKS = 8
# Told apart by most eyes, on white and on black.
PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#72b7b2", "#9d755d", "#d6a800")

USUAL = ("margin", "reply_tokens", "tokens", "entropy", "reward", "kl", "mean_reward")
"""Which further curve is drawn until another is chosen: the first of these that there is."""


def first_plots(method: str) -> tuple[Plot, Plot]:
    """The two plots that tell most about a run of this method; loss and accuracy where there is no such method."""
    return SETTINGS.get(method, Settings).FIRST_PLOTS


def plot_frames(
    series: Series, chosen: str | None = None, method: str = ""
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The curves of the method's first two plots, and the one curve that was chosen."""
    first, second = first_plots(method)
    return _frame(series, first.holds), _frame(series, second.holds), _frame(series, lambda name: name == chosen)


def curve_names(series: Series, method: str = "") -> list[str]:
    """Every curve that is in neither of them, in the order it first appeared: what can be chosen."""
    found = dict.fromkeys(point.name for points in series.values() for point in points)
    return [name for name in found if not any(plot.holds(name) for plot in first_plots(method))]


def usual_curve(names: Sequence[str]) -> str | None:
    """The further curve that is drawn until another is chosen."""
    return next((name for name in USUAL if name in names), None)


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


def _frame(series: Series, wanted: Callable[[str], bool]) -> pd.DataFrame:
    rows = [
        (point.step, point.value, f"{label_of(point.name)}, {words}" if len(series) > 1 else label_of(point.name))
        for words, points in series.items()
        for point in points
        if wanted(point.name)
    ]
    return pd.DataFrame(rows, columns=["step", "value", "curve"])
