"""Label: one prompt, its replies, one keystroke.

The scripts in ``assets/`` draw the screen; Gradio carries their messages. Each act is a hidden button whose handler
takes a ticket and gives an answer, both JSON. A ticket names the lease that was on the screen, so a vote counts for
what was seen, whatever was pressed twice, reloaded or open in two windows. An answer names the tasks this browser
holds: the one to show and the one after it, fetched ahead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from feedback.errors import Conflict, InvalidInput, LeaseLost, NotFound
from feedback.labeling.amending import REMARKS
from feedback.labeling.assignment import Task
from feedback.store.rows import value_of
from feedback.tables import ReviewRow
from feedback.types import Guidelines, UserRole, now
from studio import present
from studio.services import DECK_SIZE, LOCAL_ANNOTATOR, Services
from studio.tabs import QUICK, TOLD, bind, markup

_SAID = {
    "verdict", "strength", "ranking", "skip_reason",
    "rationale", "edited", "spans", "criteria", "flag", "active_ms",
}  # fmt: skip
MESSAGES = 20
"""How many of a reviewer's messages an annotator is shown, the newest first."""
_AWAY = "While this page was away, that pair went back to the pool or to another window. Here is another one."
_SAVED_BEFORE = "Already judged in another window: the first answer was kept. Here is the next one."
_LOST = "This pair had gone back to the pool, so it was not counted. Here is the next one."
_KEPT = " What you typed is kept for when it comes back."


def show(services: Services, ticket: str) -> str:
    """What the browser's session holds, else the next task, else the empty state; and what reviewers wrote."""
    return _answer(services, _read(ticket), messages=present.messages(_messages(services)))


def vote(services: Services, ticket: str) -> str:
    """Record what was said of the task on screen; the answer names the next."""
    asked = _read(ticket)
    said = {name: value for name, value in asked.get("said", {}).items() if name in _SAID}
    version = asked.get("guidelines")
    if isinstance(version, int) and 0 <= version < int(services.guidelines().version or 0):
        said["guidelines"] = version
    lease = str(asked.get("lease", ""))
    try:
        submitted = services.judge(lease, **said)
    except (LeaseLost, NotFound):
        late = _late(services, lease, said)
        note = _LOST if late is None else _SAVED_BEFORE if late.get("judged") else _LOST + _KEPT
        return _answer(services, asked, note, late=late)
    except InvalidInput as error:
        return json.dumps({"seq": asked["seq"], "refused": str(error)})
    # The pair after the next one is fetched when the person is reading again.
    if submitted.created:
        return _answer(services, asked, size=1)
    late = _late(services, lease, said)
    return _answer(services, asked, _SAVED_BEFORE, size=1, late=late)


def late(services: Services, ticket: str) -> str:
    """What was typed about a pair that went from the screen: what its judgment lacks, or a draft until it is judged."""
    asked = _read(ticket)
    found = _late(services, str(asked.get("lease", "")), _remarks(asked))
    return json.dumps({"seq": asked["seq"], "late": found})


def add(services: Services, ticket: str) -> str:
    """Add what was typed to the saved judgment, as its next revision."""
    asked = _read(ticket)
    lease = str(asked.get("lease", ""))
    try:
        services.add_remarks(lease, _remarks(asked))
    except (Conflict, NotFound, InvalidInput) as error:
        return json.dumps({"seq": asked["seq"], "lease": lease, "refused": str(error)})
    return json.dumps({"seq": asked["seq"], "lease": lease, "added": True})


def _remarks(asked: dict[str, Any]) -> dict[str, Any]:
    given = asked.get("said")
    return {name: given[name] for name in REMARKS if given.get(name)} if isinstance(given, dict) else {}


def _late(services: Services, lease: str, said: dict[str, Any]) -> dict[str, Any] | None:
    """What became of words whose judgment is not theirs: None where there were none, or where it has them all."""
    words = {name: said[name] for name in REMARKS if said.get(name)}
    if not words:
        return None
    try:
        missing = services.missing_remarks(lease, words)
        if missing is None:
            services.save_draft(lease, words)
            return {"lease": lease, "judged": False}
    except (LeaseLost, NotFound, InvalidInput):
        return None
    return {"lease": lease, "judged": True, "said": missing, "html": present.late_words(missing)} if missing else None


def undo(services: Services, ticket: str) -> str:
    """Take the last judgment back and show its task again."""
    asked = _read(ticket)
    task = services.undo(asked["session"])
    note = "There is nothing to take back." if task is None else "Taken back: judge this one again."
    return _answer(services, asked, note)


def fill(services: Services, ticket: str) -> str:
    """Have the model write replies for the pool."""
    services.fill_pool()
    return _answer(services, _read(ticket))


def draft(services: Services, ticket: str) -> str:
    """Keep what is typed and set so far; one that comes after its judgment is not kept."""
    asked = _read(ticket)
    lease = str(asked.get("lease", ""))
    try:
        services.save_draft(lease, asked.get("content", {}))
    except (LeaseLost, NotFound, InvalidInput):
        return json.dumps({"seq": asked["seq"], "lease": lease, "kept": False})
    return json.dumps({"seq": asked["seq"], "lease": lease, "kept": True})


def alive(services: Services, ticket: str) -> str:
    """The page is open: what it holds stays with it; what has gone elsewhere is replaced on the screen."""
    asked = _read(ticket)
    at_work = bool(asked.get("at_work", True))
    kept = [_kept(services, str(lease), asked["session"], at_work) for lease in asked.get("leases", [])[:DECK_SIZE]]
    if all(kept):
        return json.dumps({"seq": asked["seq"], "kept": True})
    return _answer(services, asked, "" if kept[0] else _AWAY)


