"""Runs: the list, one in full, why it ended, how to do it again, the end of its log, what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from feedback.datasets.split_size import few_pairs_note
from feedback.tables import GenerationRow, MetricRow, RunRow
from feedback.types import RunState
from studio.page.commands import on_the_page
from studio.page.html import Html, badge, element, escape, facts, join, notice, plain_text, progress_bar, table
from studio.page.text import ago, duration, figure, share
from studio.page.views.training.curves import first_plots
from studio.page.views.training.metric_help import figure_label, meanings
from training.evaluation.gate import in_words
from training.runs.reproduce import command_of, spec_of

Looks = Sequence[tuple[int, Sequence[tuple[str, str]]]]
"""Looks at a model in training: the step, and what it replied to each fixed prompt."""

Rollouts = Sequence[tuple[str, GenerationRow]]
"""Replies a run learnt from, each with what was asked."""

FAILURES = {
    "memory": "Out of memory",
    "diverged": "The training diverged",
    "data": "What it was given will not do",
    "disk": "The disk is full",
    "checkpoint": "A checkpoint could not be used",
    "crash": "It crashed",
}
"""What a failed run's card says above its reason."""

HOPELESS = "data"
"""The failure that comes of what a run was given, settings and dataset, which never change: it would come again."""

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
    runs: Sequence[RunRow],
    selected: str | None,
    now: datetime,
    names: Mapping[str, str] | None = None,
    *,
    note: str = "",
    narrowed: bool = False,
) -> Html:
    """Runs with state and progress; each row can be picked. ``names`` says what ids in settings stand for.

    ``note`` says which of all runs these are; ``narrowed`` that others were filtered out.
    """
    if not runs and narrowed:
        return notice("No run is like this", "Choose another method or state, or less of the name.")
    if not runs:
        return notice("No runs yet", "Generating replies, training and evaluating all show up here.")
    rows = [
        [
            _named(run),
            run.method,
            _run_state(run),
            _made_from(run, names or {}),
            ago(run.started_at, now),
            _took(run, now),
        ]
        for run in runs
    ]
    headers = ("Run", "Method", "State", "From", "Started", "Took")
    shown = table(headers, rows, caption="Runs, newest first", keys=[run.id for run in runs], selected=selected)
    return join([shown, element("p", note, class_="quiet legend")]) if note else shown


def _name_of(run: RunRow) -> str:
    """The name a run was given, or that of what it made; empty where there is neither."""
    return str(run.config.get("name") or run.result.get("policy") or run.result.get("checkpoint") or "")


def _named(run: RunRow) -> Html:
    name = _name_of(run)
    return join([name, element("span", run.id, class_="block quiet")]) if name else escape(run.id)


def _took(run: RunRow, now: datetime) -> str:
    """How long a run took; of one that was resumed, the last attempt, which is all that the database keeps."""
    spent = duration(run.started_at, run.ended_at or now)
    return f"{spent}, attempt {run.attempt} alone" if run.attempt > 1 and run.started_at else spent


def _is_loading(run: RunRow) -> bool:
    """True for a resumed run that has not said yet how far it is: its progress is 0 until then, its work is not."""
    return run.state is RunState.running and run.attempt > 1 and not run.progress_text


def _run_state(run: RunRow) -> Html:
    known = run.state is RunState.running and not _is_loading(run)
    text = f"{run.state.value} {share(run.progress)}" if known else run.state.value
    return badge(text, STATE_TONES[run.state])


def _made_from(run: RunRow, names: Mapping[str, str]) -> str:
    config = {name: names.get(str(value), value) for name, value in run.config.items()}
    if run.method == "evaluate":
        return f"{config.get('a') or config.get('reward')} against {config.get('b') or config.get('oracle')}"
    return str(config.get("dataset") or config.get("policy") or config.get("parent") or "—")


