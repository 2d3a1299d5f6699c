"""Policies: who can reply, who serves, how they compare and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import gradio as gr

from feedback.errors import InvalidInput, StudioError
from feedback.types import now
from studio.page.tabs.board import build_board
from studio.page.tabs.wiring import QUICK, TOLD, bind, bind_steps, given, markup, on_pick, picker, while_waiting
from studio.page.views import gate as gate_view
from studio.page.views import model_report as model_view
from studio.page.views import policies as policies_view
from studio.services.facade import Services
from studio.services.policies import PolicySummary
from training.evaluation.gate import Decision
from training.settings.benchmark import STANDARD_TASKS

T = TypeVar("T")
SHOWN_ITEMS = 5
"""Of a benchmark so many items that differ can be read on the page; the shell and REST give more."""


def refresh(services: Services, selected: str | None) -> tuple[Any, ...]:
    """The list and the policy shown as they are now, and who can judge."""
    judges = policies_view.judge_choices(services.policies.oracle_rules(), services.policies.list_reward_models())
    return (*watch(services, selected), gr.Dropdown(choices=judges))


def watch(services: Services, selected: str | None) -> tuple[Any, ...]:
    """The list and the policy shown as they are now; looks again while a run may change them."""
    summaries = services.policies.list_policies()
    chosen = next((item for item in summaries if item.policy.id == selected), None)
    return (
        policies_view.policies_table(summaries, selected, now()),
        _detail(services, chosen) if chosen else "",
        gr.Timer(active=services.runs.any_run_active()),
        _exports(services, chosen) if chosen else "",
    )


def select(services: Services, key: str) -> tuple[Any, ...]:
    """Show one policy: its list row marked, its details and lineage, and what can be done with it."""
    summaries = services.policies.list_policies()
    chosen = next((item for item in summaries if item.policy.id == key), None) or services.policies.get_policy(key)
    opponent = services.evaluation.opponent(chosen.policy.id)
    others = policies_view.policy_choices(summaries, but=chosen.policy.id)
    return (
        policies_view.policies_table(summaries, chosen.policy.id, now()),
        _detail(services, chosen),
        gr.Timer(active=services.runs.any_run_active()),
        _exports(services, chosen),
        chosen.policy.id,
        gr.update(visible=True),
        gr.Dropdown(choices=others, value=opponent.id if opponent else None),
        gr.Button(interactive=not chosen.is_champion, value=policies_view.promote_label(chosen)),
        *_closed(),
    )


def _detail(services: Services, chosen: PolicySummary) -> Any:
    policy_id = chosen.policy.id
    return policies_view.policy_detail(
        chosen,
        services.policies.lineage(policy_id),
        services.policies.list_win_rates(policy_id),
        gate_view.gate_panel(_decision(services, policy_id), chosen.is_champion),
        _benchmarks(services, chosen),
    )


def _exports(services: Services, chosen: PolicySummary) -> Any:
    return policies_view.exports_panel(chosen.policy, services.policies.list_exports(chosen.policy.id))


def _decision(services: Services, policy_id: str) -> Decision | None:
    """What the gate says; None for a policy that has nobody to be measured against."""
    return services.evaluation.decide(policy_id) if services.evaluation.opponent(policy_id) else None


def _benchmarks(services: Services, chosen: PolicySummary) -> Any:
    other = services.evaluation.opponent(chosen.policy.id)
    taken = services.evaluation.list_benchmarks(chosen.policy.id)
    if other is None or not taken:
        return gate_view.benchmarks_panel(taken, None, (chosen.policy.name, ""), {})
    compared = services.evaluation.compare(chosen.policy.id, other.id)
    differing = {one.task: services.evaluation.list_differing(one, SHOWN_ITEMS) for one in compared.comparisons}
    return gate_view.benchmarks_panel(taken, compared, (chosen.policy.name, other.name), differing)


def take_benchmarks(services: Services, selected: str | None, against: str | None, tasks: str) -> Any:
    """Queue runs in which the policy shown, and whom it is compared with, take benchmark tasks."""
    queued = services.evaluation.take(given(selected, "a policy"), tasks, against)
    gr.Info(f"{' and '.join(run.id for run in queued)} wait for the worker; what they find is shown here.")
    return gr.Timer(active=True)


def start_export(services: Services, selected: str | None, kind: str) -> tuple[Any, ...]:
    """Queue an export of the policy shown; its progress and the archive are shown under the button."""
    form, quantization = policies_view.EXPORT_CHOICES[kind]
    run = services.policies.start_export(given(selected, "a policy"), form, quantization)
    gr.Info(f"{run.id} packs the archive; how far it is, and the download, are shown under the button.")
    chosen = services.policies.get_policy(str(selected))
    return gr.Timer(active=True), _exports(services, chosen)


def evaluate(services: Services, selected: str, against: str | None, judge: str | None, prompts: float) -> Any:
    """Queue a win-rate evaluation of the policy shown."""
    run = services.policies.evaluate(selected, against or "", judge or "", int(prompts))
    gr.Info(policies_view.evaluation_text(run, judge or ""))
    return gr.Timer(active=True)


def ask_promote(services: Services, selected: str | None) -> tuple[Any, ...]:
    """Ask before the champion changes."""
    chosen = services.policies.get_policy(given(selected, "a policy"))
    gate = gate_view.gate_sentence(_decision(services, chosen.policy.id))
    question = policies_view.promote_question(chosen, services.policies.champion_name(), gate)
    return gr.update(value=question, visible=True), gr.update(visible=True)


def promote(services: Services, selected: str | None) -> tuple[Any, ...]:
    """Make the policy shown the champion."""
    chosen = given(selected, "a policy")
    promotion = services.policies.promote(chosen)
    gr.Info(policies_view.promoted_text(promotion.policy, promotion.previous, promotion.run is not None))
    return select(services, chosen)


def keep_champion(_services: Services) -> tuple[Any, ...]:
    """Close the question; nothing changes."""
    return _closed()


def _closed() -> tuple[Any, ...]:
    return gr.update(visible=False), gr.update(visible=False)


def check_model(services: Services, model: str, template: str) -> Iterator[tuple[Any, ...]]:
    """Tell how far the check of a model is, then show its report; nothing is added."""
    named = _named(model)

    def check(say: Callable[[str], None]) -> Any:
        return services.policies.check(named, chat_template=template or None, say=say, apart=True)

    report = yield from _examined(check, 0)
    yield model_view.report_panel(report), *_free(True)


def add_model(services: Services, model: str, name: str, template: str) -> Iterator[tuple[Any, ...]]:
    """Tell how far the examination of a model is, then add it, and empty the form for the next one."""
    named = _named(model)

    def add(say: Callable[[str], None]) -> Any:
        asked = name.strip() or None
        return services.policies.add(named, asked, chat_template=template or None, say=say, apart=True)

    added = yield from _examined(add, 3)
    yield model_view.added_panel(added), *_free(True), "", "", added.policy.id


def _examined(work: Callable[[Callable[[str], None]], T], others: int) -> Generator[tuple[Any, ...], None, T]:
    """What ``work`` finds; meanwhile the page tells how far it is, lets nobody begin again, and leaves the rest."""
    rest = (gr.skip(),) * others
    steps = while_waiting(work)
    try:
        while True:
            said, seconds = next(steps)
            yield model_view.examining(said or "Starting", seconds), *_free(False), *rest
    except StopIteration as ended:
        found: T = ended.value
        return found
    except StudioError as error:
        yield model_view.failed_panel(error), *_free(True), *rest
        raise
    finally:
        steps.close()


def _free(is_free: bool) -> tuple[Any, ...]:
    """Whether a model can be checked or added now."""
    return gr.Button(interactive=is_free), gr.Button(interactive=is_free)


def _named(model: str) -> str:
    """The model that was named; InvalidInput, a toast, where none was."""
    if not model.strip():
        raise InvalidInput(
            "Name a model first: a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct, a server's address such as "
            "http://127.0.0.1:8000/v1#MODEL, smollm2 or starter."
        )
    return model.strip()


def build_add_form(services: Services, selected: gr.State, shown: list[Any]) -> None:
    """Lay out and connect the form that adds a model, folded away until it is asked for."""
    with gr.Row(elem_id="add-model-bar"):
        model = gr.Textbox(
            label="Model",
            info="A Hugging Face id, a server's http://HOST:PORT/v1#MODEL, smollm2 or starter; for admins also a path",
            placeholder="Qwen/Qwen2.5-0.5B-Instruct",
            elem_id="model-id",
            min_width=280,
            max_lines=1,
            scale=3,
        )
        name = gr.Textbox(
            label="Name", info="Left out, after the model", elem_id="model-name", min_width=150, max_lines=1
        )
        template = gr.Dropdown(
            model_view.template_choices(),
            value="",
            label="Chat template",
            info="For a model without one",
            elem_id="model-template",
            min_width=170,
        )
    with gr.Row(elem_id="add-model-acts"):
        check_button = gr.Button("Check", elem_id="check-model", min_width=120)
        add_button = gr.Button("Add", variant="primary", elem_id="add-model", min_width=120)
    found = markup(elem_id="model-found")
    acts = [found, check_button, add_button]
    check_button.click(bind_steps(check_model, services), [model, template], acts, **TOLD)
    added = add_button.click(
        bind_steps(add_model, services), [model, name, template], [*acts, model, name, selected], **TOLD
    )
    added.success(bind(select, services), [selected], shown, **TOLD)


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    selected = gr.State(None)
    looking = gr.Timer(2.0, active=False)
    build_board(services, tab, looking)
    markup("<h3>Policies</h3>", elem_id="policies-head")
    table = picker("policies-table")
    adding = gr.Accordion("Add a model", open=False, elem_id="add-model-form")
    detail = markup(elem_id="policy-detail")
    with gr.Column(visible=False, elem_id="policy-acts") as acts:
        with gr.Row(elem_id="compare-bar"):
            against = gr.Dropdown(
                [], label="Compare with", info="Both answer the same prompts", elem_id="compare-with", min_width=180
            )
            judge = gr.Dropdown(
                [],
                label="Judge",
                info="People, a rule or a reward model, blind",
                elem_id="judge",
                min_width=180,
            )
            prompts = gr.Number(
                150,
                label="Held-out prompts",
                info="Ones no dataset ever saw",
                precision=0,
                minimum=2,
                elem_id="eval-prompts",
                min_width=150,
            )
            evaluate_button = gr.Button("Measure win rate", elem_id="evaluate", min_width=160)
        with gr.Row(elem_id="benchmark-bar"):
            tasks = gr.Textbox(
                ",".join(STANDARD_TASKS),
                label="Benchmark tasks",
                info="Tasks of lm-evaluation-harness, separated by commas; both policies take them",
                elem_id="benchmark-tasks",
                min_width=260,
            )
            take_button = gr.Button("Take benchmarks", elem_id="take-benchmarks", min_width=160)
        with gr.Row(elem_id="export-bar"):
            kind = gr.Dropdown(
                list(policies_view.EXPORT_CHOICES),
                value=policies_view.USUAL_EXPORT,
                label="Export as",
                info="Files for other programs, compared with the policy before they can be downloaded",
                elem_id="export-kind",
                min_width=260,
            )
            export_button = gr.Button("Export", elem_id="export-policy", min_width=160)
        exports = markup(elem_id="policy-exports")
        promote_button = gr.Button("Promote", variant="primary", elem_id="promote")
        question = markup(elem_id="promote-question", visible=False)
        with gr.Row(visible=False, elem_id="promote-confirm") as confirm:
            yes = gr.Button("Yes, promote it", variant="primary", elem_id="promote-yes")
            no = gr.Button("No, leave it", elem_id="promote-no")

    seen = [table, detail, looking, exports]
    shown = [*seen, selected, acts, against, promote_button, question, confirm]
    with adding:
        build_add_form(services, selected, shown)
    tab.select(bind(refresh, services), [selected], [*seen, judge], **QUICK)
    looking.tick(bind(watch, services), [selected], seen, **QUICK)
    on_pick(table, select, services, [], shown)
    evaluate_button.click(bind(evaluate, services), [selected, against, judge, prompts], [looking], **TOLD)
    take_button.click(bind(take_benchmarks, services), [selected, against, tasks], [looking], **TOLD)
    export_button.click(bind(start_export, services), [selected, kind], [looking, exports], **TOLD)
    promote_button.click(bind(ask_promote, services), [selected], [question, confirm], **TOLD)
    yes.click(bind(promote, services), [selected], shown, **TOLD)
    no.click(bind(keep_champion, services), None, [question, confirm], **QUICK)
