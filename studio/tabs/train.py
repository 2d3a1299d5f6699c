"""Train: choose a dataset and a method, start, watch, cancel, read the failure.

The form is made from each method's settings class; a field left alone is left to the method. The page reads
rows on a timer that runs only while a run does; closing it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from feedback.errors import InvalidInput
from feedback.types import now
from studio import present
from studio.present import FormField
from studio.services import Services
from studio.tabs import QUICK, bind, markup, on_pick, picker

Seen = tuple[str, int] | None
"""The run and the last metric point the curves show: they are drawn again only when there is more."""


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
    *values: Any,
) -> tuple[Any, ...]:
    """Queue a training run and show it."""
    if not dataset and services.needs_dataset(method):
        raise InvalidInput("Choose a dataset; the Datasets tab freezes one from your judgments.")
    settings = present.settings_of(forms, method, values)
    config = {"dataset": dataset, "parent": parent or None, "name": name.strip() or None, **settings}
    run = services.submit_run(method, {key: value for key, value in config.items() if value is not None})
    return watch(services, run.id, None)


def watch(services: Services, selected: str | None, seen: Seen) -> tuple[Any, ...]:
    """The runs as they are now, and everything about the one shown."""
    timer = gr.Timer(active=services.any_run_active())
    runs, names = services.list_runs(), services.names()
    if not selected:
        return present.runs_table(runs, None, now(), names), None, seen, *[gr.skip() for _ in range(6)], timer
    run, metrics = services.get_run(selected), services.run_metrics(selected)
    newest = (run.id, metrics[-1].id or 0) if metrics else (run.id, 0)
    return (
        present.runs_table(runs, run.id, now(), names),
        run.id,
        newest,
        present.run_detail(run, metrics, now(), names),
        *(gr.skip() if newest == seen else plot for plot in _plots(present.metric_frames(metrics))),
        present.log_tail(services.log_tail(run.id)),
        gr.Button(visible=present.can_cancel(run)),
        gr.Button(visible=present.can_resume(run)),
        timer,
    )


def cancel(services: Services, selected: str, seen: Seen) -> tuple[Any, ...]:
    """Ask the run shown to stop."""
    services.cancel_run(selected)
    return watch(services, selected, seen)


def resume(services: Services, selected: str, seen: Seen) -> tuple[Any, ...]:
    """Queue the run shown again."""
    services.resume_run(selected)
    return watch(services, selected, seen)


def show_form(_services: Services, methods: Sequence[str], method: str) -> list[Any]:
    """The settings of the chosen method, and no other's."""
    return [gr.update(visible=name == method) for name in methods]


def _plots(frames: Sequence[Any]) -> list[Any]:
    return [gr.LinePlot(value=frame, visible=len(frame) > 0) for frame in frames]


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


def _plot(title: str, elem_id: str) -> gr.LinePlot:
    return gr.LinePlot(
        x="step",
        y="value",
        color="curve",
        x_title="Step",
        y_title=title,
        color_title=" ",
        height=240,
        visible=False,
        elem_id=elem_id,
        min_width=300,
    )


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
    start_button = gr.Button("Start training", variant="primary", elem_id="start-run")
    table = picker("runs-table")
    detail = markup(elem_id="run-detail")
    with gr.Row(elem_id="run-acts"):
        cancel_button = gr.Button("Cancel the run", variant="stop", visible=False, elem_id="cancel-run")
        resume_button = gr.Button("Resume the run", visible=False, elem_id="resume-run")
    with gr.Row():
        losses, shares = _plot("Loss", "loss-plot"), _plot("Accuracy", "share-plot")
    log = markup(elem_id="run-log", autoscroll=True)
    timer = gr.Timer(1.5, active=False)

    shown = [table, selected, seen, detail, losses, shares, log, cancel_button, resume_button, timer]
    inputs = [field for _, fields in built.values() for field in fields]
    tab.select(
        bind(refresh, services),
        [dataset, selected],
        [dataset, parent, empty, start_button, table, timer],
        **QUICK,
    )
    method.change(bind(show_form, services, list(forms)), [method], [column for column, _ in built.values()], **QUICK)
    start_button.click(bind(start, services, forms), [method, dataset, parent, name, *inputs], shown, **QUICK)
    on_pick(table, watch, services, [seen], shown)
    cancel_button.click(bind(cancel, services), [selected, seen], shown, **QUICK)
    resume_button.click(bind(resume, services), [selected, seen], shown, **QUICK)
    timer.tick(bind(watch, services), [selected, seen], shown, **QUICK)
