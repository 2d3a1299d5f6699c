"""Runs: the list, one in full, its curves as plot frames, the end of its log, what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from feedback.tables import MetricRow, RunRow
from feedback.types import RunState
from studio.markup import Html, badge, element, facts, notice, progress_bar, table
from studio.present.words import ago, duration, figure, label_of, share

STATE_TONES = {
    RunState.queued: "neutral",
    RunState.starting: "busy",
    RunState.running: "busy",
    RunState.stopping: "warn",
    RunState.succeeded: "good",
    RunState.failed: "bad",
    RunState.cancelled: "neutral",
    RunState.interrupted: "warn",
}


def runs_table(
    runs: Sequence[RunRow], selected: str | None, now: datetime, names: Mapping[str, str] | None = None
) -> Html:
    """All runs with state and progress; each row can be picked. ``names`` says what ids in settings stand for."""
    if not runs:
        return notice("No runs yet", "Generating replies, training and evaluating all show up here.")
    rows = [
        [
            run.id,
            run.method,
            _run_state(run),
            _made_from(run, names or {}),
            ago(run.started_at, now),
            duration(run.started_at, run.ended_at or now),
        ]
        for run in runs
    ]
    headers = ("Run", "Method", "State", "From", "Started", "Took")
    return table(headers, rows, caption="Runs, newest first", keys=[run.id for run in runs], selected=selected)


def _run_state(run: RunRow) -> Html:
    text = f"{run.state.value} {share(run.progress)}" if run.state is RunState.running else run.state.value
    return badge(text, STATE_TONES[run.state])


def _made_from(run: RunRow, names: Mapping[str, str]) -> str:
    config = {name: names.get(str(value), value) for name, value in run.config.items()}
    if run.method == "evaluate":
        return f"{config.get('a') or config.get('reward')} against {config.get('b') or config.get('oracle')}"
    return str(config.get("dataset") or config.get("policy") or "—")


def run_detail(
    run: RunRow, metrics: Sequence[MetricRow], now: datetime, names: Mapping[str, str] | None = None
) -> Html:
    """Everything about one run but its curves and its log."""
    curves = latest_metrics(metrics)
    return element(
        "div",
        element("div", element("h3", f"{run.method} · {run.id}"), _run_state(run), class_="detail-head"),
        _run_progress(run),
        notice("Why it ended", run.error, tone="bad") if run.error else "",
        facts(
            [
                ("Started", ago(run.started_at, now)),
                ("Took", duration(run.started_at, run.ended_at or now) if run.started_at else ""),
                ("Attempt", run.attempt if run.attempt > 1 else ""),
                *((label_of(name), figure(value)) for name, value in curves.items()),
            ]
        ),
        _mapping("Result", {name: value for name, value in run.result.items() if name not in curves}),
        _mapping("Settings", {name: (names or {}).get(str(value), value) for name, value in run.config.items()}),
        class_="detail",
    )


def _run_progress(run: RunRow) -> Html:
    if run.state.is_terminal:
        return Html("")
    words = run.progress_text or ("Waiting for the worker" if run.state is RunState.queued else "Starting …")
    bar = progress_bar(run.progress, f"Progress of {run.id}")
    return element("div", bar, element("p", words, class_="quiet"), class_="run-progress")


def _mapping(title: str, values: Mapping[str, Any]) -> Html:
    if not values:
        return Html("")
    shown = facts((label_of(name), figure(value)) for name, value in values.items())
    return element("details", element("summary", title), shown, open=title == "Result")


def latest_metrics(metrics: Sequence[MetricRow]) -> dict[str, float]:
    """The last value of every curve, in the order the curves first appeared."""
    latest: dict[str, float] = {}
    for point in metrics:
        latest[point.name] = point.value
    return latest


def metric_frames(metrics: Sequence[MetricRow]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The curves of a run as two plot frames of step, value and curve: the losses, and the shares of 0 to 1."""
    losses = [point for point in metrics if "loss" in point.name]
    shares = [point for point in metrics if "accuracy" in point.name or point.name.endswith("_rate")]
    return _frame(losses), _frame([point for point in shares if point.name != "learning_rate"])


def _frame(points: Sequence[MetricRow]) -> pd.DataFrame:
    rows = [(point.step, point.value, label_of(point.name)) for point in points]
    return pd.DataFrame(rows, columns=["step", "value", "curve"])


def log_tail(text: str) -> Html:
    """The end of a log in a box that scrolls in itself."""
    body = text.rstrip() or "Nothing is written yet."
    return element("pre", body, class_="log", tabindex="0", aria_label="End of the log")


def can_cancel(run: RunRow | None) -> bool:
    """True while there is something to stop."""
    return run is not None and run.state in (RunState.queued, RunState.starting, RunState.running)


def can_resume(run: RunRow | None) -> bool:
    """True for a run that ended before its work was done."""
    return run is not None and run.state in (RunState.failed, RunState.cancelled, RunState.interrupted)
