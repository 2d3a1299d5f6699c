"""Playground: talk with one policy, or with two side by side.

The scripts in ``assets/playground`` draw the chat and ask ``studio.web.playground`` for what is said.
"""

from __future__ import annotations

import gradio as gr

from studio.page.tabs.wiring import markup
from studio.page.views import playground as playground_view


def build_tab(tab: gr.Tab) -> None:
    """Lay the tab out; its scripts begin when it is opened."""
    markup(playground_view.screen(), elem_id="playground")
    tab.select(None, None, None, js="() => { window.studio.playground.open(); return []; }")
