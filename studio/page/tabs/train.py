"""Train: choose a dataset and a method, start, watch, cancel, read the failure.

The form is made from each method's settings class; a field left alone is left to the method. The page reads
rows on a timer that runs only while a run does; closing it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from feedback.errors import InvalidInput
from feedback.tables import MetricRow, RunRow
from feedback.types import RunState, now
from studio.page.tabs import runs_list
from studio.page.tabs.runs_list import Listing, RunsList
from studio.page.tabs.wiring import QUICK, TOLD, bind, given, markup, on_pick
from studio.page.text import label_of
from studio.page.views import datasets as datasets_view
from studio.page.views import policies as policies_view
from studio.page.views.training import curves as curves_view
from studio.page.views.training import forms as forms_view
from studio.page.views.training import runs as runs_view
from studio.page.views.training.forms import FormField
from studio.page.worker_notice import no_worker
from studio.services.facade import Services

Seen = tuple[Any, ...] | None
"""What the curves show, as runs with their last points: they are drawn again only when there is more."""


def refresh(
    services: Services,
    refers: Sequence[str],
    dataset: str | None,
    selected: str | None,
    listing: Listing | None = None,
) -> tuple[Any, ...]:
    """What can be chosen, and the runs; ``refers`` says what each field that names something refers to.

    Whether the method can be started is asked after this, by ``show_form``: a method chosen meanwhile counts.
    """
    rows, summaries = services.datasets.list_datasets(), services.policies.list_policies()
    existing = forms_view.existing_choices(services.policies.list_reward_models(), services.policies.reward_functions())
    known = [row.id for row in rows]
    return (
        gr.Dropdown(
            choices=datasets_view.dataset_choices(rows),
            value=dataset if dataset in known else next(iter(known), None),
        ),
        # What replies over HTTP has no weights here to train
        gr.Dropdown(choices=policies_view.policy_choices([one for one in summaries if not one.policy.is_endpoint])),
        gr.Dropdown(choices=_waited_for(services)),
        *runs_list.shown(services, selected, listing),
        _worker(services),
        gr.Timer(active=services.runs.any_run_active()),
        *(gr.Dropdown(choices=existing[what]) for what in refers),
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
    if not dataset and services.runs.needs_dataset(method):
        raise InvalidInput("Choose a dataset; the Datasets tab freezes one from your judgments.")
    settings = forms_view.settings_of(forms, method, values)
    config = {"dataset": dataset, "parent": parent or None, "name": name.strip() or None, **settings}
    config |= {"dry_run": True} if dry_run else {}
    asked = {key: value for key, value in config.items() if value is not None}
    run = services.runs.submit_run(method, asked, after=after or None, priority=int(priority or 0))
    gr.Info(runs_view.queued_text(run, services.runs.worker_is_alive()))
    return watch(services, run.id, None)


def try_out(services: Services, forms: dict[str, list[FormField]], *values: Any) -> tuple[Any, ...]:
    """Queue a dry run of what the form says, and show it."""
    return start(services, forms, *values, dry_run=True)


def watch(
    services: Services,
    selected: str | None,
    seen: Seen,
    others: Sequence[str] | None = None,
    curve: str | None = None,
    listing: Listing | None = None,
) -> tuple[Any, ...]:
    """The runs as they are now, everything about the one shown, and its curves over those of ``others``."""
    return _look(services, selected, seen, others, curve, listing, offer=True)


def _look(
    services: Services,
    selected: str | None,
    seen: Seen,
    others: Sequence[str] | None = None,
    curve: str | None = None,
    listing: Listing | None = None,
    *,
    offer: bool,
) -> tuple[Any, ...]:
    """What ``watch`` shows; the runs to compare with are listed anew only where they are to be offered."""
    timer = gr.Timer(active=services.runs.any_run_active())
    table, *pages = runs_list.shown(services, selected, listing)
    around, names = [*pages, _worker(services)], services.runs.names()
    if not selected:
        return table, None, seen, *[gr.skip() for _ in range(10)], timer, *around
    run, metrics = services.runs.get_run(selected), services.runs.run_metrics(selected)
    rollouts = services.runs.rollouts(selected)
    drawn, newest = _drawn(services, run, metrics, others or [], curve)
    return (
        table,
        run.id,
        newest,
        runs_view.run_detail(
            run,
            metrics,
            now(),
            names,
            traceback=services.runs.last_traceback(run.id) if run.state is RunState.failed else "",
            looks=services.runs.sample_replies(run.id),
            rollouts=rollouts,
        ),
        _comparable(services, run, bool(metrics), names) if offer else gr.skip(),
        *([gr.skip()] * 4 if newest == seen else drawn),
        runs_view.log_tail(services.runs.log_tail(run.id)),
        gr.Button(visible=runs_view.can_cancel(run)),
        gr.Button(visible=runs_view.can_resume(run)),
        gr.Button(visible=runs_view.can_annotate(run, rollouts)),
        timer,
        *around,
    )


def tick(services: Services, selected: str | None, *shown: Any) -> tuple[Any, ...]:
    """What has changed since the last look; the list of runs to compare with is left as it is.

    Which run is shown is not written: a look that began before a run was picked must not take the pick back.
    """
    seen = shown[0]
    offer = not seen or seen[1][1] == 0  # without points until now: the first may just have come
    table, _, *rest = _look(services, selected, *shown, offer=offer)
    return table, gr.skip(), *rest


def _worker(services: Services) -> Any:
    """What is said where no worker is running; its own sign of life decides, not what the queue looks like."""
    alive = services.runs.worker_is_alive()
    return gr.update(value="" if alive else no_worker(), visible=not alive)


def cancel(services: Services, selected: str | None, *shown: Any) -> tuple[Any, ...]:
    """Ask the run shown to stop."""
    run = services.runs.cancel_run(given(selected, "a run"))
    gr.Info(f"{runs_view.run_words(run)} is {run.state.value}.")
    return watch(services, selected, *shown)


def resume(services: Services, selected: str | None, *shown: Any) -> tuple[Any, ...]:
    """Queue the run shown again."""
    run = services.runs.resume_run(given(selected, "a run"))
    gr.Info(runs_view.queued_text(run, services.runs.worker_is_alive()))
    return watch(services, selected, *shown)


def annotate(services: Services, selected: str) -> None:
    """Send the replies of the run shown to the annotators."""
    count = len(services.runs.annotate_run(selected))
    gr.Info(f"{count} pairs were sent: they come next on the Label tab.")


def show_form(services: Services, methods: Sequence[str], method: str) -> list[Any]:
    """The settings of the chosen method and no other's, and whether it can be started."""
    startable = _startable(services, method, bool(services.datasets.list_datasets()))
    return [*startable, *(gr.update(visible=name == method) for name in methods)]


