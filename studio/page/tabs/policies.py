"""Policies: who can reply, who serves, how they compare and where they came from."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback.types import now
from studio.page.tabs.board import build_board
from studio.page.tabs.wiring import QUICK, TOLD, bind, given, markup, on_pick, picker
from studio.page.views import gate as gate_view
from studio.page.views import policies as policies_view
from studio.services.facade import Services
from studio.services.policies import PolicySummary
from training.evaluation.gate import Decision
from training.settings.benchmark import STANDARD_TASKS

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


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    selected = gr.State(None)
    looking = gr.Timer(2.0, active=False)
    build_board(services, tab, looking)
    markup("<h3>Policies</h3>", elem_id="policies-head")
    table = picker("policies-table")
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
    tab.select(bind(refresh, services), [selected], [*seen, judge], **QUICK)
    looking.tick(bind(watch, services), [selected], seen, **QUICK)
    on_pick(table, select, services, [], shown)
    evaluate_button.click(bind(evaluate, services), [selected, against, judge, prompts], [looking], **TOLD)
    take_button.click(bind(take_benchmarks, services), [selected, against, tasks], [looking], **TOLD)
    export_button.click(bind(start_export, services), [selected, kind], [looking, exports], **TOLD)
    promote_button.click(bind(ask_promote, services), [selected], [question, confirm], **TOLD)
    yes.click(bind(promote, services), [selected], shown, **TOLD)
    no.click(bind(keep_champion, services), None, [question, confirm], **QUICK)
