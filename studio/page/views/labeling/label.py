"""The Label tab: a pair, the counter, the empty pool, the hint. Nothing here can mention a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feedback.labeling.assignment import Task
from feedback.store.labeling.idle_leases import COUNTED
from feedback.tables import RunRow
from feedback.types import MatchupKind, RunState
from studio.page.commands import on_the_page
from studio.page.html import Html, element, escape, join, notice, plain_text, progress_bar
from studio.page.markdown import formatted
from studio.page.text import label_of
from studio.page.worker_notice import no_worker
from studio.services.labeling import LabelCounts

ROLE_LABELS = {"system": "Instructions", "user": "Request", "assistant": "Earlier reply"}


SIDES = ("Left", "Right")


CUT_MEANING = "The reply reached its length limit, so its end is missing. Judge what is there."
FAMILY_LABELS = {
    "story": "Short stories",
    "thanks": "Thank-you notes",
    "explain": "Explanations for a child",
    "advice": "Everyday advice",
    "naming": "Names and slogans",
    "places": "Descriptions of places",
    "wishes": "Wishes and greetings",
}


def pair(task: Task) -> Html:
    """A prompt and its replies side by side. ``data-lease`` ties every vote to exactly what is on screen."""
    size = len(task.responses)
    is_pair = size == 2 and task.kind is MatchupKind.pair
    cut = task.cut or (False,) * size
    reasoning = task.reasoning or (None,) * size
    replies = [
        _reply(i, text, is_pair=is_pair, cut=cut[i], reasoning=reasoning[i]) for i, text in enumerate(task.responses)
    ]
    context = element(
        "section", _conversation(task.messages), class_="prompt-card", aria_label="The request", tabindex=0
    )
    track = element("div", *replies, class_="replies", data_size=size, role="group", aria_label="The replies")
    return element(
        "article",
        context,
        _reply_tabs() if is_pair else "",
        track,
        class_="pair",
        tabindex=-1,
        aria_label="The request and its replies",
        data_lease=task.lease_id,
        data_kind=task.kind.value,
    )


def _reply_tabs() -> Html:
    """Both headings for a phone, where the replies stand beside each other and one is in sight: a press goes to it."""
    tabs = (
        element(
            "button",
            element("span", index + 1, class_="keycap", aria_hidden="true"),
            element("span", "Show the ", class_="unseen"),
            side,
            element("span", " reply", class_="unseen"),
            type="button",
            class_=f"reply-tab side-{side.lower()}",
            data_reply=index,
            aria_pressed="false" if index else "true",
        )
        for index, side in enumerate(SIDES)
    )
    return element("div", *tabs, class_="reply-tabs", role="group", aria_label="Which reply is in sight")


def _conversation(messages: Sequence[Mapping[str, str]]) -> Html:
    turns = (
        element(
            "div",
            element("div", ROLE_LABELS.get(message["role"], message["role"]), class_="turn-role"),
            _written(message["content"]),
            class_=f"turn turn-{message['role']}",
        )
        for message in messages
    )
    return join(turns)


def _written(text: str) -> Html:
    """A text as written and, where it has any markup of its own, as meant; the page shows one of the two."""
    as_meant = formatted(text)
    shown = join([plain_text(text), as_meant]) if as_meant is not None else plain_text(text)
    kind = "written has-format" if as_meant is not None else "written"
    return element("div", shown, class_=kind, translate="no")  # what is judged is what was written


def _reply(index: int, text: str, *, is_pair: bool, cut: bool = False, reasoning: str | None = None) -> Html:
    side = SIDES[index] if is_pair else f"Reply {index + 1}"
    name = f"{side} reply" if is_pair else side
    pick: object = element("span", index + 1, class_="keycap", aria_hidden="true")
    if not is_pair:
        pick = element(
            "button", index + 1, type="button", class_="keycap rank-pick", data_index=index,
            aria_label=f"Give reply {index + 1} the next place",
        )  # fmt: skip
    heading = element(
        "h3",
        pick,
        element("span", name, class_="side-name"),
        element("span", "", class_="place"),
        element("span", "cut", class_="cut-note", title=CUT_MEANING) if cut else "",
        element("span", "edited", class_="edited-note"),
        element("span", "", class_="diff-note"),
        class_="reply-heading",
    )
    different = element("div", "", class_="diff-view", dir="auto", translate="no")
    thought = _reasoning(reasoning) if reasoning else ""
    kind = f"reply-card side-{side.lower()}" if is_pair else "reply-card"
    return element("section", heading, thought, _written(text), different, class_=kind, aria_label=name)


def _reasoning(text: str) -> Html:
    """What a model wrote before its reply, folded away: the reply is what is judged, compared, marked and edited."""
    shown = element("div", text, class_="reasoning-text", dir="auto", translate="no")
    return element("details", element("summary", "Reasoning"), shown, class_="reasoning")


def label_status(counts: LabelCounts) -> Html:
    """How far the annotator is: judged, skipped, what is open for them, and a bar of the first and the last.

    ``data-total`` lets the page's script count on from what was answered today.
    """
    total = counts.done + counts.left
    skipped = element("span", element("strong", f"{counts.skipped:,}"), " skipped", class_="count-skipped")
    left = f"{counts.left:,}" + ("+" if counts.left >= COUNTED else "")
    elsewhere = element("span", _elsewhere(counts), class_="count-elsewhere") if counts.elsewhere else ""
    return element(
        "div",
        element(
            "div",
            element("span", element("strong", f"{counts.done:,}"), " judged by you", class_="count-done"),
            skipped if counts.skipped else "",
            element("span", element("strong", left), " open for you", class_="count-left"),
            elsewhere,
            class_="counter",
        ),
        progress_bar(counts.done / total if total else 0.0, "Share of what is open for you that you have judged"),
        class_="label-status",
        data_total=counts.done + counts.skipped,
    )


def _elsewhere(counts: LabelCounts) -> Html:
    """What other windows of this person hold; the page's script writes the time as their clock shows it."""
    are = "are" if counts.elsewhere != 1 else "is"
    head = f"{counts.elsewhere:,} {are} open in other windows"
    if counts.until is None:
        return escape(head)
    moment = element("time", f"{counts.until:%H:%M} UTC", datetime=counts.until.isoformat())
    return join([f"{head} until ", moment])