def figures(services: Services, ticket: str) -> str:
    """The annotator's own work in numbers."""
    asked = _read(ticket)
    shown = present.figures(services.annotator_figures(), _messages(services), now())
    return json.dumps({"seq": asked["seq"], "figures": shown})


def ask(services: Services, text: str, criteria: str, asks_rationale: bool) -> str:
    """Add a version of what annotators are asked."""
    named = list(present.criteria_of(criteria))
    row = services.save_guidelines(value_of(Guidelines, text=text, criteria=named, asks_rationale=asks_rationale))
    gr.Info(f"Version {row.version} is what annotators see from their next pair on.")
    return row.text


def _read(ticket: str) -> dict[str, Any]:
    try:
        asked = json.loads(ticket)
        session = asked["session"]
        asked["seq"] = int(asked["seq"])
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidInput("This browser sent no session; reload the page.") from error
    if not isinstance(session, str) or not 8 <= len(session) <= 64:
        raise InvalidInput("This browser sent no session; reload the page.")
    return dict(asked)


def _kept(services: Services, lease: str, session: str, at_work: bool) -> bool:
    try:
        services.keep(lease, session, at_work=at_work)
    except (LeaseLost, NotFound):
        return False
    return True


def _messages(services: Services) -> list[ReviewRow]:
    """What reviewers wrote to this annotator last; asked for while they read, never on the way of a vote."""
    return services.reviewing.messages_for(LOCAL_ANNOTATOR)[:MESSAGES]


def _answer(services: Services, asked: dict[str, Any], note: str = "", *, size: int = DECK_SIZE, **more: Any) -> str:
    """Everything the screen needs to be right again; what the browser has already is only named."""
    known = set(asked.get("have", []))
    deck = services.deck(asked["session"], size=size)
    counts = services.label_counts(session=asked["session"])
    answer: dict[str, Any] = {
        "seq": asked["seq"],
        "deck": [{"lease": task.lease_id} if task.lease_id in known else _item(services, task) for task in deck],
        "status": present.label_status(counts),
        "note": note,
        "more": len(deck) == size < DECK_SIZE,
        **more,
    }
    if not deck:
        reasons = services.whoami().role.covers(UserRole.researcher)
        alive = services.worker_is_alive()
        answer["empty"] = present.empty_pool(services.last_fill(), counts, reasons=reasons, worker=alive)
    rules = services.guidelines()
    if rules.version != asked.get("guidelines"):
        answer["guidelines"] = {
            "version": rules.version,
            "html": present.guidelines_text(rules),
            "criteria": rules.criteria,
            "asks_rationale": rules.asks_rationale,
        }
    return json.dumps(answer)


def _item(services: Services, task: Task) -> dict[str, Any]:
    return {
        "lease": task.lease_id,
        "kind": task.kind.value,
        "html": present.pair(task),
        "texts": task.responses,
        "draft": services.draft_of(task),
    }


_ACTS: tuple[tuple[str, Callable[..., str]], ...] = (
    ("show", show),
    ("ahead", show),
    ("vote", vote),
    ("undo", undo),
    ("draft", draft),
    ("alive", alive),
    ("late", late),
    ("add", add),
    ("figures", figures),
)


def build_tab(services: Services, page: gr.Blocks) -> None:
    """Lay the tab out and connect it."""
    ticket = gr.Textbox(visible=False)
    markup(elem_id="label-status")
    markup(present.tools(), elem_id="label-tools")
    with gr.Row(elem_id="label-body"):
        markup(present.guidelines_frame(), elem_id="guidelines")
        markup(elem_id="pair")
    fill_button = gr.Button("Fill the pool", variant="primary", elem_id="fill-pool")
    markup(present.panels() + present.verdicts(), elem_id="verdicts")
    markup(present.overlays(), elem_id="overlays")
    markup(present.hint(services.starter_requests()))
    _build_rules(services)

    for act, handler in _ACTS:
        answer = gr.Textbox(visible=False)
        button = gr.Button(act, visible="hidden", elem_id=f"send-{act}")
        _connect(services, button.click, act, handler, ticket, answer)
    answer = gr.Textbox(visible=False)
    _connect(services, fill_button.click, "fill", fill, ticket, answer)
    _connect(services, page.load, "show", show, ticket, gr.Textbox(visible=False))


def _connect(
    services: Services,
    event: Callable[..., Any],
    act: str,
    handler: Callable[..., str],
    ticket: gr.Textbox,
    answer: gr.Textbox,
) -> None:
    # The pool is filled from a button that a person presses; all else that is refused the ticket's answer says.
    options = TOLD if act == "fill" else QUICK if event.__name__ == "load" else {**QUICK, "trigger_mode": "multiple"}
    sent = event(bind(handler, services), [ticket], [answer], js=f"() => window.studio.ticket('{act}')", **options)
    sent.then(None, [answer], None, js=f"(answer) => {{ window.studio.receive('{act}', answer); return []; }}")


def _build_rules(services: Services) -> None:
    """What annotators are asked, for whoever runs the project."""
    rules = services.guidelines()
    with gr.Accordion("What annotators are asked", open=False, elem_id="rules"):
        text = gr.Textbox(rules.text, label="Guidelines (markdown)", lines=6, max_lines=20, elem_id="rules-text")
        criteria = gr.Textbox(
            ", ".join(rules.criteria), label="Criteria to rate, separated by commas", elem_id="rules-criteria"
        )
        asks = gr.Checkbox(rules.asks_rationale, label="Show the note field with every pair", elem_id="rules-note")
        save = gr.Button("Save as a new version", elem_id="rules-save")
    save.click(bind(ask, services), [text, criteria, asks], [text], **TOLD)
