"""Curves as plot frames of step, value and curve; those of several runs in one, told apart by their run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from feedback.tables import MetricRow
from studio.present.words import label_of

Series = Mapping[str, Sequence[MetricRow]]
"""The points of each run, under the words that name the run; one alone needs no words."""

# Gradio draws up to thirty ticks; with fewer steps than this they would fall between steps.
LEAST_STEPS = 22
# Told apart by most eyes, on white and on black.
PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#72b7b2", "#9d755d", "#d6a800")


def plot_frames(series: Series, chosen: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The losses, the shares of 0 to 1, and the one curve that was chosen."""
    return _frame(series, _is_loss), _frame(series, _is_share), _frame(series, lambda name: name == chosen)


def curve_names(series: Series) -> list[str]:
    """Every curve that is neither a loss nor a share, in the order it first appeared: what can be chosen."""
    found = dict.fromkeys(point.name for points in series.values() for point in points)
    return [name for name in found if not _is_loss(name) and not _is_share(name)]


def colours(frame: pd.DataFrame) -> dict[str, str]:
    """A colour for each curve of a frame. Gradio draws a new set of curves only when these change."""
    return {curve: PALETTE[place % len(PALETTE)] for place, curve in enumerate(dict.fromkeys(frame["curve"]))}


def step_range(series: Series) -> list[float | None]:
    """Where the axis of steps begins and ends, so that its ticks are whole steps."""
    last = max((point.step for points in series.values() for point in points), default=0)
    return [0, max(last, LEAST_STEPS)]


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