def _startable(services: Services, method: str, datasets: bool) -> list[Any]:
    """Why a method cannot be started while there is no dataset, and the two buttons: some can do without."""
    free = datasets or not services.runs.needs_dataset(method)
    return [
        gr.update(value=datasets_view.no_dataset(), visible=not free),
        *(gr.Button(interactive=free) for _ in range(2)),
    ]


def _drawn(
    services: Services, run: RunRow, metrics: Sequence[MetricRow], others: Sequence[str], curve: str | None
) -> tuple[list[Any], Seen]:
    """The chooser of a curve and the plots, and what they show."""
    series: dict[str, Sequence[MetricRow]] = {runs_view.run_words(run): metrics}
    for other in others:
        if other != run.id:
            series[runs_view.run_words(services.runs.get_run(other))] = services.runs.run_metrics(other)
    names = curves_view.curve_names(series, run.method)
    chosen = curve if curve in names else curves_view.usual_curve(names)
    titles = [plot.title for plot in curves_view.first_plots(run.method)] + [label_of(chosen) if chosen else ""]
    frames = curves_view.plot_frames(series, chosen, run.method)
    figures = [curves_view.figure(*drawn) for drawn in zip(frames, titles, strict=True)]
    plots = [gr.Plot(value=figure, visible=figure is not None) for figure in figures]
    choices = [(label_of(name), name) for name in names]
    newest = (chosen, *((words, points[-1].id if points else 0) for words, points in series.items()))
    # Left alone while it shows what it should: a list that is filled again would close under the reader's hand.
    chooser = gr.skip() if chosen == curve else gr.Dropdown(choices=choices, value=chosen, visible=bool(names))
    return [chooser, *plots], newest


