"""Label: one prompt, its replies, one keystroke.

The scripts in ``assets/`` draw the screen and ask for what is on it; see ``studio.web.api.label_screen``.
"""

from __future__ import annotations

import gradio as gr

from feedback.store.rows import value_of
from feedback.types import Guidelines
from studio.page.tabs.wiring import TOLD, bind, markup
from studio.page.views.labeling import label as label_view
from studio.page.views.labeling import tools as tools_view
from studio.services.facade import Services


def fill(services: Services) -> None:
    """Have the model write replies for the pool."""
    services.pool.fill_pool()


def ask(services: Services, text: str, criteria: str, asks_rationale: bool) -> str:
    """Add a version of what annotators are asked."""
    named = list(tools_view.criteria_of(criteria))
    row = services.labeling.save_guidelines(
        value_of(Guidelines, text=text, criteria=named, asks_rationale=asks_rationale)
    )
    gr.Info(f"Version {row.version} is what annotators see from their next pair on.")
    return row.text


def build_tab(services: Services, page: gr.Blocks) -> None:
    """Lay the tab out and connect it."""
    markup(elem_id="label-status")
    markup(tools_view.head(), elem_id="label-head")
    markup(tools_view.tools(), elem_id="label-tools")
    with gr.Row(elem_id="label-body"):
        markup(tools_view.guidelines_frame(), elem_id="guidelines")
        markup(elem_id="pair")
    fill_button = gr.Button("Fill the pool", variant="primary", elem_id="fill-pool")
    markup(tools_view.panels() + tools_view.verdicts(), elem_id="verdicts")
    markup(tools_view.overlays(), elem_id="overlays")
    markup(label_view.hint(services.prompts.starter_requests()))
    _build_rules(services)

    page.load(None, None, None, js="() => { window.studio.begin(); return []; }")
    filled = fill_button.click(bind(fill, services), **TOLD)
    filled.success(None, None, None, js="() => { window.studio.filled(); return []; }")


def _build_rules(services: Services) -> None:
    """What annotators are asked, for whoever runs the project."""
    rules = services.labeling.guidelines()
    with gr.Accordion("What annotators are asked", open=False, elem_id="rules"):
        text = gr.Textbox(rules.text, label="Guidelines (markdown)", lines=6, max_lines=20, elem_id="rules-text")
        criteria = gr.Textbox(
            ", ".join(rules.criteria), label="Criteria to rate, separated by commas", elem_id="rules-criteria"
        )
        asks = gr.Checkbox(rules.asks_rationale, label="Show the note field with every pair", elem_id="rules-note")
        save = gr.Button("Save as a new version", elem_id="rules-save")
    save.click(bind(ask, services), [text, criteria, asks], [text], **TOLD)
