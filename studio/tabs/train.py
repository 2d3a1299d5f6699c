"""Train: choose a dataset and a method, start, watch, cancel, read the failure.

The form is made from each method's settings class; a field left alone is left to the method. The page reads
rows on a timer that runs only while a run does; closing it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from feedback.errors import InvalidInput
from feedback.tables import MetricRow, RunRow
from feedback.types import RunState, now
from studio import present
from studio.present import FormField
from studio.services import Services
from studio.tabs import QUICK, TOLD, bind, markup, on_pick, picker

USUAL_CURVES = ("margin", "mean_reward", "reward", "kl", "length")
"""Which curve is drawn beside loss and accuracy until another is chosen: the first of these that there is."""

Seen = tuple[Any, ...] | None
"""What the curves show, as runs with their last points: they are drawn again only when there is more."""


def refresh(services: Services, dataset: str | None, selected: str | None) -> tuple[Any, ...]:
    """What can be chosen, and the runs."""
    rows, summaries = services.list_datasets(), services.list_policies()
    known = [row.id for row in rows]
    return (
        gr.Dropdown(
            choices=present.dataset_choices(rows),
            value=dataset if dataset in known else next(iter(known), None),
        ),
        gr.Dropdown(choices=present.policy_choices(summaries)),
        gr.update(value=present.no_dataset(), visible=not rows),
        gr.Button(interactive=bool(rows)),
        gr.Button(interactive=bool(rows)),
        gr.Dropdown(choices=_waited_for(services)),
        present.runs_table(services.list_runs(), selected, now(), services.names()),
        gr.Timer(active=services.any_run_active()),
    )


def start(
    services: Services,
    forms: dict[str, list[FormField]],
    method: str,
    dataset: str | None,
    parent: str | None,
    name: str,
    after: str | None,
    priority: float | None,
    *values: Any,
    dry_run: bool = False,
) -> tuple[Any, ...]:
    """Queue a training run and show it; a dry run takes two steps and leaves nothing."""
    if not dataset and services.needs_dataset(method):
        raise InvalidInput("Choose a dataset; the Datasets tab freezes one from your judgments.")
    settings = present.settings_of(forms, method, values)
    config = {"dataset": dataset, "parent": parent or None, "name": name.strip() or None, **settings}
    config |= {"dry_run": True} if dry_run else {}
    asked = {key: value for key, value in config.items() if value is not None}
    run = services.submit_run(method, asked, after=after or None, priority=int(priority or 0))
    return watch(services, run.id, None)


def try_out(services: Services, forms: dict[str, list[FormField]], *values: Any) -> tuple[Any, ...]:
    """Queue a dry run of what the form says, and show it."""
    return start(services, forms, *values, dry_run=True)


def watch(
    services: Services, selected: str | None, seen: Seen, others: Sequence[str] | None = None, curve: str | None = None
) -> tuple[Any, ...]:
    """The runs as they are now, everything about the one shown, and its curves over those of ``others``."""
    timer = gr.Timer(active=services.any_run_active())
    runs, names = services.list_runs(), services.names()
    if not selected:
        return present.runs_table(runs, None, now(), names), None, seen, *[gr.skip() for _ in range(10)], timer
    run, metrics = services.get_run(selected), services.run_metrics(selected)
    rollouts = services.rollouts(selected)
    drawn, newest = _drawn(services, run, metrics, others or [], curve)
    return (
        present.runs_table(runs, run.id, now(), names),
        run.id,
        newest,
        present.run_detail(
            run,
            metrics,
            now(),
            names,
            traceback=services.last_traceback(run.id) if run.state is RunState.failed else "",
            looks=services.sample_replies(run.id),
            rollouts=rollouts,
        ),
        gr.Dropdown(
            choices=present.run_choices([one for one in runs if one.id != run.id], names), visible=bool(metrics)
        ),
        *([gr.skip()] * 4 if newest == seen else drawn),
        present.log_tail(services.log_tail(run.id)),
        gr.Button(visible=present.can_cancel(run)),
        gr.Button(visible=present.can_resume(run)),
        gr.Button(visible=present.can_annotate(run, rollouts)),
        timer,
    )


def tick(services: Services, selected: str | None, *shown: Any) -> tuple[Any, ...]:
    """What has changed since the last look; the list of runs to compare with is left as it is.

    Which run is shown is not written: a look that began before a run was picked must not take the pick back.
    """
    table, _, now_seen, detail, others, *rest = watch(services, selected, *shown)
    began = not shown[0] or len(now_seen or ()) < 2 or shown[0][1][1] == 0  # the first points have just come
    return table, gr.skip(), now_seen, detail, others if began else gr.skip(), *rest


def cancel(services: Services, selected: str, *shown: Any) -> tuple[Any, ...]:
    """Ask the run shown to stop."""
    services.cancel_run(selected)
    return watch(services, selected, *shown)


def resume(services: Services, selected: str, *shown: Any) -> tuple[Any, ...]:
    """Queue the run shown again."""
    services.resume_run(selected)
    return watch(services, selected, *shown)


def annotate(services: Services, selected: str) -> None:
    """Send the replies of the run shown to the annotators."""
    count = len(services.annotate_run(selected))
    gr.Info(f"{count} pairs wait on the Label tab.")


def show_form(_services: Services, methods: Sequence[str], method: str) -> list[Any]:
    """The settings of the chosen method, and no other's."""
    return [gr.update(visible=name == method) for name in methods]