def _comparable(services: Services, run: RunRow, visible: bool, names: dict[str, str]) -> gr.Dropdown:
    runs = [one for one in services.runs.runs_with_curves() if one.id != run.id] if visible else []
    return gr.Dropdown(choices=runs_view.run_choices(runs, names), visible=visible)


def _waited_for(services: Services) -> list[tuple[str, str]]:
    return runs_view.run_choices(services.runs.waiting_runs(), services.runs.names())


def _field(field: FormField) -> gr.components.Component:
    shared: dict[str, Any] = {"label": field.label, "info": field.info, "min_width": 220}
    if field.widget in ("integer", "number"):
        precision = 0 if field.widget == "integer" else None
        return gr.Number(field.default, precision=precision, placeholder="chosen by the method", **shared)
    if field.widget == "choice":
        return gr.Dropdown(list(field.choices), value=field.default, **shared)
    if field.widget == "existing":
        value: Any = [] if field.several else None
        # What a run that is waited for will make can be named before there is any
        return gr.Dropdown([], value=value, multiselect=field.several, allow_custom_value=True, **shared)
    if field.widget == "toggle":
        return gr.Checkbox(bool(field.default), **shared)
    return gr.Textbox(field.default or "", placeholder="chosen by the method", **shared)


def _form(fields: Sequence[FormField], visible: bool) -> tuple[gr.Column, list[gr.components.Component]]:
    """One method's settings: the simple ones in front, the rest folded away; inputs in the order of ``fields``."""
    made: dict[str, gr.components.Component] = {}
    with gr.Column(visible=visible) as column:
        with gr.Row(elem_classes="settings-grid"):
            made |= {field.name: _field(field) for field in fields if field.simple}
        with gr.Accordion("More settings", open=False), gr.Row(elem_classes="settings-grid"):
            made |= {field.name: _field(field) for field in fields if not field.simple}
    return column, [made[field.name] for field in fields]


def _plot(elem_id: str) -> gr.Plot:
    return gr.Plot(show_label=False, visible=False, elem_id=elem_id, min_width=300)


class Form(NamedTuple):
    """The upper half of the tab: what is trained, on what, and how."""

    empty: gr.HTML
    method: gr.Radio
    dataset: gr.Dropdown
    parent: gr.Dropdown
    name: gr.Textbox
    columns: list[gr.Column]
    after: gr.Dropdown
    priority: gr.Number
    inputs: list[gr.components.Component]
    start: gr.Button
    try_out: gr.Button

    def filled_in(self) -> list[gr.components.Component]:
        """Everything ``start`` is given, in its order."""
        return [self.method, self.dataset, self.parent, self.name, self.after, self.priority, *self.inputs]


class View(NamedTuple):
    """The lower half: the runs, and everything about the one that is shown."""

    listed: RunsList
    detail: gr.HTML
    cancel: gr.Button
    resume: gr.Button
    annotate: gr.Button
    others: gr.Dropdown
    first: gr.Plot
    second: gr.Plot
    curve: gr.Dropdown
    further: gr.Plot
    log: gr.HTML
    timer: gr.Timer
    worker: gr.HTML

    def shown(self, selected: gr.State, seen: gr.State) -> list[Any]:
        """Everything ``watch`` writes, in its order."""
        curves = [self.others, self.curve, self.first, self.second, self.further]
        acts = [self.cancel, self.resume, self.annotate]
        shown = [selected, seen, self.detail, *curves, self.log, *acts, self.timer]
        return [self.listed.table, *shown, self.listed.newer, self.listed.older, self.worker]