def run_detail(
    run: RunRow,
    metrics: Sequence[MetricRow],
    now: datetime,
    names: Mapping[str, str] | None = None,
    *,
    traceback: str = "",
    looks: Looks = (),
    rollouts: Rollouts = (),
) -> Html:
    """Everything about one run but its curves and its log."""
    curves, result = _telling_first(latest_metrics(metrics), run.method), _readable(run.result)
    return element(
        "div",
        element(
            "div",
            element("h3", " · ".join(filter(None, (_name_of(run), run.method, run.id)))),
            _run_state(run),
            class_="detail-head",
        ),
        _run_progress(run),
        _why(run, traceback),
        facts(
            [
                ("Started", ago(run.started_at, now)),
                ("Took", _took(run, now) if run.started_at else ""),
                ("After", run.after or ""),
                ("Priority", run.priority or ""),
            ]
        ),
        # What a training told of its last batch is not what was measured at its end, though it has the same name
        _mapping("result", "Result", result, is_open=True),
        _mapping("latest", _latest_words(metrics), curves, _earlier(metrics), is_open=not run.state.is_terminal),
        _meanings([*result, *curves]),
        _samples(looks),
        _rollouts(rollouts),
        _mapping(
            "settings", "Settings", {name: (names or {}).get(str(value), value) for name, value in run.config.items()}
        ),
        _again(run, bool(metrics)),
        class_="detail",
        data_run=run.id,
    )