def empty_pool(
    fill: RunRow | None, counts: LabelCounts | None = None, *, reasons: bool = True, worker: bool = True
) -> Html:
    """Why there is nothing to judge, and what can be done about it.

    Without ``reasons`` what a run says of its failure is left out: it may name a policy, or the server it replies from.
    ``worker`` says whether a worker is running; without one nothing that is queued begins.
    """
    counts = counts or LabelCounts(0, 0)
    waits = fill is not None and not fill.state.is_terminal
    begins = fill is None or fill.state is RunState.queued or fill.state.is_terminal
    parts = [] if worker or not begins else [no_worker(may_start=reasons)]
    if counts.elsewhere:
        parts.append(_in_other_windows(counts))
    if fill is not None and waits and (worker or not begins):
        parts.append(_filling(fill))
    elif not waits and not counts.elsewhere:
        parts.append(_idle_pool(fill, counts.pool, reasons))
    return element("div", *parts, class_="pair-empty pool-waits" if waits else "pair-empty")


def _filling(fill: RunRow) -> Html:
    queued = fill.state is RunState.queued
    return notice(
        "The model is writing new replies",
        "The run waits for the worker to take it." if queued else fill.progress_text or "Starting …",
        "Pairs appear here by themselves; you can leave this page open.",
        progress_bar(fill.progress, "Progress of the run that fills the pool"),
        tone="busy",
    )


def _in_other_windows(counts: LabelCounts) -> Html:
    """Pairs that this person has open elsewhere come here as soon as that window is closed."""
    return notice(
        _elsewhere(counts),
        "Go on in that window, or close it: what it holds comes here within a minute.",
        tone="warn",
    )


def _idle_pool(fill: RunRow | None, left: int, reasons: bool) -> Html:
    if fill is not None and fill.state in (RunState.failed, RunState.interrupted):
        reason = on_the_page(fill.error or "") or "Its process ended without saying why; the log is on the Train tab."
        reason = reason if reasons else "Why, a researcher can read on the Train tab."
        return notice(
            "The pool could not be filled",
            reason,
            "A researcher or an admin can try again with the button.",
            tone="bad",
        )
    if fill is not None and fill.state is RunState.succeeded and not fill.result.get("matchups"):
        return notice(
            "No new pairs came of the last run",
            "Every prompt already has a pair waiting, or the replies to it were identical.",
            "A researcher adds prompts and then presses the button.",
            tone="warn",
        )
    return notice(
        "Nothing to judge right now",
        "What is open in the pool is for others: you have judged or skipped it, or somebody is at it." if left else "",
        "No pair waits for you. A researcher or an admin fills the pool: the button lets the model write two replies "
        "to each of a batch of prompts.",
        "If you are an annotator, tell one of them, and leave this page open: new pairs appear here by themselves.",
    )


def hint(families: Sequence[tuple[str, str]]) -> Html:
    """Which requests the bundled policy understands: a family and an example each."""
    if not families:
        return Html("")
    items = (
        element("li", element("strong", FAMILY_LABELS.get(name, label_of(name))), f": {example}")
        for name, example in families
    )
    return element(
        "details",
        element("summary", "Which requests the starter model understands"),
        element(
            "p",
            "The bundled model is very small. It knows these kinds of request and answers anything else fluently "
            "but off the point:",
        ),
        element("ul", *items),
        class_="hint",
    )