def _drawn(
    services: Services, run: RunRow, metrics: Sequence[MetricRow], others: Sequence[str], curve: str | None
) -> tuple[list[Any], Seen]:
    """The chooser of a curve and the plots, and what they show."""
    series: dict[str, Sequence[MetricRow]] = {present.run_words(run): metrics}
    for other in others:
        if other != run.id:
            series[present.run_words(services.get_run(other))] = services.run_metrics(other)
    names = present.curve_names(series)
    chosen = curve if curve in names else next((name for name in USUAL_CURVES if name in names), None)
    titles = ("Loss", "Accuracy", present.label_of(chosen) if chosen else "")
    figures = [present.figure(*drawn) for drawn in zip(present.plot_frames(series, chosen), titles, strict=True)]
    plots = [gr.Plot(value=figure, visible=figure is not None) for figure in figures]
    choices = [(present.label_of(name), name) for name in names]
    newest = (chosen, *((words, points[-1].id if points else 0) for words, points in series.items()))
    # Left alone while it shows what it should: a list that is filled again would close under the reader's hand.
    chooser = gr.skip() if chosen == curve else gr.Dropdown(choices=choices, value=chosen, visible=bool(names))
    return [chooser, *plots], newest


def _waited_for(services: Services) -> list[tuple[str, str]]:
    waiting = [run for run in services.list_runs() if not run.state.is_terminal]
    return present.run_choices(waiting, services.names())


def _field(field: FormField) -> gr.components.Component:
    shared: dict[str, Any] = {"label": field.label, "info": field.info, "min_width": 220}
    if field.widget in ("integer", "number"):
        precision = 0 if field.widget == "integer" else None
        return gr.Number(field.default, precision=precision, placeholder="chosen by the method", **shared)
    if field.widget == "choice":
        return gr.Dropdown(list(field.choices), value=field.default, **shared)
    if field.widget == "toggle":
        return gr.Checkbox(bool(field.default), **shared)
    return gr.Textbox(field.default or "", placeholder="chosen by the method", **shared)


def _form(fields: Sequence[FormField], visible: bool) -> tuple[gr.Column, list[gr.components.Component]]:
    """One method's settings: the simple ones in front, the rest folded away; inputs in the order of ``fields``."""
    made: dict[str, gr.components.Component] = {}
    with gr.Column(visible=visible) as column:
        with gr.Row():
            made |= {field.name: _field(field) for field in fields if field.simple}
        with gr.Accordion("More settings", open=False), gr.Row(elem_classes="settings-grid"):
            made |= {field.name: _field(field) for field in fields if not field.simple}
    return column, [made[field.name] for field in fields]