def _lay_form(services: Services, forms: dict[str, list[FormField]]) -> Form:
    methods = services.runs.training_methods()
    first = next(iter(methods), None)
    empty = markup(elem_id="no-dataset", visible=False)
    with gr.Group(elem_id="train-form"):
        choices = [(f"{name}: {words}", name) for name, words in methods.items()]
        method = gr.Radio(choices, value=first, label="Method", elem_id="method")
        with gr.Row():
            dataset = _choice("Dataset", "Frozen on the Datasets tab", "train-dataset")
            parent = _choice("Parent", "Left empty, the champion", "train-parent")
            name = gr.Textbox(label="Name", info="Left empty, one is made up", elem_id="train-name", min_width=220)
        built = [_form(fields, key == first) for key, fields in forms.items()]
        with gr.Accordion("Queue", open=False), gr.Row():
            after = _choice("After", "Begin when this run has succeeded", "train-after")
            priority = gr.Number(0, precision=0, label="Priority", info="Runs with a higher one begin first")
    with gr.Row():
        start_button = gr.Button("Start training", variant="primary", elem_id="start-run")
        try_button = gr.Button("Try two steps", elem_id="try-run")
    columns = [column for column, _ in built]
    inputs = [field for _, fields in built for field in fields]
    return Form(empty, method, dataset, parent, name, columns, after, priority, inputs, start_button, try_button)


def _choice(label: str, info: str, elem_id: str) -> gr.Dropdown:
    return gr.Dropdown([], label=label, info=info, elem_id=elem_id, min_width=220)


def _lay_view(worker: gr.HTML) -> View:
    listed = runs_list.lay()
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
        first, second = _plot("first-plot"), _plot("second-plot")
    curve = gr.Dropdown([], label="Another curve", visible=False, elem_id="curve-choice")
    further = _plot("further-plot")
    log = markup(elem_id="run-log", autoscroll=True)
    timer = gr.Timer(1.5, active=False)
    acts = (cancel_button, resume_button, annotate_button)
    return View(listed, detail, *acts, others, first, second, curve, further, log, timer, worker)


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    forms = {name: forms_view.form_fields(services.runs.describe(name)) for name in services.runs.training_methods()}
    selected, seen = gr.State(None), gr.State(None)
    worker = markup(elem_id="train-worker", visible=False)
    form, view = _lay_form(services, forms), _lay_view(worker)
    listed = view.listed
    shown, looking = view.shown(selected, seen), [seen, view.others, view.curve, listed.listing]

    fields = [field for each in forms.values() for field in each]
    naming = [(field.refers, made) for field, made in zip(fields, form.inputs, strict=True) if field.refers]
    offered: list[Any] = [form.dataset, form.parent, form.after]
    offered += [listed.table, listed.newer, listed.older, view.worker, view.timer]
    showing = bind(show_form, services, list(forms))
    method_shown = [form.empty, form.start, form.try_out, *form.columns]
    tab.select(
        bind(refresh, services, [refers for refers, _ in naming]),
        [form.dataset, selected, listed.listing],
        [*offered, *(made for _, made in naming)],
        **QUICK,
    ).then(showing, [form.method], method_shown, **QUICK)
    form.method.change(showing, [form.method], method_shown, **QUICK)
    form.start.click(bind(start, services, forms), form.filled_in(), shown, **TOLD)
    form.try_out.click(bind(try_out, services, forms), form.filled_in(), shown, **TOLD)
    on_pick(listed.table, watch, services, looking, shown)
    view.cancel.click(bind(cancel, services), [selected, *looking], shown, **TOLD)
    view.resume.click(bind(resume, services), [selected, *looking], shown, **TOLD)
    view.annotate.click(bind(annotate, services), [selected], [], **TOLD)
    view.others.input(bind(watch, services), [selected, *looking], shown, **TOLD)
    view.curve.input(bind(watch, services), [selected, *looking], shown, **TOLD)
    for field in (listed.method, listed.state):
        field.input(bind(runs_list.narrow, services), [selected, *listed.narrowing()], listed.turned(), **TOLD)
    listed.name.submit(bind(runs_list.narrow, services), [selected, *listed.narrowing()], listed.turned(), **TOLD)
    listed.name.blur(bind(runs_list.narrow, services), [selected, *listed.narrowing()], listed.turned(), **QUICK)
    listed.older.click(bind(runs_list.turn_older, services), [selected, listed.listing], listed.turned(), **TOLD)
    listed.newer.click(bind(runs_list.turn_newer, services), [selected, listed.listing], listed.turned(), **TOLD)
    view.timer.tick(bind(tick, services), [selected, *looking], shown, **QUICK)