def run_choices(runs: Sequence[RunRow], names: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Runs to choose from: what each is called, what it did and from what, with its id."""
    choices = []
    for run in runs:
        method = [run.method] if _name_of(run) else []
        told = ", ".join([*method, _made_from(run, names or {}), run.state.value])
        choices.append((f"{run_words(run)}: {told}", run.id))
    return choices


def run_words(run: RunRow) -> str:
    """A run in few words: its name, else its method, and the beginning of its id, as a name may be given again."""
    return f"{_name_of(run) or run.method} {run.id.removeprefix('run-')[:4]}"


def queued_text(run: RunRow, worker: bool) -> str:
    """What is said when a run was put into the queue."""
    waits = "it begins when its turn comes" if worker else "it begins when a worker is running"
    return str(escape(f"{run_words(run)} is queued: {waits}."))


def _why(run: RunRow, traceback: str) -> Html:
    """Why a run ended, in one sentence; the traceback behind one click."""
    if not run.error:
        return Html("")
    failure = str(run.result.get("failure"))
    title = FAILURES.get(failure, "Why it ended")
    remedy = "As it is, it would end so again: start another run with that put right." if failure == HOPELESS else ""
    told = notice(title, on_the_page(run.error), remedy, tone="bad" if run.state is RunState.failed else "warn")
    if not traceback:
        return told
    box = element("pre", traceback, class_="log", tabindex="0", aria_label="Last traceback")
    return element("div", told, _part("traceback", "Last traceback", box))


def _samples(looks: Looks) -> Html:
    """Replies to the fixed prompts, a line for every step at which one changed."""
    if not looks:
        return Html("")
    parts = []
    for place, (prompt, _) in enumerate(looks[0][1]):
        lines, before = [], None
        for step, said in looks:
            reply = said[place][1] if place < len(said) else ""
            if reply != before:
                lines.append(element("li", element("strong", f"Step {step}"), plain_text(reply or "(nothing)")))
            before = reply
        parts.append(element("li", plain_text(prompt, "sample-prompt"), element("ol", *lines, class_="sample-replies")))
    shown = element("ul", *parts, class_="samples")
    return _part("samples", f"Sample replies, up to step {looks[-1][0]}", shown, open=True)


def _rollouts(rollouts: Rollouts) -> Html:
    """What the policy replied while it learnt, with what the judges made of it."""
    if not rollouts:
        return Html("")
    rows = [
        [
            str(row.sampling["iteration"] + 1),
            f"{row.sampling['score']:.2f}",
            f"{row.sampling['kl']:.1f}",
            plain_text(asked, "sample-prompt"),
            plain_text(row.text),
        ]
        for asked, row in rollouts
    ]
    shown = table(("Iteration", "Score", "Nats", "Prompt", "Reply"), rows, caption="Newest first")
    return _part("rollouts", "Replies it learns from", shown, id="rollouts")


def _again(run: RunRow, has_curves: bool) -> Html:
    """How to do the run again, and where its curves can be had as a file."""
    spec = json.dumps(spec_of(run), ensure_ascii=False)
    parts = [
        element("p", "For a shell", class_="quiet"),
        element("pre", command_of(run), class_="log", tabindex="0", aria_label="Command"),
        element("p", "For POST /api/runs", class_="quiet"),
        element("pre", spec, class_="log", tabindex="0", aria_label="JSON"),
    ]
    if has_curves:
        links = [
            element("a", f"Curves as {kind.upper()}", href=f"api/runs/{run.id}/metrics?format={kind}", download=True)
            for kind in ("csv", "jsonl")
        ]
        parts.append(element("p", join(links, " · ")))
    return _part("again", "Do it again", *parts)


def _run_progress(run: RunRow) -> Html:
    if run.state.is_terminal:
        return Html("")
    if _is_loading(run):
        return element(
            "p", f"Attempt {run.attempt} goes on from the last saved state, if there is one …", class_="quiet"
        )
    words = run.progress_text or ("Waiting for the worker" if run.state is RunState.queued else "Starting …")
    bar = progress_bar(run.progress, f"Progress of {run.id}")
    return element("div", bar, element("p", words, class_="quiet"), class_="run-progress")


def _mapping(
    part: str, title: str, values: Mapping[str, Any], notes: Mapping[str, str] | None = None, *, is_open: bool = False
) -> Html:
    """Values under their labels; ``notes`` says what is to be added to a label."""
    if not values:
        return Html("")
    shown = facts((figure_label(name) + (notes or {}).get(name, ""), figure(value)) for name, value in values.items())
    return _part(part, title, shown, open=is_open)


def _part(part: str, title: str, *children: object, **attributes: object) -> Html:
    """A part that folds away; ``assets/page/run_card.js`` knows it by its name, whatever its title says by now."""
    return element("details", element("summary", title), *children, data_part=part, **attributes)


def _latest_words(metrics: Sequence[MetricRow]) -> str:
    return f"At step {max(point.step for point in metrics)}" if metrics else ""


def _earlier(metrics: Sequence[MetricRow]) -> dict[str, str]:
    """The step of every curve that has no point at the last one, as its label adds it: looks are taken now and then."""
    last = {point.name: point.step for point in metrics}
    newest = max(last.values(), default=0)
    return {name: f", step {step}" for name, step in last.items() if step < newest}


def _meanings(names: Sequence[str]) -> Html:
    told = meanings(names)
    if not told:
        return Html("")
    lines = [element("div", element("dt", label), element("dd", words)) for label, words in told.items()]
    return _part("meanings", "What these figures mean", element("dl", *lines, class_="meanings"))


def _readable(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it is read: 95 % intervals beside their figures, the gate in words, a line per task and metric."""
    shown = {name: value for name, value in result.items() if name not in ("failure", "gate", "tasks", "benchmarks")}
    for name, low, high in [("win_rate", "low", "high"), *((name, f"{name}_low", f"{name}_high") for name in result)]:
        if all(isinstance(result.get(part), int | float) for part in (name, low, high)):
            shown[name] = f"{figure(shown[name])} [{figure(shown.pop(low))}, {figure(shown.pop(high))}]"
    if isinstance(result.get("test_pairs"), int) and shown.get("accuracy") is not None:
        note = few_pairs_note(result["test_pairs"])
        shown["accuracy"] = f"{figure(shown['accuracy'])}, {note}" if note else shown["accuracy"]
    for task, means in result.get("tasks", {}).items():
        shown |= {f"{task}, {metric}": mean for metric, mean in means.items()}
    if "gate" in result:
        shown["gate"] = " ".join(line.strip() for line in in_words(result["gate"]))
    return shown


def latest_metrics(metrics: Sequence[MetricRow]) -> dict[str, float]:
    """The last value of every curve, in the order the curves first appeared."""
    latest: dict[str, float] = {}
    for point in metrics:
        latest[point.name] = point.value
    return latest


def _telling_first(curves: Mapping[str, float], method: str) -> dict[str, float]:
    """The same with what tells most about a run of this method in front."""
    telling = [name for plot in first_plots(method) for name in curves if plot.holds(name)]
    return {name: curves[name] for name in dict.fromkeys([*telling, *curves])}


def log_tail(text: str) -> Html:
    """The end of a log in a box that scrolls in itself."""
    body = text.rstrip() or "Nothing is written yet."
    return element("pre", body, class_="log", tabindex="0", aria_label="End of the log")


def can_cancel(run: RunRow | None) -> bool:
    """True while there is something to stop."""
    return run is not None and run.state in (RunState.queued, RunState.starting, RunState.running)


def can_annotate(run: RunRow | None, rollouts: Rollouts) -> bool:
    """True for a run whose replies people can be asked about."""
    return run is not None and run.state.is_terminal and bool(rollouts)


def can_resume(run: RunRow | None) -> bool:
    """True for a run that ended before its work was done, unless what it was given must fail again."""
    if run is None or run.result.get("failure") == HOPELESS:
        return False
    return run.state in (RunState.failed, RunState.cancelled, RunState.interrupted)