def _plot(elem_id: str) -> gr.Plot:
    return gr.Plot(show_label=False, visible=False, elem_id=elem_id, min_width=300)


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    methods = services.training_methods()
    forms = {name: present.form_fields(services.describe(name)) for name in methods}
    first = next(iter(methods), None)
    selected, seen = gr.State(None), gr.State(None)

    empty = markup(elem_id="no-dataset", visible=False)
    with gr.Group(elem_id="train-form"):
        method = gr.Radio(
            [(f"{name}: {words}", name) for name, words in methods.items()],
            value=first,
            label="Method",
            elem_id="method",
        )
        with gr.Row():
            dataset = gr.Dropdown(
                [], label="Dataset", info="Frozen on the Datasets tab", elem_id="train-dataset", min_width=220
            )
            parent = gr.Dropdown(
                [], label="Parent", info="Left empty, the champion", elem_id="train-parent", min_width=220
            )
            name = gr.Textbox(
                label="Name",
                info="Left empty, one is made up",
                elem_id="train-name",
                min_width=220,
            )
        built = {key: _form(fields, key == first) for key, fields in forms.items()}
        with gr.Accordion("Queue", open=False), gr.Row():
            after = gr.Dropdown([], label="After", info="Begin when this run has succeeded", elem_id="train-after")
            priority = gr.Number(0, precision=0, label="Priority", info="Runs with a higher one begin first")
    with gr.Row():
        start_button = gr.Button("Start training", variant="primary", elem_id="start-run")
        try_button = gr.Button("Try two steps", elem_id="try-run")
    table = picker("runs-table")
    detail = markup(elem_id="run-detail")
    with gr.Row(elem_id="run-acts"):
        cancel_button = gr.Button("Cancel the run", variant="stop", visible=False, elem_id="cancel-run")
        resume_button = gr.Button("Resume the run", visible=False, elem_id="resume-run")
        annotate_button = gr.Button("Send its replies to annotators", visible=False, elem_id="annotate-run")
    others = gr.Dropdown(
        [],
        multiselect=True,
        label="Compare with",
        info="Runs whose curves are drawn beside",
        visible=False,
        elem_id="compare-runs",
    )
    with gr.Row():
        losses, shares = _plot("loss-plot"), _plot("share-plot")
    curve = gr.Dropdown([], label="Another curve", visible=False, elem_id="curve-choice")
    further = _plot("curve-plot")
    log = markup(elem_id="run-log", autoscroll=True)
    timer = gr.Timer(1.5, active=False)

    shown = [table, selected, seen, detail, others, curve, losses, shares, further, log, cancel_button, resume_button]
    shown += [annotate_button, timer]
    looking = [seen, others, curve]
    inputs = [field for _, fields in built.values() for field in fields]
    tab.select(
        bind(refresh, services),
        [dataset, selected],
        [dataset, parent, empty, start_button, try_button, after, table, timer],
        **QUICK,
    )
    method.change(bind(show_form, services, list(forms)), [method], [column for column, _ in built.values()], **QUICK)
    filled_in = [method, dataset, parent, name, after, priority, *inputs]
    start_button.click(bind(start, services, forms), filled_in, shown, **QUICK)
    try_button.click(bind(try_out, services, forms), filled_in, shown, **QUICK)
    on_pick(table, watch, services, looking, shown)
    cancel_button.click(bind(cancel, services), [selected, *looking], shown, **QUICK)
    resume_button.click(bind(resume, services), [selected, *looking], shown, **QUICK)
    annotate_button.click(bind(annotate, services), [selected], [], **TOLD)
    others.input(bind(watch, services), [selected, *looking], shown, **QUICK)
    curve.input(bind(watch, services), [selected, *looking], shown, **QUICK)
    timer.tick(bind(tick, services), [selected, *looking], shown, **QUICK)
