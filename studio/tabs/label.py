"""Label: one prompt, two replies, one keystroke.

The browser names the lease it shows with every vote, so a vote counts for what was on screen, whatever was
pressed twice, reloaded or open in two windows. The answer to a vote is the next pair.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback.assignment import Task
from feedback.errors import InvalidInput, LeaseLost, NotFound
from studio import present
from studio.services import Services
from studio.tabs import QUICK, bind, markup

VOTES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("vote-left", "Left is better", {"verdict": "left"}),
    ("vote-right", "Right is better", {"verdict": "right"}),
    ("vote-tie", "Tie", {"verdict": "tie"}),
    ("vote-both-bad", "Both bad", {"verdict": "both_bad"}),
    ("vote-skip", "Skip", {"skip_reason": "not_said"}),
)
"""Button id, its words, and what pressing it says. The keys are in assets/shortcuts.js."""

_TICKET = "() => window.studio.ticket()"
_SETTLE = "() => window.studio.settle()"

View = tuple[Any, Any, Any]


def show(services: Services, _lease: str, session: str) -> View:
    """What the browser's session holds, else the next pair, else the empty state."""
    return _view(services, services.current_task(_checked(session)))


def wait(services: Services, lease: str, session: str) -> View:
    """Look for a pair while there was none; what came on the screen meanwhile is left alone."""
    return (gr.skip(), gr.skip(), gr.Timer(active=False)) if lease else show(services, lease, session)


def vote(services: Services, said: dict[str, str], lease: str, session: str) -> View:
    """Record what was said of the pair on screen and show the next."""
    try:
        services.judge(lease, **said)
    except (LeaseLost, NotFound):
        note = "That pair had gone back to the pool, so the vote was not counted. This is the next one."
        return _view(services, services.current_task(_checked(session)), note)
    return show(services, lease, session)


def undo(services: Services, _lease: str, session: str) -> View:
    """Take the last judgment back and show its pair again."""
    task = services.undo(_checked(session))
    if task is None:
        return _view(services, services.current_task(session), "There is nothing to take back in this browser.")
    return _view(services, task, "Taken back: judge this pair again.")


def fill(services: Services, lease: str, session: str) -> View:
    """Have the model write replies for the pool."""
    services.fill_pool()
    return show(services, lease, session)


def _view(services: Services, task: Task | None, note: str = "") -> View:
    status = present.label_status(services.label_counts(), note)
    if task is not None:
        return present.pair(task), status, gr.Timer(active=False)
    return present.empty_pool(services.last_fill()), status, gr.Timer(active=True)


def _checked(session: str) -> str:
    if not isinstance(session, str) or not 8 <= len(session) <= 64:
        raise InvalidInput("This browser sent no session; reload the page.")
    return session


def build_tab(services: Services, page: gr.Blocks) -> None:
    """Lay the tab out and connect it."""
    lease, session = gr.Textbox(visible=False), gr.Textbox(visible=False)
    status = markup(elem_id="label-status")
    shown = markup(elem_id="pair")
    fill_button = gr.Button("Fill the pool", variant="primary", elem_id="fill-pool")
    with gr.Row(elem_id="verdicts"):
        buttons = [
            (gr.Button(words, elem_id=elem_id, elem_classes="verdict", min_width=96), said)
            for elem_id, words, said in VOTES
        ]
        undo_button = gr.Button("Undo", elem_id="vote-undo", elem_classes="verdict", min_width=96)
    markup(present.hint(services.starter_requests()))
    again = gr.Button("Show the pair again", visible="hidden", elem_id="show-again")
    waiting = gr.Timer(1.0, active=False)

    inputs, outputs = [lease, session], [shown, status, waiting]
    for button, said in buttons:
        voted = button.click(bind(vote, services, said), inputs, outputs, js=_TICKET, **QUICK)
        voted.then(None, js=_SETTLE)
    undo_button.click(bind(undo, services), inputs, outputs, js=_TICKET, **QUICK).then(None, js=_SETTLE)
    fill_button.click(bind(fill, services), inputs, outputs, js=_TICKET, **QUICK)
    again.click(bind(show, services), inputs, outputs, js=_TICKET, **QUICK)
    waiting.tick(bind(wait, services), inputs, outputs, js=_TICKET, **QUICK)
    page.load(bind(show, services), inputs, outputs, js=_TICKET, **QUICK)
